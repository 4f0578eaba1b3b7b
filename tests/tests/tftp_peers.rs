//! TFTP of a real server: other people's clients fetch from it, hand-made requests ask for the absurd, and a machine
//! boots by the oldest way there is.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::rack::{BRIDGE, Disk, Firmware, MachineSpec, Namespace, Rack, SERVER_ADDRESS};
use tests::scenario::{DISCOVERY, wait_discovered};

/// A file that every installation serves.
const FILE: &str = "snponly.efi";

/// A namespace on the rack's bridge, with 10.77.0.9.
fn client(rack: &Rack) -> Result<Namespace> {
    let client = Namespace::new()?;
    rack.namespace().ip(&[
        "link",
        "add",
        "p0",
        "type",
        "veth",
        "peer",
        "name",
        "p1",
        "netns",
        client.name(),
    ])?;
    rack.namespace().ip(&["link", "set", "p0", "master", BRIDGE, "up"])?;
    client.ip(&["addr", "add", "10.77.0.9/24", "dev", "p1"])?;
    client.ip(&["link", "set", "p1", "up"])?;
    Ok(client)
}

fn shell(namespace: &Namespace, script: &str) -> Result<String> {
    let out = namespace.command("sh").args(["-c", script]).output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{script}: {text}");
    Ok(text)
}

#[test]
fn clients_of_others() -> Result<()> {
    let mut rack = Rack::new("tftp-peers")?;
    rack.start_server()?;
    let client = client(&rack)?;
    let wanted = fs::read(format!("/usr/lib/ipxe/{FILE}"))?;
    let got = rack.dir().join("got");
    let to = got.display();
    let link_local = shell(rack.namespace(), &format!("ip -6 -o addr show dev {BRIDGE} scope link"))?;
    let link_local = link_local.split_whitespace().nth(3).and_then(|a| a.split('/').next());
    let link_local = link_local.context("the bridge has no link-local address")?;
    let commands = [
        format!("curl -sS -m 30 -o {to} tftp://{SERVER_ADDRESS}/{FILE}"),
        format!("curl -sS -m 30 --tftp-no-options -o {to} tftp://{SERVER_ADDRESS}//{FILE}"),
        format!("curl -sS -m 30 --tftp-blksize 65464 -o {to} tftp://{SERVER_ADDRESS}/{FILE}"),
        format!("tftp -m binary {SERVER_ADDRESS} -c get {FILE} {to}"),
        format!(
            "atftp --option 'blksize 1428' --option 'windowsize 8' -g -r {FILE} -l {to} {SERVER_ADDRESS}"
        ),
        format!(
            "atftp --option 'blksize 8' --option 'windowsize 65535' -g -r {FILE} -l {to} {SERVER_ADDRESS}"
        ),
        format!("busybox tftp -g -b 1468 -r {FILE} -l {to} {SERVER_ADDRESS}"),
        format!("busybox tftp -g -b 65464 -r {FILE} -l {to} {SERVER_ADDRESS}"),
        // Duplicate address detection keeps a link-local address back for its first seconds.
        format!("sleep 2; curl -sS -g -m 30 --tftp-blksize 1468 -o {to} 'tftp://[{link_local}%25p1]/{FILE}'"),
    ];
    for command in commands {
        let _ = fs::remove_file(&got);
        shell(&client, &command)?;
        ensure!(fs::read(&got).with_context(|| command.clone())? == wanted, "{command}: another file");
    }
    for command in [
        format!("curl -sS -m 30 tftp://{SERVER_ADDRESS}/no-such-file"),
        format!("curl -sS -m 30 tftp://{SERVER_ADDRESS}/..%2f..%2fetc/passwd"),
        format!("curl -sS -m 30 -T /etc/hostname tftp://{SERVER_ADDRESS}/{FILE}"),
    ] {
        ensure!(shell(&client, &command).is_err(), "{command} should have failed");
    }
    rack.passed();
    Ok(())
}

