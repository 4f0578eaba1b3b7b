//! The configuration file, and what follows from it and the machine's interfaces. Every option is explained in
//! `config/billet.toml`; all are optional.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use boot_server_core::boot_files;
use boot_server_core::node::{Node, Policy};
use serde::{Deserialize, Serialize};

use crate::bundle::{Keys, Releases};
use crate::store::Location;

mod audit;
mod bmc;
mod console;
mod dhcp;
mod export;
mod identity;
mod interface;
mod ipv6;
mod metadata;
mod oidc;
mod overlay;
mod store;
mod switches;
pub mod tls;
mod volumes;
mod webhooks;

pub use audit::{ApprovalSettings, Approvals, Audit, AuditSettings};
pub use bmc::{Bmc, BmcSettings, OwnAccount};
pub use console::{Console, ConsoleSettings, SshKey};
pub use dhcp::{Dhcp, Lending};
pub use export::{Export, ExportSettings};
pub use identity::{Identity, IdentitySettings, PoolIdentity};
pub use interface::{Interface, Network, interfaces};
pub use ipv6::{Advertise, Dhcp6, Ipv6, Ipv6Settings, Pool6};
pub use metadata::Metadata;
pub(crate) use oidc::may_be_asked;
pub use oidc::{Grant, Oidc, OidcSettings};
pub use overlay::{Overlay, OverlaySettings, OverlayTls};
pub use store::{Store, server as store_server};
pub use switches::{Switch, SwitchSettings};
pub use volumes::{VolumeSettings, VolumeType};
pub use webhooks::{Hook, Webhook};

/// The file as it is written. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Database, images, tokens.
    pub state_dir: PathBuf,
    /// The database, where it is not in that directory.
    pub store: Store,
    /// The network with the machines.
    pub provisioning: Provisioning,
    /// Addresses for them.
    pub dhcp: Dhcp,
    /// IPv6 on that network.
    pub ipv6: Ipv6,
    /// IPv6 addresses for them.
    pub dhcp6: Dhcp6,
    /// Boot loaders for firmware without HTTP.
    pub tftp: Tftp,
    /// What they boot.
    pub boot: Boot,
    /// Where people and programs come in.
    pub operators: Operators,
    /// Serial consoles.
    pub console: Console,
    /// What installed OSes may ask for.
    pub metadata: Metadata,
    /// What happens to machines that nobody announced.
    pub discovery: Discovery,
    /// What an agent must have proven.
    pub identity: Identity,
    /// How long the event list goes back.
    pub events: Events,
    /// Who did what.
    pub audit: Audit,
    /// What two people must want.
    pub approvals: Approvals,
    /// Management controllers of the machines.
    pub bmc: Bmc,
    /// Where people sign in, beside here.
    pub oidc: Option<Oidc>,
    /// Who is told of events.
    pub webhooks: Vec<Webhook>,
    /// Where volumes are kept.
    pub volumes: Vec<VolumeType>,
    /// Networks of projects.
    pub overlay: Option<Overlay>,
    /// Switches that put hosts on them.
    pub switches: Vec<Switch>,
    /// Where images may come from.
    pub images: Images,
    /// Whose bundles are taken in.
    pub bundles: Bundles,
    /// For the other side of a one-way gateway.
    pub export: Export,
    /// The log.
    pub log: Log,
}

/// `[provisioning]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Provisioning {
    pub interface: Option<String>,
    pub listen_port: u16,
    pub connections_per_address: usize,
    pub tls_port: Option<u16>,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub firmware_by_https: bool,
    pub match_leases: bool,
}

/// `[tftp]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Tftp {
    pub enabled: bool,
}

/// `[boot]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Boot {
    pub directory: Option<PathBuf>,
    #[serde(deserialize_with = "one_or_more")]
    pub loaders: Vec<PathBuf>,
    pub secure_boot: SecureBoot,
    pub arguments: String,
    pub media: Option<PathBuf>,
}

/// What UEFI machines are booted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecureBoot {
    /// iPXE, which is not signed.
    Off,
    /// Shim, then a signed GRUB and the signed kernel.
    Shim,
    /// The site's own signed unified kernel image.
    Uki,
}

impl From<SecureBoot> for boot_files::SecureBoot {
    fn from(option: SecureBoot) -> Self {
        match option {
            SecureBoot::Off => Self::Off,
            SecureBoot::Shim => Self::Shim,
            SecureBoot::Uki => Self::Uki,
        }
    }
}

