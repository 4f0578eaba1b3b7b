//! A volume that QEMU opens (`qemu-nbd(8)`: iSCSI by libiscsi, Ceph by librbd) and serves to us on a socket, by the NBD protocol
//! (github.com/NetworkBlockDevice/nbd, doc/proto.md). So one program knows every way to a volume, the same that serves it on a DPU, and no kernel has
//! to. It ends when we hang up, also where we are killed. Blocks.

use std::fs;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use imaging::Medium;
use protocol::agent::Password;
use protocol::dpu::Backend;

use crate::BackendError;
use crate::grants::durable;
use crate::medium::Named;

/// Time for the program to reach the volume and to open its socket.
const START: Duration = Duration::from_secs(30);
const START_LOOK: Duration = Duration::from_millis(20);
/// Time for one request. A target that has no zeroes of its own is written [`ZERO_MAX`] bytes in this.
const REQUEST: Duration = Duration::from_secs(120);
/// Bytes that are zeroed by one request.
const ZERO_MAX: u64 = 64 << 20;
/// Name of the export.
const EXPORT: &str = "v";
/// Longest answer to an option, in octets: an error with its words.
const OPTION_MAX: u32 = 4096;

const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const INFO_EXPORT: u16 = 0;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// What is asked of an export.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    WriteZeroes = 6,
}

/// A volume that is open.
pub(crate) struct NbdMedium {
    connection: Mutex<Connection>,
    size: u64,
    name: PathBuf,
    _program: Program,
}

/// The program that has it open, with its files.
struct Program {
    child: Child,
    dir: PathBuf,
}

impl NbdMedium {
    /// Opens the volume that a DPU would be told of, and what is encrypted in it where there is a key; the program's files are
    /// in `dir` for as long.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(crate) fn open(told: &Backend, key: Option<&Password>, dir: &Path) -> Result<Self, BackendError> {
        // Short, as the path of a socket is.
        let dir = dir.join(&uuid::Uuid::new_v4().simple().to_string()[..12]);
        fs::create_dir_all(&dir).map_err(BackendError::io("make", &dir))?;
        let opened = Self::start(told, key, &dir);
        if opened.is_err() {
            let _ = fs::remove_dir_all(&dir);
        }
        opened
    }

    fn start(told: &Backend, key: Option<&Password>, dir: &Path) -> Result<Self, BackendError> {
        let (socket, log) = (dir.join("socket"), dir.join("log"));
        let mut command = Command::new("qemu-nbd");
        command.arg("--socket").arg(&socket).args(["--export-name", EXPORT, "--discard=unmap"]);
        let options = image_options(told, key, dir, &mut command)?;
        let out = fs::File::create(&log).map_err(BackendError::io("make", &log))?;
        command.args(["--image-opts", &options]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(out);
        let child = command.spawn().map_err(BackendError::io("start", Path::new("qemu-nbd")))?;
        let mut program = Program { child, dir: dir.to_owned() };
        let stream = program.connect(&socket, &log)?;
        let name = PathBuf::from(name(told));
        let (connection, size) = Connection::open(stream).map_err(BackendError::io("open", &name))?;
        Ok(Self { connection: Mutex::new(connection), size, name, _program: program })
    }

    fn ask(&self, ask: Ask, offset: u64, len: u32, data: Data<'_>) -> io::Result<()> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).ask(ask, offset, len, data)
    }
}

impl Drop for NbdMedium {
    fn drop(&mut self) {
        let _ = self.ask(Ask::Disconnect, 0, 0, Data::None);
    }
}

impl Named for NbdMedium {
    fn path(&self) -> &Path {
        &self.name
    }
}

impl Medium for NbdMedium {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.ask(Ask::Read, offset, length(into)?, Data::In(into))
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.ask(Ask::Write, offset, length(from)?, Data::Out(from))
    }

    fn zero(&self, range: Range<u64>) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(ZERO_MAX);
            self.ask(Ask::WriteZeroes, at, len as u32, Data::None)?;
            at += len;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.ask(Ask::Flush, 0, 0, Data::None)
    }
}

