//! What the server writes of an image, to be compared with what others write.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use images::trust::Anchor;
use protocol::dpu::Backend as Told;
use protocol::job::CloudConfig;
use tokio_util::sync::CancellationToken;
use volume::{Backend, FileBackend, ImageSource, Origin, Progress};

use super::{grantee, new_volume};

/// What the server writes of the image into a volume of its own.
///
/// # Errors
/// Where it cannot.
pub fn written_by_the_server(
    images: &Path,
    image: &str,
    config: CloudConfig,
    size: u64,
    dir: &Path,
) -> Result<Vec<u8>> {
    let store = images::Store::open(images)?;
    let trusted = images.parent().context("a store in no directory")?.join("trust/trust.json");
    let anchor = Arc::new(Anchor::parse(&fs::read(trusted)?)?);
    let (image, config) = (image.parse()?, Some(config));
    let source = ImageSource { store, image, anchor, config, grow_root: true, key: None };
    let backend = FileBackend::open(&dir.join("volumes"))?;
    let volume = new_volume();
    let told = tokio::runtime::Runtime::new()?.block_on(async {
        backend.create(volume, size, Origin::Blank).await?;
        let (progress, _) = tokio::sync::watch::channel(Progress::default());
        backend.write_image(volume, source, progress, CancellationToken::new()).await?;
        backend.grant(volume, &grantee("one")).await
    })?;
    let Told::File { path } = told else { bail!("another backend than a file") };
    Ok(fs::read(path)?)
}

/// Gives the config partition of `disk` the unique id that it has on `other`, in both tables, whose checksums are made anew
/// (UEFI 2.10, 5.3.2): ids are drawn.
///
/// # Errors
/// Where it has none.
pub fn take_config_guid(disk: &mut [u8], other: &[u8]) -> Result<()> {
    let name: Vec<u8> = "cidata".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for header in [512, disk.len() - 512] {
        let entries = u64::from_le_bytes(disk[header + 72..header + 80].try_into()?) as usize * 512;
        let entry = (0..128).map(|n| entries + n * 128).find(|at| disk[at + 56..].starts_with(&name));
        let guid = entry.context("no config partition")? + 16;
        disk[guid..guid + 16].copy_from_slice(&other[guid..guid + 16]);
        let sum = crc32fast::hash(&disk[entries..entries + 128 * 128]);
        disk[header + 88..header + 92].copy_from_slice(&sum.to_le_bytes());
        disk[header + 16..header + 20].fill(0);
        let sum = crc32fast::hash(&disk[header..header + 92]);
        disk[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
    }
    Ok(())
}
