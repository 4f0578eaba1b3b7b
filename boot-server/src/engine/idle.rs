//! Machines that nobody has are switched off where their pool says so, once they were idle for its time. A deploy restarts a
//! machine anyhow, so that nothing has to switch them on again.
//!
//! How long a machine is idle is counted from when the server first saw it so: after a start of the server all wait anew.

use std::collections::BTreeMap;
use std::time::Duration;

use bmc::{DriverKind, PowerAction, PowerState};
use boot_server_core::node::{Node, Repeat, StateName};
use protocol::{NodeId, Timestamp};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Actor, Engine, EngineError, lock, now};
use crate::power;

/// Between two looks: pools count in minutes.
const LOOK: Duration = Duration::from_secs(20);
/// Machines that are switched off at the same time: a hall is not to lose its load at once.
const OFF_AT_ONCE: usize = 16;
/// A machine that could not be switched off is left alone for this long.
const AGAIN: Duration = Duration::from_mins(15);

/// Since when machines are idle.
#[derive(Debug, Default)]
pub(super) struct IdleSince {
    since: BTreeMap<NodeId, Timestamp>,
    /// Those that could not be switched off are left alone until then.
    not_before: BTreeMap<NodeId, Timestamp>,
}

impl IdleSince {
    /// Takes in which machines are idle now, and for how long each may be; returns those whose time has come, the longest
    /// idle first.
    pub fn handle_look(&mut self, at: Timestamp, idle: &BTreeMap<NodeId, Duration>) -> Vec<NodeId> {
        self.since.retain(|node, _| idle.contains_key(node));
        self.not_before.retain(|node, until| idle.contains_key(node) && at < *until);
        let mut due: Vec<(Timestamp, NodeId)> = idle
            .iter()
            .filter_map(|(node, patience)| {
                let since = *self.since.entry(*node).or_insert(at);
                let due = at >= since.after(*patience) && !self.not_before.contains_key(node);
                due.then_some((since, *node))
            })
            .collect();
        due.sort();
        due.into_iter().map(|(_, node)| node).collect()
    }

    /// It was switched off; where it does not show, it is idle anew.
    pub fn handle_off(&mut self, at: Timestamp, node: NodeId) {
        self.since.insert(node, at);
    }

    /// It could not be switched off.
    pub fn handle_failure(&mut self, at: Timestamp, node: NodeId) {
        self.not_before.insert(node, at.after(AGAIN));
    }
}

impl Engine {
    /// Switches idle machines off, until `stop`.
    pub async fn run_idle(&self, stop: CancellationToken) {
        let mut since = IdleSince::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            if let Err(error) = self.look_for_idle(&mut since, now()).await {
                tracing::error!(%error, "whether machines are idle is not known");
            }
        }
    }

    async fn look_for_idle(&self, since: &mut IdleSince, at: Timestamp) -> Result<(), EngineError> {
        let idle = self.idle().await?;
        let due = since.handle_look(at, &idle);
        let mut tasks = JoinSet::new();
        for node in due.into_iter().take(OFF_AT_ONCE) {
            let engine = self.clone();
            let patience = idle.get(&node).copied().unwrap_or_default();
            tasks.spawn(async move { (node, engine.switch_idle_off(node, patience).await) });
        }
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok((node, Ok(()))) => since.handle_off(at, node),
                Ok((node, Err(error))) => {
                    tracing::warn!(%node, %error, "an idle machine was not switched off");
                    since.handle_failure(at, node);
                }
                Err(error) => tracing::error!(%error, "a task that switches off broke"),
            }
        }
        Ok(())
    }

    /// Machines that run, that nobody has, and that nobody is to have at once; with how long their pool lets them.
    async fn idle(&self) -> Result<BTreeMap<NodeId, Duration>, EngineError> {
        let pools = self.0.shelf.pools();
        if pools.values().all(|pool| pool.value.idle.patience().is_none()) {
            return Ok(BTreeMap::new());
        }
        let lent = self.lent().await?;
        let nodes = self.0.nodes.all();
        let of = |node: &std::sync::Arc<Node>| {
            let patience = pools.get(&node.pool())?.value.idle.patience()?;
            let idle = !lent.contains(&node.id) && is_idle(node) && self.runs_by_controller(node.id);
            idle.then_some((node.id, patience))
        };
        Ok(nodes.iter().filter_map(of).collect())
    }

    fn runs_by_controller(&self, node: NodeId) -> bool {
        let known = lock(&self.0.bmcs).get(&node).is_some_and(|row| row.driver != DriverKind::Manual);
        known && self.power_of(node) == Some(PowerState::On)
    }

    async fn switch_idle_off(&self, id: NodeId, patience: Duration) -> Result<(), EngineError> {
        let lent = self.lent().await?;
        // Nothing waits between this look and the controller's queue: a job that begins after it restarts the machine behind us.
        let idle = self.0.nodes.get(id).is_some_and(|node| is_idle(&node)) && !lent.contains(&id);
        if !idle || !self.runs_by_controller(id) {
            return Ok(());
        }
        let minutes = patience.as_secs() / 60;
        let words =
            format!("switched off: nobody has it, and its pool lets it run idle for {minutes} minutes");
        let change = power::Change::Power(PowerAction::ForceOff);
        let asked: Result<_, EngineError> =
            self.bmc_change(id, Actor::Server, change, ("power.idle", words)).await;
        asked.map(drop)
    }
}

/// True where nothing is done with a machine and nothing is ordered for it.
fn is_idle(node: &Node) -> bool {
    let ordered = node.boot.as_ref().is_some_and(|order| order.pending() || order.repeat == Repeat::Always);
    node.state.name() == StateName::Available && node.maintenance.is_none() && !ordered
}

