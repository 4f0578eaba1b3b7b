//! `billet node boot`: what a node boots next, and `billet node forget`.

use std::path::PathBuf;
use std::str::FromStr;

use boot_server_core::ipxe::{CommandLine, Url};
use boot_server_core::node::boot::{Chap, InitrdFile, IscsiBoot, IsoBoot, KernelBoot};
use boot_server_core::node::{Boot, Repeat};
use boot_server_core::profile::{Preseed, Profile, TextProfile};
use boot_server_core::words::{Host, Iqn, Location, WordError};
use protocol::DiskId;

use super::Failure;
use super::client::Client;
use super::deploy::{ask, keys, read};
use super::node::path;
use super::output::Format;
use super::text::plain;
use crate::http::api::requests::BootRequest;
use crate::view::{NodeDetail, NodeView};

/// What a node boots from the network instead of the usual.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Files are URLs, or paths in the server's media directory (boot.media). Examples:\n  \
    billet node boot web-1 kernel debian/linux --initrd debian/initrd.gz --args 'rescue/enable=true --- quiet'\n  \
    billet node boot web-1 kernel debian/linux --initrd debian/initrd.gz --install-on serial:S4EV1 \
    --mirror http://mirror.example/debian --ssh-key id_ed25519.pub\n  \
    billet node boot web-1 kernel win/wimboot --initrd win/BCD=BCD --initrd win/boot.sdi=boot.sdi \
    --initrd win/boot.wim=boot.wim\n  \
    billet node boot web-1 iso live.iso\n  \
    billet node boot web-1 iscsi 10.0.0.9 iqn.2026-01.site:web-1 --always\n  \
    billet node boot web-1 clear"
)]
pub struct BootArgs {
    /// Name or id
    node: String,
    #[command(subcommand)]
    what: What,
    /// At the next network boot only; so it is unless told otherwise
    #[arg(long, global = true, conflicts_with = "always")]
    once: bool,
    /// At every network boot, until it is cleared or the node gets work
    #[arg(long, global = true)]
    always: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The agent
    Agent,
    /// Its own disk
    Disk,
    /// A kernel with initial RAM disks and arguments: an installer, a rescue system, WinPE by wimboot
    Kernel(Box<KernelArgs>),
    /// An ISO or disk image, read over HTTP
    Iso {
        /// URL, or path in the media directory
        file: Location,
    },
    /// A disk of an iSCSI target
    Iscsi(IscsiArgs),
    /// The usual after all
    Clear,
}

#[derive(Debug, clap::Args)]
struct KernelArgs {
    /// URL, or path in the media directory
    kernel: Location,
    /// Initial RAM disk; again for more. FILE=NAME for a kernel that looks for a name (wimboot)
    #[arg(long = "initrd", value_name = "FILE")]
    initrds: Vec<Named>,
    /// Kernel arguments; `{profile}` becomes the URL of the profile, `{server}` that of this server
    #[arg(long, default_value_t, allow_hyphen_values = true, hide_default_value = true)]
    args: CommandLine,
    /// File with what the installer is to do (kickstart, autoinstall, preseed), in which @BILLET_HOSTNAME@,
    /// @BILLET_SERVER@ and @BILLET_PHONE_HOME@ are filled in
    #[arg(long, value_name = "FILE", conflicts_with = "install_on")]
    profile: Option<PathBuf>,
    #[command(flatten)]
    preseed: PreseedArgs,
    /// The node's name: an installer erases a disk; asked for if not given
    #[arg(long, visible_alias = "yes", value_name = "NAME")]
    confirm: Option<String>,
}

/// An unattended installation by Debian's installer.
#[derive(Debug, clap::Args)]
struct PreseedArgs {
    /// Install Debian on this disk, unattended: the kernel is that of Debian's installer
    #[arg(long, value_name = "DISK", requires = "mirror")]
    install_on: Option<DiskId>,
    /// Base URL of Debian's packages
    #[arg(long, value_name = "URL", requires = "install_on")]
    mirror: Option<Url>,
    /// Release; the installer's own if not given
    #[arg(long, requires = "install_on")]
    suite: Option<String>,
    /// Host name; the node's name if not given
    #[arg(long, requires = "install_on")]
    hostname: Option<String>,
    /// User to make
    #[arg(long, requires = "install_on", default_value = "debian")]
    user: String,
    /// File with SSH public keys of the user; again for more
    #[arg(long = "ssh-key", value_name = "FILE", requires = "install_on")]
    ssh_keys: Vec<PathBuf>,
    /// File with the user's password as a crypt(5) hash (see `mkpasswd`)
    #[arg(long, value_name = "FILE", requires = "install_on")]
    password_hash_file: Option<PathBuf>,
    /// Package to add; again for more
    #[arg(long = "package", value_name = "NAME", requires = "install_on")]
    packages: Vec<String>,
    /// Time zone
    #[arg(long, requires = "install_on", default_value = "Etc/UTC")]
    timezone: String,
}

