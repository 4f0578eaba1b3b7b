//! `billet flavor …`: kinds of machines, by rules over what machines are.

use std::path::PathBuf;

use boot_server_core::flavor::{Billed, Bounds, DiskRule, Flavor, GpuRule, NicRule};
use boot_server_core::names::{FlavorName, PoolName, Tag};
use boot_server_core::plural::count;
use clap::{Args, Subcommand};
use protocol::inventory::FirmwareMode;

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::bmc::read;
use super::client::{Client, encode};
use super::output::{Format, Show, facts, table};
use super::text::moment;
use crate::view::Page;
use crate::view::place::FlavorView;

/// What can be done with flavors.
#[derive(Debug, Subcommand)]
pub enum FlavorCommand {
    /// All flavors, with how many machines are free
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One flavor
    Show {
        /// Name
        flavor: String,
    },
    /// Make a flavor
    Create {
        /// Name: a-z, 0-9 and . _ -
        flavor: FlavorName,
        #[command(flatten)]
        change: Box<FlavorArgs>,
    },
    /// Change a flavor; what is not named stays
    Set {
        /// Name
        flavor: String,
        #[command(flatten)]
        change: Box<FlavorArgs>,
    },
    /// Remove a flavor that no server has
    #[command(visible_alias = "rm")]
    Delete {
        /// Name
        flavor: String,
    },
}

