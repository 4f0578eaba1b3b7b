//! `billet node …`.

use boot_server_core::deploy::bytes;
use boot_server_core::hardware::installed_memory;
use boot_server_core::node::Repeat;
use boot_server_core::node::place::{Label, Rack, Unit};
use boot_server_core::plural::count;
use clap::Subcommand;
use protocol::DiskId;
use protocol::inventory::{Disk, Inventory, Nic};

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::boot::{BootArgs, boot};
use super::care::{MaintenanceArgs, PapersArgs, RetireArgs, maintenance, papers, refresh_plan, retire};
use super::client::{Client, encode};
use super::deploy::{DeployArgs, deploy};
use super::event::{FollowFilter, follow, list};
use super::machine::{ReplaceArgs, replace};
use super::many::{ActArgs, EnrollArgs, act, enroll};
use super::network::{MediaArgs, NetworkArgs, media, network};
use super::output::{Format, Show, facts, table};
use super::power::{BootDeviceArgs, PowerArgs, boot_device, identify, power, word};
use super::service::{
    BiosArgs, SecureBootArgs, ServiceArgs, bios, firmware, secure_boot, service, steps_table,
};
use super::switch::{CableArgs, cable};
use super::text::{memory, moment, plain, span};
use super::trust::{self, ApproveBootArgs, TpmCommand};
use super::watch::{Goal, WatchArgs, watch};
use crate::http::api::requests::{EvacuateRequest, PlaceRequest, RenameRequest, WipeRequest};
use crate::view::servers::ServerView;
use crate::view::{FaultReport, NodeDetail, NodeView, Page};

