//! `billet subnet …` and `billet port …`.

use std::net::IpAddr;

use boot_server_core::network::{AddressRange, Cidr};
use clap::Subcommand;
use protocol::MacAddr;

use super::super::again::AgainArgs;
use super::super::client::encode;
use super::{Collection, Failure, Verbs};
use crate::http::api::network_requests::{
    AttachPortRequest, PortChangeRequest, PortRequest, SubnetChangeRequest, SubnetRequest,
};
use crate::http::api::requests::EmptyRequest;
use crate::view::networks::{OverlayPortView, SubnetView};

/// What can be done with subnets.
#[derive(Debug, Subcommand)]
pub enum SubnetCommand {
    /// Subnets of the project
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One subnet
    Show {
        /// Name or id
        subnet: String,
    },
    /// Make a subnet
    Create {
        /// Name or id of the network
        network: String,
        /// Addresses, such as 10.0.0.0/24 or fd00::/64
        cidr: Cidr,
        /// Its name
        #[arg(long)]
        name: Option<String>,
        /// The router's address; the first if not given
        #[arg(long)]
        gateway: Option<IpAddr>,
        /// There is no router
        #[arg(long, conflicts_with = "gateway")]
        no_gateway: bool,
        /// Of these ports get theirs, such as 10.0.0.10-10.0.0.99; again for more
        #[arg(long)]
        pool: Vec<AddressRange>,
        /// Never given to a port by itself; again for more
        #[arg(long)]
        reserve: Vec<IpAddr>,
        /// DNS server that ports are told; again for more
        #[arg(long)]
        dns: Vec<IpAddr>,
        /// Nobody answers DHCP
        #[arg(long)]
        no_dhcp: bool,
    },
    /// Change a subnet: what is not given stays
    Set {
        /// Name or id
        subnet: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Other pools, in place of all that there are; again for more
        #[arg(long)]
        pool: Option<Vec<AddressRange>>,
        /// Other reserved addresses, in place of all that there are; again for more
        #[arg(long)]
        reserve: Option<Vec<IpAddr>>,
        /// Other DNS servers, in place of all that there are; again for more
        #[arg(long)]
        dns: Option<Vec<IpAddr>>,
        /// DHCP is answered, or is not
        #[arg(long)]
        dhcp: Option<bool>,
    },
    /// Remove a subnet that nobody is on
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        subnet: String,
    },
}

impl Verbs for SubnetCommand {
    const COLLECTION: &'static str = "subnets";

    fn run(self, of: &Collection<'_>) -> Result<(), Failure> {
        match self {
            Self::List(again) => of.list::<SubnetView>(again, ""),
            Self::Show { subnet } => of.show::<SubnetView>(&subnet),
            Self::Create { network, cidr, name, gateway, no_gateway, pool, reserve, dns, no_dhcp } => {
                of.create::<SubnetView>(&SubnetRequest {
                    name,
                    network,
                    cidr,
                    gateway,
                    no_gateway,
                    pools: pool,
                    reserved: reserve.into_iter().collect(),
                    dns,
                    no_dhcp,
                })
            }
            Self::Set { subnet, name, pool, reserve, dns, dhcp } => {
                let reserved = reserve.map(|reserve| reserve.into_iter().collect());
                let request = SubnetChangeRequest { name, pools: pool, reserved, dns, dhcp };
                of.change::<SubnetView>(&subnet, &request)
            }
            Self::Delete { subnet } => of.delete(&subnet),
        }
    }
}

