//! Alarms about identity: somebody says that they are a node, and cannot prove it. Each is counted; of those that come often
//! one a minute is an event, so that whoever tries for ever does not fill the list.

use std::collections::BTreeMap;
use std::time::Duration;

use boot_server_core::node::Severity;
use protocol::{NodeId, Timestamp};

use super::{Actor, Engine, lock, now};

/// An event of a kind comes no more often of the same node.
const SAID: Duration = Duration::from_mins(1);
/// Nodes of which it is remembered when they were told of; where there are more, all but these are told of as one.
const KEPT_MAX: usize = 4096;

/// What somebody tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// A nonce that was never given, was used already, is old, or is another machine's.
    Nonce,
    /// A TPM's answer that proves nothing, or the contrary.
    Quote,
}

impl Alarm {
    /// Every kind, for the metrics.
    pub const ALL: [Self; 2] = [Self::Nonce, Self::Quote];

    /// As it is named in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nonce => "nonce",
            Self::Quote => "quote",
        }
    }

    fn event(self) -> &'static str {
        match self {
            Self::Nonce => "identity.nonce",
            Self::Quote => "identity.quote",
        }
    }
}

/// What was tried since the server started.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    counts: BTreeMap<Alarm, u64>,
    said: BTreeMap<(Alarm, Option<NodeId>), Said>,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    at: Timestamp,
    since: u64,
}

impl Alarms {
    /// Counts one; some number of unsaid ones before it where it is to be said now.
    fn take(&mut self, alarm: Alarm, node: Option<NodeId>, now: Timestamp) -> Option<u64> {
        *self.counts.entry(alarm).or_default() += 1;
        let full = self.said.len() >= KEPT_MAX && !self.said.contains_key(&(alarm, node));
        if full {
            self.said.retain(|_, said| now.since(said.at) < SAID);
        }
        let full = self.said.len() >= KEPT_MAX && !self.said.contains_key(&(alarm, node));
        let key = (alarm, node.filter(|_| !full));
        match self.said.get_mut(&key) {
            Some(said) if now.since(said.at) < SAID => {
                said.since = said.since.saturating_add(1);
                None
            }
            before => {
                let unsaid = before.map_or(0, |said| said.since);
                self.said.insert(key, Said { at: now, since: 0 });
                Some(unsaid)
            }
        }
    }
}

impl Engine {
    /// Tells operators that somebody could not prove what they say; `node` is whom they say they are.
    pub(super) async fn alarm(&self, alarm: Alarm, node: Option<NodeId>, message: &str) {
        let Some(unsaid) = lock(&self.0.alarms).take(alarm, node, now()) else {
            tracing::debug!(?node, message, "an alarm that was said a moment ago");
            return;
        };
        let more = match unsaid {
            0 => String::new(),
            n => format!(" ({n} more of these since the last such event)"),
        };
        let noted =
            self.note(Actor::Server, node, alarm.event(), Severity::Error, format!("{message}{more}")).await;
        if let Err(error) = noted {
            tracing::error!(%error, message, "an alarm was not stored");
        }
    }

    /// How many of them there were since the server started.
    pub fn alarms(&self, alarm: Alarm) -> u64 {
        lock(&self.0.alarms).counts.get(&alarm).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn each_is_counted_and_one_a_minute_is_said() {
        let (mut alarms, t) = (Alarms::default(), Timestamp(1_000_000));
        let node = |n: u128| Some(NodeId(Uuid::from_u128(n)));
        assert_eq!(alarms.take(Alarm::Nonce, node(1), t), Some(0));
        assert_eq!(alarms.take(Alarm::Nonce, node(1), t), None);
        assert_eq!(alarms.take(Alarm::Nonce, node(2), t), Some(0), "another node");
        assert_eq!(alarms.take(Alarm::Quote, node(1), t), Some(0), "another kind");
        assert_eq!(alarms.take(Alarm::Nonce, node(1), t.after(SAID)), Some(1));
        assert_eq!(alarms.counts[&Alarm::Nonce], 4);
    }

    #[test]
    fn who_invents_machines_fills_nothing() {
        let (mut alarms, t) = (Alarms::default(), Timestamp(1_000_000));
        let said = (0..20_000_u128)
            .filter(|n| alarms.take(Alarm::Nonce, Some(NodeId(Uuid::from_u128(*n))), t).is_some())
            .count();
        assert!(alarms.said.len() <= KEPT_MAX + 1 && said <= KEPT_MAX + 1, "{said}");
        assert_eq!(alarms.counts[&Alarm::Nonce], 20_000);
    }
}