/// A list, or one alone.
fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a directory, or a list of directories")]
    enum Either {
        One(PathBuf),
        More(Vec<PathBuf>),
    }
    Ok(match Either::deserialize(from)? {
        Either::One(one) => vec![one],
        Either::More(more) => more,
    })
}

/// `[operators]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Operators {
    pub listen: SocketAddr,
    pub requests_per_second: u32,
    pub requests_at_once: u32,
}

/// `[discovery]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Discovery {
    pub provide_blank: bool,
    pub burst: u32,
    pub new_per_second: u32,
}

/// `[events]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Events {
    pub keep_days: u32,
    pub keep_rows: u64,
}

/// What one client may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Requests per second in the long run; 0: any number.
    pub per_second: u32,
    /// Requests that are being answered; 0: any number.
    pub at_once: u32,
}

/// How many unknown machines may become nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewMachines {
    /// At once.
    pub burst: u32,
    /// From then on.
    pub per_second: u32,
}

/// Which events are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Not older than this, where it matters.
    pub age: Option<Duration>,
    /// Not more than so many; 0 for all.
    pub rows: u64,
}

/// `[images]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Images {
    pub import_dirs: Vec<PathBuf>,
    pub trusted_hosts: Vec<String>,
}

/// `[bundles]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Bundles {
    pub keys: Vec<String>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/billet"),
            store: Store::default(),
            provisioning: Provisioning::default(),
            dhcp: Dhcp::default(),
            ipv6: Ipv6::default(),
            dhcp6: Dhcp6::default(),
            tftp: Tftp::default(),
            boot: Boot::default(),
            operators: Operators::default(),
            console: Console::default(),
            metadata: Metadata::default(),
            discovery: Discovery::default(),
            identity: Identity::default(),
            events: Events::default(),
            audit: Audit::default(),
            approvals: Approvals::default(),
            bmc: Bmc::default(),
            oidc: None,
            webhooks: Vec::new(),
            volumes: Vec::new(),
            overlay: None,
            switches: Vec::new(),
            images: Images::default(),
            bundles: Bundles::default(),
            export: Export::default(),
            log: Log::default(),
        }
    }
}

impl Default for Provisioning {
    fn default() -> Self {
        Self {
            interface: None,
            listen_port: 8080,
            connections_per_address: 64,
            tls_port: None,
            tls_certificate: None,
            tls_key: None,
            firmware_by_https: false,
            match_leases: true,
        }
    }
}

impl Default for Tftp {
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Default for Boot {
    fn default() -> Self {
        Self {
            directory: None,
            loaders: ["/usr/lib/ipxe", "/usr/lib/shim", "/usr/lib/grub/x86_64-efi-signed"]
                .map(PathBuf::from)
                .into(),
            secure_boot: SecureBoot::Off,
            arguments: "console=tty0 console=ttyS0,115200".to_owned(),
            media: None,
        }
    }
}

impl Default for Operators {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8090));
        Self { listen, requests_per_second: 100, requests_at_once: 64 }
    }
}

