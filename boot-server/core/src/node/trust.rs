//! How far it is proven which machine an agent runs on, and what each level may receive (DESIGN section 6).
//!
//! ```text
//!  T0 a claimed MAC address or UUID ── nonce of its boot ──▶ T1 ── it came by its own BMC, or an operator approved ──▶ T2
//!   ▲                                                        └─ quote by its pinned TPM, PCRs as its model says ──▶ T3
//!   └── it shows another TPM than the pinned one
//! ```
//!
//! A level is never stored: it follows each time from what was proven in this session ([`Session`](super::Session)), from
//! the TPM that is pinned, and from what the node's model says. What a job needs follows from the job.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use protocol::job::Task;
use protocol::tpm::Octets;
use protocol::{Sha256, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::event::{Effect, Refused, Severity};
use super::identity::Claim;
use super::state::RunStage;
use super::step::Step;
use super::{Node, Session};

/// How long a job waits for what proves more: somebody may be asleep.
pub const TRUST_WAIT: Duration = Duration::from_hours(24);
/// Platform configuration registers that a quote is of: what firmware, loader and kernel measure (TCG PC Client PFP, 3.3.4).
pub const PCRS_MAX: u8 = 16;
/// Values that a model may allow for one register: as many versions of firmware or ramdisk as may be about at once.
pub const VALUES_MAX: usize = 16;

/// A level of proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = TrustLevel))]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Claimed: what anybody may have.
    #[default]
    T0,
    /// A one-time nonce of this boot.
    T1,
    /// The nonce came by the node's own controller, or an operator approved this boot.
    T2,
    /// The pinned TPM vouches for what was booted.
    T3,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::T0 => "T0",
            Self::T1 => "T1",
            Self::T2 => "T2",
            Self::T3 => "T3",
        })
    }
}

impl FromStr for Level {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().as_str() {
            "t0" => Ok(Self::T0),
            "t1" => Ok(Self::T1),
            "t2" => Ok(Self::T2),
            "t3" => Ok(Self::T3),
            _ => Err(()),
        }
    }
}

/// What the site wants before something is handed out. Keys of disks need T3, whatever it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// User data, password hashes and tokens in a job.
    pub user_data: Level,
    /// The password of an account on the machine's controller.
    pub bmc_account: Level,
}

impl Default for Needs {
    fn default() -> Self {
        Self { user_data: Level::T1, bmc_account: Level::T1 }
    }
}

/// What is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// Work without a secret in it.
    Work,
    /// User data, password hashes and tokens.
    UserData,
    /// Keys of disks.
    DiskKeys,
}

impl Item {
    fn words(self) -> &'static str {
        match self {
            Self::Work => "a job needs",
            Self::UserData => "user data needs",
            Self::DiskKeys => "keys of disks need",
        }
    }
}

/// How a nonce came to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// In a boot script over the provisioning network, or asked for there.
    #[default]
    Network,
    /// In the boot image that its own controller read.
    Bmc,
}

/// An operator's word for one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// The TPM that a node has, by somebody's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PinnedTpm {
    /// SHA-256 of the public area of its endorsement key.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ek: Sha256,
    /// Since when.
    pub since: Timestamp,
    /// By whose word; a model that trusts the first TPM is one.
    pub by: String,
}

/// What machines of a model measure when they boot what they should.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ModelMeasured))]
#[serde(default, deny_unknown_fields)]
pub struct Measured {
    /// Values (SHA-256 bank) that are allowed, by number of the register. None at all: no machine of the model gets above T2.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Vec<String>>))]
    pub pcrs: BTreeMap<u8, Vec<Sha256>>,
    /// The first TPM that a machine shows is pinned without anybody's word, where somebody assigned this model to it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trust_first_tpm: bool,
}

/// What a TPM has signed for a session: everything in it was checked against the signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quoted {
    /// SHA-256 of the public area of its endorsement key.
    pub ek: Sha256,
    /// SHA-256 of the certificate of that key, where the TPM has one that is of this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Sha256>,
    /// That public area (TPMT_PUBLIC): what is made for it only this TPM can open.
    pub ek_public: Octets,
    /// Public area of the attestation key that it made.
    pub ak: Octets,
    /// When.
    pub at: Timestamp,
    /// Its registers (SHA-256 bank).
    pub pcrs: BTreeMap<u8, Sha256>,
    /// What the event log says.
    pub log: EventLog,
}

