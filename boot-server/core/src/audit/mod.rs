//! The audit: who did what, from where, and what came of it, as a chain in which nothing can be altered, left out or
//! put in unseen.
//!
//! ```text
//! hash 0 = 32 zero octets
//! hash n = SHA-256(hash n-1 || canonical octets of entry n)          numbers from 1, without holes
//!
//! forgotten ─▶ anchor (number, hash) ─▶ entry ─▶ entry ─▶ … ─▶ head (number, hash) ─▶ checkpoint: head, signed
//! ```
//!
//! What an entry says and how it is hashed is here, how a chain is checked in [`chain`], which requests change or
//! destroy something in [`weight`]. Where entries are kept is the shell's business.

pub mod chain;
pub mod weight;

use images::chunk::sha256;
use protocol::{NodeId, ProjectId, Sha256, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use chain::{Anchor, Broken, Chain, Intact, Line, Link};
pub use weight::{Weight, weight};

/// What the canonical octets of every entry begin with: the form that they have.
const FORM: &[u8] = b"billet audit 1\0";
/// Longest text of an entry that is kept, in octets; a longer one is cut.
pub const TEXT_MAX: usize = 2048;

/// What an entry tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", schema(as = AuditKind))]
pub enum Kind {
    /// A change was asked for; written before it is begun.
    Asked,
    /// What came of it.
    Answered,
    /// Somebody looked at something.
    Read,
    /// Somebody came in, went, or was refused.
    Login,
    /// A serial console was opened, closed, or taken from somebody.
    Console,
    /// A machine's power or its management controller.
    Bmc,
    /// Tokens, users, roles.
    Access,
    /// Four eyes: asked for, approved, refused, carried out.
    Approval,
    /// Something changed: a state, an image, a setting.
    Change,
    /// The audit itself: a checkpoint, entries that were forgotten, reads that were not written.
    Audit,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Asked,
        Self::Answered,
        Self::Read,
        Self::Login,
        Self::Console,
        Self::Bmc,
        Self::Access,
        Self::Approval,
        Self::Change,
        Self::Audit,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Answered => "answered",
            Self::Read => "read",
            Self::Login => "login",
            Self::Console => "console",
            Self::Bmc => "bmc",
            Self::Access => "access",
            Self::Approval => "approval",
            Self::Change => "change",
            Self::Audit => "audit",
        }
    }

    /// The one that is written so.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// What a line of the event list is in the audit, by its kind there (such as `console.opened`).
    pub fn of_event(event: &str) -> Self {
        match event.split('.').next().unwrap_or_default() {
            "console" => Self::Console,
            "bmc" | "power" | "firmware" | "media" => Self::Bmc,
            "token" | "user" | "member" | "project" => Self::Access,
            "login" | "logout" => Self::Login,
            "approval" => Self::Approval,
            "audit" => Self::Audit,
            _ => Self::Change,
        }
    }
}

/// An entry without its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", schema(as = AuditFact))]
pub struct Fact {
    /// When, in milliseconds since 1970 by the server's clock.
    pub at: Timestamp,
    /// What it tells of.
    pub kind: Kind,
    /// Who: the name of a user or token, or `operator`, `agent`, `machine`, `server`.
    pub actor: String,
    /// Id of the token or user.
    pub who: Option<Uuid>,
    /// Role that it acted under.
    pub role: Option<String>,
    /// Address that it came from.
    pub source: Option<String>,
    /// Method and template of the path, such as `POST /api/v1/nodes/{node}/deploy`, or the kind of an event.
    pub what: String,
    /// The path itself, without its query.
    pub object: Option<String>,
    /// The node.
    pub node: Option<NodeId>,
    /// The project.
    pub project: Option<ProjectId>,
    /// Number of the request; what one request caused has the same.
    pub request: Option<Uuid>,
    /// HMAC-SHA-256 of the body under a key of the server: it proves a body that somebody shows, and gives none away.
    pub digest: Option<Sha256>,
    /// HTTP status of the answer.
    pub status: Option<u16>,
    /// What came of it, in words or as the code of a problem; empty where it went well.
    pub outcome: String,
}

impl Fact {
    /// A fact of which nothing more is known.
    pub fn new(at: Timestamp, kind: Kind, actor: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            at,
            kind,
            actor: actor.into(),
            who: None,
            role: None,
            source: None,
            what: what.into(),
            object: None,
            node: None,
            project: None,
            request: None,
            digest: None,
            status: None,
            outcome: String::new(),
        }
    }

    /// With texts as every store gives them back: not longer than they may be, and without NUL, which PostgreSQL's text does
    /// not hold. A text that was changed after it was hashed would look like one that somebody altered.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for text in [&mut self.actor, &mut self.what, &mut self.outcome] {
            bound(text);
        }
        for text in [&mut self.role, &mut self.source, &mut self.object].into_iter().flatten() {
            bound(text);
        }
        self
    }
}

fn bound(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
    }
}

/// An entry: a fact in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", schema(as = AuditEntry))]
pub struct Entry {
    /// Grows by one; there are no holes.
    pub number: u64,
    /// What it says.
    pub fact: Fact,
}

