//! The one place that knows how a statement or a migration written for both databases reads in PostgreSQL.

/// `?1` becomes `$1`, outside of quotes.
pub(super) fn statement(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut quote = None;
    for c in sql.chars() {
        match (quote, c) {
            (None, '?') => text.push('$'),
            (None, '\'' | '"') => {
                quote = Some(c);
                text.push(c);
            }
            (Some(open), c) => {
                if open == c {
                    quote = None;
                }
                text.push(c);
            }
            (None, c) => text.push(c),
        }
    }
    text
}

/// A migration: types by their names in PostgreSQL. Text is compared octet by octet, as SQLite does, whatever language the
/// database was made for: pages are cut by these comparisons.
pub(in crate::store) fn schema(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    for line in sql.lines() {
        let code = line.split_once("--").map_or(line, |(code, _)| code);
        let mut word = String::new();
        let mut quoted = false;
        for c in code.chars().chain(['\n']) {
            if c.is_ascii_alphanumeric() || c == '_' {
                word.push(c);
                continue;
            }
            text.push_str(if quoted { &word } else { type_name(&word) });
            word.clear();
            quoted ^= matches!(c, '\'' | '"');
            text.push(c);
        }
    }
    text
}

fn type_name(word: &str) -> &str {
    match word {
        "TEXT" => "TEXT COLLATE \"C\"",
        "BLOB" => "BYTEA",
        "INTEGER" => "BIGINT",
        "REAL" => "DOUBLE PRECISION",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_with_a_dollar() {
        let of = "SELECT a, '?1 it''s', \"?\" FROM t WHERE b = ?1 AND c IN (?12, ?2)";
        assert_eq!(statement(of), "SELECT a, '?1 it''s', \"?\" FROM t WHERE b = $1 AND c IN ($12, $2)");
    }

    #[test]
    fn types_have_other_names() {
        let of =
            "CREATE TABLE t (  -- TEXT\n  \"TEXT\" TEXT NOT NULL, b BLOB,\n  c BIGINT DEFAULT 'REAL TEXT')";
        let wanted = "CREATE TABLE t (  \n  \"TEXT\" TEXT COLLATE \"C\" NOT NULL, b BYTEA,\n  c BIGINT DEFAULT 'REAL TEXT')\n";
        assert_eq!(schema(of), wanted);
    }
}
