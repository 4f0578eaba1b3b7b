//! Management controllers of nodes: what is stored of them, and the workers that follow from it.
//!
//! Passwords go in and never come out: what the API shows says only whether there is one.

use bmc::{Credentials, DriverKind, PowerState, Secret};
use boot_server_core::node::{Event, Refused, Severity};
use protocol::NodeId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Actor, Change, Engine, EngineError, lock, now};
use crate::power::{self, News, Options, PowerError, Reply, Status, Target, Told};
use crate::secret;
use crate::store::bmcs::{self, BmcRow, Seen};
use crate::store::sensors;
use crate::vault::Place;
use crate::view::{BmcView, TroubleView};

/// Longest address, user name and password, in octets.
const TEXT_MAX: usize = 255;
/// Octets of a password that IPMI 2.0 takes (section 13.31).
const IPMI_PASSWORD_MAX: usize = 20;
/// Characters of a password that Billet makes: 96 bits, and short enough for every controller (16 octets).
const PASSWORD_CHARS: usize = 16;

/// A controller as somebody names it. What is left open stays as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BmcChange {
    /// By which driver; needed where the node has none yet.
    pub driver: Option<DriverKind>,
    /// Name or address.
    pub address: Option<String>,
    /// Port; `Some(None)` for the protocol's own.
    pub port: Option<Option<u16>>,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// K_g of IPMI: a text of at most 20 octets, or `0x` and hexadecimal digits; an empty one for none.
    pub kg: Option<Secret>,
    /// What else the driver is told.
    pub options: Option<Options>,
}

fn place(node: NodeId) -> Place {
    Place { row: node.0, column: "bmcs.password" }
}

fn next_place(node: NodeId) -> Place {
    Place { row: node.0, column: "bmcs.next_password" }
}

fn kg_place(node: NodeId) -> Place {
    Place { row: node.0, column: "bmcs.kg" }
}

fn bad(what: impl Into<String>, hint: &'static str) -> EngineError {
    EngineError::BadBmc { what: what.into(), hint }
}

impl Engine {
    /// The workers.
    pub fn power(&self) -> &power::Power {
        &self.0.power
    }

    /// Starts a worker for every controller that is known.
    pub(super) fn start_workers(&self) {
        let known: Vec<BmcRow> = lock(&self.0.bmcs).values().cloned().collect();
        for row in known {
            self.start_worker(&row, false);
            if row.next_password.is_some() {
                let engine = self.clone();
                tokio::spawn(async move { engine.settle_rotation(row.node).await });
            }
        }
    }

