//! What the write tests stand on: an image made by sgdisk, a chunk server with faults, a target that is a file.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use images::manifest::{CHUNK_SIZE, ChunkRef, FORMAT};
use images::minisign::SecretKey;
use images::trust::{Anchor, TrustedKey};
use images::{Architecture, Firmware, Manifest, PartitionTable, chunk, trust};
use protocol::ChunkId;

pub const MIB: u64 = 1 << 20;

/// A folder of one test, removed at its end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("billet-write-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str, size: u64) -> PathBuf {
        let path = self.0.join(name);
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Numbers that look random and are the same each time (xorshift64).
pub fn noise(mut seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        out.extend_from_slice(&seed.to_le_bytes());
    }
    out.truncate(len);
    out
}

pub struct Image {
    pub raw: Vec<u8>,
    pub manifest: Manifest,
    pub frames: HashMap<ChunkId, Vec<u8>>,
    pub path: PathBuf,
}

/// An image of `mib` MiB with a GPT, an ESP and a root partition; every third chunk is a hole.
pub fn image(folder: &Folder, mib: u64) -> Image {
    let path = folder.file("image.raw", mib * MIB);
    let file = File::options().write(true).open(&path).unwrap();
    for at in (8..mib).filter(|m| m / 4 % 3 != 0) {
        file.write_all_at(&noise(at + 1, 1 << 19), at * MIB + 4096).unwrap();
    }
    let status = Command::new("sgdisk")
        .args(["-n1:1M:+8M", "-t1:ef00", "-n2:9M:0", "-t2:8300"])
        .arg(&path)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let raw = std::fs::read(&path).unwrap();
    let mut frames = HashMap::new();
    let chunks = raw.chunks(CHUNK_SIZE as usize).map(|bytes| {
        let probe = chunk::probe(bytes)?;
        let id = ChunkId(chunk::sha256(bytes));
        frames.insert(id, zstd::bulk::compress(bytes, 1).unwrap());
        Some(ChunkRef { id, probe })
    });
    let manifest = Manifest {
        format: FORMAT.into(),
        name: "test".into(),
        version: "1".into(),
        architecture: Architecture::X86_64,
        firmware: BTreeSet::from([Firmware::Uefi]),
        partition_table: PartitionTable::Gpt,
        raw_size: raw.len() as u64,
        sha256: chunk::sha256(&raw),
        minimum_disk: raw.len() as u64,
        default_user: None,
        datasource: None,
        chunk_size: CHUNK_SIZE,
        chunks: chunks.collect(),
    };
    let path = folder.0.join("manifest.json");
    std::fs::write(&path, manifest.canonical()).unwrap();
    sign(&path, &manifest, 1, NUMBER);
    let key = TrustedKey {
        key: SecretKey::of_seed(&[1; 32]).public(),
        title: "test".into(),
        floors: [("test".to_owned(), NUMBER)].into(),
    };
    std::fs::write(folder.0.join("trust.json"), Anchor::new(vec![key]).to_json()).unwrap();
    Image { raw, manifest, frames, path }
}

/// Number of an image that is taken; one less is too old.
pub const NUMBER: u64 = 7;

/// Signs a manifest's file by the key of this seed; number 1 is trusted.
pub fn sign(path: &Path, manifest: &Manifest, seed: u8, number: u64) {
    let signature = trust::sign(&SecretKey::of_seed(&[seed; 32]), manifest, number);
    std::fs::write(path.with_added_extension("minisig"), signature).unwrap();
}

/// A chunk server that answers the first `answers` requests and then holds every connection without a word.
pub struct Server {
    pub url: String,
    pub asked: Arc<AtomicUsize>,
}

pub fn serve(frames: HashMap<ChunkId, Vec<u8>>, answers: usize) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let (frames, count) = (Arc::new(frames), asked.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (frames, count) = (frames.clone(), count.clone());
            std::thread::spawn(move || {
                let _ = connection(stream, &frames, &count, answers);
            });
        }
    });
    Server { url, asked }
}

fn connection(
    mut stream: TcpStream,
    frames: &HashMap<ChunkId, Vec<u8>>,
    count: &AtomicUsize,
    answers: usize,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(Ok(request)) = lines.next() {
        while lines.next().transpose()?.is_some_and(|l| !l.is_empty()) {}
        if count.fetch_add(1, Ordering::SeqCst) >= answers {
            std::thread::park();
        }
        let id = request.split_whitespace().nth(1).and_then(|p| p.strip_prefix("/chunks/")?.parse().ok());
        match id.and_then(|id: ChunkId| frames.get(&id)) {
            Some(body) => {
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())?;
                stream.write_all(body)?;
            }
            None => write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?,
        }
    }
    Ok(())
}

fn command(image: &Path, target: &Path, server: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_billet-agent"));
    command.args(["write", "--server", server, "--image"]).arg(image);
    command.arg("--target").arg(target).arg("--yes-erase").arg(target);
    command.arg("--trust").arg(image.with_file_name("trust.json"));
    command
}

pub fn write(image: &Image, target: &Path, server: &Server, config: Option<&Path>) -> Output {
    let mut command = command(&image.path, target, &server.url);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    command.output().unwrap()
}

/// As [`write`], with these failpoints.
pub fn write_with(image: &Image, target: &Path, server: &Server, failpoints: &str) -> Output {
    command(&image.path, target, &server.url).env(failpoint::VARIABLE, failpoints).output().unwrap()
}

pub fn start(image: &Image, target: &Path, server: &Server) -> Child {
    command(&image.path, target, &server.url).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

pub fn summary(output: &Output) -> protocol::report::Summary {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a firmware looks at: first and last MiB.
pub fn ends_are_zero(target: &Path) -> bool {
    let (file, mut bytes) = (File::open(target).unwrap(), vec![0; MIB as usize]);
    let size = file.metadata().unwrap().len();
    [0, size - MIB].into_iter().all(|at| {
        file.read_exact_at(&mut bytes, at).unwrap();
        chunk::is_zero(&bytes)
    })
}

pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text
}
