//! A desired state that can be carried out, or what is wrong with it.

mod volumes;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use protocol::dpu::{
    Access, Desired, InterfaceName, MIRRORS_MAX, PORTS_MAX, STATE_MAX, VERSION, VOLUMES_MAX,
};

/// Octets of another path (`PATH_MAX` of Linux, without the NUL).
const PATH_MAX: usize = 4095;
/// MTU in octets: what IPv4 asks of every host, and what common cards take at most.
const MTU: std::ops::RangeInclusive<u16> = 576..=9978;
/// Largest rate, in thousands of bits per second: 1 Tbit/s.
const RATE_MAX: u64 = 1_000_000_000;
/// The integration bridge.
pub const BRIDGE: &str = "br-int";

/// A desired state that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State(Desired);

/// Why a text is no state that can be carried out.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Too long.
    #[error("the state has {0} octets; at most {STATE_MAX} are taken")]
    Long(usize),
    /// No JSON, or of another shape.
    #[error("the state cannot be read")]
    Shape(#[from] serde_json::Error),
    /// Of another version.
    #[error("the state is of version {0}; this program knows version {VERSION}: upgrade it")]
    Version(u32),
    /// It contradicts itself, or has what cannot be.
    #[error("{0}")]
    Wrong(Problems),
}

/// What is wrong, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

/// Why a state does not take the place of another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// It is older.
    #[error("generation {new} is older than generation {have}, which is followed already")]
    Older {
        /// Followed now.
        have: u64,
        /// Of the new one.
        new: u64,
    },
    /// Two states have one generation.
    #[error("generation {0} is followed already, with other contents: a change needs a higher generation")]
    Same(u64),
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl State {
    /// Reads a state.
    ///
    /// # Errors
    /// [`StateError`], with all that is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, StateError> {
        if text.len() > STATE_MAX {
            return Err(StateError::Long(text.len()));
        }
        Self::check(serde_json::from_slice(text)?)
    }

    /// Checks a state.
    ///
    /// # Errors
    /// [`StateError::Version`], [`StateError::Wrong`].
    pub fn check(desired: Desired) -> Result<Self, StateError> {
        if desired.version != VERSION {
            return Err(StateError::Version(desired.version));
        }
        let mut wrong = Vec::new();
        counts(&desired, &mut wrong);
        chassis(&desired, &mut wrong);
        ports(&desired, &mut wrong);
        mirrors(&desired, &mut wrong);
        volumes::volumes(&desired, &mut wrong);
        functions(&desired, &mut wrong);
        if wrong.is_empty() { Ok(Self(desired)) } else { Err(StateError::Wrong(Problems(wrong))) }
    }

    /// What it says.
    pub fn desired(&self) -> &Desired {
        &self.0
    }

    /// Whether it may take the place of `have`: true where it is another. An older one that says the same is neither taken
    /// nor refused: so it is after the server's database was put back from a backup, where nothing changed meanwhile.
    ///
    /// # Errors
    /// [`Stale`].
    pub fn follows(&self, have: Option<&Self>) -> Result<bool, Stale> {
        let Some(have) = have else { return Ok(true) };
        let (have_generation, new) = (have.0.generation, self.0.generation);
        match new.cmp(&have_generation) {
            std::cmp::Ordering::Greater => Ok(true),
            std::cmp::Ordering::Equal if self == have => Ok(false),
            std::cmp::Ordering::Equal => Err(Stale::Same(new)),
            std::cmp::Ordering::Less if self.says_the_same(have) => Ok(false),
            std::cmp::Ordering::Less => Err(Stale::Older { have: have_generation, new }),
        }
    }
}

impl State {
    /// True where the generation is all that differs.
    fn says_the_same(&self, other: &Self) -> bool {
        let generation = other.0.generation;
        Desired { generation, ..self.0.clone() } == other.0
    }
}

/// Names what is there twice.
fn once<T: Ord + fmt::Display>(what: &str, all: impl IntoIterator<Item = T>, wrong: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for item in all {
        let line = format!("{what} {item} is named twice");
        if !seen.insert(item) && !wrong.contains(&line) {
            wrong.push(line);
        }
    }
}

fn functions(desired: &Desired, wrong: &mut Vec<String>) {
    if let Some(Err(error)) = desired.functions.map(|plan| plan.check()) {
        wrong.push(format!("functions: {error}"));
    }
}

fn counts(desired: &Desired, wrong: &mut Vec<String>) {
    for (what, count, most) in [
        ("ports", desired.ports.len() + desired.provisioning.len(), PORTS_MAX),
        ("mirrors", desired.mirrors.len(), MIRRORS_MAX),
        ("volumes", desired.volumes.len(), VOLUMES_MAX),
        ("layers that are to go", desired.discard.len(), VOLUMES_MAX),
    ] {
        if count > most {
            wrong.push(format!("{count} {what} are too many: a DPU has {most} at most"));
        }
    }
}

