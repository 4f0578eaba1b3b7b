//! The system event log (chapters 31 and 32).

use std::time::Instant;

use protocol::Timestamp;

use super::events;
use super::limits::{LOG_TIME, RESERVATIONS_MAX};
use super::link::{Ask, Link, data, malformed};
use super::message::completion;
use super::sdr::Sensor;
use crate::{BmcError, LOG_MAX, LogCursor, LogEntry, Severity};

const GET_INFO: u8 = 0x40;
const RESERVE: u8 = 0x42;
const GET_ENTRY: u8 = 0x43;
const CLEAR: u8 = 0x47;
const WHAT: &str = "the event log";
/// Ids that are no entry's: the first and the last.
const FIRST: u16 = 0x0000;
const LAST: u16 = 0xffff;
/// Times up to here count from the controller's start (section 37).
const SINCE_START_MAX: u32 = 0x2000_0000;
/// Looks at how far clearing is, after which it is taken as done.
const CLEAR_LOOKS: u32 = 20;
/// Record type of system events (section 32.1).
const SYSTEM_EVENT: u8 = 0x02;

/// Entries behind `since`, oldest first. Where reading takes longer than [`LOG_TIME`], those that were read; the caller goes
/// on behind the last.
pub(super) async fn read(
    link: &mut Link,
    sensors: &[Sensor],
    since: Option<&LogCursor>,
) -> Result<Vec<LogEntry>, BmcError> {
    let started = Instant::now();
    let info = link.read(&Ask::storage(WHAT, GET_INFO, &[])).await?;
    let count = match info[..] {
        [_, low, high, ..] => u16::from_le_bytes([low, high]),
        _ => return Err(malformed(WHAT, "an answer of less than three octets")),
    };
    let mut out = Vec::new();
    if count == 0 {
        return Ok(out);
    }
    let mut next = start(link, sensors, since).await?;
    while let Some(id) = next.filter(|_| out.len() < LOG_MAX && started.elapsed() < LOG_TIME) {
        let Some((record, behind)) = entry(link, id).await? else { break };
        out.extend(describe(&record, sensors));
        next = Some(behind).filter(|n| *n != LAST && *n != id);
    }
    Ok(out)
}

/// The id of the first entry to be read: that behind the cursor, or the first of all where the cursor's entry is gone or
/// has another time, because the log was cleared or went around.
async fn start(
    link: &mut Link,
    sensors: &[Sensor],
    since: Option<&LogCursor>,
) -> Result<Option<u16>, BmcError> {
    let Some(since) = since else { return Ok(Some(FIRST)) };
    let Ok(id) = since.id.parse::<u16>() else { return Ok(Some(FIRST)) };
    let Some((record, behind)) = entry(link, id).await? else { return Ok(Some(FIRST)) };
    let same = describe(&record, sensors).is_some_and(|e| e.id == since.id && e.at == since.at);
    Ok(if same { Some(behind).filter(|n| *n != LAST) } else { Some(FIRST) })
}

/// An entry and the id of the next; `None` where there is none of this id.
async fn entry(link: &mut Link, id: u16) -> Result<Option<(Vec<u8>, u16)>, BmcError> {
    let [low, high] = id.to_le_bytes();
    // Whole entries need no reservation (section 31.5).
    let ask = Ask::storage(WHAT, GET_ENTRY, &[0, 0, low, high, 0, 0xff]);
    let response = link.answer(&ask).await?;
    if response.completion == completion::NOT_PRESENT || response.completion == completion::INVALID_FIELD {
        return Ok(None);
    }
    match &data(&ask, response)?[..] {
        [low, high, record @ ..] => Ok(Some((record.to_vec(), u16::from_le_bytes([*low, *high])))),
        _ => Err(malformed(WHAT, "an entry of less than two octets")),
    }
}

