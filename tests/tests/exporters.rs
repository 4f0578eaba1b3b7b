//! Volumes of a DPU, by each of its exporters: served, plugged into a running host and out of it, through deaths of
//! everything on the way, with the bytes compared in the end.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use protocol::agent::Password;
use protocol::counters::DiskCounters;
use protocol::dpu::{Backend as Told, InstantSeen, LUKS_HEADER, Observed, VolumeSeen};
use protocol::job::CloudConfig;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::exporter::with_script;
use tests::exports::{Dpu, Target, host, kill_daemon, kill_exporter, with_volume};
use tests::rack::{Machine, Rack};
use tests::scenario::add_image;
use tests::spdk::Service;
use tests::volumes::{Disk, new_volume, some_image, take_config_guid, written_by_the_server};
use volume::{Backend, FileBackend, Origin};

const MIB: u64 = 1 << 20;
/// Time for a machine to do what it is for, under emulation on a busy machine.
const WORK: Duration = Duration::from_secs(120);

/// A volume of an iSCSI target is plugged into a running host and out of it, three times; between, the agent is killed.
#[test]
fn a_volume_comes_and_goes_with_the_host_running() -> Result<()> {
    const TIMES: usize = 3;
    let mut rack = Rack::new("exporters-plug")?;
    let dir = rack.dir().to_owned();
    let disk = dir.join("lun.raw");
    File::create(&disk)?.set_len(16 * MIB)?;
    let _target = Target::start(rack.namespace(), &disk, &dir.join("tgtd.log"))?;
    let qmp = dir.join("host.qmp");
    let mut dpu = Dpu::start(rack.namespace(), &dir, &["--host-qmp", qmp.to_str().context("a path")?])?;
    let script = format!(
        "n=1; while [ $n -le {TIMES} ]; do
while ! [ -b /dev/vda ]; do sleep 0.1; done
echo plugged=$n sum=$(head -c 1048576 /dev/vda | sha256sum)
yes $n | head -c 1048576 > /block
dd if=/block of=/dev/vda bs=64k conv=fsync,notrunc 2>/dev/null || echo FAILED $n
echo wrote=$n
while [ -b /dev/vda ]; do sleep 0.1; done
echo gone=$n; n=$((n+1)); done"
    );
    let mut machine = rack.machine(with_script(host("h1", &qmp), &dir.join("initrd"), &script)?)?;
    machine.power_on()?;
    let backend = json!({"kind": "qsd", "backend": Target::backend()});
    // Of a digit first: the bus takes no such name, so it gets another one there.
    let mut volume = dpu.volume("5f6a-data", &backend);
    volume["limits"] = json!({"iops": 100_000});
    let mut content = vec![0; 1 << 20];
    for n in 1..=TIMES {
        let began = Instant::now();
        dpu.wish(std::slice::from_ref(&volume))?;
        let line = machine.serial().wait_for(&format!("plugged={n} "), WORK)?.text;
        println!("plugged in after {:.1} s", began.elapsed().as_secs_f64());
        ensure!(line.contains(&hex(&content)), "the host reads something else: {line}");
        ensure!(dpu.served("5f6a-data")?.plugged == Some(true), "not reported as plugged in");
        machine.serial().wait_for(&format!("wrote={n}"), WORK)?;
        let text = format!("{n}\n");
        content.iter_mut().zip(text.bytes().cycle()).for_each(|(to, from)| *to = from);
        if n == 2 {
            dpu.kill()?;
            dpu.start_again()?;
        }
        let began = Instant::now();
        dpu.wish(&[])?;
        machine.serial().wait_for(&format!("gone={n}"), WORK)?;
        dpu.reports("the exporter is gone", |seen| seen.volumes.is_empty())?;
        println!("unplugged and ended after {:.1} s", began.elapsed().as_secs_f64());
        let mut there = vec![0; 1 << 20];
        File::open(&disk)?.read_exact_at(&mut there, 0)?;
        ensure!(there == content, "the target does not hold what the host wrote");
        let left = fs::read_dir(dir.join("dpu/exporters"))?.count();
        ensure!(left == 0, "{left} files are left of a volume that is gone");
    }
    machine.wait_off(WORK)?;
    ensure!(!machine.serial().said("FAILED"), "a request failed");
    rack.passed();
    Ok(())
}

