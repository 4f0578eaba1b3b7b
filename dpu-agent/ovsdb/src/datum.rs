//! Values of columns and their JSON (RFC 7047 section 5.1).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use uuid::Uuid;

/// One value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Atom {
    /// 64 bits, signed.
    Integer(i64),
    /// A floating-point number.
    Real(Real),
    /// True or false.
    Boolean(bool),
    /// A text.
    String(String),
    /// A row of the database.
    Uuid(Uuid),
    /// A row that the same transaction inserts under this name.
    Named(String),
}

/// A floating-point number in the total order of IEEE 754, so that it can be a member of a set.
#[derive(Debug, Clone, Copy)]
pub struct Real(pub f64);

/// What a column holds: none, one or many of one type, in order; or pairs. A scalar is a set of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Datum {
    /// Values.
    Set(BTreeSet<Atom>),
    /// Keys with values.
    Map(BTreeMap<Atom, Atom>),
}

/// JSON that is no value of a column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no OVSDB value")]
pub struct DatumError(String);

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Real {}

impl PartialOrd for Real {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Real {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Atom {
    /// Its JSON: `<atom>`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Integer(n) => json!(n),
            Self::Real(real) => json!(real.0),
            Self::Boolean(yes) => json!(yes),
            Self::String(text) => json!(text),
            Self::Uuid(uuid) => json!(["uuid", uuid]),
            Self::Named(name) => json!(["named-uuid", name]),
        }
    }

    /// Reads `<atom>`.
    ///
    /// # Errors
    /// [`DatumError`].
    pub fn parse(json: &Value) -> Result<Self, DatumError> {
        let read = || match json {
            Value::String(text) => Some(Self::String(text.clone())),
            Value::Bool(yes) => Some(Self::Boolean(*yes)),
            Value::Number(n) => {
                n.as_i64().map(Self::Integer).or_else(|| n.as_f64().map(|r| Self::Real(Real(r))))
            }
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(tag), Value::String(uuid)] if tag == "uuid" => {
                    uuid.parse().ok().map(Self::Uuid)
                }
                [Value::String(tag), Value::String(name)] if tag == "named-uuid" => {
                    Some(Self::Named(name.clone()))
                }
                _ => None,
            },
            _ => None,
        };
        read().ok_or_else(|| wrong(json))
    }
}

impl Datum {
    /// Nothing: an optional column without a value, or a set without members.
    pub fn empty() -> Self {
        Self::Set(BTreeSet::new())
    }

    /// Members of a set.
    pub fn set<T: Into<Atom>>(members: impl IntoIterator<Item = T>) -> Self {
        Self::Set(members.into_iter().map(Into::into).collect())
    }

