//! What makes an image this server's own: the config partition and the firmware's boot entry.

pub mod boot_entry;
pub mod cidata;
