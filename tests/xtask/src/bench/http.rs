//! `cargo xtask bench http`: files by HTTP, to one client and to a hundred, beside nginx with sendfile, in turn, with one
//! and the same client. Servers run in one network namespace and the client in another, with a veth pair between them.
//! All files are in the page cache: what is compared is the way from there to the wire.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::tests::rack::{BRIDGE, Handle, Namespace, Process, Server};
use anyhow::{Context, Result, ensure};

use super::median;
use crate::{build, paths, tool};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const GIB: f64 = (1_u64 << 30) as f64;
const MIB: usize = 1 << 20;
/// Octets that the client takes at once.
const READ: usize = 256 << 10;
/// Where a server has to listen by then.
const START: Duration = Duration::from_secs(20);
/// The files, by the names that Billet serves: as large as a chunk of an image, and as an ISO.
const FILES: [(&str, usize); 2] = [("vmlinuz", 4 * MIB / 3), ("firmware", 1024 * MIB)];

/// What is asked for: by how many at a time, which file, and how often each asks for it on one connection.
const CASES: [(usize, &str, usize); 4] =
    [(1, "vmlinuz", 3000), (1, "firmware", 4), (100, "vmlinuz", 200), (100, "firmware", 1)];

/// Arguments of `cargo xtask bench http`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often each is measured; the medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
}

