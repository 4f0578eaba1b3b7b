//! The event log: one `LogService` of the system or of its manager, read from a cursor on.

use protocol::Timestamp;

use super::address::Link;
use super::call::Call;
use super::json::{Resource, View, cut};
use super::limits;
use super::tree::Tree;
use crate::{BmcError, LOG_MAX, LogCursor, LogEntry, Severity};

/// Ids that hardware events have in most services, after those of the profile.
const USUAL: [&str; 6] = ["SEL", "Sel", "IML", "EventLog", "PlatformLog", "Log1"];

impl Call<'_> {
    pub(super) async fn log(&self, since: Option<&LogCursor>) -> Result<Vec<LogEntry>, BmcError> {
        let service = self.log_service().await?;
        let Some(entries) = service.view(self.origin()).link("Entries")? else { return Ok(Vec::new()) };
        // One more than is given away, so that a long log does not lose its newest lines unseen.
        let (whole, links) = self.pages(&entries, 4 * LOG_MAX).await?;
        let single = self.get_all(&newest(links, since)).await?;
        let mut lines = Vec::with_capacity(whole.len() + single.len());
        for resource in whole.iter().chain(&single) {
            lines.push(entry(resource, &resource.view(self.origin()))?);
        }
        Ok(after(in_order(lines), since))
    }

    pub(super) async fn clear_log(&self) -> Result<(), BmcError> {
        let service = self.log_service().await?;
        let view = service.view(self.origin());
        let action = self.action(&view, "#LogService.ClearLog", "").await?;
        let action = action.ok_or_else(|| self.unsupported("clearing the event log"))?;
        self.post(&action.target, &serde_json::json!({})).await.map(|_| ())
    }

    /// The log of hardware events: of the system, else of the manager, else of a chassis.
    async fn log_service(&self) -> Result<Resource, BmcError> {
        let (tree, system) = self.system().await?;
        let mut services = self.log_services(&system).await?;
        let more = [tree.manager.as_slice(), tree.chassis.as_slice()].concat();
        for owner in &more {
            if preferred(&services, &tree).is_some() {
                break;
            }
            if let Some(owner) = self.get_optional(owner).await? {
                services.extend(self.log_services(&owner).await?);
            }
        }
        let link = preferred(&services, &tree).or(services.first());
        self.get(link.ok_or_else(|| self.unsupported("the event log"))?).await
    }

    async fn log_services(&self, owner: &Resource) -> Result<Vec<Link>, BmcError> {
        match owner.view(self.origin()).link("LogServices")? {
            Some(link) => {
                let (whole, links) = self.pages(&link, limits::MEMBERS).await?;
                Ok(whole.into_iter().map(|r| r.link).chain(links).collect())
            }
            None => Ok(Vec::new()),
        }
    }
}

fn preferred<'a>(services: &'a [Link], tree: &Tree) -> Option<&'a Link> {
    let names = tree.profile.log.prefer.iter().map(String::as_str).chain(USUAL);
    names.into_iter().find_map(|name| services.iter().find(|s| s.last() == name))
}

/// Of members that came as links only, those that may be new; reading all of a long log one by one takes minutes.
fn newest(mut links: Vec<Link>, since: Option<&LogCursor>) -> Vec<Link> {
    let number = |link: &Link| link.last().parse::<u64>().ok();
    if links.iter().all(|l| number(l).is_some()) {
        links.sort_by_key(number);
    }
    if let Some(at) = since.and_then(|s| links.iter().position(|l| l.last() == s.id)) {
        // The line of the cursor itself is read again: it shows whether the log was cleared and numbered anew.
        links.drain(..at);
    }
    let skip = links.len().saturating_sub(limits::SINGLE_LINES);
    links.split_off(skip)
}

pub(super) fn entry(resource: &Resource, view: &View<'_>) -> Result<LogEntry, BmcError> {
    // `EntryCode` and `MessageId` are what is left where there are no words.
    let message = view.string("Message")?.or(view.string("MessageId")?).or(view.string("Name")?);
    let severity = match view.text("Severity")?.or(view.text("MessageSeverity")?) {
        Some("Critical" | "Fatal") => Severity::Critical,
        Some("Warning" | "Caution") => Severity::Warning,
        _ => Severity::Ok,
    };
    // A free word in Dell's and HPE's logs, an enumeration in others.
    let sensor = view.string("SensorType")?.or(view.string("OriginOfConditionName")?);
    let id = view.text("Id")?.map_or_else(|| cut(resource.link.last()), cut);
    Ok(LogEntry {
        id,
        at: time(view.text("Created")?),
        severity,
        message: message.unwrap_or_default(),
        sensor,
    })
}

