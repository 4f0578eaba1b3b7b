//! The rack without a Billet server: a machine boots the small test OS from a disk that was filled beforehand,
//! configures itself, and is reached through a forwarder.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Result;
use tests::rack::{Disk, Firmware, MachineSpec, Rack, artifact};

/// Generous: other work may share the processors.
const BOOT: Duration = Duration::from_secs(120);

fn boots(name: &str, firmware: Firmware, disk: Disk, device: &str) -> Result<()> {
    let mut rack = Rack::new(name)?;
    let mut machine = rack.machine(MachineSpec::new("m1", firmware).disk(disk).disk_first())?;
    let image = fs::read(artifact("images/tiny-a.raw")?)?;
    machine.write_disk(0, 0, &image)?;
    machine.power_on()?;
    let line = machine.serial().wait_for("TINY-OS READY", BOOT)?.text;
    assert!(line.contains("image=tiny-a") && line.contains(device), "{line}");
    machine.power_off()?;
    assert!(!machine.is_on());
    machine.power_on()?;
    let line = machine.serial().wait_for("TINY-OS READY", BOOT)?.text;
    assert!(line.contains("boots=2"), "{line}");
    machine.serial().skip_to_end();
    machine.reset()?;
    machine.serial().wait_for("GRUB", BOOT)?;
    rack.passed();
    Ok(())
}

#[test]
fn bios_virtio() -> Result<()> {
    boots("itself-bios-virtio", Firmware::Bios, Disk::virtio("DISK1", 128 << 20), "disk=vda")
}

#[test]
fn two_racks_at_once_do_not_meet() -> Result<()> {
    let mut first = Rack::new("itself-first")?;
    let mut second = Rack::new("itself-second")?;
    second.namespace().ip(&["addr", "add", "10.77.0.2/24", "dev", "br0"])?;
    let inside = second.namespace().clone_handle()?;
    let address: SocketAddr = "10.77.0.2:7777".parse()?;
    let listener = std::thread::spawn(move || {
        inside.enter()?;
        anyhow::Ok(TcpListener::bind(address)?)
    });
    let listener = listener.join().expect("a thread that only binds")?;
    let reaches = |rack: &Rack| -> Result<bool> {
        let inside = rack.namespace().clone_handle()?;
        let connect = std::thread::spawn(move || {
            inside.enter()?;
            anyhow::Ok(TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok())
        });
        connect.join().expect("a thread that only connects")
    };
    assert!(reaches(&second)?);
    assert!(!reaches(&first)?);
    let outside = second.forward(address)?;
    let mut client = TcpStream::connect(outside.address())?;
    client.write_all(b"hello")?;
    client.shutdown(std::net::Shutdown::Write)?;
    // The first connection was the one that proved that it can be reached.
    let (_, _) = listener.accept()?;
    let mut text = String::new();
    listener.accept()?.0.read_to_string(&mut text)?;
    assert_eq!(text, "hello");
    first.passed();
    second.passed();
    Ok(())
}

#[test]
fn a_boot_order_for_one_start_is_used_up_by_it() {
    use bmc::{BootDevice, BootOverride, PowerAction, PowerState, Repeat};
    use tests::bmc::{Machine as _, QemuMachine};

    let mut rack = Rack::new("boot-order").unwrap();
    let spec =
        MachineSpec::new("m1", Firmware::Bios).disk(Disk::virtio("ORDER1", 64 << 20)).disk_first().cdrom();
    let mut machine = rack.machine(spec.memory(256)).unwrap();
    let image = rack.dir().join("cd.iso");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    machine.set_media(Some(&image)).unwrap();
    let serial = machine.serial().clone();
    let machine = QemuMachine::new(machine);
    let order = |device, repeat| {
        machine.set_boot_override(&BootOverride { device, repeat, mode: None, http_uri: None }).unwrap();
    };
    // What the firmware still said before it was started again ends before its banner, in the same line or an earlier one.
    let first_is = |text: &str| {
        serial.wait_for("SeaBIOS (version", Duration::from_secs(30)).unwrap();
        let all = ["Booting from Hard Disk", "Booting from DVD/CD", "Booting from ROM"];
        let (which, line) = serial.wait_for_any(&all, Duration::from_secs(30)).unwrap();
        assert_eq!(all[which], text, "{line:?}");
    };
    order(BootDevice::Pxe, Repeat::Once);
    machine.power(PowerAction::On).unwrap();
    first_is("Booting from ROM");
    assert_eq!(machine.boot_override().device, BootDevice::None);
    // The guest's own restart, of which no controller hears.
    serial.skip_to_end();
    machine.lock().qmp().unwrap().command("system_reset", serde_json::json!({})).unwrap();
    first_is("Booting from Hard Disk");
    order(BootDevice::Cdrom, Repeat::Once);
    serial.skip_to_end();
    machine.power(PowerAction::Reset).unwrap();
    first_is("Booting from DVD/CD");
    order(BootDevice::Pxe, Repeat::Always);
    serial.skip_to_end();
    machine.power(PowerAction::Cycle).unwrap();
    first_is("Booting from ROM");
    assert_eq!(machine.boot_override().device, BootDevice::Pxe);
    machine.set_media(None).unwrap();
    machine.power(PowerAction::ForceOff).unwrap();
    assert_eq!(machine.power_state(), PowerState::Off);
    rack.passed();
}