    /// Takes in what workers find out, and ends them with `stop`.
    pub async fn run_power(&self, stop: CancellationToken) {
        let Some(mut news) = lock(&self.0.news).take() else { return };
        self.settle_accounts().await;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                told = news.recv() => match told {
                    Some(told) => self.told(told).await,
                    None => break,
                },
            }
        }
        // Workers that still tell something are not waited for.
        drop(news);
        self.0.power.stop().await;
    }

    /// The controller of a node as it is shown; `None` where it has none.
    pub fn bmc(&self, node: NodeId) -> Option<BmcView> {
        let row = lock(&self.0.bmcs).get(&node).cloned()?;
        let status = self.0.power.status(node);
        let name = self.0.nodes.get(node).map(|n| n.name.clone()).unwrap_or_default();
        Some(view(name, &row, status))
    }

    /// All controllers, by the name of their node.
    pub fn bmcs(&self) -> Vec<BmcView> {
        let nodes: Vec<NodeId> = lock(&self.0.bmcs).keys().copied().collect();
        let mut all: Vec<_> = nodes.into_iter().filter_map(|node| self.bmc(node)).collect();
        all.sort_by(|a, b| a.node_name.cmp(&b.node_name));
        all
    }

    /// Power of a node as it was last read.
    pub fn power_of(&self, node: NodeId) -> Option<PowerState> {
        match self.0.power.status(node) {
            Some(status) => status.power,
            None => lock(&self.0.bmcs).get(&node)?.seen.power,
        }
    }

    /// Gives a node a controller, or changes what is known of it. Nothing is asked of the controller for this.
    ///
    /// # Errors
    /// [`EngineError::BadBmc`] where it cannot be one, or what the store says.
    pub async fn set_bmc(
        &self,
        node: NodeId,
        actor: Actor,
        change: BmcChange,
    ) -> Result<BmcView, EngineError> {
        self.check_undisturbed(node)?;
        let _turn = self.0.bmc_turn.lock().await;
        let before = lock(&self.0.bmcs).get(&node).cloned();
        let row = self.changed_row(node, before.as_ref(), change)?;
        self.check_target(&row)?;
        let stored = row.clone();
        self.0.store.write(move |db| bmcs::put(db, &stored)).await?;
        let message = format!(
            "BMC {} by {}{}",
            if row.address.is_empty() { "without an address" } else { &row.address },
            row.driver,
            row.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default()
        );
        lock(&self.0.bmcs).insert(node, row.clone());
        self.start_worker(&row, true);
        let kind = if before.is_some() { "bmc.changed" } else { "bmc.added" };
        self.note(actor, Some(node), kind, Severity::Info, message).await?;
        self.announce(Change::Node(node));
        self.bmc(node).ok_or_else(|| PowerError::NoBmc.into())
    }

    /// Whether a change makes the server connect to a place that it does not know from elsewhere: an address, a port or a way
    /// that the node's controller does not have, and that the agent did not find in the machine.
    pub async fn names_a_place(&self, node: NodeId, change: &BmcChange) -> bool {
        let known = lock(&self.0.bmcs).get(&node).cloned();
        let address = change.address.as_deref().map(str::trim).filter(|address| !address.is_empty());
        let inventory = self.readable_inventory(node).await;
        let found = inventory.and_then(|inventory| inventory.bmc.as_ref()?.address).map(|a| a.to_string());
        let at = |place: Option<&str>| address.is_none() || address == place;
        let port = change.port.flatten();
        let as_known = known.as_ref().is_some_and(|row| {
            at(Some(&row.address))
                && change.port.is_none_or(|port| port == row.port)
                && change.options.as_ref().is_none_or(|options| *options == row.options)
        });
        let as_found = address.is_some()
            && at(found.as_deref())
            && port.is_none()
            && change.options.as_ref().is_none_or(|options| *options == Options::default());
        // A person at the machine is no place.
        let nowhere = address.is_none() && port.is_none() && known.is_none();
        !(as_known || as_found || nowhere)
    }

    /// Forgets the controller of a node.
    ///
    /// # Errors
    /// [`PowerError::NoBmc`], or what the store says.
    pub async fn remove_bmc(&self, node: NodeId, actor: Actor) -> Result<(), EngineError> {
        self.check_undisturbed(node)?;
        let _turn = self.0.bmc_turn.lock().await;
        if !self.0.store.write(move |db| bmcs::remove(db, node)).await? {
            return Err(PowerError::NoBmc.into());
        }
        self.bmc_gone(node);
        self.0.store.write(move |db| sensors::forget_health(db, node)).await?;
        self.note(actor, Some(node), "bmc.removed", Severity::Info, "its BMC was forgotten").await?;
        self.announce(Change::Node(node));
        Ok(())
    }

    /// The node is forgotten, and its controller with it.
    pub(super) fn bmc_gone(&self, node: NodeId) {
        self.0.power.remove(node);
        lock(&self.0.bmcs).remove(&node);
        lock(&self.0.health).remove(&node);
        lock(&self.0.sensors).remove(&node);
    }

    /// Accepts the certificate that the controller shows now: at the next call it is pinned in place of the old one.
    ///
    /// # Errors
    /// [`PowerError::NoBmc`], or what the store says.
    pub async fn trust_bmc(&self, node: NodeId, actor: Actor) -> Result<BmcView, EngineError> {
        let _turn = self.0.bmc_turn.lock().await;
        let mut row = lock(&self.0.bmcs).get(&node).cloned().ok_or(PowerError::NoBmc)?;
        let old = row.certificate.take();
        row.host_key = None;
        row.seen.error = None;
        let stored = row.clone();
        self.0.store.write(move |db| bmcs::put(db, &stored)).await?;
        lock(&self.0.bmcs).insert(node, row.clone());
        self.start_worker(&row, true);
        let message = format!(
            "the next certificate and SSH key of the BMC are accepted{}",
            old.map(|old| format!(", in place of SHA-256 {old}")).unwrap_or_default()
        );
        self.note(actor, Some(node), "bmc.trusted", Severity::Warning, message).await?;
        self.announce(Change::Node(node));
        self.bmc(node).ok_or_else(|| PowerError::NoBmc.into())
    }

    /// Gives the account a random password. The new one is stored before the controller hears of it, so that a crash or
    /// a lost answer loses nothing: then both are tried.
    ///
    /// # Errors
    /// What the controller says, or the store.
    pub async fn rotate_bmc(&self, node: NodeId, actor: Actor) -> Result<BmcView, EngineError> {
        self.check_undisturbed(node)?;
        let turn = self.0.bmc_turn.lock().await;
        let mut row = lock(&self.0.bmcs).get(&node).cloned().ok_or(PowerError::NoBmc)?;
        if row.user.is_none() || row.next_password.is_some() {
            return Err(bad(
                "this BMC has no account, or its last rotation is not settled",
                "give user name and password (`billet bmc set`)",
            ));
        }
        let password = random_password()?;
        row.next_password = Some(self.0.vault.seal(next_place(node), &password)?);
        let stored = row.clone();
        self.0.store.write(move |db| bmcs::put(db, &stored)).await?;
        lock(&self.0.bmcs).insert(node, row);
        // The controller is waited for without holding up others.
        drop(turn);
        let changed = self.0.power.change(node, power::Change::Password(password)).await;
        match changed {
            Ok(_) => self.end_rotation(node, true).await?,
            Err(error) if error.is_transient() => {
                // It may have been done.
                self.settle_rotation(node).await;
                if lock(&self.0.bmcs).get(&node).is_some_and(|row| row.next_password.is_some()) {
                    return Err(error.into());
                }
            }
            Err(error) => {
                self.end_rotation(node, false).await?;
                return Err(error.into());
            }
        }
        let message = "the password of the BMC's account was changed to a random one";
        self.note(actor, Some(node), "bmc.rotated", Severity::Info, message).await?;
        self.bmc(node).ok_or_else(|| PowerError::NoBmc.into())
    }

    /// Finds out which of two passwords is in force: one login with the old one, then the new one stays.
    async fn settle_rotation(&self, node: NodeId) {
        let taken = match self.0.power.power_state(node).await {
            Ok(_) => false,
            Err(error) if error.kind() == Some(bmc::ErrorKind::Login) => true,
            Err(error) => {
                tracing::warn!(%node, %error, "which password of the BMC is in force is not known yet");
                return;
            }
        };
        if let Err(error) = self.end_rotation(node, taken).await {
            tracing::error!(%node, %error, "a rotated password was not stored");
        }
    }

    async fn end_rotation(&self, node: NodeId, taken: bool) -> Result<(), EngineError> {
        let _turn = self.0.bmc_turn.lock().await;
        let mut row = lock(&self.0.bmcs).get(&node).cloned().ok_or(PowerError::NoBmc)?;
        let Some(next) = row.next_password.take() else { return Ok(()) };
        if taken {
            let password = self.0.vault.unseal(next_place(node), &next)?;
            row.password = Some(self.0.vault.seal(place(node), &password)?);
        }
        let stored = row.clone();
        self.0.store.write(move |db| bmcs::put(db, &stored)).await?;
        lock(&self.0.bmcs).insert(node, row.clone());
        if taken {
            self.start_worker(&row, true);
        }
        Ok(())
    }

    pub(super) fn changed_row(
        &self,
        node: NodeId,
        before: Option<&BmcRow>,
        change: BmcChange,
    ) -> Result<BmcRow, EngineError> {
        let BmcChange { driver, address, port, user, password, kg, options } = change;
        let driver = driver
            .or(before.map(|b| b.driver))
            .ok_or_else(|| bad("no driver is named", "give one: redfish, ipmi, wol or manual"))?;
        let moved = address.as_ref().is_some_and(|a| before.is_none_or(|b| b.address != *a));
        let address = address.or(before.map(|b| b.address.clone())).unwrap_or_default().trim().to_owned();
        let user = user.or(before.and_then(|b| b.user.clone())).filter(|user| !user.is_empty());
        // A password is for the machine that it was given for: another address must not be sent it.
        let keeps = before.filter(|b| !moved && b.driver == driver);
        let sealed = match &password {
            Some(password) => Some(self.0.vault.seal(place(node), password)?),
            None => keeps.and_then(|b| b.password.clone()),
        };
        let kg = match kg {
            Some(kg) if kg.0.is_empty() => None,
            Some(kg) if power::kg(&kg).is_err() => {
                let why = power::kg(&kg).err().unwrap_or_default();
                return Err(bad(format!("this is no K_g: {why}"), "correct it"));
            }
            Some(kg) => Some(self.0.vault.seal(kg_place(node), &kg)?),
            None => keeps.and_then(|b| b.kg.clone()),
        };
        let limit = if driver == DriverKind::Ipmi { IPMI_PASSWORD_MAX } else { TEXT_MAX };
        if password.as_ref().is_some_and(|p| p.0.len() > limit || p.0.contains('\0')) {
            return Err(bad(
                format!("a password of {driver} has at most {limit} octets"),
                "choose a shorter one",
            ));
        }
        let texts = [&address, user.as_ref().unwrap_or(&address)];
        if texts.iter().any(|t| t.len() > TEXT_MAX || t.chars().any(|c| c.is_control() || c.is_whitespace()))
        {
            return Err(bad("address or user name is too long or has white space in it", "correct it"));
        }
        let needs_address = matches!(driver, DriverKind::Redfish | DriverKind::Ipmi | DriverKind::Fake);
        if needs_address && address.is_empty() {
            return Err(bad("no address is given", "give the BMC's name or address"));
        }
        if needs_address && driver != DriverKind::Fake && (user.is_none() || sealed.is_none()) {
            return Err(bad(
                "user name or password is missing (a new address or driver needs the password anew)",
                "give both",
            ));
        }
        Ok(BmcRow {
            node,
            driver,
            port: port.unwrap_or(keeps.and_then(|b| b.port)),
            user,
            password: sealed,
            next_password: None,
            certificate: keeps.and_then(|b| b.certificate.clone()),
            host_key: keeps.and_then(|b| b.host_key.clone()),
            kg,
            options: options.or(before.map(|b| b.options.clone())).unwrap_or_default(),
            changed: now(),
            seen: keeps.map(|b| Seen { error: None, failures: 0, ..b.seen.clone() }).unwrap_or_default(),
            reset_at: keeps.and_then(|b| b.reset_at),
            address,
        })
    }

    pub(super) fn check_target(&self, row: &BmcRow) -> Result<(), EngineError> {
        self.0.power.check(&self.target(row)?).map_err(|error| PowerError::from(error).into())
    }

    fn target(&self, row: &BmcRow) -> Result<Target, EngineError> {
        let password = row.password.as_ref().map(|p| self.0.vault.unseal(place(row.node), p)).transpose()?;
        let credentials =
            row.user.clone().zip(password).map(|(user, password)| Credentials { user, password });
        let macs = self.0.nodes.get(row.node).map(|node| node.identity.macs.iter().copied().collect());
        Ok(Target {
            node: row.node,
            driver: row.driver,
            address: row.address.clone(),
            port: row.port,
            credentials,
            certificate: row.certificate.clone(),
            host_key: row.host_key.clone(),
            kg: row.kg.as_ref().map(|kg| self.0.vault.unseal(kg_place(row.node), kg)).transpose()?,
            options: row.options.clone(),
            macs: macs.unwrap_or_default(),
            power: row.seen.power,
            reset_at: row.reset_at,
            events: self.event_destination(row),
            now: false,
        })
    }

    /// A person is the power switch of a node with the driver `manual`: that needs no worker.
    fn start_worker(&self, row: &BmcRow, now: bool) {
        if row.driver == DriverKind::Manual {
            self.0.power.remove(row.node);
            return;
        }
        let started = self
            .target(row)
            .map(|target| Target { now, ..target })
            .and_then(|target| self.0.power.set(target).map_err(|error| PowerError::from(error).into()));
        if let Err(error) = started {
            self.0.power.remove(row.node);
            tracing::error!(node = %row.node, %error, "a BMC cannot be used: give its account anew (`billet bmc set`)");
            if let Some(row) = lock(&self.0.bmcs).get_mut(&row.node) {
                row.seen.error = Some(error.to_string());
            }
        }
    }

    async fn told(&self, told: Told) {
        let Told { node, address, news } = told;
        if let Some(dpu) = self.dpu_of_worker(node) {
            if let Err(error) = self.told_of_dpu(dpu, &address, news).await {
                tracing::error!(%dpu, %error, "news of a DPU's BMC were not stored");
            }
            return;
        }
        let noted = match news {
            News::Status(status) => self.note_status(node, status).await,
            News::Health(read) => self.note_health(node, &address, read).await,
            News::Pinned(certificate) => self.note_pinned(node, &address, certificate).await,
            News::HostKey(key) => self.note_host_key(node, &address, key).await,
            News::Reset(_) => {
                let at = now();
                if let Some(row) = lock(&self.0.bmcs).get_mut(&node) {
                    row.reset_at = Some(at);
                }
                self.0.store.write(move |db| bmcs::note_reset(db, node, at)).await.map_err(EngineError::from)
            }
            news => {
                let (kind, severity, message) = sentence(&address, &news);
                self.note(Actor::Server, Some(node), kind, severity, message).await
            }
        };
        if let Err(error) = noted {
            tracing::error!(%node, %error, "news of a BMC were not stored");
        }
        self.announce(Change::Node(node));
    }

    async fn note_status(&self, node: NodeId, status: Status) -> Result<(), EngineError> {
        let seen = Seen {
            power: status.power,
            last_seen: status.last_seen,
            failures: status.failures,
            error: status.error.map(|trouble| trouble.message),
        };
        if let Some(row) = lock(&self.0.bmcs).get_mut(&node) {
            row.seen = seen.clone();
        }
        self.note_power(node, status.power).await?;
        Ok(self.0.store.write(move |db| bmcs::note_seen(db, node, &seen)).await?)
    }

    /// Power as it was read: an agent that was known does not run on a machine that is off.
    pub(super) async fn note_power(&self, id: NodeId, power: Option<PowerState>) -> Result<(), EngineError> {
        let agent = self.0.nodes.get(id).is_some_and(|node| node.link.session.is_some());
        if power == Some(PowerState::Off) && agent {
            self.apply(id, Actor::Server, Event::PoweredOff).await?;
        }
        Ok(())
    }

    async fn note_pinned(&self, node: NodeId, address: &str, certificate: String) -> Result<(), EngineError> {
        if let Some(row) = lock(&self.0.bmcs).get_mut(&node) {
            row.certificate.get_or_insert_with(|| certificate.clone());
        }
        let stored = certificate.clone();
        self.0.store.write(move |db| bmcs::pin(db, node, &stored)).await?;
        let message = format!("the certificate of the BMC {address} is pinned: SHA-256 {certificate}");
        self.note(Actor::Server, Some(node), "bmc.pinned", Severity::Info, message).await
    }

    async fn note_host_key(&self, node: NodeId, address: &str, key: String) -> Result<(), EngineError> {
        if let Some(row) = lock(&self.0.bmcs).get_mut(&node) {
            row.host_key.get_or_insert_with(|| key.clone());
        }
        let stored = key.clone();
        self.0.store.write(move |db| bmcs::pin_host_key(db, node, &stored)).await?;
        let message = format!("the SSH key of the BMC {address} is pinned: {key}");
        self.note(Actor::Server, Some(node), "bmc.pinned", Severity::Info, message).await
    }

    /// Asks the controller of a node to read something.
    ///
    /// # Errors
    /// As [`power::Power::read`].
    pub async fn bmc_read(&self, node: NodeId, read: power::Read) -> Result<Reply, EngineError> {
        Ok(self.0.power.read(node, read).await?)
    }

    /// A machine is not switched, and its controller not restarted, while its firmware is written.
    fn check_change(&self, node: NodeId, change: &power::Change) -> Result<(), EngineError> {
        let harmless = matches!(
            change,
            power::Change::Identify(_)
                | power::Change::ClearLog
                | power::Change::InsertMedia(_)
                | power::Change::EjectMedia
        );
        if harmless {
            return Ok(());
        }
        if !matches!(change, power::Change::Power(bmc::PowerAction::On)) {
            self.check_approved(node)?;
        }
        self.check_undisturbed(node)
    }

    /// While a servicing job goes on its worker stays as it is: it may hold an image that is being sent.
    fn check_undisturbed(&self, node: NodeId) -> Result<(), EngineError> {
        if self.0.nodes.get(node).is_none_or(|node| node.state.service().is_none()) {
            return Ok(());
        }
        Err(EngineError::Refused(Refused::Service {
            why: "firmware or settings of this machine are being changed",
            hint: "wait for the end of that job, or abort it",
        }))
    }

    /// Asks the controller of a node for a change, and notes who did.
    ///
    /// # Errors
    /// As [`power::Power::change`].
    pub async fn bmc_change(
        &self,
        node: NodeId,
        actor: Actor,
        change: power::Change,
        (kind, message): (&str, String),
    ) -> Result<Reply, EngineError> {
        self.check_change(node, &change)?;
        let reply = self.0.power.change(node, change).await?;
        self.note(actor, Some(node), kind, Severity::Info, message).await?;
        self.announce(Change::Node(node));
        Ok(reply)
    }
}

