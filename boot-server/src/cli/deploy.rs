//! `billet node deploy` and `rebuild`: says what will be lost, wants the node's name, asks, and stays where told.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use boot_server_core::deploy::{DeployRequest, DiskChoice, DiskRule};
use boot_server_core::metadata::Datasource;
use protocol::DiskId;
use protocol::limits::USER_DATA_MAX;

use super::Failure;
use super::client::Client;
use super::node::path;
use super::output::{Format, Show, print, table};
use super::text::plain;
use super::watch::{Goal, WatchArgs, watch};
use crate::view::{DeployPreview, NodeDetail, NodeView};

/// What to put on which node.
#[derive(Debug, clap::Args)]
pub struct DeployArgs {
    /// Name or id of the node
    node: String,
    /// Image: name (newest version), name:version, or id
    #[arg(long, short)]
    image: String,
    /// Disk to write, such as serial:S4EV…
    #[arg(long, value_name = "DISK", conflicts_with = "disk_rule")]
    disk: Option<DiskId>,
    /// Choose the disk by rule
    #[arg(long, value_enum, value_name = "RULE")]
    disk_rule: Option<Rule>,
    /// File with SSH public keys of the user; again for more
    #[arg(long = "ssh-key", value_name = "FILE")]
    ssh_keys: Vec<PathBuf>,
    /// Host name of the OS; the node's name if not given
    #[arg(long)]
    hostname: Option<String>,
    /// User to make; the image's own if not given
    #[arg(long)]
    user: Option<String>,
    /// File with the user's password as a crypt(5) hash (see `mkpasswd`)
    #[arg(long, value_name = "FILE")]
    password_hash_file: Option<PathBuf>,
    /// File with cloud-init user data
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// File with cloud-init network config, version 2
    #[arg(long, value_name = "FILE")]
    network_config: Option<PathBuf>,
    /// How the OS is told who it is; as the image says if not given
    #[arg(long, value_parser = super::image::datasource())]
    datasource: Option<Datasource>,
    /// The node's name: this erases a disk; asked for if not given
    #[arg(long, visible_alias = "yes", value_name = "NAME")]
    confirm: Option<String>,
    /// Also where the node's health is critical
    #[arg(long)]
    allow_critical: bool,
    /// Say what would be erased, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Rules for a disk.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Rule {
    /// The machine has exactly one that fits
    Only,
    /// The smallest that fits
    Smallest,
    /// The largest
    Largest,
    /// The smallest that fits and does not spin
    SmallestSsd,
}

pub(super) fn deploy(client: &Client, format: Format, args: &DeployArgs, again: bool) -> Result<(), Failure> {
    let mut request = args.request()?;
    if args.dry_run || args.confirm.is_none() {
        let detail: NodeDetail = client.get(&path(&args.node, ""))?;
        let preview: DeployPreview = client.post(&path(&args.node, "/deploy/preview"), &request)?;
        if args.dry_run && format != Format::Table {
            return format.print(&preview);
        }
        if let Some(problem) = preview.refused {
            return Err(Failure::Problem(problem));
        }
        if args.dry_run {
            return format.print(&preview);
        }
        let question = format!("{}\n{}", headline(&detail.node, &request.image), preview.table());
        request.confirm = Some(ask(&question, &detail.node.name)?);
    }
    let verb = if again { "/rebuild" } else { "/deploy" };
    let key = uuid::Uuid::new_v4().to_string();
    let node: NodeView = client.post_with(
        &path(&args.node, verb),
        &request,
        Some(std::time::Duration::from_secs(60)),
        Some(&key),
    )?;
    if args.watch.watch {
        watch(client, format, &node, Goal::Active, &args.watch)
    } else {
        format.print(&node)
    }
}

fn headline(node: &NodeView, image: &str) -> String {
    format!("Image {} goes to {}:", plain(image), plain(&node.name))
}

impl DeployArgs {
    fn request(&self) -> Result<DeployRequest, Failure> {
        let disk = match (&self.disk, self.disk_rule) {
            (Some(id), _) => DiskChoice::Id(id.clone()),
            (None, Some(rule)) => DiskChoice::Rule(match rule {
                Rule::Only => DiskRule::Only,
                Rule::Smallest => DiskRule::Smallest,
                Rule::Largest => DiskRule::Largest,
                Rule::SmallestSsd => DiskRule::SmallestSsd,
            }),
            (None, None) => DiskChoice::default(),
        };
        let mut ssh_keys = Vec::new();
        for file in &self.ssh_keys {
            ssh_keys.extend(keys(&read(file)?));
        }
        let read_option = |file: &Option<PathBuf>| file.as_deref().map(read).transpose();
        Ok(DeployRequest {
            image: self.image.clone(),
            disk,
            hostname: self.hostname.clone(),
            user: self.user.clone(),
            ssh_keys,
            password_hash: read_option(&self.password_hash_file)?.map(|text| text.trim().to_owned()),
            user_data: read_option(&self.user_data)?,
            network_config: read_option(&self.network_config)?,
            datasource: self.datasource,
            confirm: self.confirm.clone(),
            allow_critical: self.allow_critical,
        })
    }
}

/// Lines of an `authorized_keys` file that are keys (sshd(8)): no empty lines, no comments.
pub(super) fn keys(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned)
}

pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let refuse = |why: String| Failure::Usage(format!("cannot use {}: {why}", file.display()));
    let size = fs::metadata(file).map_err(|e| refuse(e.to_string()))?.len();
    if size > USER_DATA_MAX as u64 {
        return Err(refuse(format!("it is larger than {USER_DATA_MAX} bytes")));
    }
    let text = fs::read_to_string(file).map_err(|e| refuse(e.to_string()))?;
    // Somebody who gives the wrong half of a key pair must not have it sent anywhere.
    if text.contains("PRIVATE KEY-----") {
        return Err(refuse("it is a private key; give the .pub file".to_owned()));
    }
    Ok(text)
}

/// Shows what will happen and wants the node's name typed.
pub(super) fn ask(what: &str, name: &str) -> Result<String, Failure> {
    let mut err = io::stderr();
    let _ = err.write_all(what.as_bytes()); // a closed standard error does not change the answer
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage(format!(
            "this erases data and nobody is there to confirm it: give --confirm {}",
            plain(name)
        )));
    }
    let _ = write!(err, "\nType the node's name ({}) to go on: ", plain(name));
    let _ = err.flush();
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|e| Failure::Other(format!("cannot read the answer: {e}")))?;
    if line.trim() == name {
        Ok(name.to_owned())
    } else {
        Err(Failure::Other("the name does not match; nothing was changed".to_owned()))
    }
}

impl Show for DeployPreview {
    fn table(&self) -> String {
        let rows = self.disks.iter().map(|d| {
            let id = d.id.as_ref().map_or_else(|| "(nameless)".to_owned(), ToString::to_string);
            let fate = if d.erased { "ERASED" } else { "stays" };
            vec![fate.to_owned(), id, d.title.clone(), d.holds.clone()]
        });
        let mut text = table(&["fate", "disk", "what", "holds now"], rows);
        text.push('\n');
        text
    }

    fn names(&self) -> Vec<String> {
        self.target.iter().map(ToString::to_string).collect()
    }
}

/// Prints a line for people who pipe the output.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}
