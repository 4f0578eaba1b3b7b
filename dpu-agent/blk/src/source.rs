//! Where an image's manifest and chunks come from: Billet's server by HTTP, or an image store in a local directory. Both name
//! bytes by their hash, so who answers need not be trusted, and plain HTTP will do.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use images::chunk::{self, ChunkError};
use images::manifest::{MANIFEST_MAX, Manifest, ManifestError};
use protocol::{ChunkId, ImageId};
use protocol_http::{HttpError, Waits};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest wait for the head of an answer.
const HEAD: Duration = Duration::from_secs(10);
/// Longest wait for a body: 4 MiB in this is 1.1 Mbit/s, below which no OS boots from here.
const BODY: Duration = Duration::from_secs(30);

/// An image store.
#[derive(Debug, Clone)]
pub enum Source {
    /// `billet serve` at this base URL.
    Http {
        /// Connections.
        agent: ureq::Agent,
        /// Such as `http://10.77.0.1:8080`, without a slash at the end.
        base: String,
    },
    /// A directory as `images::store` lays it out.
    Directory(PathBuf),
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The store does not answer, or does not have it: later perhaps.
    #[error("the image store does not give {what}: {why}")]
    Away {
        /// What was asked for.
        what: String,
        /// Why not.
        why: String,
    },
    /// The store gave other bytes.
    #[error(transparent)]
    Wrong(#[from] ChunkError),
    /// The store gave another manifest, or one that is not valid.
    #[error("the manifest is refused")]
    Manifest(#[from] ManifestError),
}

impl Source {
    /// The store at `place`: a URL that begins with `http://` and has an address, no name, or a directory.
    pub fn new(place: &str) -> Self {
        if !place.starts_with("http://") {
            return Self::Directory(place.into());
        }
        let waits = Waits { connect: CONNECT, head: HEAD, body: BODY };
        let agent = protocol_http::agent(concat!("billet-blk/", env!("CARGO_PKG_VERSION")), waits);
        Self::Http { agent, base: place.trim_end_matches('/').to_owned() }
    }

    /// The manifest of `image`.
    ///
    /// # Errors
    /// Where the store does not give it.
    pub fn manifest(&self, image: ImageId) -> Result<Manifest, SourceError> {
        let bytes =
            self.get(&format!("images/{image}/manifest"), &format!("manifests/{image}.json"), MANIFEST_MAX)?;
        Ok(Manifest::parse_as(&bytes, image)?)
    }

    /// The raw bytes of a chunk, verified, into `raw` of its exact length. Bytes that were transferred. On error the
    /// content of `raw` is not to be used.
    ///
    /// # Errors
    /// Where the store does not give it, or gives something else.
    pub fn chunk(
        &self,
        id: ChunkId,
        decompressor: &mut zstd::bulk::Decompressor<'_>,
        raw: &mut [u8],
    ) -> Result<u64, SourceError> {
        let name = id.to_string();
        let file = format!("chunks/{}/{name}.zst", name.get(..2).unwrap_or_default());
        let frame = self.get(&format!("chunks/{name}"), &file, chunk::frame_max(raw.len()))?;
        chunk::open(decompressor, id, &frame, raw)?;
        Ok(frame.len() as u64)
    }

    /// At most `max` bytes, from a path of the URL or the directory.
    fn get(&self, url: &str, file: &str, max: usize) -> Result<Vec<u8>, SourceError> {
        let away = |why: String| SourceError::Away { what: url.to_owned(), why };
        let mut bytes = Vec::new();
        match self {
            Self::Directory(root) => {
                let file = File::open(root.join(file)).map_err(|e| away(e.to_string()))?;
                file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(|e| away(e.to_string()))?;
            }
            Self::Http { agent, base } => {
                match protocol_http::get(agent, &format!("{base}/{url}"), max, &mut bytes) {
                    Ok(()) => {}
                    Err(HttpError::TooLarge { .. }) => bytes.resize(max + 1, 0),
                    Err(e) => return Err(away(e.to_string())),
                }
            }
        }
        // Whatever is longer than any frame fails as a frame.
        Ok(bytes)
    }
}
