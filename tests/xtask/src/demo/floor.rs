//! The machines of the demo: what happens to them is printed as it happens, and what a person would do is done: press
//! the power button when the server asks for it, fill in the deploy form, log in afterwards.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tests::rack::{Api, Machine};

use super::login::{self, Key, MARK, MARK_FILE};
use super::waterfall;

/// User that the image has.
const USER: &str = "debian";

/// What is wanted of one machine.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Short name in the output: how it boots.
    pub label: &'static str,
    /// Host name of its OS.
    pub hostname: &'static str,
    /// Serial number of the disk that is written.
    pub disk: &'static str,
    /// Size of that disk in bytes.
    pub disk_bytes: u64,
}

/// All machines, and the server's view of them.
pub struct Floor {
    api: Api,
    key: Key,
    image: String,
    places: Vec<Place>,
    /// Newest event that was looked at.
    event: i64,
}

struct Place {
    guest: Guest,
    machine: Machine,
    on: Instant,
    /// The node's name, once the server has discovered it.
    node: Option<String>,
    /// State and stage that were printed last.
    shown: (String, String),
    /// Newest waterfall of each kind of work, by its title.
    timelines: BTreeMap<String, Value>,
    /// An OS has come up, and nobody was told yet how to log in.
    fresh: bool,
    /// URL of the form that somebody else fills in.
    form: Option<String>,
    order: Order,
}

/// How far the demo's own deploy is.
enum Order {
    /// Not asked for yet.
    Open,
    /// On its way.
    Running,
    /// The OS is up; a login is being tried.
    LogIn(JoinHandle<Result<String>>),
    /// It let us in, and is what was asked for.
    Good,
    /// The reason why not.
    Bad(String),
}

impl Floor {
    /// No machine yet.
    pub fn new(api: Api, key: Key, image: String) -> Self {
        Self { api, key, image, places: Vec::new(), event: 0 }
    }

    /// Takes in a machine and switches it on.
    pub fn power_on(&mut self, guest: Guest, mut machine: Machine) -> Result<()> {
        machine.power_on()?;
        println!("{:>7.1} s  {:<5} switched on: blank disks, {}", 0.0, guest.label, machine.mac(0));
        self.places.push(Place {
            guest,
            machine,
            on: Instant::now(),
            node: None,
            shown: Default::default(),
            timelines: BTreeMap::new(),
            fresh: false,
            form: None,
            order: Order::Open,
        });
        Ok(())
    }

    /// The machine of this number is deployed by a person.
    pub fn leave_to_the_form(&mut self, number: usize, ui: &str) {
        if let Some(place) = self.places.get_mut(number) {
            place.form = Some(ui.to_owned());
        }
    }

    /// Looks at everything once and does what is due.
    pub fn look(&mut self) -> Result<()> {
        self.press_buttons()?;
        let page = self.api.get("/api/v1/nodes")?;
        let nodes = page["items"].as_array().context("a page of nodes has items")?;
        for place in &mut self.places {
            let mac = place.machine.mac(0);
            let has_mac = |n: &&Value| n["macs"].as_array().is_some_and(|m| m.iter().any(|m| *m == mac));
            if let Some(node) = nodes.iter().find(has_mac) {
                place.show(node);
                place.go_on(node, &self.api, &self.key, &self.image)?;
            }
            if !place.machine.is_on() {
                place.say("switched itself off; the demo switches it on again");
                place.machine.power_on()?;
            }
        }
        Ok(())
    }

    /// The hand on the power button: the server asks for it where it has no other way to restart a machine.
    fn press_buttons(&mut self) -> Result<()> {
        let page = self.api.get(&format!("/api/v1/events?after={}&limit=500", self.event))?;
        for event in page["items"].as_array().into_iter().flatten() {
            self.event = event["id"].as_i64().unwrap_or(self.event);
            if event["kind"] != "power.wanted" {
                continue;
            }
            let name = event["node_name"].as_str();
            if let Some(place) = self.places.iter_mut().find(|p| p.node.as_deref() == name) {
                place.say("the server asks for a restart: the demo presses reset");
                place.machine.reset()?;
            }
        }
        Ok(())
    }

    /// True when every order has ended, well or not.
    pub fn settled(&self) -> bool {
        self.places.iter().all(|p| matches!(p.order, Order::Good | Order::Bad(_)))
    }

    /// An error where a machine is not what was asked for.
    pub fn verdict(&self) -> Result<()> {
        let mut bad = Vec::new();
        for place in &self.places {
            match &place.order {
                Order::Good => println!("{}: deployed, and logged in to by SSH", place.guest.label),
                Order::Bad(why) => bad.push(format!("{}: {why}", place.guest.label)),
                Order::Open | Order::Running | Order::LogIn(_) => {
                    bad.push(format!("{}: not done", place.guest.label));
                }
            }
        }
        if bad.is_empty() { Ok(()) } else { bail!("{}", bad.join("\n")) }
    }

