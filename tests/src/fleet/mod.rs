//! The fleet: thousands of simulated machines that boot from the network, to see what the server does when a row of racks
//! is switched on. Each has a network stack of its own (smoltcp), a firmware with its habits and faults, iPXE with a
//! script interpreter, and an agent; everything is a pure state machine of (seed, time, frames).
//!
//! | file | holds |
//! |---|---|
//! | [`rng`], [`link`], [`frame`] | chance from a seed, the faulty cable, frames |
//! | [`personality`] | kinds of firmware |
//! | [`dhcp`], [`tftp`], [`http`], [`script`], [`agent`] | the clients, without a network |
//! | [`net`], [`call`] | a machine's stack, and HTTP over it |
//! | [`machine`], [`fleet`] | a machine, and many on a switch |
//! | [`world`] | virtual time: against the server's cores |
//! | [`live`], [`field`] | real time: against `billet serve`, over a TAP interface |
//! | [`report`] | the table |

pub mod agent;
pub mod call;
pub mod dhcp;
pub mod field;
#[expect(clippy::module_inception, reason = "many machines on a switch are the fleet")]
pub mod fleet;
pub mod frame;
pub mod http;
pub mod link;
pub mod live;
pub mod machine;
pub mod net;
pub mod personality;
pub mod report;
pub mod rng;
pub mod script;
pub mod tftp;
pub mod world;

mod sys;
