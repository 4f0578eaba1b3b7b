//! A site is backed up while it is written to, and stands again on an empty machine: real processes, simulated machines.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::rack::{Api, Namespace, SERVER_ADDRESS, Server, binary};
use tests::simulated::{SimulatedMachine, inventory};
use tests::site::{Site, disk_with_gpt};
use tests_postgres::Postgres;

/// Those who write while the backup is made.
const WRITERS: usize = 4;
/// What was acknowledged before it begins.
const BEFORE: usize = 40;
/// Machines: one runs a server, one is being written, one is free.
const MACHINES: u8 = 3;
/// Of a busy host.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_site_stands_again_elsewhere() -> Result<()> {
    walk(Site::new("backup/sqlite")?)
}

#[test]
fn a_site_on_postgresql_stands_again_on_sqlite() -> Result<()> {
    let Some(database) = Postgres::start(&[])? else { return Ok(()) };
    walk(Site::on("backup/postgresql", database)?)
}

fn walk(site: Site) -> Result<()> {
    let mut machines = machines(&site)?;
    two_servers(&site, &mut machines)?;
    let file = site.dir.join("site.backup");
    std::fs::write(site.dir.join("passphrase"), "correct horse\n")?;
    let head = said(site.server.command_line()?.args(["audit", "head", "-o", "name"]))?;
    let (nodes, usage) = (nodes(&site.api)?, usage(&site.api)?);
    let known = write_meanwhile(&site, || {
        let began = Instant::now();
        billet(&["backup", "create"], &file, &site.dir, &site.dir)?;
        let size = std::fs::metadata(&file)?.len();
        println!("backup_s {:.2} backup_kib {}", began.elapsed().as_secs_f64(), size >> 10);
        Ok(())
    })?;
    let seen = billet(&["backup", "verify"], &file, &site.dir, &site.dir)?;
    ensure!(seen.contains("images") && seen.contains("rows of the database"), "{seen}");
    let key = site.dir.join("site.pub");
    std::fs::write(&key, said(site.server.command_line()?.args(["usage", "key"]))?)?;

    let again = Machine::new(&site.dir, "as-it-was")?;
    again.restore(&file, &key, &["--as-it-was"])?;
    let server = again.serve()?;
    let api = server.api()?;
    let (restored, metered) = (self::nodes(&api)?, self::usage(&api)?);
    ensure!(restored == nodes, "{restored:#?}\nis not\n{nodes:#?}");
    ensure!(metered == usage, "{metered:#?}\nis not\n{usage:#?}");
    let found = projects(&api)?;
    let lost: Vec<_> = known.difference(&found).collect();
    ensure!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
    let database = server.state_dir().join("billet.db");
    let verify = ["audit", "verify", "--head", head.trim(), "--database"];
    said(server.command_line()?.args(verify).arg(database))?;
    drop(server);

    let held = Machine::new(&site.dir, "held")?;
    held.restore(&file, &key, &[])?;
    let twice = held.restore(&file, &key, &[]).err().context("restored over a site")?.to_string();
    ensure!(twice.contains("is not empty"), "{twice}");
    let mut server = held.serve()?;
    is_held(&server.api()?)?;
    let release = ["backup", "release", "--config"];
    said(Command::new(binary()?).args(release).arg(held.dir.join("billet.toml")))?;
    server.stop()?;
    server.start_again()?;
    goes_on(&server.api()?)
}

/// Where a site stands again.
struct Machine {
    dir: PathBuf,
    namespace: Namespace,
}

impl Machine {
    fn new(below: &Path, name: &str) -> Result<Self> {
        let dir = below.join(name);
        std::fs::create_dir_all(&dir)?;
        let namespace = Namespace::new()?;
        namespace.bridge("br0", &format!("{SERVER_ADDRESS}/24"))?;
        let config = Server::default_config(&dir, &below.join("boot"));
        std::fs::write(dir.join("billet.toml"), config)?;
        Ok(Self { dir, namespace })
    }

