//! The program against Open vSwitch's own `ovsdb-server` and `ovs-vswitchd` (user space, in a network namespace of the
//! test), and a real `billet-blk`. Needs root, for the namespace.

#![expect(clippy::unwrap_used, reason = "what goes wrong here fails a test")]

use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use protocol::dpu::Observed;
use serde_json::{Value, json};

/// Whatever a machine under load needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Logical ports.
const PORTS: [&str; 2] = ["5f6a4e3e-0000-4000-8000-000000000001", "5f6a4e3e-0000-4000-8000-000000000002"];

/// A DPU: a switch with two hosts, each a namespace behind a veth, and a disk.
struct Dpu {
    dir: PathBuf,
    /// Killed in this order at the end.
    children: Vec<Child>,
    switch: u32,
    hosts: [u32; 2],
}

impl Dpu {
    fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("billet-dpu-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let mut dpu = Self { dir, children: Vec::new(), switch: 0, hosts: [0, 0] };
        let database = dpu.dir.join("conf.db");
        run(Command::new("ovsdb-tool")
            .arg("create")
            .arg(&database)
            .arg("/usr/share/openvswitch/vswitch.ovsschema"));
        let remote = format!("--remote=punix:{}", dpu.dir.join("db.sock").display());
        let control = format!("--unixctl={}", dpu.dir.join("ovsdb.ctl").display());
        dpu.spawn("ovsdb", Command::new("ovsdb-server").args([remote, control]).arg(&database));
        until("the database listens", || UnixStream::connect(dpu.dir.join("db.sock")).is_ok());
        dpu.vsctl(&["--no-wait", "init"]);
        let control = dpu.dir.join("vswitchd.ctl");
        dpu.switch = dpu.spawn(
            "vswitchd",
            Command::new("unshare")
                .args(["-n", "ovs-vswitchd"])
                .arg(dpu.database())
                .arg(format!("--unixctl={}", control.display()))
                .env("OVS_RUNDIR", &dpu.dir),
        );
        until("the switch runs", || control.exists());
        for n in [0, 1] {
            let host = dpu.spawn("host", Command::new("unshare").args(["-n", "sleep", "1000"]));
            let own = fs::read_link("/proc/self/ns/net").unwrap();
            until("there is a namespace", || {
                fs::read_link(format!("/proc/{host}/ns/net")).is_ok_and(|namespace| namespace != own)
            });
            dpu.hosts[n] = host;
            let (near, far) = (format!("h{n}"), format!("g{n}"));
            inside(dpu.switch, &["ip", "link", "add", &near, "type", "veth", "peer", "name", &far]);
            inside(dpu.switch, &["ip", "link", "set", &near, "up"]);
            inside(dpu.switch, &["ip", "link", "set", &far, "netns", &host.to_string()]);
            inside(host, &["ip", "addr", "add", &format!("10.9.8.{}/24", n + 1), "dev", &far]);
            inside(host, &["ip", "link", "set", &far, "up"]);
        }
        for name in ["f0", "x0", "tap0"] {
            inside(
                dpu.switch,
                &["ip", "link", "add", name, "type", "veth", "peer", "name", &format!("{name}p")],
            );
        }
        File::create(dpu.dir.join("disk")).unwrap().set_len(1 << 20).unwrap();
        dpu
    }

    fn spawn(&mut self, name: &str, command: &mut Command) -> u32 {
        let log = File::create(self.dir.join(format!("{name}.log"))).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let pid = child.id();
        self.children.insert(0, child);
        pid
    }

    fn database(&self) -> String {
        format!("unix:{}", self.dir.join("db.sock").display())
    }

    fn vsctl(&self, words: &[&str]) -> String {
        run(Command::new("ovs-vsctl")
            .arg(format!("--db={}", self.database()))
            .arg("--timeout=30")
            .args(words))
    }

    fn ports(&self, bridge: &str) -> Vec<String> {
        self.vsctl(&["list-ports", bridge]).lines().map(str::to_owned).collect()
    }

    /// The words of the program's verbs `plan` and `run`.
    fn place(&self) -> Vec<String> {
        let dir = self.dir.join("agent").display().to_string();
        let blk = Path::new(env!("CARGO_BIN_EXE_billet-dpu")).with_file_name("billet-blk");
        assert!(blk.exists(), "{} is missing: cargo build -p dpu-agent-blk", blk.display());
        ["--dir", &dir, "--database", &self.database(), "--blk", &blk.display().to_string()]
            .map(str::to_owned)
            .into()
    }

