//! Block devices: identity and geometry from sysfs, content from the first and last MiB.

use protocol::DiskId;
use protocol::inventory::{Disk, DiskContent, Transport};
use protocol::limits::DISKS_MAX;
use ramdisk_agent_core::content::{self, LOOK, LOOK_PARTITION, cut};

use super::tree::{Tree, pci_address};
use crate::device::{DeviceError, Target};
use crate::sys::Buffer;

/// Kernel names of what is no disk of its own.
const NOT_DISKS: &[&str] =
    &["loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd", "mtdblock", "drbd", "rbd"];

/// Every disk, in the order of kernel names.
pub fn disks(tree: &Tree, warnings: &mut Vec<String>) -> Vec<Disk> {
    let mut found: Vec<Disk> =
        tree.list("sys/block").iter().filter(|n| is_disk(tree, n)).filter_map(|n| disk(tree, n)).collect();
    if found.len() > DISKS_MAX {
        warnings.push(format!("{} disks, only the first {DISKS_MAX} are listed", found.len()));
        found.truncate(DISKS_MAX);
    }
    found
}

fn is_disk(tree: &Tree, name: &str) -> bool {
    let numbered = |prefix: &&str| {
        name.strip_prefix(*prefix).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
    };
    !NOT_DISKS.iter().any(numbered)
        && !(name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb")))
        // The paths below a multipath NVMe namespace are hidden; the namespace itself is not.
        && tree.number::<u8>(format!("sys/block/{name}/hidden")) != Some(1)
}

fn disk(tree: &Tree, name: &str) -> Option<Disk> {
    let base = format!("sys/block/{name}");
    let at = |leaf: &str| format!("{base}/{leaf}");
    // `size` is in units of 512 bytes whatever the sector size (Documentation/ABI/stable/sysfs-block).
    let size_bytes = tree.number::<u64>(at("size"))?.checked_mul(512).filter(|s| *s > 0)?;
    let device_path = tree.link(&base).unwrap_or_default();
    let transport = transport(name, &device_path);
    let serial = tree
        .text(at("serial"))
        .or_else(|| tree.text(at("device/serial")))
        .or_else(|| serial_of_page_80(&tree.bytes(at("device/vpd_pg80"))?));
    let wwn = tree.text(at("wwid")).or_else(|| tree.text(at("device/wwid"))).filter(|w| is_wwn(w));
    let bus_path = bus_path(tree, name, &device_path);
    let model =
        match (tree.text(at("device/vendor")), tree.text(at("device/model")), tree.text(at("device/name"))) {
            // libata puts "ATA" where the vendor would be; virtio-blk's `vendor` is a number without a model.
            (Some(vendor), Some(model), _) if vendor != "ATA" && transport != Transport::Nvme => {
                Some(format!("{vendor} {model}"))
            }
            (_, model, name) => model.or(name.filter(|_| transport == Transport::Mmc)),
        };
    let logical_sector = tree.number(at("queue/logical_block_size")).unwrap_or(512);
    Some(Disk {
        id: DiskId::of(wwn.as_deref(), serial.as_deref(), bus_path.as_deref()),
        name: name.to_owned(),
        bus_path,
        model,
        serial,
        wwn,
        firmware: tree.text(at("device/firmware_rev")).or_else(|| tree.text(at("device/rev"))),
        size_bytes,
        logical_sector,
        physical_sector: tree.number(at("queue/physical_block_size")).unwrap_or(logical_sector),
        // Hypervisors do not say what is behind a virtio disk, and the kernel then assumes the worst.
        rotational: tree.number::<u8>(at("queue/rotational")) == Some(1) && transport != Transport::Virtio,
        transport,
        removable: tree.number::<u8>(at("removable")) == Some(1) || transport == Transport::Usb,
        read_only: tree.number::<u8>(at("ro")) == Some(1),
        content: content_of(tree, name, size_bytes, logical_sector),
    })
}

fn transport(name: &str, path: &str) -> Transport {
    let has = |prefix: &str| {
        path.split('/')
            .any(|p| p.strip_prefix(prefix).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit())))
    };
    match name {
        _ if name.starts_with("nvme") => Transport::Nvme,
        _ if name.starts_with("mmcblk") => Transport::Mmc,
        _ if has("usb") => Transport::Usb,
        _ if has("virtio") => Transport::Virtio,
        _ if has("ata") => Transport::Sata,
        _ if has("host") => Transport::Scsi,
        _ => Transport::Other,
    }
}

