//! Consoles, their sessions and recordings, as the API shows them.

use boot_server_core::console::ConsoleSource;
use boot_server_core::console::cast::About;
use protocol::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The console of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsoleView {
    /// Where it is.
    #[serde(flatten)]
    pub source: ConsoleSource,
    /// Somebody said so; else it is what every node has.
    pub configured: bool,
    /// How it stands.
    pub state: ConsoleState,
    /// In words, where something is wrong.
    pub problem: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// Octets that are kept of what the machine printed.
    pub kept_bytes: u64,
    /// Who looks.
    pub sessions: Vec<ConsoleSessionView>,
}

/// How a console stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConsoleState {
    /// Nobody looks, and it is not followed.
    Idle,
    /// On its way.
    Connecting,
    /// What the machine prints arrives.
    Connected,
    /// It cannot be reached; it is tried again.
    Failed,
}

/// Somebody looks at a console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsoleSessionView {
    /// Who, at what, from where, since when. `session` names it.
    #[serde(flatten)]
    pub about: About,
    /// It may type.
    pub may_write: bool,
    /// It types.
    pub writes: bool,
}

/// What was said in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordingView {
    /// Who, at what, from where, since when. `session` names it.
    #[serde(flatten)]
    pub about: About,
    /// Size of the file.
    pub bytes: u64,
    /// When it ended; null while it goes on.
    pub ended: Option<Timestamp>,
}

impl RecordingView {
    /// How long it is in seconds, once it has ended.
    pub fn length(&self) -> Option<u64> {
        self.ended.map(|ended| ended.since(self.about.began).as_secs())
    }
}

/// What the server says beside the console's octets, as text messages of the WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ConsoleSays {
    /// Who is there, and how the console stands; at the beginning and whenever that changes.
    Presence {
        /// This session.
        you: Uuid,
        /// The console.
        console: Box<ConsoleView>,
    },
    /// In words: who came, who types, what is lost.
    Notice {
        /// The sentence.
        text: String,
    },
    /// So many octets were printed faster than this client took them.
    Skipped {
        /// How many.
        octets: u64,
    },
    /// The session is over.
    Ended {
        /// Why.
        reason: String,
    },
}

/// What a client says beside what is typed, as text messages of the WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ConsoleAsks {
    /// Let me type, if nobody does.
    Ask,
    /// Let me type, whoever does.
    Take,
    /// I no longer type.
    Release,
}

/// The node of a console that was configured.
pub type Configured = (NodeId, ConsoleSource);