/// What the host writes to an encrypted volume is nowhere in its backend, and is there again when the volume comes back; another key is a
/// problem that says so.
#[test]
fn an_encrypted_volume_hides_what_the_host_wrote() -> Result<()> {
    const KNOWN: &str = "billet-was-here-";
    let mut rack = Rack::new("exporters-luks")?;
    let dir = rack.dir().to_owned();
    let key = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";
    let disk = encrypted(&dir.join("backend"), key, 16 * MIB)?;
    let _target = Target::start(rack.namespace(), &disk, &dir.join("tgtd.log"))?;
    let qmp = dir.join("host.qmp");
    let mut dpu = Dpu::start(rack.namespace(), &dir, &["--host-qmp", qmp.to_str().context("a path")?])?;
    let script = format!(
        "n=0; while [ $n -le 1 ]; do
while ! [ -b /dev/vda ]; do sleep 0.1; done
echo plugged=$n size=$(cat /sys/block/vda/size) sum=$(head -c 4194304 /dev/vda | sha256sum)
[ $n = 0 ] && {{ yes {KNOWN} | tr -d '\\n' | head -c 4194304 | dd of=/dev/vda bs=64k iflag=fullblock conv=fsync,notrunc 2>/dev/null || echo FAILED; }}
echo wrote=$n
while [ -b /dev/vda ]; do sleep 0.1; done
echo gone=$n; n=$((n+1)); done"
    );
    let mut machine = rack.machine(with_script(host("h1", &qmp), &dir.join("initrd"), &script)?)?;
    machine.power_on()?;
    let mut volume = dpu.volume("vault", &json!({"kind": "qsd", "backend": Target::backend()}));
    volume["encryption"] = json!({"kind": "luks", "key": "another-key-that-opens-nothing-of-all-this-"});
    dpu.wish(std::slice::from_ref(&volume))?;
    dpu.reports("the key does not fit", |seen| {
        let words = "volume vault is not served yet";
        let fits = |line: &String| line.contains(words) && line.contains("cannot unlock any keyslot");
        seen.problems.iter().any(fits) && !seen.settled
    })?;
    volume["encryption"]["key"] = key.into();
    let content = KNOWN.repeat((4 * MIB as usize) / KNOWN.len()).into_bytes();
    for n in 0..2 {
        let began = Instant::now();
        dpu.wish(std::slice::from_ref(&volume))?;
        let line = machine.serial().wait_for(&format!("plugged={n} "), WORK)?.text;
        println!("plugged in after {:.1} s", began.elapsed().as_secs_f64());
        ensure!(line.contains(&format!("size={} ", 16 * MIB / 512)), "{line}");
        ensure!((n == 1) == line.contains(&hex(&content)), "round {n}: {line}");
        machine.serial().wait_for(&format!("wrote={n}"), WORK)?;
        if n == 1 {
            let pid = dpu.served("vault")?.pid.context("a process")?;
            let line = fs::read(format!("/proc/{pid}/cmdline"))?;
            ensure!(
                !line.windows(key.len()).any(|part| part == key.as_bytes()),
                "the key is in a command line"
            );
            let own = fs::metadata(dir.join("dpu/exporters/vault.key"))?;
            ensure!(own.permissions().mode() & 0o077 == 0, "others read the key");
        }
        dpu.wish(&[])?;
        machine.serial().wait_for(&format!("gone={n}"), WORK)?;
        dpu.reports("the exporter is gone", |seen| seen.volumes.is_empty())?;
        ensure!(fs::read_dir(dir.join("dpu/exporters"))?.count() == 0, "files are left");
    }
    machine.wait_off(WORK)?;
    ensure!(!machine.serial().said("FAILED"), "a request failed");
    let kept = fs::read(&disk)?;
    ensure!(
        kept.starts_with(b"LUKS") && !kept.chunks(512).any(|sector| sector.starts_with(KNOWN.as_bytes()))
    );
    rack.passed();
    Ok(())
}

