//! The agent's conversation with the server: hello, inventory, work, reports. All requests go from the agent to the
//! provisioning listener; the agent never listens.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /agent/v1/introduction` | [`Hello`] without a nonce | [`Introduction`] |
//! | `POST /agent/v1/hello` | [`Hello`] | [`Welcome`] |
//! | `PUT /agent/v1/inventory` | [`Inventory`](crate::inventory::Inventory) | 204 |
//! | `POST /agent/v1/bmc-account` | | [`AccountOrder`] |
//! | `PUT /agent/v1/bmc-account` | [`AccountReport`] | 204 |
//! | `POST`, `PUT /agent/v1/tpm` | | see [`tpm`](crate::tpm) |
//! | `GET /agent/v1/work?wait=25` | | [`Work`], held open up to `wait` seconds |
//! | `POST /agent/v1/report` | [`ReportBatch`](crate::report::ReportBatch) | [`ReportReply`] |
//! | `GET /images/{image}/manifest` | | canonical manifest JSON |
//! | `GET /images/{image}/signature` | | signature of the manifest, in minisign's form; 404 where there is none |
//! | `GET /trust/succession` | | JSON list of texts: by which a key names the one that follows it |
//! | `GET /chunks/{chunk}` | | one zstd frame |
//!
//! An introduction is only needed where the boot loader could not pass a nonce on: a signed unified kernel image carries
//! its command line in itself, the same for every machine.
//!
//! All but hello and introduction carry `Authorization: Bearer <session>`; manifests and chunks are public signed artefacts.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{MacAddr, NodeId, Timestamp};
use crate::job::Job;

/// Kernel argument with the base URL of the provisioning listener, such as `http://10.77.0.1:8080`.
pub const ARG_SERVER: &str = "billet.server";
/// Kernel argument with the one-time nonce of the boot script, 64 hexadecimal digits.
pub const ARG_NONCE: &str = "billet.nonce";
/// Kernel argument with the MAC address of the NIC that booted (tried first).
pub const ARG_BOOT_MAC: &str = "billet.mac";
/// Kernel argument with the machine's address and the length of its prefix, such as `10.77.0.50/24`: the agent asks nobody for
/// another one. [`ARG_BOOT_MAC`] names the port, where it is given.
pub const ARG_ADDRESS: &str = "billet.address";
/// Kernel argument with the router that goes with [`ARG_ADDRESS`], if any.
pub const ARG_GATEWAY: &str = "billet.gateway";

/// The agent introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION).
    pub protocol: u32,
    /// Version of the agent program.
    pub agent_version: String,
    /// Version of the kernel it runs on.
    pub kernel: String,
    /// The nonce from the boot script.
    pub nonce: String,
    /// SMBIOS system UUID.
    pub uuid: Option<Uuid>,
    /// SMBIOS system serial number.
    pub serial: Option<String>,
    /// Every station address of the machine.
    pub macs: Vec<MacAddr>,
    /// Milliseconds from kernel start to this hello.
    pub uptime_ms: u64,
}

/// The server's answer to an agent that was booted without a nonce: what a boot script would have said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Introduction {
    /// Say hello with this nonce.
    Nonce {
        /// As in a boot script.
        nonce: String,
    },
    /// There is nothing to do here: boot what comes after the network.
    Disk,
    /// Ask again later.
    Refused {
        /// Why, in words.
        why: String,
    },
}

/// The server's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The node this machine is.
    pub node: NodeId,
    /// Its name, for the agent's own console.
    pub name: String,
    /// Bearer token for this boot.
    pub session: String,
    /// The server's clock; the agent sets its own by it.
    pub now: Timestamp,
}

/// Whether the agent is to make an account for Billet on the machine's own management controller. An agent that found
/// one in-band asks once after its inventory; a server from before this was thought of answers 404.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum AccountOrder {
    /// Leave the controller as it is.
    None,
    /// Make this one. The server has kept the password before it says so.
    Make {
        /// User name, at most 16 octets.
        user: String,
        /// Password, at most 20 octets.
        password: Password,
        /// Access by LAN may be switched on where it is off.
        open_channel: bool,
    },
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum AccountReport {
    /// It was made and read back.
    Made {
        /// User id.
        slot: u8,
        /// LAN channel.
        channel: u8,
        /// The controller's address on that channel.
        address: Option<Ipv4Addr>,
    },
    /// It was not.
    Failed {
        /// Why, in words.
        why: String,
    },
}

/// A password on its way; it never shows in a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Work {
    /// Nothing yet: ask again.
    Wait,
    /// This job. The same job is given again until a final report arrived.
    Job {
        /// The job.
        job: Box<Job>,
    },
    /// Leave the ramdisk and boot again.
    Reboot,
    /// Leave the ramdisk and switch off.
    PowerOff,
}

/// Answer to a batch of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportReply {
    /// Highest sequence number that is safely stored; older ones need not be sent again.
    pub acked: u64,
    /// The job was aborted: stop at the next safe point and report [`FaultCode::Aborted`](crate::fault::FaultCode).
    pub abort: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets of version 1. If this fails, do not change the test: agents and servers of the field speak this.
    #[test]
    fn accounts_are_written_as_ever() {
        let make =
            AccountOrder::Make { user: "billet".into(), password: Password("p".into()), open_channel: false };
        let order = r#"{"kind":"make","user":"billet","password":"p","open_channel":false}"#;
        assert_eq!(serde_json::to_string(&make).unwrap(), order);
        assert_eq!(serde_json::from_str::<AccountOrder>(order).unwrap(), make);
        assert_eq!(serde_json::to_string(&AccountOrder::None).unwrap(), r#"{"kind":"none"}"#);
        assert!(!format!("{make:?}").contains("\"p\""));
        let made = AccountReport::Made { slot: 3, channel: 1, address: Some(Ipv4Addr::new(10, 0, 0, 9)) };
        let report = r#"{"kind":"made","slot":3,"channel":1,"address":"10.0.0.9"}"#;
        assert_eq!(serde_json::to_string(&made).unwrap(), report);
        assert_eq!(serde_json::from_str::<AccountReport>(report).unwrap(), made);
        let failed = AccountReport::Failed { why: "full".into() };
        assert_eq!(serde_json::to_string(&failed).unwrap(), r#"{"kind":"failed","why":"full"}"#);
    }
}
