//! `billet router …`.

use std::net::IpAddr;

use clap::Subcommand;

use super::super::again::AgainArgs;
use super::super::client::encode;
use super::{Collection, Failure, Verbs};
use crate::http::api::network_requests::{RouterGatewayRequest, RouterRequest};
use crate::http::api::requests::EmptyRequest;
use crate::view::networks::RouterView;

/// What can be done with routers.
#[derive(Debug, Subcommand)]
pub enum RouterCommand {
    /// Routers of the project
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One router
    Show {
        /// Name or id
        router: String,
    },
    /// Make a router
    Create {
        /// Name
        router: String,
    },
    /// Give a router another name
    Rename {
        /// Name or id
        router: String,
        /// The new name
        name: String,
    },
    /// Remove a router that joins nothing
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        router: String,
    },
    /// Join a subnet: the router is its gateway
    Join {
        /// Name or id of the router
        router: String,
        /// Name or id of the subnet
        subnet: String,
    },
    /// Let go of a subnet
    Leave {
        /// Name or id of the router
        router: String,
        /// Name or id of the subnet
        subnet: String,
    },
    /// Give a router a way out by a network of the site
    Gateway {
        /// Name or id of the router
        router: String,
        /// Name or id of the network
        network: String,
        /// The router's own address there; the next free one if not given
        #[arg(long)]
        address: Option<IpAddr>,
    },
    /// Take a router's way out away
    NoGateway {
        /// Name or id of the router
        router: String,
    },
}

impl Verbs for RouterCommand {
    const COLLECTION: &'static str = "routers";

    fn run(self, of: &Collection<'_>) -> Result<(), Failure> {
        let (client, format) = (of.client, of.format);
        let interface = |subnet: &str| format!("/interfaces/{}", encode(subnet));
        match self {
            Self::List(again) => of.list::<RouterView>(again, ""),
            Self::Show { router } => of.show::<RouterView>(&router),
            Self::Create { router } => of.create::<RouterView>(&RouterRequest { name: router }),
            Self::Rename { router, name } => of.change::<RouterView>(&router, &RouterRequest { name }),
            Self::Delete { router } => of.delete(&router),
            Self::Join { router, subnet } => {
                let path = of.of(&router, &interface(&subnet))?;
                format.print(&client.put::<_, RouterView>(&path, &EmptyRequest {})?)
            }
            Self::Leave { router, subnet } => {
                format.print(&client.delete_with::<RouterView>(&of.of(&router, &interface(&subnet))?)?)
            }
            Self::Gateway { router, network, address } => {
                let request = RouterGatewayRequest { network, address };
                format.print(&client.put::<_, RouterView>(&of.of(&router, "/gateway")?, &request)?)
            }
            Self::NoGateway { router } => {
                format.print(&client.delete_with::<RouterView>(&of.of(&router, "/gateway")?)?)
            }
        }
    }
}