/// What can be done with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// All nodes, or those that match
    #[command(visible_alias = "ls")]
    List {
        /// Only nodes in this state
        #[arg(long)]
        state: Option<String>,
        /// Only nodes whose name, serial number, address or product contains this
        #[arg(long, short)]
        query: Option<String>,
        /// Only nodes in this rack
        #[arg(long)]
        rack: Option<String>,
        #[command(flatten)]
        again: AgainArgs,
    },
    /// Announce a machine before it boots
    Enroll(EnrollArgs),
    /// Do one thing to many nodes: manage, inspect, abort, retry, provide, maintenance, power
    Act(ActArgs),
    /// One node with its hardware and what it waits for
    Show {
        /// Name or id
        node: String,
    },
    /// Put an OS on an available node
    Deploy(DeployArgs),
    /// Put an OS on a node again
    Rebuild(DeployArgs),
    /// Make a node available, wiping disks first where told
    Provide(WipeArgs),
    /// Take the OS off a node and make it available again
    Delete(WipeArgs),
    /// Look at the hardware again
    Inspect(JobArgs),
    /// Take a node out of enroll, available or failed and keep it
    Manage {
        /// Name or id
        node: String,
    },
    /// Stop the job of a node at the next safe point
    Abort {
        /// Name or id
        node: String,
    },
    /// Do the failed job of a node again
    Retry(JobArgs),
    /// Put a node under maintenance, or end that
    Maintenance(MaintenanceArgs),
    /// How a machine stands against the model that is for it: part by part
    Expected {
        /// Name or id
        node: String,
    },
    /// Take a machine as it is, although it is not as its model says
    Accept {
        /// Name or id
        node: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Take over a machine that runs an OS already, without touching it
    Adopt {
        /// Name or id
        node: String,
    },
    /// Vouch for the agent that runs on a node now, until it boots again (level T2)
    ApproveBoot(ApproveBootArgs),
    /// The TPM of a node, which proves what it booted (level T3)
    #[command(subcommand)]
    Tpm(TpmCommand),
    /// Take a machine out of use for good, or back
    Retire(RetireArgs),
    /// Day of purchase and end of warranty
    Papers(PapersArgs),
    /// Let another machine take the part of a node: name, network settings and OS
    Replace(ReplaceArgs),
    /// Move the server of a machine that died to another one: its volumes and networks follow
    Evacuate {
        /// Name or id of the machine that died
        node: String,
        /// To this machine; a free one of the server's flavor where none is given
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
    },
    /// Which machines reach 3, 4 or 5 years or leave warranty, by quarter
    RefreshPlan {
        /// How many quarters, this one included
        #[arg(long, default_value_t = 8)]
        quarters: u32,
    },
    /// Give a node another name
    Rename {
        /// Name or id
        node: String,
        /// New name
        name: String,
    },
    /// Say in which rack a node stands; without --rack that is forgotten
    Place {
        /// Name or id
        node: String,
        /// The rack, as the site calls it
        #[arg(long)]
        rack: Option<Rack>,
        /// The lowest unit that it takes there, from 1
        #[arg(long, requires = "rack")]
        unit: Option<Unit>,
        /// How many units it takes, from there up
        #[arg(long, requires = "rack")]
        height: Option<Unit>,
        /// The room that the rack stands in
        #[arg(long, requires = "rack")]
        room: Option<Label>,
        /// The power feed that it fails with
        #[arg(long, requires = "rack")]
        power_feed: Option<Label>,
    },
    /// What a node boots from the network next, instead of the usual
    Boot(BootArgs),
    /// Switch a machine, or say whether it runs
    Power(PowerArgs),
    /// What the firmware of a machine boots next, told through its management controller
    BootDevice(BootDeviceArgs),
    /// What is not as it should be: what to replace, and where it is
    Faults {
        /// Name or id; all machines in which something is wrong if not given
        node: Option<String>,
        #[command(flatten)]
        again: AgainArgs,
    },
    /// Firmware versions of a machine
    Firmware {
        /// Name or id
        node: String,
    },
    /// BIOS attributes of a machine, or how they stand against a baseline
    Bios(BiosArgs),
    /// Secure Boot of a machine: how it is, on, off, keys
    SecureBoot(SecureBootArgs),
    /// Change firmware and settings through the BMC, and read back what came of it
    Service(ServiceArgs),
    /// Switch the identify light of a machine on, or off
    Identify {
        /// Name or id
        node: String,
        /// Off
        #[arg(long)]
        off: bool,
    },
    /// Network settings of a machine that boots without DHCP, from virtual media
    Network(NetworkArgs),
    /// At which port of which switch a NIC is: LLDP tells, or somebody says
    Cable(CableArgs),
    /// The virtual CD drive of a machine's management controller
    Media(MediaArgs),
    /// Forget a node that runs neither an OS nor a job; a machine that is still there comes back as a new one
    Forget {
        /// Name or id
        node: String,
    },
    /// Look at a node's serial console, and type into it; ~. leaves
    Console {
        /// Name or id
        node: String,
        /// Take over typing from whoever types
        #[arg(long)]
        take: bool,
    },
    /// What is certified of its disks, also of a node that was forgotten
    Certificates {
        /// Name or id
        node: String,
        #[command(flatten)]
        again: AgainArgs,
    },
    /// What happened to a node
    Events {
        /// Name or id
        node: String,
        /// Go on as things happen
        #[arg(long, short)]
        follow: bool,
        /// How many, newest last
        #[arg(long, short = 'n', default_value_t = 50)]
        limit: usize,
    },
}

