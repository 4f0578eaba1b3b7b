//! `billet-blk` against a real QEMU: machines boot from its volumes and work on them, while the daemon is killed, the image
//! server goes away, and bytes are wrong.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use protocol::job::CloudConfig;
use sha2::{Digest, Sha256};
use tests::exporter::{Exporter, noise};
use tests::rack::{Rack, artifact};
use tests::scenario::add_image;
use tests::volumes::{take_config_guid, written_by_the_server};

const MIB: u64 = 1 << 20;
/// Time for a machine to do what it is for, under emulation on a busy machine.
const WORK: Duration = Duration::from_secs(120);

#[test]
fn a_guest_keeps_every_byte_while_the_daemon_is_killed() -> Result<()> {
    const BLOCK: usize = 64 << 10;
    const BLOCKS: usize = 48;
    let mut rack = Rack::new("blk-file")?;
    let dir = rack.dir().to_owned();
    let file = dir.join("volume.raw");
    let size = 64 * MIB;
    File::create(&file)?.set_len(size)?;
    File::options().write(true).open(&file)?.write_all_at(&[7; 4 * BLOCK], 32 * MIB)?;
    let mut exporter = Exporter::start(
        rack.namespace(),
        &dir,
        &["--serial", "VOLUME-0001", "--file", file.to_str().context("path")?],
    )?;

    let script = format!(
        "echo serial=$(cat /sys/block/vda/serial) queues=$(ls /sys/block/vda/mq | wc -l)
i=0; while [ $i -lt {BLOCKS} ]; do
  yes $i | head -c {BLOCK} > /block
  dd if=/block of=/dev/vda bs={BLOCK} seek=$i oflag=direct conv=fsync,notrunc 2>/dev/null || echo FAILED $i
  echo wrote=$i; i=$((i+1)); done
blkdiscard -o {} -l {BLOCK} /dev/vda || echo FAILED discard
dd if=/dev/vda of=/dev/null bs=1M skip=63 count=2 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
echo sum=$(sha256sum < /dev/vda)",
        32 * MIB
    );
    let mut machine = rack.machine(exporter.scripted("m1", &dir, &script)?)?;
    machine.power_on()?;
    let line = machine.serial().wait_for("serial=", WORK)?.text;
    ensure!(line.contains("serial=VOLUME-0001 queues=2"), "{line}");
    for kill_at in [5, 15, 30] {
        machine.serial().wait_for(&format!("wrote={kill_at}"), WORK)?;
        exporter.kill()?;
        // Long enough that the guest has requests under way which nobody answers.
        std::thread::sleep(Duration::from_millis(300));
        exporter.start_again()?;
    }
    let sum = machine.serial().wait_for("sum=", WORK)?.text;
    machine.wait_off(WORK)?;
    ensure!(!machine.serial().said("FAILED") && !machine.serial().said("I/O error"), "a request failed");

    let mut expected = vec![0; usize::try_from(size)?];
    for (index, block) in expected.chunks_exact_mut(BLOCK).take(BLOCKS).enumerate() {
        let line = format!("{index}\n").into_bytes();
        block.iter_mut().zip(line.iter().cycle()).for_each(|(to, from)| *to = *from);
    }
    let kept = usize::try_from(32 * MIB)?;
    expected[kept + BLOCK..kept + 4 * BLOCK].fill(7);
    ensure!(fs::read(&file)? == expected, "the volume does not hold what the guest wrote");
    ensure!(sum.contains(&hex(&expected)), "the guest read something else: {sum}");
    rack.passed();
    Ok(())
}