    /// Texts by text, as columns such as `external_ids` and `options` are.
    pub fn map<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::Map(pairs.into_iter().map(|(k, v)| (Atom::String(k.into()), Atom::String(v.into()))).collect())
    }

    /// The value, where there is exactly one.
    pub fn one(&self) -> Option<&Atom> {
        match self {
            Self::Set(set) if set.len() == 1 => set.first(),
            _ => None,
        }
    }

    /// The text, where there is exactly one.
    pub fn text(&self) -> Option<&str> {
        match self.one() {
            Some(Atom::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The number under a key of a map of numbers.
    pub fn integer_at(&self, key: &str) -> Option<i64> {
        let Self::Map(map) = self else { return None };
        match map.get(&Atom::from(key)) {
            Some(Atom::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    /// The text under a key of a map of texts.
    pub fn text_at(&self, key: &str) -> Option<&str> {
        let Self::Map(map) = self else { return None };
        match map.get(&Atom::from(key)) {
            Some(Atom::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The rows it refers to, in order.
    pub fn uuids(&self) -> impl Iterator<Item = Uuid> {
        let set = match self {
            Self::Set(set) => Some(set),
            Self::Map(_) => None,
        };
        set.into_iter().flatten().filter_map(|atom| match atom {
            Atom::Uuid(uuid) => Some(*uuid),
            _ => None,
        })
    }

    /// Its JSON: `<value>`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Set(set) => match self.one() {
                Some(atom) => atom.to_json(),
                None => json!(["set", set.iter().map(Atom::to_json).collect::<Vec<_>>()]),
            },
            Self::Map(map) => {
                json!(["map", map.iter().map(|(k, v)| [k.to_json(), v.to_json()]).collect::<Vec<_>>()])
            }
        }
    }

    /// Reads `<value>`.
    ///
    /// # Errors
    /// [`DatumError`].
    pub fn parse(json: &Value) -> Result<Self, DatumError> {
        let Value::Array(array) = json else { return Ok(Self::set([Atom::parse(json)?])) };
        match array.as_slice() {
            [Value::String(tag), Value::Array(members)] if tag == "set" => {
                Ok(Self::Set(members.iter().map(Atom::parse).collect::<Result<_, _>>()?))
            }
            [Value::String(tag), Value::Array(pairs)] if tag == "map" => {
                Ok(Self::Map(pairs.iter().map(pair).collect::<Result<_, _>>()?))
            }
            _ => Ok(Self::set([Atom::parse(json)?])),
        }
    }

    /// What `self` becomes by a difference as `update2` and `update3` send it: members that are in one of the two only,
    /// pairs that came, changed or went (`ovsdb-server(7)`, section 4.1.14).
    pub(crate) fn changed_by(&mut self, difference: Self) {
        match (self, difference) {
            (Self::Set(have), Self::Set(difference)) => {
                for atom in difference {
                    if !have.remove(&atom) {
                        have.insert(atom);
                    }
                }
            }
            (Self::Map(have), Self::Map(difference)) => {
                for (key, value) in difference {
                    // A pair that went is sent as it was.
                    if have.get(&key) == Some(&value) {
                        have.remove(&key);
                    } else {
                        have.insert(key, value);
                    }
                }
            }
            (have, new) => *have = new,
        }
    }
}

fn pair(json: &Value) -> Result<(Atom, Atom), DatumError> {
    match json.as_array().map(Vec::as_slice) {
        Some([key, value]) => Ok((Atom::parse(key)?, Atom::parse(value)?)),
        _ => Err(wrong(json)),
    }
}

fn wrong(json: &Value) -> DatumError {
    DatumError(json.to_string().chars().take(80).collect())
}

impl From<&str> for Atom {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Atom {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<i64> for Atom {
    fn from(n: i64) -> Self {
        Self::Integer(n)
    }
}

impl From<bool> for Atom {
    fn from(yes: bool) -> Self {
        Self::Boolean(yes)
    }
}

impl From<Uuid> for Atom {
    fn from(uuid: Uuid) -> Self {
        Self::Uuid(uuid)
    }
}

impl<T: Into<Atom>> From<T> for Datum {
    fn from(value: T) -> Self {
        Self::set([value])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn atom() -> impl Strategy<Value = Atom> {
        prop_oneof![
            any::<i64>().prop_map(Atom::Integer),
            any::<bool>().prop_map(Atom::Boolean),
            (-1.0e9..1.0e9_f64).prop_map(|r| Atom::Real(Real(r + 0.5))),
            ".{0,8}".prop_map(Atom::String),
            any::<u128>().prop_map(|n| Atom::Uuid(Uuid::from_u128(n))),
            "[a-z]{1,4}".prop_map(Atom::Named),
        ]
    }

    fn datum() -> impl Strategy<Value = Datum> {
        prop_oneof![
            prop::collection::btree_set(atom(), 0..4).prop_map(Datum::Set),
            prop::collection::btree_map(atom(), atom(), 0..4).prop_map(Datum::Map),
        ]
    }

    #[test]
    fn as_the_rfc_writes_it() {
        for text in [
            r#""a""#,
            "7",
            "true",
            r#"["set",[]]"#,
            r#"["set",[1,2]]"#,
            r#"["uuid","5f6a4e3e-0000-4000-8000-000000000001"]"#,
            r#"["map",[["a","b"]]]"#,
            r#"["named-uuid","row1"]"#,
        ] {
            let json: Value = serde_json::from_str(text).unwrap();
            assert_eq!(Datum::parse(&json).unwrap().to_json().to_string(), text);
        }
        for bad in
            [r#"["uuid","x"]"#, r#"["set",1]"#, r#"["map",[["a"]]]"#, "null", "{}", "[]", r#"["x","y"]"#]
        {
            assert!(Datum::parse(&serde_json::from_str(bad).unwrap()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn json_and_back(datum in datum()) {
            prop_assert_eq!(Datum::parse(&datum.to_json()).unwrap(), datum);
        }

        /// A set becomes any other by what is in one of them only.
        #[test]
        fn differences_of_sets(
            have in prop::collection::btree_set(0_i64..9, 0..6), want in prop::collection::btree_set(0_i64..9, 0..6)
        ) {
            let difference = Datum::set(have.symmetric_difference(&want).copied());
            let mut datum = Datum::set(have);
            datum.changed_by(difference);
            prop_assert_eq!(datum, Datum::set(want));
        }
    }
}
