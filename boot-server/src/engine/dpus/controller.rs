//! Controllers of DPUs: what is stored of them, the workers that follow from it, and which machine a card is in.
//!
//! The worker of a DPU's controller has the DPU's id for a name: ids of nodes and DPUs are UUIDs of one kind, and none is both.

use std::sync::Arc;

use bmc::{Credentials, DriverKind, FirmwareItem, Secret};
use boot_server_core::bmc::health::Verdict;
use boot_server_core::node::Severity;
use boot_server_core::setup::{Card, Doubt, Host, Mode, Paired, Privilege, Version, pair};
use protocol::{DpuId, NodeId};

use super::{Disks, Dpu, DpuError, Known, line};
use crate::engine::{Actor, Change, Engine, EngineError, lock, now};
use crate::power::{News, PowerError, Read, Reply, Target};
use crate::store::dpu_setup::{self as rows, ControllerRow};
use crate::store::queries::insert_event;
use crate::vault::Place;

/// Longest address, user name and password, in octets.
const TEXT_MAX: usize = 255;

/// A controller as somebody names it. What is left open stays as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ControllerChange {
    /// Name or address.
    pub address: Option<String>,
    /// Port; the protocol's own if not given.
    pub port: Option<u16>,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Secret>,
}

fn place(id: DpuId) -> Place {
    Place { row: id.0, column: "dpu_controllers.password" }
}

/// The name of the worker of a DPU's controller.
pub(super) fn worker(id: DpuId) -> NodeId {
    NodeId(id.0)
}

fn bad(what: impl Into<String>, hint: &'static str) -> EngineError {
    EngineError::BadBmc { what: what.into(), hint }
}

impl Engine {
    /// The controller of a DPU, where it has one.
    pub fn dpu_controller(&self, id: DpuId) -> Option<ControllerRow> {
        lock(&self.0.dpus.controllers).get(&id).cloned()
    }

    /// Why the controller of a DPU does not answer, if it does not.
    pub fn dpu_controller_trouble(&self, id: DpuId) -> Option<String> {
        Some(self.0.power.status(worker(id))?.error?.message)
    }

    /// How well a DPU is, as its controller measured since this server runs.
    pub fn dpu_health(&self, id: DpuId) -> Option<Verdict> {
        self.health(worker(id))
    }

    /// The DPU whose controller's worker has this name.
    pub(in crate::engine) fn dpu_of_worker(&self, name: NodeId) -> Option<DpuId> {
        let id = DpuId(name.0);
        lock(&self.0.dpus.controllers).contains_key(&id).then_some(id)
    }

    /// Starts a worker for every controller of a DPU that is known.
    pub(in crate::engine) fn start_dpu_workers(&self) {
        let known: Vec<ControllerRow> = lock(&self.0.dpus.controllers).values().cloned().collect();
        for row in known {
            if let Err(error) = self.start_dpu_worker(&row, false) {
                tracing::error!(dpu = %row.dpu, %error, "the BMC of a DPU cannot be used: give its account anew");
            }
        }
    }

    fn start_dpu_worker(&self, row: &ControllerRow, now: bool) -> Result<(), EngineError> {
        let target = Target { now, ..self.dpu_target(row)? };
        self.0.power.set(target).map_err(|error| PowerError::from(error).into())
    }

    fn dpu_target(&self, row: &ControllerRow) -> Result<Target, EngineError> {
        let password = self.0.vault.unseal(place(row.dpu), &row.password)?;
        Ok(Target {
            port: row.port,
            credentials: Some(Credentials { user: row.user.clone(), password }),
            certificate: row.certificate.clone(),
            ..Target::new(worker(row.dpu), DriverKind::Redfish, row.address.clone())
        })
    }

    /// Gives a DPU a controller, or changes what is known of it. Nothing is asked of the controller for this.
    ///
    /// # Errors
    /// [`EngineError::BadBmc`] where it cannot be one, [`DpuError`], or what the store says.
    pub async fn set_dpu_controller(
        &self,
        actor: Actor,
        reference: &str,
        change: ControllerChange,
    ) -> Result<Known, EngineError> {
        let _turn = self.0.dpus.turn.lock().await;
        let dpu = self.dpu(reference)?.dpu;
        self.check_no_job(dpu.id)?;
        let before = self.dpu_controller(dpu.id);
        let row = self.changed_controller(&dpu, before.as_ref(), change)?;
        self.0.power.check(&self.dpu_target(&row)?).map_err(PowerError::from)?;
        let message = format!("its BMC is {} as {}", row.address, row.user);
        self.put_dpu_controller(&actor, &dpu, row.clone(), "dpu.controller", message).await?;
        self.start_dpu_worker(&row, true)?;
        self.dpu(&dpu.id.to_string())
    }