/// Runs the benchmark, of the server that `BILLET_BIN` names, or of one that it builds.
pub fn run(args: &Args) -> Result<()> {
    if std::env::var_os("BILLET_BIN").is_none() {
        build::ui()?;
        build::server()?;
    }
    let mut bench = Bench::new()?;
    for (streams, file, gets) in CASES {
        let (mut ours, mut nginx) = (Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            ours.push(bench.measure(Peer::Billet, streams, file, gets).context("billet")?);
            nginx.push(bench.measure(Peer::Nginx, streams, file, gets).context("nginx")?);
        }
        let size = FILES.iter().find(|(name, _)| *name == file).map_or(0, |(_, size)| *size);
        println!("{streams} x {gets} x {:.1} MiB", size as f64 / MIB as f64);
        let of = |runs: &[Run], what: fn(&Run) -> f64| median(runs.iter().map(what).collect());
        let rate = |runs: &[Run]| of(runs, |r| r.gb_per_s);
        let (a, b) = (rate(&ours), rate(&nginx));
        println!("http_gb_per_s ours {a:.2} nginx {b:.2} ratio {:.2}", a / b);
        let cpu = |runs: &[Run]| of(runs, |r| r.server_cpu + r.client_cpu);
        println!("cpu_s_per_gib ours {:.2} nginx {:.2}", cpu(&ours), cpu(&nginx));
        let server = |runs: &[Run]| of(runs, |r| r.server_cpu);
        println!("server_cpu_s_per_gib ours {:.2} nginx {:.2}", server(&ours), server(&nginx));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Peer {
    Billet,
    Nginx,
}

/// One measurement; CPU seconds for each GiB.
struct Run {
    gb_per_s: f64,
    server_cpu: f64,
    client_cpu: f64,
}

/// Both servers over the same files, and where the client is.
struct Bench {
    ours: Server,
    nginx: Process,
    clients: Handle,
    // Removed after what runs in them.
    _namespaces: [Namespace; 2],
    dir: PathBuf,
}

impl Bench {
    fn new() -> Result<Self> {
        let dir = paths::target().join("bench-http");
        let _ = fs::remove_dir_all(&dir);
        let boot = dir.join("boot");
        fs::create_dir_all(&boot)?;
        for (name, size) in FILES {
            let mut file = File::create(boot.join(name))?;
            let piece: Vec<u8> = (0..MIB).map(|i| (i * 31 + i / 1021) as u8).collect();
            for at in (0..size).step_by(MIB) {
                file.write_all(&piece[..MIB.min(size - at)])?;
            }
        }
        tool::quiet(&mut tool::command("sync", &[]))?;
        let (servers, clients) = (Namespace::new()?, Namespace::new()?);
        servers.ip(&[
            "link",
            "add",
            BRIDGE,
            "type",
            "veth",
            "peer",
            "name",
            "v1",
            "netns",
            clients.name(),
        ])?;
        servers.ip(&["addr", "add", &format!("{SERVER}/24"), "dev", BRIDGE])?;
        servers.ip(&["link", "set", BRIDGE, "up"])?;
        clients.ip(&["addr", "add", "10.77.0.2/24", "dev", "v1"])?;
        clients.ip(&["link", "set", "v1", "up"])?;
        let quiet = "\n[dhcp]\nenabled = false\n\n[tftp]\nenabled = false\n";
        let config = Server::default_config(&dir, &boot)
            .replace("info,boot_server=debug", "info")
            .replace("[provisioning]\n", "[provisioning]\nconnections_per_address = 1000\n");
        let ours = Server::start_with(&servers, &dir, &(config + quiet))?;
        let nginx = nginx(&servers, &dir, &boot)?;
        let handle = clients.clone_handle()?;
        Ok(Self { ours, nginx, clients: handle, _namespaces: [servers, clients], dir })
    }

    fn measure(&mut self, peer: Peer, streams: usize, file: &str, gets: usize) -> Result<Run> {
        let port = match peer {
            Peer::Billet => 8080,
            Peer::Nginx => 8081,
        };
        let address = SocketAddr::from((SERVER, port));
        let (server, client) = (self.server_cpu(peer)?, cpu_of("self")?);
        let begin = Instant::now();
        let octets = self.load(address, streams, file, gets)?;
        let seconds = begin.elapsed().as_secs_f64();
        let spent = |now: Duration, before: Duration| (now - before).as_secs_f64() / (octets as f64 / GIB);
        Ok(Run {
            gb_per_s: octets as f64 / 1e9 / seconds,
            server_cpu: spent(self.server_cpu(peer)?, server),
            client_cpu: spent(cpu_of("self")?, client),
        })
    }

    /// All streams at once; returns the octets of all bodies.
    fn load(&self, address: SocketAddr, streams: usize, file: &str, gets: usize) -> Result<u64> {
        let one = || -> Result<u64> {
            self.clients.enter()?;
            take(address, file, gets)
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..streams).map(|_| scope.spawn(one)).collect();
            all.into_iter()
                .map(|t| t.join().map_err(|_| anyhow::anyhow!("a client broke"))?)
                .sum::<Result<u64>>()
        })
    }

    fn server_cpu(&mut self, peer: Peer) -> Result<Duration> {
        match peer {
            Peer::Billet => self.ours.process()?.cpu_time(),
            Peer::Nginx => {
                let pid = self.nginx.pid();
                let workers = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
                workers.split_whitespace().map(cpu_of).sum()
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.ours.kill();
        let _ = self.nginx.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// User and system time of a process and of its threads.
fn cpu_of(pid: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(") ").context("/proc/PID/stat without a name")?.1;
    let ticks: u64 = rest.split(' ').skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10)) // USER_HZ is 100
}

/// nginx as its guides tell to set it up for large files.
fn nginx(namespace: &Namespace, dir: &Path, boot: &Path) -> Result<Process> {
    let (own, boot) = (dir.join("nginx"), boot.display());
    fs::create_dir_all(&own)?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {}/{name};\n", own.display()))
        .collect();
    let config = format!(
        "user root; worker_processes auto; pid {0}/pid; error_log {0}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;\n{temporary}\
         server {{ listen {SERVER}:8081; location /boot/files/ {{ alias {boot}/; }} }} }}\n",
        own.display()
    );
    fs::write(own.join("nginx.conf"), config)?;
    let mut command = namespace.command("nginx");
    command.args(["-g", "daemon off;", "-p"]).arg(&own).arg("-c").arg(own.join("nginx.conf"));
    let mut process = Process::start("nginx (package nginx-light)", command, &own.join("log"))?;
    let end = Instant::now() + START;
    while !own.join("pid").exists() {
        ensure!(process.running(), "nginx ended: {}", fs::read_to_string(own.join("log"))?);
        ensure!(Instant::now() < end, "nginx does not come up");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(process)
}

/// Asks for a file again and again on one connection, as agents do for chunks.
fn take(address: SocketAddr, file: &str, gets: usize) -> Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut buffer = vec![0; READ];
    let mut total = 0;
    for _ in 0..gets {
        let request = format!("GET /boot/files/{file} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut have = 0;
        let head = loop {
            let n = stream.read(&mut buffer[have..])?;
            ensure!(n > 0, "the server closed the connection");
            have += n;
            if let Some(end) = buffer[..have].windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        ensure!(text.starts_with("http/1.1 200"), "{text}");
        let length = text.split("content-length: ").nth(1).and_then(|t| t.split("\r\n").next());
        let length: u64 = length.context("no length")?.parse()?;
        let mut left = length.checked_sub((have - head) as u64).context("more than was announced")?;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(READ).min(READ);
            let n = stream.read(&mut buffer[..room])?;
            ensure!(n > 0, "the body broke off");
            left -= n as u64;
        }
        total += length;
    }
    Ok(total)
}
