//! The place: a server in a namespace with a small disk of its own, links to it, machines, an agent, DHCP clients, people.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bmc::Identity;
use failpoint::Point;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use tests_postgres::Postgres;

use super::clients::{self, Leases, RELAY};
use super::machines::Player;
use super::people::Person;
use super::real_agent::{self, RealAgent};
use super::{Fault, History, Ledger, Link, Model, Plan, Report, Store};
use crate::bmc::MemoryMachine;
use crate::bmc::redfish::{PASSWORD, Profile, RedfishBmc, USER};
use crate::fleet::rng::Rng;
use crate::rack::{Api, BRIDGE, Handle, Namespace, OPERATORS_PORT, SERVER_ADDRESS, Server, binary, within};
use crate::simulated::{SimulatedMachine, inventory};
use crate::site::disk_with_gpt;

/// Machines, and how many of them have a controller: the first.
const MACHINES: u8 = 8;
const CONTROLLERS: u8 = 6;
/// People.
const PEOPLE: usize = 4;
/// Room of the state directory.
const ROOM: &str = "size=256m";
/// A node or server that does not move for so long is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// For everything to happen that leads to a failpoint.
const TO_POINT: Duration = Duration::from_secs(20);
/// Of a busy host, to come up the first time.
const SOON: Duration = Duration::from_secs(60);

/// The world. Fields are dropped in this order.
pub struct World {
    pub(super) server: Server,
    pub(super) links: Vec<Link>,
    pub(super) history: Arc<History>,
    /// The server runs with something broken in it.
    pub(super) broken: bool,
    plan: Plan,
    api: Api,
    model: Mutex<Model>,
    ledger: Arc<Ledger>,
    leases: Leases,
    agent: RealAgent,
    players: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// What each node was at, and since when.
    seen: std::collections::BTreeMap<String, (String, Instant)>,
    retries: usize,
    /// Nodes with a controller.
    controlled: Vec<String>,
    pub(super) controllers: Vec<RedfishBmc>,
    runtime: tokio::runtime::Runtime,
    clients: Handle,
    dir: PathBuf,
    namespaces: [Namespace; 2],
    _room: Room,
}

/// A file system of its own, so that it can be full.
struct Room(PathBuf);

