//! The DHCPv6 server without sockets: a packet, its source and the time in; a reply, leases and an observation out.
//!
//! | file | holds |
//! |---|---|
//! | [`config`] | subnets, ranges, what to boot |
//! | `wire` | options as they lie in a packet |
//! | [`request`] | parsing of what clients and relays send |
//! | [`boot`] | which boot file URL a client gets (RFC 5970) |
//! | [`lease`] | who has which address |
//! | `server` | the decision of RFC 8415 section 18.3 |
//! | `reply` | the reply's octets |
//!
//! The caller stores [`Answer::leases`] before it sends [`Answer::reply`]. An Advertise promises nothing and holds
//! nothing: the address in it follows from the client and the table, so a flood of Solicits costs no memory.

pub mod boot;
pub mod config;
pub mod lease;
pub mod limits;
pub mod request;

mod reply;
mod server;
mod wire;

pub use config::{Config, ConfigError, Ipv6Net, Range, Subnet};
pub use lease::{ClientKey, Lease, LeaseState, Leases};
pub use request::{MessageType, Request, RequestError};
pub use server::{Answer, Observed, Reply, Server, Silence};
