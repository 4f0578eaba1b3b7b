//! What stands beside a node's state: maintenance with its end, quarantine, retirement, papers.
//!
//! ```text
//!   inspected, not as its model says ──▶ quarantine ──▶ as it says, or accepted with a reason ──▶ none
//!        └─ a neighbour has only not spoken yet ──▶ quarantine that waits ──▶ spoke, or told of
//! ```

use std::time::Duration;

use protocol::Timestamp;
use protocol::fault::{Fault, FaultCode};
use serde::{Deserialize, Serialize};

use super::event::{Refused, Severity};
use super::state::{State, StateName};
use super::step::Step;
use super::{Maintenance, Node, erase, trust};
use crate::expected::{Compared, Difference};
use crate::plural::count;
use crate::refresh::{AHEAD_DAYS, Milestone, Papers};

/// How long a neighbour is waited for: switches speak by LLDP every 30 s (IEEE 802.1AB-2016, 9.2.5.5), agents listen for
/// 65 s and then say so.
pub const NEIGHBOUR_WAIT: Duration = Duration::from_secs(100);
/// Differences that an event names; the page and the API have all.
const NAMED_MAX: usize = 5;

/// The machine is not as its model says: it is not offered, provided or deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quarantine {
    /// Name of the model.
    pub model: String,
    /// Since when.
    pub since: Timestamp,
    /// What is not as it says, without what was accepted.
    pub differences: Vec<Difference>,
    /// Nothing is known to be wrong: neighbours are waited for until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_until: Option<Timestamp>,
    /// It would have been offered by itself, and is once the quarantine ends.
    #[serde(default)]
    pub offer: bool,
}

/// A difference that somebody accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Accepted {
    /// What.
    pub difference: Difference,
    /// Why, in somebody's words.
    pub reason: String,
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// The machine is on its way out: nothing new is put on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Retired {
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Who said so.
    pub by: String,
}

impl Node {
    /// Why nothing new is put on it, in words; `None` where something may be.
    pub fn kept_out(&self) -> Option<String> {
        if let Some(maintenance) = &self.maintenance {
            return Some(format!("under maintenance: {}", maintenance.reason));
        }
        if let Some(quarantine) = &self.quarantine {
            return Some(format!("in quarantine: {}", quarantine.words()));
        }
        self.retired.as_ref().map(|retired| format!("retired: {}", retired.reason))
    }

    /// When something must be done about it next, by its state or beside it.
    pub fn deadline(&self) -> Option<Timestamp> {
        let beside = [
            self.maintenance.as_ref().and_then(|m| m.until),
            self.quarantine.as_ref().and_then(|q| q.wait_until),
            self.next_milestone().map(|(at, _)| at),
        ];
        beside.into_iter().flatten().chain(self.state.deadline()).min()
    }

    /// The next milestone of which nobody was told yet, and when to tell.
    fn next_milestone(&self) -> Option<(Timestamp, Milestone)> {
        let open = Milestone::ALL.into_iter().filter(|milestone| !self.told.contains(milestone));
        let due = open.filter_map(|m| Some((m.of(&self.papers)?.plus_days(-AHEAD_DAYS).start(), m)));
        due.min()
    }
}

impl Quarantine {
    /// The first differences, in words.
    pub fn words(&self) -> String {
        words(&self.differences)
    }
}

fn words(differences: &[Difference]) -> String {
    let named: Vec<&str> = differences.iter().take(NAMED_MAX).map(|d| d.what.as_str()).collect();
    let more = differences.len().saturating_sub(NAMED_MAX);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{rest}", named.join("; "))
}

