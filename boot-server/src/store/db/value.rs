//! What goes into statements and what comes out of rows: integers, text, octets, fractions, nothing else.

use std::borrow::Cow;

/// The kind of a parameter. PostgreSQL is told it when a statement is prepared, so that nothing is guessed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 64 bits, signed; also of booleans (0, 1).
    Integer,
    /// 64 bits, IEEE 754.
    Real,
    /// UTF-8.
    Text,
    /// Octets.
    Blob,
}

/// A value of a statement or a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// None.
    Null,
    /// See [`Kind::Integer`].
    Integer(i64),
    /// See [`Kind::Real`].
    Real(f64),
    /// See [`Kind::Text`].
    Text(&'a str),
    /// See [`Kind::Blob`].
    Blob(&'a [u8]),
}

/// A type whose values are of one kind, also where there is none.
pub trait Typed {
    /// The kind.
    const KIND: Kind;
}

/// What can be a parameter.
pub trait ToSql {
    /// Its kind, also where it is null.
    fn kind(&self) -> Kind;
    /// What it is.
    fn value(&self) -> Value<'_>;
}

/// What a column can be read as.
pub trait FromSql: Sized {
    /// `None` where the value is of another kind, or does not fit.
    fn of(value: Value<'_>) -> Option<Self>;
}

impl<T: Typed + ?Sized> Typed for &T {
    const KIND: Kind = T::KIND;
}

impl<T: ToSql + ?Sized> ToSql for &T {
    fn kind(&self) -> Kind {
        T::kind(self)
    }

    fn value(&self) -> Value<'_> {
        T::value(self)
    }
}

impl<T: Typed + ToSql> ToSql for Option<T> {
    fn kind(&self) -> Kind {
        T::KIND
    }

    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, T::value)
    }
}

impl<T: FromSql> FromSql for Option<T> {
    fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::of(value).map(Some),
        }
    }
}

/// Parameters of one kind.
macro_rules! to_sql {
    ($kind:ident: $($type:ty => |$it:ident| $value:expr),+ $(,)?) => {$(
        impl Typed for $type {
            const KIND: Kind = Kind::$kind;
        }

        impl ToSql for $type {
            fn kind(&self) -> Kind {
                Kind::$kind
            }

            fn value(&self) -> Value<'_> {
                let $it = self;
                Value::$kind($value)
            }
        }
    )+};
}

to_sql!(Integer: i64 => |it| *it, i32 => |it| (*it).into(), u32 => |it| (*it).into(), u16 => |it| (*it).into(),
    u8 => |it| (*it).into(), bool => |it| (*it).into());
to_sql!(Real: f64 => |it| *it);
to_sql!(Text: str => |it| it, String => |it| it, Cow<'_, str> => |it| it);
to_sql!(Blob: [u8] => |it| it, Vec<u8> => |it| it);

impl<const N: usize> Typed for [u8; N] {
    const KIND: Kind = Kind::Blob;
}

impl<const N: usize> ToSql for [u8; N] {
    fn kind(&self) -> Kind {
        Kind::Blob
    }

    fn value(&self) -> Value<'_> {
        Value::Blob(self)
    }
}

/// Integers that fit.
macro_rules! from_integer {
    ($($type:ty),+) => {$(
        impl FromSql for $type {
            fn of(value: Value<'_>) -> Option<Self> {
                match value {
                    Value::Integer(n) => n.try_into().ok(),
                    _ => None,
                }
            }
        }
    )+};
}

from_integer!(i64, i32, u64, u32, u16, u8, usize);

impl FromSql for bool {
    fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Integer(n) => Some(n != 0),
            _ => None,
        }
    }
}

impl FromSql for f64 {
    fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Real(n) => Some(n),
            // A sum or a column of fractions that are whole.
            Value::Integer(n) => Some(n as Self),
            _ => None,
        }
    }
}

impl FromSql for String {
    fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.to_owned()),
            _ => None,
        }
    }
}

impl FromSql for Vec<u8> {
    fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Blob(octets) => Some(octets.to_vec()),
            _ => None,
        }
    }
}
