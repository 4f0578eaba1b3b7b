//! What makes an image this server's own beyond its disk: the firmware's boot entry. What the disk gets is
//! `ramdisk_agent_core::seal` and `cidata`.

pub mod boot_entry;
