//! A server in a namespace of its own, with boot files that nobody boots: for suites that drive its pages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tests_postgres::Postgres;

use crate::rack::{Api, Forward, Namespace, SERVER_ADDRESS, Server};

/// A server and the ways to it. Whoever takes it apart drops the namespace last.
pub struct Site {
    /// The server.
    pub server: Server,
    /// Its API, as operator.
    pub api: Api,
    /// Its provisioning listener, from outside of the namespace.
    pub provisioning: Forward,
    /// Its files.
    pub dir: PathBuf,
    /// Where it runs.
    pub namespace: Namespace,
}

impl Site {
    /// A site whose files are in `target/<name>/`, which is emptied.
    ///
    /// # Errors
    /// Where the namespace cannot be made, or the server does not come up.
    pub fn new(name: &str) -> Result<Self> {
        Self::with_config(name, "")
    }

    /// As [`Site::new`], with these lines at the end of the configuration.
    ///
    /// # Errors
    /// As [`Site::new`].
    pub fn with_config(name: &str, more: &str) -> Result<Self> {
        Self::start(name, |namespace, dir, config| {
            Server::start_with(namespace, dir, &format!("{config}{more}"))
        })
    }

    /// As [`Site::new`], with its data in this PostgreSQL.
    ///
    /// # Errors
    /// As [`Site::new`].
    pub fn on(name: &str, database: Postgres) -> Result<Self> {
        Self::start(name, |namespace, dir, config| Server::start_on(namespace, dir, config, Some(database)))
    }

    fn start(name: &str, server: impl FnOnce(&Namespace, &Path, &str) -> Result<Server>) -> Result<Self> {
        let dir = target().join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("boot"))?;
        // Nobody boots them here; that they are there is all that the server looks for.
        fs::write(dir.join("boot/vmlinuz"), b"kernel")?;
        fs::write(dir.join("boot/initramfs"), b"ramdisk")?;
        let namespace = Namespace::new()?;
        namespace.bridge("br0", &format!("{SERVER_ADDRESS}/24"))?;
        let config = Server::default_config(&dir, &dir.join("boot"));
        let server = server(&namespace, &dir, &config)?;
        let provisioning =
            Forward::start(namespace.clone_handle()?, format!("{SERVER_ADDRESS}:8080").parse()?)?;
        Ok(Self { api: server.api()?, server, provisioning, dir, namespace })
    }
}

/// Cargo's target directory, as Chromium takes it: no `..` in the path of a profile.
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target")
}

/// 8 MiB with a GUID partition table of one partition (UEFI 2.10, 5.3).
pub fn disk_with_gpt() -> Vec<u8> {
    let mut disk = vec![0; 8 << 20];
    disk[450] = 0xee;
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut header = [0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x10000_u32.to_le_bytes());
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&128_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    let crc = crc32(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    disk[512..604].copy_from_slice(&header);
    // EFI system partition.
    disk[1024..1040].copy_from_slice(&[
        0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
    ]);
    for (i, byte) in disk.iter_mut().enumerate().skip(1 << 20).take(1 << 20) {
        *byte = (i / 7) as u8;
    }
    disk
}

/// CRC-32 (IEEE 802.3).
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}