/// A node and whether to stay until its job is over.
#[derive(Debug, clap::Args)]
pub struct JobArgs {
    /// Name or id
    node: String,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Disks to wipe.
#[derive(Debug, clap::Args)]
pub struct WipeArgs {
    /// Name or id
    node: String,
    /// Disk to wipe, such as serial:S4EV…; again for more
    #[arg(long, value_name = "DISK")]
    wipe: Vec<DiskId>,
    /// Erase all that is on every fixed disk, as between tenants; each disk gets a certificate
    #[arg(long, conflicts_with = "wipe")]
    erase: bool,
    /// The node's name: needed where disks are wiped, asked for otherwise
    #[arg(long, visible_alias = "yes", value_name = "NAME")]
    confirm: Option<String>,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Runs a command.
pub(super) fn run(client: &Client, format: Format, command: NodeCommand) -> Result<(), Failure> {
    let empty = serde_json::json!({});
    match command {
        NodeCommand::List { state, query, rack, again } => {
            let mut path = "nodes?limit=1000".to_owned();
            for (key, value) in [("state", state), ("q", query), ("rack", rack)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{key}={}", encode(&value)));
                }
            }
            again.list(client, SITE, format, || client.all::<NodeView>(&path))
        }
        NodeCommand::Enroll(args) => enroll(client, format, args),
        NodeCommand::Act(args) => act(client, format, args),
        NodeCommand::Show { node } => format.print(&client.get::<NodeDetail>(&path(&node, ""))?),
        NodeCommand::Deploy(args) => deploy(client, format, &args, false),
        NodeCommand::Rebuild(args) => deploy(client, format, &args, true),
        NodeCommand::Provide(args) => wipe(client, format, &args, "provide"),
        NodeCommand::Delete(args) => wipe(client, format, &args, "delete"),
        NodeCommand::Inspect(args) => job(client, format, &args, "inspect"),
        NodeCommand::Retry(args) => job(client, format, &args, "retry"),
        NodeCommand::Manage { node } => {
            format.print(&client.post::<_, NodeView>(&path(&node, "/manage"), &empty)?)
        }
        NodeCommand::Abort { node } => {
            format.print(&client.post::<_, NodeView>(&path(&node, "/abort"), &empty)?)
        }
        NodeCommand::Maintenance(args) => maintenance(client, format, &args),
        NodeCommand::Expected { node } => super::model::expected(client, format, &node),
        NodeCommand::Accept { node, reason } => super::model::accept(client, format, &node, reason),
        NodeCommand::Certificates { node, again } => {
            super::certificate::list(client, format, Some(&node), None, again)
        }
        NodeCommand::Adopt { node } => {
            format.print(&client.post::<_, NodeView>(&path(&node, "/adopt"), &empty)?)
        }
        NodeCommand::ApproveBoot(args) => trust::approve(client, format, &args),
        NodeCommand::Tpm(command) => trust::tpm(client, format, command),
        NodeCommand::Retire(args) => retire(client, format, &args),
        NodeCommand::Papers(args) => papers(client, format, &args),
        NodeCommand::Replace(args) => replace(client, format, &args),
        NodeCommand::Evacuate { node, to } => {
            format.print(&client.post::<_, ServerView>(&path(&node, "/evacuate"), &EvacuateRequest { to })?)
        }
        NodeCommand::RefreshPlan { quarters } => refresh_plan(client, format, quarters),
        NodeCommand::Rename { node, name } => {
            format.print(&client.post::<_, NodeView>(&path(&node, "/rename"), &RenameRequest { name })?)
        }
        NodeCommand::Place { node, rack, unit, height, room, power_feed } => {
            let request = PlaceRequest { rack, unit, height, room, power_feed };
            format.print(&client.put::<_, NodeView>(&path(&node, "/place"), &request)?)
        }
        NodeCommand::Console { node, take } => super::console::attach(client, &node, take),
        NodeCommand::Boot(args) => boot(client, format, &args),
        NodeCommand::Power(args) => power(client, format, &args),
        NodeCommand::BootDevice(args) => boot_device(client, format, &args),
        NodeCommand::Faults { node: Some(node), again } => {
            again.list(client, SITE, format, || client.get::<FaultReport>(&path(&node, "/faults")))
        }
        NodeCommand::Faults { node: None, again } => {
            again.list(client, SITE, format, || client.all::<FaultReport>("faults"))
        }
        NodeCommand::Firmware { node } => firmware(client, format, &node),
        NodeCommand::Bios(args) => bios(client, format, &args),
        NodeCommand::SecureBoot(args) => secure_boot(client, format, &args),
        NodeCommand::Service(args) => service(client, format, &args),
        NodeCommand::Identify { node, off } => identify(client, &node, off),
        NodeCommand::Network(args) => network(client, format, &args),
        NodeCommand::Cable(args) => cable(client, format, &args),
        NodeCommand::Media(args) => media(client, format, &args),
        NodeCommand::Forget { node } => {
            format.print(&client.post::<_, NodeView>(&path(&node, "/forget"), &empty)?)
        }
        NodeCommand::Events { node, follow: false, limit } => list(client, format, "", Some(&node), limit),
        NodeCommand::Events { node, follow: true, limit } => {
            list(client, format, "", Some(&node), limit)?;
            let node: NodeDetail = client.get(&path(&node, ""))?;
            follow(client, format, &FollowFilter { node: Some(node.node.id), project: None })
        }
    }
}

/// Path of a node in the API.
pub(super) fn path(node: &str, verb: &str) -> String {
    format!("nodes/{}{verb}", encode(node))
}

fn job(client: &Client, format: Format, args: &JobArgs, verb: &str) -> Result<(), Failure> {
    let node: NodeView = client.post(&path(&args.node, &format!("/{verb}")), &serde_json::json!({}))?;
    if args.watch.watch { watch(client, format, &node, Goal::Over, &args.watch) } else { format.print(&node) }
}

fn wipe(client: &Client, format: Format, args: &WipeArgs, verb: &str) -> Result<(), Failure> {
    let destructive = args.erase || !args.wipe.is_empty() || verb == "delete";
    let mut confirm = args.confirm.clone();
    if destructive && confirm.is_none() {
        let detail: NodeDetail = client.get(&path(&args.node, ""))?;
        let disks = if args.erase {
            "all that is on every fixed disk".to_owned()
        } else if args.wipe.is_empty() {
            "the disk that holds its OS".to_owned()
        } else {
            args.wipe.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let question = format!("This wipes {} in {}.\n", plain(&disks), plain(&detail.node.name));
        confirm = Some(super::deploy::ask(&question, &detail.node.name)?);
    }
    let request = WipeRequest { wipe: args.wipe.clone(), erase: args.erase, confirm };
    let node: NodeView = client.post(&path(&args.node, &format!("/{verb}")), &request)?;
    if args.watch.watch {
        watch(client, format, &node, Goal::Available, &args.watch)
    } else {
        format.print(&node)
    }
}

impl Show for Page<NodeView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No nodes. Switch a machine on that boots from the provisioning network; it appears by itself.".into();
        }
        let rows = self.items.iter().map(|n| {
            let hardware = n.hardware.as_ref().map(|h| {
                format!(
                    "{} · {} · {} · {} {}",
                    h.product,
                    count(h.cores, "core"),
                    memory(h.memory_bytes),
                    count(h.disks, "disk"),
                    bytes(h.disk_bytes)
                )
            });
            vec![n.name.clone(), state(n), os(n), hardware.unwrap_or_default(), now(n)]
        });
        table(&["name", "state", "os", "hardware", "now"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|n| n.name.clone()).collect()
    }
}

