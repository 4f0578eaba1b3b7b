//! `billet network …` of a project, and `billet provider …` of the site.

use std::net::IpAddr;

use boot_server_core::network::{AddressRange, Cidr, Driver};
use clap::{Subcommand, ValueEnum};

use super::super::again::{AgainArgs, SITE};
use super::super::client::{Client, encode};
use super::super::output::Format;
use super::{Collection, Failure, Verbs};
use crate::http::api::network_requests::{
    NetworkChangeRequest, NetworkRequest, ProviderNetworkChangeRequest, ProviderNetworkRequest,
    ProviderSubnetRequest, SubnetChangeRequest,
};
use crate::view::networks::{OverlayNetworkView, OverlayStatusView, ProviderNetworkView, SubnetView};

/// Who makes a network so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DriverArg {
    /// OVN, on DPUs
    Ovn,
    /// Switches of the site, by a VLAN for each network
    Switch,
    /// Nobody: the wire is as it is
    Flat,
}

impl From<DriverArg> for Driver {
    fn from(arg: DriverArg) -> Self {
        match arg {
            DriverArg::Ovn => Self::Ovn,
            DriverArg::Switch => Self::Switch,
            DriverArg::Flat => Self::Flat,
        }
    }
}

/// What can be done with networks.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Networks of the project, and those of the site that it may use
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One network
    Show {
        /// Name or id
        network: String,
    },
    /// Make a network
    Create {
        /// Name
        network: String,
        /// Largest packet, 1280 to 9216; if not given, the site's, or 1500 with driver switch
        #[arg(long)]
        mtu: Option<u16>,
        /// ovn, for machines with a DPU, or switch, for machines without one; ovn if not given, where the site has it
        #[arg(long, value_enum)]
        driver: Option<DriverArg>,
        /// Of switch: on which fabric; the only one if not given
        #[arg(long)]
        fabric: Option<String>,
    },
    /// Change a network: what is not given stays
    Set {
        /// Name or id
        network: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Another MTU
        #[arg(long)]
        mtu: Option<u16>,
    },
    /// Remove a network that nobody is on, with its subnets
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        network: String,
    },
    /// Whether OVN is as the networks are (for the site's people)
    Status,
}

impl Verbs for NetworkCommand {
    const COLLECTION: &'static str = "networks";

    fn run(self, of: &Collection<'_>) -> Result<(), Failure> {
        match self {
            Self::List(again) => of.list::<OverlayNetworkView>(again, ""),
            Self::Show { network } => of.show::<OverlayNetworkView>(&network),
            Self::Create { network, mtu, driver, fabric } => {
                let driver = driver.map(Driver::from);
                of.create::<OverlayNetworkView>(&NetworkRequest { name: network, mtu, driver, fabric })
            }
            Self::Set { network, name, mtu } => {
                of.change::<OverlayNetworkView>(&network, &NetworkChangeRequest { name, mtu })
            }
            Self::Delete { network } => of.delete(&network),
            Self::Status => of.format.print(&of.client.get::<OverlayStatusView>("overlay/status")?),
        }
    }
}

