//! The program behind a disk that reaches its backend, and serves it to us alone by NBD: `qemu-storage-daemon`. It is a child
//! that never outlives us: two of them at one backend would write over each other's newer bytes with older ones.

use std::io::{self, BufRead as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::nbd::{self, Export};
use crate::sys;

/// Between two tries to connect to a program that begins.
const LOOK: Duration = Duration::from_millis(20);
/// A program that does not serve its disk by then is started anew: it waits for a backend that is away.
const START: Duration = Duration::from_secs(20);
/// What it says last is kept for an error, so many characters of it.
const SAID_MAX: usize = 300;
/// Name of its export.
const EXPORT: &str = "disk";

/// How it is started.
#[derive(Debug, Clone)]
pub struct Daemon {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where it listens.
    pub socket: PathBuf,
}

/// A program that runs, and a connection to it.
#[derive(Debug)]
pub struct Link {
    /// For both directions.
    pub stream: UnixStream,
    /// What it has.
    pub export: Export,
    child: Child,
}

impl Daemon {
    /// Starts it and connects. To be called by a thread that lives as long as we do.
    ///
    /// # Errors
    /// Where it does not come up; it is dead then.
    pub fn start(&self) -> io::Result<Link> {
        match std::fs::remove_file(&self.socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut command = Command::new(&self.program);
        // Not our standard input, which is a lock on our life.
        command.args(&self.arguments).stdin(Stdio::null()).stderr(Stdio::piped());
        sys::dies_with_us(&mut command);
        let mut child = command.spawn()?;
        let connected = Words::of(child.stderr.take()).and_then(|words| self.connect(&mut child, words));
        match connected {
            Ok((stream, export)) => Ok(Link { stream, export, child }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    fn connect(&self, child: &mut Child, words: Words) -> io::Result<(UnixStream, Export)> {
        let begun = Instant::now();
        let mut stream = loop {
            if let Ok(stream) = UnixStream::connect(&self.socket) {
                break stream;
            }
            if let Some(status) = child.try_wait()? {
                let program = self.program.display();
                return Err(io::Error::other(format!("{program} ended: {status}: {}", words.last())));
            }
            if begun.elapsed() > START {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(LOOK);
        };
        stream.set_read_timeout(Some(START))?;
        let export = nbd::shake_hands(&mut stream, EXPORT)?;
        stream.set_read_timeout(None)?;
        Ok((stream, export))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// What a program says, line by line: it goes on to our own standard error, and the last is kept.
struct Words {
    last: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Words {
    fn of(stderr: Option<ChildStderr>) -> io::Result<Self> {
        let last = Arc::<Mutex<String>>::default();
        let kept = last.clone();
        let read = move |stderr: ChildStderr| {
            for line in io::BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                eprintln!("{line}");
                *kept.lock().unwrap_or_else(PoisonError::into_inner) = line.chars().take(SAID_MAX).collect();
            }
        };
        let spawn = |stderr| std::thread::Builder::new().name("words".to_owned()).spawn(move || read(stderr));
        Ok(Self { last, reader: stderr.map(spawn).transpose()? })
    }

    /// The last line of a program that ended.
    fn last(self) -> String {
        if let Some(reader) = self.reader {
            let _ = reader.join();
        }
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn end(child: &mut Child) {
    // It may be dead already.
    let _ = child.kill();
    let _ = child.wait();
}