impl Room {
    fn new(at: &Path) -> Result<Self> {
        fs::create_dir_all(at)?;
        mount(Some("chaos"), at, Some("tmpfs"), MsFlags::empty(), Some(ROOM))
            .with_context(|| format!("mounting a small file system at {}", at.display()))?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps it.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

impl World {
    /// Makes it; `dir` is emptied.
    ///
    /// # Errors
    /// Where something of it is missing or does not come up.
    pub fn new(plan: &Plan, dir: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir.join("boot"))?;
        for name in ["vmlinuz", "initramfs"] {
            fs::write(dir.join("boot").join(name), name)?;
        }
        let (inside, outside) = (Namespace::new()?, Namespace::new()?);
        inside.bridge(BRIDGE, &format!("{SERVER_ADDRESS}/16"))?;
        inside.cable("relay0", &outside, "relay1")?;
        inside.plug("relay0", BRIDGE)?;
        outside.ip(&["addr", "add", &format!("{RELAY}/16"), "dev", "relay1"])?;
        outside.ip(&["link", "set", "relay1", "up"])?;
        let room = Room::new(&dir.join("state"))?;
        let database = match plan.store {
            Store::Sqlite => None,
            Store::Postgres => Some(Postgres::start(&[])?.context("PostgreSQL is not installed")?),
        };
        let server = Server::start_on(&inside, dir, &config(dir), database)?;
        refuses_nonsense(dir)?;
        let link = |target: String| Link::start(inside.clone_handle()?, target.parse()?);
        let links =
            vec![link(format!("127.0.0.1:{OPERATORS_PORT}"))?, link(format!("{SERVER_ADDRESS}:8080"))?];
        let api = Api::new(links[0].url(), server.token()?);
        let image = furnish(&api, dir)?;
        let runtime = tokio::runtime::Runtime::new()?;
        let agent = RealAgent::new(dir, &links[1].url(), &image)?;
        let mut world = Self {
            server,
            history: Arc::new(History::new(&dir.join("history"))?),
            broken: false,
            plan: *plan,
            api,
            model: Mutex::default(),
            ledger: Arc::default(),
            leases: Leases::default(),
            agent,
            players: Vec::new(),
            stop: Arc::default(),
            seen: std::collections::BTreeMap::new(),
            retries: 0,
            controlled: Vec::new(),
            controllers: Vec::new(),
            runtime,
            clients: outside.clone_handle()?,
            dir: dir.to_owned(),
            links,
            namespaces: [inside, outside],
            _room: room,
        };
        world.people_the_hall()?;
        Ok(world)
    }

    /// Machines are discovered; then each lives by itself.
    fn people_the_hall(&mut self) -> Result<()> {
        let base = self.links[1].url();
        let mut machines = Vec::new();
        for number in 1..=MACHINES {
            let mut machine = SimulatedMachine::new(&base, number, &format!("7XKQ2N{number}"));
            machine.boot_agent()?;
            machine.send_inventory(&inventory(&machine, "PowerEdge R7615", "leaf-4a", true))?;
            let node = self.api.wait("/api/v1/nodes?limit=500", SOON, |page| {
                let items = page["items"].as_array()?;
                let mine = |n: &&Value| {
                    n["macs"].as_array().is_some_and(|macs| macs.iter().any(|m| *m == machine.mac))
                };
                items.iter().find(mine).filter(|n| n["state"] == "available")?["name"]
                    .as_str()
                    .map(str::to_owned)
            })?;
            let button = if number <= CONTROLLERS { Some(self.controller(number, &node)?) } else { None };
            machines.push((number, machine, button));
        }
        let rng = Rng::new(self.plan.seed).fork(1);
        for (number, machine, button) in machines {
            let player = Player {
                number,
                machine,
                button,
                ledger: self.ledger.clone(),
                history: self.history.clone(),
                rng: rng.fork(number.into()),
                stop: self.stop.clone(),
            };
            self.players.push(std::thread::spawn(move || player.run()));
        }
        Ok(())
    }

    /// A controller whose machine is a few fields.
    fn controller(&mut self, number: u8, node: &str) -> Result<MemoryMachine> {
        let machine = MemoryMachine::new(Identity::default());
        let port = 8443 + u16::from(number);
        let (at, button) = (format!("{SERVER_ADDRESS}:{port}").parse()?, Arc::new(machine.clone()));
        let bmc = within(&self.namespaces[0].clone_handle()?, || {
            let _inside = self.runtime.enter();
            self.runtime.block_on(RedfishBmc::start(Profile::named("dell-idrac9")?, button, at, true))
        })?;
        self.controllers.push(bmc);
        self.controlled.push(node.to_owned());
        let request = json!({ "driver": "redfish", "address": SERVER_ADDRESS, "port": port, "user": USER, "password": PASSWORD });
        self.api.put(&format!("/api/v1/nodes/{node}/bmc"), &request)?;
        Ok(machine)
    }

    /// One round: load and faults, then all is healed, everybody has an answer, and the model is compared.
    ///
    /// # Errors
    /// Where the server does not come up again.
    pub fn round(&mut self, round: u32, report: &mut Report) -> Result<()> {
        let mut rng = Rng::new(self.plan.seed).fork(1000 + u64::from(round));
        let faults = Fault::all(self.plan.store);
        let chosen: Vec<Fault> =
            (0..1 + rng.below(2)).map(|_| faults[rng.below(faults.len() as u64) as usize]).collect();
        self.history.say(&format!("round {round}: {chosen:?}"));
        let load = rng.fork(3);
        let stuck = self.under_load((round, false), &load, |world| {
            chosen.iter().try_for_each(|fault| {
                std::thread::sleep(rng.time(Duration::from_millis(400)));
                world.inject(*fault, &mut rng)
            })
        })?;
        chosen.iter().for_each(|fault| *report.faults.entry(fault.name()).or_default() += 1);
        report.stuck += u32::try_from(stuck.len())?;
        report.wrong.extend(stuck);
        self.check(report, &mut rng)
    }

    /// A server that dies at this point while everybody does everything; false where nothing leads there.
    ///
    /// # Errors
    /// Where the server does not come up again.
    pub fn walk(&mut self, point: Point, round: u32, report: &mut Report) -> Result<bool> {
        self.history.say(&format!("round {round}: {}", point.name()));
        let rng = Rng::new(self.plan.seed).fork(u64::from(round));
        let mut died = self.restart_with(&format!("{}=kill@1", point.name()))?;
        let stuck = self.under_load((round, true), &rng, |world| {
            if !died {
                world.switch_machines()?;
                died = world.wait_death(TO_POINT)?;
            }
            Ok(())
        })?;
        report.stuck += u32::try_from(stuck.len())?;
        report.wrong.extend(stuck);
        *report.faults.entry(point.name()).or_default() += u32::from(died);
        self.check(report, &mut rng.fork(1))?;
        Ok(died)
    }

    /// Asks controllers to switch their machines on, as an operator may at any time.
    fn switch_machines(&self) -> Result<()> {
        for node in &self.controlled {
            // Not answered where the server dies of it.
            drop(self.api.post(&format!("/api/v1/nodes/{node}/power"), &json!({ "action": "on" })));
        }
        Ok(())
    }

    /// People, clients and the agent do what they do while faults come; what had no answer in time.
    fn under_load(
        &mut self,
        (round, everything): (u32, bool),
        rng: &Rng,
        breaks: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<Vec<String>> {
        let (model, history, ledger) =
            (std::mem::take(&mut *self.model()), self.history.clone(), self.ledger.clone());
        let model = Mutex::new(model);
        let api = self.api.clone();
        let (dir, clients) = (self.dir.clone(), self.clients.try_clone()?);
        let agent_rng = rng.fork(7);
        // The agent is not needed by what breaks the server.
        let agent = self.agent.clone();
        let outcome = std::thread::scope(|scope| {
            let people: Vec<_> = (0..PEOPLE)
                .map(|number| {
                    let person = Person {
                        number,
                        round,
                        api: &api,
                        model: &model,
                        history: &history,
                        rng: rng.fork(100 + number as u64),
                        dir: dir.clone(),
                        everything,
                    };
                    scope.spawn(move || person.run())
                })
                .collect();
            let lending = scope.spawn(|| clients::ask(&clients, round));
            let writing = scope.spawn(|| agent.round(agent_rng, &ledger, &history));
            let broke = breaks(self).and_then(|()| self.heal());
            let mut stuck = Vec::new();
            for person in people {
                match person.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => stuck.push(format!("{error:#}")),
                    Err(_) => stuck.push("a person broke down".to_owned()),
                }
            }
            let lent = lending.join().unwrap_or_else(|_| bail!("the DHCP clients broke down"));
            let wrote = writing.join().unwrap_or_else(|_| bail!("the agent's thread broke down"));
            broke.and(wrote).and(lent).map(|lent| (stuck, lent))
        });
        *self.model() = model.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (mut stuck, lent) = outcome?;
        let (twice, missing) = self.leases.take(lent);
        twice.into_iter().for_each(|what| self.ledger.wrong(what));
        if missing > 0 {
            stuck.push(format!("{missing} DHCP clients have no address after 40 s"));
        }
        Ok(stuck)
    }

    /// All works: what was acknowledged is there, once, and everything moves.
    fn check(&mut self, report: &mut Report, rng: &mut Rng) -> Result<()> {
        self.agent.finish(&self.ledger)?;
        let wrong = {
            let mut model = self.model();
            let wrong = model.check(&self.api)?;
            report.acknowledged = model.acknowledged;
            wrong
        };
        let mut lost = wrong.lost;
        lost.extend(self.leases.forgotten(&self.clients, rng)?);
        let mut twice = wrong.twice;
        twice.extend(self.ledger.take_wrong());
        let (handed, asked) = (self.ledger.deploys_handed(), self.model().deploys + self.retries);
        if handed > asked {
            twice.push(format!("{handed} deploys were handed out of {asked} that somebody asked for"));
        }
        let stuck = self.standing_still()?;
        for what in lost.iter().chain(&twice).chain(&stuck) {
            self.history.say(&format!("WRONG: {what}"));
        }
        report.lost += u32::try_from(lost.len())?;
        report.twice += u32::try_from(twice.len())?;
        report.stuck += u32::try_from(stuck.len())?;
        report.wrong.extend(lost.into_iter().chain(twice).chain(stuck));
        report.counts = self.ledger.counts();
        report.leases = self.leases.count();
        Ok(())
    }

    /// Nodes that are on their way and did not move for a minute. Failed ones are tried again, as an operator would.
    fn standing_still(&mut self) -> Result<Vec<String>> {
        let page = self.api.get("/api/v1/nodes?limit=500")?;
        let mut still = Vec::new();
        for node in page["items"].as_array().context("no list of nodes")? {
            let name = node["name"].as_str().unwrap_or_default().to_owned();
            let state = node["state"].as_str().unwrap_or_default();
            if state == "failed" {
                self.retries += 1;
                self.history.say(&format!("{name} failed: {}", node["fault"]));
                self.try_again(&name);
            }
            let at = format!("{state} {} {}", node["job"]["id"], node["job"]["stage"]);
            let rests = ["available", "active", "manageable"].contains(&state);
            let entry = self.seen.entry(name.clone()).or_insert_with(|| (at.clone(), Instant::now()));
            if entry.0 != at || rests {
                *entry = (at, Instant::now());
            } else if entry.1.elapsed() > STUCK {
                still.push(format!("{name} does not move: {} {}", entry.0, node["waits_for"]));
            }
        }
        Ok(still)
    }

    /// What an operator does with a node that failed; that it is refused now is tried again later.
    fn try_again(&self, name: &str) {
        if let Err(error) = self.api.post(&format!("/api/v1/nodes/{name}/retry"), &json!({})) {
            self.history.say(&format!("{name} is not tried again now: {error:#}"));
        }
    }

    /// No more faults: within a minute everything rests.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub fn settle(&mut self, report: &mut Report) -> Result<()> {
        let end = Instant::now() + STUCK;
        loop {
            let still = self.restless()?;
            if still.is_empty() || !report.is_clean() {
                break;
            }
            if Instant::now() > end {
                report.stuck += u32::try_from(still.len())?;
                report.wrong.extend(still);
                break;
            }
            // A failed one is tried again.
            self.standing_still()?;
            std::thread::sleep(LOOK);
        }
        let mut rng = Rng::new(self.plan.seed).fork(2);
        self.check(report, &mut rng)?;
        ensure!(report.counts.finished > 0 || report.rounds < 3, "no machine ever finished a job");
        Ok(())
    }

