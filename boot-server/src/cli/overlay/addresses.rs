//! `billet floating …` and `billet mirror …`.

use std::net::IpAddr;

use clap::Subcommand;

use super::super::again::AgainArgs;
use super::super::placement::word;
use super::{Collection, Failure, Verbs};
use crate::http::api::network_requests::{
    AssociateRequest, FloatingRequest, MirrorChangeRequest, MirrorRequest,
};
use crate::http::api::requests::EmptyRequest;
use crate::view::networks::{FloatingView, MirrorKind, MirrorView, TrafficDirection};

/// What can be done with floating addresses.
#[derive(Debug, Subcommand)]
pub enum FloatingCommand {
    /// Floating addresses of the project
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One floating address
    Show {
        /// Address, name or id
        floating: String,
    },
    /// Take a floating address
    Create {
        /// Name or id of a network of the site
        network: String,
        /// Its name
        #[arg(long)]
        name: Option<String>,
        /// This address; the next free one if not given
        #[arg(long)]
        address: Option<IpAddr>,
        /// It leads to this port at once
        #[arg(long)]
        port: Option<String>,
    },
    /// Make a floating address lead to a port
    Associate {
        /// Address, name or id
        floating: String,
        /// Name or id of the port
        port: String,
        /// Which of the port's addresses
        #[arg(long)]
        inner: Option<IpAddr>,
    },
    /// Make a floating address lead nowhere
    Disassociate {
        /// Address, name or id
        floating: String,
    },
    /// Give a floating address back
    #[command(visible_alias = "rm")]
    Delete {
        /// Address, name or id
        floating: String,
    },
}

impl Verbs for FloatingCommand {
    const COLLECTION: &'static str = "floating-addresses";

    fn run(self, of: &Collection<'_>) -> Result<(), Failure> {
        match self {
            Self::List(again) => of.list::<FloatingView>(again, ""),
            Self::Show { floating } => of.show::<FloatingView>(&floating),
            Self::Create { network, name, address, port } => {
                of.create::<FloatingView>(&FloatingRequest { name, network, address, port })
            }
            Self::Associate { floating, port, inner } => {
                of.ask::<FloatingView>(&floating, "/associate", &AssociateRequest { port, inner })
            }
            Self::Disassociate { floating } => {
                of.ask::<FloatingView>(&floating, "/disassociate", &EmptyRequest {})
            }
            Self::Delete { floating } => of.delete(&floating),
        }
    }
}

/// What can be done with mirrors.
#[derive(Debug, Subcommand)]
pub enum MirrorCommand {
    /// Mirrors of the project
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One mirror
    Show {
        /// Name or id
        mirror: String,
    },
    /// Make a mirror: copies of what ports send or receive
    Create {
        /// Where the copies go: an address that the site allows
        to: IpAddr,
        /// Of this port (name or id); again for more
        #[arg(long, required = true)]
        port: Vec<String>,
        /// What is copied, as the machine sees it: ingress or egress
        #[arg(long, value_parser = word::<TrafficDirection>)]
        direction: TrafficDirection,
        /// How the copies travel: gre or erspan
        #[arg(long, value_parser = word::<MirrorKind>, default_value = "gre")]
        kind: MirrorKind,
        /// Key of GRE, or index of ERSPAN
        #[arg(long, default_value_t = 0)]
        key: u32,
        /// Its name
        #[arg(long)]
        name: Option<String>,
    },
    /// Change a mirror: what is not given stays
    Set {
        /// Name or id
        mirror: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Ports, in place of all that there are; again for more
        #[arg(long)]
        port: Option<Vec<String>>,
    },
    /// Remove a mirror
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        mirror: String,
    },
}

impl Verbs for MirrorCommand {
    const COLLECTION: &'static str = "mirrors";

    fn run(self, of: &Collection<'_>) -> Result<(), Failure> {
        match self {
            Self::List(again) => of.list::<MirrorView>(again, ""),
            Self::Show { mirror } => of.show::<MirrorView>(&mirror),
            Self::Create { to, port, direction, kind, key, name } => {
                of.create::<MirrorView>(&MirrorRequest { name, direction, ports: port, kind, to, key })
            }
            Self::Set { mirror, name, port } => {
                of.change::<MirrorView>(&mirror, &MirrorChangeRequest { name, ports: port })
            }
            Self::Delete { mirror } => of.delete(&mirror),
        }
    }
}