/// The firmware's log of what it measured, replayed against the registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum EventLog {
    /// The machine has none.
    None,
    /// It leads to the registers.
    Matches {
        /// Entries.
        events: u32,
    },
    /// It does not.
    Differs {
        /// These registers hold something else.
        pcrs: Vec<u8>,
    },
    /// It is no log.
    Broken,
}

/// A level with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The level.
    pub level: Level,
    /// Why it is that.
    pub why: String,
    /// Why it is not T3; `None` where it is.
    pub below_t3: Option<String>,
}

/// What a job waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// What is to be handed out.
    pub item: Item,
    /// What that needs.
    pub needs: Level,
    /// Since when it waits.
    pub since: Timestamp,
    /// What to do about it, in words.
    pub words: String,
}

impl Node {
    /// How far it is proven which machine the agent runs on, now.
    pub fn trust(&self) -> Trust {
        let none =
            |why: &str| Trust { level: Level::T0, why: why.to_owned(), below_t3: Some(why.to_owned()) };
        let Some(session) = &self.link.session else { return none("no agent of this server runs on it") };
        if self.shows_other_tpm() {
            return none("it shows another TPM than the one that is pinned");
        }
        let (level, why) = match (&session.approved, session.delivered) {
            (Some(Approved { by, .. }), _) => (Level::T2, format!("{by} approved this boot")),
            (None, Delivery::Bmc) => (Level::T2, "its nonce came by its own BMC".to_owned()),
            (None, Delivery::Network) => {
                (Level::T1, "its nonce came over the provisioning network".to_owned())
            }
        };
        match self.below_t3(session) {
            None => {
                let why = "its pinned TPM vouches for what was booted".to_owned();
                Trust { level: Level::T3, why, below_t3: None }
            }
            below_t3 => Trust { level, why, below_t3 },
        }
    }

    /// True where the agent's TPM is not the pinned one.
    pub fn shows_other_tpm(&self) -> bool {
        let shown = self.link.session.as_ref().and_then(|session| session.tpm.as_ref());
        matches!((shown, &self.tpm), (Some(shown), Some(pinned)) if shown.ek != pinned.ek)
    }

    fn below_t3(&self, session: &Session) -> Option<String> {
        let Some(quoted) = &session.tpm else { return Some("no quote of a TPM came".to_owned()) };
        let Some(pinned) = &self.tpm else {
            return Some("no TPM is pinned for it (`billet node tpm pin`)".to_owned());
        };
        if pinned.ek != quoted.ek {
            return Some("it shows another TPM than the one that is pinned".to_owned());
        }
        match &quoted.log {
            EventLog::None | EventLog::Matches { .. } => {}
            EventLog::Differs { pcrs } => {
                return Some(format!("its event log does not lead to PCR {}", numbers(pcrs)));
            }
            EventLog::Broken => return Some("its event log cannot be read".to_owned()),
        }
        let Some(measured) = self.measured.as_ref().filter(|measured| !measured.pcrs.is_empty()) else {
            return Some("its model says nothing of PCRs (`billet model learn-pcrs`)".to_owned());
        };
        let wrong = measured.wrong(&quoted.pcrs);
        (!wrong.is_empty()).then(|| format!("PCR {} not as its model says", numbers(&wrong)))
    }

    /// What this job needs and the agent has not proven, by what the site wants.
    fn lacking(&self, task: &Task, needs: Needs) -> Option<(Item, Level)> {
        let (item, level) = match task {
            Task::Inspect | Task::Clean { .. } => (Item::Work, Level::T1),
            Task::Deploy(spec) if spec.config.is_some() => (Item::UserData, needs.user_data.max(Level::T1)),
            Task::Deploy(_) => (Item::Work, Level::T1),
        };
        (self.trust().level < level).then_some((item, level))
    }

    /// True where the agent may be given an account on its controller.
    pub fn may_have_account(&self, needs: Needs) -> bool {
        self.trust().level >= needs.bmc_account.max(Level::T1)
    }

    fn what_to_do(&self, item: Item, needs: Level) -> String {
        let trust = self.trust();
        let for_what = format!("{} {needs}", item.words());
        if self.shows_other_tpm() {
            return format!(
                "an operator: it shows another TPM than the pinned one, and gets nothing before `billet node tpm pin {}` or a boot with the pinned one",
                self.name
            );
        }
        match needs {
            Level::T3 => format!("proof by its TPM: {for_what} ({})", trust.below_t3.unwrap_or_default()),
            _ => format!(
                "an operator to approve this boot (`billet node approve-boot {}`): {for_what}, and it has {} ({})",
                self.name, trust.level, trust.why
            ),
        }
    }
}