impl Default for Discovery {
    fn default() -> Self {
        // A hall of 10,000 machines is in within a minute; who invents machines fills no disk in an hour.
        Self { provide_blank: true, burst: 5000, new_per_second: 100 }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self { keep_days: 365, keep_rows: 2_000_000 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{file}, line {line}: {message}")]
    Parse {
        /// The file.
        file: String,
        /// From 1.
        line: usize,
        /// What is wrong, with the nearest right name where a key is unknown.
        message: String,
    },
    /// `[identity]` says what cannot be.
    #[error("{what}")]
    Identity {
        /// What.
        what: String,
    },
    /// No interface was named.
    #[error(
        "no provisioning interface: give --interface, or set provisioning.interface; this machine has {have}"
    )]
    NoInterface {
        /// Interfaces with an address.
        have: String,
    },
    /// The interface has no address, or does not exist.
    #[error("interface {name} has no address; this machine has {have}")]
    NoAddress {
        /// The interface.
        name: String,
        /// Interfaces with an address.
        have: String,
    },
    /// The system does not list its interfaces.
    #[error("cannot list network interfaces")]
    Interfaces(#[source] nix::Error),
    /// Keys of TLS that do not go together.
    #[error("provisioning: {0}")]
    Tls(String),
    /// A key that is none.
    #[error("console.ssh_keys: {0}")]
    SshKey(String),
    /// IPv6 settings that do not fit the interface.
    #[error("ipv6: {0}")]
    Ipv6(String),
    /// Somebody who cannot be told of events.
    #[error("oidc: {0}")]
    Oidc(String),
    /// Nobody can be told this way.
    #[error("webhooks: {0}")]
    Webhook(String),
    /// Types of volumes that make no sense.
    #[error("volumes: {0}")]
    Volumes(String),
    /// Settings for networks of projects that make no sense.
    #[error("overlay: {0}")]
    Overlay(String),
    /// Settings for switches that make no sense.
    #[error("switches: {0}")]
    Switches(String),
    /// Settings of approvals that make no sense.
    #[error("approvals: {0}")]
    Approvals(String),
    /// Settings for management controllers that make no sense.
    #[error("bmc: {0}")]
    Bmc(String),
    /// A database that cannot be used.
    #[error("{0}")]
    Store(String),
    /// Keys that are none.
    #[error("bundles.keys: {0}")]
    Bundles(String),
    /// An address range that does not fit the interface.
    #[error("dhcp: {0}")]
    Range(String),
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::Parse`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Where the database is.
    ///
    /// # Errors
    /// [`ConfigError::Store`].
    pub fn location(&self) -> Result<Location, ConfigError> {
        store::location(&self.store, &self.state_dir)
    }

    /// Where kernel and ramdisk are looked for, in order: first what the newest bundle brought.
    pub fn boot_directories(&self) -> Vec<PathBuf> {
        let bundle = Releases::current_dir(&self.state_dir).join("boot");
        let own = match &self.boot.directory {
            Some(directory) => vec![directory.clone()],
            None => vec![self.state_dir.join("boot"), PathBuf::from("/usr/share/billet/boot")],
        };
        std::iter::once(bundle).chain(own).collect()
    }

    /// Where boot loaders are looked for, in order: first what the newest bundle brought.
    pub fn loader_directories(&self) -> Vec<PathBuf> {
        let bundle = Releases::current_dir(&self.state_dir).join("loaders");
        let own = self.state_dir.join("loaders");
        [bundle, own].into_iter().chain(self.boot.loaders.clone()).collect()
    }

    /// Where each type of volumes is kept.
    pub fn volume_directories(&self) -> BTreeMap<String, PathBuf> {
        self.volumes.iter().map(|this| (this.name.clone(), this.place_of(&self.state_dir))).collect()
    }

    /// Parses the text of `file`.
    ///
    /// # Errors
    /// [`ConfigError::Parse`] with line and, for an unknown key, the nearest right name.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text.as_bytes()[..start].iter().filter(|b| **b == b'\n').count() + 1;
            ConfigError::Parse { file: file.to_owned(), line, message: explain(error.message()) }
        })
    }
}

/// Says which key was meant. The message of serde names the unknown key first and then all that are known.
fn explain(message: &str) -> String {
    if !message.starts_with("unknown field") {
        return message.to_owned();
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next().unwrap_or_default();
    let near = names
        .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().div_ceil(2));
    match near {
        Some((_, name)) => format!("unknown key `{unknown}`, did you mean `{name}`?"),
        None => format!("unknown key `{unknown}` ({})", message.split_once(", ").map_or("", |(_, r)| r)),
    }
}

/// What the server runs with: the configuration with all that was left open filled in.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Database, images, tokens.
    pub state_dir: PathBuf,
    /// Where the database is.
    pub store: Location,
    /// Interface with the machines.
    pub interface: String,
    /// Our IPv4 address there; `None` where it speaks IPv6 alone.
    pub ipv4: Option<Network<Ipv4Addr>>,
    /// IPv6 there, unless the interface has no address of it or it is off.
    pub ipv6: Option<Ipv6Settings>,
    /// Port of the provisioning listener.
    pub port: u16,
    /// Connections to it that one address may have at a time.
    pub per_address: usize,
    /// TLS beside it, where it is on.
    pub tls: Option<tls::Tls>,
    /// DHCP, unless it is off or the interface has no IPv4 address.
    pub dhcp: Option<Lending>,
    /// TFTP is on.
    pub tftp: bool,
    /// Where kernel and ramdisk are looked for, in order.
    pub boot: Vec<PathBuf>,
    /// Where the boot loaders are looked for, in order.
    pub loaders: Vec<PathBuf>,
    /// What UEFI machines are booted by.
    pub secure_boot: boot_files::SecureBoot,
    /// Files for boots that somebody orders.
    pub media: PathBuf,
    /// Kernel arguments that the site adds.
    pub kernel_arguments: String,
    /// Where operators come in.
    pub operators: SocketAddr,
    /// What one client may ask of the API.
    pub rates: Rates,
    /// Serial consoles.
    pub console: ConsoleSettings,
    /// What installed OSes may ask for.
    pub metadata: Metadata,
    /// What the site wants; of a node, see [`policy_of`](Self::policy_of).
    pub policy: Policy,
    /// What an agent must have proven.
    pub identity: IdentitySettings,
    /// How many unknown machines may become nodes.
    pub new_machines: NewMachines,
    /// A boot script is given only to the address that was lent to its machine, where one was.
    pub match_leases: bool,
    /// Which events are kept.
    pub events: Kept,
    /// Who did what: what is written down.
    pub audit: AuditSettings,
    /// What two people must want.
    pub approvals: ApprovalSettings,
    /// What is done with management controllers.
    pub bmc: BmcSettings,
    /// Where people sign in, beside here.
    pub oidc: Option<OidcSettings>,
    /// Who is told of events.
    pub webhooks: Vec<Hook>,
    /// Types of volumes, in the order of the file.
    pub volumes: Vec<VolumeSettings>,
    /// Networks of projects, where the site has them.
    pub overlay: Option<OverlaySettings>,
    /// Switches that put hosts without a DPU on their networks.
    pub switches: Vec<SwitchSettings>,
    /// Directories from which images may be taken by path.
    pub import_dirs: Vec<PathBuf>,
    /// Hosts from which images may be fetched wherever they are.
    pub trusted_hosts: Vec<String>,
    /// Public keys of those whose bundles are taken in, beside the site's own.
    pub bundle_keys: Vec<String>,
    /// For the other side of a one-way gateway, where it is wanted.
    pub export: Option<ExportSettings>,
}

impl Settings {
    /// Fills in what was left open.
    ///
    /// # Errors
    /// Where the interface or the address range cannot be used.
    pub fn new(config: &Config, interfaces: &[Interface]) -> Result<Self, ConfigError> {
        let have = || {
            let text = interfaces.iter().map(Interface::to_string).collect::<Vec<_>>().join(", ");
            if text.is_empty() { "none".to_owned() } else { text }
        };
        let Some(name) = &config.provisioning.interface else {
            return Err(ConfigError::NoInterface { have: have() });
        };
        let Some(interface) = interfaces.iter().find(|i| i.name == *name) else {
            return Err(ConfigError::NoAddress { name: name.clone(), have: have() });
        };
        let ipv6 = ipv6::settings(&config.ipv6, &config.dhcp6, interface)?;
        let first = interface.ipv4.map(|n| IpAddr::V4(n.address));
        let first = first.or(ipv6.as_ref().map(|n| IpAddr::V6(n.network.address)));
        let Some(first) = first else {
            return Err(ConfigError::NoAddress { name: name.clone(), have: have() });
        };
        Ok(Self {
            state_dir: config.state_dir.clone(),
            store: config.location()?,
            interface: name.clone(),
            ipv4: interface.ipv4,
            ipv6,
            port: config.provisioning.listen_port,
            per_address: config.provisioning.connections_per_address.max(1),
            tls: tls::Tls::new(&config.provisioning, first, tls::addresses(name), &config.state_dir)?,
            dhcp: match interface.ipv4 {
                Some(own) if config.dhcp.enabled => Some(Lending::new(&config.dhcp, name, own)?),
                _ => None,
            },
            tftp: config.tftp.enabled,
            boot: config.boot_directories(),
            loaders: config.loader_directories(),
            secure_boot: config.boot.secure_boot.into(),
            media: config.boot.media.clone().unwrap_or_else(|| config.state_dir.join("media")),
            kernel_arguments: config.boot.arguments.clone(),
            operators: config.operators.listen,
            rates: Rates {
                per_second: config.operators.requests_per_second,
                at_once: config.operators.requests_at_once,
            },
            console: ConsoleSettings::new(&config.console)?,
            metadata: config.metadata.clone(),
            policy: Policy { provide_blank: config.discovery.provide_blank, ..Policy::default() },
            identity: IdentitySettings::new(&config.identity)?,
            new_machines: NewMachines {
                burst: config.discovery.burst,
                per_second: config.discovery.new_per_second,
            },
            match_leases: config.provisioning.match_leases,
            oidc: config.oidc.as_ref().map(oidc::settings).transpose()?,
            webhooks: webhooks::hooks(&config.webhooks)?,
            volumes: volumes::settings(&config.volumes, first, &config.state_dir)?,
            overlay: overlay::settings(config.overlay.as_ref(), !config.switches.is_empty())?,
            switches: switches::settings(&config.switches)?,
            audit: AuditSettings::from(&config.audit),
            approvals: ApprovalSettings::new(&config.approvals)?,
            bmc: BmcSettings::new(&config.bmc)?,
            events: Kept {
                age: (config.events.keep_days > 0)
                    .then(|| Duration::from_hours(24 * u64::from(config.events.keep_days))),
                rows: config.events.keep_rows,
            },
            import_dirs: match config.images.import_dirs.as_slice() {
                [] => vec![config.state_dir.join("import")],
                dirs => dirs.to_vec(),
            },
            trusted_hosts: config.images.trusted_hosts.clone(),
            bundle_keys: bundle_keys(&config.bundles)?,
            export: ExportSettings::new(&config.export),
        })
    }

    /// What is wanted of machines of this node's pool.
    pub fn policy_of(&self, node: &Node) -> Policy {
        Policy { identity: self.identity.of(&node.pool()), ..self.policy }
    }

    /// Our addresses on the provisioning interface, IPv4 first; at least one.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ipv4 = self.ipv4.map(|n| IpAddr::V4(n.address));
        ipv4.into_iter().chain(self.ipv6.as_ref().map(|n| IpAddr::V6(n.network.address)))
    }

    /// The first of [`provisioning_urls`](Self::provisioning_urls).
    pub fn provisioning_url(&self) -> String {
        self.provisioning_urls().next().unwrap_or_default()
    }

    /// Base URLs of the provisioning listener, such as `http://10.77.0.1:8080` and `http://[fd77::1]:8080`.
    pub fn provisioning_urls(&self) -> impl Iterator<Item = String> {
        self.addresses().map(|address| format!("http://{}", SocketAddr::new(address, self.port)))
    }

    /// Base URL by which controllers fetch boot images.
    pub fn images_url(&self) -> String {
        self.bmc.images.clone().unwrap_or_else(|| self.provisioning_url())
    }

    /// Directory of the image store.
    pub fn images_dir(&self) -> PathBuf {
        self.state_dir.join("images")
    }

    /// The file with the key of the secrets in the database.
    pub fn secrets_key(&self) -> PathBuf {
        self.state_dir.join("secrets.key")
    }

    /// The file with the site's signing key.
    pub fn site_key(&self) -> PathBuf {
        self.state_dir.join("site.key")
    }

    /// The directory of what the ramdisk is told to trust, and of the key that signs images.
    pub fn trust_dir(&self) -> PathBuf {
        self.state_dir.join("trust")
    }

    /// The file with the private part of the key that signs images; not there where that is kept elsewhere.
    pub fn image_key(&self) -> PathBuf {
        self.trust_dir().join("site.key")
    }

    /// The file with the keys that machines are told to trust.
    pub fn anchor(&self) -> PathBuf {
        self.trust_dir().join("trust.json")
    }

    /// The directory of ramdisks as they are served: with what this site adds.
    pub fn ramdisks_dir(&self) -> PathBuf {
        self.state_dir.join("ramdisk")
    }

    /// The file with the operators' token.
    pub fn operator_token(&self) -> PathBuf {
        self.state_dir.join("operator.token")
    }
}

/// What is no key is found at start, not when the first bundle comes.
fn bundle_keys(bundles: &Bundles) -> Result<Vec<String>, ConfigError> {
    let checked = Keys::new(bundles.keys.iter().map(String::as_str));
    checked.map(|_| bundles.keys.clone()).map_err(|error| ConfigError::Bundles(error.to_string()))
}

/// Names of all keys of the file, as `section.key`; for the test that each is explained.
pub fn keys() -> BTreeSet<String> {
    let known = |text: &str| -> Vec<String> {
        match toml::from_str::<Config>(text) {
            Err(error) if error.message().starts_with("unknown field") => {
                error.message().split('`').skip(1).step_by(2).skip(1).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        }
    };
    let mut keys = BTreeSet::new();
    for name in known("__ = 0\n") {
        let mut inner = known(&format!("[{name}]\n__ = 0\n"));
        if inner.is_empty() {
            inner = known(&format!("[[{name}]]\n__ = 0\n"));
        }
        if inner.is_empty() {
            keys.insert(name);
        } else {
            for key in inner {
                // A table, or a list of them, has keys of its own.
                let mut own = known(&format!("[[{name}.{key}]]\n__ = 0\n"));
                if own.is_empty() {
                    own = known(&format!("[{name}.{key}]\n__ = 0\n"));
                }
                if own.is_empty() {
                    keys.insert(format!("{name}.{key}"));
                }
                keys.extend(own.into_iter().map(|own| format!("{name}.{key}.{own}")));
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../config/billet.toml");

    fn interface(address: [u8; 4], prefix: u8) -> Interface {
        let ipv4 = Some(Network { address: address.into(), prefix });
        Interface { name: "eth1".into(), ipv4, ipv6: Vec::new() }
    }

    fn settings(text: &str, address: [u8; 4], prefix: u8) -> Result<Settings, ConfigError> {
        let mut config = Config::parse(text, "test").unwrap();
        config.provisioning.interface = Some("eth1".into());
        Settings::new(&config, &[interface(address, prefix)])
    }

    #[test]
    fn the_file_shows_the_defaults() {
        assert_eq!(Config::parse(FILE, "billet.toml").unwrap(), Config::default());
    }

    #[test]
    fn the_file_explains_every_key() {
        let mut section = String::new();
        let mut shown = BTreeSet::new();
        for line in FILE.lines() {
            let line = line.strip_prefix('#').unwrap_or(line);
            if let Some(name) = line.strip_prefix('[') {
                section = format!("{}.", name.trim_matches(['[', ']']));
            } else if let Some((key, _)) = line.split_once(" = ")
                && !key.contains(' ')
            {
                shown.insert(format!("{section}{key}"));
            }
        }
        assert!(keys().len() > 10, "{:?}", keys());
        assert_eq!(shown, keys());
    }

    #[test]
    fn commented_examples_are_valid() {
        let all: String = FILE
            .lines()
            .map(|l| {
                l.strip_prefix('#')
                    .filter(|l| l.starts_with('[') || !l.starts_with(' ') && l.contains(" = "))
                    .unwrap_or(l)
            })
            .flat_map(|l| [l, "\n"])
            .collect();
        Config::parse(&all, "billet.toml").unwrap();
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        let error = Config::parse("# x\n[dhcp]\nrange_strat = \"10.0.0.1\"\n", "f.toml").unwrap_err();
        assert_eq!(
            error.to_string(),
            "f.toml, line 3: unknown key `range_strat`, did you mean `range_start`?"
        );
        let error = Config::parse("zzzzzzzzzzzzzz = 1", "f.toml").unwrap_err().to_string();
        assert!(
            error.starts_with("f.toml, line 1: unknown key `zzzzzzzzzzzzzz` (expected one of"),
            "{error}"
        );
    }

    #[test]
    fn the_pool_is_the_upper_half() {
        let pool = |text, a, p| {
            let own = settings(text, a, p)?.dhcp.unwrap().own().unwrap().pools[0];
            Ok::<_, ConfigError>((own.first, own.last))
        };
        let ip = |a: [u8; 4]| Ipv4Addr::from(a);
        assert_eq!(pool("", [10, 77, 0, 1], 24).unwrap(), (ip([10, 77, 0, 128]), ip([10, 77, 0, 254])));
        assert_eq!(pool("", [10, 0, 0, 1], 30).unwrap(), (ip([10, 0, 0, 2]), ip([10, 0, 0, 2])));
        let large = pool("", [10, 0, 0, 1], 8).unwrap();
        assert_eq!(large, (ip([10, 239, 255, 255]), ip([10, 255, 255, 254])), "no more than a million");
        assert!(pool("", [10, 0, 0, 1], 31).is_err());
        assert!(pool("[dhcp]\nrange_start = \"10.78.0.1\"", [10, 77, 0, 1], 24).is_err());
        assert!(
            pool("[dhcp]\nrange_start = \"10.77.0.9\"\nrange_end = \"10.77.0.8\"", [10, 77, 0, 1], 24)
                .is_err()
        );
        assert!(settings("[dhcp]\nenabled = false", [10, 0, 0, 1], 32).unwrap().dhcp.is_none());
    }
}
