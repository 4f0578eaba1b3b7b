//! Images, as the API shows them.

use images::Datasource;
use protocol::{ChunkId, ImageId, Sha256, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Problem;

/// An image.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImageView {
    /// Names it for ever.
    pub id: ImageId,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `x86_64` or `aarch64`.
    pub architecture: String,
    /// `bios`, `uefi`.
    pub firmware: Vec<String>,
    /// Size of the raw disk in bytes.
    pub raw_bytes: u64,
    /// Raw bytes that are not holes.
    pub data_bytes: u64,
    /// Smallest disk in bytes.
    pub minimum_disk: u64,
    /// SHA-256 of the raw disk.
    pub sha256: Sha256,
    /// Default user.
    pub default_user: Option<String>,
    /// How the OS in it is told who it is, where a deploy does not say.
    pub datasource: Datasource,
    /// Chunks that hold data.
    pub chunks: u64,
    /// When it was added.
    pub added: Timestamp,
    /// How it came here: `upload`, a path or a URL.
    pub origin: String,
    /// Nodes that run it.
    pub used_by: Vec<String>,
    /// Who vouches for it; it can be deployed then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignatureView>,
    /// Why it cannot be deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsigned: Option<String>,
}

/// A signature that holds, by a key that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignatureView {
    /// Number of the key, 16 hexadecimal digits.
    pub key: String,
    /// Whose it is.
    pub title: String,
    /// Grows with every image that the key signs.
    pub number: u64,
}

/// A key that signs images, or did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeyOfSiteView {
    /// Its number, 16 hexadecimal digits.
    pub id: String,
    /// The public key, as minisign has it.
    pub key: String,
    /// `site`, `vendor`, `former` or `forgotten`.
    pub role: String,
    /// Whose it is.
    pub title: String,
    /// Since when it is known.
    pub added: Timestamp,
    /// When another took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Its private part is on the server.
    pub private_here: bool,
    /// By which it named the one that followed it, in minisign's form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
}

/// An ingest on its way or ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IngestView {
    /// Names it.
    pub id: Uuid,
    /// Name and version of the image to be.
    pub image: String,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes of the source, where it says so.
    pub bytes_total: Option<u64>,
    /// Raw bytes stored so far.
    pub raw_bytes: u64,
    /// The image, once it is there.
    pub finished: Option<ImageId>,
    /// The reason, where it was refused.
    pub failed: Option<Problem>,
}

/// What reading an image back found.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VerifyView {
    /// The image.
    pub image: ImageId,
    /// Every byte is there and right.
    pub good: bool,
    /// Chunks looked at; holes are not counted.
    pub checked: u64,
    /// Chunks that are missing or wrong, in disk order.
    pub bad: Vec<BadChunkView>,
    /// SHA-256 of the whole raw disk, where no chunk is bad and it is still not what it should be.
    pub whole: Option<Sha256>,
}

/// A chunk that cannot be used.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BadChunkView {
    /// Its place in the image.
    pub index: u64,
    /// Its offset on the raw disk in bytes.
    pub offset: u64,
    /// Its id.
    pub id: ChunkId,
    /// What is wrong with it.
    pub fault: String,
}