/// What can be done with ports.
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Ports of the project
    #[command(visible_alias = "ls")]
    List {
        /// On this network (name or id)
        #[arg(long)]
        network: Option<String>,
        /// Of this server (name or id)
        #[arg(long = "on", value_name = "SERVER")]
        server: Option<String>,
        #[command(flatten)]
        again: AgainArgs,
    },
    /// One port
    Show {
        /// Name or id
        port: String,
    },
    /// Make a port
    Create {
        /// Name or id of the network
        network: String,
        /// Its name
        #[arg(long)]
        name: Option<String>,
        /// This MAC address; one of Billet's if not given
        #[arg(long)]
        mac: Option<MacAddr>,
        /// This address; again for more
        #[arg(long)]
        address: Vec<IpAddr>,
        /// One address of this subnet (name or id); again for more. With neither: one of each family
        #[arg(long)]
        subnet: Vec<String>,
        /// This security group (name or id); again for more. `default` if not given
        #[arg(long)]
        group: Option<Vec<String>>,
        /// It sends with other addresses too, and has no security groups
        #[arg(long)]
        unguarded: bool,
        /// Thousands of bits per second that its machine may send, such as 100000 for 100 Mbit/s
        #[arg(long, value_name = "KBPS")]
        egress: Option<u64>,
        /// Thousands of bits above that rate which it may send at once
        #[arg(long, value_name = "KB")]
        egress_burst: Option<u64>,
        /// Thousands of bits per second that its machine may get
        #[arg(long, value_name = "KBPS")]
        ingress: Option<u64>,
    },
    /// Change a port: what is not given stays
    Set {
        /// Name or id
        port: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Other addresses, in place of all that there are; again for more
        #[arg(long)]
        address: Option<Vec<IpAddr>>,
        /// Other security groups, in place of all that there are; again for more
        #[arg(long)]
        group: Option<Vec<String>>,
        /// It sends with its own addresses alone and has security groups, or not
        #[arg(long)]
        guarded: Option<bool>,
        /// Thousands of bits per second that its machine may send, such as 100000 for 100 Mbit/s; 0 takes the limit away
        #[arg(long, value_name = "KBPS")]
        egress: Option<u64>,
        /// Thousands of bits above that rate which it may send at once
        #[arg(long, value_name = "KB")]
        egress_burst: Option<u64>,
        /// Thousands of bits per second that its machine may get; 0 takes the limit away
        #[arg(long, value_name = "KBPS")]
        ingress: Option<u64>,
    },
    /// Remove a port that no server is plugged into
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        port: String,
    },
    /// Plug a server into a port
    Attach {
        /// Name or id of the port
        port: String,
        /// Name or id of the server
        server: String,
    },
    /// Unplug what is in a port
    Detach {
        /// Name or id of the port
        port: String,
    },
}

impl Verbs for PortCommand {
    const COLLECTION: &'static str = "ports";

    fn run(self, of: &Collection<'_>) -> Result<(), Failure> {
        match self {
            Self::List { network, server, again } => {
                let filters = [("network", network), ("server", server)];
                let filters: Vec<String> = filters
                    .into_iter()
                    .filter_map(|(key, value)| Some(format!("{key}={}", encode(&value?))))
                    .collect();
                let query =
                    if filters.is_empty() { String::new() } else { format!("?{}", filters.join("&")) };
                of.list::<OverlayPortView>(again, &query)
            }
            Self::Show { port } => of.show::<OverlayPortView>(&port),
            Self::Create {
                network,
                name,
                mac,
                address,
                subnet,
                group,
                unguarded,
                egress,
                egress_burst,
                ingress,
            } => of.create::<OverlayPortView>(&PortRequest {
                name,
                network,
                mac,
                addresses: address.into_iter().collect(),
                subnets: subnet,
                security_groups: group,
                unguarded,
                egress_kbps: egress,
                egress_burst_kb: egress_burst,
                ingress_kbps: ingress,
            }),
            Self::Set { port, name, address, group, guarded, egress, egress_burst, ingress } => {
                let addresses = address.map(|address| address.into_iter().collect());
                let request = PortChangeRequest {
                    name,
                    addresses,
                    security_groups: group,
                    guarded,
                    egress_kbps: egress,
                    egress_burst_kb: egress_burst,
                    ingress_kbps: ingress,
                };
                of.change::<OverlayPortView>(&port, &request)
            }
            Self::Delete { port } => of.delete(&port),
            Self::Attach { port, server } => {
                of.ask::<OverlayPortView>(&port, "/attach", &AttachPortRequest { server })
            }
            Self::Detach { port } => of.ask::<OverlayPortView>(&port, "/detach", &EmptyRequest {}),
        }
    }
}
