//! `cargo xtask bench write`: the agent's whole write path, over HTTP from a real server, against
//! `zstd -dc | dd oflag=direct` of the same image from a local file, alternating, each to a fresh loop device.
//!
//! The image is the Debian image's own disk content, twice, the second time with its bytes exchanged one for one so that
//! no chunk comes twice: real data, real holes. Nothing is left out on our side: chunks are hashed, everything written
//! is read back and flushed. The other side does neither, and reads no network.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use ::tests::rack::{BRIDGE, Namespace, SERVER_ADDRESS, Server};
use ::tests::scenario;
use anyhow::{Context, Result, ensure};

use super::median;
use crate::cache::{self, Key};
use crate::{build, image, paths, ramdisk, sys, tool};

const MIB: u64 = 1 << 20;
/// Bytes copied at once while the image is made. Small: what this process has resident counts in its children's peak.
const PIECE: usize = 1 << 20;
/// Directory of the results below `artifacts/`.
const DIR: &str = "bench";
/// Port of the server's provisioning listener.
const PORT: u16 = 8080;
/// zstd level of the whole file and of the chunks.
const LEVEL: &str = "-3";
/// An odd factor maps the 256 byte values one to one, and zero to zero: the same holes, the same entropy, other chunks.
const VARIATION: u8 = 0x9d;

/// Arguments of `cargo xtask bench write`.
#[derive(clap::Args)]
pub struct Args {
    /// Size of the image in GiB; a 4 GiB image holds about 1.3 GiB of data.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(3..=64))]
    size_gib: u64,
    /// How often each side is measured; the medians count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
}

/// Runs the benchmark.
pub fn run(args: &Args) -> Result<()> {
    let &Args { size_gib, rounds } = args;
    build::ui()?;
    build::server()?;
    let agent = ramdisk::agent()?;
    let packed = make_image(size_gib)?;
    let mut bench = Bench::start(agent, packed, size_gib << 30)?;
    let mut taken = Taken::default();
    for round in 1..=rounds {
        let disk = Target::fresh(&bench.dir, bench.disk_size)?;
        taken.theirs.push(bench.dd(&disk)?.shown(round, "zstd | dd"));
        drop(disk);
        let disk = Target::fresh(&bench.dir, bench.disk_size)?;
        taken.first.push(bench.agent(&disk)?.shown(round, "agent, fresh disk"));
        taken.again.push(bench.agent(&disk)?.shown(round, "agent, equal disk"));
        if round == 1 {
            bench.check(&disk)?;
        }
    }
    taken.report();
    Ok(())
}

/// What a run took.
#[derive(Debug, Clone, Copy)]
struct Run {
    wall: Duration,
    /// User and system time of the programs that write; not the kernel's own threads, nor the server's.
    cpu: Duration,
    rss: u64,
    /// User and system time of the server meanwhile.
    server_cpu: Duration,
}

impl Run {
    fn shown(self, round: u32, what: &str) -> Self {
        let [wall, cpu, server] = [self.wall, self.cpu, self.server_cpu].map(|t| t.as_secs_f64());
        let rss = self.rss.div_ceil(MIB);
        println!("round {round}: {what}: {wall:.2} s, {cpu:.2} CPU s, {rss} MiB, server {server:.2} CPU s");
        self
    }
}

#[derive(Default)]
struct Taken {
    theirs: Vec<Run>,
    first: Vec<Run>,
    again: Vec<Run>,
}

impl Taken {
    fn report(&self) {
        let wall = |runs: &[Run]| median(runs.iter().map(|r| r.wall.as_secs_f64()).collect());
        let cpu = |runs: &[Run]| median(runs.iter().map(|r| r.cpu.as_secs_f64()).collect());
        let rss = self.first.iter().chain(&self.again).map(|r| r.rss).max().unwrap_or(0);
        println!(
            "write_ratio {:.2} cpu_ratio {:.2} rss_mib {}",
            wall(&self.first) / wall(&self.theirs),
            cpu(&self.first) / cpu(&self.theirs),
            rss.div_ceil(MIB)
        );
        println!("rewrite_ratio {:.2}", wall(&self.again) / wall(&self.theirs));
    }
}

