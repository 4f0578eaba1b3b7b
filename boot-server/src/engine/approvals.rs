//! Four eyes: requests that wait for a second person, and are then done once.
//!
//! ```text
//! http::audit (a request that may destroy something) ─▶ rehearse ─▶ ask ─▶ row, event ── 202
//! somebody else ─▶ decide ─▶ row, event ─▶ run_approvals ─▶ carrying ─▶ the same router, as whoever asked ─▶ done
//! ```
//!
//! Beside that gate stands a second one in the engine ([`Engine::check_approved`]), for ways to a machine that the first does not
//! know: there such a request is refused.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bmc::Secret;
use boot_server_core::approval::{self, Answer, Approval, NotDecided, Person, Status};
use boot_server_core::audit::weight::is_one_transaction;
use boot_server_core::names::PoolName;
use boot_server_core::node::event::Verb;
use boot_server_core::node::{Node, Severity};
use protocol::{NodeId, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Change, Engine, EngineError, now};
use crate::asking::asking;
use crate::store::approvals::{self as rows, ApprovalFilter};
use crate::store::queries::{self, NewEvent};
use crate::store::{StoreError, audit};
use crate::vault::Place;

/// How often is looked for those whose time is over.
const EVERY: Duration = Duration::from_secs(30);
/// Requests that wait at once; a person decides on a few.
const WAITING_MAX: usize = 1000;
/// How long those that are over stay in the list.
const KEPT: Duration = Duration::from_hours(24 * 365);

/// A request as it was made, kept until it is done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Template of the path.
    pub template: String,
    /// `Content-Type`.
    pub kind: Option<String>,
    /// `Idempotency-Key`, where whoever asked gave one.
    pub key: Option<String>,
    /// Body.
    pub body: String,
}

/// What came of a request that was done: HTTP status, and a sentence where it was refused.
pub type Carried = (u16, Option<String>);

/// Does a request as somebody else.
pub type Carry = Arc<dyn Fn(Approval, Kept) -> Pin<Box<dyn Future<Output = Carried> + Send>> + Send + Sync>;

/// What a request is about.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A machine, and the name that whoever asks knows it by: its own, or that of their server.
    Node(Box<Node>, String),
    /// A pool that would ask for four eyes no more.
    Pool(PoolName),
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What it is about.
    pub subject: Subject,
    /// The project that it concerns.
    pub project: Option<ProjectId>,
    /// Who asks.
    pub by: Person,
    /// Why.
    pub reason: Option<String>,
    /// The request.
    pub request: Kept,
}

fn place(id: Uuid) -> Place {
    Place { row: id, column: "approvals.request" }
}

impl Engine {
    /// True where whatever may destroy something on this machine needs a second person.
    pub fn needs_two(&self, node: NodeId) -> bool {
        if self.settings().approvals.all_nodes {
            return true;
        }
        let node = self.0.nodes.get(node);
        node.is_some_and(|node| self.pool(node.pool().as_str()).is_ok_and(|pool| pool.value.four_eyes))
    }

