//! Drivers that make a site's networks so. What they are is `boot_server_core::network`; here are the connections.

mod ovn;
mod switch;

pub use ovn::{Applied, Ovn, OvnError};
pub use switch::{Switch, SwitchError};
