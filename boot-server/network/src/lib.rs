//! Drivers that make a site's networks so. What they are is `boot_server_core::network`; here are the connections.

mod ovn;

pub use ovn::{Applied, Ovn, OvnError};