/// A DPU writes an image into an encrypted volume of a target, before anybody can connect to it. A bit that flipped is refused; in the middle
/// the agent, the server and the exporter are killed; in the end it is what the server would have written, and is never written again.
#[test]
fn a_dpu_writes_an_image_through_the_deaths_of_everything() -> Result<()> {
    let mut rack = Rack::new("exporters-fill")?;
    let dir = rack.dir().to_owned();
    rack.start_server()?;
    let made = some_image(&dir)?;
    let image = add_image(&rack.api()?, &dir.join("image.raw"), "some", "1")?;
    let images = rack.server()?.state_dir().join("images");
    let key = Password("0123456789abcdefghijklmnopqrstuvwxyzABCDEFG".to_owned());
    let disk = encrypted(&dir.join("backend"), &key.0, 64 * MIB)?;
    let _target = Target::start(rack.namespace(), &disk, &dir.join("tgtd.log"))?;
    let mut dpu = Dpu::start(rack.namespace(), &dir, &[])?;
    let config = CloudConfig { meta_data: "local-hostname: db1\n# t0ken\n".into(), ..CloudConfig::default() };
    let mut volume = dpu.volume("boot", &json!({"kind": "qsd", "backend": Target::backend()}));
    volume["encryption"] = json!({"kind": "luks", "key": key.0});
    volume["fill"] =
        json!({"image": image, "store": "http://10.77.0.1:8080", "config": config, "grow_root": true});
    // 4 MiB of it are noise.
    let chunk = Chunk::of(&images, &made.raw[8 << 20..12 << 20])?;

    chunk.spoil()?;
    dpu.wish(std::slice::from_ref(&volume))?;
    let seen = dpu.reports("a flipped bit is refused", |seen| {
        // It says why over several lines.
        let is_said = |why: &String| why.contains("came with other bytes 3 times");
        image_of(seen).is_some_and(|of| of.failure.as_ref().is_some_and(is_said) && !of.wrong.is_empty())
    })?;
    let of = image_of(&seen).context("a volume")?;
    ensure!(of.wrong[0].id == chunk.id && !of.adapted && !seen.settled, "{of:?}");
    ensure!(!dpu.socket("boot").exists(), "it is served");

    // All but one chunk can be had: it stays in the middle.
    chunk.take_away()?;
    let is_half = |of: &InstantSeen| of.away.is_some() && (10..50).contains(&of.percent) && !of.adapted;
    let half = |dpu: &mut Dpu, what: &str, restarts: u32| {
        dpu.reports(what, |seen| {
            let [one] = seen.volumes.as_slice() else { return false };
            let runs = one.pid.is_some() && !one.in_use && one.restarts >= restarts;
            runs && one.instant.as_deref().is_some_and(is_half)
        })
    };
    let writer = half(&mut dpu, "it is half written", 0)?.volumes[0].pid;
    dpu.kill()?;
    rack.server()?.kill()?;
    fs::remove_file(dir.join("status.json"))?;
    dpu.start_again()?;
    rack.server()?.start_again()?;
    let seen = half(&mut dpu, "it is half written still", 0)?;
    ensure!(seen.volumes[0].pid == writer, "another one writes");
    ensure!(!dpu.socket("boot").exists(), "it is served");
    kill_exporter(&seen.volumes[0])?;
    let seen = half(&mut dpu, "it is written anew", seen.volumes[0].restarts + 1)?;
    ensure!(seen.volumes[0].pid != writer, "the one that was killed writes");
    let began = Instant::now();
    chunk.put_back()?;
    let seen = dpu.reports("it is written", |seen| image_of(seen).is_some_and(|of| of.adapted))?;
    println!("written and read back {:.1} s after the last chunk came", began.elapsed().as_secs_f64());
    let of = image_of(&seen).context("a volume")?;
    ensure!((of.percent, of.hydrated, of.bytes) == (100, true, 16 * MIB), "{of:?}");
    let pid = dpu.served("boot")?.pid;
    let exporters = dir.join("dpu/exporters");
    let left = fs::read_to_string(exporters.join("boot.json"))?;
    ensure!(!left.contains("t0ken") && !exporters.join("boot.fill").exists(), "the config is kept");

    // The server knows: the same exporter goes on, and who comes after it does not write either.
    let told = volume.as_object_mut().context("a volume")?.remove("fill");
    dpu.wish(std::slice::from_ref(&volume))?;
    let seen = dpu.reports("all is as it is to be", |seen| seen.volumes.iter().any(|v| v.pid.is_some()))?;
    ensure!(told.is_some() && seen.volumes[0].pid == pid, "another one serves it: {seen:?}");
    kill_exporter(&seen.volumes[0])?;
    dpu.reports("it is served again", |seen| seen.volumes.iter().any(|v| v.pid.is_some() && v.pid != pid))?;
    dpu.served("boot")?;
    ensure!(dpu.log("boot")?.matches("\"image-written\"").count() == 1, "{}", dpu.log("boot")?);
    dpu.wish(&[])?;
    dpu.reports("the exporter is gone", |seen| seen.volumes.is_empty())?;
    ensure!(fs::read_dir(&exporters)?.count() == 0, "files are left");

    let told = Told::File { path: disk.display().to_string() };
    let found = Disk::of(rack.namespace(), &told)?.opened(&key, &dir)?.bytes(&dir)?;
    let mut expected = written_by_the_server(&images, &image, config, 64 * MIB, &dir)?;
    take_config_guid(&mut expected, &found)?;
    // Behind the image nothing was zeroed: what is there reads as noise.
    let is_wrong = |at: &usize| {
        let (there, wanted) = (&found[*at..at + 4096], &expected[*at..at + 4096]);
        there != wanted && (*at < made.raw.len() || wanted.iter().any(|byte| *byte != 0))
    };
    let wrong: Vec<usize> = (0..expected.len()).step_by(4096).filter(is_wrong).collect();
    ensure!(found.len() == expected.len() && wrong.is_empty(), "other bytes at {wrong:?}");
    rack.passed();
    Ok(())
}

