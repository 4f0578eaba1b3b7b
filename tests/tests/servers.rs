//! Many ask for few machines at once, the server is killed in the middle of it, and still each machine is lent once: over HTTP,
//! with a real process and machines that are simulated.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::rack::{Api, ApiError};
use tests::simulated::{SimulatedMachine, inventory};
use tests::site::{Site, disk_with_gpt};
use tests_postgres::Postgres;
use ureq::SendBody;
use ureq::http::Method;

/// Machines.
const MACHINES: u8 = 10;
/// Requests at once.
const ASKED: usize = 200;
/// People who ask; each has so many of the requests.
const PEOPLE: usize = 40;
/// Of a busy host.
const SOON: Duration = Duration::from_secs(120);

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Made(String),
    Refused(String),
}

struct Lab {
    site: Site,
    machines: Vec<SimulatedMachine>,
}

impl Lab {
    /// An image, a flavor, two projects and available machines.
    fn new(site: Site) -> Result<Self> {
        let file = site.dir.join("disk.raw");
        std::fs::write(&file, disk_with_gpt())?;
        let upload =
            format!("/api/v1/images/upload?name=tiny&version=1&size={}&default_user=debian", 8 << 20);
        site.api.upload(&upload, &file)?;
        let mut machines = Vec::new();
        for number in 1..=MACHINES {
            let mut machine =
                SimulatedMachine::new(&site.provisioning.url(), number, &format!("7XKQ2N{number}"));
            machine.boot_agent()?;
            machine.send_inventory(&inventory(&machine, "PowerEdge R7615", "leaf-4a", true))?;
            machines.push(machine);
        }
        site.api.post(
            "/api/v1/flavors",
            &json!({ "name": "any", "billed": { "cores": 64, "memory_mib": 131072, "disks": 2 } }),
        )?;
        for project in ["alpha", "beta"] {
            site.api.post("/api/v1/projects", &json!({ "name": project }))?;
        }
        let lab = Self { site, machines };
        lab.wait("available machines", || {
            Ok(lab.count("/api/v1/nodes?state=available&limit=500")? == usize::from(MACHINES))
        })?;
        Ok(lab)
    }

    fn api(&self) -> &Api {
        &self.site.api
    }

    fn count(&self, path: &str) -> Result<usize> {
        Ok(self.api().get(path)?["items"].as_array().context("no list")?.len())
    }