impl Entry {
    /// The octets that are hashed: each field in its order with its length before it (32 bits, the highest octet first);
    /// one that is not there is the length 2^32-1 alone. Numbers are 64 bits, ids their 16 octets, digests their 32.
    ///
    /// Whoever reads this again in twenty years finds it in `docs/guide/audit.md`: it is only added to, under a new form.
    pub fn canonical(&self) -> Vec<u8> {
        let Self { number, fact } = self;
        let mut octets = Octets(FORM.to_vec());
        octets.some(&number.to_be_bytes());
        octets.some(&fact.at.0.to_be_bytes());
        octets.some(fact.kind.as_str().as_bytes());
        octets.some(fact.actor.as_bytes());
        octets.field(fact.who.as_ref().map(|id| &id.as_bytes()[..]));
        octets.field(fact.role.as_ref().map(String::as_bytes));
        octets.field(fact.source.as_ref().map(String::as_bytes));
        octets.some(fact.what.as_bytes());
        octets.field(fact.object.as_ref().map(String::as_bytes));
        octets.field(fact.node.as_ref().map(|id| &id.0.as_bytes()[..]));
        octets.field(fact.project.as_ref().map(|id| &id.0.as_bytes()[..]));
        octets.field(fact.request.as_ref().map(|id| &id.as_bytes()[..]));
        octets.field(fact.digest.as_ref().map(|digest| &digest.0[..]));
        octets.field(fact.status.map(|status| u64::from(status).to_be_bytes()).as_ref().map(|s| &s[..]));
        octets.some(fact.outcome.as_bytes());
        octets.0
    }

    /// Its hash behind `before`, that of the entry before it.
    pub fn hash(&self, before: &Sha256) -> Sha256 {
        let mut octets = before.0.to_vec();
        octets.extend(self.canonical());
        sha256(&octets)
    }
}

struct Octets(Vec<u8>);

impl Octets {
    fn some(&mut self, field: &[u8]) {
        // Texts are bounded far below 4 GiB.
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX - 1);
        self.0.extend(length.to_be_bytes());
        self.0.extend(field);
    }

    fn field(&mut self, field: Option<&[u8]>) {
        match field {
            Some(field) => self.some(field),
            None => self.0.extend(u32::MAX.to_be_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Entry {
        Entry {
            number: 7,
            fact: Fact {
                who: Some(Uuid::from_u128(1)),
                role: Some("operator".into()),
                source: Some("192.0.2.7".into()),
                object: Some("/api/v1/nodes/r1/deploy".into()),
                node: Some(NodeId(Uuid::from_u128(2))),
                project: Some(ProjectId(Uuid::from_u128(3))),
                request: Some(Uuid::from_u128(4)),
                digest: Some(Sha256([5; 32])),
                status: Some(409),
                outcome: "state".into(),
                ..Fact::new(Timestamp(1_000), Kind::Answered, "alice", "POST /api/v1/nodes/{node}/deploy")
            },
        }
    }

    /// If this test fails, do not change the test: chains that were written must still verify.
    #[test]
    fn the_octets_of_form_1_stay_as_they_are() {
        assert_eq!(
            full().hash(&Sha256([0; 32])).to_string(),
            "6b5a6ec21f18f80b00463b064d80866c474ad06589ff194e18fd1e4bb3fdea52"
        );
        let bare = Entry { number: 1, fact: Fact::new(Timestamp(0), Kind::Audit, "server", "audit.begun") };
        assert_eq!(
            bare.canonical(),
            [
                &b"billet audit 1\0"[..],
                &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0],
                b"\0\0\0\x05audit\0\0\0\x06server",
                &[255; 12],
                b"\0\0\0\x0baudit.begun",
                &[255; 24],
                &[0; 4],
            ]
            .concat()
        );
    }

    #[test]
    fn every_field_is_in_the_hash() {
        let hash = |change: &dyn Fn(&mut Entry)| {
            let mut entry = full();
            change(&mut entry);
            entry.hash(&Sha256([9; 32]))
        };
        let same = hash(&|_| {});
        let changes: [&dyn Fn(&mut Entry); 15] = [
            &|e| e.number += 1,
            &|e| e.fact.at.0 += 1,
            &|e| e.fact.kind = Kind::Asked,
            &|e| e.fact.actor = "bob".into(),
            &|e| e.fact.who = None,
            &|e| e.fact.role = None,
            &|e| e.fact.source = Some(String::new()),
            &|e| e.fact.what.push('x'),
            &|e| e.fact.object = None,
            &|e| e.fact.node = None,
            &|e| e.fact.project = None,
            &|e| e.fact.request = None,
            &|e| e.fact.digest = None,
            &|e| e.fact.status = Some(410),
            &|e| e.fact.outcome.clear(),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            assert_ne!(hash(change), same, "field {n}");
        }
        assert_ne!(full().hash(&Sha256([8; 32])), same, "the one before");
        // A text that moves from one field to the next is another entry.
        let mut moved = full();
        moved.fact.actor = "alic".into();
        moved.fact.what.insert(0, 'e');
        assert_ne!(moved.hash(&Sha256([9; 32])), same);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let long = Fact::new(Timestamp(0), Kind::Read, "ü".repeat(2000), "x").bounded();
        assert_eq!(long.actor.len(), TEXT_MAX);
        let odd = Fact::new(Timestamp(0), Kind::Read, format!("a{}", "ü".repeat(2000)), "x").bounded();
        assert_eq!(odd.actor.len(), TEXT_MAX - 1);
    }

    #[test]
    fn no_text_holds_what_a_store_cannot() {
        let fact = Fact::new(Timestamp(0), Kind::Read, "a\0b", "\0".repeat(TEXT_MAX)).bounded();
        assert_eq!(fact.actor, "a\u{fffd}b");
        assert!(!fact.what.contains('\0') && fact.what.len() <= TEXT_MAX);
    }

    #[test]
    fn words_and_events_have_their_kinds() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.as_str()));
        }
        let kinds = ["console.opened", "power.asked", "token.created", "deploy.finished", "audit.head"];
        let of = [Kind::Console, Kind::Bmc, Kind::Access, Kind::Change, Kind::Audit];
        assert_eq!(kinds.map(Kind::of_event), of);
    }
}
