//! `billet node approve-boot`, `billet node tpm`, `billet model learn-pcrs`: how far it is proven which machine a node is.

use boot_server_core::expected::Model;
use clap::{Args, Subcommand};

use super::Failure;
use super::client::{Client, encode};
use super::node::path;
use super::output::Format;
use crate::http::api::requests::{ApproveBootRequest, LearnMeasuredRequest, PinTpmRequest};
use crate::view::{NodeDetail, NodeView, TrustView};

/// `billet node approve-boot`.
#[derive(Debug, Args)]
pub struct ApproveBootArgs {
    /// Name or id
    node: String,
    /// Number of the boot, as `node show` says; the newest one where none is given
    #[arg(long)]
    boot: Option<u64>,
}

/// `billet node tpm …`.
#[derive(Debug, Subcommand)]
pub enum TpmCommand {
    /// Say that the TPM that the node's agent shows is its own
    Pin {
        /// Name or id
        node: String,
        /// Fingerprint of its endorsement key, as `node show` says; that of the one it shows where none is given
        #[arg(long)]
        ek: Option<protocol::Sha256>,
    },
    /// Forget the TPM of a node
    Unpin {
        /// Name or id
        node: String,
    },
}

/// `billet model learn-pcrs`.
#[derive(Debug, Args)]
pub struct LearnPcrsArgs {
    /// Name of the model
    name: String,
    /// Name or id of a machine that booted as it should, and whose agent is there
    #[arg(long)]
    node: String,
    /// Which registers; 0, 2, 4, 7 and 9 where none are given: firmware, loader, kernel, Secure Boot, ramdisk
    #[arg(long, value_delimiter = ',')]
    pcrs: Vec<u8>,
    /// Beside the values that are allowed already, as for a second version of firmware or ramdisk
    #[arg(long)]
    add: bool,
    /// Pin the first TPM that a machine shows to which somebody assigned this model
    #[arg(long)]
    trust_first_tpm: bool,
}

pub(super) fn approve(client: &Client, format: Format, args: &ApproveBootArgs) -> Result<(), Failure> {
    let boot = match args.boot {
        Some(boot) => boot,
        None => client.get::<NodeDetail>(&path(&args.node, ""))?.node.trust.boot,
    };
    let request = ApproveBootRequest { boot };
    format.print(&client.post::<_, NodeView>(&path(&args.node, "/approve-boot"), &request)?)
}

pub(super) fn tpm(client: &Client, format: Format, command: TpmCommand) -> Result<(), Failure> {
    match command {
        TpmCommand::Pin { node, ek } => {
            let shown = || -> Result<protocol::Sha256, Failure> {
                let trust = client.get::<NodeDetail>(&path(&node, ""))?.node.trust;
                let none = || Failure::Other("its agent shows no TPM".to_owned());
                Ok(trust.shown.ok_or_else(none)?.ek)
            };
            let ek = ek.map_or_else(shown, Ok)?;
            format.print(&client.put::<_, NodeView>(&path(&node, "/tpm"), &PinTpmRequest { ek })?)
        }
        TpmCommand::Unpin { node } => client.delete(&path(&node, "/tpm")),
    }
}

pub(super) fn learn_pcrs(client: &Client, format: Format, args: LearnPcrsArgs) -> Result<(), Failure> {
    let LearnPcrsArgs { name, node, pcrs, add, trust_first_tpm } = args;
    let request = LearnMeasuredRequest { node, pcrs, add, trust_first_tpm };
    format.print(&client.post::<_, Model>(&format!("models/{}/measured", encode(&name)), &request)?)
}

/// A line for `node show`.
pub(super) fn line(trust: &TrustView) -> String {
    match &trust.below_t3 {
        Some(below) if *below != trust.why => {
            format!("{}: {} (boot {}); not T3: {below}", trust.level, trust.why, trust.boot)
        }
        _ => format!("{}: {} (boot {})", trust.level, trust.why, trust.boot),
    }
}

/// The TPM for `node show`.
pub(super) fn tpm_line(trust: &TrustView) -> Option<String> {
    let pinned = trust.pinned.as_ref().map(|pin| format!("{} pinned by {}", pin.ek, pin.by));
    let shown = trust.shown.as_ref().filter(|_| trust.can_pin()).map(|shown| format!("shows {}", shown.ek));
    let words: Vec<String> = pinned.into_iter().chain(shown).collect();
    (!words.is_empty()).then(|| words.join("; "))
}