    fn wait(&self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + SOON;
        while !done()? {
            ensure!(Instant::now() < end, "no {what} in {SOON:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn phases(&self, project: &str, deleted: bool) -> Result<Vec<String>> {
        let page =
            self.api().get(&format!("/api/v1/projects/{project}/servers?limit=500&deleted={deleted}"))?;
        let items = page["items"].as_array().context("no list")?;
        Ok(items.iter().map(|s| s["phase"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Plays the agent of each machine that has work, until it has none.
    fn play(&mut self) -> Result<()> {
        for machine in &mut self.machines {
            // Whose agent is gone may be wanted again; a machine that runs its OS boots none.
            let work = match machine.work(0) {
                Ok(work) => work,
                Err(_) if machine.boot_agent().is_ok() => machine.work(0)?,
                Err(_) => continue,
            };
            if work["job"].is_null() {
                continue;
            }
            machine.finish(&work)?;
            if work["job"]["task"]["kind"] == "deploy" {
                machine.boot()?;
                machine.phone_home(&work)?;
            }
        }
        Ok(())
    }
}

/// Asks until there is an answer: a server that is killed answers nobody, and the key makes it once.
fn ask(api: &Api, project: &str, name: &str) -> Result<Answer> {
    let body = json!({ "name": name, "flavor": "any", "image": "tiny" }).to_string();
    let path = format!("/api/v1/projects/{project}/servers");
    let end = Instant::now() + SOON;
    loop {
        let headers = [("idempotency-key", name), ("content-type", "application/json")];
        let error = match api.send(
            Method::POST,
            &path,
            &headers,
            SendBody::from_owned_reader(std::io::Cursor::new(body.clone())),
        ) {
            Ok(made) => {
                let server = &made["servers"][0];
                let (id, node) = (server["id"].as_str(), server["node"].as_str());
                id.context("a server without an id")?;
                return Ok(Answer::Made(node.context("a server without a machine")?.to_owned()));
            }
            Err(error) => error,
        };
        if let Some(refused) = error.downcast_ref::<ApiError>() {
            ensure!(refused.status == 409, "{refused}");
            return Ok(Answer::Refused(refused.body["code"].as_str().unwrap_or_default().to_owned()));
        }
        if Instant::now() > end {
            bail!("no answer for {name}: {error:#}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// All requests at once, while `meanwhile` goes on; it is told how many were answered.
fn ask_all(
    api: &Api,
    project: &str,
    prefix: &str,
    meanwhile: impl FnOnce(&AtomicUsize) -> Result<()>,
) -> Result<Vec<Answer>> {
    let answers = Mutex::new(Vec::new());
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let people: Vec<_> = (0..PEOPLE)
            .map(|person| {
                let (answers, answered) = (&answers, &answered);
                scope.spawn(move || -> Result<()> {
                    for n in (person..ASKED).step_by(PEOPLE) {
                        let answer = ask(api, project, &format!("{prefix}{n}"))?;
                        answered.fetch_add(1, Ordering::Relaxed);
                        answers.lock().expect("nobody panics with it").push(answer);
                    }
                    Ok(())
                })
            })
            .collect();
        meanwhile(&answered)?;
        people.into_iter().try_for_each(|person| person.join().expect("a thread that does not panic"))
    })?;
    Ok(answers.into_inner()?)
}

fn wait_for(answered: &AtomicUsize, count: usize) -> Result<()> {
    let end = Instant::now() + SOON;
    while answered.load(Ordering::Relaxed) < count {
        ensure!(Instant::now() < end, "{count} answers take longer than {SOON:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Ten were made, on ten machines, and everybody else was told why not.
fn check_exact(answers: &[Answer]) -> Result<()> {
    let made: Vec<&String> =
        answers.iter().filter_map(|a| if let Answer::Made(node) = a { Some(node) } else { None }).collect();
    let nodes: BTreeSet<_> = made.iter().collect();
    ensure!(answers.len() == ASKED, "{} answers", answers.len());
    ensure!((made.len(), nodes.len()) == (10, 10), "{} were made on {} machines", made.len(), nodes.len());
    let refused: BTreeSet<_> = answers
        .iter()
        .filter_map(|a| if let Answer::Refused(code) = a { Some(code.as_str()) } else { None })
        .collect();
    ensure!(refused == BTreeSet::from(["no-capacity"]), "refused with {refused:?}");
    Ok(())
}

fn walk(site: Site) -> Result<()> {
    let mut lab = Lab::new(site)?;
    let begun = Instant::now();
    let api = lab.api().clone();
    let server = &mut lab.site.server;
    let answers = ask_all(&api, "alpha", "s", |answered| {
        for count in [3, 20, 90] {
            wait_for(answered, count)?;
            server.kill()?;
            server.start_again()?;
        }
        Ok(())
    })?;
    check_exact(&answers)?;
    println!("200 requests with three kills: {:?}", begun.elapsed());
    ensure!(lab.phases("alpha", true)?.len() == 10, "servers that nobody was told of");

    // They come up, and another kill between does no harm.
    let mut killed = false;
    let end = Instant::now() + SOON;
    while lab.phases("alpha", false)?.iter().any(|phase| phase != "active") {
        ensure!(Instant::now() < end, "they do not come up: {:?}", lab.phases("alpha", false)?);
        lab.play()?;
        if !std::mem::replace(&mut killed, true) {
            lab.site.server.kill()?;
            lab.site.server.start_again()?;
        }
    }
    let quota = lab.api().get("/api/v1/projects/alpha/quota")?;
    ensure!(quota["used"]["servers"] == 10 && quota["used"]["cores"] == 640, "{quota}");

    // Given back, all at once.
    let page = lab.api().get("/api/v1/projects/alpha/servers?limit=500")?;
    let ids: Vec<&Value> = page["items"].as_array().context("no list")?.iter().map(|s| &s["id"]).collect();
    let outcomes = lab
        .api()
        .post("/api/v1/projects/alpha/servers/actions", &json!({ "verb": "delete", "servers": ids }))?;
    ensure!(
        outcomes["outcomes"].as_array().is_some_and(|all| all.iter().all(|o| o["problem"].is_null())),
        "{outcomes}"
    );
    let end = Instant::now() + SOON;
    while !lab.phases("alpha", false)?.is_empty() {
        ensure!(Instant::now() < end, "they are not given back: {:?}", lab.phases("alpha", false)?);
        lab.play()?;
    }
    let usage = lab.api().get("/api/v1/projects/alpha/usage")?;
    let lines = usage["lines"].as_array().context("no lines")?;
    ensure!(lines.len() == 10 && lines.iter().all(|line| line["open"] == false), "{usage}");
    let sla = lab.api().get("/api/v1/projects/alpha/sla")?;
    ensure!(sla["provisioning"]["count"] == 10, "{sla}");

    // A quota is not passed, however many ask at once.
    lab.api().put("/api/v1/projects/beta/quota", &json!({ "servers": 4 }))?;
    let answers = ask_all(&api, "beta", "q", |_| Ok(()))?;
    let made = answers.iter().filter(|answer| matches!(answer, Answer::Made(_))).count();
    ensure!(made == 4, "{made} were made of a quota of 4");
    ensure!(answers.iter().all(|a| matches!(a, Answer::Made(_)) || *a == Answer::Refused("quota".into())));
    let quota = lab.api().get("/api/v1/projects/beta/quota")?;
    ensure!(quota["used"]["servers"] == 4, "{quota}");
    Ok(())
}

#[test]
fn each_machine_is_lent_once_whatever_happens_meanwhile() -> Result<()> {
    walk(Site::new("servers/sqlite")?)
}

#[test]
fn each_machine_is_lent_once_on_postgresql() -> Result<()> {
    let Some(database) = Postgres::start(&[])? else { return Ok(()) };
    walk(Site::on("servers/postgresql", database)?)
}
