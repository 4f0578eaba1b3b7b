//! What a DPU is to be ([`Desired`]), and what it says that it is ([`Observed`]).
//!
//! A desired state is whole: what it does not name is not to be there, as far as it is Billet's. It carries a generation, which
//! grows with each change.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::agent::Password;
use crate::functions::{FunctionPlan, FunctionsSeen};
use crate::ids::{ImageId, MacAddr, PortId};
use crate::job::CloudConfig;

/// Version of these types.
pub const VERSION: u32 = 1;
/// Largest desired state, in octets: [`PORTS_MAX`] ports of either kind, [`MIRRORS_MAX`] mirrors and [`VOLUMES_MAX`] volumes without configs fit in half of it.
pub const STATE_MAX: usize = 1 << 20;
/// Ports of a DPU: two physical functions with 127 virtual ones each, and room for as many again.
pub const PORTS_MAX: usize = 512;
/// Mirrors of a bridge: Open vSwitch has 32 (`MAX_MIRRORS`).
pub const MIRRORS_MAX: usize = 32;
/// Volumes of a DPU: virtio functions of a SNAP-4 emulation manager.
pub const VOLUMES_MAX: usize = 256;
/// The bridge of a DPU that has the provisioning network's wire, where nobody gave it another name.
pub const PROVISIONING_BRIDGE: &str = "br-provision";
/// Seconds that a request waits for a backend that is away, where a volume does not say how long.
pub const DEADLINE: u32 = 300;
/// Wrong chunks of a volume that a report names.
pub const WRONG_MAX: usize = 8;
/// Most seconds that it can wait: a day.
pub const DEADLINE_MAX: u32 = 86_400;

/// What a DPU is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// [`VERSION`].
    pub version: u32,
    /// Grows with each change of the state.
    pub generation: u64,
    /// Settings of the switch.
    pub chassis: Chassis,
    /// What is plugged into OVN's bridge.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// What is plugged into the provisioning network instead: while a host is deployed, its ports are here and not in
    /// [`ports`](Self::ports).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provisioning: Vec<Access>,
    /// Copies of traffic.
    #[serde(default)]
    pub mirrors: Vec<Mirror>,
    /// Disks of the host.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// Which functions the host gets; left out, the firmware is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<FunctionPlan>,
    /// Layers of instant volumes that nobody needs any more: what is on them is lost. A layer that is in neither list stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discard: Vec<Discard>,
}

/// A layer that is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discard {
    /// The volume that it was of.
    pub name: Name,
    /// Its directory: absolute path.
    pub layer: String,
}

/// Settings of the switch that OVN's controller reads (`ovn-controller(8)`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chassis {
    /// Name of the DPU in OVN: 1 to 64 characters.
    pub system_id: String,
    /// OVN's southbound database: `tcp:` or `ssl:` with address and port, several with commas.
    pub ovn_remote: String,
    /// Tunnels.
    pub encap: Encap,
    /// Who forwards.
    #[serde(default)]
    pub datapath: Datapath,
    /// MTU of the interface `br-int`, in octets; left out, it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

/// Tunnels of a chassis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encap {
    /// How packets are wrapped.
    pub kind: EncapKind,
    /// Own end.
    pub address: IpAddr,
}

/// How packets are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncapKind {
    /// RFC 8926.
    Geneve,
    /// RFC 7348; OVN then has 4,095 networks at most.
    Vxlan,
}

/// Who forwards packets of the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Datapath {
    /// The kernel, or the DPU's hardware by way of it.
    #[default]
    System,
    /// Open vSwitch itself, in user space.
    Netdev,
}

/// An interface that is plugged into `br-int`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The representor of the host's function.
    pub interface: InterfaceName,
    /// The logical port; OVN knows it by this id (`iface-id`).
    pub port: PortId,
    /// Address of the host's function.
    pub mac: MacAddr,
    /// In octets, 576 to 9978 (`dev_max_mtu` of common cards is 9,978 or more); left out, it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Limit of what the host sends: more is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Rate>,
    /// Limit of what the host gets, in thousands of bits per second, from 1 to 10^9: more is queued, then dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_kbps: Option<u64>,
}

/// An interface that is plugged into a bridge of the DPU that is there already, with the wire of another network than OVN's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// The representor of the host's function.
    pub interface: InterfaceName,
    /// Address of the host's function.
    pub mac: MacAddr,
    /// The bridge, such as [`PROVISIONING_BRIDGE`]. Neither it nor its wire is made by the agent.
    pub bridge: InterfaceName,
}

