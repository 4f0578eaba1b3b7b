//! What an installed OS may ask of its own server: the same facts in the forms of three clouds, as small files in a tree.
//!
//! ```text
//! Instance ─▶ nocloud | ec2 | openstack ─▶ files ─▶ HTTP (token or network proof)
//!                                             └───▶ config drive, written by the agent
//! ignition: the user's own config, merged over what Billet adds
//! ```
//!
//! Every value is written by a JSON writer (JSON is YAML) or stands alone in its file. Who asks, and how that was
//! proved, is the shell's business; what a proof is good for is decided here.

mod ec2;
pub mod hostkey;
pub mod ignition;
pub mod neighbour;
mod nocloud;
pub mod openstack;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use protocol::{JobId, MacAddr, Timestamp};
use serde::{Deserialize, Serialize};

use crate::node::StaticNetwork;

pub use ec2::VERSIONS as EC2_VERSIONS;
pub use images::Datasource;

/// Everything that one installed OS may know of itself. Kept sealed, from the deploy to the end of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Instance id: the same until the next deploy.
    pub id: JobId,
    /// Host name.
    pub hostname: String,
    /// Name and version of the image.
    pub image: String,
    /// `x86_64` or `aarch64`.
    pub architecture: String,
    /// When the deploy was asked for.
    pub created: Timestamp,
    /// SSH public keys.
    pub ssh_keys: Vec<String>,
    /// Its ports.
    pub macs: Vec<MacAddr>,
    /// The port that has, or will have, its address.
    pub port: Option<MacAddr>,
    /// Its network settings, where it gets none by DHCP.
    pub network: Option<StaticNetwork>,
    /// cloud-init's network config, version 2, where there is one.
    pub network_config: Option<String>,
    /// As the user gave it.
    pub user_data: Option<String>,
    /// What Billet adds: login, keys, phone-home.
    pub vendor_data: String,
}

/// How it was proved that an OS asks for its own data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By its token, which only its disk and this server know.
    Token,
    /// By the network: the address it asks from is lent to it, and the neighbour table has one of its ports there.
    Network {
        /// The operator lets secrets out by this alone.
        secrets: bool,
    },
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A file.
    File {
        /// Media type.
        kind: &'static str,
        /// Its text.
        text: String,
    },
    /// Names, one a line.
    Listing(String),
    /// A file that this proof is too weak for.
    Secret,
    /// Nothing.
    Nothing,
}

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path, without a slash at its begin or end.
    pub path: String,
    /// Media type.
    kind: &'static str,
    /// Only for who proved itself by a token.
    secret: bool,
    /// Its text.
    pub text: String,
}

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const JSON: &str = "application/json";
pub(crate) const YAML: &str = "text/yaml; charset=utf-8";

impl File {
    fn new(path: impl Into<String>, kind: &'static str, text: impl Into<String>) -> Self {
        Self { path: path.into(), kind, secret: false, text: text.into() }
    }

    fn secret(self) -> Self {
        Self { secret: true, ..self }
    }
}

/// Longest path that is looked at, in octets: twice the longest that exists.
const PATH_MAX: usize = 256;

/// What `instance` gets at `path`, which begins behind the token or at the root; it asks from `address`. The form
/// follows from the first segment: `openstack`, a version of EC2 (`latest`), else NoCloud.
pub fn look(instance: &Instance, path: &str, address: Option<Ipv4Addr>, proof: Proof) -> Found {
    if path.len() > PATH_MAX {
        return Found::Nothing;
    }
    let path = path.trim_matches('/');
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    match first {
        "openstack" => match rest.split_once('/').unwrap_or((rest, "")) {
            ("", _) => Found::Listing(openstack::VERSIONS.join("\n")),
            (version, rest) if openstack::VERSIONS.contains(&version) => {
                find(&openstack::files(instance, version), rest, proof)
            }
            _ => Found::Nothing,
        },
        version if ec2::VERSIONS.contains(&version) => find(&ec2::files(instance, address), rest, proof),
        _ => find(&nocloud::files(instance), path, proof),
    }
}

/// The file or the names at `path`.
fn find(files: &[File], path: &str, proof: Proof) -> Found {
    if let Some(file) = files.iter().find(|file| file.path == path) {
        return match (file.secret, proof) {
            (true, Proof::Network { secrets: false }) => Found::Secret,
            _ => Found::File { kind: file.kind, text: file.text.clone() },
        };
    }
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    let names: BTreeSet<String> = files
        .iter()
        .filter_map(|file| file.path.strip_prefix(&prefix))
        .map(|rest| match rest.split_once('/') {
            Some((name, _)) => format!("{name}/"),
            None => rest.to_owned(),
        })
        .collect();
    if names.is_empty() {
        return Found::Nothing;
    }
    // A key is named with its comment (`0=name`), which is how EC2 lists them and cloud-init reads them.
    let of_keys = prefix.ends_with("meta-data/public-keys/");
    let name = |name: String| match name.strip_suffix('/') {
        Some(number) if of_keys => format!("{number}=key-{number}"),
        _ => name,
    };
    Found::Listing(names.into_iter().map(name).collect::<Vec<_>>().join("\n"))
}

pub(crate) fn pretty(value: &serde_json::Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
