//! `GET /my/{project}/stream`: says which of a project's servers, volumes and networks changed. Nothing of others is told, not even that there
//! was something.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, StreamExt};
use protocol::{NodeId, ProjectId, ServerId};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use super::super::stream::{KEEP_ALIVE, RETRY, TOGETHER, full};
use super::{Refusal, Ui, Within};
use crate::engine::{Change, Engine};
use crate::store::servers::ServerFilter;

/// Servers of one project that are looked through for a change.
const SERVERS_MAX: usize = 10_000;

pub(super) async fn serve(
    State(ui): State<Ui>,
    Within(within): Within,
) -> Result<impl IntoResponse, Refusal> {
    let place = Arc::clone(&ui.streams).try_acquire_owned().map_err(|_| full())?;
    let hello = stream::once(async { Ok(Event::default().event("hello").data("1").retry(RETRY)) });
    let own = (ui.engine.changes(), ui.engine.clone(), within.project.id, place);
    let changes = stream::unfold(own, |(mut changes, engine, project, place)| async move {
        let names = batch(&mut changes, &engine, project).await?;
        let events =
            names.into_iter().map(|name| Ok::<_, Infallible>(Event::default().event(name).data("1")));
        Some((stream::iter(events), (changes, engine, project, place)))
    });
    let until_stop = hello.chain(changes.flatten()).take_until(ui.stop.cancelled_owned());
    Ok(Sse::new(until_stop).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Waits for a change of this project and takes in what follows closely; `None` when the server stops.
async fn batch(
    changes: &mut Receiver<Change>,
    engine: &Engine,
    project: ProjectId,
) -> Option<BTreeSet<String>> {
    loop {
        let mut told = Told::default();
        told.take(changes.recv().await, project)?;
        let end = Instant::now() + TOGETHER;
        while let Ok(next) = timeout_at(end, changes.recv()).await {
            if told.take(next, project).is_none() {
                break;
            }
        }
        let names = told.names(engine, project).await;
        if !names.is_empty() {
            return Some(names);
        }
    }
}

/// What changed in a while.
#[derive(Default)]
struct Told {
    servers: BTreeSet<ServerId>,
    /// What else is told of the project: volumes, snapshots, networks.
    others: BTreeSet<String>,
    /// Machines, of whomever: how far an installation is, is known of its machine.
    nodes: BTreeSet<NodeId>,
    missed: bool,
}

impl Told {
    fn take(&mut self, change: Result<Change, RecvError>, project: ProjectId) -> Option<()> {
        match change {
            Ok(Change::Server { project: of, server }) if of == project => {
                self.servers.insert(server);
            }
            Ok(Change::Volume { project: of, volume }) if of == project => {
                self.others.extend(["volumes".to_owned(), format!("volume-{volume}")]);
            }
            Ok(Change::Event(event)) if event.project == Some(project) => {
                self.others.extend(told_by(&event.kind).map(str::to_owned));
            }
            Ok(Change::Node(node)) => {
                self.nodes.insert(node);
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => self.missed = true,
            Err(RecvError::Closed) => return None,
        }
        Some(())
    }

    /// The names of what a page waits for. The store is asked once, whatever changed.
    async fn names(mut self, engine: &Engine, project: ProjectId) -> BTreeSet<String> {
        if !self.nodes.is_empty() {
            let living = ServerFilter { limit: SERVERS_MAX, ..ServerFilter::default() };
            match engine.servers(project, living).await {
                Ok(own) => {
                    let changed = own.iter().filter(|server| self.nodes.contains(&server.node));
                    self.servers.extend(changed.map(|server| server.id));
                }
                Err(error) => {
                    tracing::warn!(%error, "the servers of a project cannot be read for a page");
                    self.missed = true;
                }
            }
        }
        if self.missed {
            return BTreeSet::from(["resync".to_owned()]);
        }
        let mut names: BTreeSet<String> = self.servers.iter().map(|id| format!("server-{id}")).collect();
        if !names.is_empty() {
            names.insert("servers".to_owned());
        }
        names.extend(self.others);
        names
    }
}

/// What has no change of its own, and is told by the kind of its event.
fn told_by(kind: &str) -> Option<&'static str> {
    match kind.split_once('.')? {
        ("volume", what) if what.starts_with("snapshot") => Some("snapshots"),
        ("network" | "subnet" | "port" | "router" | "floating" | "security-group" | "mirror", _) => {
            Some("networks")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::told_by;

    #[test]
    fn networks_and_snapshots_are_told_by_their_events() {
        for (kind, name) in [
            ("volume.snapshot", Some("snapshots")),
            ("volume.snapshot_removed", Some("snapshots")),
            ("volume.created", None),
            ("security-group.changed", Some("networks")),
            ("floating.associated", Some("networks")),
            ("server.created", None),
            ("network", None),
        ] {
            assert_eq!(told_by(kind), name, "{kind}");
        }
    }
}
