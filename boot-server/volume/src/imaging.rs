//! An image of our store into a volume, by the writer that a DPU has too ([`::imaging`]); and what a volume is before it has one:
//! zeros, or the header of an encrypted one.

use ::imaging::{Chunks, Image, ImagingError, Progress, Watch, ZERO_MAX};
use protocol::agent::Password;
use protocol::{ChunkId, VolumeId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zstd::bulk::Decompressor;

use crate::luks::{self, Chance};
use crate::medium::Named;
use crate::{BackendError, ImageSource, ImageWritten};

/// Who is told, and who may stop it.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) cancel: CancellationToken,
}

impl Watch for Watched {
    fn tell(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// Our store. It is here: nobody waits for it.
struct Stored<'a>(&'a images::Store);

impl Chunks for Stored<'_> {
    fn chunk(
        &self,
        _index: usize,
        id: ChunkId,
        decompressor: &mut Decompressor<'_>,
        raw: &mut [u8],
        _is_stopped: &dyn Fn() -> bool,
    ) -> Result<(), ImagingError> {
        let frame = self.0.chunk_frame(id).map_err(|e| ImagingError::Refused(chain(&e)))?;
        images::chunk::open(decompressor, id, &frame, raw).map_err(|e| ImagingError::Refused(chain(&e)))
    }
}

/// Writes the image into a medium that nobody else has open.
///
/// # Errors
/// As [`crate::Backend::write_image`]; the volume does not boot then.
pub(crate) fn write(
    volume: VolumeId,
    medium: &dyn Named,
    image: &ImageSource,
    watched: &Watched,
) -> Result<ImageWritten, BackendError> {
    let refuse = |why: String| BackendError::Image { image: image.image, why };
    // Judged anew: the store may be a directory that others can write to.
    let vouched = image.store.vouched(image.image, &image.anchor).map_err(|e| refuse(chain(&e)))?;
    let source = Image {
        manifest: &vouched.manifest,
        chunks: &Stored(&image.store),
        config: image.config.as_ref(),
        grow_root: image.grow_root,
        encrypted: image.key.is_some(),
    };
    ::imaging::write(medium, &source, watched).map_err(|error| match error {
        ImagingError::Refused(why) => refuse(why),
        ImagingError::Io { action, cause } => BackendError::io(action, medium.path())(cause),
        ImagingError::Differs(offset) => BackendError::Differs { volume, offset },
        ImagingError::Cancelled => BackendError::Cancelled,
    })
}

/// Puts the header of an encrypted volume where it belongs.
///
/// # Errors
/// Where it cannot be written and read back.
pub(crate) fn encrypt(volume: VolumeId, medium: &dyn Named, key: &Password) -> Result<(), BackendError> {
    let chance = Chance::new()
        .map_err(|e| BackendError::Refused(format!("no random numbers for a volume's key: {e}")))?;
    let header = luks::header(key, &chance);
    let (path, mut back) = (medium.path(), vec![0; header.len()]);
    medium.write_at(0, &header).map_err(BackendError::io("write", path))?;
    medium.flush().map_err(BackendError::io("flush", path))?;
    medium.read_at(0, &mut back).map_err(BackendError::io("read", path))?;
    if back == header { Ok(()) } else { Err(BackendError::Differs { volume, offset: 0 }) }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// Zeroes all of a medium.
///
/// # Errors
/// Where it cannot be written.
pub(crate) fn zero_all(medium: &dyn Named) -> Result<(), BackendError> {
    let mut at = 0;
    while at < medium.size() {
        let end = (at + ZERO_MAX).min(medium.size());
        medium.zero(at..end).map_err(BackendError::io("zero", medium.path()))?;
        at = end;
    }
    medium.flush().map_err(BackendError::io("flush", medium.path()))
}