#[derive(Debug, clap::Args)]
struct IscsiArgs {
    /// Name or address of the target's portal
    portal: Host,
    /// Name of the target
    target: Iqn,
    /// TCP port of the portal
    #[arg(long, default_value_t = boot_server_core::node::boot::ISCSI_PORT)]
    port: u16,
    /// Logical unit
    #[arg(long, default_value_t = 0)]
    lun: u16,
    /// What the machine calls itself; iqn.2010-04.org.ipxe: and the node's name if not given
    #[arg(long, value_name = "NAME")]
    initiator: Option<Iqn>,
    /// Name for CHAP
    #[arg(long, requires = "chap_secret_file")]
    chap_user: Option<String>,
    /// File with the secret for CHAP
    #[arg(long, value_name = "FILE", requires = "chap_user")]
    chap_secret_file: Option<PathBuf>,
}

/// `FILE` or `FILE=NAME`.
#[derive(Debug, Clone)]
struct Named(InitrdFile);

impl FromStr for Named {
    type Err = WordError;
    fn from_str(s: &str) -> Result<Self, WordError> {
        // A URL may have `=` in its query; a name has no slash.
        let (file, name) = match s.rsplit_once('=') {
            Some((file, name)) if !name.contains('/') && !file.contains('?') => (file, Some(name.parse()?)),
            _ => (s, None),
        };
        Ok(Self(InitrdFile { file: file.parse()?, name }))
    }
}

pub(super) fn boot(client: &Client, format: Format, args: &BootArgs) -> Result<(), Failure> {
    let address = path(&args.node, "/boot");
    let (boot, confirm) = match &args.what {
        What::Clear => {
            client.delete(&address)?;
            return format.print(&client.get::<NodeDetail>(&path(&args.node, ""))?.node);
        }
        What::Agent => (Boot::Agent, None),
        What::Disk => (Boot::LocalDisk, None),
        What::Kernel(kernel) => (kernel.boot()?, confirmed(client, args, kernel)?),
        What::Iso { file } => (Boot::Iso(Box::new(IsoBoot { file: file.clone() })), None),
        What::Iscsi(iscsi) => (iscsi.boot()?, None),
    };
    let repeat = if args.always { Repeat::Always } else { Repeat::Once };
    format.print(&client.post::<_, NodeView>(&address, &BootRequest { boot, repeat, confirm })?)
}

/// The node's name, typed, where something installs by itself.
fn confirmed(client: &Client, args: &BootArgs, kernel: &KernelArgs) -> Result<Option<String>, Failure> {
    if kernel.confirm.is_some() || (kernel.profile.is_none() && kernel.preseed.install_on.is_none()) {
        return Ok(kernel.confirm.clone());
    }
    let detail: NodeDetail = client.get(&path(&args.node, ""))?;
    let name = &detail.node.name;
    let disk = kernel.preseed.install_on.as_ref().map_or_else(|| "a disk".to_owned(), ToString::to_string);
    ask(&format!("The installer erases {} in {}.\n", plain(&disk), plain(name)), name).map(Some)
}

impl KernelArgs {
    fn boot(&self) -> Result<Boot, Failure> {
        let profile = match (&self.profile, self.preseed.profile()?) {
            (Some(file), _) => Some(Profile::Text(TextProfile { text: read(file)? })),
            (None, preseed) => preseed,
        };
        Ok(Boot::Kernel(Box::new(KernelBoot {
            kernel: self.kernel.clone(),
            initrds: self.initrds.iter().map(|named| named.0.clone()).collect(),
            arguments: self.args.clone(),
            profile,
        })))
    }
}

impl PreseedArgs {
    fn profile(&self) -> Result<Option<Profile>, Failure> {
        let (Some(disk), Some(mirror)) = (&self.install_on, &self.mirror) else { return Ok(None) };
        let mut ssh_keys = Vec::new();
        for file in &self.ssh_keys {
            ssh_keys.extend(keys(&read(file)?));
        }
        let password_hash = self.password_hash_file.as_deref().map(read).transpose()?;
        Ok(Some(Profile::Preseed(Box::new(Preseed {
            disk: disk.clone(),
            mirror: mirror.clone(),
            suite: self.suite.clone(),
            hostname: self.hostname.clone(),
            user: self.user.clone(),
            password_hash: password_hash.map(|text| text.trim().to_owned()),
            ssh_keys,
            packages: self.packages.clone(),
            timezone: self.timezone.clone(),
        }))))
    }
}

impl IscsiArgs {
    fn boot(&self) -> Result<Boot, Failure> {
        let word = |e: WordError| Failure::Usage(e.to_string());
        let chap = match (&self.chap_user, &self.chap_secret_file) {
            (Some(user), Some(file)) => {
                let secret = read(file)?.trim_end_matches(['\r', '\n']).parse().map_err(word)?;
                Some(Chap { user: user.parse().map_err(word)?, password: Some(secret) })
            }
            _ => None,
        };
        Ok(Boot::Iscsi(Box::new(IscsiBoot {
            server: self.portal.clone(),
            port: self.port,
            lun: self.lun,
            target: self.target.clone(),
            initiator: self.initiator.clone(),
            chap,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initrd_may_have_a_name() {
        let of = |text: &str| {
            let Named(InitrdFile { file, name }) = text.parse().unwrap();
            (file.to_string(), name.map(|n| n.to_string()))
        };
        assert_eq!(of("win/boot.wim=boot.wim"), ("win/boot.wim".into(), Some("boot.wim".into())));
        assert_eq!(of("initrd.gz"), ("initrd.gz".into(), None));
        assert_eq!(of("http://x/i?v=1"), ("http://x/i?v=1".into(), None));
    }
}