    /// Nodes and servers that are on their way.
    fn restless(&self) -> Result<Vec<String>> {
        let mut still = Vec::new();
        for (path, member, rests) in [
            ("/api/v1/nodes?", "state", ["available", "active", "manageable"]),
            ("/api/v1/projects/alpha/servers?", "phase", ["active", "error", "deleted"]),
        ] {
            for row in super::model::items(&self.api, path)? {
                let at = row[member].as_str().unwrap_or_default();
                if !rests.contains(&at) {
                    still.push(format!("{} is {at}: {} {}", row["name"], row["waits_for"], row["note"]));
                }
            }
        }
        Ok(still)
    }

    fn model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for player in self.players.drain(..) {
            // One that broke down said so.
            drop(player.join());
        }
    }
}

/// Health is not looked at: the stand-ins are made to be ill, and then their machines would not be given to anybody.
fn config(dir: &Path) -> String {
    let (state, boot) = (dir.join("state"), dir.join("boot"));
    format!(
        "state_dir = {state:?}\n\n[provisioning]\ninterface = \"{BRIDGE}\"\n\n[dhcp]\nrange_start = \"10.77.1.0\"\n\
         range_end = \"10.77.250.255\"\nprobe = false\n\n[boot]\ndirectory = {boot:?}\n\n[operators]\n\
         listen = \"127.0.0.1:{OPERATORS_PORT}\"\n\n[bmc]\nhealth_seconds = 86400\n\n[log]\nlevel = \"info\"\n"
    )
}

