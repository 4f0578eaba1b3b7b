//! What a site has of servers, counted in every place where something of one could be left: to be equal before and after.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use rusqlite::{Connection, OpenFlags};

use super::{DpuSite, VOLUMES};

/// Tables of OVN's northbound database.
const NORTHBOUND: [&str; 9] = [
    "Logical_Switch",
    "Logical_Switch_Port",
    "Logical_Router",
    "Logical_Router_Port",
    "NAT",
    "Port_Group",
    "ACL",
    "Address_Set",
    "DHCP_Options",
];
/// Rows of the server's store that are a living server's; what is remembered of dead ones has its phase.
const STORE: [&str; 6] = [
    "SELECT count(*) FROM ports",
    "SELECT count(*) FROM floating",
    "SELECT count(*) FROM instances",
    "SELECT count(*) FROM servers WHERE phase <> 'deleted'",
    "SELECT count(*) FROM volumes WHERE phase <> 'deleted'",
    "SELECT count(*) FROM volumes WHERE access IS NOT NULL",
];
/// Who serves disks, as the kernel calls the processes (15 characters).
const EXPORTERS: [&str; 2] = ["qemu-storage-da", "billet-blk"];

/// How many there are of what.
pub type Census = BTreeMap<String, usize>;

impl DpuSite {
    /// Counts.
    ///
    /// # Errors
    /// Where somebody cannot be asked.
    pub fn census(&mut self) -> Result<Census> {
        let mut census = Census::new();
        for table in NORTHBOUND {
            let rows = self.dpus.overlay.northbound(&["--bare", "--columns=_uuid", "list", table])?;
            census.insert(format!("OVN {table}"), rows.split_whitespace().count());
        }
        let state = self.rack.server()?.state_dir();
        let volumes = state.join("volumes").join(VOLUMES);
        let mut shown = Command::new("tgtadm");
        shown
            .args(["--lld", "iscsi", "--mode", "target", "--op", "show"])
            .env("TGT_IPC_SOCKET", volumes.join("tgtd"));
        let out = shown.output()?;
        ensure!(out.status.success(), "tgtadm: {}", String::from_utf8_lossy(&out.stderr));
        let targets =
            String::from_utf8_lossy(&out.stdout).lines().filter(|line| line.starts_with("Target ")).count();
        census.insert("targets".to_owned(), targets);
        for kind in ["volumes", "grants"] {
            census.insert(format!("files in {kind}"), fs::read_dir(volumes.join(kind))?.count());
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        // On PostgreSQL the API is asked alone.
        if let Ok(store) = Connection::open_with_flags(state.join("billet.db"), flags) {
            for query in STORE {
                census.insert(
                    query.to_owned(),
                    store.query_row(query, [], |row| row.get::<_, u32>(0))? as usize,
                );
            }
        }
        for number in 0..self.hosts.len() {
            let all = self.processes(number, &EXPORTERS)?.len();
            census.insert(format!("exporters of DPU {number}"), all);
            let layers =
                fs::read_dir(self.dpus.get(number).dir().join("run/layers")).map_or(0, Iterator::count);
            census.insert(format!("layers of DPU {number}"), layers);
        }
        Ok(census)
    }
    /// Process ids of programs with one of these names that run on a DPU.
    pub(super) fn processes(&self, number: usize, names: &[&str]) -> Result<Vec<i32>> {
        let chassis = self.dpus.overlay.chassis(number).name();
        let pids = Command::new("ip").args(["netns", "pids", chassis]).output()?;
        let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let all = String::from_utf8_lossy(&pids.stdout);
        let of_names = all.lines().filter(|pid| names.contains(&name(pid).trim()));
        Ok(of_names.filter_map(|pid| pid.parse().ok()).collect())
    }
}