/// Takes in how the machine stands against its model; `None` where none is for it.
pub(super) fn compared(s: &mut Step<'_>, compared: Option<Compared>) {
    s.node.measured = compared.as_ref().and_then(|compared| compared.measured.clone());
    trust::pin_first(s);
    let Some(Compared { model, differences, .. }) = compared else {
        s.node.accepted.clear();
        if s.node.quarantine.is_some() {
            end_quarantine(s, "no model is for this machine any more");
        }
        return;
    };
    // What was mended is not accepted any more. A neighbour that has not spoken yet may still be the one of before.
    s.node.accepted.retain(|accepted| {
        differences
            .iter()
            .any(|d| *d == accepted.difference || (d.unheard && d.is_about(&accepted.difference)))
    });
    let open: Vec<Difference> =
        differences.into_iter().filter(|d| s.node.accepted.iter().all(|a| a.difference != *d)).collect();
    if open.is_empty() {
        if s.node.quarantine.is_some() {
            end_quarantine(s, &format!("it is as model {model} says"));
        }
        return;
    }
    let now = s.now();
    let before = s.node.quarantine.take();
    let waits = open.iter().all(|d| d.unheard);
    // Who was waited for in vain is not waited for again by looking a second time.
    let told = before.as_ref().is_some_and(|q| q.wait_until.is_none() && q.differences == open);
    let wait_until = (waits && !told)
        .then(|| before.as_ref().and_then(|q| q.wait_until).unwrap_or_else(|| now.after(NEIGHBOUR_WAIT)));
    let same = before.as_ref().is_some_and(|q| q.differences == open && q.model == model);
    let (since, offer) = before.as_ref().map_or((now, false), |q| (q.since, q.offer));
    let quarantine = Quarantine { model, since, differences: open, wait_until, offer };
    if !same {
        if waits {
            let ports = quarantine.differences.len();
            s.info(
                "cabling.waiting",
                format!("waits for {} to hear of its neighbour by LLDP", count(ports, "port")),
            );
        } else {
            set(s, &quarantine);
        }
    }
    s.node.quarantine = Some(quarantine);
}

fn set(s: &mut Step<'_>, quarantine: &Quarantine) {
    let place = s.node.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
    let serial =
        s.node.identity.serial.as_ref().map(|serial| format!(", serial {serial}")).unwrap_or_default();
    s.note(
        "quarantine.set",
        Severity::Error,
        format!("not as model {} says: {}{place}{serial}", quarantine.model, quarantine.words()),
    );
}

fn end_quarantine(s: &mut Step<'_>, why: &str) {
    let Some(quarantine) = s.node.quarantine.take() else { return };
    if quarantine.wait_until.is_none() {
        s.info("quarantine.cleared", format!("out of quarantine: {why}"));
    }
    let free = s.node.maintenance.is_none() && s.node.retired.is_none() && s.node.dirty.is_none();
    if quarantine.offer && free && matches!(s.node.state, State::Manageable) {
        s.info("node.available", "available: all disks are blank, nothing had to be cleaned");
        s.node.state = State::Available;
    }
}

/// An operator takes the machine as it is.
pub(super) fn accept(s: &mut Step<'_>, reason: String, by: String) -> Result<(), Refused> {
    let Some(quarantine) = &s.node.quarantine else {
        return Err(
            s.wrong_state("accept differences of", "nothing is wrong with it: it is not in quarantine")
        );
    };
    let (at, differences) = (s.now(), quarantine.differences.clone());
    s.warn("quarantine.accepted", format!("accepted ({reason}): {}", words(&differences)));
    s.node.accepted.extend(differences.into_iter().map(|difference| Accepted {
        difference,
        reason: reason.clone(),
        by: by.clone(),
        at,
    }));
    end_quarantine(s, "what is different was accepted");
    Ok(())
}

/// Says of which model it is, whatever its maker says.
pub(super) fn assign(s: &mut Step<'_>, model: Option<String>) {
    if model == s.node.model {
        return;
    }
    match &model {
        Some(model) => s.info("model.assigned", format!("is of model {model}")),
        None => s.info("model.unassigned", "its model is told by maker and product again"),
    }
    s.node.model = model;
}

