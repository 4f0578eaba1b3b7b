//! The manifest: canonical JSON that says what an image is and which chunks it is made of (DESIGN section 7).

use std::collections::BTreeSet;

use protocol::{ChunkId, ImageId, Sha256};
use serde::{Deserialize, Serialize};

/// Value of [`Manifest::format`].
pub const FORMAT: &str = "billet-image/1";
/// Default and largest chunk size in bytes: 4 MiB of the raw disk.
pub const CHUNK_SIZE: u32 = 4 << 20;
/// Smallest chunk size in bytes.
pub const CHUNK_SIZE_MIN: u32 = 64 << 10;
/// Largest raw image in bytes (16 TiB): 4 million chunks, a manifest of about 400 MiB, is where this format ends.
pub const RAW_SIZE_MAX: u64 = 16 << 40;
/// Largest manifest in bytes that is read from outside: an image of 2 TiB without holes.
pub const MANIFEST_MAX: usize = 64 << 20;
/// Bytes of the block that a [`Probe`] covers.
pub const PROBE_BLOCK: usize = 4096;

/// An image: one raw disk, cut into chunks of `chunk_size` (the last may be shorter).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// Name, such as `debian-12`: lower-case letters, digits, `.`, `-`, `_`; 1 to 64 characters.
    pub name: String,
    /// Version, such as `20261122`: same alphabet and length as the name.
    pub version: String,
    /// Machine architecture.
    pub architecture: Architecture,
    /// Firmware it boots on.
    pub firmware: BTreeSet<Firmware>,
    /// Partition table found in the raw image.
    pub partition_table: PartitionTable,
    /// Size of the raw disk image in bytes; a multiple of 512.
    pub raw_size: u64,
    /// SHA-256 of the whole raw image, holes included as zeros.
    pub sha256: Sha256,
    /// Smallest disk it can be written to, in bytes; at least `raw_size`.
    pub minimum_disk: u64,
    /// User that cloud-init makes by default, if any.
    pub default_user: Option<String>,
    /// How the OS in it is told who it is, where a deploy does not say; absent means [`Datasource::Nocloud`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datasource: Option<Datasource>,
    /// Raw bytes per chunk.
    pub chunk_size: u32,
    /// One entry per chunk in disk order; `null` is a hole (all zero).
    pub chunks: Vec<Option<ChunkRef>>,
}

/// One chunk that holds data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkRef {
    /// SHA-256 of the raw bytes.
    pub id: ChunkId,
    /// Tells cheaply that a disk does *not* hold this chunk.
    pub probe: Probe,
}

/// The first block of a chunk that is not all zero: its index in units of [`PROBE_BLOCK`] and the CRC-32 (IEEE
/// 802.3) of its bytes (short at the end of the image). A blank disk never matches; only where this one block is
/// equal is the whole chunk read and hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe(pub u32, pub u32);

/// Machine architecture, as `uname -m` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Architecture {
    /// AMD64.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "aarch64")]
    Aarch64,
}

/// Firmware that can start the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// Boot code in the MBR.
    Bios,
    /// An EFI system partition.
    Uefi,
}

/// How an OS is told who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Datasource {
    /// By a partition `cidata` on its disk (cloud-init's NoCloud).
    #[default]
    Nocloud,
    /// By a partition `cidata` with nothing but the URL of this server's metadata: user data never lies on the disk.
    NocloudNet,
    /// By a partition `config-2` on its disk (OpenStack's config drive).
    ConfigDrive,
    /// By a config drive with an Ignition config as its user data (CoreOS, Flatcar; platform `openstack`).
    Ignition,
    /// Not at all: the image knows everything itself, and nothing phones home.
    None,
}

impl Datasource {
    /// All there are.
    pub const ALL: [Self; 5] =
        [Self::Nocloud, Self::NocloudNet, Self::ConfigDrive, Self::Ignition, Self::None];

    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nocloud => "nocloud",
            Self::NocloudNet => "nocloud-net",
            Self::ConfigDrive => "config-drive",
            Self::Ignition => "ignition",
            Self::None => "none",
        }
    }
}

/// Partition table of the raw image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionTable {
    /// GUID partition table.
    Gpt,
    /// DOS partition table.
    Mbr,
    /// None.
    None,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of this shape.
    #[error("manifest is not valid JSON of format {FORMAT}")]
    Json(#[from] serde_json::Error),
    /// A field that contradicts another or leaves its range.
    #[error("manifest: {0}")]
    Invalid(String),
    /// Bytes that are not in canonical form, so their hash would not be the image's id.
    #[error("manifest is not in canonical form")]
    NotCanonical,
    /// Hash of the bytes is not the id that was asked for.
    #[error("manifest hashes to {found}, not to {wanted}")]
    WrongId {
        /// Asked for.
        wanted: ImageId,
        /// Found.
        found: ImageId,
    },
}

