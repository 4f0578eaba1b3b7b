//! Fuzz targets: for each parser that hostile octets can reach, one function that feeds it and asserts what must hold.
//!
//! The targets are plain functions, so that three things can call them: the test `replay` (every committed input and
//! seeded mutations of them, on every run of the tests), `cargo xtask fuzz` (libFuzzer with coverage, for as long as one
//! likes), and a person with one file. A target panics where something does not hold.

#![expect(clippy::panic, reason = "a target tells by a panic that something does not hold")]

use std::path::{Path, PathBuf};

mod agent;
mod bundle;
mod dhcp4;
mod dhcp6;
mod input;
mod ipmi;
mod ipxe;
mod manifest;
mod ovsdb;
mod redfish;
mod signature;
mod tftp;
mod tpm;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Takes any octets; panics where something that must hold does not.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "agent_report", run: agent::run },
    Target { name: "bundle", run: bundle::run },
    Target { name: "dhcp4", run: dhcp4::run },
    Target { name: "dhcp6", run: dhcp6::run },
    Target { name: "ipmi", run: ipmi::run },
    Target { name: "ipxe_request", run: ipxe::run },
    Target { name: "manifest", run: manifest::run },
    Target { name: "ovsdb", run: ovsdb::run },
    Target { name: "redfish", run: redfish::run },
    Target { name: "signature", run: signature::run },
    Target { name: "tftp", run: tftp::run },
    Target { name: "tpm", run: tpm::run },
];

/// Directory of a target's committed inputs.
pub fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Runs the target of this name.
///
/// # Panics
/// Where there is none, and where the target does.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|t| t.name == name);
    (target.expect("a target of this name").run)(data);
}
