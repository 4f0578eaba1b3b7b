//! A serial console in real browsers: a machine (QEMU) that boots a real kernel and asks for a password on its serial
//! line. Boot messages from before anybody looked, a login, a second viewer, the recording, a revoked token.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use boot_server_core::console::cast::{self, Kind};
use serde_json::json;
use tests::bmc::ipmi_sim::{IpmiSim, PASSWORD as BMC_PASSWORD, Plan, USER as BMC_USER, button_of_files};
use tests::browser::Browser;
use tests::rack::{Api, Forward, Namespace, Process, Server, artifact};
use tests::simulated::SimulatedMachine;
use tests::site::{self, target};

/// What it takes under emulation on a busy machine.
const BOOT: Duration = Duration::from_secs(240);
const WAIT: Duration = Duration::from_secs(30);
/// Within this time a revoked token is cut off.
const CUT: Duration = Duration::from_secs(2);
const PASSWORD: &str = "rack-pass";
/// What a page shows, without the blanks that xterm.js puts between the words.
const SHOWN: &str = ".xterm-rows";

/// A server in a namespace of its own.
struct Site {
    server: Server,
    api: Api,
    node: String,
    dir: PathBuf,
    _provisioning: Forward,
    namespace: Namespace,
}

impl Site {
    /// A site with one node.
    fn new(name: &str) -> Result<Self> {
        let site::Site { server, api, provisioning, dir, namespace } =
            site::Site::new(&format!("console/{name}"))?;
        SimulatedMachine::new(&provisioning.url(), 1, "CONSOLE-1").boot_agent()?;
        let nodes = api.get("/api/v1/nodes")?;
        let node = nodes["items"][0]["name"].as_str().context("no node")?.to_owned();
        Ok(Self { server, api, node, dir, _provisioning: provisioning, namespace })
    }

    /// A browser that is signed in with this token, at the console of the node.
    fn look(&self, name: &str, token: &str) -> Result<Browser> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)?;
        let browser = Browser::start(&dir, None)?;
        browser.goto(&self.server.url())?;
        browser.find("#token")?.type_text(token)?;
        browser.find("#token-form button")?.click()?;
        browser.wait_text("h1", "Servers")?;
        browser.goto(&format!("{}/nodes/{}", self.server.url(), self.node))?;
        browser.find("a[href$='/console']")?.click()?;
        browser.wait_text("#console-state", "connected")?;
        Ok(browser)
    }

    /// A picture of the page, and the proof that it fits its window.
    fn picture(&self, browser: &Browser, name: &str) -> Result<()> {
        let dir = target().join("ui-screenshots");
        for (kind, width) in [("1280", 1280), ("390", 390)] {
            browser.resize(width, 900)?;
            std::thread::sleep(Duration::from_millis(300)); // the terminal fits itself anew
            let wide = browser.execute("return [document.documentElement.scrollWidth, window.innerWidth]")?;
            ensure!(wide[0].as_u64() <= wide[1].as_u64(), "{name} ({kind}) is wider than its window: {wide}");
            browser.screenshot(&dir.join(format!("{name}-{kind}.png")), true)?;
        }
        browser.resize(1280, 900)?;
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    }

    /// What `billet` prints; it is typed `input`, and after `shown` has come, `~.`.
    fn command_line(&self, arguments: &[&str], input: &str, shown: &str) -> Result<String> {
        let mut command = self.server.command_line()?;
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = Process::spawn("billet", command)?;
        let mut typing = process.child().stdin.take().context("no input")?;
        let mut printing = process.child().stdout.take().context("no output")?;
        typing.write_all(input.as_bytes())?;
        let (mut all, mut octets) = (Vec::new(), [0; 4096]);
        let mut left = false;
        loop {
            match printing.read(&mut octets)? {
                0 => break,
                n => all.extend(&octets[..n]),
            }
            if !left && !shown.is_empty() && String::from_utf8_lossy(&all).contains(shown) {
                typing.write_all(b"~.")?;
                left = true;
            }
        }
        ensure!(process.wait(WAIT)?.success(), "billet {arguments:?} failed");
        Ok(String::from_utf8_lossy(&all).into_owned())
    }

    fn log(&self) -> Result<Vec<u8>> {
        let url = format!("{}/api/v1/nodes/{}/console/log", self.server.url(), self.node);
        let answer = ureq::get(url).header("authorization", format!("Bearer {}", self.api.token)).call()?;
        Ok(answer.into_body().read_to_vec()?)
    }
}

