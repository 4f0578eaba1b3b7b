//! Recordings: one asciicast file per session, in `<state_dir>/console`, bounded in size, number and age.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use boot_server_core::console::cast::{self, About, Header, Kind};
use protocol::{NodeId, Timestamp};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::engine::{lock, now};
use crate::view::RecordingView;

/// Largest recording; the session ends there, because nothing is shown that is not recorded.
pub const RECORDING_MAX: u64 = 16 << 20;
/// Longest header that is read.
const HEADER_MAX: usize = 4096;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Not longer than this; `None` for ever.
    pub age: Option<Duration>,
    /// Not more octets than this in all. The oldest go first.
    pub bytes: u64,
}

/// All recordings. Cheap to clone.
#[derive(Clone)]
pub struct Recordings(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    keep: Keep,
    known: Mutex<BTreeMap<Uuid, RecordingView>>,
}

impl Recordings {
    /// Opens the directory, which is made where it does not exist. Files that are no recordings are left alone.
    ///
    /// # Errors
    /// Where it can be neither read nor made.
    pub fn open(dir: PathBuf, keep: Keep) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let mut known = BTreeMap::new();
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if let Some(view) = look(&path) {
                known.insert(view.about.session, view);
            }
        }
        Ok(Self(Arc::new(Inner { dir, keep, known: Mutex::new(known) })))
    }

    /// Newest first; of one node, where given.
    pub fn list(&self, node: Option<NodeId>) -> Vec<RecordingView> {
        let known = lock(&self.0.known);
        known.values().rev().filter(|r| node.is_none_or(|n| n == r.about.node)).cloned().collect()
    }

    /// One, without its text.
    pub fn view(&self, id: Uuid) -> Option<RecordingView> {
        lock(&self.0.known).get(&id).cloned()
    }

    /// One, with its text.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub async fn read(&self, id: Uuid) -> io::Result<Option<(RecordingView, String)>> {
        let Some(view) = self.view(id) else { return Ok(None) };
        let text = tokio::fs::read(self.path(id)).await?;
        Ok(Some((view, String::from_utf8_lossy(&text).into_owned())))
    }

    /// Begins a recording, after making room for it.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub(super) async fn begin(&self, about: About) -> io::Result<Recorder> {
        self.prune().await;
        let id = about.session;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path(id)).await?;
        let mut head = serde_json::to_string(&Header::new(about.clone()))?;
        head.push('\n');
        file.write_all(head.as_bytes()).await?;
        let view = RecordingView { about, bytes: head.len() as u64, ended: None };
        let began = tokio::time::Instant::now();
        let bytes = view.bytes;
        lock(&self.0.known).insert(id, view);
        Ok(Recorder { all: self.clone(), id, file, writer: cast::Writer::default(), began, bytes })
    }

    /// Removes what is too old or too much; never one that is being written.
    pub(super) async fn prune(&self) {
        for id in self.too_many(now()) {
            if let Err(error) = tokio::fs::remove_file(self.path(id)).await
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::error!(%error, recording = %id, "an old recording was not removed");
                continue;
            }
            lock(&self.0.known).remove(&id);
        }
    }

    fn too_many(&self, now: Timestamp) -> Vec<Uuid> {
        let known = lock(&self.0.known);
        let mut total = 0;
        let newest_first = known.values().rev().filter_map(|r| {
            total += r.bytes;
            let old = self.0.keep.age.is_some_and(|age| now.since(r.about.began) > age);
            (r.ended.is_some() && (old || total > self.0.keep.bytes)).then_some(r.about.session)
        });
        newest_first.collect()
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.0.dir.join(format!("{id}.cast"))
    }

    fn update(&self, id: Uuid, change: impl FnOnce(&mut RecordingView)) {
        if let Some(view) = lock(&self.0.known).get_mut(&id) {
            change(view);
        }
    }
}

/// What a file of an earlier run is; nothing where it is no recording of ours.
fn look(path: &Path) -> Option<RecordingView> {
    use std::io::{BufRead as _, Read as _};
    let id: Uuid = path.file_name()?.to_str()?.strip_suffix(".cast")?.parse().ok()?;
    let file = std::fs::File::open(path).ok()?;
    let about = file.metadata().ok()?;
    let mut line = String::new();
    io::BufReader::new(file.take(HEADER_MAX as u64)).read_line(&mut line).ok()?;
    let header = cast::header(&line).ok().filter(|h| h.billet.session == id)?;
    let ended = about.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let ended = Timestamp(u64::try_from(ended.as_millis()).unwrap_or(u64::MAX));
    Some(RecordingView { about: header.billet, bytes: about.len(), ended: Some(ended) })
}

/// Something to record.
pub(super) struct Entry {
    at: tokio::time::Instant,
    kind: Kind,
    octets: Vec<u8>,
}