impl Program {
    fn connect(&mut self, socket: &Path, log: &Path) -> Result<UnixStream, BackendError> {
        let end = Instant::now() + START;
        loop {
            if let Ok(stream) = UnixStream::connect(socket) {
                return Ok(stream);
            }
            let ended = self.child.try_wait().map_err(BackendError::io("wait for", Path::new("qemu-nbd")))?;
            if ended.is_some() || Instant::now() > end {
                let said = fs::read_to_string(log).unwrap_or_default();
                let said = said.trim().chars().take(300).collect();
                return Err(BackendError::Program {
                    program: "qemu-nbd",
                    what: "open the volume".into(),
                    said,
                });
            }
            std::thread::sleep(START_LOOK);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // After the disconnect it ends by itself and has closed the volume; one that hangs is ended.
        let end = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(START_LOOK);
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What a request carries.
enum Data<'a> {
    None,
    Out(&'a [u8]),
    In(&'a mut [u8]),
}

/// The protocol on a stream, one request at a time.
struct Connection {
    stream: UnixStream,
    cookie: u64,
}

impl Connection {
    /// Says hello. The connection and the size of the export in bytes.
    fn open(mut stream: UnixStream) -> io::Result<(Self, u64)> {
        stream.set_read_timeout(Some(REQUEST))?;
        stream.set_write_timeout(Some(REQUEST))?;
        let hello: [u8; 18] = array(&mut stream)?;
        if !hello.starts_with(b"NBDMAGICIHAVEOPT") || hello[17] & 1 == 0 {
            return Err(wrong("no fixed newstyle server"));
        }
        // Fixed newstyle, no zeroes.
        let mut go = 3_u32.to_be_bytes().to_vec();
        go.extend(OPTION_MAGIC.to_be_bytes());
        go.extend(OPT_GO.to_be_bytes());
        go.extend((4 + EXPORT.len() as u32 + 2).to_be_bytes());
        go.extend((EXPORT.len() as u32).to_be_bytes());
        go.extend(EXPORT.as_bytes());
        go.extend([0, 0]);
        stream.write_all(&go)?;
        let mut size = None;
        loop {
            let (kind, data) = option_reply(&mut stream)?;
            match (kind, data.first_chunk::<10>()) {
                (REP_INFO, Some([a, b, rest @ ..])) if u16::from_be_bytes([*a, *b]) == INFO_EXPORT => {
                    size = Some(u64::from_be_bytes(*rest));
                }
                (REP_INFO, _) => {}
                (REP_ACK, _) => break,
                _ => return Err(wrong(&String::from_utf8_lossy(&data))),
            }
        }
        Ok((Self { stream, cookie: 0 }, size.ok_or_else(|| wrong("an export without a size"))?))
    }

    fn ask(&mut self, ask: Ask, offset: u64, len: u32, data: Data<'_>) -> io::Result<()> {
        self.cookie += 1;
        let mut head = REQUEST_MAGIC.to_be_bytes().to_vec();
        head.extend([0, 0]);
        head.extend((ask as u16).to_be_bytes());
        head.extend(self.cookie.to_be_bytes());
        head.extend(offset.to_be_bytes());
        head.extend(len.to_be_bytes());
        self.stream.write_all(&head)?;
        if let Data::Out(bytes) = &data {
            self.stream.write_all(bytes)?;
        }
        if matches!(ask, Ask::Disconnect) {
            return Ok(());
        }
        let reply: [u8; 16] = array(&mut self.stream)?;
        let [m0, m1, m2, m3, e0, e1, e2, e3, cookie @ ..] = reply;
        if u32::from_be_bytes([m0, m1, m2, m3]) != REPLY_MAGIC || u64::from_be_bytes(cookie) != self.cookie {
            return Err(wrong("an answer to something else"));
        }
        match u32::from_be_bytes([e0, e1, e2, e3]) {
            0 => {}
            // The protocol's numbers are Linux's (doc/proto.md, "Error values").
            number => return Err(io::Error::from_raw_os_error(number as i32)),
        }
        match data {
            Data::In(into) => self.stream.read_exact(into),
            _ => Ok(()),
        }
    }
}

fn option_reply(stream: &mut UnixStream) -> io::Result<(u32, Vec<u8>)> {
    let head: [u8; 20] = array(stream)?;
    let field = |at: usize| -> u32 {
        head.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
    };
    let magic = (u64::from(field(0)) << 32) | u64::from(field(4));
    let (kind, len) = (field(12), field(16));
    if magic != OPTION_REPLY || len > OPTION_MAX {
        return Err(wrong("no answer to an option"));
    }
    let mut data = vec![0; len as usize];
    stream.read_exact(&mut data)?;
    Ok((kind, data))
}

fn array<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("NBD: {what}"))
}

fn length(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// A volume in words.
fn name(told: &Backend) -> String {
    match told {
        Backend::File { path } => path.clone(),
        Backend::Iscsi { portal, target, lun, .. } => format!("{target} lun {lun} at {portal}"),
        Backend::Rbd { pool, image, .. } => format!("{pool}/{image}"),
        Backend::NvmeTcp { address, subsystem, namespace } => {
            format!("{subsystem} namespace {namespace} at {address}")
        }
        Backend::Nbd { address, export } => format!("{export} at {address}"),
    }
}

/// What QEMU opens (qemu-block-drivers(7)). Secrets go by files in `dir`, as arguments are seen by everybody.
fn image_options(
    told: &Backend,
    luks: Option<&Password>,
    dir: &Path,
    command: &mut Command,
) -> Result<String, BackendError> {
    let mut secret = |id: &str, text: &str, format: &str| {
        let path = dir.join(id);
        durable(&path, text.as_bytes())?;
        command
            .arg("--object")
            .arg(format!("secret,id={id},format={format},file={}", plain(&path.display())));
        Ok::<_, BackendError>(())
    };
    let driver = if luks.is_some() { "luks" } else { "raw" };
    let mut all = vec![("driver".to_owned(), driver.to_owned()), ("discard".into(), "unmap".into())];
    if let Some(key) = luks {
        secret("luks", &key.0, "raw")?;
        all.push(("key-secret".into(), "luks".into()));
    }
    let mut set = |name: &str, value: &dyn std::fmt::Display| {
        all.push((format!("file.{name}"), value.to_string()));
    };
    match told {
        Backend::File { path } => {
            set("driver", &"file");
            set("filename", path);
        }
        Backend::Iscsi { portal, target, lun, initiator, chap } => {
            set("driver", &"iscsi");
            set("transport", &"tcp");
            set("portal", portal);
            set("target", target);
            set("lun", lun);
            if let Some(initiator) = initiator {
                set("initiator-name", initiator);
            }
            if let Some(chap) = chap {
                secret("chap", &chap.password.0, "raw")?;
                set("user", &chap.user);
                set("password-secret", &"chap");
            }
        }
        Backend::Rbd { monitors, pool, image, user, key } => {
            set("driver", &"rbd");
            set("pool", pool);
            set("image", image);
            set("user", user);
            secret("key", &key.0, "base64")?;
            set("key-secret", &"key");
            for (index, monitor) in monitors.iter().enumerate() {
                let (host, port) = monitor.rsplit_once(':').unwrap_or((monitor, "6789"));
                set(&format!("server.{index}.host"), &host.trim_matches(['[', ']']));
                set(&format!("server.{index}.port"), &port);
            }
        }
        other => return Err(BackendError::Refused(format!("{} is not opened by QEMU", name(other)))),
    }
    let all: Vec<_> = all.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
    Ok(all.join(","))
}

/// A value in a list of options: a comma in it is doubled.
fn plain(value: &dyn std::fmt::Display) -> String {
    value.to_string().replace(',', ",,")
}
