//! `cargo xtask bench dpu`: what a host's disk loses on its way through the DPU. One iSCSI target, one disk; once a host has it as its
//! virtio-blk disk (ioping in a machine of QEMU, `billet-dpu` with qemu-storage-daemon, libiscsi), once a program of this machine has it by
//! the same libiscsi and nothing between. In turns; one request at a time, so that what is measured is the way and not
//! how much of it can be hidden. Each write is flushed (ioping calls fdatasync(2), qemu-io writes through), on both sides.
//!
//! The host is emulated where there is no KVM: then most of the difference is its processor. Programs are of the profile that this
//! one was built with: `cargo run --release -p xtask -- bench dpu` measures what is shipped.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ::tests::exporter::with_files;
use ::tests::exports::{CHAP, Dpu, PORTAL, TARGET, Target, host, with_volume};
use ::tests::rack::{Namespace, Rack, artifact};
use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::median;
use crate::tool;

const MIB: u64 = 1 << 20;
/// The disk. All of it has been written, so that nothing is answered from a hole.
const SIZE: u64 = 256 * MIB;
/// The host's ioping, and what it is linked to (package ioping).
const IOPING: [&str; 4] = [
    "/usr/bin/ioping",
    "/lib/x86_64-linux-gnu/libm.so.6",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib64/ld-linux-x86-64.so.2",
];
/// Time for one measurement of an emulated host on a busy machine.
const WORK: Duration = Duration::from_secs(180);

/// Arguments of `cargo xtask bench dpu`.
#[derive(clap::Args)]
pub struct Args {
    /// How often each way is measured; the medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Measures only how long servers take to be up, and not their disks.
    #[arg(long)]
    servers: bool,
    /// How often servers with Debian are made of each kind, beside those with the small image; 0 leaves them out.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=99))]
    large: u32,
}

/// One kind of request.
struct Load {
    name: &'static str,
    write: bool,
    random: bool,
    /// Bytes of a request.
    size: u64,
    /// Requests of a round.
    count: u64,
}

const LOADS: [Load; 4] = [
    Load { name: "sequential read", write: false, random: false, size: MIB, count: 128 },
    Load { name: "sequential write", write: true, random: false, size: MIB, count: 128 },
    Load { name: "random read", write: false, random: true, size: 4096, count: 1000 },
    Load { name: "random write", write: true, random: true, size: 4096, count: 1000 },
];

impl Load {
    /// What a rate is counted in.
    fn shown(&self, per_second: f64) -> String {
        match self.random {
            true => format!("{per_second:8.0} requests/s"),
            false => format!("{:8.1} MiB/s", per_second * (self.size / MIB) as f64),
        }
    }

    /// Words of ioping; its first request only warms up.
    fn ioping(&self) -> String {
        let write = if self.write { "-WWW" } else { "" };
        let linear = if self.random { "" } else { "-L" };
        let (size, count) = (self.size, self.count + 1);
        format!("-B -q -D -i 0 -c {count} -s {size} -S {SIZE} {write} {linear}")
    }

    /// The same requests for qemu-io: in order, or anywhere.
    fn commands(&self) -> Vec<String> {
        let places = SIZE / self.size;
        let verb = if self.write { "write" } else { "read" };
        let mut place = 0;
        (0..self.count)
            .map(|n| {
                // A step that has no divisor in common with the number of places comes everywhere (Weyl).
                place = if self.random { (place + 40_503) % places } else { n % places };
                format!("{verb} -q {} {}", place * self.size, self.size)
            })
            .collect()
    }
}

/// Runs the benchmark.
pub fn run(args: &Args) -> Result<()> {
    artifact("ramdisk/vmlinuz")?;
    let mut build = vec!["build", "--workspace", "--bin", "billet-dpu", "--bin", "billet-blk"];
    build.extend((!cfg!(debug_assertions)).then_some("--release"));
    tool::shown(&mut tool::command("cargo", &build))?;
    if !args.servers {
        disks(args)?;
    }
    super::create::run(args.rounds, args.large)
}