fn chassis(desired: &Desired, wrong: &mut Vec<String>) {
    let chassis = &desired.chassis;
    let id = &chassis.system_id;
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if id.is_empty() || id.len() > 64 || !id.bytes().all(good) {
        wrong.push(format!("system_id `{id}` is not 1 to 64 letters, digits, `-`, `_` and `.`"));
    }
    let is_remote = |remote: &str| {
        let rest = remote.strip_prefix("tcp:").or_else(|| remote.strip_prefix("ssl:"));
        let is_address = |rest: &str| rest.parse::<SocketAddr>().is_ok_and(|address| address.port() > 0);
        rest.is_some_and(is_address)
            || remote.strip_prefix("unix:").is_some_and(|path| absolute(path, PATH_MAX))
    };
    if !chassis.ovn_remote.split(',').all(is_remote) {
        wrong.push(format!(
            "ovn_remote `{}` is not tcp:ADDRESS:PORT, ssl:ADDRESS:PORT or unix:/PATH, or several of them with commas",
            chassis.ovn_remote
        ));
    }
    if chassis.encap.address.is_unspecified() || chassis.encap.address.is_multicast() {
        wrong.push(format!("encap address {} is not that of one machine", chassis.encap.address));
    }
    mtu(BRIDGE, chassis.mtu, wrong);
}

fn mtu(of: &str, mtu: Option<u16>, wrong: &mut Vec<String>) {
    if let Some(mtu) = mtu.filter(|mtu| !MTU.contains(mtu)) {
        wrong.push(format!("MTU {mtu} of {of} is not from {} to {}", MTU.start(), MTU.end()));
    }
}

fn ports(desired: &Desired, wrong: &mut Vec<String>) {
    let here = || desired.ports.iter().map(|port| (&port.interface, port.mac));
    let access = || desired.provisioning.iter().map(|access| (&access.interface, access.mac));
    once("interface", here().chain(access()).map(|(interface, _)| interface), wrong);
    once("logical port", desired.ports.iter().map(|port| port.port), wrong);
    once("MAC address", here().chain(access()).map(|(_, mac)| mac), wrong);
    let is_bridge = |name: &str| desired.provisioning.iter().any(|access| access.bridge.as_str() == name);
    for (name, mac) in here().chain(access()) {
        if name.as_str() == BRIDGE || is_bridge(name.as_str()) {
            wrong.push(format!("{name} is a bridge itself and cannot be plugged into one"));
        }
        if !mac.is_station() {
            wrong.push(format!("MAC address {mac} of {name} is not that of one station"));
        }
    }
    if is_bridge(BRIDGE) {
        wrong.push(format!("{BRIDGE} is OVN's bridge and has no other network"));
    }
    for port in &desired.ports {
        let name = &port.interface;
        mtu(name.as_str(), port.mtu, wrong);
        let ingress = port.ingress.into_iter().flat_map(|rate| [rate.kbps, rate.burst_kb]);
        if !ingress.chain(port.egress_kbps).all(|n| (1..=RATE_MAX).contains(&n)) {
            wrong.push(format!("rates and bursts of {name} are from 1 to {RATE_MAX} thousand bits"));
        }
    }
}

fn mirrors(desired: &Desired, wrong: &mut Vec<String>) {
    once("mirror", desired.mirrors.iter().map(|mirror| &mirror.name), wrong);
    once("mirror output", desired.mirrors.iter().map(|mirror| &mirror.output), wrong);
    let is_port = |interface: &InterfaceName| desired.ports.iter().any(|port| port.interface == *interface);
    for mirror in &desired.mirrors {
        let name = &mirror.name;
        if !is_port(&mirror.source) {
            wrong.push(format!("mirror {name} copies {}, which is none of the ports", mirror.source));
        }
        let is_used = |access: &Access| [&access.interface, &access.bridge].contains(&&mirror.output);
        if is_port(&mirror.output)
            || mirror.output.as_str() == BRIDGE
            || desired.provisioning.iter().any(is_used)
        {
            wrong.push(format!(
                "mirror {name} leaves by {}, which a host or the switch itself uses",
                mirror.output
            ));
        }
        if let Some(gre) =
            mirror.gre.as_ref().filter(|gre| gre.remote.is_unspecified() || gre.remote.is_multicast())
        {
            wrong.push(format!("the other end {} of mirror {name} is not one machine", gre.remote));
        }
    }
}

