//! The config partition: a small FAT volume labelled `CIDATA` with the files of cloud-init's NoCloud data source.

use std::io::{Cursor, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use protocol::fault::{Fault, FaultCode};
use protocol::job::CloudConfig;
use protocol::limits::USER_DATA_MAX;
use ramdisk_agent_core::gpt::CONFIG_SIZE;

use crate::sys::Buffer;

/// Label that cloud-init looks for, padded as FAT has it.
const LABEL: [u8; 11] = *b"CIDATA     ";
/// Largest file: user data and twice as much beside it.
const FILE_MAX: usize = 4 * USER_DATA_MAX;

/// The volume, ready to be written. The same config makes the same bytes.
///
/// # Errors
/// Where a file is too large, or the volume cannot be made.
pub fn volume(config: &CloudConfig) -> Result<Buffer, Fault> {
    let files = [
        ("meta-data", Some(&config.meta_data)),
        ("user-data", Some(&config.user_data)),
        ("vendor-data", Some(&config.vendor_data)),
        ("network-config", config.network_config.as_ref()),
    ];
    if let Some((name, _)) = files.iter().find(|(_, t)| t.is_some_and(|t| t.len() > FILE_MAX)) {
        return Err(Fault::new(
            FaultCode::Customise,
            format!("{name} is larger than {FILE_MAX} bytes"),
            "shorten it, or let it fetch the rest when the OS runs",
        ));
    }
    let mut volume = Buffer::new(CONFIG_SIZE as usize);
    fill(&mut volume, &files).map_err(|e| {
        Fault::new(FaultCode::Customise, format!("make the config volume: {e}"), "report the fault")
    })?;
    Ok(volume)
}

fn fill(volume: &mut [u8], files: &[(&str, Option<&String>)]) -> std::io::Result<()> {
    let options = FormatVolumeOptions::new().volume_label(LABEL).volume_id(0xB111_E700);
    fatfs::format_volume(Cursor::new(&mut *volume), options)?;
    let fs = FileSystem::new(Cursor::new(volume), FsOptions::new())?;
    for (name, text) in files {
        if let Some(text) = text {
            fs.root_dir().create_file(name)?.write_all(text.as_bytes())?;
        }
    }
    fs.unmount()
}
