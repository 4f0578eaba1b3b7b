//! What can be asked of a worker, and what it answers.

use std::sync::Arc;

use bmc::{
    BiosAttributes, Bmc, BmcError, BootOverride, Card, CardChange, Component, Console, FirmwareItem,
    Identity, LogCursor, LogEntry, Media, PowerAction, PowerState, Reading, ResetKeys, Secret, SecureBoot,
    Task, Update,
};
use tokio::sync::oneshot;

use super::PowerError;

/// Something to read. Asking twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named like the calls of `Bmc`")]
pub enum Read {
    Power,
    Boot,
    Identity,
    Readings,
    Components,
    Log(Option<LogCursor>),
    Media,
    Firmware,
    Task(String),
    Tasks,
    Bios,
    SecureBoot,
    Card,
}

/// Something to change. Never asked twice by itself, unless the state says that it was not done.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "named like the calls of `Bmc`")]
pub enum Change {
    Power(PowerAction),
    Boot(BootOverride),
    Identify(bool),
    ResetBmc,
    ClearLog,
    InsertMedia(String),
    EjectMedia,
    Update(Update),
    Bios(BiosAttributes),
    SecureBoot(bool),
    ResetKeys(ResetKeys),
    Password(Secret),
    Card(CardChange),
}

/// What was answered. Cheap to clone.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named like the calls of `Bmc`")]
pub enum Reply {
    Done,
    Power(PowerState),
    Boot(BootOverride),
    Identity(Arc<Identity>),
    Readings(Arc<Vec<Reading>>),
    Components(Arc<Vec<Component>>),
    Log(Arc<Vec<LogEntry>>),
    Media(Media),
    Firmware(Arc<Vec<FirmwareItem>>),
    Task(Task),
    Tasks(Arc<Vec<String>>),
    Bios(Arc<BiosAttributes>),
    SecureBoot(SecureBoot),
    Card(Arc<Card>),
}

/// One request.
pub(super) struct Ask {
    pub what: What,
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, PowerError>>;

pub(super) enum What {
    Read(Read, Answer<Reply>),
    Change(Box<Change>, Answer<Reply>),
    Console(Answer<Box<dyn Console>>),
}

impl What {
    /// True where nobody waits for the answer any more: then it is not begun.
    pub fn is_given_up(&self) -> bool {
        match self {
            Self::Read(_, answer) | Self::Change(_, answer) => answer.is_closed(),
            Self::Console(answer) => answer.is_closed(),
        }
    }
}

impl Read {
    /// Asks the driver.
    pub(super) async fn call(&self, bmc: &dyn Bmc) -> Result<Reply, BmcError> {
        Ok(match self {
            Self::Power => Reply::Power(bmc.power_state().await?),
            Self::Boot => Reply::Boot(bmc.boot_override().await?),
            Self::Identity => Reply::Identity(Arc::new(bmc.identity().await?)),
            Self::Readings => Reply::Readings(Arc::new(bmc.readings().await?)),
            Self::Components => Reply::Components(Arc::new(bmc.components().await?)),
            Self::Log(since) => Reply::Log(Arc::new(bmc.log(since.as_ref()).await?)),
            Self::Media => Reply::Media(bmc.media().await?),
            Self::Firmware => Reply::Firmware(Arc::new(bmc.firmware().await?)),
            Self::Task(id) => Reply::Task(bmc.task(id).await?),
            Self::Tasks => Reply::Tasks(Arc::new(bmc.tasks().await?)),
            Self::Bios => Reply::Bios(Arc::new(bmc.bios().await?)),
            Self::SecureBoot => Reply::SecureBoot(bmc.secure_boot().await?),
            Self::Card => Reply::Card(Arc::new(bmc.card().await?)),
        })
    }
}

impl Change {
    /// Asks the driver.
    pub(super) async fn call(&self, bmc: &dyn Bmc) -> Result<Reply, BmcError> {
        match self {
            Self::Power(action) => bmc.power(*action).await?,
            Self::Boot(wanted) => bmc.set_boot_override(wanted).await?,
            Self::Identify(on) => bmc.identify(*on).await?,
            Self::ResetBmc => bmc.reset_bmc().await?,
            Self::ClearLog => bmc.clear_log().await?,
            Self::InsertMedia(url) => bmc.insert_media(url).await?,
            Self::EjectMedia => bmc.eject_media().await?,
            Self::Update(update) => return bmc.update(update).await.map(Reply::Task),
            Self::Bios(changes) => bmc.set_bios(changes).await?,
            Self::SecureBoot(on) => bmc.set_secure_boot(*on).await?,
            Self::ResetKeys(to) => bmc.reset_secure_boot_keys(*to).await?,
            Self::Password(new) => bmc.change_password(new).await?,
            Self::Card(change) => bmc.change_card(*change).await?,
        }
        Ok(Reply::Done)
    }

    /// What tells whether it was done, where its answer was lost, and whether doing it twice is the same as once.
    pub(super) fn proof(&self) -> Option<Read> {
        match self {
            Self::Power(PowerAction::On | PowerAction::ForceOff) => Some(Read::Power),
            Self::Boot(_) => Some(Read::Boot),
            Self::EjectMedia | Self::InsertMedia(_) => Some(Read::Media),
            Self::SecureBoot(_) => Some(Read::SecureBoot),
            _ => None,
        }
    }

    /// True where the state that was read is what this was to bring about.
    pub(super) fn is_done(&self, state: &Reply) -> bool {
        match (self, state) {
            (Self::Power(PowerAction::On), Reply::Power(power)) => {
                matches!(power, PowerState::On | PowerState::PoweringOn)
            }
            (Self::Power(PowerAction::ForceOff), Reply::Power(power)) => {
                matches!(power, PowerState::Off | PowerState::PoweringOff)
            }
            (Self::Boot(wanted), Reply::Boot(found)) => {
                wanted.device == found.device
                    && (wanted.device == bmc::BootDevice::None || wanted.repeat == found.repeat)
            }
            (Self::InsertMedia(url), Reply::Media(media)) => media.image.as_ref() == Some(url),
            (Self::EjectMedia, Reply::Media(media)) => media.image.is_none(),
            (Self::SecureBoot(on), Reply::SecureBoot(found)) => found.enabled == *on,
            _ => false,
        }
    }
}