fn state(node: &NodeView) -> String {
    let marks = [
        (node.maintenance.is_some(), " (maintenance)"),
        (node.quarantine.is_some(), " (quarantine)"),
        (node.retired.is_some(), " (retired)"),
    ];
    let marks: String = marks.into_iter().filter(|(set, _)| *set).map(|(_, mark)| mark).collect();
    format!("{}{marks}", node.state)
}

fn os(node: &NodeView) -> String {
    node.installed.as_ref().map(|i| i.image_name.clone()).unwrap_or_default()
}

/// What it boots next, where that was ordered.
fn boots(node: &NodeView) -> Option<String> {
    let order = node.boot.as_ref().filter(|order| order.pending)?;
    let often = if order.repeat == Repeat::Always { "always" } else { "once" };
    Some(format!("{}, {often}", order.words))
}

/// What happens on it now, in a few words.
fn now(node: &NodeView) -> String {
    if let Some(fault) = &node.fault {
        return fault.message.clone();
    }
    let Some(job) = &node.job else { return String::new() };
    match &job.progress {
        Some(p) if p.bytes_total > 0 => {
            let percent = u128::from(p.bytes_done) * 100 / u128::from(p.bytes_total);
            format!("{} {percent} %", job.stage)
        }
        _ => node.waits_for.as_ref().map_or_else(|| job.stage.clone(), |w| format!("waits for {w}")),
    }
}

