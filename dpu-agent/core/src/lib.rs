//! What `billet-dpu` decides: from the state that is desired and what is there to actions, in order.
//!
//! ```text
//!   text ── check ──▶ State ─┐
//!   rows of Open vSwitch ────┼─ plan ──▶ actions: transactions of the switch, starts and stops of exporters
//!   exporters that run ──────┤           plugs and unplugs on the host's bus,
//!   the host's bus ──────────┘           and what is in the way, in words
//! ```
//!
//! Nothing here opens a socket or a file. An action touches what carries our mark ([`switch::OURS`]) and what was recorded as
//! started by us, and nothing else; where all is as it is to be there is none, so a new start of the agent does nothing.

pub mod bus;
pub mod check;
pub mod discard;
pub mod exporter;
pub mod facts;
pub mod firmware;
pub mod instant;
pub mod plan;
pub mod switch;
