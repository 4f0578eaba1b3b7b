//! Management controllers and power, as the API shows them.

use std::net::Ipv4Addr;

use bmc::{DriverKind, ErrorKind, PowerState};
use boot_server_core::bmc::health::{Part, Verdict};
use boot_server_core::node::Place;
use protocol::inventory::Inventory;
use protocol::{MacAddr, NodeId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;
use crate::power::Options;

/// The management controller of a node. Its password is never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BmcView {
    /// Whose.
    pub node: NodeId,
    /// Name of the node.
    pub node_name: String,
    /// By which driver it is spoken to.
    pub driver: DriverKind,
    /// Name or address.
    pub address: String,
    /// Port, where it is not the protocol's own.
    pub port: Option<u16>,
    /// User name.
    pub user: Option<String>,
    /// A password is stored.
    pub has_password: bool,
    /// A BMC key (K_g of IPMI) is stored.
    #[serde(default)]
    pub has_kg: bool,
    /// Fingerprint of the SSH key that is pinned, where there was a console by SSH.
    #[serde(default)]
    pub host_key: Option<String>,
    /// SHA-256 of the certificate that is pinned.
    pub certificate: Option<String>,
    /// What else the driver is told.
    pub options: Options,
    /// Power of the machine as it was last read.
    pub power: Option<PowerState>,
    /// When it last answered.
    pub last_seen: Option<Timestamp>,
    /// Calls in a row that failed.
    pub failures: u32,
    /// Why the last call failed, if it did.
    pub trouble: Option<TroubleView>,
    /// It does not answer and is left alone until then.
    pub wait_until: Option<Timestamp>,
    /// `subscribed` where it sends its events (`bmc.events_url`), else why it does not; null where it was not asked to.
    #[serde(default)]
    pub events: Option<String>,
    /// When the controller itself was last restarted.
    pub reset_at: Option<Timestamp>,
    /// When a person last changed this.
    pub changed: Timestamp,
}

/// Why a controller did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TroubleView {
    /// The kind; null where it is known from before a restart of the server.
    pub kind: Option<ErrorKind>,
    /// In words.
    pub message: String,
    /// What to do.
    #[serde(default)]
    pub hint: String,
}

/// A management controller that the agent found in the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BmcFound {
    /// Its address.
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
    /// Its firmware version.
    pub firmware: Option<String>,
    /// IANA enterprise number of its maker.
    pub manufacturer_id: Option<u32>,
}

impl BmcFound {
    /// What the inventory says of it.
    pub fn of(inventory: &Inventory) -> Option<Self> {
        inventory.bmc.as_ref().map(|bmc| Self {
            address: bmc.address.filter(|address| !address.is_unspecified()),
            mac: bmc.mac,
            firmware: bmc.firmware.clone(),
            manufacturer_id: bmc.manufacturer_id,
        })
    }

    /// Where it is, in words.
    pub fn place(&self) -> String {
        match (self.address, self.mac) {
            (Some(address), _) => address.to_string(),
            (None, Some(mac)) => format!("{mac}, which has no IPv4 address yet"),
            (None, None) => "an address that it does not tell".to_owned(),
        }
    }
}

/// Something that answers as a management controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScanFound {
    /// Where.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// It speaks Redfish, and says this of itself to everybody.
    pub redfish: Option<FoundRedfish>,
    /// It answers a presence ping and supports IPMI.
    pub ipmi: bool,
    /// The node whose controller it is: by what is stored, or by what the agent found in the machine.
    pub node: Option<String>,
}

/// What a Redfish service says of itself to everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundRedfish {
    /// SHA-256 of its certificate.
    pub certificate: Option<String>,
    /// Maker.
    pub vendor: Option<String>,
    /// Product.
    pub product: Option<String>,
    /// Version of Redfish.
    pub version: Option<String>,
}

/// What an import did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportView {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Each line of the list, in its order.
    pub lines: Vec<ImportedLine>,
}

/// One line of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportedLine {
    /// Its number in the list, from 1.
    pub line: usize,
    /// Name of the node.
    pub node: Option<String>,
    /// The node is new.
    pub new_node: bool,
    /// The node's controller was known before.
    pub replaces: bool,
    /// Why it was refused.
    pub refused: Option<Problem>,
}

/// What is not as it should be in a machine: for whoever goes there with a spare part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultReport {
    /// Name of the node.
    pub node: String,
    /// Maker and model of the machine.
    pub product: String,
    /// Serial number of the machine.
    pub serial: Option<String>,
    /// The rack and unit where it stands, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Where it is plugged in, as far as the network tells: switches and ports.
    pub switch_ports: Vec<String>,
    /// How well it is; null where no management controller has said so.
    pub health: Option<Verdict>,
    /// What is wrong, the worst first.
    pub faults: Vec<Part>,
}

/// Power of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PowerView {
    /// As it was read for this answer.
    pub state: PowerState,
    /// What was asked for has happened: read back. False: it was accepted, and does not show yet.
    pub confirmed: bool,
}
