//! The one place that knows how a statement or a migration written for both databases reads in PostgreSQL.

/// A statement: `?1` becomes `$1`; `LIKE` is `ILIKE`, as in SQLite it does not tell `a` from `A`.
pub(super) fn statement(sql: &str) -> String {
    words(sql, |word| if word == "LIKE" { "ILIKE" } else { word }).0
}

/// A migration: types by their names in PostgreSQL. Text is compared octet by octet, as SQLite does, whatever language the
/// database was made for: pages are cut by these comparisons.
pub(in crate::store) fn schema(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    for line in sql.lines() {
        // A comment begins outside of quotes.
        let comments = line.match_indices("--").map(|(at, _)| &line[..at]);
        let translated = comments.map(|code| words(code, type_name)).find(|(_, quoted)| !quoted);
        text.push_str(&translated.unwrap_or_else(|| words(line, type_name)).0);
        text.push('\n');
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

/// Puts other words in place of some, outside of quotes, and `$` in place of `?`. Also says whether it ends in quotes.
fn words<'a>(sql: &'a str, other: impl Fn(&'a str) -> &'a str) -> (String, bool) {
    let mut text = String::with_capacity(sql.len());
    let (mut quote, mut begin) = (None, 0);
    for (at, c) in sql.char_indices().chain([(sql.len(), ' ')]) {
        if c.is_ascii_alphanumeric() || c == '_' {
            continue;
        }
        let word = &sql[begin..at];
        text.push_str(if quote.is_some() { word } else { other(word) });
        begin = at + c.len_utf8();
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        if at < sql.len() {
            text.push(if quote.is_none() && c == '?' { '$' } else { c });
        }
    }
    (text, quote.is_some())
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
    fn upper_and_lower_case_are_alike() {
        assert_eq!(statement("a LIKE ?1 ESCAPE '!' OR b = 'LIKE'"), "a ILIKE $1 ESCAPE '!' OR b = 'LIKE'");
    }

    #[test]
    fn types_have_other_names() {
        let of =
            "CREATE TABLE t (  -- TEXT\n  \"TEXT\" TEXT NOT NULL, b BLOB,\n  c BIGINT DEFAULT 'REAL TEXT')";
        let wanted = "CREATE TABLE t (  \n  \"TEXT\" TEXT COLLATE \"C\" NOT NULL, b BYTEA,\n  c BIGINT DEFAULT 'REAL TEXT')\n";
        assert_eq!(schema(of), wanted);
        let json = "INSERT INTO t VALUES ('{\"TEXT\":\"it''s -- é TEXT\"}') -- TEXT";
        assert_eq!(schema(json), "INSERT INTO t VALUES ('{\"TEXT\":\"it''s -- é TEXT\"}') \n");
    }
}
