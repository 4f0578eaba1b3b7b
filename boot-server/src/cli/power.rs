//! `billet node power`, `billet node boot-device` and `billet node identify`.

use bmc::{BootDevice, BootMode, BootOverride, PowerAction, PowerState, Repeat};
use clap::ValueEnum;

use super::Failure;
use super::client::Client;
use super::node::path;
use super::output::{Format, Show, facts};
use crate::http::api::bmc_requests::{BootDeviceRequest, PowerRequest, SwitchRequest};
use crate::view::PowerView;

/// What can be done with power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Power {
    /// Say whether it runs
    Status,
    /// Switch on
    On,
    /// Ask the OS to shut down
    SoftOff,
    /// Switch off at once
    Off,
    /// Restart at once
    Reset,
    /// Off at once, then on
    Cycle,
    /// Non-maskable interrupt, for a crash dump
    Nmi,
}

/// `billet node power`.
#[derive(Debug, clap::Args)]
pub struct PowerArgs {
    /// Name or id
    node: String,
    /// What to do
    #[arg(value_enum, default_value_t = Power::Status)]
    action: Power,
}

/// What firmware can boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The firmware's own order
    None,
    /// The network, by PXE
    Pxe,
    /// UEFI HTTP boot
    Http,
    /// The first disk
    Disk,
    /// The (virtual) CD drive
    Cdrom,
    /// The firmware's set-up pages
    Bios,
}

/// How firmware starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// BIOS
    Legacy,
    /// UEFI
    Uefi,
}

/// `billet node boot-device`.
#[derive(Debug, clap::Args)]
pub struct BootDeviceArgs {
    /// Name or id
    node: String,
    /// What to boot next; without it: say what is set
    #[arg(value_enum)]
    device: Option<Device>,
    /// At every start, not only at the next one
    #[arg(long, requires = "device")]
    always: bool,
    /// How the firmware starts
    #[arg(long, value_enum, requires = "device")]
    mode: Option<Mode>,
    /// For http: what to boot
    #[arg(long, value_name = "URL", requires = "device")]
    uri: Option<String>,
}

pub(super) fn power(client: &Client, format: Format, args: &PowerArgs) -> Result<(), Failure> {
    let address = path(&args.node, "/power");
    let action = match args.action {
        Power::Status => return format.print(&client.get::<PowerView>(&address)?),
        Power::On => PowerAction::On,
        Power::SoftOff => PowerAction::SoftOff,
        Power::Off => PowerAction::ForceOff,
        Power::Reset => PowerAction::Reset,
        Power::Cycle => PowerAction::Cycle,
        Power::Nmi => PowerAction::Nmi,
    };
    format.print(&client.post::<_, PowerView>(&address, &PowerRequest { action })?)
}

pub(super) fn boot_device(client: &Client, format: Format, args: &BootDeviceArgs) -> Result<(), Failure> {
    let address = path(&args.node, "/boot-device");
    let Some(device) = args.device else {
        return format.print(&client.get::<BootOverride>(&address)?);
    };
    let request = BootDeviceRequest {
        device: match device {
            Device::None => BootDevice::None,
            Device::Pxe => BootDevice::Pxe,
            Device::Http => BootDevice::Http,
            Device::Disk => BootDevice::Disk,
            Device::Cdrom => BootDevice::Cdrom,
            Device::Bios => BootDevice::Bios,
        },
        repeat: if args.always { Repeat::Always } else { Repeat::Once },
        mode: args.mode.map(|mode| match mode {
            Mode::Legacy => BootMode::Legacy,
            Mode::Uefi => BootMode::Uefi,
        }),
        http_uri: args.uri.clone(),
    };
    format.print(&client.put::<_, BootOverride>(&address, &request)?)
}

pub(super) fn identify(client: &Client, node: &str, off: bool) -> Result<(), Failure> {
    client.post::<_, ()>(&path(node, "/identify"), &SwitchRequest { on: !off })
}

/// A power state in words.
pub(super) fn word(state: PowerState) -> &'static str {
    match state {
        PowerState::On => "on",
        PowerState::Off => "off",
        PowerState::PoweringOn => "powering on",
        PowerState::PoweringOff => "powering off",
        PowerState::Unknown => "unknown",
    }
}

impl Show for PowerView {
    fn table(&self) -> String {
        let doubt =
            if self.confirmed { "" } else { " (what was asked for was accepted and does not show yet)" };
        facts(&[("power", Some(format!("{}{doubt}", word(self.state))))])
    }

    fn names(&self) -> Vec<String> {
        vec![word(self.state).to_owned()]
    }
}

impl Show for BootOverride {
    fn table(&self) -> String {
        let lower = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        facts(&[
            ("boots", Some(lower(&self.device))),
            ("how often", (self.device != BootDevice::None).then(|| lower(&self.repeat))),
            ("mode", self.mode.as_ref().map(|mode| lower(mode))),
            ("uri", self.http_uri.clone()),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![format!("{:?}", self.device).to_lowercase()]
    }
}
