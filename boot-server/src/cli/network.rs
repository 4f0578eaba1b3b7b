//! `billet node network` and `billet node media`: machines that boot without DHCP.

use std::net::Ipv4Addr;

use bmc::Media;
use boot_server_core::node::{HostAddress, StaticNetwork};
use clap::Subcommand;
use protocol::MacAddr;

use super::Failure;
use super::client::Client;
use super::node::path;
use super::output::{Format, Show, facts};
use crate::http::api::bmc_requests::MediaRequest;
use crate::view::{NodeDetail, NodeView};

/// `billet node network`.
#[derive(Debug, clap::Args)]
pub struct NetworkArgs {
    /// Name or id
    node: String,
    /// Address and length of the prefix, such as 10.77.0.50/24; without it: say what is set
    address: Option<HostAddress>,
    /// Router to everything else
    #[arg(long, requires = "address")]
    gateway: Option<Ipv4Addr>,
    /// The port, by its MAC address; the first that reaches the server if not given
    #[arg(long, requires = "address")]
    mac: Option<MacAddr>,
    /// Name server of the OS; again for more
    #[arg(long, requires = "address")]
    dns: Vec<Ipv4Addr>,
    /// Leave it to DHCP again
    #[arg(long, conflicts_with = "address")]
    clear: bool,
}

/// `billet node media`.
#[derive(Debug, clap::Args)]
pub struct MediaArgs {
    /// Name or id
    node: String,
    /// What to do
    #[command(subcommand)]
    what: Option<Drive>,
}

/// What can be done with a virtual drive.
#[derive(Debug, Subcommand)]
pub enum Drive {
    /// Say what is in it
    Show,
    /// Put the image at this URL into it; the management controller must be able to fetch it
    Insert {
        /// http or https
        url: String,
    },
    /// Empty it
    Eject,
}

pub(super) fn network(client: &Client, format: Format, args: &NetworkArgs) -> Result<(), Failure> {
    let address = path(&args.node, "/network");
    if let Some(own) = args.address {
        let network =
            StaticNetwork { address: own, gateway: args.gateway, mac: args.mac, dns: args.dns.clone() };
        return format.print(&client.put::<_, NodeView>(&address, &network)?);
    }
    if args.clear {
        client.delete(&address)?;
    }
    format.print(&client.get::<NodeDetail>(&path(&args.node, ""))?.node)
}

pub(super) fn media(client: &Client, format: Format, args: &MediaArgs) -> Result<(), Failure> {
    let address = path(&args.node, "/bmc/media");
    match &args.what {
        None | Some(Drive::Show) => {}
        Some(Drive::Insert { url }) => {
            client.put::<_, ()>(&address, &MediaRequest { url: url.clone() })?;
        }
        Some(Drive::Eject) => client.delete(&address)?,
    }
    format.print(&client.get::<Media>(&address)?)
}

impl Show for Media {
    fn table(&self) -> String {
        facts(&[("in the drive", Some(self.image.clone().unwrap_or_else(|| "nothing".to_owned())))])
    }

    fn names(&self) -> Vec<String> {
        self.image.iter().cloned().collect()
    }
}