impl Measured {
    /// The registers that do not hold what they should.
    pub fn wrong(&self, pcrs: &BTreeMap<u8, Sha256>) -> Vec<u8> {
        let is_right = |pcr: &u8, allowed: &Vec<Sha256>| pcrs.get(pcr).is_some_and(|v| allowed.contains(v));
        self.pcrs.iter().filter(|(pcr, allowed)| !is_right(pcr, allowed)).map(|(pcr, _)| *pcr).collect()
    }

    /// What cannot be about it, in words.
    pub fn mistake(&self) -> Option<String> {
        for (pcr, values) in &self.pcrs {
            if *pcr >= PCRS_MAX {
                return Some(format!("PCR {pcr} cannot be in a model: 0 to {} can", PCRS_MAX - 1));
            }
            if values.is_empty() || values.len() > VALUES_MAX {
                return Some(format!("PCR {pcr} must have 1 to {VALUES_MAX} values"));
            }
            if values.iter().any(is_untouched) {
                return Some(format!("PCR {pcr} with nothing measured into it says nothing of a machine"));
            }
        }
        None
    }
}

/// True of a register into which nothing was measured.
pub fn is_untouched(value: &Sha256) -> bool {
    value.0 == [0; 32] || value.0 == [0xff; 32]
}

fn numbers(pcrs: &[u8]) -> String {
    pcrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// True where what says hello can be the machine that the nonce was made for: no UUID against another, and something in common.
pub(super) fn is_same_machine(made_for: &Claim, says: &Claim) -> bool {
    let (made_for, says) = (made_for.cleaned(), says.cleaned());
    let same_uuid = match (made_for.uuid, says.uuid) {
        // Boot loaders differ in the byte order of the first three fields (SMBIOS 3.7, 7.2.1).
        (Some(a), Some(b)) => Some(a == b || a == Uuid::from_bytes(b.to_bytes_le())),
        _ => None,
    };
    let nothing_known = made_for.uuid.is_none() && made_for.macs.is_empty();
    let shares = made_for.macs.iter().any(|mac| says.macs.contains(mac));
    same_uuid != Some(false) && (nothing_known || shares || same_uuid == Some(true))
}

/// An operator vouches for the agent that runs now.
pub(super) fn approve(s: &mut Step<'_>, boot: u64, by: String) -> Result<(), Refused> {
    let (now, epoch, other) = (s.now(), s.node.epoch, s.node.shows_other_tpm());
    let refuse = |why, hint| Err(Refused::Trust { why, hint });
    let Some(session) = &mut s.node.link.session else {
        return refuse("no agent of this server runs on it", "boot it, then look again");
    };
    if boot != epoch {
        return refuse("it has booted again since", "look at the boot that runs now, and approve that");
    }
    if other {
        return refuse(
            "it shows another TPM than the one that is pinned",
            "find out why; a new board's TPM is pinned by `billet node tpm pin`",
        );
    }
    if session.approved.is_none() {
        session.approved = Some(Approved { by: by.clone(), at: now });
        s.info("identity.approved", format!("{by} approved boot {boot}: it has {}", s.node.trust().level));
    }
    Ok(())
}

/// A quote was checked: what follows for the node.
pub(super) fn quoted(s: &mut Step<'_>, quoted: Quoted) -> Result<(), Refused> {
    let Some(session) = &mut s.node.link.session else { return Err(Refused::NoSession) };
    session.used = true;
    session.tpm = Some(quoted);
    pin_first(s);
    if s.node.shows_other_tpm() {
        s.note(
            "identity.other_tpm",
            Severity::Error,
            "it shows another TPM than the one that is pinned: another machine, or a new board. It gets nothing",
        );
        return Ok(());
    }
    let Trust { level, below_t3, .. } = s.node.trust();
    match below_t3 {
        None => s.info("identity.quoted", format!("its TPM vouches for what was booted: {level}")),
        // A pinned TPM says that something else was booted than what should be.
        Some(why) if s.node.tpm.is_some() && s.node.measured.as_ref().is_some_and(|m| !m.pcrs.is_empty()) => {
            s.note("identity.measured", Severity::Error, format!("its TPM does not vouch for it: {why}"));
        }
        Some(why) => s.info("identity.quoted", format!("a quote of its TPM came; {level}: {why}")),
    }
    Ok(())
}

/// A model may say that the first TPM of the machines that it is assigned to is theirs.
pub(super) fn pin_first(s: &mut Step<'_>) {
    let now = s.now();
    let shown = s.node.link.session.as_ref().and_then(|session| session.tpm.as_ref()).map(|tpm| tpm.ek);
    let trusts = s.node.measured.as_ref().is_some_and(|measured| measured.trust_first_tpm);
    // Which model it is, somebody must have said: what a machine tells of its maker may be another's.
    if let (Some(ek), None, Some(_), true) = (shown, &s.node.tpm, &s.node.model, trusts) {
        s.node.tpm = Some(PinnedTpm { ek, since: now, by: "its model".to_owned() });
        s.info("identity.tpm_pinned", format!("TPM {} is pinned: its model trusts the first", short(&ek)));
    }
}

/// Somebody says that the TPM that it shows now, of this fingerprint, is its own; `None`: that it has none.
pub(super) fn pin(s: &mut Step<'_>, ek: Option<Sha256>, by: String) -> Result<(), Refused> {
    let now = s.now();
    let Some(ek) = ek else {
        if s.node.tpm.take().is_some() {
            s.warn("identity.tpm_unpinned", format!("{by} took the pin of its TPM away"));
        }
        return Ok(());
    };
    if s.node.tpm.as_ref().is_some_and(|pinned| pinned.ek == ek) {
        return Ok(());
    }
    let shown = s.node.link.session.as_ref().and_then(|session| session.tpm.as_ref()).map(|tpm| tpm.ek);
    if shown != Some(ek) {
        return Err(Refused::Trust {
            why: "its agent does not show a TPM of this fingerprint",
            hint: "boot its agent, look at the fingerprint that it shows, and pin that",
        });
    }
    s.node.tpm = Some(PinnedTpm { ek, since: now, by: by.clone() });
    s.info("identity.tpm_pinned", format!("{by} pinned TPM {}", short(&ek)));
    Ok(())
}

fn short(ek: &Sha256) -> String {
    ek.to_string().chars().take(16).collect()
}

/// Before a job leaves: what it needs must be proven at this moment.
pub(super) fn check(s: &Step<'_>, task: &Task) -> Result<(), Refused> {
    match s.node.lacking(task, s.context.policy.identity) {
        None => Ok(()),
        Some(_) => Err(Refused::Trust {
            why: "the agent has not proven enough for this job",
            hint: "the node says what it waits for",
        }),
    }
}

/// After every event: whether the job that the agent would be given has to wait, and for what.
pub(super) fn settle(s: &mut Step<'_>) {
    let (now, needs) = (s.now(), s.context.policy.identity);
    let given = |stage| matches!(stage, RunStage::Assign | RunStage::Agent(_));
    let run = s.node.state.run().filter(|run| given(run.stage) && s.node.link.session.is_some());
    let lacking = run.and_then(|run| s.node.lacking(&run.job.task, needs));
    let assigned = run.is_some_and(|run| run.stage == RunStage::Assign);
    let before = s.node.lacks.take();
    let Some((item, level)) = lacking else {
        if before.is_some() && assigned {
            if let Some(run) = s.node.state.run_mut() {
                run.deadline = now.after(run.stage.patience());
            }
            s.info("identity.enough", format!("it has {}: the job goes on", s.node.trust().level));
            s.effects.push(Effect::WakeAgent);
        }
        return;
    };
    let words = s.node.what_to_do(item, level);
    let fresh = before.as_ref().is_none_or(|lack| (lack.item, lack.needs) != (item, level));
    let since = before.map_or(now, |lack| lack.since);
    if fresh {
        // A quote is on its way where no agent that has a TPM waits longer than for seconds; people take longer.
        let severity = if level == Level::T3 { Severity::Info } else { Severity::Warning };
        s.note("identity.waits", severity, format!("the job waits for {words}"));
    }
    if let Some(run) = s.node.state.run_mut().filter(|_| assigned) {
        run.deadline = run.deadline.max(since.after(TRUST_WAIT));
    }
    s.node.lacks = Some(Lack { item, needs: level, since, words });
}