/// A name that the maker gave to this one drive: NAA, EUI-64 or NGUID. `t10.` and `nvme.` ids only repeat the serial.
fn is_wwn(wwid: &str) -> bool {
    ["naa.", "eui.", "uuid."]
        .iter()
        .filter_map(|p| wwid.strip_prefix(p))
        .any(|id| id.bytes().any(|b| b.is_ascii_hexdigit() && b != b'0'))
}

/// Unit Serial Number page (SPC-6, 7.7.17): length at 2, text from 4.
fn serial_of_page_80(page: &[u8]) -> Option<String> {
    let len = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
    let text = String::from_utf8_lossy(page.get(4..)?.get(..len)?).trim_matches(['\0', ' ']).to_owned();
    (!text.is_empty()).then(|| cut(&text))
}

/// Place on the bus in udev's words: PCI address, then what tells disks of one controller apart.
fn bus_path(tree: &Tree, name: &str, path: &str) -> Option<String> {
    let pci = pci_address(path)?;
    let part = |prefix: &str| {
        path.split('/').find(|p| {
            p.strip_prefix(prefix).is_some_and(|r| r.bytes().all(|b| b.is_ascii_digit()) && !r.is_empty())
        })
    };
    let suffix = if let Some(ata) = part("ata") {
        let port = tree.text(format!("sys/class/ata_port/{ata}/port_no"));
        format!("-ata-{}", port.as_deref().unwrap_or(&ata[3..]))
    } else if let Some(target) = path.split('/').find(|p| p.starts_with("target")) {
        // Host numbers follow the order of probing, so only channel, target and LUN name the place.
        let hctl =
            path.split('/').find(|p| p.matches(':').count() == 3 && !p.contains('.')).unwrap_or(target);
        format!("-scsi-0:{}", hctl.split_once(':').map_or("", |(_, rest)| rest))
    } else if name.starts_with("nvme") {
        format!("-nvme-{}", tree.text(format!("sys/block/{name}/nsid")).as_deref().unwrap_or("1"))
    } else {
        String::new()
    };
    Some(format!("pci-{pci}{suffix}"))
}

fn content_of(tree: &Tree, name: &str, size: u64, sector: u32) -> DiskContent {
    let path = tree.path(format!("dev/{name}"));
    sniff(&path, size, sector).unwrap_or_else(|e| DiskContent::Unreadable { error: cut(&e.to_string()) })
}

fn sniff(path: &std::path::Path, size: u64, sector: u32) -> Result<DiskContent, DeviceError> {
    let disk = Target::open_read(path)?;
    let size = size.min(disk.size());
    let look = (LOOK as u64).min(size / u64::from(sector) * u64::from(sector)) as usize;
    let (mut head, mut tail) = (Buffer::new(look), Buffer::new(look));
    disk.read_at(0, &mut head[..look])?;
    disk.read_at(size - look as u64, &mut tail[..look])?;
    let mut found = content::disk(&head[..look], &tail[..look], size, u64::from(sector));
    if let DiskContent::Partitioned { partitions, .. } = &mut found {
        let mut first = Buffer::new(LOOK_PARTITION);
        for p in partitions.iter_mut() {
            let len = p.size_bytes.min(LOOK_PARTITION as u64) as usize;
            // A partition that lies beyond the disk has no content; the table itself is still worth listing.
            if disk.read_at(p.start_bytes, &mut first[..len]).is_ok() {
                p.content = content::signature(&first[..len]).map(str::to_owned);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_pages() {
        assert_eq!(serial_of_page_80(b"\0\x80\0\x06 AB12 ").as_deref(), Some("AB12"));
        assert_eq!(serial_of_page_80(b"\0\x80\0\xff AB12 "), None);
        assert_eq!(serial_of_page_80(b"\0"), None);
    }

    #[test]
    fn worldwide_names() {
        assert!(is_wwn("naa.5000c500a1b2c3d4") && is_wwn("eui.0025385b71b0f2e3"));
        assert!(
            !is_wwn("t10.ATA QEMU HARDDISK QM00005")
                && !is_wwn("eui.0000000000000000")
                && !is_wwn("nvme.1b36-31")
        );
    }
}