/// What a script failed at, and what the content security policy blocked.
fn is_clean(browser: &Browser) -> Result<()> {
    let bad: Vec<_> = browser.console()?.into_iter().filter(|line| !line.contains("401")).collect();
    ensure!(bad.is_empty(), "the console says {bad:#?}");
    Ok(())
}

/// Types into the terminal, key by key.
fn type_text(browser: &Browser, text: &str) -> Result<()> {
    browser.find(".xterm-helper-textarea")?.type_text(text)
}

/// An initial RAM disk of busybox that asks for a login on the serial line.
fn login_ramdisk(dir: &Path) -> Result<PathBuf> {
    let root = dir.join("root");
    for name in ["bin", "sbin", "etc", "dev", "proc", "root"] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("package busybox-static is needed")?;
    for name in ["sh", "mount", "login", "cat", "stty"] {
        symlink("busybox", root.join("bin").join(name))?;
    }
    symlink("bin/busybox", root.join("init"))?;
    symlink("../bin/busybox", root.join("sbin/getty"))?;
    let hash = Command::new("openssl").args(["passwd", "-6", PASSWORD]).output()?;
    ensure!(hash.status.success(), "openssl passwd failed");
    let hash = String::from_utf8(hash.stdout)?;
    let files = [
        ("etc/passwd", format!("root:{}:0:0:root:/root:/bin/sh\n", hash.trim())),
        ("etc/group", "root:x:0:\n".to_owned()),
        ("etc/inittab", "::sysinit:/bin/mount -t devtmpfs dev /dev\n::sysinit:/bin/mount -t proc proc /proc\nttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100\n".to_owned()),
    ];
    for (name, text) in files {
        fs::write(root.join(name), text)?;
    }
    let file = dir.join("login.cpio");
    let pack = format!("find . | cpio -o -H newc --quiet > {}", file.display());
    let packed = Command::new("sh").args(["-c", &pack]).current_dir(&root).status()?;
    ensure!(packed.success(), "cpio failed");
    Ok(file)
}

/// A machine with this serial line.
fn machine(mut command: Command, dir: &Path, line: &str) -> Result<Process> {
    let chardev = format!("socket,id=console,{line}");
    command
        .args([
            "-accel",
            "tcg",
            "-m",
            "256",
            "-display",
            "none",
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
        ])
        .args(["-chardev", &chardev, "-serial", "chardev:console"])
        .args(["-append", "console=ttyS0,115200 panic=-1"])
        .arg("-kernel")
        .arg(artifact("ramdisk/vmlinuz")?)
        .arg("-initrd")
        .arg(login_ramdisk(dir)?)
        .stdin(Stdio::null());
    Process::start("qemu", command, &dir.join("qemu.log"))
}

