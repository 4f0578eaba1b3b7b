//! Four eyes: what one person asks for and another one must approve before it is done.
//!
//! ```text
//!            approve (somebody else)            begun               answered
//! waiting ─────────────────────────▶ approved ────────▶ carrying ────────────▶ done | failed
//!    ├── refuse (anybody else), withdraw (who asked) ──▶ refused
//!    ├── time ─────────────────────────────────────────▶ expired
//!    └── approved, but the subject is not as it was ───▶ stale
//! ```
//!
//! The subject is a machine, or a pool whose four eyes somebody wants to close.
//!
//! The request itself is kept sealed beside this, and is done once, as whoever asked for it. What a request is and how it is
//! done is the shell's business.

use protocol::{NodeId, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::names::PoolName;
use crate::node::{Node, State};

/// Longest reason, in bytes.
pub const REASON_MAX: usize = 1024;

/// Somebody, as they were when they did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ApprovalPerson))]
pub struct Person {
    /// Name of the user or token; `operator` for the site's own token.
    pub name: String,
    /// Id of the user, also where a token of theirs was used.
    #[serde(default)]
    pub user: Option<Uuid>,
    /// Id of the token.
    #[serde(default)]
    pub token: Option<Uuid>,
    /// The role they acted under.
    pub role: String,
}

impl Person {
    /// True where both may be one: the same user, the same token, or the same name. A token without a user is a person of
    /// its own; the site's own token is one person, however many know it.
    pub fn may_be(&self, other: &Self) -> bool {
        let same = |a: Option<Uuid>, b: Option<Uuid>| a.is_some() && a == b;
        same(self.user, other.user) || same(self.token, other.token) || self.name == other.name
    }
}

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", schema(as = ApprovalStatus))]
pub enum Status {
    /// Nobody decided yet.
    Waiting,
    /// It is to be done.
    Approved,
    /// It is being done.
    Carrying,
    /// It was done.
    Done,
    /// It was tried, and refused or failed.
    Failed,
    /// Somebody said no, or whoever asked took it back.
    Refused,
    /// Nobody decided in time.
    Expired,
    /// The machine is not as it was when this was asked for.
    Stale,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Approved,
        Self::Carrying,
        Self::Done,
        Self::Failed,
        Self::Refused,
        Self::Expired,
        Self::Stale,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Carrying => "carrying",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Stale => "stale",
        }
    }

    /// True where nothing comes of it any more.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Waiting | Self::Approved | Self::Carrying)
    }
}

/// What somebody decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ApprovalDecision))]
pub struct Decision {
    /// Who.
    pub by: Person,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: Option<String>,
}

/// A request that waits for a second person, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Approval {
    /// Names it; also the number of the request when it is done.
    pub id: Uuid,
    /// Where it stands.
    pub status: Status,
    /// The machine; none where it is about a pool.
    pub node: Option<NodeId>,
    /// Its name when it was asked for; empty where it is about a pool.
    pub node_name: String,
    /// The pool, where it is about one.
    #[serde(default)]
    pub pool: Option<PoolName>,
    /// The project that it concerns.
    #[serde(default)]
    pub project: Option<ProjectId>,
    /// Method and path, such as `POST /api/v1/nodes/r1/rebuild`.
    pub what: String,
    /// In words.
    pub summary: String,
    /// Who asked.
    pub asked_by: Person,
    /// The address that it came from.
    #[serde(default)]
    pub source: Option<String>,
    /// When.
    pub asked: Timestamp,
    /// From then on it is not done any more.
    pub expires: Timestamp,
    /// Why, where whoever asked said so.
    #[serde(default)]
    pub reason: Option<String>,
    /// How machine or pool stood.
    pub standing: String,
    /// What somebody decided.
    #[serde(default)]
    pub decision: Option<Decision>,
    /// HTTP status that it was answered with when it was done.
    #[serde(default)]
    pub answer: Option<u16>,
    /// What came of it, in words.
    #[serde(default)]
    pub outcome: Option<String>,
    /// When it was over.
    #[serde(default)]
    pub over: Option<Timestamp>,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Do it.
    Approve,
    /// Do not.
    Refuse,
}

/// Why a decision does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDecided {
    /// It is decided, or over.
    #[error("this request is {} already", .0.as_str())]
    Over(Status),
    /// It is too late.
    #[error("this request has expired")]
    Expired,
    /// Whoever asked cannot be the second person.
    #[error("whoever asked for this cannot approve it: it takes a second person")]
    SamePerson,
    /// The reason is too long.
    #[error("the reason must not have more than {REASON_MAX} bytes")]
    Reason,
}

impl Approval {
    /// Takes a decision in.
    ///
    /// # Errors
    /// [`NotDecided`]; then nothing is changed.
    pub fn decide(
        &mut self,
        answer: Answer,
        by: Person,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<(), NotDecided> {
        if self.status != Status::Waiting {
            return Err(NotDecided::Over(self.status));
        }
        if now >= self.expires {
            return Err(NotDecided::Expired);
        }
        if answer == Answer::Approve && by.may_be(&self.asked_by) {
            return Err(NotDecided::SamePerson);
        }
        if reason.as_ref().is_some_and(|reason| reason.len() > REASON_MAX) {
            return Err(NotDecided::Reason);
        }
        self.decision = Some(Decision { by, at: now, reason });
        match answer {
            Answer::Approve => self.status = Status::Approved,
            Answer::Refuse => self.close(Status::Refused, None, None, now),
        }
        Ok(())
    }

    /// Its time is over, if it is.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let late = self.status == Status::Waiting && now >= self.expires;
        if late {
            self.close(Status::Expired, None, None, now);
        }
        late
    }

