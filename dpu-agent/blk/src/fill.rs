//! An image that is written into a volume before anybody can connect to it, by the writer that the server has too ([`imaging`]).
//!
//! ```text
//!  order ─▶ manifest ─▶ chunks, verified ─▶ volume ─▶ read back ─▶ mark ─▶ served
//!             └──────────────┴─ while the image store is away: asked for again and again
//! ```
//!
//! Who is killed begins anew: until the mark is there nobody had the volume, and it does not boot. With it nothing is ever written again: an
//! order of another image is refused.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use images::Manifest;
use imaging::{Chunks, Image, ImagingError, Medium, Progress, Step as Doing, Watch};
use protocol::dpu::Fill;
use protocol::{ChunkId, ImageId};
use zstd::bulk::Decompressor;

use crate::event::{Event, say};
use crate::nbd::Command;
use crate::remote::{Remote, Request, STEP, Step};
use crate::source::{Source, SourceError, Whose};

/// A chunk or a manifest that comes with other bytes than the image names is fetched again, so often in all: a bit that flipped on the way is another
/// one the next time, one in the store is not.
const TRIES: u32 = 3;
/// Before a chunk or a manifest is asked for again.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes that are zeroed by one request to a backend, which has a deadline.
const ZERO_MAX: u64 = 64 << 20;
/// Characters of a mark that stand in a message: an id has as many.
const NAMED_MAX: usize = 64;
/// Said before the first and last MiB are written.
const ALMOST: u8 = 99;

/// Why an image was not written.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The order, or the mark.
    #[error("cannot {action} {}", path.display())]
    File {
        /// Such as `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// No order.
    #[error("{} names no image to write", path.display())]
    Order {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: serde_json::Error,
    },
    /// Another image is on it, and perhaps what a host wrote since.
    #[error(
        "image {had} was written into this volume before, and not {image}: nothing is written over it; take the volume out of the state first, or give it another name"
    )]
    Another {
        /// As the mark says.
        had: String,
        /// As the order says.
        image: ImageId,
    },
    /// The manifest is not the image's.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The volume or the image.
    #[error(transparent)]
    Imaging(#[from] ImagingError),
}

/// What is to be done, in two files.
#[derive(Debug, Clone)]
pub struct Filling<'a> {
    /// Which image, from where ([`Fill`]).
    pub order: &'a Path,
    /// Is there once it was done.
    pub mark: &'a Path,
    /// As [`Image::encrypted`].
    pub encrypted: bool,
    /// Whose images are taken.
    pub whose: Whose,
}

