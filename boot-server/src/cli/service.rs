//! `billet node service`, `firmware`, `bios` and `secure-boot`.

use std::path::PathBuf;

use bmc::{BiosAttributes, FirmwareItem, SecureBoot};
use boot_server_core::node::ItemStatus;
use boot_server_core::servicing::{
    Attributes, BiosStep, FirmwareStep, KeyReset, KeysStep, RestartPolicy, SecureBootStep, ServiceStep,
    Transfer,
};
use boot_server_core::words::Location;
use clap::ValueEnum;
use protocol::Sha256;
use serde_json::Value;

use super::Failure;
use super::bmc::read;
use super::client::Client;
use super::node::path;
use super::output::{Format, Show, facts, table};
use super::watch::{Goal, WatchArgs, watch};
use crate::http::api::requests::ServiceRequest;
use crate::view::{NodeView, Page, ServiceView};

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On
    On,
    /// Off
    Off,
}

/// What key databases are reset to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Keys {
    /// The maker's keys
    Default,
    /// None at all: set-up mode
    DeleteAll,
    /// No platform key: set-up mode
    DeletePk,
}

/// What to do with Secure Boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SecureBootVerb {
    /// Switch it on
    On,
    /// Switch it off
    Off,
    /// Reset its keys; --keys says to what
    ResetKeys,
}

/// Whether the machine may be restarted, and whether to stay.
#[derive(Debug, clap::Args)]
pub struct GoArgs {
    /// Allow a machine that runs an OS to be restarted; without it settings wait for its next restart
    #[arg(long)]
    pub(super) restart: bool,
    #[command(flatten)]
    pub(super) watch: WatchArgs,
}

/// `billet node service`.
#[derive(Debug, clap::Args)]
pub struct ServiceArgs {
    /// Name or id
    node: String,
    /// Part and the version that it is to have; needs --image
    #[arg(long, value_name = "COMPONENT=VERSION", requires = "image")]
    firmware: Option<String>,
    /// Firmware image: a path in the server's media directory, or with --pull a URL
    #[arg(long, value_name = "PATH|URL", requires = "firmware")]
    image: Option<Location>,
    /// SHA-256 of the image in the media directory, as its maker publishes it
    #[arg(long, value_name = "HEX", requires = "firmware")]
    sha256: Option<Sha256>,
    /// The BMC fetches the image; else it is sent to it
    #[arg(long, requires = "firmware")]
    pull: bool,
    /// Tell the BMC which part the image is for; else the image tells
    #[arg(long, requires = "firmware")]
    target: bool,
    /// BIOS attribute to set; again for more
    #[arg(long, value_name = "NAME=VALUE")]
    bios: Vec<String>,
    /// Secure Boot
    #[arg(long, value_enum)]
    secure_boot: Option<Switch>,
    /// Reset the keys of Secure Boot
    #[arg(long, value_enum)]
    keys: Option<Keys>,
    /// JSON file with a list of steps, as the API takes them; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["firmware", "bios", "secure_boot", "keys"])]
    steps: Option<PathBuf>,
    #[command(flatten)]
    go: GoArgs,
}

/// `billet node bios`.
#[derive(Debug, clap::Args)]
pub struct BiosArgs {
    /// Name or id
    node: String,
    /// Only attributes with this in their name
    #[arg(long, short)]
    query: Option<String>,
    /// Compare with this baseline instead
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
}

/// `billet node secure-boot`.
#[derive(Debug, clap::Args)]
pub struct SecureBootArgs {
    /// Name or id
    node: String,
    /// What to do; without it: say how it is
    #[arg(value_enum)]
    verb: Option<SecureBootVerb>,
    /// With reset-keys: to what
    #[arg(long, value_enum, default_value_t = Keys::Default)]
    keys: Keys,
    #[command(flatten)]
    go: GoArgs,
}

/// Asks for a job, and stays where told.
pub(super) fn ask(
    client: &Client,
    format: Format,
    node: &str,
    (verb, request): (&str, &impl serde::Serialize),
    go: &GoArgs,
) -> Result<(), Failure> {
    let node: NodeView = client.post(&path(node, verb), request)?;
    if go.watch.watch { watch(client, format, &node, Goal::Over, &go.watch) } else { format.print(&node) }
}

pub(super) fn policy(go: &GoArgs) -> RestartPolicy {
    if go.restart { RestartPolicy::Allowed } else { RestartPolicy::Never }
}

pub(super) fn service(client: &Client, format: Format, args: &ServiceArgs) -> Result<(), Failure> {
    let steps = match &args.steps {
        Some(file) => serde_json::from_str(&read(file)?)
            .map_err(|e| Failure::Usage(format!("{} is no list of steps: {e}", file.display())))?,
        None => steps(client, args)?,
    };
    let request = ServiceRequest { steps, restart: policy(&args.go) };
    ask(client, format, &args.node, ("/service", &request), &args.go)
}

fn steps(client: &Client, args: &ServiceArgs) -> Result<Vec<ServiceStep>, Failure> {
    let mut steps = Vec::new();
    if let (Some(wanted), Some(image)) = (&args.firmware, &args.image) {
        let (component, version) = wanted
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("`{wanted}` is not COMPONENT=VERSION")))?;
        steps.push(ServiceStep::Firmware(FirmwareStep {
            component: component.to_owned(),
            version: version.to_owned(),
            image: image.clone(),
            sha256: args.sha256,
            by: if args.pull { Transfer::Pull } else { Transfer::Push },
            target: args.target,
        }));
    }
    if !args.bios.is_empty() {
        let now: BiosAttributes = client.get(&path(&args.node, "/bios"))?;
        let attributes = attributes(&args.bios, &now.0)?;
        steps.push(ServiceStep::Bios(BiosStep { attributes }));
    }
    if let Some(keys) = args.keys {
        steps.push(ServiceStep::SecureBootKeys(KeysStep { to: reset(keys) }));
    }
    if let Some(switch) = args.secure_boot {
        steps.push(ServiceStep::SecureBoot(SecureBootStep { on: switch == Switch::On }));
    }
    Ok(steps)
}