    fn wish(&self, state: &Value) {
        fs::write(self.dir.join("state.next"), state.to_string()).unwrap();
        fs::rename(self.dir.join("state.next"), self.dir.join("state.json")).unwrap();
    }

    fn plan(&self) -> String {
        let state = self.dir.join("state.json");
        run(Command::new(env!("CARGO_BIN_EXE_billet-dpu")).arg("plan").arg(state).args(self.place()))
    }

    /// Starts the program; the report of the one before is gone.
    fn agent(&self) -> Agent {
        let _ = fs::remove_file(self.dir.join("status.json"));
        let log = File::options().create(true).append(true).open(self.dir.join("agent.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_billet-dpu"));
        command.arg("run").arg("--state").arg(self.dir.join("state.json"));
        command.arg("--status").arg(self.dir.join("status.json")).args(self.place());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Agent(command.spawn().unwrap())
    }

    fn status(&self) -> Option<Observed> {
        serde_json::from_slice(&fs::read(self.dir.join("status.json")).ok()?).unwrap()
    }

    /// Waits for a report of which `is_so` says so.
    fn reports(&self, what: &str, is_so: impl Fn(&Observed) -> bool) -> Observed {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| is_so(status)) {
                return status.clone();
            }
            assert!(Instant::now() < end, "not so: {what}: {status:?}");
            std::thread::sleep(LOOK);
        }
    }

    fn settles(&self, generation: u64) -> Observed {
        self.reports("it settles", |status| status.settled && status.generation == Some(generation))
    }

    /// Transactions of the program that are in the log of the database.
    fn transactions(&self) -> usize {
        let log = fs::read(self.dir.join("conf.db")).unwrap();
        String::from_utf8_lossy(&log).matches("billet-dpu: ").count()
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("run/data.sock")
    }

    /// Ports, mirror and disk; `serial` is the disk's.
    fn state(&self, generation: u64, ports: usize, serial: Option<&str>) -> Value {
        let port = |n: usize| {
            let mac = format!("52:54:00:00:09:0{n}");
            let mut port = json!({ "interface": format!("h{n}"), "port": PORTS[n], "mac": mac, "mtu": 1500 });
            if n == 1 {
                port["ingress"] = json!({ "kbps": 500_000, "burst_kb": 50_000 });
                port["egress_kbps"] = json!(600_000);
            }
            port
        };
        let mirror = |n: usize| match n {
            0 => json!({ "name": "near", "source": "h0", "output": "tap0" }),
            _ => json!({
                "name": "far", "source": "h1", "direction": "to_host", "output": "gre1",
                "gre": { "remote": "192.0.2.99", "key": 5 },
            }),
        };
        let volume = |serial: &str| {
            let serves = json!({ "kind": "file", "path": self.dir.join("disk") });
            let exporter = json!({ "kind": "blk", "serves": serves });
            json!({ "name": "data", "serial": serial, "socket": self.socket(), "exporter": exporter })
        };
        json!({
            "version": 1,
            "generation": generation,
            "chassis": {
                "system_id": "dpu-test",
                "ovn_remote": "tcp:192.0.2.1:6642",
                "encap": { "kind": "geneve", "address": "192.0.2.17" },
                "datapath": "netdev",
                "mtu": 1450,
            },
            "ports": (0..ports).map(port).collect::<Vec<_>>(),
            "mirrors": (0..ports).map(mirror).collect::<Vec<_>>(),
            "volumes": serial.map(volume).into_iter().collect::<Vec<_>>(),
        })
    }
}