/// A volume that was written, and that no host has at the moment, is to be otherwise: its bytes stay, whatever changes.
#[test]
fn what_a_host_wrote_outlives_every_change_of_the_volume() -> Result<()> {
    let mut rack = Rack::new("exporters-kept")?;
    let dir = rack.dir().to_owned();
    rack.start_server()?;
    some_image(&dir)?;
    let image = add_image(&rack.api()?, &dir.join("image.raw"), "some", "1")?;
    let images = rack.server()?.state_dir().join("images");
    let disk = dir.join("disk.raw");
    File::create(&disk)?.set_len(64 * MIB)?;
    let mut dpu = Dpu::start(rack.namespace(), &dir, &[])?;
    let backend = json!({"kind": "file", "path": disk});
    let mut volume = dpu.volume("boot", &json!({"kind": "qsd", "backend": backend}));
    let config = json!({"meta_data": "local-hostname: db1\n# t0ken\n"});
    let fill = json!({"image": image, "store": images, "config": config, "grow_root": true});
    volume["fill"] = fill.clone();
    dpu.wish(std::slice::from_ref(&volume))?;
    let is_written = |seen: &Observed| image_of(seen).is_some_and(|of| of.adapted);
    dpu.reports("it is written", is_written)?;
    let mut pid = dpu.served("boot")?.pid;
    File::options().write(true).open(&disk)?.write_all_at(b"a host wrote this", 9 << 20)?;
    let kept = fs::read(&disk)?;

    for (what, value) in [("deadline", json!(70)), ("serial", json!("ANOTHER")), ("fill", Value::Null)] {
        volume[what] = value;
        if what == "serial" {
            volume["fill"]["store"] = "/elsewhere".into();
        }
        dpu.wish(std::slice::from_ref(&volume))?;
        let is_anew = |seen: &Observed| {
            seen.volumes.iter().any(|one| one.pid.is_some() && (one.pid != pid) != (what == "fill"))
        };
        dpu.reports(&format!("{what} is another"), |seen| is_anew(seen) && is_written(seen))?;
        pid = dpu.served("boot")?.pid;
        ensure!(fs::read(&disk)? == kept, "written over, because {what} is another");
        ensure!(!dpu.log("boot")?.contains("image-written"), "{}", dpu.log("boot")?);
    }

    // As from a database that was put back to the deploy, which asks for another image.
    volume["fill"] = fill.clone();
    volume["fill"]["image"] = "ab".repeat(32).into();
    dpu.wish(std::slice::from_ref(&volume))?;
    dpu.reports("another image is refused", |seen| {
        let why = image_of(seen).filter(|of| !of.adapted).and_then(|of| of.failure.as_deref());
        why.is_some_and(|why| why.contains("was written into this volume before"))
    })?;
    ensure!(!dpu.socket("boot").exists() && fs::read(&disk)? == kept, "it is served, or written over");
    dpu.kill()?;
    dpu.start_again()?;
    volume["fill"] = fill;
    dpu.wish(std::slice::from_ref(&volume))?;
    dpu.reports("it is served again", is_written)?;
    dpu.served("boot")?;
    ensure!(fs::read(&disk)? == kept, "written over after all");
    let exporters = dir.join("dpu/exporters");
    ensure!(!fs::read_to_string(exporters.join("boot.json"))?.contains("t0ken"), "the config is kept");
    dpu.wish(&[])?;
    dpu.reports("the exporter is gone", |seen| seen.volumes.is_empty())?;
    ensure!(fs::read_dir(&exporters)?.count() == 0, "files are left");
    // The volume of that name was forgotten: this is another one.
    volume["serial"] = "NEW".into();
    dpu.wish(std::slice::from_ref(&volume))?;
    dpu.reports("it is written", is_written)?;
    ensure!(fs::read(&disk)? != kept, "it was not written");
    rack.passed();
    Ok(())
}

/// What is said of the image of the only volume.
fn image_of(seen: &Observed) -> Option<&InstantSeen> {
    seen.volumes.first()?.instant.as_deref()
}

/// A chunk in the store of a server.
struct Chunk {
    id: String,
    file: PathBuf,
    whole: Vec<u8>,
}

impl Chunk {
    fn of(images: &Path, raw: &[u8]) -> Result<Self> {
        let id = hex(raw);
        let file = images.join("chunks").join(&id[..2]).join(format!("{id}.zst"));
        let whole = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(Self { id, file, whole })
    }

    /// Flips a bit in it.
    fn spoil(&self) -> Result<()> {
        let mut spoilt = self.whole.clone();
        let middle = spoilt.len() / 2;
        spoilt[middle] ^= 1;
        Ok(fs::write(&self.file, spoilt)?)
    }

    fn take_away(&self) -> Result<()> {
        Ok(fs::remove_file(&self.file)?)
    }

    fn put_back(&self) -> Result<()> {
        Ok(fs::write(&self.file, &self.whole)?)
    }
}

