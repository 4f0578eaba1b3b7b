//! JSON of a controller, bounded before it is parsed and read by name; what has the wrong type is named by its path.
//!
//! Controllers leave out whatever they like, so every property is optional here. A property that is there with another
//! type than the schema's (DSP8010) is an error, because guessing what was meant is how a wrong machine is switched off.

use std::borrow::Cow;

use serde_json::Value;

use super::address::{Link, Origin};
use super::limits;
use crate::BmcError;

/// A resource as it was read.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    pub(super) link: Link,
    /// From the header, else `@odata.etag` (DSP0266, section 6.5).
    pub(super) etag: Option<String>,
    pub(super) body: Value,
}

/// A place in a resource. A property that is missing or null is [`Value::Null`].
#[derive(Debug, Clone)]
pub(super) struct View<'a> {
    origin: &'a Origin,
    link: Cow<'a, str>,
    /// JSON pointer of this place (RFC 6901).
    pointer: String,
    value: &'a Value,
}

/// Parses the answer to `what`, after looking that it cannot take more memory than a few times its size.
pub(super) fn parse(what: &str, bytes: &[u8]) -> Result<Value, BmcError> {
    let malformed = |why: String| BmcError::Malformed { what: what.to_owned(), why };
    check_size(bytes).map_err(|why| malformed(why.to_owned()))?;
    serde_json::from_slice(bytes).map_err(|e| malformed(format!("no JSON: {e}")))
}

/// Counts without parsing: nesting, objects, values.
fn check_size(bytes: &[u8]) -> Result<(), &'static str> {
    let (mut depth, mut objects, mut values) = (0usize, 0usize, 1usize);
    let (mut text, mut escaped) = (false, false);
    for byte in bytes {
        if text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => text = true,
            b'{' | b'[' => {
                depth += 1;
                objects += usize::from(*byte == b'{');
                values += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > limits::DEPTH {
            return Err("JSON is nested too deep");
        }
    }
    match objects > limits::OBJECTS || values > limits::VALUES {
        true => Err("JSON has too many values"),
        false => Ok(()),
    }
}

impl Resource {
    pub(super) fn view<'a>(&'a self, origin: &'a Origin) -> View<'a> {
        View { origin, link: Cow::Borrowed(self.link.as_str()), pointer: String::new(), value: &self.body }
    }
}

impl<'a> View<'a> {
    /// For an answer that is no resource of its own.
    pub(super) fn new(origin: &'a Origin, link: String, value: &'a Value) -> Self {
        Self { origin, link: Cow::Owned(link), pointer: String::new(), value }
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    pub(super) fn exists(&self) -> bool {
        !self.value.is_null()
    }

    /// The property of this name, whatever it is.
    pub(super) fn get(&self, name: &str) -> Result<View<'a>, BmcError> {
        static NULL: Value = Value::Null;
        let value = match self.value {
            Value::Object(map) => map.get(name).unwrap_or(&NULL),
            Value::Null => &NULL,
            _ => return Err(self.wrong("an object")),
        };
        Ok(View {
            origin: self.origin,
            link: self.link.clone(),
            pointer: format!("{}/{name}", self.pointer),
            value,
        })
    }

