//! What clients send about power and management controllers. Unknown fields are refused.

use std::time::Duration;

use bmc::{BootDevice, BootMode, DriverKind, PowerAction, Repeat, Secret};
use protocol::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::engine::{BmcChange, HistoryQuery};
use crate::power::Options;

/// A change of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// What.
    pub action: PowerAction,
}

/// What the firmware boots next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BootDeviceRequest {
    /// From what.
    pub device: BootDevice,
    /// How often; once if not given.
    #[serde(default = "once")]
    pub repeat: Repeat,
    /// How the firmware starts; as it is if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<BootMode>,
    /// For `http`: what to boot; DHCP tells if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_uri: Option<String>,
}

fn once() -> Repeat {
    Repeat::Once
}

/// Something that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SwitchRequest {
    /// On.
    pub on: bool,
}

/// The image for the virtual CD drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MediaRequest {
    /// `http` or `https` URL that the controller can reach.
    pub url: String,
}

/// A management controller. What is left out stays as it is; a new address or driver needs the password anew.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BmcRequest {
    /// `redfish`, `ipmi`, `wol` or `manual`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverKind>,
    /// Name or address (an address for IPMI).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Port; the protocol's own if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// User name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Password; never in an answer.
    #[schema(value_type = Option<String>, write_only)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// IPMI: the BMC key K_g, where the controller has one: at most 20 octets, as text, or as `0x` and hexadecimal digits. An
    /// empty one takes it away; never in an answer.
    #[schema(value_type = Option<String>, write_only)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kg: Option<Secret>,
    /// What else the driver is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Options>,
}

impl From<BmcRequest> for BmcChange {
    fn from(request: BmcRequest) -> Self {
        let BmcRequest { driver, address, port, user, password, kg, options } = request;
        Self { driver, address, port: port.map(Some), user, password, kg, options }
    }
}

/// What of the history of sensors.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SensorQuery {
    /// Only this sensor, by name.
    pub sensor: Option<String>,
    /// From then on, in milliseconds since 1970; a day before the end if not given.
    pub from: Option<u64>,
    /// Until before then, in milliseconds since 1970; now if not given.
    pub to: Option<u64>,
    /// Seconds between two points, at most 2,000 of them; fitting the time if not given.
    pub step: Option<u64>,
}

impl From<SensorQuery> for HistoryQuery {
    fn from(query: SensorQuery) -> Self {
        let SensorQuery { sensor, from, to, step } = query;
        Self { sensor, from: from.map(Timestamp), to: to.map(Timestamp), step: step.map(Duration::from_secs) }
    }
}

/// A list of controllers: one of the two forms.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImportRequest {
    /// Comma-separated values with a line of headings: node, mac, uuid, serial, driver, address, port, user, password, rack, unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csv: Option<String>,
    /// The same as a list of objects.
    #[schema(value_type = Option<Vec<std::collections::BTreeMap<String, String>>>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bmcs: Option<Vec<serde_json::Map<String, serde_json::Value>>>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Where to look for controllers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScanRequest {
    /// An IPv4 network of at most 1,024 addresses (/22), such as `10.0.0.0/24`.
    pub network: String,
}