/// ISO 8601 with an offset (DSP0266, section 9.5.4). The years before 2000 are those of a clock that was never set.
fn time(text: Option<&str>) -> Option<Timestamp> {
    const YEAR_2000: i64 = 946_684_800_000;
    let at: jiff::Timestamp = text?.parse().ok()?;
    let at = at.as_millisecond();
    u64::try_from(at).ok().filter(|_| at >= YEAR_2000).map(Timestamp)
}

/// Oldest first, whatever the service's order is: by number where ids are numbers, else by time.
fn in_order(mut lines: Vec<LogEntry>) -> Vec<LogEntry> {
    let number = |line: &LogEntry| line.id.parse::<u64>().ok();
    let (numbered, dated) = (lines.iter().all(|l| number(l).is_some()), lines.iter().all(|l| l.at.is_some()));
    match (dated, numbered) {
        (true, true) => lines.sort_by_key(|l| (l.at, number(l))),
        (true, false) => lines.sort_by_key(|l| l.at),
        (false, true) => lines.sort_by_key(number),
        (false, false) => {}
    }
    lines
}

/// Lines after the cursor. Where its line is gone (the log was cleared, or went round), those that are later in time.
fn after(mut lines: Vec<LogEntry>, since: Option<&LogCursor>) -> Vec<LogEntry> {
    if let Some(since) = since {
        match lines.iter().rposition(|l| l.id == since.id && l.at == since.at) {
            Some(at) => drop(lines.drain(..=at)),
            None => lines.retain(|l| l.at.is_none() || since.at.is_none() || l.at > since.at),
        }
    }
    let skip = lines.len().saturating_sub(LOG_MAX);
    lines.split_off(skip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, at: Option<u64>) -> LogEntry {
        let at = at.map(Timestamp);
        LogEntry { id: id.into(), at, severity: Severity::Ok, message: String::new(), sensor: None }
    }

    fn ids(lines: &[LogEntry]) -> Vec<&str> {
        lines.iter().map(|l| l.id.as_str()).collect()
    }

    #[test]
    fn oldest_first_from_the_cursor_on() {
        let log = || in_order(vec![line("10", Some(30)), line("9", Some(20)), line("8", Some(20))]);
        assert_eq!(ids(&log()), ["8", "9", "10"]);
        let cursor = |id: &str, at| LogCursor { id: id.into(), at: Some(Timestamp(at)) };
        assert_eq!(ids(&after(log(), Some(&cursor("9", 20)))), ["10"]);
        assert!(after(log(), Some(&cursor("10", 30))).is_empty());
        // The log was cleared and numbered anew: the id is there, its time is another.
        assert_eq!(ids(&after(log(), Some(&cursor("8", 5)))), ["8", "9", "10"]);
        assert_eq!(ids(&after(log(), Some(&cursor("77", 25)))), ["10"]);
        // A clock that was never set.
        let log = in_order(vec![line("2", None), line("1", None)]);
        assert_eq!(ids(&after(log, Some(&LogCursor { id: "1".into(), at: None }))), ["2"]);
    }

    #[test]
    fn only_new_lines_are_fetched_one_by_one() {
        let links =
            |n: std::ops::Range<u64>| n.rev().map(|i| Link::known(&format!("/l/{i}"))).collect::<Vec<_>>();
        let got = newest(links(1..1000), None);
        assert_eq!(
            (got.len(), got[0].last(), got.last().unwrap().last()),
            (limits::SINGLE_LINES, "800", "999")
        );
        let cursor = LogCursor { id: "998".into(), at: None };
        assert_eq!(newest(links(1..1000), Some(&cursor)).len(), 2);
    }

    #[test]
    fn times() {
        assert_eq!(time(Some("2020-01-01T00:00:00-05:00")), Some(Timestamp(1_577_854_800_000)));
        for none in [None, Some("1970-01-01T00:00:07Z"), Some("yesterday"), Some("")] {
            assert_eq!(time(none), None);
        }
    }
}