/// Waits until `is` holds.
fn until(what: &str, limit: Duration, mut is: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let begun = Instant::now();
    while !is()? {
        ensure!(begun.elapsed() < limit, "{what} did not come within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(begun.elapsed())
}

#[test]
fn a_console_is_seen_typed_into_shared_recorded_and_cut() -> Result<()> {
    let site = Site::new("login")?;
    let socket = site.dir.join("serial.sock");
    // It starts once somebody is connected.
    let line = format!("path={},server=on,wait=on", socket.display());
    let _machine = machine(Command::new("qemu-system-x86_64"), &site.dir, &line)?;
    until("QEMU's socket", WAIT, || Ok(socket.exists()))?;
    let path = format!("/api/v1/nodes/{}/console", site.node);
    site.api.put(&path, &json!({ "source": format!("unix:{}", socket.display()) }))?;
    // Nobody looks while it boots.
    let has = |log: &[u8], text: &str| String::from_utf8_lossy(log).contains(text);
    until("the prompt", BOOT, || Ok(has(&site.log()?, "login: ")))?;
    ensure!(has(&site.log()?, "Linux version"), "the first line of the kernel is not kept");

    // What was printed before is there; a login, a command and its output.
    let first = site.look("first", &site.server.token()?)?;
    first.wait_text(SHOWN, "Run /init as init process")?;
    first.wait_text(SHOWN, "login:")?;
    type_text(&first, "root\n")?;
    first.wait_text(SHOWN, "Password:")?;
    type_text(&first, &format!("{PASSWORD}\n"))?;
    first.wait_text(SHOWN, "~ #")?;
    type_text(&first, "echo is-$((6*7))-it\n")?;
    first.wait_text(SHOWN, "is-42-it")?;
    first.wait_text("#console-viewers", "types")?;

    // A second viewer sees it as it happens, and takes over.
    let made = site.api.post("/api/v1/tokens", &json!({ "name": "olga", "role": "operator" }))?;
    let second = site.look("second", made["secret"].as_str().context("no token")?)?;
    second.wait_text(SHOWN, "is-42-it")?;
    first.wait_text("#console-viewers", "olga")?;
    type_text(&first, "echo live-$((1+1))\n")?;
    second.wait_text(SHOWN, "live-2")?;
    type_text(&second, "x")?;
    second.wait_text("#console-notice", "operator types; take over, or wait")?;
    site.picture(&second, "console-two")?;
    second.find("#console-take")?.click()?;
    first.wait_text("#console-notice", "olga took over typing from operator")?;
    type_text(&second, "echo mine-$((2+1))\n")?;
    first.wait_text(SHOWN, "mine-3")?;
    site.picture(&first, "console")?;

    // The command line looks too, types, and leaves by `~.`.
    second.find("#console-release")?.click()?;
    first.wait_text("#console-notice", "olga no longer types")?;
    let shown = site.command_line(&["node", "console", &site.node], "echo cli-$((3+1))\n", "cli-4")?;
    ensure!(shown.contains("mine-3") && shown.contains("cli-4"), "the command line shows {shown:?}");
    first.wait_text(SHOWN, "cli-4")?;

    // Colours and wide characters, under the same content security policy.
    second.wait_text("#console-viewers", "olga (you)")?;
    type_text(&second, "printf '\\033[38;2;255;138;76mbillet\\033[0m \\342\\202\\254\\n'\n")?;
    first.wait_text(SHOWN, "billet €")?;

    // Revoked: the page is cut off, and so is its session.
    let begun = Instant::now();
    site.api.delete("/api/v1/tokens/olga")?;
    let over =
        "return document.querySelector('#console-problem').innerText.includes('the token was revoked')";
    second.wait_for(over)?;
    ensure!(begun.elapsed() < CUT, "it took {:?}", begun.elapsed());
    println!("revoked_to_cut_ms {}", begun.elapsed().as_millis());
    first.wait_text("#console-viewers", "operator (you)")?;
    ensure!(!first.text("#console-viewers")?.contains("olga"), "she still looks");
    second.goto(&format!("{}/", site.server.url()))?;
    ensure!(second.url()?.contains("/login"), "she is still signed in");

    // The recording holds the same octets, and plays them.
    is_clean(&first)?;
    first.goto(&format!("{}/nodes/{}", site.server.url(), site.node))?;
    let list = format!("/api/v1/console/recordings?node={}", site.node);
    let mine = |r: &&serde_json::Value| r["who"] == "operator" && r["via"] == "web";
    let mut recording = String::new();
    until("the end of the recording", WAIT, || {
        let all = site.api.get(&list)?;
        let found = all["items"].as_array().into_iter().flatten().find(mine).context("no recording")?;
        recording = found["session"].as_str().context("no id")?.to_owned();
        Ok(!found["ended"].is_null())
    })?;
    let file = site.server.state_dir().join("console").join(format!("{recording}.cast"));
    let (header, events) = cast::parse(&fs::read_to_string(file)?)?;
    let of = |kind| -> Vec<u8> {
        events.iter().filter(|e| e.kind == kind).flat_map(|e| e.octets.clone()).collect()
    };
    let (printed, log) = (of(Kind::Output), site.log()?);
    ensure!(header.billet.who == "operator" && header.billet.from == "127.0.0.1", "{:?}", header.billet);
    ensure!(printed == log, "{} octets were recorded, {} printed", printed.len(), log.len());
    let played = site.command_line(&["console", "play", "--raw", &recording], "", "")?;
    ensure!(played.as_bytes() == printed, "`billet console play` prints other octets");
    let typed = String::from_utf8(of(Kind::Input))?;
    ensure!(typed.contains("root\r") && !typed.contains("mine"), "typed is {typed:?}");
    first.goto(&format!("{}/nodes/{}/console", site.server.url(), site.node))?;
    first.wait_text("#recordings", "olga")?;
    first.goto(&format!("{}/console/recordings/{recording}", site.server.url()))?;
    first.wait_for("return Number(document.getElementById('player-at').max) > 0")?;
    first.execute(
        "const at = document.getElementById('player-at'); at.value = at.max; \
         at.dispatchEvent(new Event('input'))",
    )?;
    first.wait_for(&format!(
        "return document.getElementById('player').dataset.octets === '{}'",
        printed.len()
    ))?;
    first.wait_text(SHOWN, "mine-3")?;
    first.wait_text("#player-note", "Typed:")?;
    site.picture(&first, "recording")?;
    first.find("#player-play")?.click()?;
    first.wait_text("#player-play", "Pause")?;
    is_clean(&first)
}

#[test]
fn the_console_of_a_bmc_is_there_while_somebody_looks() -> Result<()> {
    let site = Site::new("sol")?;
    let qemu = site.namespace.command("qemu-system-x86_64");
    let _machine = machine(qemu, &site.dir, "host=127.0.0.1,port=9003,server=on,wait=off")?;
    let dir = site.dir.join("bmc");
    fs::create_dir_all(&dir)?;
    let chassis = format!("{} 0x20", button_of_files(&dir)?.display());
    let (address, serial) = ("127.0.0.1:6230".parse()?, Some("127.0.0.1:9003".parse()?));
    let plan = Plan { dir: &dir, address, chassis: &chassis, serial, in_band: None, emulator: "" };
    let _simulator = IpmiSim::start(&plan, site.namespace.command("ipmi_sim"))?;
    let account = json!({ "driver": "ipmi", "address": "127.0.0.1", "port": 6230, "user": BMC_USER,
        "password": BMC_PASSWORD });
    site.api.put(&format!("/api/v1/nodes/{}/bmc", site.node), &account)?;
    let path = format!("/api/v1/nodes/{}/console", site.node);
    let console = site.api.get(&path)?;
    ensure!(console["source"] == "bmc" && console["state"] == "idle", "{console}");

    // The page of a node whose console nobody configured: typing reaches the machine, and what it prints comes back.
    let browser = site.look("browser", &site.server.token()?)?;
    until("the prompt", BOOT, || {
        type_text(&browser, "\n")?;
        std::thread::sleep(Duration::from_secs(1));
        Ok(browser.text(SHOWN)?.contains("login:"))
    })?;
    type_text(&browser, "root\n")?;
    browser.wait_text(SHOWN, "Password:")?;
    type_text(&browser, &format!("{PASSWORD}\n"))?;
    browser.wait_text(SHOWN, "~ #")?;
    type_text(&browser, "echo sol-$((6*7))\n")?;
    browser.wait_text(SHOWN, "sol-42")?;
    site.picture(&browser, "console-sol")?;

    // Nobody looks any more: the BMC's one session is free again, also for us.
    browser.goto(&site.server.url())?;
    until("the end of the session", WAIT, || Ok(site.api.get(&path)?["state"] == "idle"))?;
    let again = site.look("again", &site.server.token()?)?;
    again.wait_text(SHOWN, "sol-42")?;
    type_text(&again, "echo again-$((1+1))\n")?;
    again.wait_text(SHOWN, "again-2")?;
    is_clean(&again)
}
