//! A FAT12 volume (Microsoft's FAT specification 1.03) with a few files in `EFI/BOOT`, each in one run of clusters, and no
//! cluster to spare. UEFI firmware must read it (UEFI 2.10 section 13.3).

use super::{ImageError, Part, Segment, u32_of};

const SECTOR: u64 = 512;
/// One boot sector, two tables.
const RESERVED: u64 = 1;
const TABLES: u64 = 2;
/// Entries of the root directory: one sector.
const ROOT_ENTRIES: u16 = 16;
/// More clusters than that make FAT16 of it.
const CLUSTERS_MAX: u64 = 4084;
/// An El Torito entry counts its sectors in 16 bits.
const SECTORS_MAX: u64 = 0xffff;
/// Sectors of a cluster: the first that makes few enough clusters is taken.
const CLUSTER_SECTORS: [u64; 4] = [4, 8, 16, 32];
/// Clusters of the directories `EFI` and `EFI/BOOT`, which are the first.
const EFI: u16 = 2;
const BOOT: u16 = 3;
const FILES: u64 = 4;
/// Last cluster of a file.
const END: u16 = 0xfff;
/// 1 January 2020 (section 6 of the specification), so that the same files make the same volume.
const DATE: u16 = (2020 - 1980) << 9 | 1 << 5 | 1;
const DIRECTORY: u8 = 0x10;
const LABEL: u8 = 0x08;

/// The volume with these files; names as FAT has them, eight characters and three.
pub(super) fn volume(files: &[([u8; 11], (Part, u64))]) -> Result<Vec<Segment>, ImageError> {
    let sizes = files.iter().map(|(_, (_, size))| *size);
    if sizes.clone().any(|size| size > SECTORS_MAX * SECTOR) {
        return Err(ImageError::Loaders);
    }
    let clusters =
        |sectors: u64| FILES - 2 + sizes.clone().map(|s| s.div_ceil(sectors * SECTOR)).sum::<u64>();
    let per_cluster = CLUSTER_SECTORS.into_iter().find(|sectors| clusters(*sectors) <= CLUSTERS_MAX);
    let per_cluster = per_cluster.ok_or(ImageError::Loaders)?;
    let geometry = Geometry::new(per_cluster, clusters(per_cluster))?;
    let cluster = geometry.per_cluster * SECTOR;

    let (mut table, mut boot) = (Table::new(&geometry), entries(BOOT, EFI));
    table.chain(EFI.into(), 1);
    table.chain(BOOT.into(), 1);
    let mut next = FILES;
    for (name, (_, size)) in files {
        boot.extend(entry(name, 0, next, u32_of(*size)?));
        table.chain(next, size.div_ceil(cluster));
        next += size.div_ceil(cluster);
    }
    let mut root = entry(b"BILLET     ", LABEL, 0, 0).to_vec();
    root.extend(entry(b"EFI        ", DIRECTORY, EFI.into(), 0));
    let mut efi = entries(EFI, 0);
    efi.extend(entry(b"BOOT       ", DIRECTORY, BOOT.into(), 0));

    let mut octets = geometry.boot_sector();
    octets.extend(&table.octets);
    octets.extend(&table.octets);
    for (directory, size) in [(root, SECTOR), (efi, cluster), (boot, cluster)] {
        let end = octets.len() + size as usize;
        octets.extend(directory);
        octets.resize(end, 0);
    }
    let mut segments = vec![Segment::Octets(octets)];
    for (_, (part, size)) in files {
        segments.push(Segment::Part(*part, *size));
        segments.push(Segment::Zeroes(size.next_multiple_of(cluster) - size));
    }
    Ok(segments)
}

struct Geometry {
    per_cluster: u64,
    clusters: u64,
    table_sectors: u64,
    sectors: u16,
}

impl Geometry {
    fn new(per_cluster: u64, clusters: u64) -> Result<Self, ImageError> {
        let table_sectors = ((clusters + 2) * 3).div_ceil(2).div_ceil(SECTOR);
        let sectors = RESERVED + TABLES * table_sectors + 1 + clusters * per_cluster;
        let sectors = u16::try_from(sectors).map_err(|_| ImageError::Loaders)?;
        Ok(Self { per_cluster, clusters, table_sectors, sectors })
    }

    fn boot_sector(&self) -> Vec<u8> {
        let mut out = vec![0; SECTOR as usize];
        let mut put = |at: usize, octets: &[u8]| out[at..at + octets.len()].copy_from_slice(octets);
        put(0, &[0xeb, 0x3c, 0x90]);
        put(3, b"BILLET  ");
        put(11, &(SECTOR as u16).to_le_bytes());
        put(13, &[self.per_cluster as u8, RESERVED as u8, 0, TABLES as u8]);
        put(17, &ROOT_ENTRIES.to_le_bytes());
        put(19, &self.sectors.to_le_bytes());
        put(21, &[MEDIUM]);
        put(22, &(self.table_sectors as u16).to_le_bytes());
        // Sectors of a track and heads, which nobody needs any more.
        put(24, &[32, 0, 2, 0]);
        put(36, &[0x80, 0, 0x29]);
        put(39, &0xb111_e701_u32.to_le_bytes());
        put(43, b"BILLET     FAT12   ");
        put(510, &[0x55, 0xaa]);
        out
    }
}

/// A fixed disk.
const MEDIUM: u8 = 0xf8;

/// The file allocation table: 12 bits for each cluster.
struct Table {
    octets: Vec<u8>,
}

impl Table {
    fn new(geometry: &Geometry) -> Self {
        debug_assert!(geometry.clusters <= CLUSTERS_MAX);
        let mut table = Self { octets: vec![0; (geometry.table_sectors * SECTOR) as usize] };
        table.set(0, 0xf00 | u16::from(MEDIUM));
        table.set(1, END);
        table
    }

    /// `count` clusters from `first` on, one after the other.
    fn chain(&mut self, first: u64, count: u64) {
        let last = first + count - 1;
        for cluster in first..last {
            self.set(cluster, cluster as u16 + 1);
        }
        self.set(last, END);
    }

    fn set(&mut self, cluster: u64, value: u16) {
        let at = (cluster + cluster / 2) as usize;
        let [low, high] = if cluster.is_multiple_of(2) { value } else { value << 4 }.to_le_bytes();
        self.octets[at] |= low;
        self.octets[at + 1] |= high;
    }
}

/// The first two entries of a directory below the root.
fn entries(own: u16, parent: u16) -> Vec<u8> {
    let mut out = entry(b".          ", DIRECTORY, own.into(), 0).to_vec();
    out.extend(entry(b"..         ", DIRECTORY, parent.into(), 0));
    out
}

fn entry(name: &[u8; 11], attributes: u8, cluster: u64, size: u32) -> [u8; 32] {
    let mut out = [0; 32];
    out[..11].copy_from_slice(name);
    out[11] = attributes;
    for at in [16, 18, 24] {
        out[at..at + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    out[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    out[28..].copy_from_slice(&size.to_le_bytes());
    out
}