#[cfg(test)]
mod tests {
    use boot_server_core::node::Event;
    use boot_server_core::node::event::{Cleaning, Verb};
    use uuid::Uuid;

    use super::super::power_tests::Site;
    use super::*;

    #[test]
    fn a_machine_is_due_once_its_time_has_come() {
        let (a, b) = (NodeId(Uuid::from_u128(1)), NodeId(Uuid::from_u128(2)));
        let minutes = Duration::from_mins;
        let at = |m: u64| Timestamp(10_000_000 + m * 60_000);
        let mut since = IdleSince::default();
        let both = BTreeMap::from([(a, minutes(10)), (b, minutes(5))]);
        assert_eq!(since.handle_look(at(0), &both), []);
        assert_eq!(since.handle_look(at(4), &both), []);
        assert_eq!(since.handle_look(at(5), &both), [b]);
        assert_eq!(since.handle_look(at(10), &both), [a, b]);
        // Somebody had it meanwhile: it waits anew.
        assert_eq!(since.handle_look(at(11), &BTreeMap::from([(b, minutes(5))])), [b]);
        assert_eq!(since.handle_look(at(12), &both), [b]);
        assert_eq!(since.handle_look(at(21), &both), [b]);
        assert_eq!(since.handle_look(at(22), &both), [b, a]);
        since.handle_failure(at(22), b);
        assert_eq!(since.handle_look(at(23), &both), [a], "left alone for a while");
        assert_eq!(since.handle_look(at(37), &both), [b, a]);
        since.handle_off(at(37), b);
        assert_eq!(since.handle_look(at(41), &both), [a], "off, though it does not show yet");
    }

    fn kinds_of(kinds: &[String], kind: &str) -> usize {
        kinds.iter().filter(|k| *k == kind).count()
    }

    #[tokio::test]
    async fn an_idle_machine_is_switched_off_and_a_job_switches_it_on() {
        let site = Site::new().await;
        let (engine, node) = (&site.engine, site.node.id);
        let operator = || Actor::Operator(String::new());
        if site.now().await.state.name() != StateName::Available {
            let provide = Event::Verb(Verb::Provide { wipe: vec![], how: Cleaning::Light });
            engine.apply(node, operator(), provide).await.unwrap();
        }
        engine.switch(node, operator(), PowerAction::On).await.unwrap();
        let mut since = IdleSince::default();
        let at = |minutes: u64| Timestamp(now().0 + minutes * 60_000);
        engine.look_for_idle(&mut since, at(0)).await.unwrap();
        assert!(engine.idle().await.unwrap().is_empty(), "its pool keeps it on");

        let mut pool = boot_server_core::pool::Pool::clone(&engine.pool("default").unwrap().value);
        pool.idle = boot_server_core::pool::Idle::OffAfterMinutes(30);
        engine.change_pool(operator(), "default", pool, None).await.unwrap();
        engine.look_for_idle(&mut since, at(0)).await.unwrap();
        engine.look_for_idle(&mut since, at(29)).await.unwrap();
        assert_eq!(engine.power_of(node), Some(PowerState::On));
        let reason = Some("mine".to_owned());
        let maintenance = |reason| Event::Verb(Verb::Maintenance { reason, until: None, by: None });
        engine.apply(node, operator(), maintenance(reason)).await.unwrap();
        engine.look_for_idle(&mut since, at(31)).await.unwrap();
        assert_eq!(kinds_of(&site.kinds().await, "power.idle"), 0, "somebody works on it");
        engine.apply(node, operator(), maintenance(None)).await.unwrap();
        engine.look_for_idle(&mut since, at(32)).await.unwrap();
        engine.look_for_idle(&mut since, at(63)).await.unwrap();
        site.until("power.idle").await;
        for _ in 0..200 {
            if engine.power_of(node) == Some(PowerState::Off) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(engine.power_of(node), Some(PowerState::Off));
        engine.look_for_idle(&mut since, at(95)).await.unwrap();
        let kinds = site.kinds().await;
        assert_eq!((kinds_of(&kinds, "power.idle"), kinds_of(&kinds, "power.drift")), (1, 0), "{kinds:?}");

        site.inspect().await;
        site.until("power.restart").await;
        for _ in 0..400 {
            if engine.power_of(node) == Some(PowerState::On) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(engine.power_of(node), Some(PowerState::On), "{}", site.waits_for().await);
        assert!(engine.idle().await.unwrap().is_empty(), "a job has it");
        site.end().await;
    }

    #[tokio::test]
    async fn a_controller_that_refuses_is_left_alone_for_a_while() {
        let site = Site::new().await;
        let engine = &site.engine;
        let operator = || Actor::Operator(String::new());
        if site.now().await.state.name() != StateName::Available {
            let provide = Event::Verb(Verb::Provide { wipe: vec![], how: Cleaning::Light });
            engine.apply(site.node.id, operator(), provide).await.unwrap();
        }
        engine.switch(site.node.id, operator(), PowerAction::On).await.unwrap();
        let mut pool = boot_server_core::pool::Pool::clone(&engine.pool("default").unwrap().value);
        pool.idle = boot_server_core::pool::Idle::OffAfterMinutes(1);
        engine.change_pool(operator(), "default", pool, None).await.unwrap();
        lock(&site.fake.state).wrong_login = true;
        let mut since = IdleSince::default();
        let at = now();
        for minutes in [0, 2, 3, 10] {
            engine.look_for_idle(&mut since, at.after(Duration::from_mins(minutes))).await.unwrap();
        }
        assert_eq!(kinds_of(&site.kinds().await, "power.idle"), 0);
        assert!(since.not_before.contains_key(&site.node.id));
        site.end().await;
    }
}