    /// The object of this name; empty where there is none.
    pub(super) fn object(&self, name: &str) -> Result<View<'a>, BmcError> {
        let view = self.get(name)?;
        match view.value {
            Value::Object(_) | Value::Null => Ok(view),
            _ => Err(view.wrong("an object")),
        }
    }

    /// A text, without the blanks around it; `None` where it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, BmcError> {
        let view = self.get(name)?;
        match view.value {
            Value::String(text) => Ok(Some(text.trim()).filter(|t| !t.is_empty())),
            Value::Null => Ok(None),
            _ => Err(view.wrong("a text")),
        }
    }

    pub(super) fn string(&self, name: &str) -> Result<Option<String>, BmcError> {
        Ok(self.text(name)?.map(cut))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, BmcError> {
        let view = self.get(name)?;
        match view.value {
            Value::Number(number) => Ok(number.as_f64()),
            Value::Null => Ok(None),
            _ => Err(view.wrong("a number")),
        }
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, BmcError> {
        let view = self.get(name)?;
        match view.value {
            Value::Bool(value) => Ok(Some(*value)),
            Value::Null => Ok(None),
            _ => Err(view.wrong("true or false")),
        }
    }

    /// The parts of a list; empty where there is none.
    pub(super) fn list(&self, name: &str) -> Result<Vec<View<'a>>, BmcError> {
        let view = self.get(name)?;
        let parts = match view.value {
            Value::Array(parts) => parts.as_slice(),
            Value::Null => &[],
            _ => return Err(view.wrong("a list")),
        };
        Ok(parts
            .iter()
            .enumerate()
            .map(|(index, value)| View {
                origin: self.origin,
                link: self.link.clone(),
                pointer: format!("{}/{index}", view.pointer),
                value,
            })
            .collect())
    }

    /// A list of texts; `None` where there is no list, which is something else than an empty one.
    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>, BmcError> {
        if !self.get(name)?.exists() {
            return Ok(None);
        }
        let mut out = Vec::new();
        for part in self.list(name)? {
            match part.value {
                Value::String(text) => out.push(text.trim()),
                Value::Null => {}
                _ => return Err(part.wrong("a text")),
            }
        }
        Ok(Some(out))
    }

    /// The link of a property that is a reference (`{"@odata.id": …}`).
    pub(super) fn link(&self, name: &str) -> Result<Option<Link>, BmcError> {
        self.object(name)?.id()
    }

    /// Where this object itself is.
    pub(super) fn id(&self) -> Result<Option<Link>, BmcError> {
        self.link_text("@odata.id")
    }

    /// A link that stands as a plain text (`target`, `nextLink`, `TaskMonitor`).
    pub(super) fn link_text(&self, name: &str) -> Result<Option<Link>, BmcError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        self.origin.link(&self.place(), text).map(Some)
    }

    /// The links of a list of references.
    pub(super) fn links(&self, name: &str) -> Result<Vec<Link>, BmcError> {
        let mut out = Vec::new();
        for part in self.list(name)? {
            out.extend(part.id()?);
        }
        Ok(out)
    }

    /// The error of a property that is not what the schema says.
    pub(super) fn wrong(&self, wanted: &str) -> BmcError {
        let found = match self.value {
            Value::Null => "missing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        let why = format!("{} is {found}, and should be {wanted}", self.pointer_or_all());
        BmcError::Malformed { what: self.link.clone().into_owned(), why }
    }

    fn pointer_or_all(&self) -> &str {
        if self.pointer.is_empty() { "the whole" } else { &self.pointer }
    }

    fn place(&self) -> String {
        format!("{}#{}", self.link, self.pointer)
    }
}

/// A text of the controller for errors, logs and the API: bounded, one line, no control characters.
pub(super) fn cut(text: &str) -> String {
    let clean = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(limits::WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::super::address::Transport;
    use super::*;
    use crate::ErrorKind;

    fn with<T>(json: &str, test: impl FnOnce(View<'_>) -> T) -> T {
        let origin = Origin::parse("192.0.2.7", Transport::Tls).unwrap();
        let body = parse("test", json.as_bytes()).unwrap();
        test(Resource { link: Link::known("/redfish/v1/Systems/1"), etag: None, body }.view(&origin))
    }

    #[test]
    fn wrong_types_are_named_by_their_path() {
        with(r#"{"Boot": {"X": 5, "L": [1]}, "Name": ["a"], "Bios": {"@odata.id": 7}}"#, |v| {
            let boot = v.object("Boot").unwrap();
            for (error, path) in [
                (boot.text("X").unwrap_err(), "/Boot/X"),
                (boot.texts("L").unwrap_err(), "/Boot/L/0"),
                (v.text("Name").unwrap_err(), "/Name"),
                (v.object("Name").unwrap_err(), "/Name"),
                (v.link("Bios").unwrap_err(), "/Bios/@odata.id"),
                (boot.get("X").unwrap().get("Y").unwrap_err(), "/Boot/X"),
            ] {
                assert_eq!(error.kind(), ErrorKind::Malformed);
                let text = error.to_string();
                assert!(text.contains("/redfish/v1/Systems/1") && text.contains(path), "{text}");
            }
        });
    }

    #[test]
    fn what_is_missing_is_no_error() {
        with(r#"{"Null": null, "Blank": "  "}"#, |v| {
            assert_eq!(v.text("Null").unwrap(), None);
            assert_eq!(v.text("Blank").unwrap(), None);
            assert_eq!(v.object("No").unwrap().object("Where").unwrap().number("X").unwrap(), None);
            assert_eq!(v.link("No").unwrap(), None);
            assert_eq!(v.texts("No").unwrap(), None);
            assert!(v.list("Null").unwrap().is_empty());
        });
    }

    #[test]
    fn json_that_would_grow_in_memory_is_refused() {
        let deep = "[".repeat(limits::DEPTH + 1);
        let objects = format!("[{}{{}}]", "{\"a\":0},".repeat(limits::OBJECTS));
        let values = format!("[{}0]", "0,".repeat(limits::VALUES));
        for bad in [deep, objects, values, "{".to_owned(), "nul".to_owned(), String::new()] {
            let error = parse("test", bad.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{}", cut(&bad));
        }
        let brackets_in_texts = format!("\"{}\\\"{{{{\"", "[".repeat(100));
        assert!(parse("test", brackets_in_texts.as_bytes()).is_ok());
    }

    #[test]
    fn words_of_a_controller_are_cut() {
        assert_eq!(cut(" a\u{1b}[31m\nb "), "a [31m b");
        assert_eq!(cut(&"x".repeat(10_000)).len(), limits::WORDS);
    }
}
