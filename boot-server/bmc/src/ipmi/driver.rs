//! The driver: the trait's verbs by IPMI.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::limits::KG_MAX;
use super::link::{Ask, Link};
use super::repository::Repository;
use super::session::Login;
use super::{account, chassis, console, identity, sel, sensors};
use crate::{
    Bmc, BmcError, BootDevice, BootOverride, CALL_MAX, Component, Console, Credentials, DriverKind,
    FirmwareItem, Identity, LogCursor, LogEntry, PowerAction, PowerState, Reading, Secret,
};

const COLD_RESET: u8 = 0x02;
/// Longest that a call takes: less than [`CALL_MAX`], so that the error still comes in time.
const CALL: Duration = CALL_MAX.saturating_sub(Duration::from_secs(1));

/// Where a controller is and how to log in.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its address; the port is usually [`super::limits::PORT`].
    pub address: SocketAddr,
    /// User name of at most 16 octets, password of at most 20.
    pub credentials: Credentials,
    /// K_g, where the controller has one: at most 20 octets.
    pub kg: Option<Vec<u8>>,
}

/// An IPMI 2.0 controller.
pub struct Driver {
    user: Vec<u8>,
    state: Mutex<State>,
}

struct State {
    link: Link,
    repository: Repository,
    /// The controller drops the valid bit of the boot flags.
    loses_valid: bool,
}

impl Driver {
    /// A driver; nothing is sent yet.
    ///
    /// # Errors
    /// Where user name, password or K_g are longer than IPMI allows.
    pub fn new(settings: &Settings) -> Result<Self, BmcError> {
        let user = account::user(&settings.credentials.user)?;
        let password = account::password(&settings.credentials.password.0)?;
        let kg = settings.kg.clone().filter(|kg| !kg.is_empty());
        if kg.as_ref().is_some_and(|kg| kg.len() > KG_MAX) {
            return Err(BmcError::Refused {
                what: "K_g".into(),
                why: format!("it is longer than {KG_MAX} octets"),
            });
        }
        let login = Login { user: user.clone(), password, kg, suite: None };
        let link = Link::new(settings.address, login);
        Ok(Self {
            user,
            state: Mutex::new(State { link, repository: Repository::default(), loses_valid: false }),
        })
    }
}

/// A call that ends in time.
async fn limited<T>(what: &str, call: impl Future<Output = Result<T, BmcError>>) -> Result<T, BmcError> {
    match tokio::time::timeout(CALL, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(BmcError::TimedOut { what: what.into(), after: CALL }),
    }
}

#[async_trait]
impl Bmc for Driver {
    fn kind(&self) -> DriverKind {
        DriverKind::Ipmi
    }

    async fn power_state(&self) -> Result<PowerState, BmcError> {
        let mut state = self.state.lock().await;
        limited("the power state", chassis::power_state(&mut state.link)).await
    }

    async fn power(&self, action: PowerAction) -> Result<(), BmcError> {
        let mut state = self.state.lock().await;
        limited("a change of power", chassis::power(&mut state.link, action)).await
    }

    async fn boot_override(&self) -> Result<BootOverride, BmcError> {
        let state = &mut *self.state.lock().await;
        limited("the boot device", chassis::boot_override(&mut state.link, state.loses_valid)).await
    }

    async fn set_boot_override(&self, wanted: &BootOverride) -> Result<(), BmcError> {
        let state = &mut *self.state.lock().await;
        let set = async {
            chassis::set_boot_override(&mut state.link, wanted).await?;
            if wanted.device != BootDevice::None {
                state.loses_valid = chassis::drops_valid(&mut state.link, wanted).await?;
            }
            Ok(())
        };
        limited("the boot device", set).await
    }

    async fn identity(&self) -> Result<Identity, BmcError> {
        let mut state = self.state.lock().await;
        limited("the identity", identity::identity(&mut state.link)).await
    }

    async fn readings(&self) -> Result<Vec<Reading>, BmcError> {
        let state = &mut *self.state.lock().await;
        limited("the sensors", sensors::readings(&mut state.link, &mut state.repository)).await
    }

    async fn components(&self) -> Result<Vec<Component>, BmcError> {
        let state = &mut *self.state.lock().await;
        limited("the parts", sensors::components(&mut state.link, &mut state.repository)).await
    }

    async fn log(&self, since: Option<&LogCursor>) -> Result<Vec<LogEntry>, BmcError> {
        let state = &mut *self.state.lock().await;
        // Names of sensors where they are known; reading them all is the business of `readings`.
        limited("the event log", sel::read(&mut state.link, state.repository.known(), since)).await
    }

    async fn clear_log(&self) -> Result<(), BmcError> {
        let mut state = self.state.lock().await;
        limited("clearing the event log", sel::clear(&mut state.link)).await
    }

    async fn identify(&self, on: bool) -> Result<(), BmcError> {
        let mut state = self.state.lock().await;
        limited("the identify light", chassis::identify(&mut state.link, on)).await
    }

    async fn reset_bmc(&self) -> Result<(), BmcError> {
        let mut state = self.state.lock().await;
        let ask = Ask::app("restarting the controller", COLD_RESET, &[]);
        let outcome = limited(ask.what, state.link.change(&ask)).await;
        state.link.close().await;
        match outcome {
            // It may restart before it answers.
            Err(BmcError::TimedOut { .. }) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    async fn console(&self) -> Result<Box<dyn Console>, BmcError> {
        let state = self.state.lock().await;
        let open = async { console::open(state.link.open_another().await?).await };
        Ok(Box::new(limited("the serial console", open).await?))
    }

    async fn firmware(&self) -> Result<Vec<FirmwareItem>, BmcError> {
        let mut state = self.state.lock().await;
        limited("the firmware", identity::firmware(&mut state.link)).await
    }

    async fn change_password(&self, new: &Secret) -> Result<(), BmcError> {
        let new = account::password(&new.0)?;
        let mut state = self.state.lock().await;
        limited("changing the password", account::change_password(&mut state.link, &self.user, new)).await
    }

    async fn close(&self) {
        self.state.lock().await.link.close().await;
    }
}
