//! Servers of projects: claimed here, driven by what their machines do.
//!
//! ```text
//! create: placement ─▶ one transaction: key, quota, claims, usage, events ─▶ run_servers: deploy ─▶ … ─▶ active
//! delete: phase `deleting` ─▶ run_servers: wipe ─▶ one transaction: claim and usage end
//! ```
//!
//! What is to be done follows from the rows of server and node alone (`core::server::follow`), so whoever starts after a crash goes on
//! where it stood. A node's own step and the server's new phase are one transaction where one causes the other.

mod create;
mod drive;
mod report;
mod rollback;
#[cfg(test)]
pub(in crate::engine) mod tests;
mod verbs;

use boot_server_core::amounts::Amounts;
use boot_server_core::node::Timeline;
use boot_server_core::node::{Event, Severity, event::Verb};
use boot_server_core::placement::{ReasonCode, Rejected};
use boot_server_core::quota::{Exceeded, Limits};
use boot_server_core::server::{Phase, Server};
use protocol::{NodeId, ProjectId, ServerId, Timestamp};

use super::{Actor, Change, Engine, EngineError, now};
use crate::store::queries::NewEvent;
use crate::store::servers::{self as rows, ServerFilter};
use crate::store::{StoreError, usage};
use crate::view::TimelineView;
use crate::view::servers::{LentView, ServerAddress, ServerDetail, ServerView};

pub use create::NewServers;
pub(super) use create::{Needs, bad};
pub use report::FaultFilter;
pub use verbs::{Reinstall, ServerPower};

/// What a project may have, and what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// At most.
    pub limits: Limits,
    /// Now.
    pub used: Amounts,
}