/// `NAME=VALUE`, each value of the type that the attribute has now.
pub(super) fn attributes(pairs: &[String], now: &Attributes) -> Result<Attributes, Failure> {
    let pair = |pair: &String| {
        let (name, text) =
            pair.split_once('=').ok_or_else(|| Failure::Usage(format!("`{pair}` is not NAME=VALUE")))?;
        let value = match now.get(name) {
            Some(Value::Number(_) | Value::Bool(_)) => serde_json::from_str(text).map_err(|_| {
                Failure::Usage(format!(
                    "`{text}` is of another type than `{name}`, which is {} now",
                    now[name]
                ))
            })?,
            _ => Value::from(text),
        };
        Ok((name.to_owned(), value))
    };
    pairs.iter().map(pair).collect()
}

fn reset(keys: Keys) -> KeyReset {
    match keys {
        Keys::Default => KeyReset::Default,
        Keys::DeleteAll => KeyReset::DeleteAll,
        Keys::DeletePk => KeyReset::DeletePk,
    }
}

pub(super) fn firmware(client: &Client, format: Format, node: &str) -> Result<(), Failure> {
    format.print(&client.all::<FirmwareItem>(&path(node, "/bmc/firmware"))?)
}

pub(super) fn bios(client: &Client, format: Format, args: &BiosArgs) -> Result<(), Failure> {
    if let Some(baseline) = &args.baseline {
        return super::baseline::diff(client, format, &args.node, baseline);
    }
    let mut attributes: BiosAttributes = client.get(&path(&args.node, "/bios"))?;
    if let Some(query) = args.query.as_ref().map(|q| q.to_lowercase()) {
        attributes.0.retain(|name, _| name.to_lowercase().contains(&query));
    }
    format.print(&attributes)
}

pub(super) fn secure_boot(client: &Client, format: Format, args: &SecureBootArgs) -> Result<(), Failure> {
    let step = match args.verb {
        None => return format.print(&client.get::<SecureBoot>(&path(&args.node, "/secure-boot"))?),
        Some(SecureBootVerb::On) => ServiceStep::SecureBoot(SecureBootStep { on: true }),
        Some(SecureBootVerb::Off) => ServiceStep::SecureBoot(SecureBootStep { on: false }),
        Some(SecureBootVerb::ResetKeys) => ServiceStep::SecureBootKeys(KeysStep { to: reset(args.keys) }),
    };
    let request = ServiceRequest { steps: vec![step], restart: policy(&args.go) };
    ask(client, format, &args.node, ("/service", &request), &args.go)
}

/// The steps of a job, for the page of a node.
pub(super) fn steps_table(service: &ServiceView) -> String {
    let word = |status: ItemStatus, now: bool| match status {
        ItemStatus::Waiting if now => "now",
        ItemStatus::Waiting => "",
        ItemStatus::Staged => "after a restart",
        ItemStatus::Done => "done",
        ItemStatus::Same => "was so",
        ItemStatus::Untold => "taken",
    };
    let rows =
        service.steps.iter().map(|step| vec![step.words.clone(), word(step.status, step.now).to_owned()]);
    table(&["step", "state"], rows)
}

/// A value of an attribute without the quotes of JSON.
pub(super) fn plain_value(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Show for Page<FirmwareItem> {
    fn table(&self) -> String {
        let rows = self.items.iter().map(|item| {
            let version = item.version.clone().unwrap_or_default();
            let updateable = if item.updateable { "yes" } else { "" };
            let id = item.id.rsplit('/').next().unwrap_or_default();
            vec![item.name.clone(), version, updateable.to_owned(), id.to_owned()]
        });
        table(&["firmware", "version", "updateable", "id"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.name.clone()).collect()
    }
}

impl Show for BiosAttributes {
    fn table(&self) -> String {
        let rows = self.0.iter().map(|(name, value)| vec![name.clone(), plain_value(value)]);
        table(&["attribute", "value"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

impl Show for SecureBoot {
    fn table(&self) -> String {
        let word = |on| if on { "on" } else { "off" };
        let keys = self.setup_mode.map(|setup| if setup { "none (set-up mode)" } else { "enrolled" });
        facts(&[
            ("secure boot", Some(word(self.current).to_owned())),
            ("next start", Some(word(self.enabled).to_owned())),
            ("platform key", keys.map(str::to_owned)),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![if self.current { "on" } else { "off" }.to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_get_the_type_that_the_attribute_has() {
        let now =
            serde_json::from_value(json!({"Cores": 16, "Quiet": true, "Mode": "Uefi", "Tag": "7"})).unwrap();
        let of =
            |pairs: &[&str]| attributes(&pairs.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>(), &now);
        let got = of(&["Cores=8", "Quiet=false", "Mode=Bios", "Tag=8", "New=x=y"]).unwrap();
        assert_eq!(json!(got), json!({"Cores": 8, "Quiet": false, "Mode": "Bios", "Tag": "8", "New": "x=y"}));
        assert!(of(&["Cores=many"]).is_err() && of(&["Cores"]).is_err());
    }
}
