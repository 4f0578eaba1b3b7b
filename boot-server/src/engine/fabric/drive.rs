//! Makes switch ports so: after each change, and again until they are so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bmc::DriverKind;
use boot_server_core::dpu::Side;
use boot_server_core::network::fabric::Member;
use boot_server_core::network::switch::Want;
use boot_server_core::node::{Event, Node, PrepareNews, RunStage, Severity, State};
use protocol::{JobId, NodeId};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::wiring::Wiring;
use super::{GRACE, Known, Standing};
use crate::engine::volumes::{again, take};
use crate::engine::{Actor, Change, Engine, EngineError, lock, now};
use crate::store::servers as servers_rows;

/// Switches are compared with what they are to be so often; it looks into memory alone.
const LOOK: Duration = Duration::from_secs(1);
/// What did not work is tried again so much later.
const AGAIN: Duration = Duration::from_secs(3);
/// Who has ports is read anew so often.
const ROUND: u32 = 30;
/// A switch that is away for so long is told of.
const LOST: Duration = Duration::from_secs(5);
/// At the start, switches are given so long to answer.
const START: Duration = Duration::from_secs(3);
/// Looks of one task: a crossing takes three.
const STEPS_MAX: usize = 6;
/// Between two looks whether a machine is back on the provisioning network.
const HOME_LOOK: Duration = Duration::from_millis(300);

