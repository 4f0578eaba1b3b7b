//! `billet volume …` and `billet snapshot …`: disks of a project that DPUs present to machines.

use boot_server_core::volume::{Encrypted, Status, parse_size};
use clap::{Args, Subcommand};

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::output::{Format, Show, facts, table};
use super::server::ProjectArg;
use super::text::{memory, moment, plain};
use crate::http::api::requests::EmptyRequest;
use crate::http::api::volume_requests::{
    AttachRequest, NewVolumeRequest, SnapshotRequest, VolumeChangeRequest,
};
use crate::view::Page;
use crate::view::counters::{RequestsView, VolumeCountersView};
use crate::view::dpus::{HydrationView, SnapshotView, VolumeTypeView, VolumeView};

/// Volumes of a project.
#[derive(Debug, Args)]
pub struct VolumeArgs {
    /// In which project.
    #[command(flatten)]
    project: ProjectArg,
    /// What to do.
    #[command(subcommand)]
    command: VolumeCommand,
}

/// What can be done with volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Volumes of the project
    #[command(visible_alias = "ls")]
    List {
        /// Only of this server (name or id)
        #[arg(long = "on", value_name = "SERVER")]
        server: Option<String>,
        #[command(flatten)]
        again: AgainArgs,
    },
    /// Types of volumes that the site has
    Types(AgainArgs),
    /// Make a volume
    Create {
        /// Name: letters, digits and . _ -
        name: String,
        /// Its size, such as 512M, 20G or 1T; as large as what it is made of where it is not given
        #[arg(long, value_parser = size)]
        size: Option<u64>,
        /// Its type; the site's first where none is given
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// Write this image on it
        #[arg(long, conflicts_with = "snapshot")]
        image: Option<String>,
        /// Make it of this snapshot
        #[arg(long)]
        snapshot: Option<String>,
        /// Most requests per second
        #[arg(long)]
        iops: Option<u64>,
        /// Most bytes per second, such as 200M
        #[arg(long, value_name = "BYTES", value_parser = size)]
        bandwidth: Option<u64>,
        /// Its backend holds its bytes encrypted; always so where the type says so
        #[arg(long)]
        encrypted: bool,
    },
    /// One volume
    Show {
        /// Name or id
        volume: String,
    },
    /// Give a volume another name, other limits, or more room while nobody has it
    Set {
        /// Name or id
        volume: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// New size, such as 40G
        #[arg(long, value_parser = size)]
        size: Option<u64>,
        /// Most requests per second; 0 takes the limit away
        #[arg(long)]
        iops: Option<u64>,
        /// Most bytes per second, such as 200M; 0 takes the limit away
        #[arg(long, value_name = "BYTES", value_parser = size)]
        bandwidth: Option<u64>,
    },
    /// Give a volume to a server, running or not
    Attach {
        /// Name or id
        volume: String,
        /// Name or id of the server
        server: String,
    },
    /// Take a volume from its server
    Detach {
        /// Name or id
        volume: String,
        /// Do not wait for its DPU to let go of it, for operators of the site: only where that DPU is off or gone for good, since it
        /// may go on writing to the volume
        #[arg(long)]
        force: bool,
    },
    /// Remove a volume: what is on it is lost
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        volume: String,
    },
}

/// Snapshots of a project.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// In which project.
    #[command(flatten)]
    project: ProjectArg,
    /// What to do.
    #[command(subcommand)]
    command: SnapshotCommand,
}

/// What can be done with snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Snapshots of the project
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// Keep a volume as it is now
    Create {
        /// Name: letters, digits and . _ -
        name: String,
        /// Name or id of the volume
        volume: String,
    },
    /// One snapshot
    Show {
        /// Name or id
        snapshot: String,
    },
    /// Remove a snapshot; volumes that were made of it stay
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        snapshot: String,
    },
}

/// A number of bytes with K, M, G or T for powers of 1,024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| format!("`{text}` is no size such as 512M, 20G or 1T"))
}

/// Runs `billet volume …`.
pub(super) fn run(client: &Client, format: Format, args: VolumeArgs) -> Result<(), Failure> {
    let VolumeArgs { project, command } = args;
    let of = |volume: &str, rest: &str| project.path(&format!("volumes/{}{rest}", encode(volume)));
    let stream = || project.path(SITE);
    match command {
        VolumeCommand::List { server, again } => {
            let only = server.map(|server| format!("?server={}", encode(&server))).unwrap_or_default();
            let list = project.path(&format!("volumes{only}"))?;
            again.list(client, &stream()?, format, || client.all::<VolumeView>(&list))
        }
        VolumeCommand::Types(again) => {
            let list = project.path("volume-types")?;
            again.list(client, &stream()?, format, || client.all::<VolumeTypeView>(&list))
        }
        VolumeCommand::Create { name, size, kind, image, snapshot, iops, bandwidth, encrypted } => {
            let bytes_per_second = bandwidth;
            let request =
                NewVolumeRequest { name, kind, size, image, snapshot, iops, bytes_per_second, encrypted };
            format.print(&client.post::<_, VolumeView>(&project.path("volumes")?, &request)?)
        }
        VolumeCommand::Show { volume } => format.print(&client.get::<VolumeView>(&of(&volume, "")?)?),
        VolumeCommand::Set { volume, name, size, iops, bandwidth } => {
            let request = VolumeChangeRequest { name, size, iops, bytes_per_second: bandwidth };
            format.print(&client.patch::<_, VolumeView>(&of(&volume, "")?, &request)?)
        }
        VolumeCommand::Attach { volume, server } => {
            let request = AttachRequest { server };
            format.print(&client.post::<_, VolumeView>(&of(&volume, "/attach")?, &request)?)
        }
        VolumeCommand::Detach { volume, force } => {
            let how = if force { "/force-detach" } else { "/detach" };
            format.print(&client.post::<_, VolumeView>(&of(&volume, how)?, &EmptyRequest {})?)
        }
        VolumeCommand::Delete { volume } => {
            format.print(&client.delete_with::<VolumeView>(&of(&volume, "")?)?)
        }
    }
}

