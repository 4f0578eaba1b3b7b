//! Network namespaces, named after the process that owns them, so that those of a dead owner can be told and removed.

use std::fs::{self, File};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// All our namespaces begin with this.
const PREFIX: &str = "billet-rack";
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A network namespace; removed when dropped, with every process still in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one, with its loopback up.
    ///
    /// # Errors
    /// Where the system refuses (root is needed).
    pub fn new() -> Result<Self> {
        let name = format!("{PREFIX}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside. `ip` replaces itself by the program, so the pid is the program's.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `ip` inside.
    ///
    /// # Errors
    /// Where it fails, with its words.
    pub fn ip(&self, args: &[&str]) -> Result<()> {
        run(Command::new("ip").args(["-n", &self.name]).args(args))
    }

    /// A bridge that forwards at once (no spanning tree), with an address, which is not tried for duplicates.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn bridge(&self, name: &str, address: &str) -> Result<()> {
        self.ip(&["link", "add", name, "type", "bridge", "stp_state", "0", "forward_delay", "0"])?;
        self.ip(&["link", "set", name, "up"])?;
        let nodad = address.contains(':').then_some("nodad");
        let words: Vec<_> = ["addr", "add", address, "dev", name].into_iter().chain(nodad).collect();
        self.ip(&words)
    }

    /// A tap interface on a bridge.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn tap(&self, name: &str, bridge: &str) -> Result<()> {
        self.ip(&["tuntap", "add", name, "mode", "tap"])?;
        self.ip(&["link", "set", name, "master", bridge, "up"])
    }

    /// A cable to another namespace: an interface here and one there, both up.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn cable(&self, name: &str, other: &Self, other_name: &str) -> Result<()> {
        self.ip(&["link", "add", name, "type", "veth", "peer", "name", other_name, "netns", &other.name])?;
        self.ip(&["link", "set", name, "up"])?;
        other.ip(&["link", "set", other_name, "up"])
    }

    /// Plugs an interface into a bridge.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn plug(&self, name: &str, bridge: &str) -> Result<()> {
        self.ip(&["link", "set", name, "master", bridge])
    }

    /// Runs a program inside to its end; what it wrote to standard output.
    ///
    /// # Errors
    /// Where it cannot be started or fails, with its words.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let out = self.command(program).args(args).output().with_context(|| format!("starting {program}"))?;
        let (said, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        if !out.status.success() {
            bail!("`{program} {}` failed: {said}{error}", args.join(" "));
        }
        Ok(said.into_owned())
    }

    /// What a thread needs to enter it.
    ///
    /// # Errors
    /// Where the namespace is gone.
    pub fn clone_handle(&self) -> Result<Handle> {
        let path = format!("/run/netns/{}", self.name);
        Ok(Handle(File::open(&path).with_context(|| format!("opening {path}"))?))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// An open namespace.
#[derive(Debug)]
pub struct Handle(File);

impl Handle {
    /// Moves the calling thread, and only it, into the namespace.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn enter(&self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).context("entering the rack's namespace")
    }

    /// Another handle of the same.
    ///
    /// # Errors
    /// Where no file descriptor is left.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

/// Runs `inside` in a thread of its own that is in the namespace.
///
/// # Errors
/// Where the namespace cannot be entered, or what `inside` says.
///
/// # Panics
/// Where `inside` does.
pub fn within<T: Send>(handle: &Handle, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let run = || {
        handle.enter()?;
        inside()
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("a thread that does not panic"))
}

/// Removes namespaces of ours whose owner is dead (killed before it could clean up).
///
/// # Errors
/// Where the list of namespaces cannot be read.
pub fn sweep() -> Result<()> {
    let Ok(entries) = fs::read_dir("/run/netns") else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX).and_then(|r| r.strip_prefix('-')) else { continue };
        let Some(owner) = rest.split('-').next().and_then(|p| p.parse::<u32>().ok()) else { continue };
        if !alive(owner) {
            remove(&name);
        }
    }
    Ok(())
}

/// True where the process runs; one that only waits to be reaped does not.
fn alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Ends what is left in a namespace and removes it. Nothing can be done about failure while dropping.
fn remove(name: &str) {
    let pids = Command::new("ip").args(["netns", "pids", name]).output();
    for pid in String::from_utf8_lossy(&pids.map(|o| o.stdout).unwrap_or_default()).lines() {
        if let Ok(pid) = pid.trim().parse() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let _ = run(Command::new("ip").args(["netns", "del", name]));
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.output().context("`ip` cannot be started (package iproute2)")?;
    if !out.status.success() {
        let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        bail!("`ip {}` failed: {}", words.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn liveness() {
        assert!(alive(std::process::id()));
        assert!(!alive(0x7fff_fff0));
    }
}
