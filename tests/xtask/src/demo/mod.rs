//! `cargo xtask demo`: two blank machines on a virtual rack are discovered and become running Debians, while somebody
//! looks on in the web UI. With `--once` nobody needs to: both are deployed, and the exit code says whether both let
//! the key in that they were given.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests::rack::{Disk, Firmware, Forward, Interrupt, MachineSpec, OPERATORS_PORT, Rack};
use tests::scenario;

use crate::{build, deps, image, ramdisk, tool};

mod floor;
mod login;
mod waterfall;

use floor::{Floor, Guest};
use login::Key;

/// Sizes of the disks in bytes. The first is larger than the image by so much that a root which grew can be told.
const OS_DISK: u64 = 8 << 30;
const DATA_DISK: u64 = 2 << 30;
/// Debian with cloud-init; the agent needs less.
const MEMORY_MIB: u32 = 1536;
/// Both together are about what two host processors carry; more per machine slows both.
const CPUS: u32 = 2;
/// `--once` gives up after this: five times what it takes on two busy processors.
const ONCE: Duration = Duration::from_mins(25);
/// Between two looks at the rack.
const LOOK: Duration = Duration::from_millis(250);

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Deploy both machines, log in to both, print how long everything took, and end.
    #[arg(long)]
    once: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let user = tool::output(&mut tool::command("id", &["-u"]))?;
    ensure!(user.trim() == "0", "the demo needs root: it makes network namespaces");
    deps::run()?;
    build::ui()?;
    // Whoever names a server of his own wants that one.
    if std::env::var_os("BILLET_BIN").is_none() {
        build::server()?;
    }
    ramdisk::run(&ramdisk::Args::default())?;
    let debian = image::debian::build()?;

    let interrupt = Interrupt::catch()?;
    let mut rack = Rack::new(&format!("demo-{}", std::process::id()))?;
    let outcome = show(args, &mut rack, &debian, &interrupt);
    // The files are of use only where something went wrong that nobody stopped.
    if outcome.is_ok() || interrupt.seen() {
        rack.passed();
    }
    outcome
}

fn show(args: &Args, rack: &mut Rack, debian: &Path, interrupt: &Interrupt) -> Result<()> {
    let key = Key::make(rack.dir(), rack.namespace().name())?;
    rack.start_server()?;
    let ui = publish(rack)?;
    println!("UI          {}", ui.url());
    println!("token       {}", rack.server()?.token()?);
    println!("SSH key     {}", key.public());
    println!("log in      {}", key.command("debian", "ADDRESS"));
    println!("server log  {}", rack.server()?.log().display());
    println!();
    let image = add_debian(rack, debian)?;
    if interrupt.seen() {
        return stopped(args.once);
    }

    let mut floor = Floor::new(rack.api()?, key, image);
    for (guest, spec) in guests() {
        floor.power_on(guest, rack.machine(spec)?)?;
    }
    if !args.once {
        floor.leave_to_the_form(1, &ui.url());
    }
    let end = Instant::now() + ONCE;
    while !interrupt.seen() {
        if !rack.server()?.process()?.running() {
            bail!("the server has ended; {} says why", rack.server()?.log().display());
        }
        let log = rack.server()?.log();
        floor
            .look()
            .with_context(|| format!("looking at the rack; the server's log is {}", log.display()))?;
        if args.once && floor.settled() {
            floor.print_numbers();
            return floor.verdict();
        }
        if args.once && Instant::now() > end {
            floor.print_numbers();
            bail!("not done after {} minutes", ONCE.as_secs() / 60);
        }
        sleep(LOOK);
    }
    stopped(args.once)
}

/// Somebody ended it. The demo may be ended; `--once` has not proven what it is for.
fn stopped(once: bool) -> Result<()> {
    println!("\nstopping");
    if once { bail!("interrupted") } else { Ok(()) }
}

/// The two machines: the older and the newer way to boot, and two kinds of disk.
fn guests() -> [(Guest, MachineSpec); 2] {
    let spec = |name: &str, firmware| MachineSpec::new(name, firmware).memory(MEMORY_MIB).cpus(CPUS);
    [
        (
            Guest { label: "bios", hostname: "demo-bios", disk: "BIOS-OS", disk_bytes: OS_DISK },
            spec("bios", Firmware::Bios)
                .disk(Disk::virtio("BIOS-OS", OS_DISK))
                .disk(Disk::nvme("BIOS-DATA", DATA_DISK)),
        ),
        (
            Guest { label: "uefi", hostname: "demo-uefi", disk: "UEFI-OS", disk_bytes: OS_DISK },
            spec("uefi", Firmware::Uefi)
                .disk(Disk::sata("UEFI-OS", OS_DISK))
                .disk(Disk::virtio("UEFI-DATA", DATA_DISK)),
        ),
    ]
}

/// Makes the UI reachable at its usual port, or at a free one where that is taken.
fn publish(rack: &Rack) -> Result<Forward> {
    let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, OPERATORS_PORT));
    Forward::start_at(rack.namespace().clone_handle()?, inside, inside).or_else(|_| rack.forward(inside))
}

/// Uploads Debian as anybody would, packed; returns the image's id.
fn add_debian(rack: &mut Rack, raw: &Path) -> Result<String> {
    let packed = raw.with_extension("raw.zst");
    let facts: Value = serde_json::from_slice(&fs::read(raw.with_extension("json"))?)?;
    let fact = |name: &str| facts[name].as_str().with_context(|| format!("the image's facts lack {name}"));
    let start = Instant::now();
    let (name, version) = (fact("name")?, fact("version")?);
    let user = format!("default_user={}", fact("default_user")?);
    let id = scenario::add_image_with(&rack.api()?, &packed, name, version, &user)?;
    println!("image       {name} {version} added in {:.1} s", start.elapsed().as_secs_f64());
    Ok(id)
}
