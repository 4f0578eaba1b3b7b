//! IPMI 2.0 over LAN, by the second-generation specification, revision 1.1 (sections are its). Our own, because no crate has
//! cipher suite 17, boot options and serial over LAN (decision 20).
//!
//! ```text
//!  driver ─▶ chassis, sensors, sel, fru, identity, account ─▶ link ─▶ socket
//!                                       console ─▶ sol ─┐      │
//!                                                       session ┴▶ rakp, message ─▶ packet ─▶ suite
//! ```
//!
//! From `session` and `sol` to the right there is no socket, clock or chance: datagrams and time come in by `handle_*`,
//! datagrams and events go out by `poll_*`. `packet`, `message`, `rakp`, `suite` and `sol` serve both ends of a session.
//! Only suites that authenticate, protect and encrypt can be named at all.

mod account;
pub mod chassis;
mod console;
mod driver;
pub mod events;
pub mod fru;
pub mod identity;
pub mod limits;
mod link;
pub mod message;
pub mod packet;
pub mod rakp;
mod repository;
pub mod sdr;
pub mod sel;
mod sensors;
pub mod session;
pub mod sol;
pub mod suite;
pub mod window;

pub use driver::{Driver, Settings};
