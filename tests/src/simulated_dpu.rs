//! A DPU without hardware: it dials in by HTTP as `billet-dpu` does (`protocol::dial`), takes its state, and says that it is so.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use ureq::Agent;

/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(60);
/// What it proves itself by.
const SECRET: &str = "5e1f00000000000000000000000000000000000000000000000000000000d9e1";

/// A DPU.
#[derive(Debug)]
pub struct SimulatedDpu {
    agent: Agent,
    base: String,
}

impl SimulatedDpu {
    /// A DPU that is switched off; `base` is the provisioning listener, such as `http://10.77.0.1:8080`.
    pub fn new(base: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(ANSWER))
            .build();
        Self { agent: config.new_agent(), base: base.to_owned() }
    }

    /// Introduces itself, with a token where it was given one, and with a function for each of the host's addresses.
    ///
    /// # Errors
    /// Where the server refuses it.
    pub fn hello(&self, token: Option<&str>, serial: &str, macs: &[&str]) -> Result<()> {
        let functions = macs.iter().enumerate();
        let functions: Vec<_> =
            functions.map(|(n, mac)| json!({ "interface": format!("pf{n}hpf"), "mac": mac })).collect();
        let mut hello = json!({
            "version": protocol::dpu::VERSION, "agent_version": "0.1.0", "secret": SECRET,
            "facts": {
                "hostname": "bf3-r4-u12", "serial": serial, "model": "BlueField-3 P-Series", "kernel": "6.8.0-1013-bluefield",
                "programs": [
                    { "name": "ovs-vswitchd", "version": "3.1.0" }, { "name": "ovn-controller", "version": "23.03.1" },
                    { "name": "billet-blk", "version": "0.1.0" }, { "name": "qemu-storage-daemon", "version": "7.2.17" },
                ],
                "functions": functions,
            },
        });
        if let Some(token) = token {
            hello["token"] = token.into();
        }
        self.send("/dpu/v1/hello", &hello).map(drop)
    }

    /// Takes the state that it is to have, and says that it has it, with this problem where there is one.
    ///
    /// # Errors
    /// Where the server refuses the report, or has no state.
    pub fn follow(&self, problem: Option<&str>) -> Result<Value> {
        let orders = self.send("/dpu/v1/state?wait=0", &json!({ "generation": null }))?;
        let state = orders.get("state").context("the server has no state for the DPU")?.clone();
        let name = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
        let list = |field: &str| state[field].as_array().cloned().unwrap_or_default();
        let volumes = list("volumes");
        let volumes = volumes.iter().map(|volume| {
            json!({ "name": name(volume, "name"), "pid": 4242, "in_use": true, "restarts": 0, "plugged": true })
        });
        let ports = list("ports");
        let ports = ports.iter().map(|port| {
            json!({ "interface": name(port, "interface"), "port": port["port"], "bridge": port["bridge"], "number": 7,
                "up": true, "error": null })
        });
        let generation = &state["generation"];
        let functions = state.get("functions").map(|plan| {
            let vfs = &plan["vfs"];
            let setting = json!({ "key": "NUM_OF_VFS", "wanted": vfs, "current": vfs, "next": vfs });
            json!({ "settings": [setting], "needs_reset": false })
        });
        let observed = json!({
            "version": protocol::dpu::VERSION, "generation": generation, "settled": problem.is_none(),
            "problems": problem.into_iter().collect::<Vec<_>>(), "ports": ports.collect::<Vec<_>>(), "mirrors": [],
            "volumes": volumes.collect::<Vec<_>>(), "functions": functions,
        });
        let report = json!({ "generation": generation, "observed": observed, "counters": counted(&state) });
        self.send("/dpu/v1/state?wait=0", &report)?;
        Ok(state)
    }

    fn send(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let request = request.header("authorization", format!("Bearer {SECRET}"));
        let mut answer = request.header("content-type", "application/json").send(body.to_string())?;
        let text = answer.body_mut().read_to_string()?;
        ensure!(answer.status().is_success(), "{path} was answered {}: {text}", answer.status());
        Ok(serde_json::from_str(&text)?)
    }
}

/// What its ports and volumes carried.
fn counted(state: &Value) -> Value {
    let list = |field: &str| state[field].as_array().cloned().unwrap_or_default();
    let traffic = |bytes: u64| json!({ "bytes": bytes, "packets": bytes / 900, "dropped": 0, "errors": 0 });
    let requests = |count: u64| json!({ "requests": count, "bytes": count * 16384, "micros": count * 420 });
    let none = json!({ "requests": 0, "bytes": 0, "micros": 0 });
    let ports = list("ports").into_iter().map(
        |port| json!({ "port": port["port"], "from_host": traffic(73_400_320), "to_host": traffic(912_680_550) }),
    );
    let volumes = list("volumes").into_iter().map(|volume| {
        let disk = json!({ "read": requests(52_310), "write": requests(8_204), "zero": none, "flush": none, "errors": 0 });
        json!({ "name": volume["name"], "disk": disk })
    });
    json!({ "ports": ports.collect::<Vec<_>>(), "volumes": volumes.collect::<Vec<_>>() })
}