    fn restore(&self, file: &Path, key: &Path, more: &[&str]) -> Result<()> {
        let began = Instant::now();
        let key = key.to_str().context("a path that is text")?;
        let args = [&["restore", "--public-key", key], more].concat();
        billet(&args, file, &self.dir, file.parent().context("a directory")?)?;
        println!("restore_s {:.2}", began.elapsed().as_secs_f64());
        Ok(())
    }

    fn serve(&self) -> Result<Server> {
        let config = std::fs::read_to_string(self.dir.join("billet.toml"))?;
        Server::start_on(&self.namespace, &self.dir, &config, None)
    }
}

/// A command on the files of the machine in `dir`.
fn billet(verb: &[&str], file: &Path, dir: &Path, secret: &Path) -> Result<String> {
    let mut command = Command::new(binary()?);
    command.args(verb).arg(file).arg("--passphrase-file").arg(secret.join("passphrase"));
    if verb[..] != ["backup", "verify"] {
        command.arg("--config").arg(dir.join("billet.toml"));
    }
    said(&mut command)
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

fn machines(site: &Site) -> Result<Vec<SimulatedMachine>> {
    let disk = site.dir.join("disk.raw");
    std::fs::write(&disk, disk_with_gpt())?;
    let upload = format!("/api/v1/images/upload?name=tiny&version=1&size={}&default_user=debian", 8 << 20);
    site.api.upload(&upload, &disk)?;
    let machine = |number| {
        let serial = format!("7XKQ2N{number}");
        let mut machine = SimulatedMachine::new(&site.provisioning.url(), number, &serial);
        machine.boot_agent()?;
        machine.send_inventory(&inventory(&machine, "PowerEdge R7615", "leaf-4a", true))?;
        Ok(machine)
    };
    let machines = (1..=MACHINES).map(machine).collect::<Result<Vec<_>>>()?;
    let flavor = json!({ "name": "any", "billed": { "cores": 64, "memory_mib": 131072, "disks": 2 } });
    site.api.post("/api/v1/flavors", &flavor)?;
    site.api.post("/api/v1/projects", &json!({ "name": "alpha" }))?;
    wait("available machines", || {
        let page = site.api.get("/api/v1/nodes?state=available&limit=500")?;
        Ok(page["items"].as_array().is_some_and(|items| items.len() == machines.len()))
    })?;
    Ok(machines)
}

/// The first comes up; the second's agent has taken its job, and is not done.
fn two_servers(site: &Site, machines: &mut [SimulatedMachine]) -> Result<()> {
    for (name, ends) in [("runs", true), ("is-written", false)] {
        let body = json!({ "name": name, "flavor": "any", "image": "tiny" });
        site.api.post("/api/v1/projects/alpha/servers", &body)?;
        let (machine, work) = wait_work(machines)?;
        if ends {
            let job = work["job"]["id"].as_str().context("a job")?;
            machine.report(job, &[json!({ "kind": "finished", "summary": {} })])?;
            machine.boot()?;
            machine.phone_home(&work)?;
            wait("server that runs", || {
                Ok(site.api.get("/api/v1/projects/alpha/servers/runs")?["phase"] == "active")
            })?;
        }
    }
    Ok(())
}

fn wait_work(machines: &mut [SimulatedMachine]) -> Result<(&mut SimulatedMachine, Value)> {
    let end = Instant::now() + SOON;
    loop {
        for (number, machine) in machines.iter_mut().enumerate() {
            // The agent of a machine that runs its OS is gone.
            let work = machine.work(0).unwrap_or_default();
            if work["job"]["id"].is_string() {
                return Ok((&mut machines[number], work));
            }
        }
        ensure!(Instant::now() < end, "no machine has work");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn wait(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + SOON;
    while !done()? {
        ensure!(Instant::now() < end, "no {what} in {SOON:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Projects are made all the time while `backup` runs. Returns those that were acknowledged before.
fn write_meanwhile(site: &Site, backup: impl FnOnce() -> Result<()>) -> Result<BTreeSet<String>> {
    let (acknowledged, stop) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    let count = || acknowledged.lock().expect("nobody panics with it").len();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (acknowledged, stop, api) = (&acknowledged, &stop, site.api.clone());
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("p{writer}-{number}");
                    let made = api.post("/api/v1/projects", &json!({ "name": name }));
                    if made.is_err() || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    acknowledged.lock().expect("nobody panics with it").insert(name);
                }
            });
        }
        let all = (|| {
            wait("writes", || Ok(count() >= BEFORE))?;
            let before = acknowledged.lock().expect("nobody panics with it").clone();
            backup()?;
            ensure!(count() > before.len(), "nobody wrote while the backup was made");
            Ok(before)
        })();
        stop.store(true, Ordering::Relaxed);
        all
    })
}

