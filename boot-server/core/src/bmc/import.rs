//! A list of management controllers as people keep it: comma-separated values (RFC 4180) with a line of headings.
//!
//! ```text
//! node,mac,driver,address,port,user,password
//! web-1,52:54:00:12:34:56,redfish,10.0.0.5,,root,"a, b"
//! ```
//!
//! Columns can come in any order; those that are not needed can be left out. A column that is not known is refused: a
//! misspelt heading must not lose the passwords below it.

use crate::csv;
pub use crate::csv::ListError;

/// Most lines of one list.
pub const LINES_MAX: usize = 5000;
/// What a heading can be.
pub const COLUMNS: [&str; 13] = [
    "node", "mac", "uuid", "serial", "driver", "address", "port", "user", "password", "rack", "unit",
    "network", "gateway",
];

/// One line, as it was written.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Line {
    /// Its number in the text, from 1.
    pub number: usize,
    /// A field for each of [`COLUMNS`]; `None` where it is empty or has no column.
    fields: [Option<String>; COLUMNS.len()],
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}", self.number)
    }
}

impl Line {
    /// The field of this column.
    pub fn field(&self, column: &str) -> Option<&str> {
        let at = COLUMNS.iter().position(|c| *c == column)?;
        self.fields[at].as_deref()
    }
}

impl Line {
    /// An empty one.
    pub fn new(number: usize) -> Self {
        Self { number, ..Self::default() }
    }

    /// Puts a text under a column; false where there is no such column.
    pub fn set(&mut self, column: &str, text: String) -> bool {
        let Some(at) = COLUMNS.iter().position(|c| *c == column) else { return false };
        self.fields[at] = Some(text).filter(|text| !text.is_empty());
        true
    }
}

/// Reads a list. Lines that are empty or begin with `#` are left out.
///
/// # Errors
/// A heading that is unknown, a line with another number of fields, quotes that do not close, too many lines.
pub fn read(text: &str) -> Result<Vec<Line>, ListError> {
    let rows = csv::read(text, &COLUMNS, LINES_MAX)?.into_iter();
    let line = |(number, row): (usize, Vec<String>)| {
        let mut line = Line::new(number);
        for (at, field) in row.into_iter().enumerate() {
            line.fields[at] = Some(field).filter(|f| !f.is_empty());
        }
        line
    };
    Ok(rows.map(line).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_is_read_as_people_write_it() {
        let text = "\u{feff}Node, driver ,address,password\r\n# the first rack\r\nweb-1,redfish,10.0.0.5,\"a, \"\"b\"\"\"\r\n\r\nweb-2,ipmi,10.0.0.6,\n";
        let lines = read(text).unwrap();
        assert_eq!(lines.iter().map(|l| l.number).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(lines[0].field("password"), Some("a, \"b\""));
        assert_eq!((lines[1].field("password"), lines[1].field("port")), (None, None));
        assert!(!format!("{lines:?}").contains("a, "), "passwords are not printed");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let of = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(of(""), "line 1: the list is empty: it needs a line of headings");
        assert!(
            of("node,pasword\n").starts_with("line 1: the heading `pasword` is unknown; there are node, ")
        );
        assert_eq!(of("node,node\n"), "line 1: the heading `node` is there twice");
        assert_eq!(of("node,address\nweb-1\n"), "line 2: 1 fields under 2 headings");
        assert_eq!(of("node\na\n\"b\n"), "line 3: a quote is opened and not closed");
        let long = format!("node\n{}", "a\n".repeat(LINES_MAX + 1));
        assert_eq!(of(&long), "line 5002: a list has at most 5000 lines: split it");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            drop(read(&text));
        }

        #[test]
        fn what_is_quoted_comes_back(password in "[ -~]{0,30}", user in "[a-z]{1,8}") {
            let text = format!("user,password\n{user},\"{}\"\n", password.replace('"', "\"\""));
            let lines = read(&text).unwrap();
            prop_assert_eq!(lines[0].field("password").unwrap_or_default(), password);
        }
    }
}