fn host_keys(node: &NodeView) -> Option<String> {
    let keys = node.installed.iter().flat_map(|os| &os.host_keys);
    let keys: Vec<String> = keys.map(|key| format!("{} {}", key.kind, key.fingerprint)).collect();
    Some(keys.join(", ")).filter(|text| !text.is_empty())
}

impl Show for NodeView {
    fn table(&self) -> String {
        let join = |items: &[protocol::MacAddr]| {
            items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        facts(&[
            ("name", Some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("state", Some(state(self))),
            ("place", self.place.as_ref().map(ToString::to_string)),
            ("power", self.power.map(|power| word(power).to_owned())),
            ("health", self.health.as_ref().map(|health| health.level.as_str().to_owned())),
            ("maintenance", self.maintenance.clone()),
            ("ends", self.maintenance_until.map(moment)),
            ("model", self.model.clone()),
            ("quarantine", self.quarantine.as_ref().map(|q| q.words())),
            ("retired", self.retired.as_ref().map(|r| r.reason.clone())),
            ("bought", self.papers.purchased.map(|day| day.to_string())),
            ("warranty", self.papers.warranty_end.map(|day| format!("until {day}"))),
            ("waits for", self.waits_for.clone()),
            ("until", self.deadline.map(moment)),
            ("fault", self.fault.as_ref().map(|f| f.message.clone())),
            ("hint", self.fault.as_ref().map(|f| f.hint.clone()).filter(|h| !h.is_empty())),
            ("job", self.job.as_ref().map(|j| format!("{} {}, {}", j.verb, j.id, j.stage))),
            (
                "os",
                self.installed.as_ref().map(|i| format!("{} as {} on {}", i.image_name, i.hostname, i.disk)),
            ),
            ("host keys", host_keys(self)),
            ("boots", boots(self)),
            ("identity", Some(trust::line(&self.trust))),
            ("TPM", trust::tpm_line(&self.trust)),
            ("agent", Some(if self.agent { "connected" } else { "not connected" }.to_owned())),
            ("uuid", self.uuid.map(|u| u.to_string())),
            ("serial", self.serial.clone()),
            ("addresses", Some(join(&self.macs))),
            ("network", self.network.as_ref().map(ToString::to_string)),
            ("first seen", Some(moment(self.created))),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

impl Show for NodeDetail {
    fn table(&self) -> String {
        let mut text = self.node.table();
        if !self.addresses.is_empty() {
            let addresses: Vec<_> = self.addresses.iter().map(|a| a.plugged()).collect();
            text.push_str(&facts(&[("addresses", Some(addresses.join(", ")))]));
        }
        let bmc = match (&self.bmc, &self.bmc_found) {
            (Some(bmc), _) => Some(format!("{} by {}", bmc.address, bmc.driver)),
            (None, Some(found)) => {
                Some(format!("found at {}: give its account with `billet bmc set`", found.place()))
            }
            (None, None) => None,
        };
        let lent =
            self.server.as_ref().map(|s| format!("server {} ({}) of project {}", s.name, s.phase, s.project));
        text.push_str(&facts(&[("bmc", bmc), ("lent to", lent)]));
        if let Some(service) = &self.service {
            text.push_str(&format!("\n{}\n", steps_table(service)));
        }
        for finding in &self.findings {
            let what = format!("{} ({}); {}", finding.what, finding.code, finding.todo);
            text.push_str(&facts(&[("network", Some(what))]));
        }
        if let Some(inventory) = &self.inventory {
            text.push_str(&hardware(inventory));
        }
        if !self.node.timeline.phases.is_empty() {
            text.push_str(&format!("\n{}\n", plain(&self.node.timeline.title)));
            let rows = self.node.timeline.phases.iter().map(|p| {
                vec![
                    p.phase.clone(),
                    format!("+{}", span(p.offset_ms)),
                    p.took_ms.map(span).unwrap_or_default(),
                ]
            });
            text.push_str(&table(&["phase", "at", "took"], rows));
            text.push('\n');
        }
        text
    }

    fn names(&self) -> Vec<String> {
        self.node.names()
    }
}

fn hardware(inventory: &Inventory) -> String {
    let cpu = inventory.cpus.first().map(|c| {
        let cores: u32 = inventory.cpus.iter().map(|c| c.cores).sum();
        format!("{} × {}, {}, {}", inventory.cpus.len(), c.model, count(cores, "core"), c.architecture)
    });
    let system = &inventory.system;
    let product = [&system.manufacturer, &system.product].into_iter().flatten().cloned().collect::<Vec<_>>();
    let firmware = &inventory.firmware;
    let mut text = String::from("\n");
    text.push_str(&facts(&[
        ("machine", Some(product.join(" ")).filter(|p| !p.is_empty())),
        ("firmware", Some(format!("{:?} {}", firmware.mode, firmware.version.as_deref().unwrap_or("")))),
        ("secure boot", firmware.secure_boot.map(|on| if on { "on" } else { "off" }.to_owned())),
        ("cpu", cpu),
        (
            "memory",
            Some(format!(
                "{} in {}",
                memory(installed_memory(inventory)),
                count(inventory.dimms.len(), "module")
            )),
        ),
        ("bmc", inventory.bmc.as_ref().and_then(|b| b.address).map(|a| a.to_string())),
        ("tpm", inventory.tpm.as_ref().map(|t| t.version_major.to_string())),
    ]));
    text.push('\n');
    text.push_str(&table(&["disk", "model", "size", "kind", "holds"], inventory.disks.iter().map(disk)));
    text.push_str("\n\n");
    text.push_str(&table(
        &["port", "address", "link", "neighbour", "driver"],
        inventory.nics.iter().map(nic),
    ));
    text.push('\n');
    for warning in &inventory.warnings {
        text.push_str(&format!("warning: {}\n", plain(warning)));
    }
    text
}

fn disk(disk: &Disk) -> Vec<String> {
    let kind = format!("{:?}{}", disk.transport, if disk.rotational { ", spinning" } else { "" });
    vec![
        disk.id.as_ref().map_or_else(|| disk.name.clone(), ToString::to_string),
        disk.model.clone().unwrap_or_default(),
        bytes(disk.size_bytes),
        kind.to_lowercase(),
        boot_server_core::deploy::describe(&disk.content),
    ]
}

fn nic(nic: &Nic) -> Vec<String> {
    let link = match (nic.carrier, nic.speed_mbps) {
        (false, _) => "down".to_owned(),
        (true, None) => "up".to_owned(),
        (true, Some(speed)) => format!("{speed} Mbit/s"),
    };
    let neighbour = nic
        .lldp
        .as_ref()
        .map(|l| format!("{} {}", l.system_name.as_deref().unwrap_or(&l.chassis_id), l.port_id));
    vec![
        nic.name.clone(),
        nic.mac.to_string(),
        link,
        neighbour.unwrap_or_default(),
        nic.driver.clone().unwrap_or_default(),
    ]
}