pub(super) fn sentence(address: &str, news: &News) -> (&'static str, Severity, String) {
    match news {
        News::Lost(trouble) => (
            "bmc.unreachable",
            Severity::Warning,
            format!("the BMC {address} is left alone for a while: {} ({})", trouble.message, trouble.hint),
        ),
        News::Back => ("bmc.reachable", Severity::Info, format!("the BMC {address} answers again")),
        News::Login(trouble) => {
            ("bmc.login", Severity::Error, format!("{address}: {} ({})", trouble.message, trouble.hint))
        }
        News::Certificate(trouble) => (
            "bmc.certificate",
            Severity::Error,
            format!("{address}: {}; nothing is sent to it any more ({})", trouble.message, trouble.hint),
        ),
        News::Drift(on) => (
            "power.drift",
            Severity::Warning,
            format!(
                "the machine was switched {}, and not by Billet (BMC {address})",
                if *on { "on" } else { "off" }
            ),
        ),
        News::Status(_) | News::Pinned(_) | News::HostKey(_) | News::Reset(_) | News::Health(_) => {
            ("bmc.news", Severity::Info, String::new())
        }
    }
}

fn view(node_name: String, row: &BmcRow, status: Option<Status>) -> BmcView {
    let stored = Status {
        power: row.seen.power,
        last_seen: row.seen.last_seen,
        failures: row.seen.failures,
        error: None,
        wait_until: None,
        events: None,
    };
    let told = row.seen.error.clone().map(|message| TroubleView { kind: None, message, hint: String::new() });
    // A worker that has not asked yet knows no more than what is stored.
    let fresh = status.filter(|s| s.last_seen.is_some() || s.failures > 0);
    let trouble = match &fresh {
        Some(status) => status.error.as_ref().map(|trouble| TroubleView {
            kind: Some(trouble.kind),
            message: trouble.message.clone(),
            hint: trouble.hint.to_owned(),
        }),
        None => told,
    };
    let status = fresh.unwrap_or(stored);
    BmcView {
        node: row.node,
        node_name,
        driver: row.driver,
        address: row.address.clone(),
        port: row.port,
        user: row.user.clone(),
        has_password: row.password.is_some(),
        has_kg: row.kg.is_some(),
        certificate: row.certificate.clone(),
        host_key: row.host_key.clone(),
        options: row.options.clone(),
        power: status.power,
        last_seen: status.last_seen,
        failures: status.failures,
        trouble,
        wait_until: status.wait_until,
        events: status.events.map(|events| events.err().unwrap_or_else(|| "subscribed".to_owned())),
        reset_at: row.reset_at,
        changed: row.changed,
    }
}

/// Upper and lower case, a digit and a sign are in it: many controllers insist.
pub(super) fn random_password() -> Result<Secret, EngineError> {
    loop {
        let text: String = secret::token()?.chars().take(PASSWORD_CHARS).collect();
        let has = |wanted: fn(char) -> bool| text.chars().any(wanted);
        if has(|c| c.is_ascii_uppercase())
            && has(|c| c.is_ascii_lowercase())
            && has(|c| c.is_ascii_digit())
            && has(|c| matches!(c, '-' | '_'))
        {
            return Ok(Secret(text));
        }
    }
}

/// The channel by which workers tell what they found out.
pub(super) fn channel() -> (mpsc::Sender<Told>, mpsc::Receiver<Told>) {
    mpsc::channel(power::NEWS_MAX)
}
