//! DHCP with real clients, beside a real second server, and over a crash, on a wire of two network namespaces.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::dhcp_load::{self, Load};
use tests::dhcp_wire::{CLIENTS, MASK, RELAY, SERVER, Wire};
use tests::rack::{Process, target};

const STATUS: &str = "/api/v1/status";
/// Within this time a second server has to be named.
const NAMED: Duration = Duration::from_secs(5);
/// Within this time it has to be off the list when it is gone.
const FORGOTTEN: Duration = Duration::from_secs(50);

fn wire(name: &str) -> Result<Wire> {
    Wire::new(&target().join("dhcp-peers").join(name))
}

/// Runs a program at the clients' end; its output where it succeeds.
fn client(wire: &Wire, program: &str, args: &[&str]) -> Result<String> {
    let (success, text) = client_try(wire, program, args)?;
    ensure!(success, "{program} {}: {text}", args.join(" "));
    Ok(text)
}

/// Whether a program at the clients' end succeeded, and its output.
fn client_try(wire: &Wire, program: &str, args: &[&str]) -> Result<(bool, String)> {
    let out =
        wire.clients.command(program).args(args).output().with_context(|| format!("starting {program}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    Ok((out.status.success(), text))
}

/// A script for dhclient and udhcpc in the wire's directory.
fn script(wire: &Wire, name: &str, text: &str) -> Result<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = wire.dir.join(name);
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

/// What stands after the last `word` of a text, up to the next blank.
fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.rsplit_once(word)?.1.split([' ', '\n', ';']).find(|w| !w.is_empty())
}

fn exists(program: &str) -> bool {
    let found =
        ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
    if !found {
        eprintln!("skipped: {program} is not installed (`cargo xtask deps`)");
    }
    found
}

#[test]
fn perfdhcp_loses_nothing() -> Result<()> {
    if !exists("perfdhcp") {
        return Ok(());
    }
    let wire = wire("perfdhcp")?;
    let _server = wire.start()?;
    let (relay, server) = (RELAY.to_string(), SERVER.to_string());
    let args = ["-4", "-l", &relay, "-r", "500", "-R", "5000", "-p", "5", "-W", "1000000", "-u", &server];
    // It ends with another code than 0 where an exchange was not completed.
    let text = client(&wire, "perfdhcp", &args)?;
    let drops: Vec<_> = text.lines().filter(|l| l.starts_with("drops:")).collect();
    ensure!(drops == ["drops: 0", "drops: 0"], "{text}");
    let received = after(&text, "received packets:").and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    ensure!(received > 1500, "{text}");
    Ok(())
}

/// Sets the address as a distribution's script does; refuses the address that the file `refuse` holds, as where another
/// machine answered for it.
const DHCLIENT: &str = r#"#!/bin/sh
echo "$reason $new_ip_address" >> "${0%/*}/reasons"
case $reason in
  BOUND|RENEW|REBIND|REBOOT)
    [ "$(cat "${0%/*}/refuse" 2>/dev/null)" = "$new_ip_address" ] && exit 1
    ip addr replace "$new_ip_address/14" dev "$interface";;
  RELEASE|EXPIRE|FAIL|STOP) ip addr del "$old_ip_address/14" dev "$interface";;
esac
exit 0
"#;

#[test]
fn dhclient_gets_keeps_declines_and_releases() -> Result<()> {
    if !exists("dhclient") {
        return Ok(());
    }
    let wire = wire("dhclient")?;
    let mut server = wire.start()?;
    wire.clients.ip(&["addr", "flush", "dev", CLIENTS])?;
    let script = script(&wire, "dhclient-script", DHCLIENT)?;
    let at = |name: &str| wire.dir.join(name).display().to_string();
    let (leases, pid) = (at("leases"), at("pid"));
    let run = |more: &[&str]| {
        let mut args = vec!["-4", "-v", "-cf", "/dev/null", "-sf", &script, "-lf", &leases, "-pf", &pid];
        args.extend(more);
        args.push(CLIENTS);
        client_try(&wire, "dhclient", &args)
    };
    let dhclient = |more: &[&str]| {
        let (success, text) = run(more)?;
        ensure!(success, "{text}");
        Ok(text)
    };
    let first = dhclient(&["-1"])?;
    let address = after(&first, "bound to ").context(first.clone())?.to_owned();
    ensure!(first.contains("DHCPOFFER") && first.contains("DHCPACK"), "{first}");
    // Started again without a release it asks for what it had (INIT-REBOOT).
    dhclient(&["-x"])?;
    let again = dhclient(&["-1"])?;
    ensure!(after(&again, "bound to ") == Some(&address) && !again.contains("DHCPDISCOVER"), "{again}");
    let released = dhclient(&["-r"])?;
    ensure!(released.contains("DHCPRELEASE"), "{released}");
    let api = server.api()?;
    api.wait(STATUS, Duration::from_secs(10), |status| (status["dhcp"]["leases"] == 0).then_some(()))?;
    // The same address is offered, but this time somebody else uses it: another one is given.
    std::fs::write(wire.dir.join("refuse"), &address)?;
    std::fs::remove_file(&leases)?;
    let (_, declined) = run(&["-1"])?;
    ensure!(declined.contains("DHCPDECLINE"), "{declined}");
    let other = dhclient(&["-1"])?;
    let second = after(&other, "bound to ").context(other.clone())?;
    ensure!(second != address, "the declined address was given again: {other}");
    dhclient(&["-x"])?;
    server.stop()?;
    Ok(())
}

/// Prints what it is told and sets the address.
const UDHCPC: &str = r#"#!/bin/sh
case $1 in
  deconfig) ip addr flush dev $interface;;
  bound|renew) echo "told-$1 $ip"; ip addr replace $ip/14 dev $interface;;
  nak) echo "nak $message";;
esac
"#;

#[test]
fn udhcpc_gets_renews_and_releases() -> Result<()> {
    if !exists("udhcpc") {
        return Ok(());
    }
    let wire = wire("udhcpc")?;
    let server = wire.start()?;
    wire.clients.ip(&["addr", "flush", "dev", CLIENTS])?;
    let script = script(&wire, "udhcpc-script", UDHCPC)?;
    let mut command = wire.clients.command("udhcpc");
    command.args(["-i", CLIENTS, "-f", "-n", "-R", "-t", "5", "-T", "1", "-s", &script]);
    let log = wire.dir.join("udhcpc.log");
    let mut udhcpc = Process::start("udhcpc", command, &log)?;
    let said = |what: &str| {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let text = std::fs::read_to_string(&log)?;
            if let Some(rest) = after(&text, what) {
                return Ok(rest.to_owned());
            }
            ensure!(Instant::now() < end, "udhcpc did not say `{what}`: {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let address = said("told-bound ")?;
    signal(&udhcpc, "USR1")?;
    ensure!(said("told-renew ")? == address);
    signal(&udhcpc, "TERM")?;
    udhcpc.wait(Duration::from_secs(10))?;
    let api = server.api()?;
    api.wait(STATUS, Duration::from_secs(10), |status| (status["dhcp"]["leases"] == 0).then_some(()))
}

fn signal(process: &Process, name: &str) -> Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &process.pid().to_string()]).status()?;
    ensure!(status.success(), "kill -{name}");
    Ok(())
}

#[test]
fn an_inform_is_answered_without_an_address() -> Result<()> {
    let wire = wire("inform")?;
    let _server = wire.start()?;
    let reply = wire.at_clients(|| {
        let socket = UdpSocket::bind((RELAY, 68))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut inform = vec![0; 240];
        inform[..4].copy_from_slice(&[1, 1, 6, 0]);
        inform[12..16].copy_from_slice(&RELAY.octets());
        inform[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        inform[236..240].copy_from_slice(&[99, 130, 83, 99]);
        inform.extend([53, 1, 8, 55, 2, 1, 3, 255]);
        inform.resize(300, 0);
        socket.send_to(&inform, (SERVER, 67))?;
        let mut buf = [0; 1500];
        let (len, from) = socket.recv_from(&mut buf)?;
        ensure!(from == (SERVER, 67).into(), "the reply came from {from}");
        Ok(buf[..len].to_vec())
    })?;
    ensure!(reply[16..20] == [0; 4], "an INFORM is given no address");
    ensure!(reply.windows(3).any(|w| w == [53, 1, 5]), "no ACK");
    ensure!(!reply[240..].windows(2).any(|w| w == [51, 4]), "an INFORM is given no lease time");
    Ok(())
}

#[test]
fn a_second_server_is_named_and_forgotten() -> Result<()> {
    if !exists("dnsmasq") {
        return Ok(());
    }
    let wire = wire("second-server")?;
    let server = wire.start()?;
    let api = server.api()?;
    let before = api.get(STATUS)?;
    ensure!(before["dhcp_servers"] == serde_json::json!([]), "{before}");
    let mut command = wire.clients.command("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--log-facility=-",
        "--user=root",
    ]);
    command.args([
        "--dhcp-authoritative",
        "--no-ping",
        "--bind-interfaces",
        &format!("--interface={CLIENTS}"),
    ]);
    command.arg(format!("--dhcp-range=10.65.0.10,10.65.0.250,{MASK},1h"));
    command.arg(format!("--dhcp-leasefile={}", wire.dir.join("leases").display()));
    command.arg(format!("--pid-file={}", wire.dir.join("dnsmasq.pid").display()));
    let mut dnsmasq = Process::start("dnsmasq", command, &wire.dir.join("dnsmasq.log"))?;
    let start = Instant::now();
    let seen = api.wait(STATUS, NAMED, |status| status["dhcp_servers"].get(0).cloned())?;
    println!("named after {:?}", start.elapsed());
    ensure!(seen["address"] == RELAY.to_string() && seen["interface"] == "v0", "{seen}");
    ensure!(seen["lends"] == true && seen["expected"] == false && seen["mac"].is_string(), "{seen}");
    dnsmasq.kill()?;
    api.wait(STATUS, FORGOTTEN, |status| (status["dhcp_servers"] == serde_json::json!([])).then_some(()))?;
    let events = api.get("/api/v1/events?limit=50")?;
    let kinds: Vec<_> =
        events["items"].as_array().into_iter().flatten().filter_map(|e| e["kind"].as_str()).collect();
    let count = |kind: &str| kinds.iter().filter(|k| **k == kind).count();
    ensure!(count("dhcp.foreign-server") == 1 && count("dhcp.foreign-server.gone") == 1, "{kinds:?}");
    Ok(())
}

#[test]
fn no_lease_that_was_acknowledged_is_lost_by_kill_9() -> Result<()> {
    let wire = wire("kill-9")?;
    let mut server = wire.start()?;
    let time = Duration::from_millis(1500);
    let load =
        Load { relay: RELAY, server: SERVER, window: 32, clients: 100_000, first: 0, time, pxe: false };
    let mut given = BTreeSet::new();
    for round in 0..2 {
        let load = Load { first: round * 100_000, ..load.clone() };
        let outcome = std::thread::scope(|scope| {
            let running = scope.spawn(|| wire.load(&load));
            std::thread::sleep(time / 2);
            server.kill()?;
            running.join().map_err(|_| anyhow::anyhow!("the load broke"))?
        })?;
        ensure!(outcome.done > 50, "only {} leases before the kill", outcome.done);
        for address in outcome.addresses {
            ensure!(given.insert(address), "{address} was given twice, the second time after the crash");
        }
        server.start_again()?;
    }
    // Whoever asks for one of them must hear that it is another's; some are asked for, spread over all.
    let sample: Vec<_> = given.iter().step_by(given.len().div_ceil(1000)).copied().collect();
    wire.at_clients(|| {
        for (n, address) in sample.iter().enumerate() {
            let stranger = 900_000 + u32::try_from(n)?;
            let may = dhcp_load::may_have(&load, stranger, *address)?;
            ensure!(may == Some(false), "{address} was lost: a stranger's request for it got {may:?}");
        }
        Ok(())
    })?;
    println!("{} leases over two crashes, {} asked for", given.len(), sample.len());
    Ok(())
}
