//! What an owner of servers on a site with DPUs does and waits for, in every story: rules, an address to be reached at, a server
//! that is up, a volume that is there, a machine that was given back.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::DpuSite;
use crate::scenario::{DEPLOY, text};

/// For OVN, a DPU, or a machine to do what it was told.
pub const SOON: Duration = Duration::from_secs(120);

impl DpuSite {
    /// Sets what the default group of a project lets in; all may go out.
    ///
    /// # Errors
    /// Where the server refuses, or OVN is not told in time.
    pub fn allow(&self, of: &str, rules: &[Value]) -> Result<()> {
        let rules: Vec<Value> = rules.iter().cloned().chain([json!({ "direction": "egress" })]).collect();
        self.api.patch(&format!("{of}/security-groups/default"), &json!({ "rules": rules }))?;
        self.synced()
    }

    /// Waits until OVN has what the API was told, and every chassis does it.
    ///
    /// # Errors
    /// Where it is not so in time.
    pub fn synced(&self) -> Result<()> {
        let is_synced = |status: &Value| (status["synced"] == true).then_some(());
        self.api.wait("/api/v1/overlay/status", SOON, is_synced)?;
        self.dpus.overlay.settle()
    }

    /// Waits until a server of the project at path `of` is up.
    ///
    /// # Errors
    /// Where it is not in time, or says why it will not be.
    pub fn wait_active(&self, of: &str, name: &str) -> Result<Value> {
        let active = |server: &Value| match server["phase"].as_str() {
            Some("active") => Some(Ok(server.clone())),
            Some("error") => Some(Err(anyhow::anyhow!("{server:#}"))),
            _ => None,
        };
        self.api.wait(&format!("{of}/servers/{name}"), DEPLOY, active)?
    }

    /// The port of a server that has one.
    ///
    /// # Errors
    /// Where it has none.
    pub fn port_of(&self, of: &str, name: &str) -> Result<Value> {
        let server = self.api.get(&format!("{of}/servers/{name}"))?;
        let ports = self.api.get(&format!("{of}/ports"))?;
        let its =
            ports["items"].as_array().context("ports")?.iter().find(|port| port["server"] == server["id"]);
        its.cloned().with_context(|| format!("{name} has a port in {ports:#}"))
    }

    /// Gives a server an address of the site's own network; that.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn expose(&self, of: &str, name: &str) -> Result<String> {
        let port = self.port_of(of, name)?;
        let floating = json!({ "network": "internet", "port": port["id"] });
        let floating = self.api.post(&format!("{of}/floating-addresses"), &floating)?;
        self.synced()?;
        text(&floating, "address")
    }

    /// Waits until a volume has this status.
    ///
    /// # Errors
    /// Where it has not in time, or cannot be made.
    pub fn wait_volume(&self, of: &str, name: &str, status: &str) -> Result<()> {
        let is_so = |volume: &Value| match volume["status"].as_str() {
            Some("error") => Some(Err(anyhow::anyhow!("{volume:#}"))),
            now => (now == Some(status)).then_some(Ok(())),
        };
        self.api.wait(&format!("{of}/volumes/{name}"), SOON, is_so)?
    }

    /// Waits until a DPU's host has no disk, and no network but the provisioning network.
    ///
    /// # Errors
    /// Where it is not so in time.
    pub fn wait_bare(&self, number: usize) -> Result<()> {
        let is_bare = |dpu: &Value| {
            let port = dpu["ports"].as_array()?.first()?;
            let is_free = port["port"].is_null() && dpu["volumes"].as_array()?.is_empty();
            (dpu["status"] == "settled" && is_free).then_some(())
        };
        self.api.wait(&format!("/api/v1/dpus/{}", Self::dpu_name(number)), SOON, is_bare)
    }

    /// Process id of the one program of this name, as the kernel has it (15 characters), that runs on a DPU.
    ///
    /// # Errors
    /// Where there is none or there are several.
    pub fn process(&self, number: usize, name: &str) -> Result<i32> {
        match self.processes(number, &[name])?.as_slice() {
            [pid] => Ok(*pid),
            other => bail!("processes {name} of DPU {number}: {other:?}"),
        }
    }
}
