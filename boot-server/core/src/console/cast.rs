//! Recordings in asciicast v2 (docs.asciinema.org/manual/asciicast/v2): a header line, then one JSON array per event.
//!
//! An asciicast is text, a console is octets. A character that is cut by the end of a piece waits for its rest; octets
//! that are no UTF-8 at all are written as U+FFFD in the event, and exactly, in hexadecimal, in an event of our own code
//! `x` right behind it. Other players skip it; ours replays the same octets.

use std::time::Duration;

use protocol::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest line that is read: a piece of output of 32 KiB, each octet escaped.
const LINE_MAX: usize = 1 << 20;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// 2.
    pub version: u32,
    /// Columns. A serial line tells none; 80 by 24 is what its programs expect.
    pub width: u16,
    /// Rows.
    pub height: u16,
    /// When it began, in seconds since 1970.
    pub timestamp: u64,
    /// In words.
    #[serde(default)]
    pub title: String,
    /// What other players skip.
    pub billet: About,
}

/// Who looked, at what, from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct About {
    /// The session, which names the recording too.
    pub session: Uuid,
    /// The node.
    pub node: NodeId,
    /// Its name at that time.
    pub node_name: String,
    /// Whose token it was.
    pub who: String,
    /// Address of the client.
    pub from: String,
    /// By which way: `web`, `api`, `ssh`.
    pub via: String,
    /// When it began.
    pub began: Timestamp,
}

impl Header {
    /// The header of a session.
    pub fn new(about: About) -> Self {
        let title =
            format!("console of {}: {} from {} ({})", about.node_name, about.who, about.from, about.via);
        Self { version: 2, width: 80, height: 24, timestamp: about.began.0 / 1000, title, billet: about }
    }
}

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Printed by the machine.
    Output,
    /// Typed by whoever looked.
    Input,
    /// Said by Billet.
    Marker,
}

impl Kind {
    fn code(self) -> &'static str {
        match self {
            Self::Output => "o",
            Self::Input => "i",
            Self::Marker => "m",
        }
    }

    fn of(code: &str) -> Option<Self> {
        match code {
            "o" => Some(Self::Output),
            "i" => Some(Self::Input),
            "m" => Some(Self::Marker),
            _ => None,
        }
    }
}

/// The code of the event that holds the exact octets of the one before it.
const EXACT: &str = "x";

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Since the beginning.
    pub at: Duration,
    /// What it is.
    pub kind: Kind,
    /// What was printed or typed.
    pub octets: Vec<u8>,
}

/// Writes events, keeping characters whole.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Writer {
    /// Lines for octets that were printed or typed; none where they are the beginning of a character.
    pub fn event(&mut self, at: Duration, kind: Kind, octets: &[u8]) -> String {
        let held = match kind {
            Kind::Output => &mut self.output,
            Kind::Input => &mut self.input,
            Kind::Marker => return lines(at, kind, octets),
        };
        held.extend_from_slice(octets);
        let whole = held.len() - unfinished(held);
        let rest = held.split_off(whole);
        let ready = std::mem::replace(held, rest);
        if ready.is_empty() { String::new() } else { lines(at, kind, &ready) }
    }

    /// Lines for what still waits, at the end.
    pub fn finish(&mut self, at: Duration) -> String {
        let (output, input) = (std::mem::take(&mut self.output), std::mem::take(&mut self.input));
        [(Kind::Output, output), (Kind::Input, input)]
            .into_iter()
            .filter(|(_, octets)| !octets.is_empty())
            .map(|(kind, octets)| lines(at, kind, &octets))
            .collect()
    }
}

/// How many octets at the end are the beginning of a character: at most three.
fn unfinished(octets: &[u8]) -> usize {
    match std::str::from_utf8(octets) {
        Ok(_) => 0,
        Err(error) if error.error_len().is_none() => octets.len() - error.valid_up_to(),
        // Something before is no UTF-8; the end may be unfinished all the same.
        Err(_) => (1..=3.min(octets.len()))
            .find(|n| {
                let end = &octets[octets.len() - n..];
                std::str::from_utf8(end).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
            })
            .unwrap_or(0),
    }
}

fn lines(at: Duration, kind: Kind, octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets);
    let mut line = line(at, kind.code(), &text);
    if matches!(text, std::borrow::Cow::Owned(_)) {
        let exact: String = octets.iter().map(|b| format!("{b:02x}")).collect();
        line.push_str(&self::line(at, EXACT, &exact));
    }
    line
}

fn line(at: Duration, code: &str, text: &str) -> String {
    // Microseconds, as the format's own recorder writes them.
    let seconds = format!("{}.{:06}", at.as_secs(), at.subsec_micros());
    format!("[{seconds},\"{code}\",{}]\n", serde_json::Value::from(text))
}

/// Why a recording cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CastError {
    /// The header.
    #[error("the first line is no header of an asciicast of version 2")]
    Header,
    /// An event.
    #[error("line {0} is no event of an asciicast")]
    Event(usize),
}

/// Reads the header.
///
/// # Errors
/// [`CastError::Header`].
pub fn header(line: &str) -> Result<Header, CastError> {
    let header: Header = serde_json::from_str(line).map_err(|_| CastError::Header)?;
    if header.version == 2 { Ok(header) } else { Err(CastError::Header) }
}

