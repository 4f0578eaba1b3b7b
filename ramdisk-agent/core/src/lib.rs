//! What the deploy agent decides. Bytes and facts come in, plans and values go out; no socket, file, clock, thread or
//! random source is known here. How the plans are carried out is the agent's shell's business (`ramdisk-agent/src`).

pub mod bmc_account;
pub mod cidata;
pub mod cmdline;
pub mod content;
pub mod cpu;
pub mod dhcp6;
pub mod edges;
pub mod efi;
pub mod erase;
pub mod gpt;
pub mod inet6;
pub mod ipmi;
pub mod lldp;
pub mod modules;
pub mod plan;
pub mod progress;
pub mod seal;
pub mod smbios;
pub mod tpm;
pub mod wipe;
