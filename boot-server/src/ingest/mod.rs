//! Images on their way in: uploads, files of this machine, URLs. At most two at once; each reports how far it is. What
//! an image file may hold is decided in crate `images`, which reads it on a thread of its own.

mod fetch;
mod import;
mod upload;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use boot_server_core::node::Severity;
use images::{IngestError, IngestOptions, IngestProgress, Source};
use protocol::ImageId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::asking::carried;
use crate::engine::{Actor, Change, Engine, now};
use crate::store::queries::Remembered;
use crate::view::{IngestView, Problem};

pub use fetch::{Refusal, Vetting};
pub(crate) use import::resolve;
pub(crate) use upload::{drain, reader};

/// Images taken in at once: each uses all cores to hash and compress.
const AT_ONCE: usize = 2;
/// Ingests that have ended and can still be asked about.
const ENDED_MAX: usize = 100;
/// Least time between two announcements of progress.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(300);

/// All ingests. Cheap to clone.
#[derive(Clone)]
pub struct Ingests(Arc<Inner>);

struct Inner {
    engine: Engine,
    rules: Rules,
    permits: Arc<Semaphore>,
    /// Newest last. What runs is never dropped, so it is at most [`ENDED_MAX`] and [`AT_ONCE`] long.
    table: Mutex<VecDeque<IngestView>>,
    stop: CancellationToken,
}

/// Where images may come from.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Directories of this machine from which files may be taken.
    pub import_dirs: Vec<PathBuf>,
    /// Which addresses URLs may lead to.
    pub vetting: Vetting,
}

/// What is wanted, beside the bytes.
#[derive(Debug, Clone)]
pub struct Order {
    /// What is said about the file.
    pub options: IngestOptions,
    /// Where it comes from, for the list.
    pub origin: String,
    /// Who wants it.
    pub actor: Actor,
    /// To be remembered with the image's id as the answer.
    pub remember: Option<Remembered>,
}

/// Where the bytes are.
#[derive(Debug, Clone)]
pub enum From {
    /// In a file of this machine.
    Path(PathBuf),
    /// At a URL.
    Url(String),
}

impl Ingests {
    /// None yet. `stop` ends all that run.
    pub fn new(engine: Engine, rules: Rules, stop: CancellationToken) -> Self {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        Self(Arc::new(Inner { engine, rules, permits, table: Mutex::default(), stop }))
    }

    /// All that run and the newest that have ended, newest first.
    pub fn list(&self) -> Vec<IngestView> {
        self.table().iter().rev().cloned().collect()
    }

    /// One of them.
    pub fn get(&self, id: Uuid) -> Option<IngestView> {
        self.table().iter().find(|i| i.id == id).cloned()
    }

    /// Starts one in the background.
    ///
    /// # Errors
    /// Where two run already, or the path or URL may not be used.
    pub fn start(&self, order: Order, from: From) -> Result<IngestView, Problem> {
        let source = match from {
            From::Path(path) => Pending::Path(import::resolve(&path, &self.0.rules.import_dirs)?),
            From::Url(url) => Pending::Url(fetch::check_url(&url)?),
        };
        let begun = self.begin(&order)?;
        let (ingests, view) = (self.clone(), begun.view.clone());
        tokio::spawn(carried(async move {
            // Its result is in the table; nobody else waits for it.
            drop(ingests.finish(begun, order, move |rules, options| source.open(rules, options)).await);
        }));
        Ok(view)
    }

    /// Takes a place, before the first byte is.
    ///
    /// # Errors
    /// Where two run already.
    pub fn begin(&self, order: &Order) -> Result<Begun, Problem> {
        let permit = Arc::clone(&self.0.permits).try_acquire_owned().map_err(|_| Problem {
            status: 503,
            code: "ingests-full".to_owned(),
            message: format!("{AT_ONCE} images are being added already"),
            hint: "wait until one of them is there, then try again".to_owned(),
        })?;
        let view = IngestView {
            id: Uuid::now_v7(),
            image: format!("{}:{}", order.options.name, order.options.version),
            bytes_read: 0,
            bytes_total: order.options.expected_size,
            raw_bytes: 0,
            finished: None,
            failed: None,
        };
        let mut table = self.table();
        while table.len() >= ENDED_MAX + AT_ONCE {
            let Some(ended) = table.iter().position(|i| i.finished.is_some() || i.failed.is_some()) else {
                break;
            };
            table.remove(ended);
        }
        table.push_back(view.clone());
        drop(table);
        self.0.engine.announce(Change::Ingest(view.id));
        Ok(Begun { view, _permit: permit })
    }