    /// Refuses that a pool asks for four eyes no more, unless that is an approved request that is done here.
    pub(super) fn check_closing(&self, pool: &PoolName) -> Result<(), EngineError> {
        match asking() {
            Some(asked) if !asked.is_approved() => {
                asked.stop_for_second(Some(pool.clone()));
                Err(EngineError::NeedsTwo(format!("pool {pool}")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what destroys something on a machine that needs two, unless it is an approved request that is done here.
    pub(super) fn check_approved(&self, node: NodeId) -> Result<(), EngineError> {
        match asking() {
            Some(asked) if !asked.is_approved() && self.needs_two(node) => {
                asked.stop_for_second(None);
                let name = self.0.nodes.get(node).map_or_else(|| node.to_string(), |node| node.name.clone());
                Err(EngineError::NeedsTwo(name))
            }
            _ => Ok(()),
        }
    }

    /// How a pool stands, as far as it matters to whoever approves.
    fn pool_standing(&self, pool: &PoolName) -> Option<String> {
        self.pool(pool.as_str()).ok().map(|pool| format!("version {}", pool.version))
    }

    /// Keeps a request until somebody else approves it. The same request of the same person on a machine that did not change is
    /// the one that waits already.
    ///
    /// # Errors
    /// Where too many wait, or what the store says.
    pub async fn ask_approval(&self, wanted: Wanted) -> Result<Approval, EngineError> {
        let Wanted { subject, project, by, reason, request } = wanted;
        let at = now();
        let reason = reason.map(|r| r.chars().take(approval::REASON_MAX / 4).collect());
        let it = Approval {
            id: Uuid::now_v7(),
            status: Status::Waiting,
            node: None,
            node_name: String::new(),
            pool: None,
            project,
            what: format!("{} {}", request.method, request.path),
            summary: String::new(),
            asked_by: by,
            source: asking().map(|asked| asked.source.to_string()),
            asked: at,
            expires: at.after(self.settings().approvals.lasts),
            reason,
            standing: String::new(),
            decision: None,
            answer: None,
            outcome: None,
            over: None,
        };
        let it = match subject {
            Subject::Node(node, name) => Approval {
                summary: summary(&request, &name),
                standing: approval::standing(&node),
                node: Some(node.id),
                node_name: node.name,
                ..it
            },
            Subject::Pool(pool) => Approval {
                summary: format!("switch four eyes off for pool {pool}"),
                standing: self.pool_standing(&pool).unwrap_or_default(),
                pool: Some(pool),
                ..it
            },
        };
        let waiting = self.approvals(ApprovalFilter {
            status: Some(Status::Waiting),
            limit: WAITING_MAX,
            ..ApprovalFilter::default()
        });
        let waiting = waiting.await?;
        for other in waiting.iter().filter(|o| o.asked_by == it.asked_by && o.what == it.what) {
            let same = self.kept(other.id).await?.body == request.body && other.standing == it.standing;
            if same && at < other.expires {
                return Ok(other.clone());
            }
        }
        if waiting.len() >= WAITING_MAX {
            return Err(EngineError::TooManyWait);
        }
        let text =
            serde_json::to_string(&request).map_err(|cause| StoreError::Row { table: "approvals", cause })?;
        let sealed = self.0.vault.seal(place(it.id), &Secret(text))?;
        let why = it.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let message = format!("{} asks for approval {}: {}{why}", it.asked_by.name, it.id, it.summary);
        let event = self.approval_event(&it, &it.asked_by.name, "approval.asked", Severity::Warning, message);
        let (row, stored) = (it.clone(), event.clone());
        let write = move |db: &_| {
            rows::insert(db, &row, &sealed)?;
            queries::insert_event(db, &stored)
        };
        let number = self.store().write(write).await?;
        self.announce_event(number, event);
        Ok(it)
    }

    fn approval_event(
        &self,
        it: &Approval,
        actor: &str,
        kind: &str,
        severity: Severity,
        message: String,
    ) -> NewEvent {
        let event = NewEvent::new(now(), actor, kind, severity, message);
        NewEvent { node: it.node, project: it.project, ..event }
    }

    /// Approvals by filter, newest first.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn approvals(&self, filter: ApprovalFilter) -> Result<Vec<Approval>, EngineError> {
        Ok(self.store().read(move |db| rows::list(db, &filter)).await?)
    }

    /// One of them.
    ///
    /// # Errors
    /// [`EngineError::ApprovalNotFound`], or what the store says.
    pub async fn approval(&self, reference: &str) -> Result<Approval, EngineError> {
        let missing = || EngineError::ApprovalNotFound(reference.chars().take(80).collect());
        let id: Uuid = reference.parse().map_err(|_| missing())?;
        self.store().read(move |db| rows::one(db, id)).await?.ok_or_else(missing)
    }

    async fn kept(&self, id: Uuid) -> Result<Kept, EngineError> {
        let sealed = self.store().read(move |db| rows::request(db, id)).await?;
        let sealed = sealed.ok_or_else(|| EngineError::ApprovalNotFound(id.to_string()))?;
        let text = self.0.vault.unseal(place(id), &sealed)?;
        let kept = serde_json::from_str(&text.0);
        Ok(kept.map_err(|cause| StoreError::Row { table: "approvals", cause })?)
    }

    /// Takes somebody's decision in. What is approved is done soon, by [`Engine::run_approvals`].
    ///
    /// # Errors
    /// [`EngineError::NotDecided`], [`EngineError::ApprovalNotFound`], or what the store says.
    pub async fn decide(
        &self,
        reference: &str,
        answer: Answer,
        by: Person,
        reason: Option<String>,
    ) -> Result<Approval, EngineError> {
        let mut it = self.approval(reference).await?;
        let (before, name) = (it.status, by.name.clone());
        it.decide(answer, by, reason, now())?;
        let (kind, word) = match answer {
            Answer::Approve => ("approval.approved", "approved"),
            Answer::Refuse => ("approval.refused", "refused"),
        };
        let why = it
            .decision
            .as_ref()
            .and_then(|d| d.reason.as_ref())
            .map(|r| format!(": {r}"))
            .unwrap_or_default();
        let message = format!("{name} {word} what {} asked for ({}){why}", it.asked_by.name, it.summary);
        let event = self.approval_event(&it, &name, kind, Severity::Info, message);
        self.put_approval(&it, before, event).await.map_err(|error| match error {
            EngineError::Store(StoreError::Conflict) => NotDecided::Over(Status::Approved).into(),
            other => other,
        })?;
        self.0.approved.notify_one();
        Ok(it)
    }

    /// Stores an approval that stood as `before`, with its event.
    async fn put_approval(&self, it: &Approval, before: Status, event: NewEvent) -> Result<(), EngineError> {
        let (row, stored) = (it.clone(), event.clone());
        let write = move |db: &_| {
            rows::update(db, &row, before)?;
            queries::insert_event(db, &stored)
        };
        let number = self.store().write(write).await?;
        self.announce_event(number, event);
        if let Some(node) = it.node {
            self.announce(Change::Node(node));
        }
        Ok(())
    }

    /// Does what is approved and lets what nobody decided expire, until `stop`. What was begun before a crash goes on.
    pub async fn run_approvals(&self, carry: Carry, stop: CancellationToken) {
        let mut first = true;
        loop {
            if let Err(error) = self.approvals_turn(&carry, first).await {
                tracing::error!(%error, "approved requests were not done, they are tried again");
            }
            first = false;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.approved.notified() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn approvals_turn(&self, carry: &Carry, first: bool) -> Result<(), EngineError> {
        let of =
            |status| ApprovalFilter { status: Some(status), limit: WAITING_MAX, ..ApprovalFilter::default() };
        for mut it in self.approvals(of(Status::Waiting)).await? {
            if it.expire(now()) {
                let message =
                    format!("nobody decided on what {} asked for ({})", it.asked_by.name, it.summary);
                let event = self.approval_event(&it, "server", "approval.expired", Severity::Info, message);
                self.put_approval(&it, Status::Waiting, event).await?;
            }
        }
        if first {
            for it in self.approvals(of(Status::Carrying)).await? {
                self.resume(it, carry).await?;
            }
            let before =
                Timestamp(now().0.saturating_sub(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX)));
            self.store().write(move |db| rows::forget(db, before)).await?;
        }
        let mut approved = self.approvals(of(Status::Approved)).await?;
        approved.reverse();
        for it in approved {
            self.carry(it, carry).await?;
        }
        Ok(())
    }

    /// What was being done when the server ended: done, where the audit shows what it changed; done again, where nothing can
    /// have been changed unseen; else left to people.
    async fn resume(&self, it: Approval, carry: &Carry) -> Result<(), EngineError> {
        let id = it.id;
        if self.store().read(move |db| audit::has_changed(db, id)).await? {
            let outcome = "it was done; the server was restarted before the answer".to_owned();
            return self.end(it, Status::Done, None, Some(outcome)).await;
        }
        let kept = self.kept(id).await?;
        if is_one_transaction(&kept.template) {
            return self.do_it(it, kept, carry).await;
        }
        let outcome =
            "the server was restarted while this was being done: look at the machine, and ask again"
                .to_owned();
        self.end(it, Status::Failed, None, Some(outcome)).await
    }

    async fn carry(&self, mut it: Approval, carry: &Carry) -> Result<(), EngineError> {
        let kept = self.kept(it.id).await?;
        let standing = match (it.node, &it.pool) {
            (Some(node), _) => self.0.nodes.get(node).map(|node| approval::standing(&node)),
            (None, Some(pool)) => self.pool_standing(pool),
            (None, None) => None,
        };
        if let Some(why) = it.stale(standing.as_deref()) {
            return self.end(it, Status::Stale, None, Some(why)).await;
        }
        it.status = Status::Carrying;
        let row = it.clone();
        self.store().write(move |db| rows::update(db, &row, Status::Approved)).await?;
        self.do_it(it, kept, carry).await
    }

    async fn do_it(&self, it: Approval, kept: Kept, carry: &Carry) -> Result<(), EngineError> {
        // A request that breaks must not break the loop.
        let carried = tokio::spawn(carry(it.clone(), kept)).await;
        let (answer, outcome) = carried.unwrap_or_else(|error| (500, Some(error.to_string())));
        let status = if answer < 400 { Status::Done } else { Status::Failed };
        self.end(it, status, Some(answer), outcome).await
    }

    async fn end(
        &self,
        mut it: Approval,
        status: Status,
        answer: Option<u16>,
        outcome: Option<String>,
    ) -> Result<(), EngineError> {
        let before = it.status;
        it.close(status, answer, outcome.clone(), now());
        let (kind, severity, word) = match status {
            Status::Done => ("approval.done", Severity::Info, "was done"),
            Status::Stale => ("approval.stale", Severity::Warning, "was not done"),
            _ => ("approval.failed", Severity::Warning, "failed"),
        };
        let why = outcome.map(|outcome| format!(": {outcome}")).unwrap_or_default();
        let message = format!("what {} asked for ({}) {word}{why}", it.asked_by.name, it.summary);
        let event = self.approval_event(&it, "server", kind, severity, message);
        self.put_approval(&it, before, event).await
    }
}

/// True for what may destroy something of a machine. What the server does by itself is not asked about: it follows from what was.
pub(super) fn destroys(verb: &Verb) -> bool {
    match verb {
        Verb::Provide { wipe, .. } => !wipe.is_empty(),
        Verb::Deploy(_) | Verb::Rebuild(_) | Verb::Delete { .. } | Verb::Service(_) | Verb::Boot { .. } => {
            true
        }
        _ => false,
    }
}

/// What a request would do, in words.
fn summary(request: &Kept, node: &str) -> String {
    // The pages of members have the verb in the path.
    let of = if request.template.ends_with("/{verb}") { &request.path } else { &request.template };
    let last = of.rsplit('/').find(|part| !part.starts_with('{')).unwrap_or_default();
    let verb = match (request.method.as_str(), last) {
        ("DELETE", "nodes") => "forget".to_owned(),
        ("DELETE", "servers") => "give back (wipes disks)".to_owned(),
        ("DELETE", last) => format!("remove {last} of"),
        ("PUT", last) => format!("set {last} of"),
        (_, "delete") => "give back (wipes disks)".to_owned(),
        (_, "power") => match action(&request.body) {
            Some(action) => format!("power {action}:"),
            None => "switch".to_owned(),
        },
        (_, last) => last.to_owned(),
    };
    format!("{verb} {node}")
}

fn action(body: &str) -> Option<String> {
    let json: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let found = json.as_ref().and_then(|json| json.get("action")?.as_str());
    let form = body.split('&').find_map(|pair| pair.strip_prefix("action="));
    let word: String =
        found.or(form)?.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(20).collect();
    Some(word.replace('_', " "))
}
