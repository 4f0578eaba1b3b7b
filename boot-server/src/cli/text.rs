//! Text for a terminal. Serial numbers, host names and LLDP strings come from machines, so none of their characters
//! may reach the terminal as a control sequence.

use protocol::Timestamp;

/// True for characters that move the cursor, change the direction of text, or cannot be seen: C0 and C1 controls
/// (ECMA-48), line and paragraph separators, and the marks of the Unicode bidirectional algorithm (UAX #9).
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// The text with every unsafe character replaced by U+FFFD.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) { '\u{fffd}' } else { c }).collect()
}

/// A document whose unsafe characters are legal only inside strings (JSON): they are written as `\u` escapes, so the
/// value stays what it was. The document's own line ends stay.
pub fn escape_json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        if is_unsafe(c) && c != '\n' {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// A document of several lines, such as YAML, with everything unsafe but line ends replaced.
pub fn plain_lines(document: &str) -> String {
    document.chars().map(|c| if is_unsafe(c) && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A moment as RFC 3339 in UTC, to the second.
pub fn moment(at: Timestamp) -> String {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "-".to_owned(), |t| t.to_string())
}

/// A duration for people: `850 ms`, `42 s`, `3 min 5 s`, `2 h 10 min`.
pub fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Bytes of memory, binary as DIMMs are sold.
pub fn memory(bytes: u64) -> String {
    match bytes >> 30 {
        0 => format!("{} MiB", bytes >> 20),
        gib => format!("{gib} GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_sequence_survives() {
        assert_eq!(
            plain("S\u{1b}[2J\u{9b}1mX\r\n\u{202e}"),
            "S\u{fffd}[2J\u{fffd}1mX\u{fffd}\u{fffd}\u{fffd}"
        );
        assert_eq!(plain("Dell Inc. – R760 ½"), "Dell Inc. – R760 ½");
        let json =
            serde_json::to_string_pretty(&serde_json::json!({ "s": "a\u{1b}\u{9b}\u{202e}\u{7f}b\n" }))
                .unwrap();
        let safe = escape_json(&json);
        assert!(safe.chars().all(|c| c == '\n' || !is_unsafe(c)), "{safe}");
        let value: serde_json::Value = serde_json::from_str(&safe).unwrap();
        assert_eq!(value["s"], "a\u{1b}\u{9b}\u{202e}\u{7f}b\n", "the value is what it was");
    }

    #[test]
    fn times() {
        assert_eq!(moment(Timestamp(1_795_305_600_999)), "2026-11-22T00:00:00Z");
        assert_eq!(
            [850, 42_000, 185_000, 7_800_000].map(span),
            ["850 ms", "42 s", "3 min 5 s", "2 h 10 min"]
        );
        assert_eq!([512 << 20, 64 << 30].map(memory), ["512 MiB", "64 GiB"]);
    }
}
