//! `cargo xtask rack up --dpu N`: hosts behind DPUs, an overlay, and what to do with them.

use std::path::Path;
use std::thread::sleep;

use anyhow::{Context, Result};
use tests::dpu::{DpuSite, VOLUMES};
use tests::rack::{Firmware, Interrupt};
use tests::scenario;

use super::{Follow, LOOK};
use crate::{paths, tool};

/// Runs it until Ctrl-C.
pub fn run(count: usize, firmware: Firmware, image: &Path) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let programs = ["build", "--locked", "-p", "dpu-agent", "-p", "dpu-agent-blk"];
    tool::shown(tool::command(&cargo, &programs).current_dir(paths::root()))?;
    let interrupt = Interrupt::catch()?;
    let mut site = DpuSite::new(&format!("dpus-{}", std::process::id()), count, firmware)?;
    scenario::add_image(&site.api, image, "tiny-a", "1").context("adding the small test image")?;
    println!("waiting until {count} hosts are found (Ctrl-C is heard afterwards)");
    let nodes = site.discover()?;
    print(&mut site, &nodes)?;
    let logs = site.hosts.iter().map(|host| site.rack.dir().join(host.lock().name()).join("serial.log"));
    let mut follow: Vec<Follow> = logs.map(Follow::new).collect();
    while !interrupt.seen() {
        for (name, follow) in nodes.iter().zip(&mut follow) {
            follow.show(name)?;
        }
        sleep(LOOK);
    }
    site.passed();
    Ok(())
}

/// What there is, and what to do with it.
fn print(site: &mut DpuSite, nodes: &[String]) -> Result<()> {
    let server = site.rack.server()?;
    let (url, token) = (server.url(), server.state_dir().join("operator.token"));
    println!("UI and API   {url}");
    println!("token        {}", server.token()?);
    println!("files        {}", site.rack.dir().display());
    println!("server       ip netns exec {} bash", site.rack.namespace().name());
    for (number, node) in nodes.iter().enumerate() {
        let chassis = site.dpus.overlay.chassis(number).name().to_owned();
        println!("DPU {number}        ip netns exec {chassis} bash     its host is {node}");
        println!("  its switch ovs-vsctl --db={} show", site.dpus.overlay.chassis_address(number));
        println!("  its files  {}", site.dpus.get(number).dir().display());
    }
    println!("OVN          ovn-nbctl --db={} show", site.dpus.overlay.northbound_address());
    println!(
        "\nTo try:\n  alias b='target/release/billet --server {url} --token-file {}'\n  b dpu list\n  \
         b node list\n  b volume --help       (type {VOLUMES}; image tiny-a)\n  b network --help\n\n\
         A server whose networks have no router with a way to this server runs unheard: docs/guide/networks.md.\n",
        token.display()
    );
    println!("Ctrl-C ends it.");
    Ok(())
}
