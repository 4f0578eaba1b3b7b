//! `tgtd` (Linux SCSI target framework, tgtd(8), tgtadm(8)): one of Billet's own, spoken to through a socket in the backend's
//! directory, so that one that the machine runs besides is left alone.
//!
//! It is a process of its own group and outlives the server: hosts read and write through it while the server is upgraded.
//! Whether it lives is read from the lock that it holds on `<socket>.0.lock` for as long as it does. It listens on a port of loopback that nobody knows until
//! its targets are made, and on the portal afterwards: a host that was connected before finds either nothing, which it tries
//! again, or its target, never a target that is missing.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::show::{self, Target};
use crate::BackendError;
use crate::program::Call;

/// Time for one command. One that waits for a disk's queue is slow; one that takes longer than this hangs.
const ADM_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a new one to answer.
const START: Duration = Duration::from_secs(10);
const START_LOOK: Duration = Duration::from_millis(30);
/// Longest path of a unix socket, in octets (unix(7)).
const SOCKET_MAX: usize = 107;
/// Where it listens until its targets are made: a port that the kernel chooses.
const QUIET_PORTAL: &str = "portal=127.0.0.1:0";
/// The logical unit of a volume; 0 is the controller.
pub(crate) const LUN: u32 = 1;

/// The daemon of one backend.
#[derive(Debug)]
pub(crate) struct Tgtd {
    /// Without `.0`, which tgtd adds.
    socket: PathBuf,
    log: PathBuf,
    portal: SocketAddr,
    child: Option<Child>,
}

