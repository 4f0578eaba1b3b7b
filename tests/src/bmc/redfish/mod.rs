//! A Redfish service as controllers have it, whose power button is a [`Machine`](super::Machine): HTTPS with a
//! certificate that it made itself, sessions, actions, tasks, and the ways of six families of controllers as data.

mod actions;
mod card;
mod faults;
mod profile;
mod service;
mod shell;
mod state;
mod tree;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bmc::redfish::{Options, Pin, Transport};
use bmc::{Credentials, Secret};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use card::CardFacts;
pub use faults::Fault;
pub use profile::Profile;
pub use service::Seen;
pub use state::{Offer, Pushed, Way};

use super::Machine;
use service::Shared;
use state::State;

/// Largest image that a controller fetches.
const IMAGE_MAX: u64 = 4 << 30;

/// User name of every stand-in.
pub const USER: &str = "root";
/// Password of every stand-in.
pub const PASSWORD: &str = "calvin-0penBmc";

/// A controller that listens. Dropping it ends it.
pub struct RedfishBmc {
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
    certificate: Mutex<Option<Vec<u8>>>,
    images: PathBuf,
}

impl RedfishBmc {
    /// Starts one on this address (port 0 for any), within the tokio runtime of the caller.
    ///
    /// # Errors
    /// Where the address cannot be had.
    pub async fn start(
        profile: Profile,
        machine: Arc<dyn Machine>,
        at: SocketAddr,
        tls: bool,
    ) -> Result<Self> {
        let listener = TcpListener::bind(at).await.with_context(|| format!("listening on {at}"))?;
        let address = listener.local_addr()?;
        let images =
            std::env::temp_dir().join(format!("billet-bmc-{}-{}", std::process::id(), address.port()));
        let state = State::new(profile, machine, USER, PASSWORD, images.clone());
        let (config, der) = match tls {
            true => service::certificate().map(|(config, der)| (Some(config), Some(der)))?,
            false => (None, None),
        };
        let shared = Arc::new(Shared {
            state: state.into(),
            tls: config.into(),
            seen: Mutex::default(),
            address,
            delay: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let serving = tokio::spawn(service::serve(shared.clone(), listener));
        Ok(Self { shared, serving, certificate: der.into(), images })
    }

    /// From now on it is the controller of this card; its profile is `bluefield`.
    pub fn be_card(&self, facts: &CardFacts) {
        let mut state = self.shared.state();
        state.card = Some(card::Card::default());
        state.put_card(facts);
    }

    /// The host of its card was power-cycled.
    pub fn host_cycled(&self) {
        self.shared.state().host_cycled();
    }

    /// Images that its card was sent, as they came.
    pub fn received(&self) -> Vec<PathBuf> {
        self.shared.state().card.as_ref().map(|card| card.received.clone()).unwrap_or_default()
    }

    /// The next so many changes of its card are answered with 503.
    pub fn busy(&self, times: u32) {
        if let Some(card) = &mut self.shared.state().card {
            card.busy = times;
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Its URL, as a driver takes it.
    pub fn url(&self) -> String {
        let tls = self.certificate.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        format!("{}://{}", if tls { "https" } else { "http" }, self.shared.address)
    }

    /// Its certificate in DER; none where it speaks plainly.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        self.certificate.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How a driver reaches it, with its certificate pinned; with `password` for the account.
    pub fn options(&self, password: &str, transport: Transport) -> Options {
        let credentials = Credentials { user: USER.into(), password: Secret(password.into()) };
        let pin = self.certificate().map(|der| Pin::of(&der));
        Options { pin, ..Options::new(self.url(), credentials, transport) }
    }

    /// From now on it shows another certificate.
    ///
    /// # Errors
    /// Where none can be made.
    pub fn change_certificate(&self) -> Result<()> {
        let (config, der) = service::certificate()?;
        *self.shared.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(config);
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = Some(der);
        Ok(())
    }

    /// From now on it has this fault.
    pub fn fault(&self, fault: Fault) {
        self.shared.state().fault = fault;
    }

    /// From now on it thinks this long about each request.
    pub fn delay(&self, delay: Duration) {
        let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.shared.delay.store(milliseconds, Ordering::Relaxed);
    }

    /// Connections that were made to it so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// It was restarted: all sessions are gone.
    pub fn restart(&self) {
        self.shared.state().restart();
    }

    /// Whether the machine is in its power-on self test, where some controllers refuse changes.
    pub fn in_post(&self, yes: bool) {
        self.shared.state().in_post = yes;
    }

    /// Writes a line of the event log, and sends it to whoever subscribed, from the network namespace of the caller; `at`
    /// is ISO 8601.
    pub fn write_log(&self, at: &str, severity: &str, message: &str) {
        let subscriptions = {
            let mut state = self.shared.state();
            state.write_log(at, severity, message);
            state.subscriptions()
        };
        for (destination, context) in subscriptions {
            // DSP0266, "Event message": an array of records.
            let record = json!({ "EventType": "Alert", "EventId": "1", "EventTimestamp": at, "Severity": severity,
                "Message": message, "MessageId": "Event.1.0.Alert", "MemberId": "0" });
            let body = json!({ "@odata.type": "#Event.v1_4_0.Event", "Id": "1", "Name": "Event", "Context": context,
                "Events": [record] });
            std::thread::spawn(move || match ureq::post(&destination).send_json(&body) {
                Ok(answer) => println!("the event was answered {}", answer.status()),
                Err(error) => println!("the event was not taken: {error}"),
            });
        }
    }

    /// Where its events go.
    pub fn subscriptions(&self) -> Vec<String> {
        self.shared.state().subscriptions().into_iter().map(|(destination, _)| destination).collect()
    }

    /// From now on its machine has a serial console by SSH at `at`; `command` leads to it from the controller's own shell. The key
    /// is made of `seed`. The task that is given back serves it.
    ///
    /// # Errors
    /// Where the address cannot be had.
    pub async fn serve_console(
        &self,
        command: Option<&str>,
        seed: u8,
        at: SocketAddr,
    ) -> Result<(SocketAddr, JoinHandle<()>)> {
        let machine = self.shared.state().machine.clone();
        let (address, serving) = shell::start(machine, command, seed, at).await?;
        let mut ssh = serde_json::json!({ "ServiceEnabled": true, "Port": address.port() });
        if let Some(command) = command {
            ssh["ConsoleEntryCommand"] = command.into();
        }
        self.set_console(serde_json::json!({ "SSH": ssh }));
        Ok((address, serving))
    }

    /// What the system says of its serial console from now on (`SerialConsole`).
    pub fn set_console(&self, console: serde_json::Value) {
        let mut state = self.shared.state();
        let system = state.paths.system.clone();
        if let Some(system) = state.tree.get_mut(&system) {
            system["SerialConsole"] = console;
        }
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.shared.state().sessions.len()
    }

    /// Ends all sessions, as their time-out does.
    pub fn end_sessions(&self) {
        self.shared.state().sessions.clear();
    }

    /// Logins that were refused.
    pub fn logins_refused(&self) -> u32 {
        self.shared.state().logins_refused
    }

    /// How often it was told to restart.
    pub fn restarts(&self) -> u32 {
        self.shared.state().bmc_resets
    }

    /// Firmware images that were sent to it.
    pub fn pushed(&self) -> Vec<Pushed> {
        self.shared.state().pushed.clone()
    }

    /// URLs that firmware images were fetched from.
    pub fn pulled(&self) -> Vec<String> {
        self.shared.state().pulled.clone()
    }

    /// The next update brings this.
    pub fn offer(&self, item: &str, version: &str, way: Way) {
        let offer = Offer { item: item.to_owned(), version: version.to_owned(), way };
        self.shared.state().offers.push(offer);
    }

    /// A property of a resource as it stands now, by JSON pointer.
    pub fn property(&self, path: &str, pointer: &str) -> Option<serde_json::Value> {
        self.shared.state().tree.get(path)?.pointer(pointer).cloned()
    }

    /// Path of the system.
    pub fn system(&self) -> String {
        self.shared.state().paths.system.clone()
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for RedfishBmc {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = std::fs::remove_dir_all(&self.images);
    }
}

/// Fetches an image as a controller does.
fn fetch(url: &str, to: &Path) -> Result<()> {
    ensure!(url.starts_with("http://"), "only http:// images are fetched");
    if let Some(directory) = to.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut response = ureq::get(url).call().with_context(|| format!("fetching {url}"))?;
    let mut reader = response.body_mut().with_config().limit(IMAGE_MAX).reader();
    let mut file = std::fs::File::create(to)?;
    std::io::copy(&mut reader, &mut file).with_context(|| format!("fetching {url}"))?;
    Ok(())
}
