//! What the boot server decides: pure functions of (state, input, now). No socket, file, clock, thread or random
//! source: `clippy.toml` in this crate bans them, and its dependencies hold none.

pub mod access;
pub mod agent_body;
pub mod amounts;
pub mod bmc;
pub mod boot_files;
pub mod boot_image;
pub mod boot_request;
pub mod bucket;
pub mod check;
pub mod cloud_config;
pub mod console;
pub mod deploy;
pub mod dhcp;
pub mod dhcp6;
pub mod flavor;
pub mod grub;
pub mod hardware;
pub mod ipxe;
pub mod metadata;
pub mod names;
pub mod node;
pub mod ordered;
pub mod placement;
pub mod pool;
pub mod profile;
pub mod quota;
pub mod server;
pub mod servicing;
pub mod sla;
pub mod uki;
pub mod usage;
pub mod webhook;
pub mod words;
