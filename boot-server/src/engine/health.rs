//! Health of machines, from what their controllers measure: one word with reasons, events when it changes, and what is to be
//! replaced.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bmc::{Component, ComponentKind, Health, LogEntry, Reading};
use boot_server_core::bmc::health::{self, Change as Changes, Level, Part, Sensor, Verdict};
use boot_server_core::expected::Difference;
use boot_server_core::node::{Node, Quarantine, Severity};
use protocol::NodeId;

use super::{Actor, Engine, EngineError, lock, now};
use crate::power::HealthRead;
use crate::store::sensors::{HealthRow, healths};
use crate::store::{Store, StoreError};
use crate::view::FaultReport;

/// Lines of a controller's log that become events at a time; the log itself has them all.
const LINES_MAX: usize = 20;
/// Health that was read longer ago, before the server was started, says nothing of the machine now.
const SEED_MAX: Duration = Duration::from_hours(24);

/// What is known of a machine's health.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub verdict: Verdict,
    faults: Arc<Vec<Part>>,
    changes: Changes,
}

/// What was known when the server was last stopped.
pub(super) async fn seed(store: &Store) -> Result<BTreeMap<NodeId, Known>, StoreError> {
    let at = now();
    let fresh = |row: &HealthRow| at.since(row.verdict.at) < SEED_MAX;
    let rows = store.read(healths).await?.into_iter().filter(|(_, row)| fresh(row));
    let known = |HealthRow { verdict, faults }| Known {
        changes: Changes::known(verdict.level),
        verdict,
        faults: Arc::new(faults),
    };
    Ok(rows.map(|(node, row)| (node, known(row))).collect())
}

fn level(health: Health) -> Level {
    match health {
        Health::Ok => Level::Ok,
        Health::Warning => Level::Warning,
        Health::Critical => Level::Critical,
    }
}

fn of_reading(reading: &Reading) -> Option<Part> {
    let sensor = Sensor {
        name: &reading.name,
        value: reading.value,
        told: reading.health.map(level),
        upper_warning: reading.upper_warning,
        upper_critical: reading.upper_critical,
        lower_critical: reading.lower_critical,
    };
    sensor.fault()
}

fn of_component(component: &Component) -> Part {
    let roll_up = matches!(component.kind, ComponentKind::System | ComponentKind::Bmc);
    Part {
        level: level(component.health),
        what: in_words(component.kind, &component.name),
        replaceable: !roll_up,
        place: component.location.clone(),
        model: component.model.clone(),
        serial: component.serial.clone(),
        part_number: component.part_number.clone(),
    }
}

/// What is not as the machine's model says. Neighbours that are only waited for are no fault.
fn of_quarantine(quarantine: &Quarantine) -> Vec<Part> {
    let part = |difference: &Difference| Part {
        level: Level::Warning,
        what: difference.what.clone(),
        replaceable: difference.part.is_replaceable(),
        place: difference.slot.clone(),
        model: None,
        serial: difference.serial.clone(),
        part_number: difference.part_number.clone(),
    };
    match quarantine.wait_until {
        Some(_) => Vec::new(),
        None => quarantine.differences.iter().map(part).collect(),
    }
}

/// A part by kind and name, the kind not twice: `power supply PSU 2`, `Drive 1`.
fn in_words(kind: ComponentKind, name: &str) -> String {
    let kind = match kind {
        ComponentKind::System => "system",
        ComponentKind::Processor => "processor",
        ComponentKind::Memory => "memory",
        ComponentKind::Drive => "drive",
        ComponentKind::PowerSupply => "power supply",
        ComponentKind::Fan => "fan",
        ComponentKind::Network => "network adapter",
        ComponentKind::Bmc => "BMC",
        ComponentKind::Other => "part",
    };
    let said = name.get(..kind.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(kind));
    if said { name.to_owned() } else { format!("{kind} {name}") }
}

impl Engine {
    /// How well a machine is, where its controller said so; from before a restart of the server, with its time.
    pub fn health(&self, node: NodeId) -> Option<Verdict> {
        lock(&self.0.health).get(&node).map(|known| known.verdict.clone())
    }

