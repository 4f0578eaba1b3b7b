//! Volumes of a DPU, by each of its exporters: served, plugged into a running host and out of it, through deaths of
//! everything on the way, with the bytes compared in the end.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};
use tests::exporter::with_script;
use tests::exports::{Dpu, Target, host};
use tests::rack::Rack;

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

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