    /// Why it must not be done though it is approved: what it is about is gone or not as it was. `now` is how it stands, if it is
    /// there.
    pub fn stale(&self, now: Option<&str>) -> Option<String> {
        let what = if self.pool.is_some() { "the pool" } else { "the machine" };
        let Some(now) = now else { return Some(format!("{what} is gone")) };
        (now != self.standing).then(|| {
            format!("{what} is not as it was when this was asked for: then {}, now {now}", self.standing)
        })
    }

    /// It is over.
    pub fn close(&mut self, status: Status, answer: Option<u16>, outcome: Option<String>, now: Timestamp) {
        self.status = status;
        self.answer = answer;
        self.outcome = outcome;
        self.over = Some(now);
    }
}

/// How a machine stands, as far as it matters to whoever approves: its state, the job, the boot that the agent is of, and the OS.
pub fn standing(node: &Node) -> String {
    let mut text = node.state.name().as_str().to_owned();
    let job = match &node.state {
        State::Failed(failure) => failure.run.as_ref().map(|run| run.job.id),
        state => state.run().map(|run| run.job.id),
    };
    if let Some(job) = job {
        text.push_str(&format!(", job {job}"));
    }
    if let Some(os) = &node.installed {
        text.push_str(&format!(", {} since {}", os.image_name, os.since.0));
    }
    text.push_str(&format!(", boot {}", node.epoch));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Identity;

    fn person(name: &str) -> Person {
        Person { name: name.to_owned(), user: None, token: None, role: "operator".to_owned() }
    }

    fn node() -> Node {
        Node::discovered(NodeId(Uuid::from_u128(1)), "r1".to_owned(), Identity::default(), Timestamp(1))
    }

    fn waiting() -> Approval {
        Approval {
            id: Uuid::from_u128(7),
            status: Status::Waiting,
            node: Some(NodeId(Uuid::from_u128(1))),
            node_name: "r1".to_owned(),
            pool: None,
            project: None,
            what: "POST /api/v1/nodes/r1/rebuild".to_owned(),
            summary: "rebuild r1".to_owned(),
            asked_by: Person { user: Some(Uuid::from_u128(3)), ..person("alice") },
            source: None,
            asked: Timestamp(10),
            expires: Timestamp(100),
            reason: None,
            standing: standing(&node()),
            decision: None,
            answer: None,
            outcome: None,
            over: None,
        }
    }

    fn decide(answer: Answer, by: Person, now: u64) -> Result<Status, NotDecided> {
        let mut it = waiting();
        let before = it.clone();
        let decided = it.decide(answer, by, None, Timestamp(now));
        assert!(decided.is_ok() || it == before, "what is refused changes nothing");
        decided.map(|()| it.status)
    }

    #[test]
    fn it_takes_a_second_person() {
        assert_eq!(decide(Answer::Approve, person("bob"), 20), Ok(Status::Approved));
        assert_eq!(decide(Answer::Approve, person("alice"), 20), Err(NotDecided::SamePerson));
        let token =
            Person { user: Some(Uuid::from_u128(3)), token: Some(Uuid::from_u128(9)), ..person("ci") };
        assert_eq!(
            decide(Answer::Approve, token.clone(), 20),
            Err(NotDecided::SamePerson),
            "a token of hers"
        );
        assert_eq!(
            decide(Answer::Refuse, token, 20),
            Ok(Status::Refused),
            "what was asked for can be taken back"
        );
        assert_eq!(decide(Answer::Refuse, person("bob"), 20), Ok(Status::Refused));
        assert_eq!(decide(Answer::Approve, person("bob"), 100), Err(NotDecided::Expired));
        let long = waiting().decide(Answer::Refuse, person("bob"), Some("x".repeat(1025)), Timestamp(20));
        assert_eq!(long, Err(NotDecided::Reason));
    }

    #[test]
    fn each_is_decided_once() {
        for status in Status::ALL {
            let mut it = Approval { status, ..waiting() };
            let decided = it.decide(Answer::Approve, person("bob"), None, Timestamp(20));
            assert_eq!(decided.is_ok(), status == Status::Waiting, "{status:?}");
            assert_eq!(status.is_over(), !["waiting", "approved", "carrying"].contains(&status.as_str()));
        }
        let mut it = waiting();
        assert!(!it.expire(Timestamp(99)) && it.expire(Timestamp(100)) && !it.expire(Timestamp(101)));
        assert_eq!((it.status, it.over), (Status::Expired, Some(Timestamp(100))));
    }

    #[test]
    fn a_machine_that_changed_is_left_alone() {
        let it = waiting();
        let stale = |node: &Node| it.stale(Some(&standing(node)));
        assert_eq!(stale(&node()), None);
        let renamed = Node { name: "r2".to_owned(), ..node() };
        assert_eq!(stale(&renamed), None, "a name is nothing that can be destroyed");
        for changed in [Node { epoch: 1, ..node() }, Node { state: State::Available, ..node() }] {
            assert!(stale(&changed).unwrap().contains("the machine is not as it was"));
        }
        assert_eq!(it.stale(None).unwrap(), "the machine is gone");
        let pool = Approval { pool: Some("gold".parse().unwrap()), node: None, ..waiting() };
        assert_eq!(pool.stale(None).unwrap(), "the pool is gone");
    }
}