    /// The two numbers of each machine that say how long people waited.
    pub fn print_numbers(&self) {
        println!();
        for place in &self.places {
            for (title, from, to, what) in [
                ("discovery", "dhcp", "agent", "from the first DHCPDISCOVER to agent hello"),
                ("deploy", "requested", "done", "from the Deploy click to phone-home"),
            ] {
                let timeline = place.timelines.iter().find(|(t, _)| t.starts_with(title));
                let took = timeline.and_then(|(_, t)| waterfall::between(t, from, to));
                let took = took.map_or("not seen".to_owned(), |ms| format!("{:.1}", waterfall::seconds(ms)));
                println!("{}: seconds {what}: {took}", place.guest.label);
            }
        }
    }
}

impl Place {
    fn say(&self, text: &str) {
        println!("{:>7.1} s  {:<5} {text}", self.on.elapsed().as_secs_f64(), self.guest.label);
    }

    /// Prints what has changed, and keeps the waterfall.
    fn show(&mut self, node: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if self.node.is_none() {
            self.say(&format!("the server lists it as {}", text(&node["name"])));
        }
        self.node = node["name"].as_str().map(str::to_owned);
        let timeline = &node["timeline"];
        if let Some(title) = timeline["title"].as_str() {
            self.timelines.insert(title.to_owned(), timeline.clone());
        }
        let now = (text(&node["state"]), text(&node["job"]["stage"]));
        if now == self.shown {
            return;
        }
        let mut line = format!("{:<10} {:<10}", now.0, now.1);
        if let Some(fault) = node["fault"]["message"].as_str() {
            line.push_str(&format!(" {fault}"));
        } else if let Some(waits) = node["waits_for"].as_str() {
            line.push_str(&format!(" waits for {waits}"));
        }
        self.say(line.trim_end());
        let was_deploying = self.shown.0 == "deploying";
        self.shown = now;
        if was_deploying && self.shown.0 != "deploying" {
            self.print_waterfall(timeline);
            self.fresh = self.shown.0 == "active";
        }
    }

    fn print_waterfall(&self, timeline: &Value) {
        println!("\n  {}: {}", self.guest.label, timeline["title"].as_str().unwrap_or_default());
        for line in waterfall::lines(timeline) {
            println!("{line}");
        }
        println!();
    }

    /// Does what is due: deploys what is offered, logs in to what has come up.
    fn go_on(&mut self, node: &Value, api: &Api, key: &Key, image: &str) -> Result<()> {
        let state = node["state"].as_str().unwrap_or_default();
        let name = self.node.clone().unwrap_or_default();
        if std::mem::take(&mut self.fresh) {
            self.log_in(api, &name, key)?;
        }
        match std::mem::replace(&mut self.order, Order::Open) {
            Order::Open if state == "available" => {
                match &self.form {
                    None => self.deploy(api, &name, key, image)?,
                    Some(ui) => self.say(&format!("waits for the form: {ui}/nodes/{name}/deploy")),
                }
                self.order = Order::Running;
            }
            Order::Running | Order::Open if state == "failed" => {
                self.order = Order::Bad(node["fault"]["message"].as_str().unwrap_or("failed").to_owned());
            }
            Order::LogIn(attempt) if attempt.is_finished() => {
                self.order = match attempt.join() {
                    Ok(Ok(line)) => {
                        self.say(&format!("SSH login: {line}"));
                        Order::Good
                    }
                    Ok(Err(error)) => Order::Bad(format!("{error:#}")),
                    Err(_) => Order::Bad("the login panicked".to_owned()),
                };
                if let Order::Bad(why) = &self.order {
                    self.say(&format!("SSH login failed: {why}"));
                }
            }
            other => self.order = other,
        }
        Ok(())
    }

    /// What a person does in the form.
    fn deploy(&self, api: &Api, name: &str, key: &Key, image: &str) -> Result<()> {
        let file = json!({ "write_files": [{ "path": MARK_FILE, "content": MARK }] });
        let body = json!({
            "image": image,
            "disk": { "id": format!("serial:{}", self.guest.disk) },
            "hostname": self.guest.hostname,
            "ssh_keys": [key.public()],
            "user_data": format!("#cloud-config\n{file}\n"),
            "confirm": name,
        });
        self.say(&format!("Deploy is pressed: disk serial:{}", self.guest.disk));
        api.post(&format!("/api/v1/nodes/{name}/deploy"), &body).map(drop)
    }

    /// Says how to log in, and does it where the demo itself asked for the OS and knows what to find.
    fn log_in(&mut self, api: &Api, name: &str, key: &Key) -> Result<()> {
        let detail = api.get(&format!("/api/v1/nodes/{name}"))?;
        let Some(address) = detail["addresses"][0]["address"].as_str().map(str::to_owned) else {
            self.order = Order::Bad("the server knows no address of it".to_owned());
            return Ok(());
        };
        self.say(&format!("runs at {address}; log in: {}", key.command(USER, &address)));
        if self.form.is_none() && matches!(self.order, Order::Running) {
            let (key, guest) = (key.clone(), self.guest.clone());
            self.order = Order::LogIn(std::thread::spawn(move || {
                let said = key.ask(USER, &address)?;
                login::check(&guest, USER, &said)
            }));
        }
        Ok(())
    }
}