/// What a flavor is. An amount is `16` (exactly), `16..` (at least), `..32` (at most) or `16..32`.
#[derive(Debug, Args)]
pub struct FlavorArgs {
    /// For people
    #[arg(long)]
    description: Option<String>,
    /// Cores of all sockets: 16, 16.., ..32 or 16..32
    #[arg(long, value_name = "AMOUNT")]
    cores: Option<Bounds>,
    /// Memory in GiB
    #[arg(long, value_name = "AMOUNT")]
    memory_gib: Option<Bounds>,
    /// Sockets
    #[arg(long, value_name = "AMOUNT")]
    sockets: Option<Bounds>,
    /// Disks of a kind, size in GiB and count, such as nvme,800..,2..; parts may be left empty. Again for more
    #[arg(long, value_name = "KIND,GIB,COUNT")]
    disk: Vec<DiskRule>,
    /// Network ports of a speed in Mbit/s and count, such as 25000..,2..; again for more
    #[arg(long, value_name = "MBPS,COUNT")]
    nic: Vec<NicRule>,
    /// GPUs by PCI vendor:device and count, such as 10de:2330,4..; again for more
    #[arg(long, value_name = "DEVICE,COUNT")]
    gpu: Vec<GpuRule>,
    /// DPUs
    #[arg(long, value_name = "AMOUNT")]
    dpus: Option<Bounds>,
    /// x86_64 or aarch64
    #[arg(long)]
    architecture: Option<String>,
    /// bios or uefi
    #[arg(long)]
    firmware: Option<String>,
    /// Maker
    #[arg(long)]
    vendor: Option<String>,
    /// Model
    #[arg(long)]
    model: Option<String>,
    /// A tag that machines must have; again for more
    #[arg(long, value_name = "TAG")]
    tag: Vec<Tag>,
    /// A tag that machines must not have; again for more
    #[arg(long, value_name = "TAG")]
    not_tag: Vec<Tag>,
    /// Only machines of this pool; again for more
    #[arg(long, value_name = "POOL")]
    pool: Vec<PoolName>,
    /// What counts against quotas: cores, memory in MiB, disks, GiB of disks. If not given: what the rules ask for at least
    #[arg(long, value_name = "CORES,MIB,DISKS,GIB")]
    billed: Option<Billed>,
    /// It cannot be asked for any more; servers that have it keep it
    #[arg(long, value_name = "YES")]
    withdrawn: Option<bool>,
    /// JSON file with the flavor as the API takes it, in place of all else; `-` for standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

fn address(name: &str) -> String {
    format!("flavors/{}", encode(name))
}

/// Runs a command.
pub(super) fn run(client: &Client, format: Format, command: FlavorCommand) -> Result<(), Failure> {
    match command {
        FlavorCommand::List(again) => {
            again.list(client, SITE, format, || client.all::<FlavorView>("flavors"))
        }
        FlavorCommand::Show { flavor } => format.print(&client.get::<FlavorView>(&address(&flavor))?),
        FlavorCommand::Create { flavor, change } => {
            let flavor = change.apply(Flavor::new(flavor))?;
            format.print(&client.post::<_, FlavorView>("flavors", &flavor)?)
        }
        FlavorCommand::Set { flavor, change } => {
            let changed = client.change(&address(&flavor), |view: FlavorView| change.apply(view.flavor));
            format.print::<FlavorView>(&changed?)
        }
        FlavorCommand::Delete { flavor } => client.delete(&address(&flavor)),
    }
}

impl FlavorArgs {
    fn apply(self, mut flavor: Flavor) -> Result<Flavor, Failure> {
        if let Some(file) = &self.file {
            let wrong =
                |e: serde_json::Error| Failure::Usage(format!("{} is no flavor: {e}", file.display()));
            let mut value: serde_json::Value = serde_json::from_str(&read(file)?).map_err(wrong)?;
            if let Some(map) = value.as_object_mut() {
                map.insert("name".to_owned(), flavor.name.to_string().into());
            }
            return serde_json::from_value(value).map_err(wrong);
        }
        if let Some(description) = self.description {
            flavor.description = description;
        }
        let rules = &mut flavor.rules;
        let amounts = [
            (self.cores, &mut rules.cores),
            (self.memory_gib, &mut rules.memory_gib),
            (self.sockets, &mut rules.sockets),
            (self.dpus, &mut rules.dpus),
        ];
        for (given, rule) in amounts {
            *rule = given.unwrap_or(*rule);
        }
        if !self.disk.is_empty() {
            rules.disks = self.disk;
        }
        if !self.nic.is_empty() {
            rules.nics = self.nic;
        }
        if !self.gpu.is_empty() {
            rules.gpus = self.gpu;
        }
        rules.architecture = self.architecture.or(rules.architecture.take());
        rules.vendor = self.vendor.or(rules.vendor.take());
        rules.model = self.model.or(rules.model.take());
        rules.firmware = match self.firmware.as_deref() {
            None => rules.firmware,
            Some("bios") => Some(FirmwareMode::Bios),
            Some("uefi") => Some(FirmwareMode::Uefi),
            Some(other) => return Err(Failure::Usage(format!("`{other}` is neither bios nor uefi"))),
        };
        if !self.tag.is_empty() {
            rules.required_tags = self.tag.into_iter().collect();
        }
        if !self.not_tag.is_empty() {
            rules.forbidden_tags = self.not_tag.into_iter().collect();
        }
        if !self.pool.is_empty() {
            flavor.pools = self.pool;
        }
        flavor.billed = self.billed.or(flavor.billed);
        flavor.withdrawn = self.withdrawn.unwrap_or(flavor.withdrawn);
        Ok(flavor)
    }
}

impl Show for Page<FlavorView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No flavors. Make one with `billet flavor create NAME --cores 16.. --memory-gib 64..`."
                .to_owned();
        }
        let rows = self.items.iter().map(|view| {
            let (flavor, has) = (&view.flavor, &view.capacity);
            let pools = flavor.pools.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let mark = if flavor.withdrawn { "withdrawn".to_owned() } else { flavor.description.clone() };
            vec![
                flavor.name.to_string(),
                has.free.to_string(),
                has.used.to_string(),
                has.total.to_string(),
                if pools.is_empty() { "all".to_owned() } else { pools },
                flavor.rules.words().join(", "),
                mark,
            ]
        });
        table(&["flavor", "free", "used", "total", "pools", "rules", "description"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|view| view.flavor.name.to_string()).collect()
    }
}

impl Show for FlavorView {
    fn table(&self) -> String {
        let (flavor, counts) = (&self.flavor, &self.counts);
        let mut text = facts(&[
            ("name", Some(flavor.name.to_string())),
            ("description", Some(flavor.description.clone()).filter(|text| !text.is_empty())),
            ("rules", Some(flavor.rules.words().join(", ")).filter(|text| !text.is_empty())),
            (
                "counts",
                Some(format!(
                    "{}, {} MiB, {}, {} GiB",
                    count(counts.cores, "core"),
                    counts.memory_mib,
                    count(counts.disks, "disk"),
                    counts.disk_gib
                )),
            ),
            ("withdrawn", flavor.withdrawn.then(|| "yes".to_owned())),
            ("changed", Some(moment(self.changed))),
        ]);
        let rows = self.capacity.pools.iter().map(|pool| {
            let numbers = [pool.free, pool.used, pool.total].map(|n| n.to_string());
            [vec![pool.pool.to_string()], numbers.to_vec()].concat()
        });
        text.push_str(&format!("\n{}\n", table(&["pool", "free", "used", "total"], rows)));
        text
    }

    fn names(&self) -> Vec<String> {
        vec![self.flavor.name.to_string()]
    }
}
