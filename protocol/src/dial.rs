//! A DPU's conversation with the server. All requests go from `billet-dpu` to the provisioning listener; it never listens.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /dpu/v1/hello` | [`Hello`] | [`Welcome`] |
//! | `POST /dpu/v1/state?wait=25` | [`Report`] | [`Orders`], held open up to `wait` seconds while there is nothing new |
//! | `GET /trust/anchor` | | the keys of those whose images are taken here; believed once |
//! | `GET /trust/succession` | | JSON list of texts: by which a key names the one that follows it |
//!
//! Two requests for the state may be under way at once: one that is held, and one with `wait=0` that says what changed. A secret that is
//! known needs no token, and a token that was used does not harm beside it. A server whose own generation is lower than a report's was put
//! back from a backup: it gives its state a higher one, since a DPU refuses a lower.
//!
//! `state` carries `Authorization: Bearer <secret>`, the secret of the [`Hello`]; 401 means: say hello again. A DPU makes its secret itself, once,
//! and keeps it; the server keeps its digest. So nobody who reads the server's database can be the DPU, and a DPU that lost its disk is a
//! stranger until somebody accepts it anew.

use serde::{Deserialize, Serialize};

use crate::agent::Password;
use crate::counters::Counters;
use crate::dpu::{Desired, Observed};
use crate::ids::{DpuId, MacAddr};

/// Largest hello, in octets.
pub const HELLO_MAX: usize = 32 << 10;
/// Octets of a secret, before it is written as hexadecimal digits.
pub const SECRET_OCTETS: usize = 32;

/// A DPU introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`VERSION`](crate::dpu::VERSION).
    pub version: u32,
    /// Version of the program.
    pub agent_version: String,
    /// 64 hexadecimal digits that nobody else knows.
    pub secret: Password,
    /// One-time token from whoever registered the DPU; without one, somebody has to accept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Password>,
    /// What it is.
    pub facts: Facts,
}

/// What a DPU says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Host name.
    pub hostname: String,
    /// Serial number of the DPU (SMBIOS, or the device tree).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Model, such as `BlueField-3 P-Series`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Version of its kernel.
    pub kernel: String,
    /// Versions of programs: Open vSwitch, OVN's controller, exporters.
    #[serde(default)]
    pub programs: Vec<Program>,
    /// Its own addresses.
    #[serde(default)]
    pub macs: Vec<MacAddr>,
    /// Functions that the host sees as NICs.
    #[serde(default)]
    pub functions: Vec<HostFunction>,
}

/// A program of the DPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Such as `ovs-vswitchd`.
    pub name: String,
    /// As it says itself.
    pub version: String,
}

/// A NIC of the host as the DPU has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFunction {
    /// The representor.
    pub interface: String,
    /// Address that the host's function has. The machine with this address is the DPU's host.
    pub mac: MacAddr,
}

/// The server's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Welcome {
    /// Ask for the state.
    Accepted {
        /// Which DPU it is.
        dpu: DpuId,
        /// Its name.
        name: String,
    },
    /// Say hello again in a while: somebody has to accept it.
    Waiting {
        /// What for, in words.
        why: String,
    },
}

/// What the DPU is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Of the state that it has, if any.
    pub generation: Option<u64>,
    /// As it is; left out where it did not change since the last report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Box<Observed>>,
    /// What its ports and disks carried; left out where nobody looked since the last report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Box<Counters>>,
}

/// What it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Orders {
    /// As you are.
    Same,
    /// Become this.
    State {
        /// The state.
        state: Box<Desired>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this test fails, do not change the test: DPUs that say and hear this are in racks.
    #[test]
    fn golden_version_1() {
        let hello = r#"{"version":1,"agent_version":"0.1.0","secret":"00ff","token":"once","facts":{"hostname":"dpu-17","serial":"MT2242X12345","model":"BlueField-3","kernel":"5.15.0","programs":[{"name":"ovs-vswitchd","version":"3.1.0"}],"macs":["e4:8b:01:a5:79:50"],"functions":[{"interface":"pf0hpf","mac":"e4:8b:01:a5:79:5e"}]}}"#;
        again::<Hello>(hello);
        again::<Hello>(
            r#"{"version":1,"agent_version":"0.1.0","secret":"00ff","facts":{"hostname":"a","kernel":"b","programs":[],"macs":[],"functions":[]}}"#,
        );
        again::<Welcome>(
            r#"{"kind":"accepted","dpu":"5f6a4e3e-0000-4000-8000-000000000001","name":"dpu-17"}"#,
        );
        again::<Welcome>(r#"{"kind":"waiting","why":"nobody accepted it"}"#);
        again::<Report>(r#"{"generation":7}"#);
        again::<Report>(r#"{"generation":null}"#);
        again::<Report>(r#"{"generation":7,"counters":{"ports":[],"volumes":[]}}"#);
        again::<Orders>(r#"{"kind":"same"}"#);
        let state: serde_json::Value = serde_json::from_str(include_str!("dpu.v1.json")).unwrap();
        let orders: Orders =
            serde_json::from_value(serde_json::json!({ "kind": "state", "state": state })).unwrap();
        assert!(matches!(orders, Orders::State { state } if state.generation == 7));
    }

    fn again<T: Serialize + serde::de::DeserializeOwned>(text: &str) {
        let value: T = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), text);
    }
}
