//! Fetching from the provisioning listener over plain HTTP/1.1 with a kept connection. Manifests and chunks are named
//! by their hash, and a manifest is signed ([`Trust`]), so who answers need not be trusted.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use images::chunk::{self, ChunkError};
use images::manifest::{CHUNK_SIZE, MANIFEST_MAX, Manifest};
use images::minisign::TEXT_MAX;
use images::trust::SUCCESSION_MAX;
use protocol::fault::{Fault, FaultCode};
use protocol::{ChunkId, ImageId};
use protocol_http::{Backoff, HttpError, Waits, get};

use crate::feed::Feed;
use crate::trust::Trust;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for the head of an answer; the long poll asks for less.
const HEAD: Duration = Duration::from_secs(60);
/// Longest wait for a body: 4 MiB in this is 560 kbit/s, below which a deploy makes no sense.
const BODY: Duration = Duration::from_secs(60);
/// Fetches of a chunk whose bytes are wrong, before the job fails.
const CORRUPT_TRIES: u32 = 3;
/// Answers that say "there is no such thing", before the job fails: a restoring server may say so for a moment.
const MISSING_TRIES: u32 = 5;

/// Why a chunk or manifest was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The request failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Not the chunk.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

impl FetchError {
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Http(e) if e.is_refusal())
    }
}

/// An HTTP client of our own kind.
pub fn http_agent() -> ureq::Agent {
    let waits = Waits { connect: CONNECT, head: HEAD, body: BODY };
    protocol_http::agent(concat!("billet-agent/", env!("CARGO_PKG_VERSION")), waits)
}