    /// Reads the image, lists it, and writes down how it ended.
    async fn finish(
        &self,
        begun: Begun,
        order: Order,
        open: impl FnOnce(&Rules, &mut IngestOptions) -> Result<Source, Problem> + Send + 'static,
    ) -> Result<ImageId, Problem> {
        let id = begun.view.id;
        let (image, actor) = (begun.view.image.clone(), order.actor.clone());
        let result = self.read(id, order, open).await;
        // Whoever sees that it has ended finds its place free.
        drop(begun);
        self.change(id, |view| match &result {
            Ok(image) => view.finished = Some(*image),
            Err(problem) => view.failed = Some(problem.clone()),
        });
        let (severity, kind, message) = match &result {
            Ok(id) => (Severity::Info, "image.added", format!("image {image} was added, {id}")),
            Err(why) => {
                (Severity::Warning, "image.refused", format!("image {image} was not added: {}", why.message))
            }
        };
        if let Err(error) = self.0.engine.note(actor, None, kind, severity, message).await {
            tracing::error!(%error, "event of an image cannot be stored");
        }
        self.0.engine.announce(Change::Ingest(id));
        result
    }

    async fn read(
        &self,
        id: Uuid,
        order: Order,
        open: impl FnOnce(&Rules, &mut IngestOptions) -> Result<Source, Problem> + Send + 'static,
    ) -> Result<ImageId, Problem> {
        let Order { mut options, origin, remember, actor } = order;
        let (this, store) = (self.clone(), self.0.engine.images().clone());
        let reading = tokio::task::spawn_blocking(move || {
            let source = open(&this.0.rules, &mut options)?;
            let mut meter = Meter { ingests: &this, id, announced: Instant::now() };
            let sign = |manifest: &images::Manifest| this.0.engine.sign_manifest(manifest);
            images::ingest_signed(&store, source, options, &mut |p| meter.on(p), &sign)
                .map_err(|e| problem_of(&e))
        });
        let manifest = reading.await.map_err(|error| {
            tracing::error!(%error, "ingest broke");
            internal()
        })??;
        let image = manifest.id();
        let engine = &self.0.engine;
        failpoint::pass(failpoint::Point::ImageListed);
        let row = engine.add_image_row(image, now(), &origin).await.map_err(|e| e.problem())?;
        engine.note_unsigned(actor, &row).await.map_err(|e| e.problem())?;
        if let Some(remember) = remember {
            let remember = Remembered { answer: image.to_string(), ..remember };
            // The image is there; a key that cannot be stored only means that a repetition reads the file again.
            if let Err(error) = engine.remember(remember).await {
                tracing::warn!(%error, "idempotency key of an image cannot be stored");
            }
        }
        Ok(image)
    }

    fn change(&self, id: Uuid, change: impl FnOnce(&mut IngestView)) {
        if let Some(view) = self.table().iter_mut().find(|i| i.id == id) {
            change(view);
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, VecDeque<IngestView>> {
        // Nothing in it is ever half changed.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An ingest that has a place, which it keeps until this is dropped.
#[derive(Debug)]
pub struct Begun {
    view: IngestView,
    _permit: OwnedSemaphorePermit,
}

enum Pending {
    Path(std::fs::File),
    Url(ureq::http::Uri),
}

impl Pending {
    fn open(self, rules: &Rules, options: &mut IngestOptions) -> Result<Source, Problem> {
        match self {
            Self::Path(file) => Ok(Source::File(file)),
            Self::Url(url) => fetch::open(&url, &rules.vetting, options),
        }
    }
}

struct Meter<'a> {
    ingests: &'a Ingests,
    id: Uuid,
    announced: Instant,
}

impl Meter<'_> {
    fn on(&mut self, progress: IngestProgress) -> ControlFlow<()> {
        self.ingests.change(self.id, |view| {
            view.bytes_read = progress.done;
            view.bytes_total = progress.total.or(view.bytes_total);
            view.raw_bytes = progress.raw_bytes;
        });
        if self.announced.elapsed() >= ANNOUNCE_EVERY {
            self.announced = Instant::now();
            self.ingests.0.engine.announce(Change::Ingest(self.id));
        }
        if self.ingests.0.stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The reason as the client gets it: what crate `images` says, with its causes.
fn problem_of(error: &IngestError) -> Problem {
    let (status, code, hint) = match error {
        IngestError::Options(_) => {
            (422, "image-options", "correct the name, version or sizes that were given")
        }
        IngestError::Store(_) => (503, "image-store", "look at the server's log and at its disk"),
        IngestError::Cancelled => (503, "stopping", "the server was stopped meanwhile; add the image again"),
        IngestError::Compress { .. } | IngestError::Worker(_) => {
            (500, "internal", "look at the server's log")
        }
        IngestError::TooBig { .. } | IngestError::FileTooBig { .. } => {
            (413, "image-too-big", "make the disk in the image smaller; Billet grows it when it is deployed")
        }
        _ => (
            422,
            "image-refused",
            "check the file against its source, then add it again; nothing of it was kept",
        ),
    };
    if status >= 500 {
        tracing::error!(error = %sentence(error), "ingest failed");
    }
    Problem { status, code: code.to_owned(), message: sentence(error), hint: hint.to_owned() }
}

/// An error with its causes in one line.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}

fn internal() -> Problem {
    Problem {
        status: 500,
        code: "internal".to_owned(),
        message: "a task of the server broke".to_owned(),
        hint: "look at the server's log".to_owned(),
    }
}