/// A target as it is to be.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Name.
    pub name: String,
    /// File of the logical unit.
    pub path: PathBuf,
    /// Who is let in.
    pub initiator: String,
    /// Account.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl Tgtd {
    /// In this directory.
    pub(crate) fn in_dir(dir: &Path, portal: SocketAddr) -> Result<Self, BackendError> {
        let socket = dir.join("tgtd");
        if socket.as_os_str().len() + 2 > SOCKET_MAX {
            return Err(BackendError::Refused(format!(
                "{} is too long a path for a socket (at most {SOCKET_MAX} octets)",
                socket.display()
            )));
        }
        Ok(Self { socket, log: dir.join("tgtd.log"), portal, child: None })
    }

    /// Its process, where it lives.
    pub(crate) fn pid(&mut self) -> Option<i32> {
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None;
        }
        let lock = File::options().write(true).open(self.socket.with_extension("0.lock")).ok()?;
        // lockf(3), which tgtd uses, is a lock on all of the file; the kernel says who has it (fcntl(2), F_GETLK).
        let mut found = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        loop {
            match fcntl(&lock, FcntlArg::F_GETLK(&mut found)) {
                Err(Errno::EINTR) => {}
                Err(_) => return None,
                Ok(_) => return (found.l_type != libc::F_UNLCK as libc::c_short).then_some(found.l_pid),
            }
        }
    }

    /// Starts one where none lives, without a target and without the portal.
    pub(crate) async fn start(&mut self) -> Result<(), BackendError> {
        let log = File::create(&self.log).map_err(BackendError::io("make", &self.log))?;
        let err = log.try_clone().map_err(BackendError::io("open", &self.log))?;
        let mut command = Command::new("tgtd");
        command
            .args(["--foreground", "--control-port", "0", "--iscsi", QUIET_PORTAL])
            .env("TGT_IPC_SOCKET", &self.socket)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(err);
        let child = command.spawn().map_err(BackendError::io("start", Path::new("tgtd")))?;
        tracing::info!(pid = child.id(), portal = %self.portal, "tgtd started");
        self.child = Some(child);
        let end = tokio::time::Instant::now() + START;
        loop {
            match self.adm("answer", &["--mode", "sys", "--op", "show"]).await {
                Ok(_) => return Ok(()),
                Err(e)
                    if tokio::time::Instant::now() > end || self.pid().is_none() && self.child.is_none() =>
                {
                    return Err(e);
                }
                Err(_) => tokio::time::sleep(START_LOOK).await,
            }
        }
    }

    /// Has it listen on the portal, if it does not.
    pub(crate) async fn listen(&self) -> Result<(), BackendError> {
        let shown = self.adm("show portals", &["--mode", "portal", "--op", "show"]).await?;
        let portal = self.portal.to_string();
        if show::portals(&shown).any(|found| found == portal) {
            return Ok(());
        }
        let parameter = format!("portal={portal}");
        let new = ["--mode", "portal", "--op", "new", "--param", &parameter];
        self.adm(&format!("listen on {portal}"), &new).await.map(drop)
    }

    /// All its targets.
    pub(crate) async fn targets(&self) -> Result<Vec<Target>, BackendError> {
        Ok(show::targets(&self.adm("show targets", &["--mode", "target", "--op", "show"]).await?))
    }

    /// Makes a target, or what is missing of it. It lets somebody in as the last thing.
    pub(crate) async fn offer(&self, wanted: &Wanted) -> Result<(), BackendError> {
        let targets = self.targets().await?;
        let found = targets.iter().find(|t| t.name == wanted.name);
        let tid = found.map_or_else(|| show::free_tid(&targets), |t| t.tid).to_string();
        let lun = LUN.to_string();
        let path = wanted.path.to_string_lossy();
        let target = ["--mode", "target", "--tid", &tid];
        if found.is_none() {
            self.adm("make a target", &[&target[..], &["--op", "new", "-T", &wanted.name]].concat()).await?;
        }
        let unit = ["--mode", "logicalunit", "--tid", &tid, "--lun", &lun];
        if !found.is_some_and(|t| t.paths.iter().any(|p| *p == path)) {
            let new = ["--op", "new", "--bstype", "rdwr", "-b", &path];
            self.adm("make a logical unit", &[&unit[..], &new].concat()).await?;
            let thin = ["--op", "update", "--params", "thin_provisioning=1"];
            self.adm("have a logical unit give room back", &[&unit[..], &thin].concat()).await?;
        }
        if !found.is_some_and(|t| t.users.contains(&wanted.user)) {
            self.drop_account(&wanted.user).await?;
            let user = ["--mode", "account", "--op", "new", "--user", &wanted.user];
            self.adm("make an account", &[&user[..], &["--password", &wanted.password]].concat()).await?;
            let bind = ["--mode", "account", "--op", "bind", "--tid", &tid, "--user", &wanted.user];
            self.adm("bind an account", &bind).await?;
        }
        if !found.is_some_and(|t| t.initiators.contains(&wanted.initiator)) {
            let bind = ["--op", "bind", "--initiator-name", &wanted.initiator];
            self.adm("let an initiator in", &[&target[..], &bind].concat()).await?;
        }
        Ok(())
    }

    /// Removes a target with all connections, if it is there. When this returns, nobody writes through it: nobody is let in,
    /// all connections are closed, and the logical unit has no command left (tgtd does not remove one that has).
    pub(crate) async fn cut(&self, name: &str) -> Result<(), BackendError> {
        let Some(target) = self.targets().await?.into_iter().find(|t| t.name == name) else {
            return Ok(());
        };
        let tid = target.tid.to_string();
        let whole = ["--mode", "target", "--tid", &tid];
        for initiator in &target.initiators {
            let unbind = ["--op", "unbind", "--initiator-name", initiator];
            self.adm("let nobody in", &[&whole[..], &unbind].concat()).await?;
        }
        for user in &target.users {
            let unbind = ["--mode", "account", "--op", "unbind", "--tid", &tid, "--user", user];
            self.adm("unbind an account", &unbind).await?;
        }
        self.disconnect(&tid).await?;
        let lun = LUN.to_string();
        if !target.paths.is_empty() {
            let unit = ["--mode", "logicalunit", "--op", "delete", "--tid", &tid, "--lun", &lun];
            self.until_done("remove a logical unit", &unit).await?;
        }
        self.until_done("remove a target", &[&whole[..], &["--op", "delete"]].concat()).await?;
        for user in &target.users {
            self.drop_account(user).await?;
        }
        match self.targets().await?.iter().any(|t| t.name == name) {
            true => Err(failed("remove a target", format!("{name} is still there"))),
            false => Ok(()),
        }
    }

    /// Closes all connections of a target.
    async fn disconnect(&self, tid: &str) -> Result<(), BackendError> {
        let end = tokio::time::Instant::now() + ADM_TIMEOUT;
        loop {
            let shown =
                self.adm("show connections", &["--mode", "conn", "--op", "show", "--tid", tid]).await?;
            let open = show::connections(&shown);
            if open.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() > end {
                return Err(failed("close connections", format!("{} are still open", open.len())));
            }
            for (session, connection) in &open {
                let (sid, cid) = (session.to_string(), connection.to_string());
                let delete = ["--mode", "conn", "--op", "delete", "--tid", tid, "--sid", &sid, "--cid", &cid];
                // One that ended by itself meanwhile is no error; what counts is that none is left.
                let _ = self.adm("close a connection", &delete).await;
            }
            tokio::time::sleep(START_LOOK).await;
        }
    }

    /// Does again what tgtd refuses while commands run.
    async fn until_done(&self, what: &str, args: &[&str]) -> Result<(), BackendError> {
        let end = tokio::time::Instant::now() + ADM_TIMEOUT;
        loop {
            match self.adm(what, args).await {
                Err(e) if tokio::time::Instant::now() > end => return Err(e),
                Err(_) => tokio::time::sleep(START_LOOK).await,
                Ok(_) => return Ok(()),
            }
        }
    }

    async fn drop_account(&self, user: &str) -> Result<(), BackendError> {
        let shown = self.adm("show accounts", &["--mode", "account", "--op", "show"]).await?;
        if !show::accounts(&shown).any(|found| found == user) {
            return Ok(());
        }
        self.adm("remove an account", &["--mode", "account", "--op", "delete", "--user", user])
            .await
            .map(drop)
    }

    async fn adm(&self, what: &str, args: &[&str]) -> Result<String, BackendError> {
        Call::new("tgtadm", what, ADM_TIMEOUT)
            .args(["--lld", "iscsi", "--control-port", "0"])
            .args(args)
            .env("TGT_IPC_SOCKET", &self.socket)
            .output()
            .await
    }
}

fn failed(what: &str, said: String) -> BackendError {
    BackendError::Program { program: "tgtadm", what: what.to_owned(), said }
}
