//! A list of management controllers as people keep it: comma-separated values (RFC 4180) with a line of headings.
//!
//! ```text
//! node,mac,driver,address,port,user,password
//! web-1,52:54:00:12:34:56,redfish,10.0.0.5,,root,"a, b"
//! ```
//!
//! Columns can come in any order; those that are not needed can be left out. A column that is not known is refused: a
//! misspelt heading must not lose the passwords below it.

use std::collections::BTreeSet;

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

/// A list that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ListError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Reads a list. Lines that are empty or begin with `#` are left out.
///
/// # Errors
/// A heading that is unknown, a line with another number of fields, quotes that do not close, too many lines.
pub fn read(text: &str) -> Result<Vec<Line>, ListError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rows = rows(text)?.into_iter();
    let Some((line, headings)) = rows.next() else {
        return Err(ListError { line: 1, what: "the list is empty: it needs a line of headings".to_owned() });
    };
    let columns = columns(line, &headings)?;
    let mut lines = Vec::new();
    for (number, row) in rows {
        if row.len() != columns.len() {
            let what = format!("{} fields under {} headings", row.len(), columns.len());
            return Err(ListError { line: number, what });
        }
        let mut parsed = Line { number, ..Line::default() };
        for (at, field) in columns.iter().zip(row) {
            parsed.fields[*at] = Some(field).filter(|f| !f.is_empty());
        }
        lines.push(parsed);
        if lines.len() > LINES_MAX {
            let what = format!("a list has at most {LINES_MAX} lines: split it");
            return Err(ListError { line: number, what });
        }
    }
    Ok(lines)
}

fn columns(line: usize, headings: &[String]) -> Result<Vec<usize>, ListError> {
    let mut seen = BTreeSet::new();
    let place = |heading: &String| {
        let name = heading.trim().to_lowercase();
        let at = COLUMNS.iter().position(|c| *c == name).ok_or_else(|| ListError {
            line,
            what: format!(
                "the heading `{}` is unknown; there are {}",
                name.chars().take(40).collect::<String>(),
                COLUMNS.join(", ")
            ),
        })?;
        if seen.insert(at) {
            return Ok(at);
        }
        Err(ListError { line, what: format!("the heading `{name}` is there twice") })
    };
    headings.iter().map(place).collect()
}

/// Rows with the number of the line in which each begins.
fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, ListError> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begun, mut quoted, mut was_quoted) = (1, 1, false, false);
    let mut end_row = |row: &mut Vec<String>, begun: usize| {
        let row = std::mem::take(row);
        let empty = row.iter().all(|f: &String| f.is_empty());
        if !empty && !row.first().is_some_and(|f| f.starts_with('#')) {
            rows.push((begun, row));
        }
    };
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\n' {
            line += 1;
        }
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() && !was_quoted => (quoted, was_quoted) = (true, true),
            _ if quoted => field.push(c),
            ',' | '\n' => {
                let done = std::mem::take(&mut field);
                row.push(if was_quoted { done } else { done.trim().to_owned() });
                was_quoted = false;
                if c == '\n' {
                    end_row(&mut row, begun);
                    begun = line;
                }
            }
            // Between a closing quote and the comma.
            _ if was_quoted && c.is_whitespace() => {}
            _ => field.push(c),
        }
    }
    if quoted {
        return Err(ListError { line: begun, what: "a quote is opened and not closed".to_owned() });
    }
    if !field.is_empty() || !row.is_empty() || was_quoted {
        row.push(if was_quoted { field } else { field.trim().to_owned() });
        end_row(&mut row, begun);
    }
    Ok(rows)
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