/// A server with the image, and what is compared. The folder is removed at the end.
struct Bench {
    server: Server,
    namespace: Namespace,
    dir: PathBuf,
    agent: PathBuf,
    packed: PathBuf,
    image: String,
    disk_size: u64,
}

impl Bench {
    fn start(agent: PathBuf, packed: PathBuf, disk_size: u64) -> Result<Self> {
        let dir = paths::target().join("bench");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let namespace = Namespace::new()?;
        namespace.bridge(BRIDGE, &format!("{SERVER_ADDRESS}/24"))?;
        let config = Server::default_config(&dir, &paths::artifacts().join(ramdisk::DIR))
            .replace("info,boot_server=debug", "info");
        let server = Server::start_with(&namespace, &dir, &config)?;
        println!("adding the image to the server");
        let image = scenario::add_image(&server.api()?, &packed, "bench", "1")?;
        // What was just written must not be on its way to the disk while others are measured.
        tool::quiet(&mut tool::command("sync", &[]))?;
        Ok(Self { server, namespace, dir, agent, packed, image, disk_size })
    }

    /// One write by the agent.
    fn agent(&mut self, disk: &Target) -> Result<Run> {
        let mut command = self.namespace.command(tool::text(&self.agent)?);
        let server = format!("http://{SERVER_ADDRESS}:{PORT}");
        command.args(["write", "--server", &server, "--target", &disk.device, "--yes-erase", &disk.device]);
        command.args(["--image", &format!("{server}/images/{}/manifest", self.image)]);
        command.arg("--trust").arg(self.dir.join("state/trust/trust.json"));
        let log = File::create(self.dir.join("agent.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let server_before = self.server.process()?.cpu_time()?;
        let start = Instant::now();
        let (status, usage) = sys::wait(command.spawn().context("starting the agent")?)?;
        let wall = start.elapsed();
        ensure!(status.success(), "the agent failed:\n{}", fs::read_to_string(self.dir.join("agent.log"))?);
        let server_cpu = self.server.process()?.cpu_time()? - server_before;
        Ok(Run { wall, cpu: usage.cpu, rss: usage.rss, server_cpu })
    }

    /// One write by the tools that everybody has.
    fn dd(&self, disk: &Target) -> Result<Run> {
        let start = Instant::now();
        let mut zstd = tool::command("zstd", &["-dc", "--quiet"]);
        let mut zstd = zstd.arg(&self.packed).stdout(Stdio::piped()).spawn().context("starting zstd")?;
        let pipe = zstd.stdout.take().context("zstd without a pipe")?;
        let mut dd = tool::command("dd", &["bs=4M", "oflag=direct", "iflag=fullblock", "status=none"]);
        let dd = dd.arg(format!("of={}", disk.device)).stdin(pipe).spawn().context("starting dd")?;
        let (zstd, used) = sys::wait(zstd)?;
        let (dd, used_too) = sys::wait(dd)?;
        let wall = start.elapsed();
        ensure!(zstd.success() && dd.success(), "zstd or dd failed");
        Ok(Run {
            wall,
            cpu: used.cpu + used_too.cpu,
            rss: used.rss + used_too.rss,
            server_cpu: Duration::ZERO,
        })
    }

    /// The disk holds the image, but for its ends, which have a table made for this disk.
    fn check(&self, disk: &Target) -> Result<()> {
        let mut zstd = tool::command("zstd", &["-dc", "--quiet"]);
        let mut zstd = zstd.arg(&self.packed).stdout(Stdio::piped()).spawn()?;
        let mut image = zstd.stdout.take().context("zstd without a pipe")?;
        let device = File::open(&disk.device)?;
        let (mut wanted, mut found) = (vec![0; PIECE], vec![0; PIECE]);
        let pieces = self.disk_size / PIECE as u64;
        for n in 0..pieces {
            image.read_exact(&mut wanted)?;
            device.read_exact_at(&mut found, n * PIECE as u64)?;
            ensure!(
                n == 0 || n == pieces - 1 || found == wanted,
                "the disk differs from the image in MiB {n}"
            );
        }
        ensure!(zstd.wait()?.success(), "zstd failed");
        println!("compared: the disk holds the image");
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A loop device with direct I/O over a new, fully allocated file.
struct Target {
    device: String,
    file: PathBuf,
}

impl Target {
    fn fresh(dir: &Path, size: u64) -> Result<Self> {
        let file = dir.join("disk");
        let _ = fs::remove_file(&file);
        tool::quiet(tool::command("fallocate", &["-l", &size.to_string()]).arg(&file))?;
        tool::quiet(&mut tool::command("sync", &[]))?;
        let attach = &mut tool::command("losetup", &["--find", "--show", "--direct-io=on"]);
        let device = tool::output(attach.arg(&file))?.trim().to_owned();
        Ok(Self { device, file })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = tool::quiet(&mut tool::command("losetup", &["--detach", &self.device]));
        let _ = fs::remove_file(&self.file);
    }
}

/// Makes the image as one zstd file, kept under `artifacts/`.
fn make_image(size_gib: u64) -> Result<PathBuf> {
    let debian = image::debian::build()?;
    let facts = debian.with_extension("json");
    let name = format!("write-{size_gib}.raw.zst");
    let key =
        Key::new("bench", 1).with_file(&facts)?.with("size", size_gib.to_le_bytes()).with("level", LEVEL);
    cache::build(DIR, &[&name], &key, |work| {
        eprintln!("making the image of {size_gib} GiB");
        let raw = work.join("raw");
        make_raw(&debian, &raw, size_gib << 30)?;
        tool::quiet(
            tool::command("zstd", &["--quiet", LEVEL, "-T0"]).arg(&raw).arg("-o").arg(work.join(&name)),
        )
    })?;
    Ok(cache::at(DIR, &name))
}

/// A GPT disk of `size` bytes: the Debian disk's content between its tables, as one partition for each copy that fits.
fn make_raw(debian: &Path, raw: &Path, size: u64) -> Result<()> {
    let from = File::open(debian)?;
    let body = from.metadata()?.len() - 2 * MIB;
    let copies = (size - 2 * MIB) / body;
    ensure!(copies > 0, "the Debian image does not fit");
    let to = File::create(raw)?;
    to.set_len(size)?;
    let mut table = tool::command("sgdisk", &["--clear"]);
    for n in 0..copies {
        let (start, end) = (MIB + n * body, MIB + (n + 1) * body);
        table.arg(format!("--new={}:{}:{}", n + 1, start / 512, end / 512 - 1));
    }
    tool::quiet(table.arg(raw))?;
    let mut factor = 1u8;
    for n in 0..copies {
        copy(&from, &to, body, MIB + n * body, factor)?;
        factor = factor.wrapping_mul(VARIATION);
    }
    Ok(())
}

/// Copies what follows the first MiB, with every byte multiplied, and leaves holes where there is nothing.
fn copy(mut from: &File, to: &File, len: u64, at: u64, factor: u8) -> Result<()> {
    let mut piece = vec![0; PIECE];
    from.seek(SeekFrom::Start(MIB))?;
    let mut done = 0;
    while done < len {
        let n = (len - done).min(PIECE as u64) as usize;
        from.read_exact(&mut piece[..n])?;
        if piece[..n].iter().any(|b| *b != 0) {
            piece[..n].iter_mut().for_each(|b| *b = b.wrapping_mul(factor));
            to.write_all_at(&piece[..n], at + done)?;
        }
        done += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variation_is_one_to_one_and_keeps_zero() {
        let mut seen = [false; 256];
        (0..=255u8).for_each(|b| seen[usize::from(b.wrapping_mul(VARIATION))] = true);
        assert!(seen.iter().all(|s| *s));
        assert_eq!(0u8.wrapping_mul(VARIATION), 0);
    }
}