/// What a host's disk loses.
fn disks(args: &Args) -> Result<()> {
    let mut rack = Rack::new("bench-dpu")?;
    let dir = rack.dir().to_owned();
    let disk = dir.join("lun.raw");
    fill(&disk)?;
    let _target = Target::start(rack.namespace(), &disk, &dir.join("tgtd.log"))?;
    let qmp = dir.join("host.qmp");
    let mut dpu = Dpu::start(rack.namespace(), &dir, &["--host-qmp", qmp.to_str().context("a path")?])?;
    dpu.wish(&[dpu.volume("data", &json!({"kind": "qsd", "backend": Target::backend()}))])?;
    dpu.served("data")?;
    let jobs: Vec<_> = LOADS.iter().map(Load::ioping).collect();
    let runs = jobs.iter().map(|job| format!("read line; echo took=$(ioping {job} /dev/vda)\n"));
    let script =
        format!("export PATH=/bin:/usr/bin\necho ready\nwhile true; do\n{}done", runs.collect::<String>());
    let host = with_volume(host("h1", &qmp), "data", &dpu.socket("data"));
    let mut machine = rack.machine(with_files(host, &dir.join("initrd"), &script, &IOPING)?)?;
    machine.power_on()?;
    machine.serial().wait_for("ready", WORK)?;

    let mut taken = LOADS.map(|_| (Vec::new(), Vec::new()));
    for round in 1..=args.rounds {
        for (load, (direct, through)) in LOADS.iter().zip(&mut taken) {
            direct.push(directly(rack.namespace(), load)?);
            machine.type_text("\n")?;
            let line = machine.serial().wait_for("took=", WORK)?.text;
            through.push(per_second(&line)?);
            let last = |all: &[f64]| all.last().map_or_else(String::new, |rate| load.shown(*rate));
            println!("round {round}: {:16} direct {}, host {}", load.name, last(direct), last(through));
        }
    }
    for (load, (direct, through)) in LOADS.iter().zip(taken) {
        let (direct, through) = (median(direct), median(through));
        let name = load.name.replace(' ', "_");
        println!("{:16} direct {}, host {}", load.name, load.shown(direct), load.shown(through));
        println!("{name}_ratio {:.2}", through / direct);
    }
    machine.power_off()?;
    rack.passed();
    Ok(())
}

/// Requests per second of ioping's raw statistics (ioping(1)): requests, their nanoseconds, requests per second, …
fn per_second(line: &str) -> Result<f64> {
    let (_, rest) = line.split_once("took=").context("no measurement")?;
    let rate = rest.split_whitespace().nth(2).with_context(|| format!("no statistics: {line}"))?;
    rate.parse().with_context(|| format!("no rate: {line}"))
}

/// Requests per second of a program that has the target's disk itself.
fn directly(namespace: &Namespace, load: &Load) -> Result<f64> {
    let [user, password] = CHAP;
    let options = format!(
        "driver=raw,file.driver=iscsi,file.transport=tcp,file.portal={PORTAL},file.target={TARGET},file.lun=1,\
         file.user={user},file.password-secret=s0"
    );
    let secret = format!("secret,id=s0,data={password}");
    let io = |commands: &[String]| -> Result<Duration> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace.name(), "qemu-io", "--object", &secret, "--image-opts"]);
        command.args(commands.iter().flat_map(|c| ["-c", c])).arg(&options);
        let began = Instant::now();
        let out = command.output()?;
        let said = [out.stdout, out.stderr].concat();
        ensure!(out.status.success() && said.is_empty(), "qemu-io: {}", String::from_utf8_lossy(&said));
        Ok(began.elapsed())
    };
    // Its start and its login are not what is measured.
    let commands = load.commands();
    let idle = io(&commands[..1])?;
    let took = io(&commands)?.saturating_sub(idle);
    Ok((load.count - 1) as f64 / took.as_secs_f64())
}

/// Makes a disk that is full of noise.
fn fill(path: &Path) -> Result<()> {
    let file = File::create(path)?;
    let mut state = 1_u64;
    let mut piece = vec![0; MIB as usize];
    for at in (0..SIZE).step_by(MIB as usize) {
        for word in piece.as_chunks_mut::<8>().0 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *word = state.to_le_bytes();
        }
        file.write_all_at(&piece, at)?;
    }
    Ok(file.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_requests_lie_within_the_disk_and_apart() {
        for load in &LOADS {
            let commands = load.commands();
            let places: std::collections::BTreeSet<u64> =
                commands.iter().map(|c| c.split(' ').nth(2).unwrap().parse().unwrap()).collect();
            assert_eq!(places.len() as u64, load.count);
            assert!(places.iter().all(|at| at + load.size <= SIZE));
        }
    }

    #[test]
    fn statistics_of_ioping() {
        assert_eq!(per_second("took=199 552148 360411 1476241877 1983\r").unwrap(), 360_411.0);
        assert!(per_second("took=").is_err());
    }
}