impl Entry {
    pub fn now(kind: Kind, octets: &[u8]) -> Self {
        Self { at: tokio::time::Instant::now(), kind, octets: octets.to_vec() }
    }
}

/// Writes one recording.
pub(super) struct Recorder {
    all: Recordings,
    id: Uuid,
    file: File,
    writer: cast::Writer,
    began: tokio::time::Instant,
    bytes: u64,
}

impl Recorder {
    /// Writes all that comes, until there is nobody left to send it.
    ///
    /// # Errors
    /// Where something cannot be written, or the recording is full.
    pub async fn run(&mut self, mut entries: mpsc::Receiver<Entry>) -> io::Result<()> {
        while let Some(entry) = entries.recv().await {
            self.write(entry).await?;
        }
        Ok(())
    }

    async fn write(&mut self, entry: Entry) -> io::Result<()> {
        let at = entry.at.saturating_duration_since(self.began);
        let lines = self.writer.event(at, entry.kind, &entry.octets);
        if self.bytes + lines.len() as u64 > RECORDING_MAX {
            return Err(io::Error::other("the recording of this session is full: open the console again"));
        }
        self.append(&lines).await
    }

    /// Ends it.
    pub async fn end(mut self) {
        let lines = self.writer.finish(self.began.elapsed());
        let done = self.append(&lines).await;
        if let Err(error) = done.and(self.file.sync_all().await) {
            tracing::error!(%error, recording = %self.id, "the end of a recording was not written");
        }
        self.all.update(self.id, |view| view.ended = Some(now()));
    }

    async fn append(&mut self, lines: &str) -> io::Result<()> {
        self.file.write_all(lines.as_bytes()).await?;
        self.file.flush().await?;
        self.bytes += lines.len() as u64;
        let bytes = self.bytes;
        self.all.update(self.id, |view| view.bytes = bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(n: u128, began: u64) -> About {
        About {
            session: Uuid::from_u128(n),
            node: NodeId(Uuid::from_u128(9)),
            node_name: "alpha".to_owned(),
            who: "alice".to_owned(),
            from: "10.0.0.7".to_owned(),
            via: "ssh".to_owned(),
            began: Timestamp(began),
        }
    }

    #[tokio::test]
    async fn recordings_survive_a_restart_and_the_oldest_go() {
        let dir = std::env::temp_dir().join(format!("billet-cast-{}", Uuid::new_v4()));
        let keep = Keep { age: None, bytes: 1000 };
        let all = Recordings::open(dir.clone(), keep).unwrap();
        for n in 1..=3 {
            let mut recorder = all.begin(about(n, u64::try_from(n).unwrap())).await.unwrap();
            recorder.write(Entry::now(Kind::Output, &[b'x'; 400])).await.unwrap();
            recorder.write(Entry::now(Kind::Output, b"\xc3")).await.unwrap();
            assert!(all.list(None)[0].ended.is_none());
            recorder.end().await;
        }
        std::fs::write(dir.join("notes.txt"), "not ours").unwrap();
        std::fs::write(dir.join(format!("{}.cast", Uuid::nil())), "not a recording").unwrap();
        let again = Recordings::open(dir.clone(), keep).unwrap();
        let ids =
            |all: &Recordings| all.list(None).iter().map(|r| r.about.session.as_u128()).collect::<Vec<_>>();
        assert_eq!(ids(&again), [3, 2], "the first one made room for the third");
        let (_, text) = again.read(Uuid::from_u128(3)).await.unwrap().unwrap();
        let (_, events) = cast::parse(&text).unwrap();
        let octets: Vec<u8> = events.into_iter().flat_map(|e| e.octets).collect();
        assert_eq!(octets, [[b'x'; 400].as_slice(), b"\xc3"].concat());
        assert!(again.list(Some(NodeId(Uuid::nil()))).is_empty());
        let old = Recordings::open(dir.clone(), Keep { age: Some(Duration::from_secs(60)), bytes: u64::MAX })
            .unwrap();
        old.prune().await;
        assert!(ids(&old).is_empty());
        assert!(dir.join("notes.txt").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn a_full_recording_takes_no_more() {
        let dir = std::env::temp_dir().join(format!("billet-cast-{}", Uuid::new_v4()));
        let all = Recordings::open(dir.clone(), Keep { age: None, bytes: u64::MAX }).unwrap();
        let mut recorder = all.begin(about(1, 1)).await.unwrap();
        let mut written = 0;
        while recorder.write(Entry::now(Kind::Output, &[b'x'; 1 << 16])).await.is_ok() {
            written += 1;
            assert!(written < 1000);
        }
        recorder.end().await;
        assert!(std::fs::metadata(all.path(Uuid::from_u128(1))).unwrap().len() <= RECORDING_MAX + 4096);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