    /// What is not as it should be in a machine: what to replace, and where it is.
    pub async fn faults(&self, node: &Node) -> FaultReport {
        let known = lock(&self.0.health).get(&node.id).cloned();
        let inventory = self.readable_inventory(node.id).await;
        let system = inventory.as_ref().map(|inventory| inventory.system.clone()).unwrap_or_default();
        let plugged = self.addresses(node).await.unwrap_or_default();
        FaultReport {
            node: node.name.clone(),
            product: [system.manufacturer, system.product]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" "),
            serial: node.identity.serial.clone(),
            place: node.place.clone(),
            switch_ports: plugged.iter().filter(|a| a.switch.is_some()).map(|a| a.plugged()).collect(),
            health: known.as_ref().map(|known| known.verdict.clone()),
            faults: {
                let mut faults = known.map(|known| known.faults.to_vec()).unwrap_or_default();
                faults.extend(node.quarantine.iter().flat_map(of_quarantine));
                health::sorted(faults)
            },
        }
    }

    /// The machines in which something is not as it should be, the worst first, then by name.
    pub async fn all_faults(&self) -> Vec<FaultReport> {
        let mut sick: BTreeSet<NodeId> = lock(&self.0.health)
            .iter()
            .filter(|(_, known)| known.verdict.level != Level::Ok)
            .map(|(node, _)| *node)
            .collect();
        sick.extend(self.0.nodes.all().iter().filter(|node| node.quarantine.is_some()).map(|node| node.id));
        let mut reports = Vec::with_capacity(sick.len());
        for node in sick.into_iter().filter_map(|id| self.0.nodes.get(id)) {
            reports.push(self.faults(&node).await);
        }
        reports.sort_by_key(|report| {
            (Reverse(report.health.as_ref().map(|health| health.level)), report.node.clone())
        });
        reports
    }

    /// Refuses what a machine in a critical state is not fit for.
    ///
    /// # Errors
    /// [`EngineError::Unhealthy`].
    pub(super) fn check_health(&self, node: &Node, allow_critical: bool) -> Result<(), EngineError> {
        match self.health(node.id) {
            Some(verdict) if verdict.level == Level::Critical && !allow_critical => {
                Err(EngineError::Unhealthy { node: node.name.clone(), why: verdict.reasons.join("; ") })
            }
            _ => Ok(()),
        }
    }

    /// Takes in what a worker measured.
    pub(super) async fn note_health(
        &self,
        node: NodeId,
        address: &str,
        read: HealthRead,
    ) -> Result<(), EngineError> {
        let (look, told) = self.judge_health(node, address, &read);
        if let Some((kind, severity, message)) = told {
            self.note(Actor::Server, Some(node), kind, severity, message).await?;
        }
        self.note_look(node, &read.readings, look).await?;
        self.note_lines(node, address, &read.lines).await
    }

    /// What a controller measured, as the health of what its worker is called after; and what is to be said of it, where it is another than
    /// before.
    pub(super) fn judge_health(
        &self,
        name: NodeId,
        address: &str,
        read: &HealthRead,
    ) -> (HealthRow, Option<(&'static str, Severity, String)>) {
        let readings = read.readings.iter().filter_map(of_reading);
        let faults = health::sorted(readings.chain(read.components.iter().map(of_component)).collect());
        let verdict = health::verdict(&faults, now());
        let look = HealthRow { verdict: verdict.clone(), faults: faults.clone() };
        let told = {
            let mut all = lock(&self.0.health);
            let mut changes = all.get(&name).map(|known| known.changes).unwrap_or_default();
            let told = changes.handle(verdict.level);
            all.insert(name, Known { verdict: verdict.clone(), faults: Arc::new(faults), changes });
            told
        };
        let told = told.map(|level| {
            let (kind, severity) = match level {
                Level::Ok => ("health.ok", Severity::Info),
                Level::Warning => ("health.warning", Severity::Warning),
                Level::Critical => ("health.critical", Severity::Error),
            };
            let message = match level {
                Level::Ok => format!("all is well again, says the BMC {address}"),
                _ => verdict.reasons.join("; ").chars().take(1000).collect(),
            };
            (kind, severity, message)
        });
        (look, told)
    }

    async fn note_lines(&self, node: NodeId, address: &str, lines: &[LogEntry]) -> Result<(), EngineError> {
        let bad = lines.iter().filter(|line| line.severity > bmc::Severity::Ok);
        for line in bad.rev().take(LINES_MAX).collect::<Vec<_>>().into_iter().rev() {
            let severity = match line.severity {
                bmc::Severity::Critical => Severity::Error,
                _ => Severity::Warning,
            };
            let sensor = line.sensor.as_ref().map(|sensor| format!("{sensor}: ")).unwrap_or_default();
            let message: String = format!("{sensor}{} (log of the BMC {address})", line.message)
                .chars()
                .filter(|c| !c.is_control())
                .take(500)
                .collect();
            self.note(Actor::Server, Some(node), "bmc.log", severity, message).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_says_its_kind_once() {
        assert_eq!(in_words(ComponentKind::PowerSupply, "PSU 2"), "power supply PSU 2");
        assert_eq!(in_words(ComponentKind::Drive, "Drive 1"), "Drive 1");
        assert_eq!(in_words(ComponentKind::System, "System"), "System");
        assert_eq!(in_words(ComponentKind::Fan, "\u{dc}"), "fan \u{dc}");
    }
}
