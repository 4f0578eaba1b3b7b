//! `cargo xtask rack up`: a virtual rack in the foreground, until Ctrl-C.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;
use tests::rack::{Disk, Firmware, Interrupt, MachineSpec, Rack};
use tests::scenario;

use crate::{build, deps, image, ramdisk};

mod dpus;

/// Disks of these machines in bytes: sparse, larger than any of our images.
const DISK: u64 = 8 << 30;
/// Between two looks at the consoles.
const LOOK: Duration = Duration::from_millis(500);

/// Arguments of `cargo xtask rack`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a server and blank machines; ends with Ctrl-C.
    Up {
        /// How many machines.
        #[arg(short, long, default_value_t = 2)]
        n: u32,
        /// UEFI instead of BIOS.
        #[arg(long)]
        uefi: bool,
        /// How the disks are attached.
        #[arg(long, value_enum, default_value = "virtio")]
        bus: BusName,
        /// So many hosts behind DPUs instead, whose disks and networks are of the cloud.
        #[arg(long, conflicts_with_all = ["n", "bus"])]
        dpu: Option<u8>,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum BusName {
    Virtio,
    Nvme,
    Sata,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let Verb::Up { n, uefi, bus, dpu } = args.verb;
    let firmware = if uefi { Firmware::Uefi } else { Firmware::Bios };
    deps::run()?;
    build::ui()?;
    build::server()?;
    ramdisk::run(&ramdisk::Args::default())?;
    let tiny = image::tiny::build(image::Variant::A)?;
    if let Some(count) = dpu {
        return dpus::run(usize::from(count), firmware, &tiny);
    }
    let interrupt = Interrupt::catch()?;
    let mut rack = Rack::new(&format!("up-{}", std::process::id()))?;
    rack.start_server()?;
    let api = rack.api()?;
    scenario::add_image(&api, &tiny, "tiny-a", "1").context("adding the small test image")?;
    let mut machines = Vec::new();
    for number in 1..=n {
        let serial = |disk: u32| format!("RACK{number:02}-DISK{disk}");
        let disk = |number| match bus {
            BusName::Virtio => Disk::virtio(&serial(number), DISK),
            BusName::Nvme => Disk::nvme(&serial(number), DISK),
            BusName::Sata => Disk::sata(&serial(number), DISK),
        };
        let spec = MachineSpec::new(&format!("m{number}"), firmware).disk(disk(1)).disk(disk(2)).bmc();
        let mut machine = rack.machine(spec)?;
        machine.power_on()?;
        machines.push(machine);
    }
    let server = rack.server()?;
    println!("UI and API   {}", server.url());
    println!("token        {}", server.token()?);
    println!("files        {}", rack.dir().display());
    println!("inside       ip netns exec {} bash", rack.namespace().name());
    println!("Ctrl-C ends it; a machine that switches itself off is switched on again.");
    let logs = machines.iter().map(|m| rack.dir().join(m.name()).join("serial.log"));
    let mut follow: Vec<_> = logs.map(Follow::new).collect();
    while !interrupt.seen() {
        for (machine, follow) in machines.iter_mut().zip(&mut follow) {
            follow.show(machine.name())?;
            if !machine.is_on() {
                machine.power_on()?;
            }
        }
        sleep(LOOK);
    }
    drop(machines);
    rack.passed();
    Ok(())
}

/// Prints what is added to a file.
struct Follow {
    path: PathBuf,
    at: u64,
}

impl Follow {
    fn new(path: PathBuf) -> Self {
        Self { path, at: 0 }
    }

    fn show(&mut self, name: &str) -> Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        self.at += bytes.len() as u64;
        for line in String::from_utf8_lossy(&bytes).lines() {
            println!("{name} {line}");
        }
        Ok(())
    }
}