/// One connection's worth of fetching, with its buffers.
pub struct Fetcher {
    agent: ureq::Agent,
    base: String,
    frame: Vec<u8>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl Fetcher {
    /// For the server at `base`, such as `http://10.77.0.1:8080`.
    ///
    /// # Errors
    /// Where zstd finds no memory.
    pub fn new(base: &str) -> std::io::Result<Self> {
        Ok(Self {
            agent: http_agent(),
            base: base.trim_end_matches('/').to_owned(),
            // Address space only, until a frame that large arrives.
            frame: Vec::with_capacity(chunk::frame_max(CHUNK_SIZE as usize) + 1),
            decompressor: zstd::bulk::Decompressor::new()?,
        })
    }

    /// Fetches the chunk, opens it into `raw` (of the chunk's exact length) and compares its hash; tries again as long
    /// as the network is at fault. Bytes fetched. On error `raw` is not to be used.
    ///
    /// # Errors
    /// [`FaultCode::ChunkCorrupt`] naming chunk and index, [`FaultCode::Fetch`] where the server has no such chunk,
    /// [`FaultCode::Aborted`].
    pub fn chunk(&mut self, feed: &Feed, index: usize, id: ChunkId, raw: &mut [u8]) -> Result<u64, Fault> {
        let (mut backoff, mut corrupt, mut missing) = (Backoff::default(), 0, 0);
        loop {
            feed.check_abort()?;
            let error = match self.try_chunk(id, raw) {
                Ok(bytes) => return Ok(bytes),
                Err(e) => e,
            };
            if matches!(error, FetchError::Chunk(_) | FetchError::Http(HttpError::TooLarge { .. })) {
                corrupt += 1;
                feed.note(format!(
                    "chunk {index} is not what the manifest names, try {corrupt} of {CORRUPT_TRIES}: {error}"
                ));
                if corrupt >= CORRUPT_TRIES {
                    return Err(Fault::new(
                        FaultCode::ChunkCorrupt,
                        format!("chunk {index} ({id}) is corrupt on the server: {error}"),
                        "run `billet image verify`, add the image again, then deploy again; the disk does not boot",
                    ));
                }
                continue;
            }
            missing += u32::from(error.is_refusal());
            if missing >= MISSING_TRIES {
                return Err(missing_fault(&format!("chunk {index} ({id})"), &error));
            }
            wait(feed, &mut backoff, &error)?;
        }
    }

    fn try_chunk(&mut self, id: ChunkId, raw: &mut [u8]) -> Result<u64, FetchError> {
        let url = format!("{}/chunks/{id}", self.base);
        self.frame.clear();
        get(&self.agent, &url, chunk::frame_max(raw.len()), &mut self.frame)?;
        chunk::open(&mut self.decompressor, id, &self.frame, raw)?;
        Ok(self.frame.len() as u64)
    }

    /// Fetches the manifest that hashes to `id`, and has it judged; tries again as long as the network is at fault.
    ///
    /// # Errors
    /// [`FaultCode::Untrusted`], [`FaultCode::Manifest`], [`FaultCode::Fetch`], [`FaultCode::Aborted`].
    pub fn manifest(&mut self, feed: &Feed, id: ImageId, trust: &Trust) -> Result<Manifest, Fault> {
        trust.check()?;
        let bytes = self.whole(feed, &format!("images/{id}/manifest"), MANIFEST_MAX)?;
        let bytes = bytes.map_err(|error| missing_fault(&format!("image {id}"), &error))?;
        trust.judge(self, feed, id, &bytes)
    }

    /// The signature of an image; `None` where the server says that it has none.
    ///
    /// # Errors
    /// [`FaultCode::Aborted`].
    pub fn signature(&mut self, feed: &Feed, id: ImageId) -> Result<Option<String>, Fault> {
        let bytes = self.whole(feed, &format!("images/{id}/signature"), TEXT_MAX)?;
        // What is no text is no signature.
        Ok(bytes.ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// By which keys of the site named those that followed them; none where the server does not say.
    pub fn succession(&mut self, feed: &Feed) -> Vec<String> {
        let bytes = self.whole(feed, "trust/succession", SUCCESSION_MAX * TEXT_MAX);
        let list = bytes.ok().and_then(Result::ok).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        list.unwrap_or_default()
    }

    /// What lies at a path; asked for as long as the network is at fault, and some times where the server refuses it.
    fn whole(&mut self, feed: &Feed, path: &str, max: usize) -> Result<Result<Vec<u8>, FetchError>, Fault> {
        let url = format!("{}/{path}", self.base);
        let (mut backoff, mut refused) = (Backoff::default(), 0);
        loop {
            feed.check_abort()?;
            let mut bytes = Vec::new();
            let error = match get(&self.agent, &url, max, &mut bytes) {
                Ok(()) => return Ok(Ok(bytes)),
                Err(error) => FetchError::from(error),
            };
            let too_large = matches!(error, FetchError::Http(HttpError::TooLarge { .. }));
            refused += u32::from(error.is_refusal() || too_large);
            if refused >= MISSING_TRIES {
                return Ok(Err(error));
            }
            wait(feed, &mut backoff, &error)?;
        }
    }
}

fn wait(feed: &Feed, backoff: &mut Backoff, error: &FetchError) -> Result<(), Fault> {
    let wait = backoff.wait(random());
    // Said once per outage, not once per try: four workers share one console.
    if backoff.tries() == 3 {
        feed.note(format!("waiting for the server: {error}"));
    }
    feed.sleep(wait)
}

fn missing_fault(what: &str, error: &FetchError) -> Fault {
    Fault::new(
        FaultCode::Fetch,
        format!("the server does not give {what}: {error}"),
        "check that the image still exists (`billet image list`), then deploy again",
    )
}

/// A random number for jitter, transaction ids and partition GUIDs; none of them is a secret. `/dev/urandom` never waits,
/// whereas getrandom(2) may wait for minutes early in the boot of a machine without a hardware generator. Where there is
/// no such device the clock will do.
pub fn random() -> u32 {
    let mut bytes = [0; 4];
    match File::open("/dev/urandom").and_then(|mut device| device.read_exact(&mut bytes)) {
        Ok(()) => u32::from_le_bytes(bytes),
        Err(_) => crate::feed::now().0 as u32,
    }
}
