//! An iSCSI target that somebody else runs: tgtd with two logical units and one account.

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use protocol::agent::Password;
use protocol::dpu::Chap;
use volume::{ExternalSettings, Unit};

use super::{ADDRESS, Place, run};
use crate::rack::Process;

const NAME: &str = "iqn.2001-04.com.example:array";
const USER: &str = "site";
const PASSWORD: &str = "an-old-password";
const PORTAL: &str = "3261";
/// Bytes of the logical units, from 1.
const UNITS: [u64; 2] = [32 << 20, 64 << 20];
const PATIENCE: Duration = Duration::from_secs(10);

/// The running target; its process is the place's.
pub struct ExternalTarget {
    socket: String,
}

impl ExternalTarget {
    /// Starts it.
    ///
    /// # Errors
    /// Where tgtd does not come up (package tgt).
    pub fn start(place: &mut Place) -> Result<Self> {
        let target = Self { socket: place.dir().join("array").display().to_string() };
        let mut command = place.namespace.command("tgtd");
        command.args(["-f", "--control-port", "1", "--iscsi", &format!("portal={ADDRESS}:{PORTAL}")]);
        command.env("TGT_IPC_SOCKET", &target.socket);
        place.processes.push(Process::start("tgtd", command, &place.dir().join("array.log"))?);
        let end = Instant::now() + PATIENCE;
        while target.adm(&["--mode", "sys", "--op", "show"]).is_err() {
            ensure!(Instant::now() < end, "tgtd does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        target.adm(&["--mode", "target", "--op", "new", "--tid", "1", "-T", NAME])?;
        for (lun, size) in (1..).zip(UNITS) {
            let path = place.dir().join(format!("unit{lun}.raw"));
            File::create(&path)?.set_len(size)?;
            let (lun, path) = (lun.to_string(), path.display().to_string());
            let unit = ["--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", &lun, "-b", &path];
            target.adm(&unit)?;
        }
        target.adm(&["--mode", "account", "--op", "new", "--user", USER, "--password", PASSWORD])?;
        target.adm(&["--mode", "account", "--op", "bind", "--tid", "1", "--user", USER])?;
        target.adm(&["--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL"])?;
        Ok(target)
    }

    /// What Billet is told of it.
    ///
    /// # Errors
    /// Where the address is none.
    pub fn settings(&self, place: &Place) -> Result<ExternalSettings> {
        let portal = format!("{ADDRESS}:{PORTAL}").parse()?;
        let chap = Chap { user: USER.into(), password: Password(PASSWORD.into()) };
        let unit =
            |(lun, size)| Unit::Iscsi { portal, target: NAME.into(), lun, size, chap: Some(chap.clone()) };
        Ok(ExternalSettings {
            directory: place.dir().join("billet"),
            units: (1..).zip(UNITS).map(unit).collect(),
        })
    }

    fn adm(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("tgtadm");
        command.args(["--lld", "iscsi", "--control-port", "1"]).env("TGT_IPC_SOCKET", &self.socket);
        run(command.args(words), PATIENCE)
    }
}
