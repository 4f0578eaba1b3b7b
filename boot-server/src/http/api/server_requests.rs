//! What is asked of servers, keys, quotas and reports. Unknown fields are refused: nobody sets a project, a phase or a node by
//! a name that is not here.

use boot_server_core::server::{BootVolume, Phase};
use boot_server_core::usage::Period;
use protocol::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Servers to make, all alike.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewServerRequest {
    /// The name, a host name; for several a pattern with `{n}` for the number, else the number is put behind.
    pub name: String,
    /// How many, all or none; 1 if not given, at most 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// What kind of machine. Either this or `node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    /// This machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Of this pool; of all that are offered if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Image: its id, its name (newest version), or `name:version`.
    pub image: String,
    /// User to make; the image's default user if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Names of keys of the project.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// SSH public keys as they are, as in `authorized_keys`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// cloud-init user data, passed through unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// A server group of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The OS is put on a volume, which the machine's DPU presents, and not on a disk of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_volume: Option<BootVolume>,
    /// Networks of the project, by name or id; each server gets a port on each, in the order of its NICs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
}

/// What to change of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerChangeRequest {
    /// The new name.
    pub name: String,
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// Switch it off at once, without asking its OS.
    #[serde(default)]
    pub hard: bool,
}

/// What to change when a server is installed anew; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReinstallRequest {
    /// Another image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Other keys, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// Other keys as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_keys: Option<Vec<String>>,
    /// Other user data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
}

/// What to do with several servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerVerb {
    /// Switch on.
    Start,
    /// Ask the OS to shut down.
    Stop,
    /// Switch off at once.
    StopHard,
    /// Restart at once.
    Reboot,
    /// Install anew, from the same image.
    Reinstall,
    /// Give back.
    Delete,
}

/// The same for several servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerActionsRequest {
    /// What to do.
    pub verb: ServerVerb,
    /// Names or ids, at most 200.
    pub servers: Vec<String>,
}

/// Which servers.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ServerQuery {
    /// In this phase only.
    #[param(value_type = Option<String>)]
    pub phase: Option<Phase>,
    /// With this in the name.
    pub q: Option<String>,
    /// Of this group (name or id).
    pub group: Option<String>,
    /// Also those that were deleted.
    pub deleted: Option<bool>,
    /// How many, 1 to 500; 100 if not given.
    pub limit: Option<usize>,
    /// From `next` of the page before.
    pub cursor: Option<String>,
}

/// A key to keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// Its name: 1 to 63 of `a-z`, `0-9`, `.`, `_`, `-`.
    pub name: String,
    /// One line of a `.pub` file.
    pub public_key: String,
}

/// What is wrong with a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultRequest {
    /// The server, by name or id.
    pub server: String,
    /// What is wrong, at most 4096 bytes.
    pub words: String,
}

/// What came of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultAnswerRequest {
    /// In words for whoever reported it.
    pub answer: String,
}

/// Which fault reports.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FaultQuery {
    /// Also those that were closed.
    pub closed: Option<bool>,
    /// How many, 1 to 1,000; 100 if not given.
    pub limit: Option<usize>,
    /// From `next` of the page before.
    pub cursor: Option<String>,
}

/// Form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportFormat {
    /// JSON.
    #[default]
    Json,
    /// CSV (RFC 4180), a line per record.
    Csv,
}

/// Over which time.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PeriodQuery {
    /// From this moment, in milliseconds since 1970; 30 days before `to` if not given.
    pub from: Option<u64>,
    /// To before this moment; now if not given. At most 400 days after `from`.
    pub to: Option<u64>,
}

/// Over which time, and in which form.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReportQuery {
    /// From this moment, in milliseconds since 1970; 30 days before `to` if not given.
    pub from: Option<u64>,
    /// To before this moment; now if not given. At most 400 days after `from`.
    pub to: Option<u64>,
    /// `json` or `csv`; JSON if not given.
    #[param(value_type = Option<String>)]
    pub format: Option<ReportFormat>,
}

/// Longest period: a leap year and a month.
const PERIOD_MAX: u64 = 400 * 86_400_000;
/// The period where none is given.
const PERIOD: u64 = 30 * 86_400_000;

/// The period that was asked for.
///
/// # Errors
/// A sentence.
pub fn period(from: Option<u64>, to: Option<u64>, now: Timestamp) -> Result<Period, String> {
    let to = to.unwrap_or(now.0);
    let from = from.unwrap_or(to.saturating_sub(PERIOD));
    match to.checked_sub(from) {
        None => Err("the period ends before it begins".to_owned()),
        Some(length) if length > PERIOD_MAX => Err("the period is longer than 400 days".to_owned()),
        Some(_) => Ok(Period { from: Timestamp(from), to: Timestamp(to) }),
    }
}
