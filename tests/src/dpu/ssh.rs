//! A shell on a server's OS by SSH, as its owner has it: with a key that the API was given, at an address of the site, or through
//! another server.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::rack::Namespace;

/// For one command, in seconds: an emulated host does the arithmetic of a login.
const COMMAND: &str = "60";
/// Between two attempts to be let in.
const LOOK: Duration = Duration::from_millis(200);

/// An owner of servers with a key, who sits in a namespace.
#[derive(Debug)]
pub struct Ssh {
    namespace: String,
    dir: PathBuf,
    public: String,
}

impl Ssh {
    /// Makes a key; it is kept in `dir` with the keys of hosts that were seen.
    ///
    /// # Errors
    /// Where `ssh-keygen` does not run (package openssh-client).
    pub fn new(namespace: &Namespace, dir: &Path) -> Result<Self> {
        let key = dir.join("owner");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status()?;
        ensure!(made.success(), "ssh-keygen: {made}");
        let public = fs::read_to_string(key.with_extension("pub"))?.trim().to_owned();
        Ok(Self { namespace: namespace.name().to_owned(), dir: dir.to_owned(), public })
    }

    /// The public key, as in `authorized_keys`.
    pub fn public_key(&self) -> &str {
        &self.public
    }

    /// Runs a shell command at a server that is reached directly; what it said.
    ///
    /// # Errors
    /// Where nobody lets us in, the host has another key than before, or the command fails.
    pub fn run(&self, address: &str, command: &str) -> Result<String> {
        self.call(self.words(), address, command, Stdio::null())
    }

    /// The same with a file as the command's input.
    ///
    /// # Errors
    /// As [`Ssh::run`].
    pub fn feed(&self, address: &str, command: &str, input: File) -> Result<String> {
        self.call(self.words(), address, command, input.into())
    }

    /// The same at a server that another one reaches: the connection to `address` is one that `between` opened.
    ///
    /// # Errors
    /// As [`Ssh::run`].
    pub fn run_through(&self, between: &str, address: &str, command: &str) -> Result<String> {
        let mut words = self.words();
        let way = format!("ssh {} -W %h:%p root@{between}", words.join(" "));
        words.extend(["-o".to_owned(), format!("ProxyCommand={way}")]);
        self.call(words, address, command, Stdio::null())
    }

    /// Tries until the command succeeds.
    ///
    /// # Errors
    /// What was said last, after `timeout`.
    pub fn wait(&self, address: &str, command: &str, timeout: Duration) -> Result<String> {
        let end = Instant::now() + timeout;
        loop {
            match self.run(address, command) {
                Ok(said) => return Ok(said),
                Err(error) if Instant::now() > end => {
                    return Err(error.context(format!("tried for {timeout:?}")));
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    fn words(&self) -> Vec<String> {
        let known = self.dir.join("known_hosts").display().to_string();
        let options = [
            "BatchMode=yes".to_owned(),
            "ConnectTimeout=5".to_owned(),
            "StrictHostKeyChecking=accept-new".to_owned(),
            "HostKeyAlgorithms=ssh-ed25519".to_owned(),
            "LogLevel=ERROR".to_owned(),
            format!("UserKnownHostsFile={known}"),
        ];
        let mut words = vec![
            "-F".to_owned(),
            "none".to_owned(),
            "-i".to_owned(),
            self.dir.join("owner").display().to_string(),
        ];
        words.extend(options.into_iter().flat_map(|option| ["-o".to_owned(), option]));
        words
    }

    fn call(&self, words: Vec<String>, address: &str, command: &str, input: Stdio) -> Result<String> {
        let mut program = Command::new("ip");
        program.args(["netns", "exec", &self.namespace, "timeout", COMMAND, "ssh"]).args(words);
        let out = program
            .arg(format!("root@{address}"))
            .arg(command)
            .stdin(input)
            .output()
            .context("starting ssh")?;
        let (said, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        ensure!(out.status.success(), "`{command}` at {address}: {}: {said}{error}", out.status);
        Ok(said.trim().to_owned())
    }
}
