//! Redfish (DMTF DSP0266) over HTTPS: a thin client of our own, and the verbs of [`Bmc`] on it.
//!
//! ```text
//! trait Bmc ─▶ Call (one deadline) ─▶ verbs: power, boot, media, … ─▶ Call::get/patch/post ─▶ Client (login) ─▶ Wire (TLS, HTTP)
//!                                        └─ Tree: where things are, and the profile of quirks
//! ```
//!
//! What a service says of itself is read there: links, targets of actions, allowable values. What makers do differently
//! and do not say is data (`quirks/*.toml`). Nothing that a controller sends makes the driver talk to another origin.

mod account;
mod address;
mod bios;
mod boot;
mod call;
mod card;
mod client;
mod components;
mod dissect;
mod events;
mod firmware;
mod identity;
mod json;
mod light;
mod limits;
mod log;
mod media;
mod power;
mod probe;
mod quirks;
mod readings;
mod refusal;
mod secure_boot;
mod serial;
mod shell;
mod task;
mod tls;
mod tree;
mod update;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

pub use address::Transport;
pub use dissect::{Dissected, dissect};
pub use probe::{Probe, probe};
pub use tls::{ParsePinError, Pin};

use crate::{
    BiosAttributes, Bmc, BmcError, BootOverride, Card, CardChange, Component, Console, Credentials,
    DriverKind, FirmwareItem, Identity, LogCursor, LogEntry, Media, PowerAction, PowerState, Reading,
    ResetKeys, Secret, SecureBoot, Task, Update, ipmi,
};
use address::Origin;
use call::Call;
use client::Client;
use serial::Serial;
use shell::KnownKey;
use tls::Trust;
use tree::{Root, Tree};
use update::Upload;
use wire::Wire;

/// What the driver is told of a controller.
#[derive(Debug, Clone)]
pub struct Options {
    /// Host name or IP address, with a port where it is not 443; or an `https://` URL without a path.
    pub address: String,
    /// Account.
    pub credentials: Credentials,
    /// The certificate that it must show. Where `None`, the first one is taken and no other one after it; see
    /// [`Redfish::certificate`].
    pub pin: Option<Pin>,
    /// Fingerprint (`SHA256:…`) of the SSH key that it must show for its serial console; else the first one is taken.
    pub host_key: Option<String>,
    /// K_g, where its serial console is by IPMI and it has one.
    pub kg: Option<Vec<u8>>,
    /// Whether plain HTTP may be spoken.
    pub transport: Transport,
    /// Id of the system, where a controller has several; `None` takes the first that is a machine.
    pub system: Option<String>,
}

impl Options {
    /// A controller of which nothing else is known: what it shows first is what counts.
    pub fn new(address: impl Into<String>, credentials: Credentials, transport: Transport) -> Self {
        Self {
            address: address.into(),
            credentials,
            pin: None,
            host_key: None,
            kg: None,
            transport,
            system: None,
        }
    }
}

/// The driver of one controller.
pub struct Redfish {
    client: Client,
    host_key: KnownKey,
    kg: Option<Vec<u8>>,
    system: Option<String>,
    root: Mutex<Option<Arc<Root>>>,
    tree: Mutex<Option<Arc<Tree>>>,
    upload: Mutex<Option<Upload>>,
}

impl Redfish {
    /// Makes the driver. Nothing is sent before the first call.
    ///
    /// # Errors
    /// An address that is none.
    pub fn new(options: Options) -> Result<Self, BmcError> {
        let origin = Origin::parse(&options.address, options.transport)?;
        let wire = Wire::new(origin, Trust::new(options.pin))?;
        let client = Client::new(wire, options.credentials);
        Ok(Self {
            client,
            host_key: KnownKey::new(options.host_key),
            kg: options.kg,
            system: options.system,
            root: Mutex::default(),
            tree: Mutex::default(),
            upload: Mutex::default(),
        })
    }

    /// The certificate that is trusted: the pinned one, else the one that was seen first. `None` before the first
    /// call, and with plain HTTP.
    pub fn certificate(&self) -> Option<Pin> {
        self.client.wire.trust().pinned()
    }

    /// Fingerprint of the SSH key that is trusted: the pinned one, else the one that was seen first.
    pub fn host_key(&self) -> Option<String> {
        self.host_key.known()
    }

    fn call(&self) -> Call<'_> {
        Call::new(self)
    }

    fn root(&self) -> Option<Arc<Root>> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_root(&self, root: Arc<Root>) {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(root);
    }

    fn tree(&self) -> Option<Arc<Tree>> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers, or forgets, where things are.
    fn set_tree(&self, tree: Option<Arc<Tree>>) {
        *self.tree.lock().unwrap_or_else(PoisonError::into_inner) = tree;
    }
}