/// A build that minds no failpoint would pass by doing nothing.
fn refuses_nonsense(dir: &Path) -> Result<()> {
    let mut command = std::process::Command::new(binary()?);
    command.args(["serve", "--config"]).arg(dir.join("none.toml")).env(failpoint::VARIABLE, "nonsense");
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    // Before its configuration, which is not there: so the words say which it was.
    ensure!(
        output.status.code() == Some(2) && said.contains(failpoint::VARIABLE),
        "this billet minds no failpoint: {said}"
    );
    Ok(())
}

/// Images, a flavor, a project; the id of the image that real agents write.
fn furnish(api: &Api, dir: &Path) -> Result<String> {
    let file = dir.join("tiny.raw");
    fs::write(&file, disk_with_gpt())?;
    let upload = |name: &str, file: &Path| {
        let size = fs::metadata(file)?.len();
        let path = format!("/api/v1/images/upload?name={name}&version=1&size={size}&default_user=debian");
        api.upload(&path, file)
    };
    upload("tiny", &file)?;
    let image = upload("real", &real_agent::image(dir)?)?;
    let billed = json!({ "cores": 64, "memory_mib": 131_072, "disks": 2 });
    api.post("/api/v1/flavors", &json!({ "name": "any", "billed": billed }))?;
    api.post("/api/v1/projects", &json!({ "name": "alpha" }))?;
    image["id"].as_str().map(str::to_owned).context("an image without an id")
}