/// The file of an encrypted volume of this size, as the server makes one.
fn encrypted(dir: &Path, key: &str, size: u64) -> Result<PathBuf> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let volume = new_volume();
    runtime.block_on(async {
        let backend = FileBackend::open(dir)?;
        backend.create(volume, size + LUKS_HEADER, Origin::Blank).await?;
        backend.encrypt(volume, &Password(key.to_owned())).await
    })?;
    Ok(dir.join(format!("volumes/{volume}.raw")))
}

/// Four writers work on a disk of an iSCSI target while the target, the exporter, the daemon behind it and the agent are killed.
#[test]
fn everything_on_the_way_dies_under_load() -> Result<()> {
    const BLOCK: usize = 64 << 10;
    const BLOCKS: usize = 40;
    const WRITERS: usize = 4;
    let mut rack = Rack::new("exporters-load")?;
    let dir = rack.dir().to_owned();
    let disk = dir.join("lun.raw");
    File::create(&disk)?.set_len(16 * MIB)?;
    let mut target = Target::start(rack.namespace(), &disk, &dir.join("tgtd.log"))?;
    let qmp = dir.join("host.qmp");
    let mut dpu = Dpu::start(rack.namespace(), &dir, &["--host-qmp", qmp.to_str().context("a path")?])?;
    let mut volume = dpu.volume("data", &json!({"kind": "qsd", "backend": Target::backend()}));
    // So that all writers are at work when something dies.
    volume["limits"] = json!({"bytes_per_second": MIB});
    dpu.wish(std::slice::from_ref(&volume))?;
    dpu.served("data")?;
    let script = format!(
        "w() {{ i=0; while [ $i -lt {BLOCKS} ]; do
yes $1-$i | head -c {BLOCK} > /block$1
dd if=/block$1 of=/dev/vda bs={BLOCK} seek=$(($1 * {BLOCKS} + $i)) oflag=direct conv=notrunc 2>/dev/null || echo FAILED $1 $i
i=$(($i+1)); [ $1 = 0 ] && echo wrote=$i; done; }}
echo serial=$(cat /sys/block/vda/serial)
for n in 0 1 2 3; do w $n & done; wait
echo 3 > /proc/sys/vm/drop_caches
echo sum=$(sha256sum < /dev/vda)"
    );
    let host = with_volume(host("h1", &qmp), "data", &dpu.socket("data"));
    let mut machine = rack.machine(with_script(host, &dir.join("initrd"), &script)?)?;
    machine.power_on()?;
    machine.serial().wait_for("serial=SERIAL", WORK)?;
    let seen = dpu.reports("plugged in", |seen| seen.volumes.iter().any(|v| v.plugged == Some(true)))?;
    let at = |machine: &Machine, n: usize| machine.serial().wait_for(&format!("wrote={n}"), WORK);
    at(&machine, 4)?;
    target.kill()?;
    std::thread::sleep(Duration::from_secs(2));
    target.start_again()?;
    at(&machine, 12)?;
    kill_exporter(&seen.volumes[0])?;
    let seen = dpu.reports("the exporter runs again", |seen| {
        seen.volumes.iter().any(|v| v.restarts == 1 && v.pid.is_some() && v.in_use)
    })?;
    at(&machine, 20)?;
    kill_daemon(&seen.volumes[0])?;
    at(&machine, 28)?;
    dpu.kill()?;
    dpu.start_again()?;
    let sum = machine.serial().wait_for("sum=", WORK)?.text;
    machine.wait_off(WORK)?;
    ensure!(!machine.serial().said("FAILED") && !machine.serial().said("I/O error"), "a request failed");
    let mut expected = vec![0; usize::try_from(16 * MIB)?];
    for (index, block) in expected.chunks_exact_mut(BLOCK).take(WRITERS * BLOCKS).enumerate() {
        let line = format!("{}-{}\n", index / BLOCKS, index % BLOCKS).into_bytes();
        block.iter_mut().zip(line.iter().cycle()).for_each(|(to, from)| *to = *from);
    }
    ensure!(fs::read(&disk)? == expected, "the target does not hold what the host wrote");
    ensure!(sum.contains(&hex(&expected)), "the host read something else: {sum}");
    let log = dpu.log("data")?;
    // One of them at least: a busy machine may have killed something in a quiet moment.
    ensure!(log.contains("replayed") || log.contains("resent"), "nothing was under way: {log}");
    rack.passed();
    Ok(())
}