/// A limit of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Thousands of bits per second, from 1 to 10^9.
    pub kbps: u64,
    /// Thousands of bits above the rate that may come at once, from 1 to 10^9.
    pub burst_kb: u64,
}

/// A copy of a port's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Names the mirror.
    pub name: Name,
    /// Whose traffic: one of the state's ports.
    pub source: InterfaceName,
    /// Which of it.
    #[serde(default)]
    pub direction: Direction,
    /// Where the copy leaves: an interface of the DPU, or the name that the tunnel gets.
    pub output: InterfaceName,
    /// The copy leaves by a GRE tunnel; without it, by the interface itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gre: Option<Gre>,
}

/// Which traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// What the host sends and gets.
    #[default]
    Both,
    /// What the host sends.
    FromHost,
    /// What the host gets.
    ToHost,
}

/// A GRE tunnel (RFC 2890).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gre {
    /// Other end.
    pub remote: IpAddr,
    /// Key in each packet.
    pub key: u32,
}

/// A disk of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Names the volume on this DPU.
    pub name: Name,
    /// Serial number that the host sees: up to 20 printable ASCII characters without spaces.
    #[serde(default)]
    pub serial: String,
    /// The vhost-user socket: an absolute path of up to 103 octets.
    pub socket: String,
    /// Who serves it, and what.
    pub exporter: Exporter,
    /// Limits; without, it is as fast as it can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<IoLimits>,
    /// Seconds, from 1 to [`DEADLINE_MAX`], that the host's requests wait for a backend that is away before they are errors;
    /// [`DEADLINE`] where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u32>,
    /// The host is to boot from it: of its disks it comes first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub boot: bool,
    /// The backend holds its bytes encrypted; with the exporter `qsd` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// An image that is written into it before its host can have it; with the exporters `qsd`, and `blk` of a file. A volume that has
    /// its image is not written again; who knows that it has leaves this out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<Fill>,
}

/// An image that a DPU writes into a volume: its chunks are verified, its holes are zeros, all is read back, and until that is done the
/// volume does not boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fill {
    /// The image.
    pub image: ImageId,
    /// Where it is: URL of the provisioning listener, or absolute path of an image store.
    pub store: String,
    /// Files of the config partition. `None` adds none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<CloudConfig>,
    /// Grow the last partition to the end of the volume.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grow_root: bool,
}

/// How the bytes of a volume are encrypted on their way to its backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Encryption {
    /// LUKS version 1: the backend begins with a header of [`LUKS_HEADER`] bytes, the volume follows.
    Luks {
        /// The passphrase: 16 to 512 printable ASCII characters without spaces.
        key: Password,
    },
}

/// Bytes of a LUKS header that Billet makes; the volume follows it.
pub const LUKS_HEADER: u64 = 2 << 20;

/// Who serves a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Exporter {
    /// `billet-blk`.
    Blk {
        /// What it serves.
        serves: Serves,
    },
    /// `qemu-storage-daemon` behind `billet-blk`: any backend but NVMe/TCP.
    Qsd {
        /// What it serves.
        backend: Backend,
    },
    /// An SPDK target that runs already, by vhost-user: any backend but NBD. The socket lies in its directory.
    Spdk {
        /// What it serves.
        backend: Backend,
    },
    /// NVIDIA's SNAP-4 on a BlueField, as a virtio-blk function: any backend but NBD.
    Snap {
        /// What it serves.
        backend: Backend,
        /// Whose disk it is.
        #[serde(default)]
        function: Function,
    },
}

/// A function of the host that SNAP makes a disk of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Function {
    /// One that is made for the volume, plugged into the running host and out of it.
    #[default]
    Hotplug,
    /// A physical function that is always there. Whether the host uses it cannot be told: switch the host off before the
    /// volume is taken away.
    Pf {
        /// Its number.
        pf: u16,
    },
    /// A virtual function; as with a physical one.
    Vf {
        /// Number of the physical function.
        pf: u16,
        /// Its number there.
        vf: u16,
    },
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hotplug => f.write_str("a plugged-in function"),
            Self::Pf { pf } => write!(f, "virtio-blk function {pf}"),
            Self::Vf { pf, vf } => write!(f, "virtual function {vf} of virtio-blk function {pf}"),
        }
    }
}

