//! `billet-blk` against a real QEMU: machines boot from its volumes and work on them, while the daemon is killed, the image
//! server goes away, and bytes are wrong.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use tests::exporter::Exporter;
use tests::rack::Rack;

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

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
