//! Comma-separated values (RFC 4180) as people keep lists of machines: a line of headings, quotes where a field holds a comma,
//! empty lines and lines that begin with `#` left out. A field is text and nothing else: what a spreadsheet would take for a
//! formula is kept as it stands, and is made harmless where a list is written.

use std::collections::BTreeSet;

/// A list that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ListError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Reads a list with these headings, in any order; each row has a field for each of them, in the order of `columns`.
///
/// # Errors
/// A heading that is unknown or there twice, a line with another number of fields, quotes that do not close, more than
/// `most` lines.
pub fn read(text: &str, columns: &[&str], most: usize) -> Result<Vec<(usize, Vec<String>)>, ListError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rows = rows(text)?.into_iter();
    let Some((line, headings)) = rows.next() else {
        return Err(ListError { line: 1, what: "the list is empty: it needs a line of headings".to_owned() });
    };
    let places = places(line, &headings, columns)?;
    let mut lines = Vec::new();
    for (number, row) in rows {
        if row.len() != places.len() {
            let what = format!("{} fields under {} headings", row.len(), places.len());
            return Err(ListError { line: number, what });
        }
        let mut fields = vec![String::new(); columns.len()];
        for (at, field) in places.iter().zip(row) {
            fields[*at] = field;
        }
        lines.push((number, fields));
        if lines.len() > most {
            let what = format!("a list has at most {most} lines: split it");
            return Err(ListError { line: number, what });
        }
    }
    Ok(lines)
}

fn places(line: usize, headings: &[String], columns: &[&str]) -> Result<Vec<usize>, ListError> {
    let mut seen = BTreeSet::new();
    let place = |heading: &String| {
        let name = heading.trim().to_lowercase();
        let at = columns.iter().position(|c| *c == name).ok_or_else(|| ListError {
            line,
            what: format!(
                "the heading `{}` is unknown; there are {}",
                name.chars().take(40).collect::<String>(),
                columns.join(", ")
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
    use crate::usage::cell;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(text in "[ -~]{1,30}") {
            let list = format!("a,b\nx,{}\n", cell(&text));
            let rows = read(&list, &["a", "b"], 10).unwrap();
            let back = rows[0].1[1].clone();
            // White space at the ends of a field without quotes says nothing.
            let quoted = format!("'{text}");
            let same = [text.as_str(), text.trim(), quoted.as_str(), quoted.trim()].contains(&back.as_str());
            prop_assert!(same, "{}", back);
            let formula = back.starts_with(['=', '+', '-', '@']) && text.trim() == text;
            prop_assert!(!formula, "{}", back);
        }
    }

    #[test]
    fn formulas_are_text() {
        assert_eq!(cell("=HYPERLINK(\"http://x\")"), "\"'=HYPERLINK(\"\"http://x\"\")\"");
        assert_eq!(cell("-1"), "'-1");
        assert_eq!(cell("R4"), "R4");
    }
}