    fn changed_controller(
        &self,
        dpu: &Dpu,
        before: Option<&ControllerRow>,
        change: ControllerChange,
    ) -> Result<ControllerRow, EngineError> {
        let ControllerChange { address, port, user, password } = change;
        let moved = |address: &String| before.is_none_or(|before| before.address != *address);
        let moved = address.as_ref().is_some_and(moved);
        let keeps = before.filter(|_| !moved);
        let address = address.or(before.map(|row| row.address.clone())).unwrap_or_default().trim().to_owned();
        let user = user.or(before.map(|row| row.user.clone())).unwrap_or_default();
        let is_word = |text: &str| {
            !text.is_empty()
                && text.len() <= TEXT_MAX
                && !text.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        if !is_word(&address) || !is_word(&user) {
            return Err(bad(
                "address or user name is missing, too long or has white space in it",
                "give both",
            ));
        }
        let password = match &password {
            Some(password) if password.0.len() > TEXT_MAX => {
                return Err(bad("the password is too long", "choose a shorter one"));
            }
            Some(password) => self.0.vault.seal(place(dpu.id), password)?,
            // A password is for the controller that it was given for: another address must not be sent it.
            None => keeps
                .map(|row| row.password.clone())
                .ok_or_else(|| bad("the password is missing (a new address needs it anew)", "give it"))?,
        };
        Ok(ControllerRow {
            dpu: dpu.id,
            address,
            port: port.or(keeps.and_then(|row| row.port)),
            user,
            password,
            certificate: keeps.and_then(|row| row.certificate.clone()),
            changed: now(),
            card: keeps.and_then(|row| row.card.clone()),
            looked: keeps.and_then(|row| row.looked),
            paired: keeps.map(|row| row.paired.clone()).unwrap_or_default(),
            doubt: None,
        })
    }

    /// Forgets the controller of a DPU with its account.
    ///
    /// # Errors
    /// [`DpuError`], or what the store says.
    pub async fn remove_dpu_controller(&self, actor: Actor, reference: &str) -> Result<(), EngineError> {
        let _turn = self.0.dpus.turn.lock().await;
        let dpu = self.dpu(reference)?.dpu;
        self.check_no_job(dpu.id)?;
        if self.dpu_controller(dpu.id).is_none() {
            return Err(DpuError::NoController.into());
        }
        let (id, event) =
            (dpu.id, line(&actor, &dpu, "dpu.controller", Severity::Info, "its BMC was forgotten"));
        let stored = event.clone();
        let write = move |db: &_| {
            rows::remove_controller(db, id)?;
            insert_event(db, &stored)
        };
        let number = self.store().write(write).await?;
        self.dpu_controller_gone(id);
        self.announce_event(number, event);
        self.announce(Change::Dpu(id));
        Ok(())
    }

    /// The DPU is forgotten, and its controller with it.
    pub(super) fn dpu_controller_gone(&self, id: DpuId) {
        self.0.power.remove(worker(id));
        lock(&self.0.health).remove(&worker(id));
        lock(&self.0.dpus.controllers).remove(&id);
    }

    /// Accepts the certificate that the controller of a DPU shows at the next call.
    ///
    /// # Errors
    /// [`DpuError`], or what the store says.
    pub async fn trust_dpu_controller(&self, actor: Actor, reference: &str) -> Result<Known, EngineError> {
        let _turn = self.0.dpus.turn.lock().await;
        let dpu = self.dpu(reference)?.dpu;
        let mut row = self.dpu_controller(dpu.id).ok_or(DpuError::NoController)?;
        row.certificate = None;
        let message = "the next certificate of its BMC is accepted".to_owned();
        self.put_dpu_controller(&actor, &dpu, row.clone(), "dpu.trusted", message).await?;
        self.start_dpu_worker(&row, true)?;
        self.dpu(&dpu.id.to_string())
    }

    async fn put_dpu_controller(
        &self,
        actor: &Actor,
        dpu: &Dpu,
        row: ControllerRow,
        kind: &str,
        message: String,
    ) -> Result<(), EngineError> {
        let event = line(actor, dpu, kind, Severity::Info, &message);
        let (stored, noted) = (row.clone(), event.clone());
        let write = move |db: &_| {
            rows::put_controller(db, &stored)?;
            insert_event(db, &noted)
        };
        let number = self.store().write(write).await?;
        lock(&self.0.dpus.controllers).insert(row.dpu, row);
        self.announce_event(number, event);
        self.announce(Change::Dpu(dpu.id));
        Ok(())
    }

    /// What the worker of a DPU's controller found out.
    pub(in crate::engine) async fn told_of_dpu(
        &self,
        id: DpuId,
        address: &str,
        news: News,
    ) -> Result<(), EngineError> {
        let Ok(known) = self.dpu(&id.to_string()) else { return Ok(()) };
        match news {
            News::Pinned(certificate) => {
                let mut row = self.dpu_controller(id).ok_or(DpuError::NoController)?;
                let message =
                    format!("the certificate of its BMC {address} is pinned: SHA-256 {certificate}");
                row.certificate.get_or_insert(certificate);
                self.put_dpu_controller(&Actor::Server, &known.dpu, row, "dpu.pinned", message).await
            }
            News::Health(read) => {
                let (_, told) = self.judge_health(worker(id), address, &read);
                self.announce(Change::Dpu(id));
                match told {
                    Some((kind, severity, message)) => {
                        self.record(line(&Actor::Server, &known.dpu, kind, severity, &message)).await
                    }
                    None => Ok(()),
                }
            }
            News::Status(_) | News::HostKey(_) | News::Reset(_) | News::Drift(_) => {
                self.announce(Change::Dpu(id));
                Ok(())
            }
            news => {
                let (kind, severity, message) = crate::engine::bmcs::sentence(address, &news);
                let event = line(&Actor::Server, &known.dpu, kind, severity, &message);
                self.record(event).await
            }
        }
    }

    /// Reads what the DPU is by its controller, and finds its host.
    ///
    /// # Errors
    /// [`DpuError::Doubt`] where no machine or several may be its host, [`DpuError::Serial`] where the agent's serial number is another
    /// one, and what the controller says.
    pub async fn enrol_dpu(&self, actor: Actor, reference: &str) -> Result<Known, EngineError> {
        let id = self.dpu(reference)?.dpu.id;
        let card = self.read_card(id).await?;
        let _turn = self.0.dpus.turn.lock().await;
        let dpu = self.dpu(&id.to_string())?.dpu;
        let said = [dpu.facts.serial.as_ref(), card.serial.as_ref()];
        let found = match said {
            [Some(agent), Some(card)] if agent != card => {
                Err(DpuError::Serial { agent: agent.clone(), card: card.clone() })
            }
            _ => self.host_of_card(&card, &dpu).await.map_err(DpuError::Doubt),
        };
        let mut row = self.dpu_controller(id).ok_or(DpuError::NoController)?;
        (row.card, row.looked) = (Some(card), Some(now()));
        match found {
            Ok(Paired { node, by }) => {
                let name = self.node_name(node).unwrap_or_default();
                let why: Vec<String> = by.iter().map(ToString::to_string).collect();
                (row.paired, row.doubt) = (by, None);
                let message = format!("read by its BMC; its host is {name}: {}", why.join(", "));
                self.put_dpu_controller(&actor, &dpu, row, "dpu.enrolled", message).await?;
                if dpu.node != Some(node) {
                    let next = Dpu { node: Some(node), unpaired: false, ..dpu };
                    self.put_dpu_with(next, None, Disks::None).await?;
                }
            }
            Err(error) => {
                (row.paired, row.doubt) = (Vec::new(), Some(error.to_string()));
                let message = format!("read by its BMC; {error}");
                self.put_dpu_controller(&actor, &dpu, row, "dpu.enrolled", message).await?;
                return Err(error.into());
            }
        }
        self.compose(id).await?;
        self.dpu(&id.to_string())
    }

    async fn host_of_card(&self, card: &Card, dpu: &Dpu) -> Result<Paired, Doubt> {
        let mut all = Vec::new();
        for node in self.0.nodes.all() {
            let inventory = self.readable_inventory(node.id).await;
            all.push((node, inventory));
        }
        let taken = |node: NodeId| {
            let known = lock(&self.0.dpus.all);
            known.values().any(|other| other.dpu.id != dpu.id && other.dpu.node == Some(node))
        };
        let hosts: Vec<Host<'_>> = all
            .iter()
            .map(|(node, inventory)| Host {
                node: node.id,
                name: &node.name,
                inventory: inventory.as_deref(),
                taken: taken(node.id),
            })
            .collect();
        pair(card, &dpu.name, &hosts, dpu.node)
    }

    /// The DPU as its controller shows it now; it is kept.
    ///
    /// # Errors
    /// What the controller says.
    pub(super) async fn read_card(&self, id: DpuId) -> Result<Card, EngineError> {
        if self.dpu_controller(id).is_none() {
            return Err(DpuError::NoController.into());
        }
        let card = match self.0.power.read(worker(id), Read::Card).await? {
            Reply::Card(card) => card_of(&card),
            other => return Err(PowerError::wrong_reply(&other).into()),
        };
        if let Some(row) = lock(&self.0.dpus.controllers).get_mut(&id) {
            (row.card, row.looked) = (Some(card.clone()), Some(now()));
        }
        Ok(card)
    }
}

fn card_of(card: &Arc<bmc::Card>) -> Card {
    let version = |item: &FirmwareItem| Version {
        item: item.id.rsplit('/').next().unwrap_or_default().to_owned(),
        version: item.version.clone(),
    };
    Card {
        model: card.model.clone(),
        serial: card.serial.clone(),
        part_number: card.part_number.clone(),
        base_mac: card.base_mac,
        oob_mac: card.oob_mac,
        functions: card.functions.clone(),
        mode: card.mode.map(|mode| match mode {
            bmc::CardMode::Dpu => Mode::Dpu,
            bmc::CardMode::Nic => Mode::Nic,
        }),
        privilege: card.privilege.map(|privilege| match privilege {
            bmc::HostPrivilege::Privileged => Privilege::Privileged,
            bmc::HostPrivilege::Restricted => Privilege::Restricted,
        }),
        boot: card.boot.clone(),
        firmware: card.firmware.iter().map(version).collect(),
    }
}
