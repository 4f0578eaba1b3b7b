//! Boot images for virtual media, out of the files of this server: what [the core lays out](boot_server_core::boot_image), with the
//! files open. Nothing is copied and nothing is kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use axum::body::Bytes;
use boot_server_core::boot_image::{self, ImageError, Part, Segment};
use boot_server_core::grub;
use boot_server_core::ipxe::{CommandLine, KernelArg, ScriptError};
use boot_server_core::node::Node;
use protocol::agent::{ARG_ADDRESS, ARG_BOOT_MAC, ARG_GATEWAY, ARG_NONCE, ARG_SERVER};

use crate::config::Settings;
use crate::http::BootFiles;
use crate::http::files::{self, Processor};
use crate::scripts::kernel_arguments;

/// Zeroes between the files; more than that never come together.
static ZEROES: [u8; 32 << 10] = [0; 32 << 10];

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum NoImage {
    /// A file that must be in it is not there.
    #[error("{0}")]
    Missing(String),
    /// A file cannot be opened.
    #[error("a boot file cannot be opened")]
    Open(#[from] io::Error),
    /// The files make no image.
    #[error(transparent)]
    Layout(#[from] ImageError),
    /// Something cannot stand on the kernel's command line.
    #[error(transparent)]
    Script(#[from] ScriptError),
}

/// An image that can be sent.
#[derive(Debug)]
pub struct Image {
    /// What it is made of, in order.
    pub pieces: Vec<Piece>,
    /// Octets in all.
    pub size: u64,
    /// Changes with every file in it.
    pub tag: String,
}

/// A piece of an image.
#[derive(Debug, Clone)]
pub enum Piece {
    /// These octets.
    Octets(Bytes),
    /// The first so many octets of a file.
    File(Arc<File>, u64),
}

impl Piece {
    /// Length in octets.
    pub fn size(&self) -> u64 {
        match self {
            Self::Octets(octets) => octets.len() as u64,
            Self::File(_, size) => *size,
        }
    }
}

/// The parts of an image, by the names that they are served by, and where each comes from.
fn parts() -> [(Part, &'static str, bool); 6] {
    let name = |part: files::Part| part.name(Processor::X64);
    [
        (Part::Shim, "shimx64.efi", true),
        (Part::Grub, "gcdx64.efi", true),
        (Part::MokManager, "mmx64.efi", false),
        (Part::Kernel, name(files::Part::Kernel), true),
        (Part::Initramfs, name(files::Part::Initramfs), true),
        (Part::Firmware, name(files::Part::Firmware), false),
    ]
}

/// Says what is missing for an image, if anything is.
pub fn missing(files: &BootFiles) -> Option<String> {
    let loaders = parts().into_iter().filter(|(_, name, needed)| *needed && files.path(name).is_none());
    let loaders = loaders.filter_map(|(_, name, _)| boot_server_core::boot_files::file(name));
    let lost: Vec<_> = loaders.map(|file| format!("{} ({})", file.source, file.from)).collect();
    if lost.is_empty() {
        return files.missing(Processor::X64);
    }
    Some(format!("the boot image needs {}", lost.join(" and ")))
}

/// Opens the files and lays the image out. May wait for the disk.
///
/// # Errors
/// [`NoImage`].
pub fn open(files: &BootFiles, config: &str) -> Result<Image, NoImage> {
    if let Some(missing) = missing(files) {
        return Err(NoImage::Missing(missing));
    }
    let (mut opened, mut sizes) = (BTreeMap::new(), BTreeMap::new());
    let mut tag = crate::secret::hash(config).to_string();
    for (part, name, _) in parts() {
        let Some(path) = files.path(name) else { continue };
        let file = File::open(path)?;
        let about = file.metadata()?;
        tag.push_str(&format!(" {} {} {} {}", about.ino(), about.len(), about.mtime(), about.mtime_nsec()));
        sizes.insert(part, about.len());
        opened.insert(part, Arc::new(file));
    }
    let mut pieces = Vec::new();
    for segment in boot_image::layout(config, &sizes)? {
        match segment {
            Segment::Octets(octets) => pieces.push(Piece::Octets(octets.into())),
            Segment::Zeroes(size) => pieces.extend(zeroes(size)),
            Segment::Part(part, size) => {
                // Every part of the layout is one whose size it was given.
                let file = opened.get(&part).ok_or(ImageError::Missing(part))?;
                pieces.push(Piece::File(file.clone(), size));
            }
        }
    }
    let size = pieces.iter().map(Piece::size).sum();
    Ok(Image { pieces, size, tag: crate::secret::hash(&tag).to_string() })
}

fn zeroes(mut size: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while size > 0 {
        let piece = size.min(ZEROES.len() as u64);
        pieces.push(Piece::Octets(Bytes::from_static(&ZEROES[..piece as usize])));
        size -= piece;
    }
    pieces
}

/// GRUB's configuration on the image of this node, with its nonce and its network settings.
///
/// # Errors
/// Where something cannot stand on the kernel's command line.
pub fn config(
    settings: &Settings,
    files: &BootFiles,
    node: &Node,
    nonce: &str,
) -> Result<String, ScriptError> {
    let mut args = kernel_arguments(&settings.kernel_arguments)?;
    args.push(KernelArg::new(ARG_SERVER, &settings.provisioning_url())?);
    args.push(KernelArg::new(ARG_NONCE, nonce)?);
    if let Some(network) = &node.network {
        args.push(KernelArg::new(ARG_ADDRESS, &network.address.to_string())?);
        if let Some(gateway) = network.gateway {
            args.push(KernelArg::new(ARG_GATEWAY, &gateway.to_string())?);
        }
        if let Some(mac) = network.mac {
            args.push(KernelArg::new(ARG_BOOT_MAC, &mac.to_string())?);
        }
    }
    let mut initrds = vec!["/initramfs"];
    if files.path(files::Part::Firmware.name(Processor::X64)).is_some() {
        initrds.push("/firmware");
    }
    let message = format!("{} starts the agent", node.name);
    Ok(grub::from_image(&message, "/vmlinuz", &initrds, &CommandLine::new(args)?))
}