impl Filling<'_> {
    /// Whether it was done. The order may be gone by then.
    ///
    /// # Errors
    /// Where that cannot be said, or another image was written: then nothing may be written.
    pub fn is_done(&self) -> Result<bool, FillError> {
        let Some(had) = text(self.mark)? else { return Ok(false) };
        let Some(order) = self.order()? else { return Ok(true) };
        if had.trim() == order.image.to_string() {
            return Ok(true);
        }
        let had = had.trim().chars().filter(|c| !c.is_control()).take(NAMED_MAX).collect();
        Err(FillError::Another { had, image: order.image })
    }

    /// Does it.
    ///
    /// # Errors
    /// [`FillError`]; the volume does not boot then.
    pub fn write(&self, medium: &dyn Medium) -> Result<(), FillError> {
        let gone = || failed("read", self.order)(io::ErrorKind::NotFound.into());
        let order = self.order()?.ok_or_else(gone)?;
        let fetch = Fetch::new(Source::new(&order.store, self.whose.clone()));
        let manifest = fetch.manifest(&order)?;
        let image = Image {
            manifest: &manifest,
            chunks: &fetch,
            config: order.config.as_ref(),
            grow_root: order.grow_root,
            encrypted: self.encrypted,
        };
        let written = imaging::write(medium, &image, &fetch)?;
        self.put_mark(&order).map_err(failed("make", self.mark))?;
        say(&Event::ImageWritten { bytes: fetch.bytes.load(Ordering::Relaxed), written });
        Ok(())
    }

    /// The order, where there is one.
    fn order(&self) -> Result<Option<Fill>, FillError> {
        let read = text(self.order)?.map(|text| serde_json::from_str(&text)).transpose();
        read.map_err(|cause| FillError::Order { path: self.order.to_owned(), cause })
    }

    /// Durable before it counts.
    fn put_mark(&self, order: &Fill) -> io::Result<()> {
        let next = self.mark.with_extension("filled.next");
        fs::write(&next, order.image.to_string())?;
        File::open(&next)?.sync_all()?;
        fs::rename(&next, self.mark)?;
        self.mark.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

/// The image store, and what is told of it.
struct Fetch {
    source: Source,
    is_away: AtomicBool,
    percent: AtomicU8,
    bytes: AtomicU64,
    transferred: AtomicU64,
}

impl Fetch {
    fn new(source: Source) -> Self {
        let (is_away, percent) = (AtomicBool::new(false), AtomicU8::new(0));
        Self { source, is_away, percent, bytes: AtomicU64::new(0), transferred: AtomicU64::new(0) }
    }

    fn manifest(&self, order: &Fill) -> Result<Manifest, SourceError> {
        let mut wrong = 0;
        loop {
            match self.source.manifest(order.image) {
                Ok(manifest) => {
                    self.note_back();
                    return Ok(manifest);
                }
                Err(SourceError::Away { what, why }) => self.note_away(&format!("{what}: {why}")),
                Err(error) => {
                    wrong += 1;
                    if wrong == TRIES {
                        return Err(error);
                    }
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn note_away(&self, why: &str) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            say(&Event::StoreAway { reason: why.to_owned() });
        }
    }

    fn note_back(&self) {
        if self.is_away.swap(false, Ordering::Relaxed) {
            say(&Event::StoreBack);
        }
    }
}

impl Chunks for Fetch {
    fn chunk(
        &self,
        index: usize,
        id: ChunkId,
        decompressor: &mut Decompressor<'_>,
        raw: &mut [u8],
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<(), ImagingError> {
        let mut wrong = 0;
        while !is_stopped() {
            match self.source.chunk(id, decompressor, raw) {
                Ok(transferred) => {
                    self.note_back();
                    self.transferred.fetch_add(transferred, Ordering::Relaxed);
                    return Ok(());
                }
                Err(SourceError::Away { what, why }) => self.note_away(&format!("{what}: {why}")),
                Err(error) => {
                    wrong += 1;
                    let chunk = u32::try_from(index).unwrap_or(u32::MAX);
                    say(&Event::ChunkWrong { chunk, id: id.to_string(), reason: error.to_string() });
                    if wrong == TRIES {
                        let why =
                            format!("chunk {index} ({id}) came with other bytes {TRIES} times: {error}");
                        return Err(ImagingError::Refused(why));
                    }
                }
            }
            std::thread::sleep(PAUSE);
        }
        Err(ImagingError::Cancelled)
    }
}

impl Watch for Fetch {
    fn tell(&self, Progress { step, done, total }: Progress) {
        if step == Doing::Write {
            self.bytes.fetch_max(done, Ordering::Relaxed);
        }
        let half = u8::try_from(done * 50 / total.max(1)).unwrap_or(50).min(50);
        let percent = match step {
            Doing::Plan => 0,
            Doing::Write => half,
            Doing::Verify => (50 + half).min(ALMOST),
            Doing::Customise => ALMOST,
        };
        if self.percent.fetch_max(percent, Ordering::Relaxed) < percent {
            let (bytes, transferred) =
                (self.bytes.load(Ordering::Relaxed), self.transferred.load(Ordering::Relaxed));
            say(&Event::Progress { percent: usize::from(percent), bytes, transferred });
        }
    }
}

/// A backend as a medium: its requests wait, are sent again and have a deadline as a host's have.
pub struct RemoteMedium(Arc<Remote>);

impl RemoteMedium {
    /// What this backend has.
    pub fn new(remote: Arc<Remote>) -> Self {
        Self(remote)
    }

    /// Carries out steps over `data`, and gives it back.
    fn ask(&self, steps: VecDeque<Step>, data: Vec<u8>) -> io::Result<Vec<u8>> {
        let (done, told) = mpsc::channel();
        let call = Arc::new(Call { data: Mutex::new(data), done });
        self.0.submit(steps, call.clone());
        // The sender is in the call, which we hold.
        if told.recv().unwrap_or(false) {
            return Ok(std::mem::take(&mut *call.data.lock().unwrap_or_else(PoisonError::into_inner)));
        }
        Err(io::Error::other("the backend failed, or did not answer in time"))
    }
}

impl Medium for RemoteMedium {
    fn size(&self) -> u64 {
        self.0.export().size
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let all = offset..offset + into.len() as u64;
        let read = self.ask(steps(Command::Read, all, u64::from(STEP)), vec![0; into.len()])?;
        into.copy_from_slice(&read);
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let all = offset..offset + from.len() as u64;
        self.ask(steps(Command::Write, all, u64::from(STEP)), from.to_vec()).map(drop)
    }

    fn zero(&self, range: Range<u64>) -> io::Result<()> {
        // Each within a deadline of its own: some backends are written zeros.
        for step in steps(Command::Zero, range, ZERO_MAX) {
            self.ask(VecDeque::from([step]), Vec::new())?;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let step = Step { command: Command::Flush, at: 0, length: 0, skip: 0 };
        self.ask(VecDeque::from([step]), Vec::new()).map(drop)
    }
}

fn steps(command: Command, range: Range<u64>, most: u64) -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    let mut at = range.start;
    while at < range.end {
        let length = (range.end - at).min(most);
        // `most` is far below 4 GiB.
        steps.push_back(Step { command, at, length: length as u32, skip: at - range.start });
        at += length;
    }
    steps
}

/// One request of ours.
struct Call {
    data: Mutex<Vec<u8>>,
    done: Sender<bool>,
}

impl Request for Call {
    fn gather(&self, skip: u64, into: &mut [u8]) -> bool {
        let data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        let part = usize::try_from(skip).ok().and_then(|skip| data.get(skip..skip + into.len()));
        part.map(|part| into.copy_from_slice(part)).is_some()
    }

    fn scatter(&self, skip: u64, from: &[u8]) {
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        let part = usize::try_from(skip).ok().and_then(|skip| data.get_mut(skip..skip + from.len()));
        if let Some(part) = part {
            part.copy_from_slice(from);
        }
    }

    fn done(&self, is_done: bool) {
        // Where nobody waits any more, nobody is to be told.
        let _ = self.done.send(is_done);
    }
}

/// What stands in a file, where there is one.
fn text(path: &Path) -> Result<Option<String>, FillError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed("read", path)(cause)),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FillError {
    move |cause| FillError::File { action, path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests;
