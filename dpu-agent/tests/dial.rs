//! The program's conversation with a stand-in of the server. There is no switch and no disk: who says what, and what is on the
//! disk when.

#![expect(clippy::unwrap_used, reason = "what goes wrong here fails a test")]

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use protocol::dpu::Observed;
use serde_json::{Value, json};

use stand_in::StandIn;

#[path = "../../tests/src/dpu/stand_in.rs"]
mod stand_in;

/// Whatever a machine under load needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

struct Dpu {
    dir: PathBuf,
    server: StandIn,
}

impl Dpu {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("billet-dpu-dial-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let server = StandIn::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        Self { dir, server }
    }

    fn agent(&self, words: &[&str]) -> Agent {
        let log = File::options().create(true).append(true).open(self.dir.join("agent.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_billet-dpu"));
        command.args(["run", "--server", &self.server.url(), "--database", "unix:/no/such/socket"]);
        command.arg("--dir").arg(self.dir.join("agent")).arg("--status").arg(self.dir.join("status.json"));
        command.args(words).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Agent(command.spawn().unwrap())
    }

    /// The state that stands on the disk.
    fn kept(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.dir.join("agent/desired.json")).ok()?).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("agent.log")).unwrap()
    }

    fn reports(&self, what: &str, is_so: impl Fn(&Observed) -> bool) -> Observed {
        until(what, || self.server.observed().filter(|seen| is_so(seen)))
    }
}

impl Drop for Dpu {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the files are in {}; the agent said:\n{}", self.dir.display(), self.log());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The running program; `kill -9` when dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not so: {what}");
        std::thread::sleep(LOOK);
    }
}

fn state(generation: u64, system_id: &str) -> Value {
    json!({
        "version": 1,
        "generation": generation,
        "chassis": {
            "system_id": system_id,
            "ovn_remote": "tcp:192.0.2.1:6642",
            "encap": { "kind": "geneve", "address": "192.0.2.17" },
        },
    })
}

#[test]
fn it_introduces_itself_waits_and_is_accepted() {
    let dpu = Dpu::new("waits");
    let agent = dpu.agent(&["--serial", "DPU-0001", "--function", "tap0=52:54:00:77:00:01"]);
    until("it says hello twice", || (dpu.server.hellos().len() > 1).then_some(()));
    assert!(dpu.log().contains("nobody accepted it yet (it said hello without a token"), "{}", dpu.log());
    assert!(dpu.server.reports().is_empty(), "a stranger reports nothing");
    dpu.server.want(state(3, "a"));
    dpu.server.accept_anybody();
    dpu.reports("it follows", |seen| seen.generation == Some(3));
    assert_eq!(dpu.kept().unwrap()["generation"], 3);
    let hellos = dpu.server.hellos();
    let facts = &hellos[0].facts;
    assert_eq!(facts.serial.as_deref(), Some("DPU-0001"));
    assert_eq!(facts.functions[0].mac.to_string(), "52:54:00:77:00:01");
    assert!(!facts.kernel.is_empty() && !facts.hostname.is_empty());
    let identity = dpu.dir.join("agent/identity");
    assert_eq!(fs::read_to_string(&identity).unwrap().trim(), hellos[0].secret.0);
    assert_eq!(fs::metadata(&identity).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(hellos.iter().all(|hello| hello.secret == hellos[0].secret));
    assert!(!dpu.log().contains(&hellos[0].secret.0), "the secret is in the log");
    drop(agent);
}

#[test]
fn a_token_opens_the_door_and_may_be_gone_afterwards() {
    let dpu = Dpu::new("token");
    let token = dpu.dir.join("token");
    fs::write(&token, "one-time\n").unwrap();
    dpu.server.accept_token("one-time");
    let words = ["--token-file", token.to_str().unwrap()];
    let agent = dpu.agent(&words);
    dpu.reports("it reports", |seen| seen.generation.is_none());
    assert_eq!(dpu.server.hellos().len(), 1);
    drop(agent);
    fs::remove_file(&token).unwrap();
    let agent = dpu.agent(&words);
    until("it says hello by its secret", || (dpu.server.hellos().len() == 2).then_some(()));
    dpu.server.want(state(1, "a"));
    dpu.reports("it follows", |seen| seen.generation == Some(1));
    drop(agent);
}

#[test]
fn a_server_that_is_away_changes_nothing() {
    let dpu = Dpu::new("away");
    dpu.server.accept_anybody();
    dpu.server.want(state(1, "a"));
    let mut agent = dpu.agent(&[]);
    dpu.reports("it follows", |seen| seen.generation == Some(1));
    dpu.server.set_away(true);
    std::thread::sleep(Duration::from_secs(3));
    assert!(agent.0.try_wait().unwrap().is_none(), "it ended");
    drop(agent);
    let _ = fs::remove_file(dpu.dir.join("status.json"));
    let agent = dpu.agent(&[]);
    let status = until("it goes on with the last good state", || {
        serde_json::from_slice::<Observed>(&fs::read(dpu.dir.join("status.json")).ok()?).ok()
    });
    assert_eq!(status.generation, Some(1));
    dpu.server.want(state(2, "b"));
    dpu.server.set_away(false);
    dpu.reports("it follows again", |seen| seen.generation == Some(2));
    dpu.server.forget();
    let hellos = dpu.server.hellos().len();
    until("it says hello again", || (dpu.server.hellos().len() > hellos).then_some(()));
    dpu.server.want(state(3, "c"));
    dpu.server.accept_anybody();
    dpu.reports("it is known again", |seen| seen.generation == Some(3));
    drop(agent);
}

#[test]
fn what_cannot_be_followed_is_said() {
    let dpu = Dpu::new("refused");
    dpu.server.accept_anybody();
    dpu.server.want(state(5, "a"));
    let agent = dpu.agent(&[]);
    dpu.reports("it follows", |seen| seen.generation == Some(5));
    let problem = |seen: &Observed, words: &str| seen.problems.iter().any(|line| line.contains(words));
    let refused = |seen: &Observed| problem(seen, "the server's state is not followed");
    dpu.server.want(state(4, "b"));
    dpu.reports("an older one is refused", |seen| problem(seen, "generation 4 is older than generation 5"));
    assert_eq!(dpu.kept().unwrap(), state_as_kept(5, "a"));
    // The server's database was put back, and nothing had changed.
    dpu.server.want(state(4, "a"));
    dpu.reports("an older one that says the same is no problem", |seen| !refused(seen));
    let mut novel = state(6, "a");
    novel["novel"] = 1.into();
    dpu.server.want(novel);
    dpu.reports("a newer shape", |seen| problem(seen, "novel") && problem(seen, "upgrade billet-dpu"));
    let asked = dpu.server.asked();
    std::thread::sleep(Duration::from_secs(6));
    assert!(dpu.server.asked() - asked <= 3, "it asks for what it refuses all the time");
    dpu.server.want(state(7, "c"));
    let seen = dpu.reports("it follows", |seen| seen.generation == Some(7));
    assert!(!refused(&seen), "{seen:?}");
    drop(agent);
}

/// With what is left out in [`state`].
fn state_as_kept(generation: u64, system_id: &str) -> Value {
    let mut state = state(generation, system_id);
    state["chassis"]["datapath"] = "system".into();
    (state["ports"], state["mirrors"], state["volumes"]) = (json!([]), json!([]), json!([]));
    state
}