/// Empties the log.
pub(super) async fn clear(link: &mut Link) -> Result<(), BmcError> {
    for _ in 0..RESERVATIONS_MAX {
        let [low, high] = match link.read(&Ask::storage(WHAT, RESERVE, &[])).await?[..] {
            [low, high, ..] => [low, high],
            _ => return Err(malformed(WHAT, "a reservation without a number")),
        };
        let ask = |step| Ask::storage("clearing the event log", CLEAR, &[low, high, b'C', b'L', b'R', step]);
        let response = link.answer(&ask(0xaa)).await?;
        if response.completion == completion::RESERVATION {
            continue;
        }
        data(&ask(0xaa), response)?;
        for _ in 0..CLEAR_LOOKS {
            let response = link.answer(&ask(0)).await?;
            // 1: done. Controllers that cannot tell are believed.
            if response.completion != completion::OK || response.data.first().is_none_or(|p| p & 0x0f == 1) {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        }
        return Ok(());
    }
    Err(BmcError::Busy { what: "its event log, which changes all the time".into() })
}

/// An entry in words; `None` where it is too short to be one.
pub fn describe(record: &[u8], sensors: &[Sensor]) -> Option<LogEntry> {
    let record = <[u8; 16]>::try_from(record.get(..16)?).ok()?;
    let [i0, i1, kind, t0, t1, t2, t3, ..] = record;
    let id = u16::from_le_bytes([i0, i1]).to_string();
    let at = time(u32::from_le_bytes([t0, t1, t2, t3]));
    if kind == SYSTEM_EVENT {
        return Some(describe_event(&record, sensors, id, at));
    }
    // Sections 32.2 and 32.3: C0h-DFh have a time, E0h-FFh have none; the rest is the maker's.
    let (at, octets) = if kind >= 0xe0 { (None, &record[3..]) } else { (at, &record[7..]) };
    let hex: String = octets.iter().map(|o| format!("{o:02x}")).collect();
    Some(LogEntry {
        id,
        at,
        severity: Severity::Ok,
        message: format!("maker's entry of type {kind:02x}: {hex}"),
        sensor: None,
    })
}

fn describe_event(record: &[u8; 16], sensors: &[Sensor], id: String, at: Option<Timestamp>) -> LogEntry {
    let [.., generator, _, _, kind, number, direction, data1, data2, data3] = *record;
    let reading_type = direction & 0x7f;
    let sensor = sensors.iter().find(|s| s.number == number && s.kind == kind && s.owner == generator);
    let kind_word = events::kind(kind).map_or_else(|| format!("sensor type {kind:02x}"), str::to_owned);
    let name = sensor.map(|s| s.name.clone()).filter(|n| !n.is_empty());
    let state = events::state(kind, reading_type, data1 & 0x0f);
    let (words, severity) = match state {
        Some((words, severity)) => (words.to_owned(), severity),
        None => (format!("event {:02x} of type {reading_type:02x}", data1 & 0x0f), Severity::Ok),
    };
    let mut message = format!("{kind_word}: {words}");
    if reading_type == events::THRESHOLD {
        let analog = sensor.and_then(|s| s.analog).filter(|a| !a.is_non_linear());
        // Bits 7:6 and 5:4 of the first octet say what the others are (table 29-6).
        let number = |raw: u8, is: bool| analog.filter(|_| is).and_then(|a| a.value(raw));
        if let Some(value) = number(data2, data1 & 0xc0 == 0x40) {
            message.push_str(&format!(" (reading {value}"));
            match number(data3, data1 & 0x30 == 0x10) {
                Some(limit) => message.push_str(&format!(", threshold {limit})")),
                None => message.push(')'),
            }
        }
    } else if data2 != 0xff || data3 != 0xff {
        message.push_str(&format!(" ({data2:02x} {data3:02x})"));
    }
    // The end of a bad state is good news.
    let gone = direction & 0x80 != 0;
    if gone {
        message.push_str(", no longer");
    }
    let severity = if gone { Severity::Ok } else { severity };
    LogEntry { id, at, severity, message, sensor: name }
}

/// Section 37: seconds since 1970, or since the controller's start, or unknown.
fn time(seconds: u32) -> Option<Timestamp> {
    (seconds > SINCE_START_MAX && seconds != u32::MAX).then(|| Timestamp(u64::from(seconds) * 1000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(tail: [u8; 6], seconds: u32) -> Vec<u8> {
        let mut record = vec![7, 0, SYSTEM_EVENT];
        record.extend(seconds.to_le_bytes());
        record.extend([0x20, 0, 4]);
        record.extend(tail);
        record
    }

    #[test]
    fn entries_are_told_in_words() {
        let entry = describe(&record([0x08, 9, 0x6f, 1, 0xff, 0xff], 1_700_000_000), &[]).unwrap();
        assert_eq!((entry.id.as_str(), entry.message.as_str()), ("7", "power supply: failed"));
        assert_eq!((entry.severity, entry.at), (Severity::Critical, Some(Timestamp(1_700_000_000_000))));
        let entry = describe(&record([0x08, 9, 0xef, 1, 0xff, 0xff], 40), &[]).unwrap();
        assert_eq!(
            (entry.message.as_str(), entry.severity),
            ("power supply: failed, no longer", Severity::Ok)
        );
        assert_eq!(entry.at, None, "seconds since the controller started are no time");
        let entry = describe(&record([0xc9, 9, 0x71, 3, 1, 2], u32::MAX), &[]).unwrap();
        assert_eq!(entry.message, "sensor type c9: event 03 of type 71 (01 02)");
        let oem = [8, 0, 0xe0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
        assert_eq!(
            describe(&oem, &[]).unwrap().message,
            "maker's entry of type e0: 0102030405060708090a0b0c0d"
        );
        assert_eq!(describe(&oem[..15], &[]), None);
    }

    #[test]
    fn a_threshold_is_told_with_its_numbers_and_the_sensor_by_name() {
        let mut sdr = vec![0; 47];
        (sdr[3], sdr[5], sdr[7], sdr[12], sdr[13], sdr[21], sdr[24]) = (1, 0x20, 9, 1, 1, 1, 1);
        sdr.extend(b"\xc4CPU1");
        let sensors = [super::super::sdr::parse(&sdr).unwrap()];
        let entry = describe(&record([0x01, 9, 0x01, 0x59, 101, 100], 1_700_000_000), &sensors).unwrap();
        assert_eq!(
            entry.message,
            "temperature: above the upper critical threshold (reading 101, threshold 100)"
        );
        assert_eq!(entry.sensor.as_deref(), Some("CPU1"));
    }

    proptest! {
        #[test]
        fn no_entry_panics(record in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = describe(&record, &[]);
        }
    }
}