/// Why a server is not made, or nothing is done with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// No server of the project has this id or name.
    #[error("no server `{0}`")]
    NotFound(String),
    /// A name that cannot be a host name.
    #[error("{0}")]
    BadName(String),
    /// A request that makes no sense.
    #[error("{what}")]
    Bad {
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// No machine, or too few.
    #[error("{}", no_capacity(.asked, *.count, .rejected))]
    NoCapacity {
        /// What was asked for, in words.
        asked: String,
        /// How many.
        count: usize,
        /// Every machine with its reasons.
        rejected: Vec<Rejected>,
    },
    /// Limits would be passed.
    #[error("the project's quota does not allow it: {}", in_words(.0))]
    Quota(Vec<Exceeded>),
    /// It is not in the phase for that.
    #[error("cannot {verb} a server that is {phase}")]
    WrongPhase {
        /// What was asked.
        verb: &'static str,
        /// Where it stands.
        phase: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// The project has as many as a project may have.
    #[error("the project has too many {0}")]
    Full(&'static str),
    /// The project was closed.
    #[error("the project is closed")]
    Closed,
    /// Of a project's own things.
    #[error("no {what} `{name}`")]
    NoSuch {
        /// Such as `key`.
        what: &'static str,
        /// What was asked for.
        name: String,
    },
}

fn in_words(exceeded: &[Exceeded]) -> String {
    exceeded.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Counts and kinds of reasons, and no name of a machine: whoever asks may not know of the others'.
fn no_capacity(asked: &str, count: usize, rejected: &[Rejected]) -> String {
    let hidden = [ReasonCode::Pool, ReasonCode::NotAsked];
    let mut counts = std::collections::BTreeMap::<ReasonCode, usize>::new();
    for machine in rejected.iter().filter(|machine| !machine.reasons.iter().any(|r| hidden.contains(&r.code)))
    {
        // Each machine counts once, by the first of its reasons.
        if let Some(reason) = machine.reasons.first() {
            *counts.entry(reason.code).or_default() += 1;
        }
    }
    let reasons: Vec<String> =
        counts.into_iter().map(|(code, count)| format!("{count} {}", reason_words(code))).collect();
    let what =
        if count == 1 { "no machine is free".to_owned() } else { format!("no {count} machines are free") };
    let why = if reasons.is_empty() { "none is offered".to_owned() } else { reasons.join(", ") };
    format!("{what} for {asked}: {why}")
}

fn reason_words(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::Claimed => "in use",
        ReasonCode::State => "not ready",
        ReasonCode::Maintenance => "under maintenance",
        ReasonCode::Quarantine => "not as expected",
        ReasonCode::Retired => "retired",
        ReasonCode::Health => "in bad health",
        ReasonCode::Flavor => "of another kind",
        ReasonCode::Group => "not where the group wants them",
        ReasonCode::TooFew => "free, which are too few",
        ReasonCode::Pool | ReasonCode::NotAsked => "not offered",
    }
}

impl ServerError {
    /// Status, code and hint.
    pub(super) fn parts(&self) -> (u16, &'static str, &str) {
        match self {
            Self::NotFound(_) => (404, "server-not-found", "list them with `billet server list`"),
            Self::BadName(_) => (
                422,
                "bad-name",
                "use letters, digits and -, at most 63 characters; `{n}` stands for the number in a batch",
            ),
            Self::Bad { hint, .. } => (422, "bad-server", hint),
            Self::NoCapacity { .. } => (409, "no-capacity", "ask for fewer, for another flavor, or later"),
            Self::Quota(_) => {
                (409, "quota", "delete what is not needed, or ask the site for more (`billet quota show`)")
            }
            Self::WrongPhase { hint, .. } => (409, "wrong-phase", hint),
            Self::Full(_) => (409, "project-full", "delete those that are not needed"),
            Self::Closed => (409, "project-closed", "use another project"),
            Self::NoSuch { what: "key", .. } => (404, "key-not-found", "list them with `billet key list`"),
            Self::NoSuch { what: "flavor", .. } => {
                (404, "flavor-not-found", "see what the project is offered (its catalogue)")
            }
            Self::NoSuch { .. } => (404, "not-found", "list what there is"),
        }
    }
}

/// What is refused while a project has the machine: each would take it away, or put something else on it.
pub(super) fn takes_away(event: &Event) -> bool {
    // An installer that is told how erases a disk.
    if let Event::Verb(Verb::Boot { boot, .. }) = event {
        return boot.profile().is_some();
    }
    matches!(
        event,
        Event::Verb(
            Verb::Manage
                | Verb::Inspect
                | Verb::Provide { .. }
                | Verb::Deploy(_)
                | Verb::Rebuild(_)
                | Verb::Delete { .. }
        )
    )
}

/// Refuses where a project has the machine.
pub(super) fn check_not_lent(db: &crate::store::db::Connection, node: NodeId) -> Result<(), StoreError> {
    match rows::of_node(db, node)? {
        Some(server) => Err(StoreError::Lent { server: server.name, project: server.project }),
        None => Ok(()),
    }
}

impl Engine {
    /// A server of this project: a living one by name, any by id.
    ///
    /// # Errors
    /// [`ServerError::NotFound`], or where the store fails.
    pub async fn server(&self, project: ProjectId, reference: &str) -> Result<Server, EngineError> {
        let text = reference.to_owned();
        let found = self.store().read(move |db| rows::find(db, project, &text)).await?;
        let short = || ServerError::NotFound(reference.chars().take(80).collect());
        found.ok_or_else(|| short().into())
    }

    /// Servers of a project, oldest first.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn servers(
        &self,
        project: ProjectId,
        filter: ServerFilter,
    ) -> Result<Vec<Server>, EngineError> {
        Ok(self.store().read(move |db| rows::list(db, project, &filter)).await?)
    }

    /// The living servers of all projects.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn all_servers(&self) -> Result<Vec<Server>, EngineError> {
        Ok(self.store().read(rows::living).await?)
    }

    /// The living server that has this machine.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn server_of(&self, node: NodeId) -> Result<Option<Server>, EngineError> {
        Ok(self.store().read(move |db| rows::of_node(db, node)).await?)
    }

    /// The same as it is shown; where it cannot be read, that is logged.
    pub(crate) async fn lent_to(&self, node: NodeId) -> Option<LentView> {
        match self.server_of(node).await {
            Ok(server) => server.map(LentView::from),
            Err(error) => {
                tracing::error!(%node, %error, "whose a machine is cannot be read");
                None
            }
        }
    }

    /// What a project may have, and what it has.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn quota(&self, project: ProjectId) -> Result<Quota, EngineError> {
        let read =
            move |db: &_| Ok(Quota { limits: usage::limits(db, project)?, used: usage::used(db, project)? });
        Ok(self.store().read(read).await?)
    }

    /// Sets what a project may have. What it has stays, also above that.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn set_quota(
        &self,
        project: ProjectId,
        actor: Actor,
        limits: Limits,
    ) -> Result<Quota, EngineError> {
        let message = format!("quota set: {}", limits_words(&limits));
        let event = NewEvent::new(now(), actor.name(), "quota.set", Severity::Info, message).of(project);
        let row = event.clone();
        let write = move |db: &_| {
            usage::set_limits(db, project, &limits)?;
            crate::store::queries::insert_event(db, &row)
        };
        let id = self.store().write(write).await?;
        self.announce_event(id, event);
        self.quota(project).await
    }

    /// A server as its owners see it.
    pub async fn server_view(&self, server: Server) -> ServerView {
        // The machine of one that is gone may be somebody else's.
        let node = self.0.nodes.get(server.node).filter(|_| server.phase != Phase::Deleted);
        let power = node.as_ref().and_then(|node| self.power_of(node.id));
        let power = power.and_then(|power| Some(serde_json::to_value(power).ok()?.as_str()?.to_owned()));
        ServerView::of(server, node.as_deref(), power)
    }

    /// The same with its installation and its addresses.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn server_detail(&self, server: Server) -> Result<ServerDetail, EngineError> {
        let node = self.0.nodes.get(server.node).filter(|_| server.phase != Phase::Deleted);
        // One on networks of its own is not where its machine was on the provisioning network.
        let mut addresses = self.addresses_on_networks(server.id);
        if let Some(node) = node.as_ref().filter(|_| addresses.is_empty()) {
            addresses = self.addresses(node).await?.into_iter().map(ServerAddress::from).collect();
        }
        // What was done with the machine before it was this server is not its business.
        let own = node.as_ref().filter(|node| {
            server.phase != Phase::Claimed
                && node.timeline.marks.first().is_some_and(|(_, at)| *at >= server.created)
        });
        let timeline = own.map_or_else(Timeline::default, |node| node.timeline.clone());
        Ok(ServerDetail {
            ssh_keys: server.spec.ssh_keys.clone(),
            server: self.server_view(server).await,
            addresses,
            timeline: TimelineView::of(&timeline),
        })
    }

    pub(in crate::engine) fn announce_server(&self, server: &Server) {
        self.announce(Change::Server { project: server.project, server: server.id });
    }

    /// Stores a server's next version with its event.
    pub(in crate::engine) async fn put_server(
        &self,
        server: Server,
        event: Option<NewEvent>,
    ) -> Result<Server, EngineError> {
        let (row, line, at) = (server.clone(), event.clone(), now());
        let write = move |db: &_| {
            rows::update(db, &row, at)?;
            line.map(|line| crate::store::queries::insert_event(db, &line)).transpose()
        };
        let id = self.store().write(write).await?;
        if let (Some(id), Some(event)) = (id, event) {
            self.announce_event(id, event);
        }
        self.announce_server(&server);
        Ok(server)
    }
}

/// A line about a server, for its project and for the site.
fn line(
    server: &Server,
    actor: &Actor,
    kind: &str,
    severity: Severity,
    what: &str,
    at: Timestamp,
) -> NewEvent {
    let message = format!("{}: {what}", server.name);
    NewEvent::new(at, actor.name(), kind, severity, message).on(server.node).of(server.project)
}

fn limits_words(limits: &Limits) -> String {
    use boot_server_core::amounts::Resource;
    let words: Vec<String> = Resource::ALL
        .into_iter()
        .filter_map(|of| limits.of(of).map(|limit| format!("{limit} {of}")))
        .collect();
    if words.is_empty() { "no limits".to_owned() } else { words.join(", ") }
}

/// A fresh id.
fn fresh() -> ServerId {
    ServerId(uuid::Uuid::now_v7())
}