fn projects(api: &Api) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut next = Some("/api/v1/projects?limit=100".to_owned());
    while let Some(path) = next {
        let page = api.get(&path)?;
        let items = page["items"].as_array().context("no list")?;
        names.extend(items.iter().filter_map(|item| item["name"].as_str()).map(str::to_owned));
        next = page["next"].as_str().map(|cursor| format!("/api/v1/projects?limit=100&cursor={cursor}"));
    }
    Ok(names)
}

/// What is to be the same: all of a node but when it was last heard, and until when it is waited for, which starts anew.
fn nodes(api: &Api) -> Result<Vec<Value>> {
    let page = api.get("/api/v1/nodes?limit=500")?;
    let items = page["items"].as_array().context("no list")?;
    let same = |item: &Value| {
        let path = format!("/api/v1/nodes/{}", item["id"].as_str().context("an id")?);
        let mut node = api.get(&path)?;
        let fields = node.as_object_mut().context("an object")?;
        fields.remove("deadline");
        Ok(node)
    };
    items.iter().map(same).collect()
}

/// What was metered: whose, since when, until when.
fn usage(api: &Api) -> Result<Vec<Value>> {
    let usage = api.get("/api/v1/projects/alpha/usage")?;
    let lines = usage["lines"].as_array().context("no lines")?;
    let same = |line: &Value| json!([line["server"], line["name"], line["from"], line["open"]]);
    Ok(lines.iter().map(same).collect())
}

/// Nothing goes on, and nothing begins, before somebody has looked.
fn is_held(api: &Api) -> Result<()> {
    for node in nodes(api)? {
        let why = node["maintenance"].to_string();
        ensure!(why.contains("restored from a backup of"), "{node:#}");
    }
    let failed = api.get("/api/v1/nodes?limit=500")?;
    let failed: Vec<_> = failed["items"].as_array().context("no list")?.iter().collect();
    let states: BTreeSet<_> = failed.iter().filter_map(|node| node["state"].as_str()).collect();
    ensure!(states == BTreeSet::from(["active", "available", "failed"]), "{states:?}");
    let body = json!({ "name": "more", "flavor": "any", "image": "tiny" });
    let said = api.post("/api/v1/projects/alpha/servers", &body).err().context("a held machine was lent")?;
    ensure!(format!("{said:#}").contains("no-capacity"), "{said:#}");
    let jobs = api.get("/api/v1/events?limit=500")?.to_string();
    ensure!(jobs.contains("called off: the site was restored"), "{jobs}");
    Ok(())
}

/// Somebody has looked.
fn goes_on(api: &Api) -> Result<()> {
    let node = api.get("/api/v1/nodes?state=available")?["items"][0]["id"].clone();
    let path = format!("/api/v1/nodes/{}/maintenance", node.as_str().context("a node")?);
    api.post(&path, &json!({ "reason": null }))?;
    let body = json!({ "name": "more", "flavor": "any", "image": "tiny" });
    api.post("/api/v1/projects/alpha/servers", &body)?;
    wait("server that is driven", || {
        Ok(api.get("/api/v1/nodes?state=deploying")?["items"]
            .as_array()
            .is_some_and(|items| items.len() == 1))
    })
}