impl Drop for Dpu {
    fn drop(&mut self) {
        for volume in self.status().into_iter().flat_map(|status| status.volumes) {
            volume.pid.into_iter().for_each(kill);
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the files are in {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The running program; `kill -9` when dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

fn run(command: &mut Command) -> String {
    let out = command
        .output()
        .expect("ovs-vsctl, ovs-ofctl (openvswitch), nsenter (util-linux), ip (iproute2), ps (procps)");
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Runs a program in the network namespace of a process.
fn inside(pid: u32, words: &[&str]) -> String {
    run(Command::new("nsenter").args(["-n", "-t", &pid.to_string()]).args(words))
}

fn kill(pid: u32) {
    run(Command::new("kill").args(["-9", &pid.to_string()]));
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not so: {what}");
        std::thread::sleep(LOOK);
    }
}

#[test]
fn a_dpu_becomes_what_it_is_to_be_and_stays_so_without_us() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: namespaces need root");
        return;
    }
    let dpu = Dpu::start();
    dpu.vsctl(&["add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev"]);
    dpu.vsctl(&["add-port", "br-phy", "f0"]);
    first_state(&dpu);
    killed_under_ping(&dpu);
    let connection = exporter_comes_back(&dpu);
    a_change_of_what_is_in_use_waits(&dpu, connection);
    a_reboot_without_the_server(&dpu);
    what_others_have_is_left(&dpu);
    a_bad_disk_harms_nobody(&dpu);
    nothing_is_left(&dpu);
}

fn first_state(dpu: &Dpu) {
    dpu.wish(&dpu.state(1, 2, Some("ONE")));
    let plan = dpu.plan();
    let words = [
        "start the exporter of volume data",
        "add bridge br-int",
        "set chassis dpu-test",
        "add port h0",
        "add port h1",
    ];
    let order: Vec<_> = words.iter().map(|words| plan.find(words)).collect();
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{plan}");
    assert_eq!(dpu.transactions(), 0, "a plan changes nothing");

    let _agent = dpu.agent();
    let status = dpu.settles(1);
    assert_eq!(dpu.ports("br-int"), ["gre1", "h0", "h1", "tap0"]);
    assert!(dpu.vsctl(&["get", "interface", "h1", "external_ids:iface-id"]).contains(PORTS[1]));
    assert_eq!(dpu.vsctl(&["get", "interface", "br-int", "mtu_request"]).trim(), "1450");
    assert!(dpu.vsctl(&["get", "Open_vSwitch", ".", "external_ids:ovn-encap-ip"]).contains("192.0.2.17"));
    assert!(dpu.vsctl(&["get", "bridge", "br-int", "fail_mode"]).contains("secure"));
    assert_eq!(dpu.vsctl(&["get", "interface", "h1", "ingress_policing_rate"]).trim(), "500000");
    assert!(dpu.vsctl(&["list", "qos"]).contains("max-rate=\"600000000\""));
    assert!(dpu.vsctl(&["get", "interface", "gre1", "options"]).contains("192.0.2.99"));
    let mut mirrors = status.mirrors.clone();
    mirrors.sort();
    assert_eq!(mirrors, ["far", "near"]);
    assert!(status.ports.iter().all(|port| port.number.is_some()), "{status:?}");
    assert!(plan.lines().count() >= dpu.transactions() && dpu.transactions() == 8, "{plan}");
    assert_eq!(dpu.plan(), "", "a second plan");
}

/// `kill -9` and a new start, three times, while one host pings the other.
fn killed_under_ping(dpu: &Dpu) {
    let flow = ["add-flow", &format!("unix:{}", dpu.dir.join("br-int.mgmt").display()), "actions=NORMAL"];
    run(Command::new("ovs-ofctl").args(flow));
    let by = |n: usize| dpu.hosts[n].to_string();
    until("the hosts reach each other", || {
        let words = ["-n", "-t", &by(0), "ping", "-c", "1", "-W", "1", "10.9.8.2"];
        Command::new("nsenter").args(words).stdout(Stdio::null()).status().unwrap().success()
    });
    // Somebody plugs a port of their own into our bridge.
    dpu.vsctl(&["add-port", "br-int", "x0"]);
    let before = {
        let _agent = dpu.agent();
        dpu.settles(1)
    };
    let (pid, transactions) = (before.volumes[0].pid, dpu.transactions());
    assert!(pid.is_some());
    let ping = Command::new("nsenter")
        .args(["-n", "-t", &by(0), "ping", "-n", "-i", "0.1", "-w", "8", "10.9.8.2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..3 {
        let _agent = dpu.agent();
        let status = dpu.settles(1);
        assert_eq!((status.volumes[0].pid, status.volumes[0].restarts), (pid, 0), "the exporter is the same");
        std::thread::sleep(Duration::from_millis(700));
    }
    let said = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
    assert!(said.contains(" 0% packet loss"), "{said}");
    println!("{}", said.lines().find(|line| line.contains("packet loss")).unwrap());
    assert_eq!(dpu.transactions(), transactions, "a new start changes nothing");
    assert_eq!(dpu.ports("br-int"), ["gre1", "h0", "h1", "tap0", "x0"]);
}

/// A host's connection to the exporter, after the exporter was killed.
fn exporter_comes_back(dpu: &Dpu) -> UnixStream {
    let _agent = dpu.agent();
    let pid = dpu.settles(1).volumes[0].pid.unwrap();
    let killed = Instant::now();
    kill(pid);
    let status = dpu.reports("another exporter runs", |status| {
        status.volumes[0].pid.is_some_and(|now| now != pid) && status.volumes[0].restarts == 1
    });
    until("it takes connections", || UnixStream::connect(dpu.socket()).is_ok());
    println!("exporter back after {:?}", killed.elapsed());
    let again = status.volumes[0].pid.unwrap();
    let leads = run(Command::new("ps").args(["-o", "sid=", "-p", &again.to_string()]));
    assert_eq!(leads.trim(), again.to_string(), "a session of its own");
    UnixStream::connect(dpu.socket()).unwrap()
}

fn a_change_of_what_is_in_use_waits(dpu: &Dpu, connection: UnixStream) {
    let _agent = dpu.agent();
    let pid = dpu.settles(1).volumes[0].pid;
    dpu.wish(&dpu.state(2, 1, Some("TWO")));
    let status = dpu.reports("the change of the disk waits", |status| {
        status.generation == Some(2)
            && status.problems.iter().any(|line| line.contains("in use with other settings"))
    });
    assert!(!status.settled);
    until("the port is gone", || dpu.ports("br-int") == ["h0", "tap0", "x0"]);
    assert_eq!(dpu.ports("br-phy"), ["f0"]);
    assert_eq!(dpu.vsctl(&["list", "qos"]), "");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(dpu.status().unwrap().volumes[0].pid, pid, "it was left alone");
    drop(connection);
    let status = dpu.settles(2);
    assert_ne!(status.volumes[0].pid, pid);
    let line = fs::read(format!("/proc/{}/cmdline", status.volumes[0].pid.unwrap())).unwrap();
    assert!(String::from_utf8_lossy(&line).contains("--serial\0TWO\0"));

    // An older state is not followed, and a bad one neither.
    dpu.wish(&dpu.state(1, 2, None));
    dpu.reports("it is refused", |status| {
        status.problems.iter().any(|line| line.contains("generation 1 is older"))
    });
    fs::write(dpu.dir.join("state.json"), "{").unwrap();
    dpu.reports("it is refused", |status| status.problems.iter().any(|line| line.contains("cannot be read")));
    assert_eq!(dpu.ports("br-int"), ["h0", "tap0", "x0"]);
}

/// As after a reboot with nobody there: no exporter, no state file; the rows are there, and the last good state.
fn a_reboot_without_the_server(dpu: &Dpu) {
    let pid = dpu.status().unwrap().volumes[0].pid.unwrap();
    kill(pid);
    fs::remove_file(dpu.dir.join("state.json")).unwrap();
    let transactions = dpu.transactions();
    let _agent = dpu.agent();
    let status = dpu.reports("the disk is served", |status| {
        status.volumes.first().is_some_and(|volume| volume.pid.is_some_and(|now| now != pid))
    });
    assert_eq!(status.generation, Some(2));
    assert_eq!(dpu.transactions(), transactions);
}

/// A port and a socket that others have are named, and left.
fn what_others_have_is_left(dpu: &Dpu) {
    let _agent = dpu.agent();
    let mut state = dpu.state(3, 1, Some("TWO"));
    let socket = dpu.dir.join("run/theirs.sock");
    let theirs = UnixListener::bind(&socket).unwrap();
    let mut volume = state["volumes"][0].clone();
    (volume["name"], volume["socket"]) = ("theirs".into(), json!(socket));
    volume["exporter"]["serves"]["path"] = json!(dpu.dir.join("other"));
    state["volumes"].as_array_mut().unwrap().push(volume);
    let mut port = state["ports"][0].clone();
    (port["interface"], port["port"], port["mac"]) =
        ("x0".into(), PORTS[1].into(), "52:54:00:00:09:09".into());
    state["ports"].as_array_mut().unwrap().push(port);
    dpu.wish(&state);
    dpu.reports("both are named", |status| {
        let says = |words: &str| status.problems.iter().any(|line| line.contains(words));
        says("x0 is plugged into the switch by somebody else") && says("theirs.sock is served by a program")
    });
    UnixStream::connect(&socket).unwrap();
    drop(theirs);
    assert_eq!(dpu.vsctl(&["get", "interface", "x0", "external_ids"]).trim(), "{}");
    assert_eq!(dpu.ports("br-int"), ["h0", "tap0", "x0"]);
}

/// An exporter that dies at once is tried ever less often, until its settings are mended; the others go on.
fn a_bad_disk_harms_nobody(dpu: &Dpu) {
    let _agent = dpu.agent();
    let mut state = dpu.state(4, 1, Some("TWO"));
    let mut volume = state["volumes"][0].clone();
    (volume["name"], volume["socket"]) = ("bad".into(), json!(dpu.dir.join("run/bad.sock")));
    let image = "de67b0497beb204c811a6fa64a6677226f3ec27b75acad02ae5c8b6ee2f4ea65";
    let layer = dpu.dir.join("layer");
    volume["exporter"]["serves"] = json!({ "kind": "image", "image": image, "store": "/nowhere", "layer": layer, "size": 1 << 20, "rate": 0 });
    state["volumes"].as_array_mut().unwrap().push(volume);
    dpu.wish(&state);
    let of = |status: &Observed, name: &str| {
        status.volumes.iter().find(|volume| volume.name.as_str() == name).cloned()
    };
    let begun = Instant::now();
    let status = dpu.reports("it is tried three times", |status| {
        let is_said = status.problems.iter().any(|line| line.contains("volume bad died"));
        is_said && of(status, "bad").is_some_and(|volume| volume.restarts >= 2)
    });
    assert!(begun.elapsed() >= Duration::from_secs(3), "1 s and 2 s: {:?}", begun.elapsed());
    let said = fs::read_to_string(dpu.dir.join("agent/exporters/bad.log")).unwrap();
    assert!(said.contains("cannot begin the layer"), "the command line is understood: {said}");
    let good = of(&status, "data").unwrap();
    let serves = json!({ "kind": "file", "path": dpu.dir.join("other") });
    File::create(dpu.dir.join("other")).unwrap().set_len(1 << 20).unwrap();
    state["volumes"][1]["exporter"]["serves"] = serves;
    state["generation"] = json!(5);
    dpu.wish(&state);
    let status = dpu.settles(5);
    assert!(of(&status, "bad").unwrap().pid.is_some());
    assert_eq!(of(&status, "data").unwrap().pid, good.pid);
}

fn nothing_is_left(dpu: &Dpu) {
    let _agent = dpu.agent();
    dpu.wish(&dpu.state(6, 0, None));
    let status = dpu.settles(6);
    assert!(status.ports.is_empty() && status.mirrors.is_empty() && status.volumes.is_empty(), "{status:?}");
    assert_eq!((dpu.ports("br-int"), dpu.ports("br-phy")), (vec!["x0".to_owned()], vec!["f0".to_owned()]));
    assert!(!dpu.socket().exists());
    assert_eq!(dpu.vsctl(&["list", "mirror"]), "");
    let left: Vec<_> = fs::read_dir(dpu.dir.join("agent/exporters")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn check_names_what_is_wrong() {
    let path = std::env::temp_dir().join(format!("billet-dpu-check-{}.json", std::process::id()));
    let check = |text: &str| {
        fs::write(&path, text).unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_billet-dpu")).arg("check").arg(&path).output().unwrap();
        (out.status.success(), String::from_utf8([out.stdout, out.stderr].concat()).unwrap())
    };
    let good = include_str!("../../protocol/src/dpu.v1.json");
    let (fine, words) = check(good);
    assert!(fine && words.contains("generation 7, 1 ports, 1 mirrors, 2 volumes"), "{words}");
    let (fine, words) = check(&good.replace("\"source\": \"pf0hpf\"", "\"source\": \"pf9\""));
    assert!(!fine && words.contains("mirror watch copies pf9, which is none of the ports"), "{words}");
    let (fine, words) = check(&good.replace("\"mtu\"", "\"mut\""));
    assert!(!fine && words.contains("unknown field `mut`") && words.contains("line"), "{words}");
    fs::remove_file(&path).unwrap();
}