/// Written in one way only, so that two texts are two files.
fn absolute(path: &str, most: usize) -> bool {
    let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
    path.len() <= most && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> serde_json::Value {
        serde_json::from_str(include_str!("../../../protocol/src/dpu.v1.json")).unwrap()
    }

    #[test]
    fn a_good_state_is_taken() {
        let state = State::check(serde_json::from_value(golden()).unwrap()).unwrap();
        assert_eq!(state.desired().generation, 7);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let access = |interface: &str, bridge: &str| serde_json::json!([{ "interface": interface, "mac": "52:54:00:00:00:02", "bridge": bridge }]);
        let cases: [(&str, serde_json::Value, &str); 25] = [
            ("/version", 2.into(), "version 2"),
            ("/chassis/system_id", "a b".into(), "system_id `a b`"),
            ("/chassis/ovn_remote", "tcp:192.0.2.1".into(), "ovn_remote"),
            ("/chassis/ovn_remote", "tcp:192.0.2.1:0".into(), "ovn_remote"),
            ("/chassis/encap/address", "0.0.0.0".into(), "encap address"),
            ("/chassis/mtu", 70.into(), "MTU 70 of br-int"),
            ("/ports/0/interface", "br-int".into(), "a bridge itself"),
            ("/provisioning", access("pf0hpf", "br-p"), "interface pf0hpf is named twice"),
            ("/provisioning", access("pf1hpf", "pf0hpf"), "pf0hpf is a bridge itself"),
            ("/provisioning", access("pf1hpf", "br-int"), "br-int is OVN's bridge"),
            ("/provisioning", access("gre-watch", "br-p"), "leaves by gre-watch"),
            ("/ports/0/mac", "ff:ff:ff:ff:ff:ff".into(), "one station"),
            ("/ports/0/mtu", 10_000.into(), "MTU 10000 of pf0hpf"),
            ("/ports/0/ingress/kbps", 0.into(), "bursts of pf0hpf"),
            ("/ports/0/egress_kbps", 0.into(), "bursts of pf0hpf"),
            ("/mirrors/0/source", "other".into(), "none of the ports"),
            ("/mirrors/0/output", "pf0hpf".into(), "leaves by pf0hpf"),
            ("/mirrors/0/gre/remote", "::".into(), "not one machine"),
            ("/volumes/0/serial", "a b".into(), "serial `a b`"),
            ("/volumes/0/socket", "run/x".into(), "socket of volume boot"),
            ("/volumes/0/exporter/serves/layer", "/a/../b".into(), "layer of volume boot"),
            ("/volumes/0/exporter/serves/store", "ftp://x".into(), "store `ftp://x`"),
            ("/volumes/0/exporter/serves/store", "http://billet:8080".into(), "store `http://billet:8080`"),
            ("/volumes/0/exporter/serves/size", 1000.into(), "size of volume boot"),
            ("/volumes/1/socket", "/run/billet-dpu/boot.sock".into(), "named twice"),
        ];
        for (place, value, words) in cases {
            let mut state = golden();
            state["provisioning"] = serde_json::json!([]);
            *state.pointer_mut(place).unwrap() = value;
            let error = State::check(serde_json::from_value(state).unwrap()).unwrap_err().to_string();
            assert!(error.contains(words), "{place}: {error}");
        }
        let mut state = golden();
        let ports = state["ports"].as_array_mut().unwrap();
        *ports = vec![ports[0].clone(); PORTS_MAX + 1];
        let error = State::check(serde_json::from_value(state).unwrap()).unwrap_err().to_string();
        assert!(
            error.contains("513 ports are too many") && error.contains("interface pf0hpf is named twice"),
            "{error}"
        );
        assert!(matches!(State::parse(&vec![b' '; STATE_MAX + 1]), Err(StateError::Long(_))));
        assert!(matches!(State::parse(b"{"), Err(StateError::Shape(_))));
    }

    #[test]
    fn generations_grow() {
        let of = |generation: u64, id: &str| {
            let mut state = golden();
            state["generation"] = generation.into();
            state["chassis"]["system_id"] = id.into();
            State::check(serde_json::from_value(state).unwrap()).unwrap()
        };
        let have = of(5, "a");
        assert_eq!(have.follows(None), Ok(true));
        assert_eq!(of(6, "b").follows(Some(&have)), Ok(true));
        assert_eq!(of(5, "a").follows(Some(&have)), Ok(false));
        assert_eq!(of(5, "b").follows(Some(&have)), Err(Stale::Same(5)));
        assert_eq!(of(4, "b").follows(Some(&have)), Err(Stale::Older { have: 5, new: 4 }));
        assert_eq!(of(4, "a").follows(Some(&have)), Ok(false));
    }
}
