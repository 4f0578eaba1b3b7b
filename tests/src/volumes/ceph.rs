//! One node of Ceph: a monitor and a store in memory, with authentication, in a namespace that has [`ADDRESS`]. No manager: what
//! only it answers (`ceph df`) is not asked here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{ADDRESS, run};
use crate::rack::{Namespace, Process};

/// For one command.
const PATIENCE: Duration = Duration::from_secs(30);
/// For a daemon to come up.
const START: Duration = Duration::from_secs(60);

/// The pool of volumes.
pub const POOL: &str = "volumes";

/// What Billet's user may ask of the monitors (docs/guide/volumes.md).
const RIGHTS: &str = "profile rbd, allow command \"auth get-or-create\", allow command \"auth rm\", \
                      allow command \"osd blocklist\"";

/// A running cluster.
pub struct Ceph {
    dir: PathBuf,
    namespace: String,
    processes: Vec<Process>,
}

/// What is in a cluster, counted.
pub type Census = BTreeMap<&'static str, usize>;

impl Ceph {
    /// Starts it; its files are in `dir/ceph`.
    ///
    /// # Errors
    /// Where a program does not come up (packages ceph-mon, ceph-osd and ceph-common).
    pub fn start(namespace: &Namespace, dir: &Path) -> Result<Self> {
        let dir = dir.join("ceph");
        for name in ["run", "log", "mon", "osd"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let mut ceph = Self { dir, namespace: namespace.name().to_owned(), processes: Vec::new() };
        let fsid = uuid::Uuid::new_v4().to_string();
        fs::write(ceph.configuration(), configuration(&ceph.dir, &fsid))?;
        ceph.make_monitor(&fsid)?;
        ceph.daemon("ceph-mon", &["-i", "a"])?;
        ceph.until("the monitor answers", || ceph.run("ceph", &["mon", "stat"]))?;
        ceph.start_store()?;
        ceph.run("ceph", &["osd", "set-require-min-compat-client", "nautilus"])?;
        ceph.run("ceph", &["osd", "pool", "create", POOL, "8", "8"])?;
        ceph.run("ceph", &["osd", "pool", "application", "enable", POOL, "rbd"])?;
        let probe = ceph.dir.join("ceph.conf");
        let probe = probe.to_str().context("a path that is not UTF-8")?;
        ceph.until("the pool takes objects", || ceph.run("rados", &["-p", POOL, "put", "probe", probe]))?;
        ceph.run("rados", &["-p", POOL, "rm", "probe"])?;
        Ok(ceph)
    }

    /// Makes the user that Billet is, with the rights that the guide names; its keyring.
    ///
    /// # Errors
    /// As [`Ceph::run`].
    pub fn billet(&self) -> Result<PathBuf> {
        let keyring = self.dir.join("billet.keyring");
        let path = keyring.to_str().context("a path that is not UTF-8")?;
        let osd = format!("profile rbd pool={POOL}");
        self.run(
            "ceph",
            &["auth", "get-or-create", "client.billet", "mon", RIGHTS, "osd", &osd, "-o", path],
        )?;
        Ok(keyring)
    }

    /// Its `ceph.conf`.
    pub fn configuration(&self) -> PathBuf {
        self.dir.join("ceph.conf")
    }

    /// What is in it that Billet made: images, their snapshots, objects of either, users.
    ///
    /// # Errors
    /// As [`Ceph::run`].
    pub fn census(&self) -> Result<Census> {
        let listed = self.run("rbd", &["ls", "--long", "--format", "json", POOL])?;
        let listed: Vec<Value> = serde_json::from_str(&listed)?;
        let snapshots = listed.iter().filter(|line| line["snapshot"].is_string()).count();
        let objects = self.run("rados", &["-p", POOL, "ls"])?;
        let of_images = |name: &&str| ["rbd_data.", "rbd_header."].iter().any(|kind| name.starts_with(kind));
        let users = self.run("ceph", &["auth", "ls"])?;
        Ok(Census::from([
            ("images", listed.len() - snapshots),
            ("snapshots", snapshots),
            ("objects", objects.lines().filter(of_images).count()),
            ("users", users.lines().filter(|line| line.trim().starts_with("client.billet-")).count()),
        ]))
    }

    /// A command of `ceph`, `rbd` or `rados` as its administrator.
    ///
    /// # Errors
    /// Where it fails or has no answer.
    pub fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        run(command.arg("-c").arg(self.configuration()).args(words), PATIENCE)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    fn daemon(&mut self, program: &str, words: &[&str]) -> Result<()> {
        let mut command = self.command(program);
        command.arg("-c").arg(self.configuration()).arg("-f").args(words);
        let log = self.dir.join("log").join(format!("{program}.out"));
        self.processes.push(Process::start(program, command, &log)?);
        Ok(())
    }

    fn make_monitor(&self, fsid: &str) -> Result<()> {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let (keyring, map) = (path("keyring"), path("monmap"));
        let all = ["--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"];
        let tool = |program: &str, words: &[&str]| run(Command::new(program).args(words), PATIENCE);
        tool("ceph-authtool", &["-C", &keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"])?;
        tool("ceph-authtool", &[&[&*keyring, "--gen-key", "-n", "client.admin"], &all[..]].concat())?;
        let address = format!("[v2:{ADDRESS}:3300,v1:{ADDRESS}:6789]");
        let words = ["--create", "--clobber", "--fsid", fsid, "--addv", "a", &address, &map];
        tool("monmaptool", &words)?;
        self.run("ceph-mon", &["--mkfs", "-i", "a", "--monmap", &map, "--keyring", &keyring]).map(drop)
    }

    fn start_store(&mut self) -> Result<()> {
        let keyring = self.dir.join("osd/keyring");
        let keyring = keyring.to_str().context("a path that is not UTF-8")?;
        let id = uuid::Uuid::new_v4().to_string();
        self.run("ceph", &["osd", "new", &id])?;
        run(Command::new("ceph-authtool").args(["-C", keyring, "-n", "osd.0", "--gen-key"]), PATIENCE)?;
        // The store asks the monitor for its settings before it makes its files, so it must be known already.
        let caps = ["mon", "allow profile osd", "osd", "allow *", "mgr", "allow profile osd"];
        self.run("ceph", &[&["auth", "add", "osd.0"], &caps[..], &["-i", keyring]].concat())?;
        let words = ["-i", "0", "--mkfs", "--osd-uuid", &id, "--keyring", keyring];
        self.run("ceph-osd", &words)?;
        self.daemon("ceph-osd", &["-i", "0", "--keyring", keyring])?;
        self.until("the store is up", || {
            let said = self.run("ceph", &["osd", "stat"])?;
            ensure!(said.contains("1 up"), "{said}");
            Ok(said)
        })
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> Result<String>) -> Result<()> {
        let end = Instant::now() + START;
        loop {
            match is_so() {
                Ok(_) => return Ok(()),
                Err(e) if Instant::now() > end => bail!("not so: {what}: {e:#}"),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }
}

fn configuration(dir: &Path, fsid: &str) -> String {
    let dir = dir.display();
    format!(
        "[global]
fsid = {fsid}
mon_initial_members = a
mon_host = [v2:{ADDRESS}:3300/0,v1:{ADDRESS}:6789/0]
public_addr = {ADDRESS}
cluster_addr = {ADDRESS}
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data = {dir}/mon
osd_data = {dir}/osd
osd_objectstore = memstore
memstore_device_bytes = 1073741824
run_dir = {dir}/run
admin_socket = {dir}/run/$name.$pid.asok
log_file = {dir}/log/$name.log
keyring = {dir}/keyring
pid_file = {dir}/run/$name.pid
crash_dir = {dir}/crash
ms_bind_ipv6 = false
debug_ms = 0
"
    )
}