/// A target that is away is waited for, and after the deadline its requests are errors, not silence. When it is back, so is
/// the disk.
#[test]
fn after_the_deadline_a_dead_backend_is_an_error() -> Result<()> {
    const DEADLINE: Duration = Duration::from_secs(4);
    let mut rack = Rack::new("exporters-deadline")?;
    let dir = rack.dir().to_owned();
    let disk = dir.join("lun.raw");
    fs::write(&disk, vec![7; usize::try_from(4 * MIB)?])?;
    let mut target = Target::start(rack.namespace(), &disk, &dir.join("tgtd.log"))?;
    let qmp = dir.join("host.qmp");
    let mut dpu = Dpu::start(rack.namespace(), &dir, &["--host-qmp", qmp.to_str().context("a path")?])?;
    let mut volume = dpu.volume("data", &json!({"kind": "qsd", "backend": Target::backend()}));
    volume["deadline"] = DEADLINE.as_secs().into();
    dpu.wish(std::slice::from_ref(&volume))?;
    dpu.served("data")?;
    let script = "go() { echo ready=$1; read line; }
chunk() { dd if=/dev/vda of=/dev/null bs=64k count=1 skip=$1 iflag=direct 2>/dev/null; echo chunk=$1 failed=$?; }
go away; chunk 1
go write; dd if=/dev/zero of=/dev/vda bs=64k count=1 oflag=direct conv=notrunc 2>/dev/null; echo write failed=$?
go back; chunk 1
echo sum=$(sha256sum < /dev/vda)";
    let host = with_volume(host("h1", &qmp), "data", &dpu.socket("data"));
    let mut machine = rack.machine(with_script(host, &dir.join("initrd"), script)?)?;
    machine.power_on()?;
    machine.serial().wait_for("ready=away", WORK)?;
    target.kill()?;
    let began = Instant::now();
    machine.type_text("go\n")?;
    machine.serial().wait_for("chunk=1 failed=1", WORK)?;
    let waited = began.elapsed();
    println!("an error after {:.1} s, with a deadline of {DEADLINE:?}", waited.as_secs_f64());
    ensure!(waited >= DEADLINE, "an error after {waited:?}");
    machine.serial().wait_for("ready=write", WORK)?;
    // Nor does an exporter wait that starts while the backend is away.
    kill_exporter(&dpu.served("data")?)?;
    machine.type_text("go\n")?;
    machine.serial().wait_for("write failed=1", WORK)?;
    machine.serial().wait_for("ready=back", WORK)?;
    target.start_again()?;
    machine.type_text("go\n")?;
    machine.serial().wait_for("chunk=1 failed=0", WORK)?;
    let sum = machine.serial().wait_for("sum=", WORK)?.text;
    machine.wait_off(WORK)?;
    // What was an error to the host never arrives afterwards.
    ensure!(fs::read(&disk)? == vec![7; usize::try_from(4 * MIB)?], "the write that failed was done later");
    ensure!(sum.contains(&hex(&fs::read(&disk)?)), "the host read something else: {sum}");
    rack.passed();
    Ok(())
}