#[async_trait]
impl Bmc for Redfish {
    fn kind(&self) -> DriverKind {
        DriverKind::Redfish
    }

    async fn console(&self) -> Result<Box<dyn Console>, BmcError> {
        let call = self.call();
        let (serial, host, account) = (call.serial().await?, &call.origin().host, self.client.credentials());
        match serial {
            Serial::Ssh { port, command } => {
                let place = shell::Place { host, port, command: command.as_deref() };
                shell::open(&place, &account, &self.host_key, call.deadline).await
            }
            Serial::Ipmi { port } => {
                let address = call.resolve(host, port.unwrap_or(ipmi::limits::PORT)).await?;
                let settings = ipmi::Settings { address, credentials: account, kg: self.kg.clone() };
                ipmi::Driver::new(&settings)?.console().await
            }
        }
    }

    async fn power_state(&self) -> Result<PowerState, BmcError> {
        self.call().power_state().await
    }

    async fn power(&self, action: PowerAction) -> Result<(), BmcError> {
        self.call().power(action).await
    }

    async fn boot_override(&self) -> Result<BootOverride, BmcError> {
        self.call().boot_override().await
    }

    async fn set_boot_override(&self, wanted: &BootOverride) -> Result<(), BmcError> {
        self.call().set_boot_override(wanted).await
    }

    async fn identity(&self) -> Result<Identity, BmcError> {
        self.call().identity().await
    }

    async fn readings(&self) -> Result<Vec<Reading>, BmcError> {
        self.call().readings().await
    }

    async fn components(&self) -> Result<Vec<Component>, BmcError> {
        self.call().components().await
    }

    async fn log(&self, since: Option<&LogCursor>) -> Result<Vec<LogEntry>, BmcError> {
        self.call().log(since).await
    }

    async fn clear_log(&self) -> Result<(), BmcError> {
        self.call().clear_log().await
    }

    async fn identify(&self, on: bool) -> Result<(), BmcError> {
        self.call().identify(on).await
    }

    async fn reset_bmc(&self) -> Result<(), BmcError> {
        self.call().reset_bmc().await
    }

    async fn media(&self) -> Result<Media, BmcError> {
        self.call().media().await
    }

    async fn insert_media(&self, url: &str) -> Result<(), BmcError> {
        self.call().insert_media(url).await
    }

    async fn eject_media(&self) -> Result<(), BmcError> {
        self.call().eject_media().await
    }

    async fn firmware(&self) -> Result<Vec<FirmwareItem>, BmcError> {
        self.call().firmware().await
    }

    async fn update(&self, update: &Update) -> Result<Task, BmcError> {
        match update {
            Update::Pull { url, targets } => self.call().pull(url, targets).await,
            Update::Push { name, path, targets } => self.push(name, path, targets).await,
        }
    }

    async fn task(&self, id: &str) -> Result<Task, BmcError> {
        match self.upload_task(id) {
            Some(update::Progress::Task(task)) => Ok(task),
            Some(update::Progress::Failed(error)) => Err(error),
            Some(update::Progress::Follow(id)) => self.call().task(&id).await,
            None => self.call().task(id).await,
        }
    }

    async fn tasks(&self) -> Result<Vec<String>, BmcError> {
        self.call().tasks().await
    }

    async fn bios(&self) -> Result<BiosAttributes, BmcError> {
        self.call().bios().await
    }

    async fn set_bios(&self, changes: &BiosAttributes) -> Result<(), BmcError> {
        self.call().set_bios(changes).await
    }

    async fn secure_boot(&self) -> Result<SecureBoot, BmcError> {
        self.call().secure_boot().await
    }

    async fn set_secure_boot(&self, on: bool) -> Result<(), BmcError> {
        self.call().set_secure_boot(on).await
    }

    async fn reset_secure_boot_keys(&self, to: ResetKeys) -> Result<(), BmcError> {
        self.call().reset_secure_boot_keys(to).await
    }

    async fn card(&self) -> Result<Card, BmcError> {
        self.call().card().await
    }

    async fn change_card(&self, change: CardChange) -> Result<(), BmcError> {
        self.call().change_card(change).await
    }

    async fn change_password(&self, new: &Secret) -> Result<(), BmcError> {
        self.call().change_password(new).await
    }

    async fn subscribe(&self, destination: &str, context: &str) -> Result<String, BmcError> {
        self.call().subscribe(destination, context).await
    }

    async fn unsubscribe(&self, subscription: &str) -> Result<(), BmcError> {
        self.call().unsubscribe(subscription).await
    }

    async fn close(&self) {
        self.client.close().await;
    }
}