#[test]
fn absurd_options_get_the_right_answer() -> Result<()> {
    let mut rack = Rack::new("tftp-absurd")?;
    rack.start_server()?;
    let client = client(&rack)?;
    let size = fs::metadata(format!("/usr/lib/ipxe/{FILE}"))?.len().to_string();
    client.clone_handle()?.enter()?;
    // `None`: no option was granted, so block 1 of 512 octets comes instead of an OACK.
    let cases: &[(&[&str], Option<&[&str]>)] = &[
        (&["blksize", "8"], Some(&["blksize", "8"])),
        (&["blksize", "7"], None),
        (&["blksize", "0"], None),
        (&["blksize", "65464"], Some(&["blksize", "1468"])),
        (&["blksize", "4294967296"], Some(&["blksize", "1468"])),
        (&["blksize", "99999999999999999999999999"], None),
        (&["blksize", "-1"], None),
        (&["blksize", "+512"], None),
        (&["blksize", "0x200"], None),
        (&["BlkSize", "1024", "blksize", "512"], Some(&["blksize", "1024"])),
        (&["windowsize", "0"], None),
        (&["windowsize", "1"], Some(&["windowsize", "1"])),
        (&["windowsize", "65536"], Some(&["windowsize", "64"])),
        (&["timeout", "0"], None),
        (&["timeout", "256"], None),
        (&["timeout", "255"], Some(&["timeout", "255"])),
        (&["tsize", "123"], Some(&["tsize", &size])),
        (&["multicast", "", "x", "y"], None),
        (&["tsize", "0", "blksize", "1", "windowsize", "16"], Some(&["tsize", &size, "windowsize", "16"])),
    ];
    for (asked, granted) in cases {
        let socket = UdpSocket::bind("10.77.0.9:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let words = |words: &[&str]| words.iter().fold(String::new(), |all, word| all + word + "\0");
        socket.send_to(format!("\0\x01{FILE}\0octet\0{}", words(asked)).as_bytes(), (SERVER_ADDRESS, 69))?;
        let mut buf = [0; 2048];
        let (len, session) = socket.recv_from(&mut buf).with_context(|| format!("no answer to {asked:?}"))?;
        match granted {
            Some(granted) => {
                let expected = format!("\0\x06{}", words(granted));
                let got = String::from_utf8_lossy(&buf[..len]);
                ensure!(got == expected, "{asked:?}: {got:?} instead of {expected:?}");
            }
            None => {
                ensure!((len, &buf[..4]) == (516, b"\0\x03\0\x01"), "{asked:?}: {:?}", &buf[..len.min(40)])
            }
        }
        socket.send_to(b"\0\x05\0\x08enough\0", session)?;
    }
    rack.passed();
    Ok(())
}

/// A ROM that knows nothing but PXE: `undionly.kpxe` by TFTP, iPXE on the ROM's own driver, the agent.
/// There is no such ROM to be had, so iPXE plays one: it is loaded from beside the machine and calls itself otherwise.
#[test]
fn legacy_rom_boots_undionly() -> Result<()> {
    let mut rack = Rack::new("tftp-undionly")?;
    rack.start_server()?;
    let api = rack.api()?;
    let script = rack.dir().join("legacy.ipxe");
    fs::write(
        &script,
        "#!ipxe\nset user-class LegacyPXE\ndhcp net0 || shell\nchain tftp://${next-server}/${filename}\n",
    )?;
    let script = script.to_str().context("a path that is not UTF-8")?;
    let rom = ["-kernel", "/usr/lib/ipxe/ipxe.lkrn", "-initrd", script];
    let mut machine =
        rack.machine(MachineSpec::new("m1", Firmware::Bios).disk(Disk::virtio("OS1", 1 << 30)).extra(&rom))?;
    machine.power_on()?;
    wait_discovered(&api, &machine, "available", DISCOVERY)?;
    let log = fs::read_to_string(rack.server()?.log())?;
    ensure!(log.contains("undionly.kpxe"), "undionly.kpxe was not fetched by TFTP");
    rack.passed();
    Ok(())
}
