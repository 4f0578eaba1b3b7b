//! Logging in to a deployed machine with the demo's own key, and looking at whether it is what was asked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::floor::Guest;
use crate::tool;

/// Time for the SSH server to be there after the OS phoned home, under emulation.
const LOGIN: Duration = Duration::from_mins(3);
/// Between two attempts.
const RETRY: Duration = Duration::from_secs(2);
/// What user data is to write, and where, to be found again over SSH.
pub const MARK_FILE: &str = "/etc/billet-demo";
pub const MARK: &str = "written by user data";

/// What is asked on the machine. Each line is a name and what the machine says.
const QUESTIONS: &str = r#"
echo "hostname=$(hostname)"
echo "user=$(id -un)"
echo "sudo=$(sudo -n id -un)"
. /etc/os-release; echo "os=$PRETTY_NAME"
echo "kernel=$(uname -r)"
echo "firmware=$([ -d /sys/firmware/efi ] && echo uefi || echo bios)"
echo "root=$(findmnt -no SOURCE /)"
echo "root_bytes=$(findmnt -bno SIZE /)"
echo "mark=$(cat /etc/billet-demo)"
"#;

/// An ed25519 key pair of the demo's own.
#[derive(Debug, Clone)]
pub struct Key {
    file: PathBuf,
    public: String,
    namespace: String,
}

impl Key {
    /// Makes one in `dir`, for machines in this namespace.
    pub fn make(dir: &Path, namespace: &str) -> Result<Self> {
        let file = dir.join("id_ed25519");
        let words = ["-q", "-t", "ed25519", "-N", "", "-C", "billet-demo", "-f"];
        tool::quiet(tool::command("ssh-keygen", &words).arg(&file))?;
        let public = fs::read_to_string(file.with_extension("pub")).context("reading the public key")?;
        Ok(Self { file, public: public.trim().to_owned(), namespace: namespace.to_owned() })
    }

    /// The public half, as in `authorized_keys`.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// What a person types to log in.
    pub fn command(&self, user: &str, address: &str) -> String {
        let (namespace, file) = (&self.namespace, self.file.display());
        format!(
            "ip netns exec {namespace} ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i {file} \
             {user}@{address}"
        )
    }

    /// Logs in, trying again until the SSH server is there, and returns what the machine says.
    pub fn ask(&self, user: &str, address: &str) -> Result<BTreeMap<String, String>> {
        let end = Instant::now() + LOGIN;
        loop {
            match self.try_ask(user, address) {
                Err(_) if Instant::now() < end => sleep(RETRY),
                other => return other,
            }
        }
    }

    fn try_ask(&self, user: &str, address: &str) -> Result<BTreeMap<String, String>> {
        let mut command = Command::new("ip");
        // Nothing of the person who runs the demo is used: no configuration, no agent, no other key.
        command.args(["netns", "exec", &self.namespace, "ssh", "-F", "/dev/null", "-i"]).arg(&self.file);
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=30",
            "ServerAliveInterval=10",
        ] {
            command.args(["-o", option]);
        }
        command.arg(format!("{user}@{address}")).arg(QUESTIONS).stdin(Stdio::null());
        let out = command.output().context("starting ssh")?;
        if !out.status.success() {
            bail!("ssh to {user}@{address}: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        let text = String::from_utf8_lossy(&out.stdout);
        Ok(text
            .lines()
            .filter_map(|l| l.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect())
    }
}

/// Checks what a machine says against what was asked for; returns it in one line.
pub fn check(guest: &Guest, user: &str, said: &BTreeMap<String, String>) -> Result<String> {
    let fact = |name: &str| said.get(name).map(String::as_str).unwrap_or_default();
    for (name, wanted) in [
        ("hostname", guest.hostname),
        ("user", user),
        ("sudo", "root"),
        ("firmware", guest.label),
        ("mark", MARK),
    ] {
        ensure!(fact(name) == wanted, "{name} is `{}` instead of `{wanted}`", fact(name));
    }
    ensure!(fact("os").starts_with("Debian GNU/Linux 12"), "the OS is `{}`", fact("os"));
    let root: u64 = fact("root_bytes").parse().context("the size of the root file system")?;
    // Beside it lie the EFI system partition and the file system's own tables.
    ensure!(root > guest.disk_bytes / 8 * 7, "the root file system has not grown: {root} bytes");
    let (hostname, os, kernel, device) = (fact("hostname"), fact("os"), fact("kernel"), fact("root"));
    Ok(format!("{user}@{hostname}, {os}, kernel {kernel}, / on {device} with {:.1} GiB", gib(root)))
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> BTreeMap<String, String> {
        [
            ("hostname", "demo-bios"),
            ("user", "debian"),
            ("sudo", "root"),
            ("firmware", "bios"),
            ("mark", MARK),
            ("os", "Debian GNU/Linux 12 (bookworm)"),
            ("kernel", "6.1.0"),
            ("root", "/dev/vda3"),
            ("root_bytes", "8000000000"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
    }

    #[test]
    fn each_fact_is_looked_at() {
        let guest = Guest { label: "bios", hostname: "demo-bios", disk: "D", disk_bytes: 8 << 30 };
        assert!(check(&guest, "debian", &said()).unwrap().contains("7.5 GiB"));
        for name in ["hostname", "user", "sudo", "firmware", "mark", "os", "root_bytes"] {
            let mut wrong = said();
            wrong.insert(name.to_owned(), "2000000000".to_owned());
            assert!(check(&guest, "debian", &wrong).is_err(), "{name}");
            wrong.remove(name);
            assert!(check(&guest, "debian", &wrong).is_err(), "no {name}");
        }
    }
}
