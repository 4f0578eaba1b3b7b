//! Volumes of a DPU, by each of its exporters: served, plugged into a running host and out of it, through deaths of
//! everything on the way, with the bytes compared in the end.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};
use tests::exporter::with_script;
use tests::exports::{Dpu, Target, host, kill_daemon, kill_exporter, with_volume};
use tests::rack::{Machine, Rack};

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
    volume["limits"] = json!({"bytes_per_second": 2 * MIB});
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
    ensure!(log.contains("replayed") && log.contains("resent"), "nothing was under way: {log}");
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

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