/// Takes it out of use for good, or back.
pub(super) fn retire(s: &mut Step<'_>, reason: Option<String>, by: String) -> Result<(), Refused> {
    let since = s.now();
    match (reason, s.node.retired.is_some()) {
        (Some(reason), _) => {
            s.warn("node.retired", format!("retired: {reason}"));
            s.node.retired = Some(Retired { reason, since, by });
            if matches!(s.node.state, State::Available) {
                s.node.state = State::Manageable;
            }
        }
        (None, true) => {
            s.info("node.unretired", "back from retirement");
            s.node.retired = None;
        }
        (None, false) => return Err(s.wrong_state("take back", "it is not retired")),
    }
    Ok(())
}

/// Takes over a machine that runs an OS already, without touching it.
pub(super) fn adopt(s: &mut Step<'_>) -> Result<(), Refused> {
    if !s.is(&[StateName::Manageable]) {
        return Err(s.wrong_state("adopt", "only a manageable node can be adopted: manage it first"));
    }
    erase::check(s)?;
    s.info(
        "node.adopted",
        "adopted as it is: it runs an OS that Billet did not put there; nothing was written",
    );
    s.node.state = State::Active;
    Ok(())
}

/// Keeps what its papers say. What is past already needs no warning.
pub(super) fn papers(s: &mut Step<'_>, papers: Papers) {
    if papers == s.node.papers {
        return;
    }
    let now = s.now();
    let day = |day: Option<crate::dates::Date>| day.map_or("unknown".to_owned(), |day| day.to_string());
    s.info(
        "node.papers",
        format!("bought {}, warranty until {}", day(papers.purchased), day(papers.warranty_end)),
    );
    s.node.told =
        Milestone::ALL.into_iter().filter(|m| m.of(&papers).is_some_and(|d| d.start() <= now)).collect();
    s.node.papers = papers;
}

/// Sets or ends maintenance.
pub(super) fn maintenance(
    s: &mut Step<'_>,
    reason: Option<String>,
    until: Option<Timestamp>,
    by: Option<String>,
) {
    match &reason {
        Some(reason) => s.warn("maintenance.set", format!("under maintenance: {reason}")),
        None => s.info("maintenance.cleared", "maintenance ended"),
    }
    let since = s.now();
    s.node.maintenance = reason.map(|reason| Maintenance { reason, since, until, by });
}

/// Since the backup a job may have ended, and a machine may have got what nobody here knows of. So nothing goes on, and
/// nothing begins, before somebody has looked.
pub(super) fn restored(s: &mut Step<'_>, of: Timestamp) {
    let of = crate::dates::minute(of);
    if s.node.state.run().is_some() || matches!(s.node.state, State::Servicing(_)) {
        s.fail(Fault::new(
            FaultCode::Aborted,
            format!("called off: the site was restored from a backup of {of}"),
            "look at the machine: the job may have ended after the backup was made; then end its maintenance, and retry",
        ));
    }
    let hold = format!("restored from a backup of {of}: end this when the machine is as it says here");
    let before = s.node.maintenance.as_ref().map(|before| before.reason.clone());
    // Once; and one that would have ended by itself does not.
    if before.as_ref().is_none_or(|before| !before.starts_with(&hold)) {
        let before = before.map(|before| format!("; before: {before}")).unwrap_or_default();
        maintenance(s, Some(hold + &before), None, None);
    }
}

/// What is due by now.
pub(super) fn tick(s: &mut Step<'_>) {
    let now = s.now();
    if s.node.maintenance.as_ref().and_then(|m| m.until).is_some_and(|until| until <= now) {
        s.info("maintenance.ended", "maintenance ended by itself: its time was over");
        s.node.maintenance = None;
    }
    if let Some(mut quarantine) = s.node.quarantine.clone()
        && quarantine.wait_until.is_some_and(|until| until <= now)
    {
        quarantine.wait_until = None;
        set(s, &quarantine);
        s.node.quarantine = Some(quarantine);
    }
    while let Some((at, milestone)) = s.node.next_milestone()
        && at <= now
    {
        s.node.told.push(milestone);
        if let Some(day) = milestone.of(&s.node.papers) {
            let words = match milestone {
                Milestone::Warranty => format!("its warranty ends on {day}"),
                _ => format!("it will be {} on {day}", milestone.words()),
            };
            s.warn("refresh.due", format!("{words}: see the refresh plan"));
        }
    }
}