impl Manifest {
    /// Parses and checks canonical bytes.
    ///
    /// # Errors
    /// Where the bytes are not canonical JSON of a manifest whose numbers fit together.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.check()?;
        if manifest.canonical() != bytes {
            return Err(ManifestError::NotCanonical);
        }
        Ok(manifest)
    }

    /// Parses bytes that must hash to `id`.
    ///
    /// # Errors
    /// As [`Manifest::parse`], and where the hash differs.
    pub fn parse_as(bytes: &[u8], id: ImageId) -> Result<Self, ManifestError> {
        let found = id_of(bytes);
        if found != id {
            return Err(ManifestError::WrongId { wanted: id, found });
        }
        Self::parse(bytes)
    }

    /// The canonical bytes: compact JSON, fields in declaration order.
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// SHA-256 of the canonical bytes.
    pub fn id(&self) -> ImageId {
        id_of(&self.canonical())
    }

    /// Raw bytes of chunk `index`; the last may be shorter. Zero past the end.
    pub fn chunk_len(&self, index: usize) -> usize {
        let start = self.chunk_offset(index);
        usize::try_from(self.raw_size.saturating_sub(start).min(u64::from(self.chunk_size))).unwrap_or(0)
    }

    /// Offset of chunk `index` on the raw disk, in bytes.
    pub fn chunk_offset(&self, index: usize) -> u64 {
        (index as u64).saturating_mul(u64::from(self.chunk_size))
    }

    /// Raw bytes in chunks that hold data.
    pub fn data_bytes(&self) -> u64 {
        self.chunks
            .iter()
            .enumerate()
            .filter(|(_, c)| c.is_some())
            .map(|(i, _)| self.chunk_len(i) as u64)
            .sum()
    }

    fn check(&self) -> Result<(), ManifestError> {
        let invalid = |why: String| Err(ManifestError::Invalid(why));
        if self.format != FORMAT {
            return invalid(format!("format is `{}`, this program reads {FORMAT}", self.format));
        }
        for (what, text) in [("name", &self.name), ("version", &self.version)] {
            if !is_name(text) {
                return invalid(format!("{what} `{text}` must be 1 to 64 of a-z, 0-9, `.`, `-`, `_`"));
            }
        }
        if !(CHUNK_SIZE_MIN..=CHUNK_SIZE).contains(&self.chunk_size) || !self.chunk_size.is_power_of_two() {
            return invalid(format!(
                "chunk size {} is not a power of two from 64 KiB to 4 MiB",
                self.chunk_size
            ));
        }
        if self.raw_size == 0 || !self.raw_size.is_multiple_of(512) || self.raw_size > RAW_SIZE_MAX {
            return invalid(format!(
                "raw size {} is not a multiple of 512 from 512 to 16 TiB",
                self.raw_size
            ));
        }
        if self.chunks.len() as u64 != self.raw_size.div_ceil(u64::from(self.chunk_size)) {
            return invalid(format!("{} chunks do not make {} bytes", self.chunks.len(), self.raw_size));
        }
        if self.minimum_disk < self.raw_size {
            return invalid(format!(
                "minimum disk {} is below raw size {}",
                self.minimum_disk, self.raw_size
            ));
        }
        for (index, chunk) in self.chunks.iter().enumerate() {
            let blocks = self.chunk_len(index).div_ceil(PROBE_BLOCK);
            if chunk.is_some_and(|c| c.probe.0 as usize >= blocks) {
                return invalid(format!("probe of chunk {index} lies outside it"));
            }
        }
        Ok(())
    }
}

/// True for what may be a name or version of an image.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
        && !text.starts_with('.')
}