/// A machine whose OS runs before its image was copied. The daemon is killed while it boots and while the rest comes; then
/// the image server goes for good, and the OS boots again.
#[test]
fn an_os_runs_before_its_image_was_copied() -> Result<()> {
    // What an OS has and does not read at boot.
    const REST: usize = 128 << 20;
    let mut rack = Rack::new("blk-instant")?;
    let dir = rack.dir().to_owned();
    rack.start_server()?;
    let mut image = fs::read(artifact("images/tiny-a.raw")?)?;
    image.extend(noise(REST, 1));
    let store = Store::new(&mut rack, &image)?;
    let layer = dir.join("layer");
    let mut exporter =
        Exporter::start(rack.namespace(), &dir, &store.arguments(&layer, &["--rate", "65536"])?)?;

    let mut machine = rack.machine(exporter.machine("m1")?)?;
    let began = Instant::now();
    machine.power_on()?;
    machine.serial().wait_for("GRUB", WORK)?;
    exporter.kill()?;
    std::thread::sleep(Duration::from_millis(300));
    exporter.start_again()?;
    machine.serial().wait_for("TINY-OS READY", WORK)?;
    machine.serial().wait_for_prompt("login:", WORK)?;
    let percent = exporter.last("progress")?["percent"].as_u64().context("percent")?;
    println!("login prompt after {:.1} s with {percent} % fetched", began.elapsed().as_secs_f64());
    ensure!(percent < 40, "{percent} % of the image were fetched before the OS was up");
    ensure!(exporter.count("hydrated")? == 0, "the rest was not left for later");

    exporter.kill()?;
    exporter.set_arguments(&store.arguments(&layer, &["--rate", "0"])?);
    exporter.start_again()?;
    exporter.wait_count("hydrated", 1, WORK)?;
    rack.server()?.kill()?;
    exporter.kill()?;
    exporter.set_arguments(&store.arguments(&layer, &[])?);
    exporter.start_again()?;
    machine.serial().skip_to_end();
    machine.reset()?;
    let line = machine.serial().wait_for("TINY-OS READY", WORK)?.text;
    ensure!(line.contains("boots=2"), "what the first boot wrote was lost: {line}");
    machine.power_off()?;

    // Only the root file system was written to, and it is whole.
    let written = changed_blocks(&image, &layer.join("layer.raw"))?;
    ensure!(!written.is_empty(), "the OS wrote nothing");
    let root = root_partition(&image)?;
    ensure!(written.iter().all(|at| root.contains(at)), "bytes outside the OS's partition changed");
    check_ext4(&layer.join("layer.raw"), &root, &dir)?;
    rack.passed();
    Ok(())
}

/// A server's boot volume: it is what a deploy leaves, byte by byte, and its OS knows who it is before its image was copied.
/// What the OS wrote is never written over by doing that again.
#[test]
fn an_os_on_an_instant_volume_knows_who_it_is() -> Result<()> {
    let mut rack = Rack::new("blk-config")?;
    let dir = rack.dir().to_owned();
    rack.start_server()?;
    let mut image = fs::read(artifact("images/tiny-a.raw")?)?;
    image.extend(noise(128 << 20, 3));
    let store = Store::new(&mut rack, &image)?;
    let size = (image.len() as u64).next_multiple_of(MIB) + 64 * MIB;
    let config = CloudConfig {
        meta_data: "{\"instance-id\":\"i-1\",\"local-hostname\":\"db1\"}\n".into(),
        user_data: "#cloud-config\n{}\n".into(),
        ..CloudConfig::default()
    };
    let told = dir.join("config.json");
    fs::write(&told, serde_json::to_vec(&config)?)?;
    let bytes = size.to_string();
    let more = ["--config", told.to_str().context("path")?, "--grow-root", "--size", &bytes, "--rate"];
    let (whole, layer) = (dir.join("whole"), dir.join("layer"));

    let fast = [&more[..], &["0"]].concat();
    let mut exporter = Exporter::start(rack.namespace(), &dir, &store.arguments(&whole, &fast)?)?;
    exporter.wait_count("hydrated", 1, WORK)?;
    exporter.kill()?;
    let found = fs::read(whole.join("layer.raw"))?;
    let images = rack.server()?.state_dir().join("images");
    let mut expected = written_by_the_server(&images, &store.image, config, size, &dir)?;
    take_config_guid(&mut expected, &found)?;
    ensure!(hex(&found) == hex(&expected), "the volume is not what a deploy leaves");
    drop((found, expected));

    let slow = [&more[..], &["65536"]].concat();
    exporter.set_arguments(&store.arguments(&layer, &slow)?);
    exporter.start_again()?;
    let mut machine = rack.machine(exporter.machine("m1")?)?;
    let began = Instant::now();
    machine.power_on()?;
    let line = machine.serial().wait_for("TINY-OS READY", WORK)?.text;
    machine.serial().wait_for_prompt("login:", WORK)?;
    let percent = exporter.last("progress")?["percent"].as_u64().context("percent")?;
    println!("login prompt as db1 after {:.1} s with {percent} % fetched", began.elapsed().as_secs_f64());
    ensure!(line.contains("hostname=db1"), "{line}");
    ensure!(percent < 40, "{percent} % of the image were fetched before the OS was up");
    ensure!(exporter.last("adapted")?["grown"][1].as_u64() > Some(64 * MIB), "the root was not grown");

    exporter.kill()?;
    fs::remove_file(&told)?;
    exporter.start_again()?;
    machine.serial().skip_to_end();
    machine.reset()?;
    let line = machine.serial().wait_for("TINY-OS READY", WORK)?.text;
    ensure!(line.contains("hostname=db1") && line.contains("boots=2"), "{line}");
    ensure!(exporter.count("adapted")? == 2, "each volume is adapted once");
    rack.passed();
    Ok(())
}

