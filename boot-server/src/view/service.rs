//! Servicing jobs as the API shows them.

use boot_server_core::node::{ItemStatus, Service};
use boot_server_core::servicing::{Difference, RestartPolicy, ServiceStep};
use protocol::{JobId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A servicing job: the one on its way, or the one that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// Names it.
    pub id: JobId,
    /// Its steps, in order.
    pub steps: Vec<ServiceStepView>,
    /// How far the step is that it is at: `check`, `apply`, `doubt`, `task`, `settle`, `restart`, `recheck`, `verify`.
    pub stage: String,
    /// Since when.
    pub since: Timestamp,
    /// Percent of the controller's task, where it tells.
    pub percent: Option<u8>,
    /// What the controller says, or why it does not answer.
    pub words: Option<String>,
    /// Whether a machine that runs an OS may be restarted for it.
    pub restart: RestartPolicy,
    /// A stop was asked for.
    pub abort: bool,
}

/// A step of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceStepView {
    /// What is to be done.
    pub step: ServiceStep,
    /// The same in words.
    pub words: String,
    /// How far it is.
    pub status: ItemStatus,
    /// The job is at this step.
    pub now: bool,
}

impl ServiceView {
    /// The job as it is shown.
    pub fn of(service: &Service) -> Self {
        let item = |(at, item): (usize, &boot_server_core::node::service::Item)| ServiceStepView {
            step: item.step.clone(),
            words: item.step.words(),
            status: item.status,
            now: at == service.at,
        };
        Self {
            id: service.id,
            steps: service.items.iter().enumerate().map(item).collect(),
            stage: service.stage.as_str().to_owned(),
            since: service.since,
            percent: service.percent,
            words: service.words.clone(),
            restart: service.restart,
            abort: service.abort,
        }
    }
}

/// How a node stands against a baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BaselineDiff {
    /// Name of the node.
    pub node: String,
    /// Name of the baseline.
    pub baseline: String,
    /// It is as the baseline says.
    pub same: bool,
    /// Why the baseline is not for this machine, if it is not.
    pub misfit: Option<String>,
    /// All that the baseline speaks of.
    pub differences: Vec<Difference>,
}
