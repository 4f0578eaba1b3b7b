//! The agent's side of its conversation with the server (`protocol::agent`), without a machine under it: which request
//! is next, and what an answer means.

use std::net::Ipv4Addr;
use std::time::Duration;

use protocol::agent::{ARG_NONCE, ARG_SERVER, Work};
use serde_json::{Value, json};

use super::http::{Request, Response, Url};
use super::machine::Identity;
use crate::simulated;

/// Seconds that the server may hold a request for work.
const WORK_WAIT: u64 = 25;
/// Silence after which a request is made again.
const SILENCE: Duration = Duration::from_secs(30);
/// The first pause after a failure; each next one is twice as long, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(16);

/// An agent.
#[derive(Debug, Default)]
pub struct Agent {
    base: String,
    nonce: String,
    session: String,
    inspected: bool,
    /// A job that was done and not reported yet.
    job: Option<Value>,
    jobs: u32,
    failures: u32,
}

/// What the agent does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next request.
    Ask,
    /// The same again, after a pause.
    AskAfter(Duration),
    /// The machine is restarted.
    Restart,
    /// The machine is switched off.
    Off,
}

impl Agent {
    /// An agent with the kernel's command line.
    pub fn new(arguments: &str) -> Self {
        let value = |key: &str| {
            let found = arguments.split_whitespace().find_map(|a| a.strip_prefix(key)?.strip_prefix('='));
            found.unwrap_or_default().to_owned()
        };
        Self { base: value(ARG_SERVER), nonce: value(ARG_NONCE), ..Self::default() }
    }

    /// The request that is due, and how long to wait for its answer; `None` where no server was named.
    pub fn request(&self, machine: &Identity, address: Option<Ipv4Addr>) -> Option<(Request, Duration)> {
        let url = |path: &str| Url::parse(&format!("{}/agent/v1/{path}", self.base));
        if self.session.is_empty() {
            let hello = json!({
                "protocol": protocol::PROTOCOL_VERSION, "agent_version": "fleet", "kernel": "6.1.0-fleet",
                "nonce": self.nonce, "uuid": machine.uuid, "serial": machine.serial, "macs": [machine.mac],
                "uptime_ms": 1,
            });
            return Some((Request::json("POST", url("hello")?, bytes(&hello)), SILENCE));
        }
        let signed = |request: Request| request.with(format!("Authorization: Bearer {}", self.session));
        if !self.inspected {
            let inventory = inventory(machine, address);
            return Some((signed(Request::json("PUT", url("inventory")?, bytes(&inventory))), SILENCE));
        }
        if let Some(job) = &self.job {
            let done = json!({ "seq": 1, "at": 0, "body": { "kind": "finished", "summary": {} } });
            let report = json!({ "job": job, "reports": [done] });
            return Some((signed(Request::json("POST", url("report")?, bytes(&report))), SILENCE));
        }
        let work = signed(Request::get(url(&format!("work?wait={WORK_WAIT}"))?));
        Some((work, SILENCE + Duration::from_secs(WORK_WAIT)))
    }

    /// Takes the answer to [`request`](Self::request); `None` where there was none.
    pub fn answered(&mut self, answer: Option<&Response>) -> Next {
        let Some(answer) = answer.filter(|a| a.is_success()) else { return self.failed(answer) };
        self.failures = 0;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if self.session.is_empty() {
            body["session"].as_str().unwrap_or_default().clone_into(&mut self.session);
            return if self.session.is_empty() { self.failed(None) } else { Next::Ask };
        }
        if !self.inspected {
            self.inspected = true;
            return Next::Ask;
        }
        if self.job.take().is_some() {
            self.jobs += 1;
            return Next::Ask;
        }
        match serde_json::from_value(body) {
            Ok(Work::Wait) => Next::Ask,
            Ok(Work::Job { job }) => {
                // Whatever it is: it is looked at anew, and done.
                self.inspected = false;
                self.job = serde_json::to_value(job.id).ok();
                Next::Ask
            }
            Ok(Work::Reboot) => Next::Restart,
            Ok(Work::PowerOff) => Next::Off,
            Err(_) => self.failed(None),
        }
    }

    /// The server has given it a session.
    pub fn is_welcome(&self) -> bool {
        !self.session.is_empty()
    }

    /// The server has its inventory.
    pub fn is_inspected(&self) -> bool {
        self.inspected
    }

    /// Jobs done.
    pub fn jobs(&self) -> u32 {
        self.jobs
    }

    fn failed(&mut self, answer: Option<&Response>) -> Next {
        if answer.is_some_and(|a| matches!(a.status, 401 | 403 | 409)) {
            return Next::Restart;
        }
        let pause = PAUSE.saturating_mul(1 << self.failures.min(8)).min(PAUSE_MAX);
        self.failures += 1;
        Next::AskAfter(pause)
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// The inventory of the other simulated machines, with this one's identity.
fn inventory(machine: &Identity, address: Option<Ipv4Addr>) -> Value {
    let mut simulated = simulated::SimulatedMachine::new("", 0, &machine.serial);
    simulated.mac = machine.mac.to_string();
    simulated.uuid = machine.uuid.to_string();
    let mut all = simulated::inventory(&simulated, "PowerEdge R6615", "switch-1", true);
    let [a, b, c, d, e, f] = machine.mac.0;
    all["nics"][0]["address"] = json!(address);
    let second = protocol::MacAddr([a | 2, b ^ 1, c, d, e, f]).to_string();
    all["nics"][1]["mac"] = json!(second);
    all["nics"][1]["permanent_mac"] = json!(second);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Response {
        Response { status, body: body.as_bytes().to_vec(), ..Response::default() }
    }

    #[test]
    fn its_way() {
        let machine = Identity {
            mac: protocol::MacAddr([0x52, 0x54, 0, 0, 0, 1]),
            uuid: uuid::Uuid::from_u128(1),
            serial: "S1".to_owned(),
        };
        let mut agent = Agent::new("initrd=i billet.server=http://10.77.0.1:8080 billet.nonce=abc");
        let path = |agent: &Agent| agent.request(&machine, None).unwrap().0.url.path;
        assert_eq!(path(&agent), "/agent/v1/hello");
        assert_eq!(agent.answered(None), Next::AskAfter(PAUSE));
        assert_eq!(agent.answered(None), Next::AskAfter(PAUSE * 2));
        assert_eq!(agent.answered(Some(&answer(200, r#"{"session":"s"}"#))), Next::Ask);
        assert_eq!(path(&agent), "/agent/v1/inventory");
        let (request, _) = agent.request(&machine, None).unwrap();
        let parsed: protocol::inventory::Inventory = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(parsed.nics[0].mac, machine.mac);
        assert_eq!(agent.answered(Some(&answer(204, ""))), Next::Ask);
        assert_eq!(path(&agent), "/agent/v1/work?wait=25");
        assert_eq!(agent.answered(Some(&answer(200, r#"{"kind":"wait"}"#))), Next::Ask);
        let job =
            r#"{"kind":"job","job":{"id":"0194a000-0000-7000-8000-000000000001","task":{"kind":"inspect"}}}"#;
        assert_eq!(agent.answered(Some(&answer(200, job))), Next::Ask);
        assert_eq!(path(&agent), "/agent/v1/inventory");
        assert_eq!(agent.answered(Some(&answer(204, ""))), Next::Ask);
        assert_eq!(path(&agent), "/agent/v1/report");
        assert_eq!(agent.answered(Some(&answer(200, "{}"))), Next::Ask);
        assert_eq!(agent.jobs(), 1);
        assert_eq!(agent.answered(Some(&answer(401, ""))), Next::Restart);
    }
}
