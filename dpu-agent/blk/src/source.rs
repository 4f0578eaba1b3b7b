//! Where an image's manifest and chunks come from: Billet's server by HTTP, or an image store in a local directory. Both name
//! bytes by their hash, and a manifest is signed, so who answers need not be trusted, and plain HTTP will do.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use images::chunk::{self, ChunkError};
use images::manifest::{MANIFEST_MAX, Manifest, ManifestError};
use images::minisign::TEXT_MAX;
use images::trust::{ANCHOR_MAX, Anchor, AnchorError, SUCCESSION_MAX, TrustError};
use protocol::{ChunkId, ImageId};
use protocol_http::{HttpError, Waits};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest wait for the head of an answer.
const HEAD: Duration = Duration::from_secs(10);
/// Longest wait for a body: 4 MiB in this is 1.1 Mbit/s, below which no OS boots from here.
const BODY: Duration = Duration::from_secs(30);

/// Whose images are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Of the keys in this file, which is read when a manifest is fetched.
    Keys(PathBuf),
    /// Nobody's: nobody said whose.
    Nobody,
    /// Anybody's: somebody said so on the command line.
    Anybody,
}

/// An image store, and whose images are taken from it.
#[derive(Debug, Clone)]
pub struct Source {
    place: Place,
    whose: Whose,
}

#[derive(Debug, Clone)]
enum Place {
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
    /// Nobody who is trusted vouches for it.
    #[error("the image is refused")]
    Untrusted(#[source] TrustError),
    /// It is not known who is trusted.
    #[error("it is not known whose images may be taken: {0}")]
    NoKeys(String),
}

impl From<TrustError> for SourceError {
    fn from(error: TrustError) -> Self {
        match error {
            // Other bytes than were asked for: they may be right the next time.
            TrustError::Manifest(cause) => Self::Manifest(cause),
            other => Self::Untrusted(other),
        }
    }
}

impl Source {
    /// The store at `place`: a URL that begins with `http://` and has an address, no name, or a directory.
    pub fn new(place: &str, whose: Whose) -> Self {
        if !place.starts_with("http://") {
            return Self { place: Place::Directory(place.into()), whose };
        }
        let waits = Waits { connect: CONNECT, head: HEAD, body: BODY };
        let agent = protocol_http::agent(concat!("billet-blk/", env!("CARGO_PKG_VERSION")), waits);
        Self { place: Place::Http { agent, base: place.trim_end_matches('/').to_owned() }, whose }
    }

    /// The manifest of `image`, if somebody who is trusted vouches for it. Nothing of it is read before.
    ///
    /// # Errors
    /// Where the store does not give it, or it is refused.
    pub fn manifest(&self, image: ImageId) -> Result<Manifest, SourceError> {
        let anchor = match &self.whose {
            Whose::Keys(path) => Some(anchor(path)?),
            Whose::Nobody => return Err(SourceError::NoKeys("give --trust".to_owned())),
            Whose::Anybody => None,
        };
        let bytes =
            self.get(&format!("images/{image}/manifest"), &format!("manifests/{image}.json"), MANIFEST_MAX)?;
        let Some(mut anchor) = anchor else { return Ok(Manifest::parse_as(&bytes, image)?) };
        let signature = self.signature(image)?;
        let mut vouched = anchor.judge(image, &bytes, signature.as_deref());
        if matches!(vouched, Err(TrustError::Foreign(_))) && anchor.follow(&self.succession()) {
            vouched = anchor.judge(image, &bytes, signature.as_deref());
        }
        Ok(vouched?.manifest)
    }

    /// The signature of an image; none where the store says that it has none.
    fn signature(&self, image: ImageId) -> Result<Option<String>, SourceError> {
        let mut bytes = Vec::new();
        match &self.place {
            Place::Directory(root) => match File::open(root.join(format!("manifests/{image}.minisig"))) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                opened => opened
                    .and_then(|file| file.take(TEXT_MAX as u64 + 1).read_to_end(&mut bytes))
                    .map(drop)
                    .map_err(|e| SourceError::Away { what: "a signature".to_owned(), why: e.to_string() })?,
            },
            Place::Http { agent, base } => {
                let url = format!("{base}/images/{image}/signature");
                match protocol_http::get(agent, &url, TEXT_MAX, &mut bytes) {
                    Err(e) if e.is_refusal() => return Ok(None),
                    got => got.map_err(|e| SourceError::Away {
                        what: "a signature".to_owned(),
                        why: e.to_string(),
                    })?,
                }
            }
        }
        // What is no text is no signature.
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// By which keys of the site named those that followed them; a directory does not say.
    fn succession(&self) -> Vec<String> {
        if matches!(self.place, Place::Directory(_)) {
            return Vec::new();
        }
        let bytes = self.get("trust/succession", "", SUCCESSION_MAX * TEXT_MAX);
        bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
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
        match &self.place {
            Place::Directory(root) => {
                let file = File::open(root.join(file)).map_err(|e| away(e.to_string()))?;
                file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(|e| away(e.to_string()))?;
            }
            Place::Http { agent, base } => {
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

/// The keys in a file.
fn anchor(path: &std::path::Path) -> Result<Anchor, SourceError> {
    let wrong = |why: String| SourceError::NoKeys(format!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(ANCHOR_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|e| wrong(e.to_string()))?;
    Anchor::parse(&bytes).map_err(|e: AnchorError| wrong(e.to_string()))
}