/// Wrong bytes, an image server that is away, a daemon that is killed while reads wait, and a deadline that passes; in the end
/// the volume is the image and what the guest wrote, byte by byte.
#[test]
fn reads_wait_for_the_image_and_never_get_anything_else() -> Result<()> {
    const CHUNK: usize = 4 << 20;
    let mut rack = Rack::new("blk-faults")?;
    let dir = rack.dir().to_owned();
    rack.start_server()?;
    let mut image = noise(10 * CHUNK, 2);
    let store = Store::new(&mut rack, &image)?;
    let layer = dir.join("layer");
    // Slow enough that nothing comes but what is asked for.
    let slow = ["--rate", "1", "--deadline"];
    let patient = [&slow[..], &["60"]].concat();
    let mut exporter = Exporter::start(rack.namespace(), &dir, &store.arguments(&layer, &patient)?)?;
    let wrong = store.spoil(9 * CHUNK..10 * CHUNK, &image)?;

    let script = "go() { echo ready=$1; read line; }
chunk() { dd if=/dev/vda of=/dev/null bs=64k count=1 skip=$(($1 * 64)) iflag=direct 2>/dev/null; echo chunk=$1 failed=$?; }
yes A | head -c 65536 > /block
for at in 100 8191 16000; do dd if=/block of=/dev/vda bs=512 seek=$at conv=notrunc,fsync 2>/dev/null || echo FAILED; done
chunk 9
go away; chunk 5
go repaired; chunk 9
go late; chunk 7
go sum; echo sum=$(sha256sum < /dev/vda)";
    let mut machine = rack.machine(exporter.scripted("m1", &dir, script)?)?;
    machine.power_on()?;
    machine.serial().wait_for("chunk=9 failed=1", WORK)?;
    let event = exporter.last("chunk-wrong")?;
    ensure!(event["chunk"] == 9 && event["id"] == wrong.id, "{event}");

    machine.serial().wait_for("ready=away", WORK)?;
    rack.server()?.kill()?;
    machine.type_text("go\n")?;
    exporter.wait_count("store-away", 1, WORK)?;
    exporter.kill()?;
    std::thread::sleep(Duration::from_secs(1));
    exporter.start_again()?;
    exporter.wait_count("replayed", 1, WORK)?;
    exporter.wait_count("store-away", 2, WORK)?;
    rack.server()?.start_again()?;
    machine.serial().wait_for("chunk=5 failed=0", WORK)?;
    ensure!(exporter.count("store-back")? >= 1, "the end of the outage was not said");

    machine.serial().wait_for("ready=repaired", WORK)?;
    wrong.repair()?;
    machine.type_text("go\n")?;
    machine.serial().wait_for("chunk=9 failed=0", WORK)?;

    machine.serial().wait_for("ready=late", WORK)?;
    rack.server()?.kill()?;
    exporter.kill()?;
    exporter.set_arguments(&store.arguments(&layer, &[&slow[..], &["2"]].concat())?);
    exporter.start_again()?;
    machine.type_text("go\n")?;
    machine.serial().wait_for("chunk=7 failed=1", WORK)?;
    ensure!(exporter.last("chunk-late")?["chunk"] == 7, "the wrong chunk was given up");
    rack.server()?.start_again()?;

    machine.serial().wait_for("ready=sum", WORK)?;
    machine.type_text("go\n")?;
    let sum = machine.serial().wait_for("sum=", WORK)?.text;
    machine.wait_off(WORK)?;
    for at in [100, 8191, 16000] {
        image[at * 512..at * 512 + 65536].copy_from_slice(&b"A\n".repeat(32768));
    }
    ensure!(sum.contains(&hex(&image)), "the guest read something else: {sum}");
    exporter.wait_count("hydrated", 1, WORK)?;
    ensure!(fs::read(layer.join("layer.raw"))? == image, "the layer holds something else");
    ensure!(!machine.serial().said("FAILED"), "a write failed");
    rack.passed();
    Ok(())
}