/// Nobody could be heard while the server was down.
pub(super) fn server_started(s: &mut Step<'_>) {
    let now = s.now();
    if let Some(until) = s.node.quarantine.as_mut().and_then(|q| q.wait_until.as_mut()) {
        *until = now.after(NEIGHBOUR_WAIT);
    }
}

/// Refuses to put something new on a machine in quarantine or on its way out.
pub(super) fn check(s: &Step<'_>) -> Result<(), Refused> {
    if let Some(quarantine) = &s.node.quarantine {
        return Err(Refused::Quarantined { what: quarantine.words() });
    }
    match &s.node.retired {
        Some(retired) => Err(Refused::Retired { reason: retired.reason.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use protocol::{JobId, MacAddr, NodeId};
    use uuid::Uuid;

    use super::super::event::{Cleaning, Context, Event, Policy, Verb};
    use super::super::{Identity, step};
    use super::*;
    use crate::expected::PartKind;
    use crate::node::Place;
    use crate::node::place::Typed;

    const NOW: Timestamp = Timestamp(1_795_737_600_000);

    struct Story {
        node: Node,
        now: Timestamp,
        notes: Vec<String>,
    }

    impl Story {
        fn new(state: State) -> Self {
            let identity = Identity { uuid: None, serial: Some("S1".into()), macs: [MacAddr([2; 6])].into() };
            let mut node = Node::discovered(NodeId(Uuid::from_u128(5)), "n1".into(), identity, NOW);
            node.state = state;
            node.place = Place::typed(Typed { rack: "R4", unit: "12", ..Typed::default() }).unwrap();
            Self { node, now: NOW, notes: Vec::new() }
        }

        fn event(&mut self, event: Event) -> Result<(), Refused> {
            let context = Context { now: self.now, fresh_job: JobId(Uuid::nil()), policy: Policy::default() };
            let done = step(&self.node, event, &context)?;
            self.node = done.node;
            self.notes.extend(done.notes.into_iter().map(|note| format!("{}: {}", note.kind, note.message)));
            Ok(())
        }

        fn verb(&mut self, verb: Verb) -> Result<(), Refused> {
            self.event(Event::Verb(verb))
        }

        fn compared(&mut self, differences: &[Difference]) -> &mut Self {
            let differences = differences.to_vec();
            self.event(Event::Compared(Some(Compared { model: "r640".into(), differences, measured: None })))
                .unwrap();
            self
        }

        fn told(&mut self) -> Vec<String> {
            std::mem::take(&mut self.notes)
        }
    }

    fn difference(part: PartKind, slot: &str, what: &str) -> Difference {
        Difference {
            part,
            slot: Some(slot.into()),
            expected: None,
            found: None,
            what: what.into(),
            serial: None,
            part_number: None,
            unheard: what.starts_with("no neighbour"),
        }
    }

    #[test]
    fn a_missing_part_is_told_once_and_ends_with_the_part() {
        let mut story = Story::new(State::Available);
        let missing = difference(PartKind::Dimm, "A1", "memory module in slot A1 is missing");
        story.compared(std::slice::from_ref(&missing)).compared(&[missing]);
        assert_eq!(
            story.told(),
            [
                "quarantine.set: not as model r640 says: memory module in slot A1 is missing (rack R4, unit 12), serial S1"
            ]
        );
        assert!(matches!(story.verb(Verb::Deploy(order())), Err(Refused::Quarantined { .. })));
        story.compared(&[]);
        assert_eq!(story.told(), ["quarantine.cleared: out of quarantine: it is as model r640 says"]);
        assert_eq!(story.node.quarantine, None);
        story.verb(Verb::Deploy(order())).unwrap();
    }

    fn order() -> Box<super::super::event::DeployOrder> {
        let target = protocol::job::DiskTarget { id: "serial:D1".parse().unwrap(), size_bytes: 1 << 34 };
        let spec = protocol::job::DeploySpec {
            image: protocol::ImageId(protocol::Sha256([7; 32])),
            image_name: "tiny 1".into(),
            target,
            config: None,
            grow_root: true,
            boot_entry: None,
        };
        let phone_home = Some(protocol::Sha256([3; 32]));
        Box::new(super::super::event::DeployOrder {
            spec,
            hostname: "web-1".into(),
            phone_home,
            resumed: false,
            imaging: crate::volume::Imaging::Server,
            crosses: false,
        })
    }

    #[test]
    fn what_was_accepted_stays_so_until_it_changes() {
        let mut story = Story::new(State::Manageable);
        let cable = difference(PartKind::Cable, "eth1", "port eth1 is on port 7; expected port 8");
        let silence = difference(PartKind::Cable, "eth1", "no neighbour on port eth1");
        story.compared(std::slice::from_ref(&cable));
        story.verb(Verb::Accept { reason: "port 8 is broken".into(), by: "ann".into() }).unwrap();
        assert_eq!(story.node.accepted[0].by, "ann");
        assert_eq!(story.node.quarantine, None);
        story.told();
        // It was restarted: the switch speaks a little later.
        story.compared(&[silence]).compared(std::slice::from_ref(&cable));
        assert_eq!(story.node.quarantine, None);
        assert_eq!(story.told(), ["cabling.waiting: waits for 1 port to hear of its neighbour by LLDP"]);
        let other = difference(PartKind::Cable, "eth1", "port eth1 is on port 9; expected port 8");
        story.compared(&[other]);
        assert!(story.node.quarantine.is_some(), "something else is different now");
        story.compared(&[]).compared(&[cable]);
        assert!(story.node.quarantine.is_some(), "it was mended, and is broken again");
        assert!(story.verb(Verb::Accept { reason: "x".into(), by: "ann".into() }).is_ok());
        assert!(
            story.verb(Verb::Accept { reason: "x".into(), by: "ann".into() }).is_err(),
            "nothing is wrong"
        );
    }

    #[test]
    fn a_neighbour_has_time_to_introduce_itself() {
        let mut story = Story::new(State::Manageable);
        let silence = difference(PartKind::Cable, "eth1", "no neighbour on port eth1");
        story.compared(std::slice::from_ref(&silence));
        let due = story.node.deadline().unwrap();
        assert_eq!(due, NOW.after(NEIGHBOUR_WAIT));
        assert!(story.node.kept_out().is_some(), "it is not offered before the switch has spoken");
        story.told();
        (story.now, story.notes) = (due, Vec::new());
        story.event(Event::Tick).unwrap();
        assert_eq!(
            story.told(),
            [
                "quarantine.set: not as model r640 says: no neighbour on port eth1 (rack R4, unit 12), serial S1"
            ]
        );
        story.compared(&[silence]);
        assert_eq!((story.node.deadline(), story.told()), (None, vec![]), "told once");
    }

    #[test]
    fn a_machine_that_was_to_be_offered_is_offered_once_it_is_well() {
        let mut story = Story::new(State::Manageable);
        story.compared(&[difference(PartKind::Dimm, "A1", "missing")]);
        story.node.quarantine.as_mut().unwrap().offer = true;
        story.compared(&[]);
        assert_eq!(story.node.state, State::Available);
    }

    #[test]
    fn maintenance_ends_by_itself() {
        let mut story = Story::new(State::Available);
        let until = NOW.after(Duration::from_hours(2));
        let verb =
            Verb::Maintenance { reason: Some("fan".into()), until: Some(until), by: Some("ann".into()) };
        story.verb(verb).unwrap();
        assert_eq!(story.node.deadline(), Some(until));
        story.now = NOW.after(Duration::from_hours(1));
        story.event(Event::Tick).unwrap();
        assert!(story.node.maintenance.is_some());
        story.now = until;
        story.event(Event::Tick).unwrap();
        assert_eq!(story.node.maintenance, None);
        assert_eq!(
            story.told().last().unwrap(),
            "maintenance.ended: maintenance ended by itself: its time was over"
        );
    }

    #[test]
    fn a_restored_site_starts_nothing_by_itself() {
        let mut story = Story::new(State::Available);
        story.verb(Verb::Inspect).unwrap();
        assert!(story.node.state.run().is_some());
        story.told();
        story.event(Event::Restored { of: NOW }).unwrap();
        assert_eq!(story.node.state.name(), StateName::Failed);
        let told = story.told();
        assert!(
            told[0].contains("called off: the site was restored from a backup of 2026-11-27"),
            "{told:?}"
        );
        assert!(
            told[1].starts_with("maintenance.set: under maintenance: restored from a backup of"),
            "{told:?}"
        );
        assert!(matches!(story.verb(Verb::Retry), Err(Refused::Maintenance { .. })));
        story.verb(Verb::Maintenance { reason: None, until: None, by: None }).unwrap();
        story.verb(Verb::Retry).unwrap();

        let mut story = Story::new(State::Active);
        let until = Some(NOW.after(Duration::from_hours(2)));
        story.verb(Verb::Maintenance { reason: Some("fan".into()), until, by: None }).unwrap();
        story.event(Event::Restored { of: NOW }).unwrap();
        story.event(Event::Restored { of: NOW }).unwrap();
        story.now = NOW.after(Duration::from_hours(3));
        story.event(Event::Tick).unwrap();
        let reason = story.node.maintenance.clone().unwrap().reason;
        assert!(reason.ends_with("as it says here; before: fan"), "once, and it does not end: {reason}");
        assert_eq!(story.node.state.name(), StateName::Active, "what runs goes on");
        assert!(matches!(
            story.verb(Verb::Delete { wipe: Vec::new(), how: Cleaning::Light }),
            Err(Refused::Maintenance { .. })
        ));
    }

    #[test]
    fn retirement_takes_out_and_adoption_takes_in() {
        let mut story = Story::new(State::Available);
        story.verb(Verb::Retire { reason: Some("five years".into()), by: "ann".into() }).unwrap();
        assert_eq!(story.node.state, State::Manageable);
        assert!(matches!(
            story.verb(Verb::Provide { wipe: vec![], how: Cleaning::Light }),
            Err(Refused::Retired { .. })
        ));
        story.verb(Verb::Retire { reason: None, by: "ann".into() }).unwrap();
        story.verb(Verb::Adopt).unwrap();
        assert_eq!(story.node.state, State::Active);
        assert!(story.verb(Verb::Adopt).is_err());
    }

    #[test]
    fn milestones_are_told_ahead_and_once() {
        let mut story = Story::new(State::Active);
        let papers = Papers { purchased: "2022-02-01".parse().ok(), warranty_end: "2027-06-30".parse().ok() };
        story.verb(Verb::Papers { papers }).unwrap();
        assert_eq!(
            story.node.told,
            [Milestone::ThreeYears, Milestone::FourYears],
            "what is past is not told"
        );
        story.told();
        story.event(Event::Tick).unwrap();
        assert_eq!(story.told(), ["refresh.due: it will be 5 years old on 2027-02-01: see the refresh plan"]);
        story.event(Event::Tick).unwrap();
        assert!(story.told().is_empty());
        story.now = story.node.deadline().unwrap();
        story.event(Event::Tick).unwrap();
        assert_eq!(story.told(), ["refresh.due: its warranty ends on 2027-06-30: see the refresh plan"]);
        assert_eq!(story.node.deadline(), None);
    }
}