/// Runs `billet snapshot …`.
pub(super) fn snapshots(client: &Client, format: Format, args: SnapshotArgs) -> Result<(), Failure> {
    let SnapshotArgs { project, command } = args;
    let of = |snapshot: &str| project.path(&format!("snapshots/{}", encode(snapshot)));
    match command {
        SnapshotCommand::List(again) => {
            let (list, stream) = (project.path("snapshots")?, project.path(SITE)?);
            again.list(client, &stream, format, || client.all::<SnapshotView>(&list))
        }
        SnapshotCommand::Create { name, volume } => {
            let request = SnapshotRequest { name, volume };
            format.print(&client.post::<_, SnapshotView>(&project.path("snapshots")?, &request)?)
        }
        SnapshotCommand::Show { snapshot } => format.print(&client.get::<SnapshotView>(&of(&snapshot)?)?),
        SnapshotCommand::Delete { snapshot } => client.delete(&of(&snapshot)?),
    }
}

impl Show for Page<VolumeTypeView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "This site keeps no volumes.".to_owned();
        }
        let row = |this: &VolumeTypeView| {
            let encrypted = match this.encrypted {
                Encrypted::Never => "never",
                Encrypted::OnRequest => "on request",
                Encrypted::Always => "always",
            };
            vec![this.name.clone(), this.kind.clone(), encrypted.to_owned()]
        };
        table(&["type", "kind", "encrypted"], self.items.iter().map(row))
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|this| this.name.clone()).collect()
    }
}

impl Show for Page<VolumeView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No volumes. Make one with `billet volume create NAME --size 20G`.".to_owned();
        }
        let rows = self.items.iter().map(|volume| {
            vec![
                volume.name.clone(),
                volume.status.to_string(),
                memory(volume.size),
                volume.kind.clone(),
                volume.server.map_or_else(|| "-".to_owned(), |server| server.to_string()),
                if volume.boot { "boots".to_owned() } else { String::new() },
            ]
        });
        table(&["volume", "status", "size", "type", "server", ""], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|volume| volume.name.clone()).collect()
    }
}

/// How much of its image is there, in words.
fn hydration(of: &HydrationView) -> String {
    let bytes = of.bytes.map(|bytes| format!(", {}", memory(bytes))).unwrap_or_default();
    let mut text = format!("{} %{bytes}", of.percent);
    if let Some(why) = &of.store_away {
        text += &format!("; the image store cannot be reached: {}", plain(why));
    }
    if of.wrong_chunks > 0 {
        text += &format!("; {} chunks came with wrong bytes", of.wrong_chunks);
    }
    text
}

impl Show for VolumeView {
    fn table(&self) -> String {
        let note = self.note.as_deref().map(plain);
        let did = |of: fn(&VolumeCountersView) -> &RequestsView| {
            self.counters.as_ref().map(|counters| of(counters).words(memory))
        };
        facts(&[
            ("name", Some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("status", Some(self.status.to_string())),
            ("note", note),
            ("size", Some(memory(self.size))),
            ("type", Some(self.kind.clone())),
            ("server", self.server.map(|server| server.to_string())),
            ("boots", self.boot.then(|| "its server boots from it".to_owned())),
            ("image", self.image_name.as_deref().map(plain)),
            ("snapshot", self.snapshot.map(|snapshot| snapshot.to_string())),
            ("hydrated", self.hydration.as_ref().map(hydration)),
            ("requests per second", self.iops.map(|iops| iops.to_string())),
            ("bytes per second", self.bytes_per_second.map(|bytes| bytes.to_string())),
            ("encrypted", self.encrypted.then(|| "yes".to_owned())),
            ("serial", Some(self.serial.clone()).filter(|_| self.status != Status::Deleted)),
            ("reads", did(|of| &of.read)),
            ("writes", did(|of| &of.write)),
            ("flushes", self.counters.as_ref().and_then(|of| Some(of.flush.as_ref()?.words(memory)))),
            ("errors", self.counters.as_ref().map(|of| of.errors.to_string())),
            ("counted", self.counters.as_ref().map(|of| moment(of.at))),
            ("made by", Some(self.created_by.clone())),
            ("made", Some(moment(self.created))),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

impl Show for Page<SnapshotView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No snapshots. Make one with `billet snapshot create NAME VOLUME`.".to_owned();
        }
        let rows = self.items.iter().map(|snapshot| {
            let (name, size) = (snapshot.name.clone(), memory(snapshot.size));
            vec![name, size, snapshot.kind.clone(), snapshot.volume.to_string(), moment(snapshot.created)]
        });
        table(&["snapshot", "size", "type", "volume", "made"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|snapshot| snapshot.name.clone()).collect()
    }
}

impl Show for SnapshotView {
    fn table(&self) -> String {
        facts(&[
            ("name", Some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("volume", Some(self.volume.to_string())),
            ("size", Some(memory(self.size))),
            ("type", Some(self.kind.clone())),
            ("encrypted", self.encrypted.then(|| "yes".to_owned())),
            ("made by", Some(self.created_by.clone())),
            ("made", Some(moment(self.created))),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}
