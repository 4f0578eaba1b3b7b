//! One connection to PostgreSQL: its prepared statements, what goes in, what comes out, and whether it still lives.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error as _;
use std::time::{Duration, Instant};

use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql as Parameter, Type, to_sql_checked};

use super::client::{Client, Owned};
use super::server::{Access, Server};
use super::{Error, Kind, Result, ToSql, Value, dialect};

/// Statements that are kept prepared; statements are texts of ours, of which there are some hundred.
const PREPARED_MAX: usize = 1024;
/// First pause between two attempts to connect; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

type Boxed = Box<dyn std::error::Error + Sync + Send>;

/// A connection.
pub(super) struct Session {
    /// Taken only when it ends.
    client: Option<Client>,
    /// It broke: nobody waits for its end.
    broken: Cell<bool>,
    statements: HashMap<String, Vec<(Vec<Kind>, tokio_postgres::Statement)>>,
}

impl Session {
    pub(super) fn new(client: Client) -> Self {
        Self { client: Some(client), broken: Cell::new(false), statements: HashMap::new() }
    }

    fn client(&mut self) -> Result<&mut Client> {
        self.client.as_mut().ok_or_else(|| Error::Unreachable("the connection ended".into()))
    }

    pub(super) fn execute(&mut self, sql: &str, values: &[&dyn ToSql]) -> Result<usize> {
        let statement = self.prepared(sql, values)?;
        let values: Vec<Bound<'_>> = values.iter().map(|v| Bound(v.value())).collect();
        let changed =
            self.client()?.ask(async |driver| driver.execute(&statement, &parameters(&values)).await)?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    /// Sends a statement and does not wait; where it fails, so does the next one.
    pub(super) fn post(&mut self, sql: &str, values: &[&dyn ToSql]) -> Result<()> {
        let statement = self.prepared(sql, values)?;
        let values = values.iter().map(|v| owned(v.value())).collect();
        Ok(self.client()?.post(statement, values)?)
    }

    pub(super) fn query(&mut self, sql: &str, values: &[&dyn ToSql]) -> Result<Vec<tokio_postgres::Row>> {
        let statement = self.prepared(sql, values)?;
        let values: Vec<Bound<'_>> = values.iter().map(|v| Bound(v.value())).collect();
        Ok(self.client()?.ask(async |driver| driver.query(&statement, &parameters(&values)).await)?)
    }

    pub(super) fn batch(&mut self, sql: &str) -> Result<()> {
        Ok(self.client()?.ask(async |driver| driver.batch_execute(sql).await)?)
    }

    fn prepared(&mut self, sql: &str, values: &[&dyn ToSql]) -> Result<tokio_postgres::Statement> {
        let known = self.statements.get(sql).into_iter().flatten();
        let same = |kinds: &[Kind]| kinds.iter().copied().eq(values.iter().map(|v| v.kind()));
        if let Some((_, statement)) = known.into_iter().find(|(kinds, _)| same(kinds)) {
            return Ok(statement.clone());
        }
        if self.statements.len() >= PREPARED_MAX {
            self.statements.clear();
        }
        let kinds: Vec<Kind> = values.iter().map(|v| v.kind()).collect();
        let types: Vec<Type> = kinds.iter().map(|kind| type_of(*kind)).collect();
        let text = dialect::statement(sql);
        let statement = self.client()?.ask(async |driver| driver.prepare_typed(&text, &types).await)?;
        self.statements.entry(sql.to_owned()).or_default().push((kinds, statement.clone()));
        Ok(statement)
    }

    /// Whether the connection is of no more use after this error.
    pub(super) fn lost(&self, cause: &Error) -> bool {
        let Error::Postgres(cause) = cause else { return matches!(cause, Error::Unreachable(_)) };
        let lost = self.client.as_ref().is_none_or(Client::is_closed) || is_lost(cause);
        self.broken.set(self.broken.get() || lost);
        lost
    }
}

impl Drop for Session {
    /// The driver waits for the end of the connection, which must not be done in an asynchronous task, and can take long
    /// where nobody answers.
    fn drop(&mut self) {
        self.statements.clear();
        let client = self.client.take();
        if self.broken.get() || tokio::runtime::Handle::try_current().is_ok() {
            std::thread::spawn(move || drop(client));
        }
    }
}

fn is_lost(cause: &tokio_postgres::Error) -> bool {
    if let Some(said) = cause.as_db_error() {
        let fatal = matches!(said.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
        let gone = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW];
        return fatal || gone.contains(said.code());
    }
    cause.is_closed() || cause.source().is_some_and(|source| source.is::<std::io::Error>())
}

/// What PostgreSQL or the driver says, on one line.
pub(super) fn words(cause: &tokio_postgres::Error) -> String {
    if let Some(said) = cause.as_db_error() {
        let detail = said.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        return format!("{}{detail} [{}]", said.message(), said.code().code());
    }
    let mut text = cause.to_string();
    let mut next = cause.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// The columns whose value is taken, as SQLite names them: `table.column, table.column`.
pub(super) fn taken(cause: &tokio_postgres::Error) -> Option<String> {
    let said = cause.as_db_error().filter(|said| *said.code() == SqlState::UNIQUE_VIOLATION)?;
    // `Key (project, name)=(…) already exists.`, in the language of the server; columns come before the values.
    let (_, rest) = said.detail()?.split_once('(')?;
    let (columns, _) = rest.split_once(")=(")?;
    let table = said.table()?;
    let columns: Vec<_> = columns.split(", ").map(|c| format!("{table}.{}", c.trim_matches('"'))).collect();
    Some(columns.join(", "))
}

fn type_of(kind: Kind) -> Type {
    match kind {
        Kind::Integer => Type::INT8,
        Kind::Real => Type::FLOAT8,
        Kind::Text => Type::TEXT,
        Kind::Blob => Type::BYTEA,
    }
}

#[derive(Debug)]
struct Bound<'a>(Value<'a>);

fn parameters<'a>(values: &'a [Bound<'a>]) -> Vec<&'a (dyn Parameter + Sync)> {
    values.iter().map(|value| value as &(dyn Parameter + Sync)).collect()
}

/// PostgreSQL's text holds every character but NUL; a machine can send it in a name.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

fn owned(value: Value<'_>) -> Owned {
    match value {
        Value::Null => Box::new(Bound(Value::Null)),
        Value::Integer(n) => Box::new(n),
        Value::Real(n) => Box::new(n),
        Value::Text(text) => Box::new(storable(text).into_owned()),
        Value::Blob(octets) => Box::new(octets.to_vec()),
    }
}

impl Parameter for Bound<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        match self.0 {
            Value::Null => Ok(IsNull::Yes),
            Value::Integer(n) => n.to_sql(ty, out),
            Value::Real(n) => n.to_sql(ty, out),
            Value::Text(text) => storable(text).to_sql(ty, out),
            Value::Blob(octets) => octets.to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

struct Column<'a>(Value<'a>);

impl<'a> FromSql<'a> for Column<'a> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Boxed> {
        let value = match *ty {
            Type::INT8 => Value::Integer(i64::from_sql(ty, raw)?),
            Type::INT4 => Value::Integer(i32::from_sql(ty, raw)?.into()),
            Type::INT2 => Value::Integer(i16::from_sql(ty, raw)?.into()),
            Type::OID => Value::Integer(u32::from_sql(ty, raw)?.into()),
            Type::BOOL => Value::Integer(bool::from_sql(ty, raw)?.into()),
            Type::NUMERIC => match whole(raw) {
                Some(n) => Value::Integer(n),
                None => Value::Real(fraction(raw).ok_or("no number")?),
            },
            Type::FLOAT8 => Value::Real(f64::from_sql(ty, raw)?),
            Type::FLOAT4 => Value::Real(f32::from_sql(ty, raw)?.into()),
            Type::BYTEA => Value::Blob(raw),
            _ => Value::Text(<&str>::from_sql(ty, raw)?),
        };
        Ok(Self(value))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Boxed> {
        Ok(Self(Value::Null))
    }

    fn accepts(ty: &Type) -> bool {
        let numbers = [Type::INT8, Type::INT4, Type::INT2, Type::OID, Type::BOOL, Type::NUMERIC];
        let others = [Type::FLOAT8, Type::FLOAT4, Type::BYTEA];
        numbers.contains(ty) || others.contains(ty) || <&str as FromSql<'_>>::accepts(ty)
    }
}

/// The sum of 64-bit integers is a `numeric`: digits to the base 10,000, with their weight (src/backend/utils/adt/numeric.c,
/// `numeric_send`).
fn whole(raw: &[u8]) -> Option<i64> {
    let word = |n: usize| raw.get(2 * n..2 * n + 2)?.try_into().ok().map(i16::from_be_bytes);
    let (digits, weight, sign) = (word(0)?, word(1)?, word(2)?);
    let negative = match sign {
        0 => false,
        0x4000 => true,
        _ => return None,
    };
    let mut value: i128 = 0;
    for place in 0..=weight.max(-1) {
        let digit = if place < digits { word(4 + usize::try_from(place).ok()?)? } else { 0 };
        value = value.checked_mul(10_000)?.checked_add(digit.into())?;
    }
    // What follows the point must be nothing.
    for place in (weight + 1).max(0)..digits {
        if word(4 + usize::try_from(place).ok()?)? != 0 {
            return None;
        }
    }
    i64::try_from(if negative { -value } else { value }).ok()
}

/// A mean, or a sum that is larger than 64 bits: as near as a fraction of 64 bits is.
fn fraction(raw: &[u8]) -> Option<f64> {
    let word = |n: usize| raw.get(2 * n..2 * n + 2)?.try_into().ok().map(i16::from_be_bytes);
    let (digits, weight, sign) = (word(0)?, word(1)?, word(2)?);
    let sign = match sign {
        0 => 1.0,
        0x4000 => -1.0,
        _ => return None,
    };
    let mut value = 0.0;
    for place in 0..digits {
        let digit = f64::from(word(4 + usize::try_from(place).ok()?)?);
        value += digit * 10_000_f64.powi(i32::from(weight) - i32::from(place));
    }
    Some(sign * value)
}

/// A column of a row.
pub(super) fn column(row: &tokio_postgres::Row, index: usize) -> Result<Value<'_>> {
    Ok(row.try_get::<_, Column<'_>>(index)?.0)
}

/// When to try again what did not go.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failed: Option<(Instant, Duration, String)>,
}

