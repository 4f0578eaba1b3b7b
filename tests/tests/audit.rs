//! The audit and four eyes on a real server: pages in a real browser, `kill -9` in the middle, and the chain checked far from
//! the server. Pictures go to `target/ui-screenshots/`.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::browser::Browser;
use tests::pages::{approve, sign_in_with_token, verify_audit};
use tests::rack::{Api, Server};
use tests::scenario::ask_to_wipe;
use tests::simulated::{SimulatedMachine, inventory};
use tests::site::Site;

/// Two people for everything.
const FOUR_EYES: &str = "\n[approvals]\nall_nodes = true\n";
/// How long something that is approved may take.
const SOON: Duration = Duration::from_secs(20);

/// A site with machines that nobody uses, and what they are called.
fn site(name: &str, machines: u8) -> Result<(Site, Vec<String>)> {
    let site = Site::with_config(&format!("audit/{name}"), FOUR_EYES)?;
    for number in 1..=machines {
        let mut machine = SimulatedMachine::new(&site.provisioning.url(), number, &serial(number));
        machine.boot_agent()?;
        machine.send_inventory(&inventory(&machine, "PowerEdge R7615", "leaf-4a", true))?;
    }
    let nodes = site.api.wait("/api/v1/nodes?state=available", SOON, |page| {
        let names = page["items"].as_array()?.iter().filter_map(|n| Some(n["name"].as_str()?.to_owned()));
        Some(names.collect::<Vec<_>>()).filter(|names| names.len() == usize::from(machines))
    })?;
    for node in &nodes {
        site.api.post(&format!("/api/v1/nodes/{node}/manage"), &json!({}))?;
    }
    Ok((site, nodes))
}

fn serial(number: u8) -> String {
    format!("7XKQ2N{number}")
}

fn token(api: &Api, name: &str) -> Result<Api> {
    let made = api.post("/api/v1/tokens", &json!({ "name": name, "role": "operator" }))?;
    Ok(api.with_token(made["secret"].as_str().context("no token")?))
}

fn over(api: &Api, id: &str) -> Result<Value> {
    api.wait(&format!("/api/v1/approvals/{id}"), SOON, |it| {
        let open = ["waiting", "approved", "carrying"].iter().any(|open| it["status"] == *open);
        (!open).then(|| it.clone())
    })
}

fn billet(server: &Server, arguments: &[&str]) -> Result<Output> {
    Ok(server.command_line()?.args(arguments).output()?)
}

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_second_person_approves_in_the_browser_and_the_chain_is_verified() -> Result<()> {
    let (mut site, nodes) = site("pages", 1)?;
    let node = nodes.first().context("no machine")?;
    let olga = token(&site.api, "olga")?;
    let browser = Browser::start(&site.dir, None)?;
    let go = |site: &Site, path: &str| browser.goto(&format!("{}{path}", site.server.url()));
    go(&site, "/approvals")?;
    sign_in_with_token(&browser, &site.server.token()?)?;
    browser.wait_text(".empty", "Nothing waits")?;

    // It comes by itself to whoever has the page open.
    browser.execute("window.untouched = true")?;
    let id = ask_to_wipe(&olga, node)?;
    browser.wait_text("#approvals", "Waits for a second person")?;
    ensure!(browser.execute("return window.untouched")? == true, "the page was loaded again");
    browser.picture("approvals")?;
    go(&site, &format!("/approvals/{id}"))?;
    browser.wait_text("#decide", "Your decision")?;
    browser.picture("approval")?;
    go(&site, "/approvals")?;
    approve(&browser, "olga", "the <b>rack</b> is drained")?;
    browser.picture("approval-done")?;
    ensure!(site.api.get(&format!("/api/v1/nodes/{node}"))?["state"] == "cleaning", "it was not done");

    browser.find("#live a[href^='/audit']")?.click()?;
    browser.wait_text("#audit", "olga")?;
    ensure!(browser.url()?.contains(&id), "not the audit of this request");
    go(&site, "/audit?kind=approval")?;
    browser.wait_text("#audit", "approval.done")?;
    verify_audit(&browser)?;
    ensure!(browser.url()?.contains("kind=approval"), "the filter is lost");
    go(&site, "/audit")?;
    browser.wait_text("#audit", "POST /api/v1/nodes/{node}/provide")?;
    browser.picture("audit")?;
    go(&site, "/audit?actor=nobody-of-this-name")?;
    browser.wait_text(".empty", "None fits this filter")?;
    go(&site, "/audit?since=yesterday")?;
    browser.wait_text(".callout", "a day is written as")?;

    // Somebody with the database makes olga innocent.
    let head = says(&billet(&site.server, &["audit", "head", "-o", "name"])?).trim().to_owned();
    let export = site.dir.join("audit.ndjson").display().to_string();
    ensure!(billet(&site.server, &["audit", "export", "--file", &export])?.status.success());
    site.server.stop()?;
    let database = site.server.state_dir().join("billet.db");
    let eve = rusqlite::Connection::open(&database)?;
    let altered =
        eve.execute("UPDATE audit SET actor = 'eve' WHERE kind = 'asked' AND actor = 'olga'", [])?;
    ensure!(altered > 0, "nothing to alter");
    drop(eve);
    let database = database.display().to_string();
    let far = billet(&site.server, &["audit", "verify", "--file", &export, "--head", &head])?;
    ensure!(far.status.success() && says(&far).starts_with("intact: "), "{}", says(&far));
    let found = billet(&site.server, &["audit", "verify", "--database", &database])?;
    ensure!(found.status.code() == Some(1) && says(&found).contains("was altered"), "{}", says(&found));
    site.server.start_again()?;
    go(&site, "/audit?verify=1")?;
    browser.wait_text("#verdict.bad", "was altered")?;
    browser.picture("audit-altered")?;
    let served = billet(&site.server, &["audit", "verify"])?;
    ensure!(served.status.code() == Some(1) && says(&served).contains("was altered"), "{}", says(&served));
    Ok(())
}

#[test]
fn what_is_approved_is_done_once_though_the_server_is_killed() -> Result<()> {
    let (mut site, nodes) = site("killed", 3)?;
    let (olga, omar) = (token(&site.api, "olga")?, token(&site.api, "omar")?);
    for node in &nodes {
        let id = ask_to_wipe(&olga, node)?;
        omar.post(&format!("/api/v1/approvals/{id}/approve"), &json!({}))?;
        site.server.kill()?;
        site.server.start_again()?;
        let it = over(&site.api, &id)?;
        ensure!(it["status"] == "done", "{it}");
        let done = site.api.get(&format!("/api/v1/audit?request={id}&kind=change&limit=500"))?;
        let begun = |e: &&Value| e["what"] == "clean.requested";
        let times = done["items"].as_array().context("no entries")?.iter().filter(begun).count();
        ensure!(times == 1, "it was begun {times} times: {done}");
        ensure!(site.api.get(&format!("/api/v1/nodes/{node}"))?["state"] == "cleaning", "it was not done");
        let verdict = site.api.get("/api/v1/audit/verify")?;
        ensure!(verdict["intact"] == true, "{verdict}");
    }
    Ok(())
}
