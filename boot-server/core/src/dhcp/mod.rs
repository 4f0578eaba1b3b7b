//! The DHCPv4 server without sockets: a packet and the time in; a reply, a lease and an observation out.
//!
//! | file | holds |
//! |---|---|
//! | [`config`], [`net`] | subnets, pools, modes, reservations |
//! | [`known`] | which machines are the site's |
//! | [`request`], `options`, `relay` | parsing of what clients and relays send |
//! | [`boot`] | which boot file a client gets |
//! | [`lease`] | what is stored of an address |
//! | `table`, `space`, `runs` | who has which address |
//! | `server` | which subnet a request is of, and who decides about it |
//! | `lend` | the decision of RFC 2131 section 4.3 |
//! | `pxe` | the decision of a ProxyDHCP and boot server (PXE 2.1) |
//! | `answer`, `reply` | what comes out, and its octets |
//! | [`foreign`] | other servers on the wire |
//!
//! The caller stores [`Answer::leases`] before it sends [`Answer::reply`]: no ACK for a lease that a crash forgets.

pub mod boot;
pub mod config;
pub mod foreign;
pub mod known;
pub mod lease;
pub mod limits;
pub mod net;
pub mod request;

mod answer;
mod lend;
mod options;
mod pxe;
mod relay;
mod reply;
mod runs;
mod server;
mod space;
mod table;

pub use answer::{Answer, Destination, Observed, Port, Reply, Silence};
pub use boot::{Architecture, BootFiles};
pub use config::{Config, ConfigError, Machine, Mode, Reservation, Subnet};
pub use known::Known;
pub use lease::{ClientKey, Lease, LeaseState};
pub use net::{Ipv4Net, Range};
pub use relay::Placement;
pub use request::{MessageType, Request, RequestError, Stage};
pub use server::Server;
pub use table::Leases;
