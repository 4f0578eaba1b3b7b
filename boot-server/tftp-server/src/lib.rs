//! A read-only TFTP server: the protocol as a state machine that sees no socket and no clock ([`Transfer`]), and the
//! tokio driver around it ([`Server`]).
//!
//! Implements RFC 1350, the option extension RFC 2347, and the options `blksize` (RFC 2348), `tsize` and `timeout`
//! (RFC 2349) and `windowsize` (RFC 7440). What it serves is decided by the one who implements [`Files`]. It can
//! write nothing: a WRQ is refused in the driver and no code path takes data from a client.

pub mod limits;
pub mod packet;

mod driver;
mod files;
mod name;
mod netascii;
mod round_trip;
mod session;
mod socket;
mod transfer;

pub use driver::{BindError, Server, ServerConfig};
pub use files::{File, Files, OpenError, Opening};
pub use name::{BadName, normalise};
pub use transfer::{Burst, Failure, Outcome, Summary, Transfer};