/// An image in the rack's server.
struct Store {
    image: String,
    chunks: PathBuf,
    trust: String,
}

/// A chunk whose file was changed.
struct Wrong {
    id: String,
    file: PathBuf,
    whole: Vec<u8>,
}

impl Store {
    fn new(rack: &mut Rack, image: &[u8]) -> Result<Self> {
        let file = rack.dir().join("image.raw");
        fs::write(&file, image)?;
        let image = add_image(&rack.api()?, &file, "instant", "1")?;
        let state = rack.server()?.state_dir();
        let trust = state.join("trust/trust.json").to_str().context("path")?.to_owned();
        Ok(Self { image, chunks: state.join("images/chunks"), trust })
    }

    fn arguments<'a>(&'a self, layer: &'a Path, more: &[&'a str]) -> Result<Vec<&'a str>> {
        let layer = layer.to_str().context("path")?;
        let which = ["--image", &self.image, "--store", "http://10.77.0.1:8080", "--layer", layer];
        let which = [&which[..], &["--trust", &self.trust]].concat();
        Ok([&which[..], more].concat())
    }

    /// Flips a bit in the middle of the frame of this part of the image.
    fn spoil(&self, part: std::ops::Range<usize>, image: &[u8]) -> Result<Wrong> {
        let id = hex(&image[part]);
        let file = self.chunks.join(&id[..2]).join(format!("{id}.zst"));
        let whole = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let mut spoilt = whole.clone();
        let middle = spoilt.len() / 2;
        spoilt[middle] ^= 1;
        fs::write(&file, spoilt)?;
        Ok(Wrong { id, file, whole })
    }
}

impl Wrong {
    fn repair(&self) -> Result<()> {
        Ok(fs::write(&self.file, &self.whole)?)
    }
}

/// Offsets of the blocks of 4 KiB that differ.
fn changed_blocks(image: &[u8], layer: &Path) -> Result<Vec<usize>> {
    let layer = fs::read(layer)?;
    ensure!(layer.len() == image.len(), "the layer is not as large as the image");
    let pairs = image.chunks(4096).zip(layer.chunks(4096)).enumerate();
    Ok(pairs.filter(|(_, (a, b))| a != b).map(|(index, _)| index * 4096).collect())
}

/// Where the last partition of the image's GPT lies, which is the root file system (UEFI 2.10, 5.3.3).
fn root_partition(image: &[u8]) -> Result<std::ops::Range<usize>> {
    let mut entries = image[1024..1024 + 128 * 128].chunks(128);
    let last = entries.rfind(|e| e[..16] != [0; 16]).context("an image without partitions")?;
    let lba = |at: usize| Ok::<_, anyhow::Error>(u64::from_le_bytes(last[at..at + 8].try_into()?) as usize);
    Ok(lba(32)? * 512..(lba(40)? + 1) * 512)
}

fn check_ext4(layer: &Path, root: &std::ops::Range<usize>, dir: &Path) -> Result<()> {
    let copy = dir.join("root.ext4");
    fs::write(&copy, &fs::read(layer)?[root.clone()])?;
    // The power was cut, so the journal is replayed first, as a mount would.
    let replay = Command::new("e2fsck").args(["-p", "-E", "journal_only"]).arg(&copy).output()?;
    let check = Command::new("e2fsck").args(["-fn"]).arg(&copy).output()?;
    let text = [replay.stdout, check.stdout].concat();
    ensure!(check.status.success(), "{}", String::from_utf8_lossy(&text));
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
