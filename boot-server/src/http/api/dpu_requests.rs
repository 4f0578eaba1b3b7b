//! What is asked of a DPU's set-up.

use bmc::Secret;
use boot_server_core::setup::{Mode, Part, Privilege};
use protocol::Sha256;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::ControllerChange;

/// The controller of a DPU. What is left out stays as it is; a new address needs the password anew.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DpuBmcRequest {
    /// Name or address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Port; 443 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// User name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Password; never in an answer.
    #[schema(value_type = Option<String>, write_only)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

impl From<DpuBmcRequest> for ControllerChange {
    fn from(request: DpuBmcRequest) -> Self {
        let DpuBmcRequest { address, port, user, password } = request;
        Self { address, port, user, password }
    }
}

/// A job that sets a DPU up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum DpuJobRequest {
    /// Another mode, in force after the next power cycle of the host.
    Mode {
        /// Which.
        mode: Mode,
        /// Billet power-cycles the host for it, where the host has a BMC and runs.
        #[serde(default)]
        power_cycle: bool,
    },
    /// What the host may do with the DPU, in force after the DPU's restart, which is part of the job.
    HostPrivilege {
        /// Which.
        privilege: Privilege,
    },
    /// Installs an image (BFB).
    Install {
        /// Path in the server's media directory.
        image: String,
        /// SHA-256 of the file, as its maker publishes it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<Sha256>,
        /// The image has `billet-dpu` in it, which comes in by itself afterwards, as the same DPU.
        #[serde(default = "yes")]
        agent: bool,
    },
    /// Installs the image before the one that Billet installed last.
    Rollback {},
    /// Writes the firmware of a part.
    Firmware {
        /// Which.
        part: Part,
        /// Path in the server's media directory.
        image: String,
        /// SHA-256 of the file, as its maker publishes it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<Sha256>,
    },
    /// Restarts the DPU's own system.
    Reset {
        /// At once, without asking it to shut down.
        #[serde(default)]
        force: bool,
    },
}

fn yes() -> bool {
    true
}
