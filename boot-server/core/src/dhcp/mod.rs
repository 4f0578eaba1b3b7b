//! The DHCPv4 server without sockets: a packet and the time in; a reply, a lease and an observation out.
//!
//! | file | holds |
//! |---|---|
//! | [`config`], [`net`] | subnets, pools, what to boot |
//! | [`known`] | which machines are the site's |
//! | [`request`] | parsing of what clients send |
//! | [`boot`] | which boot file a client gets |
//! | [`lease`] | who has which address |
//! | `server` | the decision of RFC 2131 sections 4.1 and 4.3 |
//! | `reply` | the reply's octets |
//!
//! The caller stores [`Answer::leases`] before it sends [`Answer::reply`]: no ACK for a lease that a crash forgets.

pub mod boot;
pub mod config;
pub mod known;
pub mod lease;
pub mod limits;
pub mod net;
pub mod request;

mod reply;
mod server;

pub use boot::{Architecture, BootFiles};
pub use config::{Config, ConfigError, Machine, Mode, Reservation, Subnet};
pub use known::Known;
pub use lease::{ClientKey, Lease, LeaseState, Leases};
pub use net::{Ipv4Net, Range};
pub use request::{MessageType, Request, RequestError, Stage};
pub use server::{Answer, Destination, Observed, Placement, Port, Reply, Server, Silence};