/// Where the bytes of a volume are, beyond the DPU or on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Backend {
    /// A file or a block device of the DPU itself.
    File {
        /// Absolute path. What lies under `/dev/`, but for `/dev/shm/`, is a block device.
        path: String,
    },
    /// A logical unit of an iSCSI target (RFC 7143).
    Iscsi {
        /// Address and port of the portal, such as `10.77.0.1:3260`.
        portal: String,
        /// Name of the target (`iqn.…`).
        target: String,
        /// Logical unit.
        lun: u32,
        /// Name that is given to the target; the program's own where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initiator: Option<String>,
        /// Proof of who asks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        chap: Option<Chap>,
    },
    /// An image of Ceph.
    Rbd {
        /// Addresses and ports of the monitors.
        monitors: Vec<String>,
        /// Pool.
        pool: String,
        /// Image.
        image: String,
        /// User without `client.`, such as `billet`.
        user: String,
        /// Its key (base64).
        key: Password,
    },
    /// A namespace over NVMe/TCP.
    NvmeTcp {
        /// Address and port, such as `10.77.0.1:4420`.
        address: String,
        /// Name of the subsystem (`nqn.…`).
        subsystem: String,
        /// Namespace.
        namespace: u32,
    },
    /// An export of a server of the Network Block Device protocol.
    Nbd {
        /// Address and port, such as `10.77.0.1:10809`.
        address: String,
        /// Export.
        export: String,
    },
}

/// Proof of who asks (RFC 7143 section 13.11, RFC 1994).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chap {
    /// User.
    pub user: String,
    /// 12 to 16 octets.
    pub password: Password,
}

/// Limits of a disk; what is above waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoLimits {
    /// Requests per second, of reads and writes together, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Bytes per second, of reads and writes together, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

/// What `billet-blk` serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
#[expect(clippy::large_enum_variant, reason = "a few per DPU, and most are the large one")]
pub enum Serves {
    /// A file or a block device as it is.
    File {
        /// Absolute path.
        path: String,
        /// Writes are refused.
        #[serde(default)]
        read_only: bool,
    },
    /// An image under a copy-on-write layer.
    Image {
        /// The image.
        image: ImageId,
        /// Where it is: URL of the provisioning listener, or absolute path of an image store.
        store: String,
        /// Directory of the layer: absolute path.
        layer: String,
        /// Bytes, a multiple of 512; the image's smallest disk where left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        /// Bytes per second of what nobody waits for; 0 is without limit, left out is `billet-blk`'s own default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate: Option<u64>,
        /// Files of the config partition, which is added before the host has the disk for the first time; looked at then and
        /// never again. `None` adds none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        config: Option<CloudConfig>,
        /// Grow the last partition to the end of the volume, then too. With this or `config` the partition table is made to
        /// fit the volume, without both the image stays as it is.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        grow_root: bool,
    },
}

/// What a DPU says that it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// [`VERSION`].
    pub version: u32,
    /// Of the desired state that it follows; `None` where it never had one.
    pub generation: Option<u64>,
    /// All is as that state says.
    pub settled: bool,
    /// What keeps it from being so, in words.
    pub problems: Vec<String>,
    /// Billet's ports as the switch has them.
    pub ports: Vec<PortSeen>,
    /// Names of Billet's mirrors that the switch has.
    pub mirrors: Vec<String>,
    /// Exporters that were started here.
    pub volumes: Vec<VolumeSeen>,
    /// Functions as the firmware has them, where there is a plan of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<FunctionsSeen>,
    /// Of the state's layers that were to go, those that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discarded: Vec<Name>,
}

/// A port as the switch has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSeen {
    /// The interface.
    pub interface: String,
    /// The logical port, unless it is a mirror's output or on another bridge than OVN's.
    pub port: Option<String>,
    /// The bridge, where it is not OVN's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Its number in the switch (OpenFlow); `None` where it has none.
    pub number: Option<i64>,
    /// True where the link is up.
    pub up: bool,
    /// What Open vSwitch says against it.
    pub error: Option<String>,
}

/// An exporter as it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSeen {
    /// The volume.
    pub name: Name,
    /// Its process; `None` where it does not run.
    pub pid: Option<u32>,
    /// A host is connected, or was a moment ago.
    pub in_use: bool,
    /// How often it was started again since this agent runs.
    pub restarts: u32,
    /// Whether the host's bus has the disk; `None` where nobody can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugged: Option<bool>,
    /// Of an instant volume, or one that an image is written into: how much of its image is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instant: Option<Box<InstantSeen>>,
}