fn id_of(bytes: &[u8]) -> ImageId {
    ImageId(crate::chunk::sha256(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The canonical bytes of format 1. If a test against them fails, do not change them: images in the field would
    /// lose their ids.
    const GOLDEN: &str = concat!(
        r#"{"format":"billet-image/1","name":"debian-12","version":"20261122","architecture":"x86_64","#,
        r#""firmware":["bios","uefi"],"partition_table":"gpt","raw_size":131584,"#,
        r#""sha256":"0101010101010101010101010101010101010101010101010101010101010101","#,
        r#""minimum_disk":1073741824,"default_user":"debian","chunk_size":65536,"chunks":["#,
        r#"{"id":"0202020202020202020202020202020202020202020202020202020202020202","probe":[15,4294967295]},"#,
        r#"null,{"id":"0303030303030303030303030303030303030303030303030303030303030303","probe":[0,7]}]}"#,
    );

    fn golden() -> Manifest {
        let chunk = |byte, at, crc| Some(ChunkRef { id: ChunkId(Sha256([byte; 32])), probe: Probe(at, crc) });
        Manifest {
            format: FORMAT.to_owned(),
            name: "debian-12".to_owned(),
            version: "20261122".to_owned(),
            architecture: Architecture::X86_64,
            firmware: BTreeSet::from([Firmware::Uefi, Firmware::Bios]),
            partition_table: PartitionTable::Gpt,
            raw_size: 131_584,
            sha256: Sha256([1; 32]),
            minimum_disk: 1 << 30,
            default_user: Some("debian".to_owned()),
            datasource: None,
            chunk_size: 65536,
            chunks: vec![chunk(2, 15, u32::MAX), None, chunk(3, 0, 7)],
        }
    }

    #[test]
    fn golden_bytes_of_format_1() {
        assert_eq!(String::from_utf8(golden().canonical()).unwrap(), GOLDEN);
        assert_eq!(Manifest::parse(GOLDEN.as_bytes()).unwrap(), golden());
        let id = golden().id();
        assert_eq!(id.to_string(), "de67b0497beb204c811a6fa64a6677226f3ec27b75acad02ae5c8b6ee2f4ea65");
        assert_eq!(Manifest::parse_as(GOLDEN.as_bytes(), id).unwrap(), golden());
        let other = ImageId(Sha256([9; 32]));
        assert!(matches!(Manifest::parse_as(GOLDEN.as_bytes(), other), Err(ManifestError::WrongId { .. })));
    }

    #[test]
    fn a_datasource_is_written_only_where_there_is_one() {
        let other = Manifest { datasource: Some(Datasource::ConfigDrive), ..golden() };
        let text = String::from_utf8(other.canonical()).unwrap();
        assert!(
            text.contains(r#""default_user":"debian","datasource":"config-drive","chunk_size""#),
            "{text}"
        );
        assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), other);
        for word in Datasource::ALL {
            assert_eq!(serde_json::to_value(word).unwrap(), word.as_str());
        }
    }

    #[test]
    fn only_canonical_bytes_are_taken() {
        for other in [
            format!("{GOLDEN}\n"),
            GOLDEN.replace(r#","version""#, r#", "version""#),
            GOLDEN.replace("0202020202", "02020202+2"),
            GOLDEN.replace(r#"["bios","uefi"]"#, r#"["uefi","bios"]"#),
        ] {
            assert!(matches!(Manifest::parse(other.as_bytes()), Err(ManifestError::NotCanonical)), "{other}");
        }
        let unknown = GOLDEN.replace(r#","version""#, r#","extra":1,"version""#);
        assert!(matches!(Manifest::parse(unknown.as_bytes()), Err(ManifestError::Json(_))));
    }

    #[test]
    fn numbers_that_do_not_fit_together_are_refused() {
        let wrong: [fn(&mut Manifest); 12] = [
            |m| m.format = "billet-image/2".to_owned(),
            |m| m.name = String::new(),
            |m| m.name = ".hidden".to_owned(),
            |m| m.version = "a/b".to_owned(),
            |m| m.raw_size = 0,
            |m| m.raw_size = 131_585,
            |m| m.raw_size = RAW_SIZE_MAX + 512,
            |m| m.chunk_size = 65537,
            |m| m.chunk_size = CHUNK_SIZE * 2,
            |m| m.chunks.truncate(2),
            |m| m.minimum_disk = m.raw_size - 1,
            |m| m.chunks[2].as_mut().unwrap().probe.0 = 1,
        ];
        for (number, spoil) in wrong.iter().enumerate() {
            let mut manifest = golden();
            spoil(&mut manifest);
            let parsed = Manifest::parse(&manifest.canonical());
            assert!(matches!(parsed, Err(ManifestError::Invalid(_))), "{number}: {parsed:?}");
        }
    }

    #[test]
    fn the_last_chunk_is_shorter() {
        let manifest = golden();
        assert_eq!([0, 1, 2, 3].map(|i| manifest.chunk_len(i)), [65536, 65536, 512, 0]);
        assert_eq!(manifest.chunk_offset(2), 131_072);
        assert_eq!(manifest.data_bytes(), 65536 + 512);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut bytes = GOLDEN.as_bytes().to_vec();
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(manifest) = Manifest::parse(&bytes) {
                prop_assert_eq!(manifest.canonical(), bytes);
            }
        }
    }
}