impl Engine {
    /// Keeps switch ports as they are to be, until `stop`.
    pub async fn run_fabric(&self, stop: CancellationToken) {
        if !self.has_switches() {
            stop.cancelled().await;
            return;
        }
        let mut changes = self.changes();
        // What is not connected yet is nothing to tell anybody of.
        let ready = self.0.fabric.switches.values().map(|known| known.driver.ready());
        let _ = tokio::time::timeout(START, futures_util::future::join_all(ready)).await;
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut round = 0_u32;
        loop {
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {
                    let all = round.is_multiple_of(ROUND);
                    round = round.wrapping_add(1);
                    self.look_at_switches(all, &stop).await
                }
                change = changes.recv() => match change {
                    Ok(change) => self.look_at_host(change, &stop).await,
                    Err(RecvError::Lagged(_)) => self.look_at_switches(true, &stop).await,
                    Err(RecvError::Closed) => return,
                },
            };
            if let Err(error) = looked {
                tracing::error!(error = &error as &dyn std::error::Error, "switches are looked at again");
            }
        }
    }

    async fn look_at_host(&self, change: Change, stop: &CancellationToken) -> Result<(), EngineError> {
        let node = match change {
            Change::Node(node) => Some(node).filter(|node| self.is_concerned(*node)),
            Change::Server { server, .. } if self.is_switched(server) => {
                let found = self.store().read(move |db| servers_rows::get(db, server)).await?;
                found.map(|server| server.node)
            }
            _ => None,
        };
        if let Some(node) = node {
            self.drive_wiring(node, stop);
        }
        Ok(())
    }

    /// Whether a change of a node can matter to a switch: most change all the time and are at none.
    fn is_concerned(&self, id: NodeId) -> bool {
        let crosses = |node: &Node| node.state.run().is_some_and(|run| run.crosses);
        lock(&self.0.fabric.standing).contains_key(&id)
            || self.0.nodes.get(id).is_some_and(|node| crosses(&node))
    }

    async fn look_at_switches(&self, all: bool, stop: &CancellationToken) -> Result<(), EngineError> {
        for known in self.0.fabric.switches.values() {
            let back = self.note_link(known).await?;
            let ours = known.driver.ours().unwrap_or_default();
            if all || back {
                for node in ours.values() {
                    self.drive_wiring(*node, stop);
                }
            }
        }
        if all {
            for server in self.all_servers().await? {
                if self.is_switched(server.id) {
                    self.drive_wiring(server.node, stop);
                }
            }
        }
        for (node, standing) in lock(&self.0.fabric.standing).clone() {
            if self.is_due(&standing) {
                self.drive_wiring(node, stop);
            }
        }
        Ok(())
    }

    /// Something is not as it is to be: it never was, or somebody changed it.
    fn is_due(&self, standing: &Standing) -> bool {
        if !standing.settled || standing.problem.is_some() {
            return standing.tried.elapsed() >= AGAIN;
        }
        standing.wants.iter().any(|(switch, wants)| {
            let known = self.0.fabric.switches.get(switch);
            known
                .is_some_and(|known| known.driver.look(wants).is_ok_and(|found| !found.operations.is_empty()))
        })
    }

    /// Tells of a switch that is gone, or is back; true for the latter, and when it first answers.
    async fn note_link(&self, known: &Known) -> Result<bool, EngineError> {
        let name = &known.settings.name;
        let answer = known.driver.ours().map(drop).map_err(|error| words(&error));
        let (event, back) = {
            let mut link = lock(&known.link);
            match answer {
                Ok(()) => {
                    let was = std::mem::take(&mut *link);
                    (
                        was.told
                            .then(|| ("switch.back", Severity::Info, format!("switch {name} answers again"))),
                        was.lost.is_some(),
                    )
                }
                Err(why) => {
                    let since = link.lost.as_ref().map_or_else(Instant::now, |(_, since)| *since);
                    link.lost = Some((why.clone(), since));
                    let tell = !link.told && since.elapsed() >= LOST;
                    link.told |= tell;
                    let message =
                        format!("switch {name}: {why}; its ports stay as they are, and hosts wait for it");
                    (tell.then_some(("switch.lost", Severity::Warning, message)), false)
                }
            }
        };
        if let Some((kind, severity, message)) = event {
            self.note(Actor::Server, None, kind, severity, message).await?;
        }
        Ok(back)
    }

    /// Looks at a host's switch ports, in a task of its own: it may wait for a machine to be off.
    pub(in crate::engine) fn drive_wiring(&self, node: NodeId, stop: &CancellationToken) {
        if !take(&self.0.fabric.turns, node) {
            return;
        }
        let (engine, stop) = (self.clone(), stop.clone());
        tokio::spawn(async move {
            loop {
                let done = tokio::select! {
                    () = stop.cancelled() => return,
                    done = engine.wire(node) => done,
                };
                if let Err(error) = done {
                    let text = words(&error);
                    tracing::warn!(%node, error = text, "a host's switch ports are not as they are to be yet");
                    engine.note_trouble(node, text).await;
                }
                if !again(&engine.0.fabric.turns, &node) {
                    return;
                }
            }
        });
    }

    pub(super) async fn wire(&self, id: NodeId) -> Result<(), EngineError> {
        for _ in 0..STEPS_MAX {
            let Some(node) = self.0.nodes.get(id) else { return self.let_go(id).await };
            self.wait_for_answer(&node).await;
            let Some(wiring) = self.wiring(&node).await? else { return Ok(()) };
            if wiring.side == Side::Provisioning && !self.leaves_off(&node, &wiring).await? {
                return Ok(());
            }
            if !self.make_wiring(&node, &wiring).await? {
                return Ok(());
            }
            if !self.cross(&node, &wiring).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The boot script that sends a machine to its disk has to reach it.
    async fn wait_for_answer(&self, node: &Node) {
        if let State::Deploying(run) = &node.state
            && run.stage == RunStage::FirstBoot
            && !self.switches_off(node.id)
        {
            tokio::time::sleep(GRACE.saturating_sub(now().since(run.since))).await;
        }
    }

    /// True where Billet can switch the machine off.
    fn switches_off(&self, id: NodeId) -> bool {
        let manual = [DriverKind::Manual, DriverKind::Wol];
        lock(&self.0.bmcs).get(&id).is_some_and(|row| !manual.contains(&row.driver))
    }

    /// What ran for a tenant is off before its port is on the provisioning network; true where it is, or need not be.
    async fn leaves_off(&self, node: &Node, wiring: &Wiring) -> Result<bool, EngineError> {
        let home = lock(&self.0.fabric.standing).get(&node.id).map(|standing| !standing.away);
        let differs = |(switch, wants): (&String, &BTreeMap<String, Want>)| {
            let Some(known) = self.0.fabric.switches.get(switch) else { return false };
            let ours = known.driver.ours().unwrap_or_default();
            let changed = known.driver.look(wants).map(|found| found.changed).unwrap_or_default();
            changed.iter().any(|port| ours.get(port) == Some(&node.id))
        };
        if home == Some(true) || !self.switches_off(node.id) || !wants(node.id, wiring).iter().any(differs) {
            return Ok(true);
        }
        if self.switch_off(node.id).await? {
            return Ok(true);
        }
        self.stand(node, wiring, Err("its machine could not be switched off yet".to_owned())).await?;
        Ok(false)
    }

    /// True where all is so.
    async fn make_wiring(&self, node: &Node, wiring: &Wiring) -> Result<bool, EngineError> {
        let mut changed = Vec::new();
        for (switch, wants) in wants(node.id, wiring) {
            let Some(known) = self.0.fabric.switches.get(&switch) else { continue };
            if let Some(other) = self.claimed(node.id, &switch, &wants) {
                self.stand(node, wiring, Err(other)).await?;
                return Ok(false);
            }
            match known.driver.apply(&wants).await {
                Ok(ports) => changed.extend(ports.into_iter().map(|port| (switch.clone(), port))),
                Err(error) => {
                    let why = format!("switch {switch}: {}", words(&error));
                    self.stand(node, wiring, Err(why)).await?;
                    return Ok(false);
                }
            }
        }
        self.stand(node, wiring, Ok(changed)).await?;
        Ok(true)
    }

    /// Another host that is said to be at one of these ports, in words.
    fn claimed(&self, node: NodeId, switch: &str, wants: &BTreeMap<String, Want>) -> Option<String> {
        let standing = lock(&self.0.fabric.standing);
        let others = standing.iter().filter(|(other, _)| **other != node);
        let at = |standing: &Standing| {
            let theirs = standing.wants.get(switch)?;
            wants.keys().find(|port| theirs.contains_key(*port)).cloned()
        };
        let (other, port) = others.filter_map(|(other, standing)| Some((*other, at(standing)?))).next()?;
        let other = self.node_name(other)?;
        Some(format!("port {port} of switch {switch} is said to have a NIC of node {other}, too"))
    }

    /// Keeps how a host stands, and tells of what changed.
    async fn stand(
        &self,
        node: &Node,
        wiring: &Wiring,
        outcome: Result<Vec<(String, String)>, String>,
    ) -> Result<(), EngineError> {
        let away = wiring.side == Side::Tenant;
        let standing = Standing {
            wants: wants(node.id, wiring),
            away,
            settled: outcome.is_ok(),
            problem: outcome.as_ref().err().cloned(),
            tried: Instant::now(),
        };
        let before = lock(&self.0.fabric.standing).insert(node.id, standing.clone());
        let same = before.as_ref().is_some_and(|before| before.settled && before.wants == standing.wants);
        let event = match &outcome {
            Ok(changed) if changed.is_empty() => None,
            Ok(changed) => Some(moved(changed, &standing, same)),
            Err(why) if before.as_ref().is_some_and(|before| before.problem.as_ref() == Some(why)) => None,
            Err(why) => {
                let message = format!("its switch ports are not as they are to be: {why}; tried again");
                Some(("switch.trouble", Severity::Warning, message))
            }
        };
        if let Some((kind, severity, message)) = event {
            self.note(Actor::Server, Some(node.id), kind, severity, message).await?;
        }
        let turned = before.is_none_or(|before| (before.away, before.settled) != (away, standing.settled));
        if let Some(server) = wiring.server.filter(|_| turned) {
            self.note_server(server, standing.settled).await?;
        }
        Ok(())
    }

    /// Tells a server's project, and whoever drives it.
    async fn note_server(&self, id: protocol::ServerId, settled: bool) -> Result<(), EngineError> {
        let Some(server) = self.store().read(move |db| servers_rows::get(db, id)).await? else {
            return Ok(());
        };
        let note = (!settled).then(|| "its machine waits for the site's network".to_owned());
        let own = server.note.as_deref().is_none_or(|note| note.ends_with("the site's network"));
        if own && server.note != note {
            let next = boot_server_core::server::Server { note, version: server.version + 1, ..server };
            return match self.put_server(next, None).await {
                Ok(_) | Err(EngineError::Store(crate::store::StoreError::Conflict)) => Ok(()),
                Err(error) => Err(error),
            };
        }
        self.announce_server(&server);
        Ok(())
    }

    /// What kept a host from being looked at.
    async fn note_trouble(&self, id: NodeId, why: String) {
        let told = {
            let mut all = lock(&self.0.fabric.standing);
            let standing = all.entry(id).or_insert_with(|| Standing {
                wants: BTreeMap::new(),
                // Where it is is not known; so nothing goes on.
                away: true,
                settled: false,
                problem: None,
                tried: Instant::now(),
            });
            (standing.settled, standing.tried) = (false, Instant::now());
            standing.problem.replace(why.clone()).as_ref() == Some(&why)
        };
        if !told {
            let message = format!("its switch ports are not as they are to be: {why}; tried again");
            let noted =
                self.note(Actor::Server, Some(id), "switch.trouble", Severity::Warning, message).await;
            if let Err(error) = noted {
                tracing::error!(node = %id, %error, "an event was not stored");
            }
        }
    }

    /// A machine whose OS is written goes over; true where it is to be looked at again.
    async fn cross(&self, node: &Node, wiring: &Wiring) -> Result<bool, EngineError> {
        let Some(job) = waiting(node) else {
            lock(&self.0.fabric.crossing).remove(&node.id);
            return Ok(false);
        };
        if wiring.side == Side::Tenant {
            self.tell_crossed(node.id, job, PrepareNews::Ready).await?;
            return Ok(false);
        }
        if !self.switches_off(node.id) {
            self.tell_crossed(node.id, job, PrepareNews::Clear).await?;
            return Ok(false);
        }
        if !self.switch_off(node.id).await? {
            self.stand(node, wiring, Err("its machine could not be switched off yet".to_owned())).await?;
            return Ok(false);
        }
        lock(&self.0.fabric.crossing).insert(node.id, job);
        Ok(true)
    }

    async fn tell_crossed(&self, id: NodeId, job: JobId, news: PrepareNews) -> Result<(), EngineError> {
        match self.apply(id, Actor::Server, Event::Prepared { job, news }).await {
            // It was called off meanwhile.
            Ok(_) | Err(EngineError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The ports of a machine that was forgotten go back to the provisioning network.
    async fn let_go(&self, id: NodeId) -> Result<(), EngineError> {
        for known in self.0.fabric.switches.values() {
            let Ok(ours) = known.driver.ours() else { continue };
            let want = Want { node: id, member: Member::Access(known.settings.provisioning) };
            let wants: BTreeMap<String, Want> = ours
                .into_iter()
                .filter(|(_, node)| *node == id)
                .map(|(port, _)| (port, want.clone()))
                .collect();
            if let Err(error) = known.driver.apply(&wants).await {
                tracing::warn!(node = %id, error = words(&error), "a forgotten machine's port stays as it is");
            }
        }
        lock(&self.0.fabric.standing).remove(&id);
        Ok(())
    }

    /// Waits until a host is back on the provisioning network, before anything else is done with it; false where the server stops.
    pub(in crate::engine) async fn come_home(
        &self,
        id: NodeId,
        stop: &CancellationToken,
    ) -> Result<bool, EngineError> {
        loop {
            let Some(node) = self.0.nodes.get(id) else { return Ok(true) };
            let starts = node.state.run().is_some_and(|run| run.stage == RunStage::FirstBoot);
            if starts || self.is_back_home(id).await? {
                return Ok(true);
            }
            self.drive_wiring(id, stop);
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                () = tokio::time::sleep(HOME_LOOK) => {}
            }
        }
    }
}

/// The job that waits for the switch.
fn waiting(node: &Node) -> Option<JobId> {
    node.state.run().filter(|run| run.stage == RunStage::Cross).map(|run| run.job.id)
}

/// By switch and port.
fn wants(node: NodeId, wiring: &Wiring) -> BTreeMap<String, BTreeMap<String, Want>> {
    let mut wants: BTreeMap<String, BTreeMap<String, Want>> = BTreeMap::new();
    for (at, member) in &wiring.members {
        let want = Want { node, member: member.clone() };
        wants.entry(at.switch.clone()).or_default().insert(at.port.clone(), want);
    }
    wants
}

fn moved(changed: &[(String, String)], standing: &Standing, same: bool) -> (&'static str, Severity, String) {
    let ports: Vec<String> = changed
        .iter()
        .map(|(switch, port)| {
            let want = standing.wants.get(switch).and_then(|wants| wants.get(port));
            format!(
                "port {port} of switch {switch}: {}",
                want.map_or_else(String::new, |want| in_words(&want.member))
            )
        })
        .collect();
    let ports = ports.join(", ");
    if same {
        let message = format!("somebody changed what Billet had set, and it was put back: {ports}");
        return ("switch.drift", Severity::Warning, message);
    }
    ("switch.moved", Severity::Info, ports)
}

/// What a port is in.
pub(crate) fn in_words(member: &Member) -> String {
    match member {
        Member::Access(0) => "untagged".to_owned(),
        Member::Access(vlan) => format!("VLAN {vlan}"),
        Member::Trunk { native, tagged } => {
            let tagged: Vec<String> = tagged.iter().map(u16::to_string).collect();
            format!("VLAN {native}, and {} tagged", tagged.join(", "))
        }
        Member::Parked => "no VLAN".to_owned(),
    }
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