/// How far a volume is whose image comes by its exporter: an instant volume, or one with a [`Fill`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstantSeen {
    /// It became what it is to be: its config is not looked at again. Of a volume with a fill: it was written wholly and read back.
    pub adapted: bool,
    /// Percent of the image's chunks that are here. Of a volume with a fill: of writing and reading back.
    pub percent: u8,
    /// Bytes of the image's data that are here.
    pub bytes: u64,
    /// All of the image is here.
    pub hydrated: bool,
    /// The image store does not answer, for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away: Option<String>,
    /// Chunks whose bytes were not those that the image names, the last [`WRONG_MAX`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<WrongChunk>,
    /// Why it could not be served, the last time that it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A chunk with other bytes than the image names: an I/O error to the host, never data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrongChunk {
    /// Its number in the image.
    pub chunk: u32,
    /// Its name.
    pub id: String,
    /// What is wrong.
    pub reason: String,
}

/// A text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}")]
pub struct NameError {
    text: String,
    what: &'static str,
}

macro_rules! name {
    ($name:ident, $what:literal, $doc:literal, $fits:expr) => {
        #[doc = $doc]
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                let fits: fn(&str) -> bool = $fits;
                if fits(&text) {
                    return Ok(Self(text));
                }
                Err(NameError { text: text.chars().take(80).collect(), what: $what })
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    InterfaceName,
    "name of an interface (1 to 15 printable ASCII characters without spaces, `/` and `:`)",
    "A network interface, as the kernel takes its name (`dev_valid_name`).",
    |text| {
        (1..=15).contains(&text.len())
            && !matches!(text, "." | "..")
            && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':'))
    }
);
name!(
    Name,
    "name of a volume or mirror (1 to 64 of letters, digits, `-`, `_` and `.`, beginning with a letter or digit)",
    "Names a volume or a mirror; good as the name of a file.",
    |text| {
        (1..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    /// If this test fails, do not change the test: DPUs with this text are in racks.
    #[test]
    fn golden_version_1() {
        for text in [
            include_str!("dpu.v1.json"),
            include_str!("dpu-provisioning.v1.json"),
            include_str!("dpu-discard.v1.json"),
        ] {
            let state: Desired = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string_pretty(&state).unwrap(), text.trim_end());
        }
        let text = include_str!("dpu-instant.v1.json");
        let volumes: Vec<Volume> = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string_pretty(&volumes).unwrap(), text.trim_end());
        let text = include_str!("dpu-backends.v1.json");
        let volumes: Vec<Volume> = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string_pretty(&volumes).unwrap(), text.trim_end());
        let text = include_str!("dpu-encrypted.v1.json");
        let volumes: Vec<Volume> = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string_pretty(&volumes).unwrap(), text.trim_end());
        assert!(!format!("{volumes:?}").contains("passpass"));
        let text = include_str!("dpu-fill.v1.json");
        let volumes: Vec<Volume> = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string_pretty(&volumes).unwrap(), text.trim_end());
        assert!(!format!("{volumes:?}").contains("secretsecret"));
        for text in [include_str!("dpu-observed.v1.json"), include_str!("dpu-observed-instant.v1.json")] {
            let seen: Observed = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string_pretty(&seen).unwrap(), text.trim_end());
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let good: serde_json::Value = serde_json::from_str(include_str!("dpu.v1.json")).unwrap();
        for place in
            ["", "/chassis", "/chassis/encap", "/ports/0", "/ports/0/ingress", "/mirrors/0", "/mirrors/0/gre"]
                .into_iter()
                .chain([
                    "/volumes/0",
                    "/volumes/0/exporter",
                    "/volumes/0/exporter/serves",
                    "/volumes/1/exporter/serves",
                ])
        {
            let mut bad = good.clone();
            bad.pointer_mut(place).unwrap()["novel"] = 1.into();
            let error = serde_json::from_value::<Desired>(bad).unwrap_err().to_string();
            assert!(error.contains("novel"), "{place}: {error}");
        }
    }

    #[test]
    fn names() {
        for good in ["p", "pf0hpf", "en3f0pf0sf0", "a23456789012345"] {
            assert!(good.parse::<InterfaceName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a234567890123456", "ä"] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad}");
        }
        for bad in ["", ".a", "-a", "a/b", "a b", &"a".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert!("vol-1_a.b".parse::<Name>().is_ok());
    }
}