/// Reads a recording. A last line that was cut by a crash is left out.
///
/// # Errors
/// [`CastError`].
pub fn parse(text: &str) -> Result<(Header, Vec<Event>), CastError> {
    let mut all = text.split_inclusive('\n');
    let header = header(all.next().unwrap_or_default())?;
    let mut events: Vec<Event> = Vec::new();
    for (number, line) in all.enumerate().filter(|(_, line)| line.ends_with('\n')) {
        let wrong = || CastError::Event(number + 2);
        let (at, code, text) = read_line(line).ok_or_else(wrong)?;
        if code == EXACT {
            let octets = unhex(&text).ok_or_else(wrong)?;
            events.last_mut().ok_or_else(wrong)?.octets = octets;
        } else if let Some(kind) = Kind::of(&code) {
            events.push(Event { at, kind, octets: text.into_bytes() });
        }
    }
    Ok((header, events))
}

fn read_line(line: &str) -> Option<(Duration, String, String)> {
    let line = Some(line).filter(|line| line.len() <= LINE_MAX)?;
    let (seconds, code, text): (f64, String, String) = serde_json::from_str(line).ok()?;
    Some((Duration::try_from_secs_f64(seconds).ok()?, code, text))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The recording without what was typed: passwords are typed, and not everybody who may look at a machine may know them.
pub fn without_input(text: &str) -> String {
    let mut typed = false;
    let keep = |line: &&str| {
        let is = |code: &str| line.split(',').nth(1) == Some(&format!("\"{code}\""));
        if !is(EXACT) {
            typed = is(Kind::Input.code());
        }
        !typed
    };
    text.split_inclusive('\n').filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn about() -> About {
        About {
            session: Uuid::nil(),
            node: NodeId(Uuid::nil()),
            node_name: "alpha".to_owned(),
            who: "alice".to_owned(),
            from: "10.0.0.7".to_owned(),
            via: "ssh".to_owned(),
            began: Timestamp(1_700_000_000_123),
        }
    }

    fn head() -> String {
        format!("{}\n", serde_json::to_string(&Header::new(about())).unwrap())
    }

    #[test]
    fn a_recording_is_text() {
        let mut writer = Writer::default();
        let mut text = head();
        text += &writer.event(Duration::from_millis(5), Kind::Output, b"login: \xc3");
        text += &writer.event(Duration::from_millis(1500), Kind::Output, b"\xbc\r\n\"\x1b[0m");
        text += &writer.event(Duration::from_secs(2), Kind::Input, b"root\r");
        text += &writer.event(Duration::from_secs(3), Kind::Output, b"a\xffb");
        text += &writer.event(Duration::from_secs(4), Kind::Marker, b"7 octets were lost");
        text += &writer.finish(Duration::from_secs(5));
        let events: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            events,
            [
                r#"[0.005000,"o","login: "]"#,
                r#"[1.500000,"o","ü\r\n\"\u001b[0m"]"#,
                r#"[2.000000,"i","root\r"]"#,
                "[3.000000,\"o\",\"a\u{fffd}b\"]",
                r#"[3.000000,"x","61ff62"]"#,
                r#"[4.000000,"m","7 octets were lost"]"#,
            ]
        );
        let (header, events) = parse(&text).unwrap();
        assert_eq!((header.billet, header.timestamp), (about(), 1_700_000_000));
        assert_eq!(events[3].octets, b"a\xffb");
        let shown = without_input(&text);
        assert!(!shown.contains("root") && shown.lines().count() == text.lines().count() - 1);
    }

    #[test]
    fn what_is_no_recording_is_told() {
        assert_eq!(parse(""), Err(CastError::Header));
        assert_eq!(parse("{\"version\":1}\n"), Err(CastError::Header));
        assert_eq!(parse(&format!("{}[1]\n", head())), Err(CastError::Event(2)));
        assert_eq!(parse(&format!("{}[-1,\"o\",\"\"]\n", head())), Err(CastError::Event(2)));
        let cut = format!("{}[1.0,\"o\",\"a\"]\n[2.0,\"o\",\"b", head());
        assert_eq!(parse(&cut).unwrap().1.len(), 1, "a crash cuts the last line");
        assert_eq!(parse(&format!("{}[1.0,\"r\",\"80x24\"]\n", head())).unwrap().1, []);
    }

    proptest! {
        /// Any octets in any pieces come back as they were, kinds apart; and what is typed goes without a trace.
        #[test]
        fn octets_come_back(pieces in prop::collection::vec((any::<bool>(), prop_oneof![
            prop::collection::vec(any::<u8>(), 0..12),
            "\\PC{0,6}".prop_map(String::into_bytes),
            Just("ü€😀".as_bytes()[..8].to_vec()),
        ]), 0..30)) {
            let (mut writer, mut text) = (Writer::default(), head());
            let mut all: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
            for (n, (typed, octets)) in pieces.iter().enumerate() {
                let kind = if *typed { Kind::Input } else { Kind::Output };
                all[usize::from(*typed)].extend(octets);
                text += &writer.event(Duration::from_millis(n as u64), kind, octets);
            }
            text += &writer.finish(Duration::from_secs(1));
            let of = |text: &str, kind| -> Vec<u8> {
                let events = parse(text).unwrap().1;
                events.into_iter().filter(|e| e.kind == kind).flat_map(|e| e.octets).collect()
            };
            prop_assert_eq!(&of(&text, Kind::Output), &all[0]);
            prop_assert_eq!(&of(&text, Kind::Input), &all[1]);
            let shown = without_input(&text);
            prop_assert_eq!(&of(&shown, Kind::Output), &all[0]);
            prop_assert!(of(&shown, Kind::Input).is_empty());
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = parse(&text);
            let _ = parse(&format!("{}{text}\n", head()));
            let _ = without_input(&text);
        }
    }
}