impl Backoff {
    /// Why not now, where it is too early.
    pub(super) fn wait(&self) -> Option<Error> {
        let (at, pause, why) = self.failed.as_ref()?;
        (at.elapsed() < *pause).then(|| Error::Unreachable(why.as_str().into()))
    }

    pub(super) fn note(&mut self, why: String) -> Error {
        let pause = self.failed.as_ref().map_or(PAUSE_MIN, |(_, pause, _)| (*pause * 2).min(PAUSE_MAX));
        let error = Error::Unreachable(why.as_str().into());
        self.failed = Some((Instant::now(), pause, why));
        error
    }

    pub(super) fn reset(&mut self) {
        self.failed = None;
    }
}

/// A connection that reads, made when it is needed, and again where it broke: to read twice changes nothing.
pub(super) struct Reader {
    server: Server,
    state: RefCell<(Option<Session>, Backoff)>,
}

impl Reader {
    pub(super) fn new(server: Server) -> Self {
        Self { server, state: RefCell::default() }
    }

    pub(super) fn with<T>(&self, ask: impl Fn(&mut Session) -> Result<T>) -> Result<T> {
        let (session, backoff) = &mut *self.state.borrow_mut();
        let fresh = session.is_none();
        let connect = |backoff: &mut Backoff| {
            if let Some(early) = backoff.wait() {
                return Err(early);
            }
            let connected = self.server.connect(Access::Read).map_err(|e| backoff.note(e.to_string()))?;
            backoff.reset();
            Ok(connected)
        };
        if fresh {
            *session = Some(connect(backoff)?);
        }
        let Some(now) = session.as_mut() else { return Err(Error::Unreachable("no connection".into())) };
        match ask(now) {
            Err(cause) if now.lost(&cause) => {
                *session = None;
                if fresh {
                    return Err(backoff.note(cause.to_string()));
                }
            }
            other => return other,
        }
        // It may have broken long ago, while nobody asked.
        let now = session.insert(connect(backoff)?);
        match ask(now) {
            Err(cause) if now.lost(&cause) => {
                *session = None;
                Err(backoff.note(cause.to_string()))
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numeric_send` of numbers.
    fn numeric(weight: i16, sign: u16, digits: &[i16]) -> Vec<u8> {
        let head = [i16::try_from(digits.len()).unwrap(), weight, sign.cast_signed(), 0];
        head.iter().chain(digits).flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn sums_are_integers() {
        assert_eq!(whole(&numeric(0, 0, &[])), Some(0));
        assert_eq!(whole(&numeric(0, 0, &[42])), Some(42));
        assert_eq!(whole(&numeric(1, 0x4000, &[1])), Some(-10_000));
        assert_eq!(whole(&numeric(4, 0, &[922, 3372, 368, 5477, 5807])), Some(i64::MAX));
        assert_eq!(whole(&numeric(4, 0, &[922, 3372, 368, 5477, 5808])), None);
        assert_eq!(whole(&numeric(0, 0, &[1, 5000])), None);
        assert_eq!(whole(&numeric(-1, 0, &[5000])), None);
        assert_eq!(whole(&numeric(0, 0xc000, &[])), None, "not a number");
        assert_eq!(whole(&[0, 9]), None);
        assert_eq!(fraction(&numeric(0, 0x4000, &[2, 5000])), Some(-2.5));
        assert_eq!(fraction(&numeric(0, 0xc000, &[])), None);
    }
}