/// What can be done with networks of the site.
#[derive(Debug, Subcommand)]
pub enum ProviderCommand {
    /// Networks of the site
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One network of the site
    Show {
        /// Name or id
        network: String,
    },
    /// Make a network of the site: a wire that machines of OVN have
    Create {
        /// Name
        network: String,
        /// What the machines call the wire (ovn-bridge-mappings); of flat, what the site calls it
        physical: String,
        /// ovn, or flat: a network that is there, on which machines without a DPU are as they are; ovn if not given
        #[arg(long, value_enum)]
        driver: Option<DriverArg>,
        /// The VLAN, 1 to 4094; untagged if not given
        #[arg(long)]
        vlan: Option<u16>,
        /// Largest packet, 1280 to 9216; 1500 if not given
        #[arg(long)]
        mtu: Option<u16>,
        /// Projects may use it
        #[arg(long)]
        shared: bool,
    },
    /// Change a network of the site: what is not given stays
    Set {
        /// Name or id
        network: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Another MTU
        #[arg(long)]
        mtu: Option<u16>,
        /// Projects may use it, or may not
        #[arg(long)]
        shared: Option<bool>,
    },
    /// Remove a network of the site that nobody uses
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        network: String,
    },
    /// Subnets of a network of the site
    Subnets {
        /// Name or id of the network
        network: String,
    },
    /// One subnet of a network of the site
    ShowSubnet {
        /// Name or id of the network
        network: String,
        /// Name or id of the subnet
        subnet: String,
    },
    /// Make a subnet of a network of the site
    AddSubnet {
        /// Name or id of the network
        network: String,
        /// Addresses, such as 203.0.113.0/24
        cidr: Cidr,
        /// Its name
        #[arg(long)]
        name: Option<String>,
        /// The router of the wire; the first address if not given
        #[arg(long)]
        gateway: Option<IpAddr>,
        /// Of these, routers and floating addresses get theirs, such as 203.0.113.10-203.0.113.99; again for more
        #[arg(long)]
        pool: Vec<AddressRange>,
        /// DNS server that ports are told; again for more
        #[arg(long)]
        dns: Vec<IpAddr>,
    },
    /// Change a subnet of a network of the site: what is not given stays
    SetSubnet {
        /// Name or id of the network
        network: String,
        /// Name or id of the subnet
        subnet: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Other pools, in place of all that there are; again for more
        #[arg(long)]
        pool: Option<Vec<AddressRange>>,
    },
    /// Remove a subnet of a network of the site
    RemoveSubnet {
        /// Name or id of the network
        network: String,
        /// Name or id of the subnet
        subnet: String,
    },
}

/// Runs `billet provider …`.
pub(in crate::cli) fn provider(
    client: &Client,
    format: Format,
    command: ProviderCommand,
) -> Result<(), Failure> {
    let of = |network: &str| format!("networks/{}", encode(network));
    let subnets = |network: &str| format!("{}/subnets", of(network));
    let one = |network: &str, subnet: &str| format!("{}/{}", subnets(network), encode(subnet));
    match command {
        ProviderCommand::List(again) => {
            again.list(client, SITE, format, || client.all::<ProviderNetworkView>("networks"))
        }
        ProviderCommand::Show { network } => format.print(&client.get::<ProviderNetworkView>(&of(&network))?),
        ProviderCommand::Create { network, physical, driver, vlan, mtu, shared } => {
            let driver = driver.map(Driver::from);
            let request = ProviderNetworkRequest { name: network, physical, driver, vlan, mtu, shared };
            format.print(&client.post::<_, ProviderNetworkView>("networks", &request)?)
        }
        ProviderCommand::Set { network, name, mtu, shared } => {
            let request = ProviderNetworkChangeRequest { name, mtu, shared };
            format.print(&client.patch::<_, ProviderNetworkView>(&of(&network), &request)?)
        }
        ProviderCommand::Delete { network } => client.delete(&of(&network)),
        ProviderCommand::Subnets { network } => format.print(&client.all::<SubnetView>(&subnets(&network))?),
        ProviderCommand::ShowSubnet { network, subnet } => {
            format.print(&client.get::<SubnetView>(&one(&network, &subnet))?)
        }
        ProviderCommand::AddSubnet { network, cidr, name, gateway, pool, dns } => {
            let request = ProviderSubnetRequest { name, cidr, gateway, pools: pool, dns };
            format.print(&client.post::<_, SubnetView>(&subnets(&network), &request)?)
        }
        ProviderCommand::SetSubnet { network, subnet, name, pool } => {
            let request = SubnetChangeRequest { name, pools: pool, ..SubnetChangeRequest::default() };
            format.print(&client.patch::<_, SubnetView>(&one(&network, &subnet), &request)?)
        }
        ProviderCommand::RemoveSubnet { network, subnet } => client.delete(&one(&network, &subnet)),
    }
}
