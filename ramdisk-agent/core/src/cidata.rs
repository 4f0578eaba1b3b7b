//! The config partition: a small FAT volume with the files of cloud-init's NoCloud data source (label `CIDATA`), or of
//! OpenStack's config drive (`CONFIG-2`; cloud-init and Ignition know the label in both cases).

use std::io::{Cursor, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use protocol::fault::{Fault, FaultCode};
use protocol::job::CloudConfig;
use protocol::limits::USER_DATA_MAX;

/// Label of a NoCloud volume, padded as FAT has it.
const NOCLOUD: [u8; 11] = *b"CIDATA     ";
/// Label of a config drive.
const CONFIG_DRIVE: [u8; 11] = *b"CONFIG-2   ";
/// Largest file: user data and eight times as much beside it; Ignition configs carry it escaped (three octets for one).
const FILE_MAX: usize = 8 * USER_DATA_MAX;

/// Makes the volume in `volume`, [`CONFIG_SIZE`](crate::gpt::CONFIG_SIZE) zeros, ready to be written. The same config makes
/// the same bytes.
///
/// # Errors
/// Where a file is too large, or the volume cannot be made.
pub fn make(config: &CloudConfig, volume: &mut [u8]) -> Result<(), Fault> {
    let nocloud = [
        ("meta-data", Some(&config.meta_data)),
        ("user-data", Some(&config.user_data)),
        ("vendor-data", Some(&config.vendor_data)),
        ("network-config", config.network_config.as_ref()),
    ];
    let (label, files): (_, Vec<(&str, &str)>) = if config.config_drive.is_empty() {
        let present = nocloud.into_iter().filter_map(|(name, text)| Some((name, text?.as_str())));
        (NOCLOUD, present.collect())
    } else {
        (CONFIG_DRIVE, config.config_drive.iter().map(|f| (f.path.as_str(), f.text.as_str())).collect())
    };
    if let Some((name, _)) = files.iter().find(|(_, text)| text.len() > FILE_MAX) {
        return Err(Fault::new(
            FaultCode::Customise,
            format!("{name} is larger than {FILE_MAX} bytes"),
            "shorten it, or let it fetch the rest when the OS runs",
        ));
    }
    fill(volume, label, &files).map_err(|e| {
        Fault::new(FaultCode::Customise, format!("make the config volume: {e}"), "report the fault")
    })
}

/// What the volume is called in messages.
pub fn name(config: &CloudConfig) -> &'static str {
    if config.config_drive.is_empty() { "cidata" } else { "config-2" }
}

fn fill(volume: &mut [u8], label: [u8; 11], files: &[(&str, &str)]) -> std::io::Result<()> {
    let options = FormatVolumeOptions::new().volume_label(label).volume_id(0xB111_E700);
    fatfs::format_volume(Cursor::new(&mut *volume), options)?;
    let fs = FileSystem::new(Cursor::new(volume), FsOptions::new())?;
    for (path, text) in files {
        let mut dir = fs.root_dir();
        let mut rest = *path;
        while let Some((first, next)) = rest.split_once('/') {
            // A directory that exists is opened.
            dir = dir.create_dir(first)?;
            rest = next;
        }
        dir.create_file(rest)?.write_all(text.as_bytes())?;
    }
    fs.unmount()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use protocol::job::SeedFile;

    use super::*;
    use crate::gpt::CONFIG_SIZE;

    fn volume(config: &CloudConfig) -> Result<Vec<u8>, Fault> {
        let mut volume = vec![0; CONFIG_SIZE as usize];
        make(config, &mut volume).map(|()| volume)
    }

    fn read(volume: &mut [u8], path: &str) -> String {
        let fs = FileSystem::new(Cursor::new(&mut volume[..]), FsOptions::new()).unwrap();
        let mut text = String::new();
        fs.root_dir().open_file(path).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_config_drive_takes_the_place_of_nocloud() {
        let file = |path: &str, text: &str| SeedFile { path: path.to_owned(), text: text.to_owned() };
        let drive = CloudConfig {
            meta_data: "not this".into(),
            config_drive: vec![
                file("openstack/latest/meta_data.json", "{}"),
                file("openstack/latest/user_data", "#!x"),
            ],
            ..CloudConfig::default()
        };
        let mut made = volume(&drive).unwrap();
        assert!(made[..512].windows(11).any(|w| w == b"CONFIG-2   "));
        assert_eq!(read(&mut made, "openstack/latest/meta_data.json"), "{}");
        assert_eq!(read(&mut made, "openstack/latest/user_data"), "#!x");
        let fs = FileSystem::new(Cursor::new(&mut made[..]), FsOptions::new()).unwrap();
        assert_eq!(fs.root_dir().iter().count(), 1, "nothing but `openstack`");
        let mut plain = volume(&CloudConfig { meta_data: "m".into(), ..CloudConfig::default() }).unwrap();
        assert!(plain[..512].windows(11).any(|w| w == b"CIDATA     "));
        assert_eq!(read(&mut plain, "meta-data"), "m");
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let text = "x".repeat(FILE_MAX + 1);
        let config = CloudConfig { user_data: text, ..CloudConfig::default() };
        assert!(volume(&config).is_err_and(|fault| fault.message.contains("user-data")));
    }
}