/// A host does no more than its disk's limits say, and they change while it uses the disk. What it did is counted.
#[test]
fn limits_hold_and_change_while_the_host_uses_the_disk() -> Result<()> {
    let mut rack = Rack::new("exporters-limits")?;
    let dir = rack.dir().to_owned();
    let disk = dir.join("disk.raw");
    File::create(&disk)?.set_len(64 * MIB)?;
    let qmp = dir.join("host.qmp");
    let mut dpu = Dpu::start(rack.namespace(), &dir, &["--host-qmp", qmp.to_str().context("a path")?])?;
    let serves = json!({"kind": "blk", "serves": {"kind": "file", "path": disk}});
    let mut volume = dpu.volume("data", &serves);
    volume["limits"] = json!({"bytes_per_second": 2 * MIB});
    dpu.wish(std::slice::from_ref(&volume))?;
    dpu.served("data")?;
    let script = "go() { echo ready=$1; read line; }
writes() { dd if=/dev/zero of=/dev/vda bs=64k count=$2 oflag=direct conv=notrunc 2>/dev/null; echo done=$1 failed=$?; }
reads() { dd if=/dev/vda of=/dev/null bs=4k count=$2 iflag=direct 2>/dev/null; echo done=$1 failed=$?; }
go slow; writes slow 128
go fast; writes fast 256
go few; reads few 200
go free; writes free 256";
    let host = with_volume(host("h1", &qmp), "data", &dpu.socket("data"));
    let mut machine = rack.machine(with_script(host, &dir.join("initrd"), script)?)?;
    machine.power_on()?;
    let rate = |name: &str, machine: &mut Machine, amount: f64| -> Result<f64> {
        machine.serial().wait_for(&format!("ready={name}"), WORK)?;
        let began = Instant::now();
        machine.type_text("go\n")?;
        machine.serial().wait_for(&format!("done={name} failed=0"), WORK)?;
        let rate = amount / began.elapsed().as_secs_f64();
        println!("{name}: {rate:.2} per second");
        Ok(rate)
    };
    let mut change = |dpu: &mut Dpu, limits: Option<Value>| -> Result<()> {
        volume["limits"] = limits.clone().unwrap_or_default();
        if limits.is_none() {
            volume.as_object_mut().context("a volume")?.remove("limits");
        }
        let before = dpu.log("data")?.matches("limited").count();
        dpu.wish(std::slice::from_ref(&volume))?;
        let end = Instant::now() + Duration::from_secs(20);
        while dpu.log("data")?.matches("limited").count() == before {
            ensure!(Instant::now() < end, "the exporter is not told {limits:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    };
    // A tenth of a second's worth comes at once, and the last request is begun and not waited for.
    let slow = rate("slow", &mut machine, 8.0)?;
    ensure!((1.2..2.1).contains(&slow), "{slow} MiB/s where 2 are the limit");
    let pid = dpu.served("data")?.pid;
    change(&mut dpu, Some(json!({"bytes_per_second": 8 * MIB})))?;
    let fast = rate("fast", &mut machine, 16.0)?;
    ensure!((2.5..8.5).contains(&fast), "{fast} MiB/s where 8 are the limit");
    change(&mut dpu, Some(json!({"iops": 50})))?;
    let few = rate("few", &mut machine, 200.0)?;
    ensure!((35.0..52.0).contains(&few), "{few} requests per second where 50 are the limit");
    change(&mut dpu, None)?;
    let free = rate("free", &mut machine, 16.0)?;
    ensure!(free > fast, "{free} MiB/s without a limit, {fast} with one");
    ensure!(dpu.served("data")?.pid == pid, "the exporter was started again");
    machine.wait_off(WORK)?;
    let end = Instant::now() + Duration::from_secs(20);
    let counters = loop {
        let text = fs::read(format!("{}.counters", dpu.socket("data").display())).unwrap_or_default();
        let found = serde_json::from_slice::<DiskCounters>(&text).unwrap_or_default();
        if found.write.bytes >= 40 * MIB && found.read.requests >= 200 {
            break found;
        }
        ensure!(Instant::now() < end, "{found:?}");
        std::thread::sleep(Duration::from_millis(100));
    };
    println!("counted: {counters:?}");
    ensure!(counters.write.bytes == 40 * MIB && counters.errors == 0, "{counters:?}");
    ensure!(counters.write.micros > 4_000_000, "what waits for a limit counts: {counters:?}");
    rack.passed();
    Ok(())
}

/// One of the four, and what stands for its host and its death.
struct Subject {
    name: &'static str,
    exporter: Value,
    options: Vec<String>,
    service: Option<Service>,
}

impl Subject {
    /// All four, with their files in `dir`.
    fn all(dir: &Path) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for name in ["blk", "qsd", "spdk", "snap"] {
            let own = dir.join(name);
            fs::create_dir_all(&own)?;
            let path = own.join("disk");
            File::create(&path)?.set_len(MIB)?;
            let backend = json!({"kind": "file", "path": path});
            let socket = own.join("rpc.sock");
            let is_service = matches!(name, "spdk" | "snap");
            all.push(Self {
                name,
                exporter: match name {
                    "blk" => json!({"kind": "blk", "serves": {"kind": "file", "path": path}}),
                    _ => json!({"kind": name, "backend": backend}),
                },
                options: is_service
                    .then(|| [format!("--{name}"), format!("unix:{}", socket.display())])
                    .into_iter()
                    .flatten()
                    .collect(),
                service: is_service.then(|| Service::start(&socket)).transpose()?,
            });
        }
        Ok(all)
    }

    /// A frontend, of those that have a socket.
    fn connect(&self, dpu: &Dpu) -> Result<Option<UnixStream>> {
        Ok(if self.name == "snap" { None } else { Some(UnixStream::connect(dpu.socket("v"))?) })
    }

    fn die(&self, seen: &VolumeSeen) -> Result<()> {
        match &self.service {
            Some(service) => {
                service.restart();
                Ok(())
            }
            None => kill_exporter(seen),
        }
    }

    /// Waits until whoever serves the volume was told these limits: as a process reads them, and as SPDK is asked for them.
    fn has_limits(&self, dir: &Path, limits: Option<(Value, (u64, u64))>) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let found = match &self.service {
                Some(service) => service.state().devices.get("billet-v").cloned(),
                None => fs::read(dir.join("dpu/exporters/v.limits"))
                    .ok()
                    .map(|text| serde_json::from_slice(&text))
                    .transpose()?,
            };
            let wanted = match (&self.service, &limits) {
                (None, limits) => limits.as_ref().map(|(limits, _)| limits.clone()),
                (Some(_), limits) => {
                    let (ios, mib) = limits.as_ref().map_or((0, 0), |(_, steps)| *steps);
                    Some(json!({"name": "billet-v", "rw_ios_per_sec": ios, "rw_mbytes_per_sec": mib}))
                }
            };
            if found == wanted {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{}: {found:?} and not {wanted:?}", self.name);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// That nothing is left of a volume, at the other end and in our files.
    fn is_clean(&self, dpu: &Dpu, dir: &Path) -> Result<()> {
        for own in ["exporters", "spdk", "snap"] {
            let left = fs::read_dir(dir.join("dpu").join(own))?.count();
            ensure!(left == 0, "{}: {left} files are left in {own}", self.name);
        }
        ensure!(!dpu.socket("v").exists(), "{}: the socket is left", self.name);
        if let Some(service) = &self.service {
            let state = service.state();
            let left = (state.devices.len(), state.controllers.len(), state.functions.len());
            ensure!(left == (0, 0, 0), "{}: {left:?} devices, controllers and functions are left", self.name);
        }
        Ok(())
    }
}

/// The same life of a volume, with each exporter.
#[test]
fn all_exporters_keep_the_same_promises() -> Result<()> {
    let dir = tests::rack::target().join("rack/exporters-all");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let lives = Subject::all(&dir)?.into_iter().map(|subject| {
        let dir = dir.join(subject.name);
        std::thread::spawn(move || life(&subject, &dir).with_context(|| format!("exporter {}", subject.name)))
    });
    let lives: Vec<_> = lives.collect();
    for life in lives {
        life.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn life(subject: &Subject, dir: &Path) -> Result<()> {
    let options: Vec<&str> = subject.options.iter().map(String::as_str).collect();
    let mut dpu = Dpu::start_here(dir, &options)?;
    let volume = dpu.volume("v", &subject.exporter);
    let has = |check: fn(&VolumeSeen) -> bool| move |seen: &Observed| seen.volumes.iter().any(check);
    let refused = |words: &'static str| {
        move |seen: &Observed| {
            seen.problems.iter().any(|line| line.starts_with("volume v ") && line.contains(words))
        }
    };

    // Served, and the host connects.
    dpu.wish(std::slice::from_ref(&volume))?;
    let is_snap = subject.name == "snap";
    if !is_snap {
        let socket = dpu.socket("v");
        dpu.reports("it is served", move |seen| socket.exists() && has(|v| v.plugged.is_none())(seen))?;
    }
    let frontend = subject.connect(&dpu)?;
    let first = dpu.reports("a host has it", has(|v| v.in_use && v.plugged != Some(false)))?;
    ensure!(first.volumes[0].restarts == 0, "it was served twice");
    if !is_snap {
        ensure!(first.volumes[0].pid.is_some() == subject.service.is_none(), "{first:?}");
    }

    // A new agent touches nothing.
    let changes = subject.service.as_ref().map(|service| service.state().changes.clone());
    dpu.kill()?;
    dpu.start_again()?;
    std::thread::sleep(Duration::from_secs(2));
    let again = dpu.reports("a new agent finds it", has(|v| v.in_use))?;
    ensure!(again.volumes[0].pid == first.volumes[0].pid, "it was started again");
    ensure!(changes == subject.service.as_ref().map(|service| service.state().changes.clone()), "changes");

    // Other settings wait for the host.
    let mut changed = volume.clone();
    changed["serial"] = "OTHER".into();
    dpu.wish(std::slice::from_ref(&changed))?;
    dpu.reports("other settings are refused", refused("in use with other settings"))?;
    dpu.wish(std::slice::from_ref(&volume))?;

    // Limits do not.
    let mut limited = volume.clone();
    limited["limits"] = json!({"iops": 1500});
    dpu.wish(std::slice::from_ref(&limited))?;
    subject.has_limits(dir, Some((json!({"iops": 1500}), (2000, 0))))?;
    dpu.wish(std::slice::from_ref(&volume))?;
    subject.has_limits(dir, None)?;

    // What dies is served again, as it was.
    let functions = subject.service.as_ref().map(|service| service.state().functions.clone());
    let seen = dpu.reports("it is as desired", |seen| !refused("in use")(seen) && has(|v| v.in_use)(seen))?;
    subject.die(&seen.volumes[0])?;
    drop(frontend);
    dpu.reports("it is served again", |seen| {
        seen.volumes.iter().any(|v| v.restarts == 1 && v.plugged != Some(false)) && !refused("died")(seen)
    })?;
    ensure!(
        functions == subject.service.as_ref().map(|service| service.state().functions.clone()),
        "the host's function is another one"
    );

    // It goes, and comes with other settings.
    dpu.wish(&[])?;
    dpu.reports("it is gone", |seen| seen.volumes.is_empty())?;
    subject.is_clean(&dpu, dir)?;
    let limits = json!({"iops": 1500, "bytes_per_second": 3 * MIB / 2});
    changed["limits"] = limits.clone();
    dpu.wish(std::slice::from_ref(&changed))?;
    dpu.reports("it is served with other settings", has(|v| v.plugged != Some(false)))?;
    subject.has_limits(dir, Some((limits, (2000, 2))))?;
    dpu.wish(&[])?;
    dpu.reports("it is gone again", |seen| seen.volumes.is_empty())?;
    subject.is_clean(&dpu, dir)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
