//! What sets a DPU up, as the API shows it.

use boot_server_core::bmc::health::Verdict;
use boot_server_core::setup::{By, Card, Job, Mode, Order, Part, Privilege, Stage};
use protocol::{JobId, Sha256, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::dpu_setup::ControllerRow;

/// The controller of a DPU. Its password goes in and never comes out.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DpuBmcView {
    /// Name or address.
    pub address: String,
    /// Port, where it is not the protocol's own.
    pub port: Option<u16>,
    /// User name.
    pub user: String,
    /// SHA-256 of the certificate that is pinned.
    pub certificate: Option<String>,
    /// The DPU as it showed it last.
    pub card: Option<Card>,
    /// When that was.
    pub looked: Option<Timestamp>,
    /// Why the host is the host.
    pub paired: Vec<By>,
    /// Why nobody can say which machine is.
    pub doubt: Option<String>,
    /// When a person last changed it.
    pub changed: Timestamp,
    /// Why it does not answer, if it does not.
    pub trouble: Option<String>,
    /// How well the DPU is, as it measured since the server runs.
    #[serde(default)]
    pub health: Option<Verdict>,
}

impl DpuBmcView {
    /// As it is known now.
    pub fn of(row: ControllerRow, trouble: Option<String>) -> Self {
        let ControllerRow { address, port, user, certificate, card, looked, paired, doubt, changed, .. } =
            row;
        let health = None;
        Self { address, port, user, certificate, card, looked, paired, doubt, changed, trouble, health }
    }
}

/// A job that sets a DPU up.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DpuJobView {
    /// Names it.
    pub id: JobId,
    /// `mode`, `host_privilege`, `install`, `rollback`, `firmware` or `reset`.
    pub kind: String,
    /// What is to be done, in words.
    pub what: String,
    /// `check`, `ask`, `doubt`, `task`, `restart`, `cycle`, `settle`, `arrive`, `undo`, `done` or `failed`.
    pub stage: String,
    /// What it waits for, or how it ended.
    pub words: String,
    /// What to do, where it failed.
    pub hint: Option<String>,
    /// Where it failed: the DPU is as it was before.
    pub undone: Option<bool>,
    /// Percent of the controller's task.
    pub percent: Option<u8>,
    /// Who asked for it.
    pub by: String,
    /// When.
    pub begun: Timestamp,
    /// Since when it is in its stage.
    pub since: Timestamp,
    /// When waiting ends; none where it is over.
    pub deadline: Option<Timestamp>,
    /// The mode to set.
    pub mode: Option<Mode>,
    /// The privilege to set.
    pub privilege: Option<Privilege>,
    /// The part whose firmware is written.
    pub part: Option<Part>,
    /// The image, as a path in the media directory.
    pub image: Option<String>,
    /// SHA-256 of it.
    pub sha256: Option<Sha256>,
    /// The version that was there before.
    pub version_before: Option<String>,
    /// The version that is there now.
    pub version: Option<String>,
}

impl DpuJobView {
    /// It is over.
    pub fn is_over(&self) -> bool {
        self.deadline.is_none()
    }
}

impl From<Job> for DpuJobView {
    fn from(job: Job) -> Self {
        let (hint, undone) = match &job.stage {
            Stage::Failed { hint, undone, .. } => (Some(hint.clone()), Some(*undone)),
            _ => (None, None),
        };
        let (mut mode, mut privilege, mut part) = (None, None, None);
        match &job.order {
            Order::Mode { mode: wanted, .. } => mode = Some(*wanted),
            Order::Privilege { privilege: wanted } => privilege = Some(*wanted),
            Order::Firmware { part: wanted, .. } => part = Some(*wanted),
            Order::Install { .. } | Order::Reset { .. } => {}
        }
        let image = job.order.image();
        Self {
            id: job.id,
            kind: job.order.kind().to_owned(),
            what: job.order.words(),
            stage: job.stage.as_str().to_owned(),
            words: job.words(),
            hint,
            undone,
            percent: job.percent,
            begun: job.begun,
            since: job.since,
            deadline: (!job.stage.is_over()).then_some(job.deadline),
            mode,
            privilege,
            part,
            sha256: image.map(|(_, sha256)| sha256),
            image: image.map(|(image, _)| image.to_owned()),
            by: job.by,
            version_before: job.version_before,
            version: job.version,
        }
    }
}
