//! A machine's button and serial line behind two TCP ports, for controllers that are programs of others: `ipmi_sim` calls a
//! script for the button (ipmi_lan(5), `chassis_control`) and connects to the line.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bmc::{BootDevice, BootOverride, PowerAction, PowerState, Repeat};

use super::machine::Machine;

/// Longest line of the button's protocol.
const LINE_MAX: u64 = 256;
/// Time for a peer to say its line.
const LINE: Duration = Duration::from_secs(5);
/// Between two looks at the line's ends.
const TICK: Duration = Duration::from_millis(20);

/// What the simulator calls the devices of the boot override.
const DEVICES: [(&str, BootDevice); 5] = [
    ("pxe", BootDevice::Pxe),
    ("default", BootDevice::Disk),
    ("cdrom", BootDevice::Cdrom),
    ("bios", BootDevice::Bios),
    ("none", BootDevice::None),
];

/// Serves the button: each connection is one line, the arguments of the script, and what the script is to print. Ends with
/// the process, as the listener's thread does.
///
/// # Errors
/// Where the listener has no address.
pub fn serve_button(listener: TcpListener, machine: Arc<dyn Machine>) -> Result<SocketAddr> {
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Err(e) = press(&stream, &*machine) {
                eprintln!("the button of a machine: {e:#}");
            }
        }
    });
    Ok(address)
}

/// Writes the script that passes its arguments to the button at `address`.
///
/// # Errors
/// Where it cannot be written.
pub fn write_script(dir: &Path, address: SocketAddr) -> Result<PathBuf> {
    let (ip, port) = (address.ip(), address.port());
    let script = format!("#!/bin/bash\nexec 3<>/dev/tcp/{ip}/{port} || exit 1\necho \"$*\" >&3\ncat <&3\n");
    let path = dir.join("chassis.sh");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn press(mut stream: &TcpStream, machine: &dyn Machine) -> Result<()> {
    stream.set_read_timeout(Some(LINE))?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_MAX)).read_line(&mut line)?;
    // The first word is the controller's address.
    let mut words = line.split_whitespace().skip(1);
    let verb = words.next().context("no verb")?;
    while let Some(what) = words.next() {
        match verb {
            "get" => writeln!(stream, "{what}:{}", get(what, machine))?,
            "set" => set(what, words.next().unwrap_or_default(), machine)?,
            _ => {}
        }
    }
    Ok(())
}

fn get(what: &str, machine: &dyn Machine) -> String {
    match what {
        "power" => u8::from(machine.power_state() == PowerState::On).to_string(),
        "boot" => {
            let device = machine.boot_override().device;
            DEVICES.iter().find(|(_, d)| *d == device).map_or("none", |(word, _)| word).to_owned()
        }
        _ => String::from("0"),
    }
}

fn set(what: &str, value: &str, machine: &dyn Machine) -> Result<()> {
    match (what, value) {
        ("power", "1") => machine.power(PowerAction::On),
        ("power", "cycle") => machine.power(PowerAction::Cycle),
        ("power", _) => machine.power(PowerAction::ForceOff),
        ("reset", _) => machine.power(PowerAction::Reset),
        ("shutdown", _) => machine.power(PowerAction::SoftOff),
        ("boot", word) => {
            let device = DEVICES.iter().find(|(w, _)| *w == word).map_or(BootDevice::None, |(_, d)| *d);
            // The simulator does not tell how often; once is what an order to it means.
            let wanted = BootOverride { device, repeat: Repeat::Once, mode: None, http_uri: None };
            machine.set_boot_override(&wanted)
        }
        _ => Ok(()),
    }
}

/// Serves the serial line to one peer after another. Ends with the process.
///
/// # Errors
/// Where the listener has no address.
pub fn serve_line(listener: TcpListener, machine: Arc<dyn Machine>) -> Result<SocketAddr> {
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A peer that goes away is no error.
            let _ = carry(stream, &*machine);
        }
    });
    Ok(address)
}

fn carry(mut stream: TcpStream, machine: &dyn Machine) -> Result<()> {
    stream.set_read_timeout(Some(TICK))?;
    let printed = machine.console();
    let mut typed = [0; 512];
    loop {
        match stream.read(&mut typed) {
            Ok(0) => return Ok(()),
            Ok(n) => machine.type_console(&typed[..n]),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(e) => return Err(e.into()),
        }
        for piece in printed.try_iter() {
            stream.write_all(&piece)?;
        }
    }
}
