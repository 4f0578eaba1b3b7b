//! Expected hardware in a real browser, with simulated machines: a model is learned on a machine's page, another machine that
//! lacks a module and is plugged in wrongly shows exactly that, and somebody accepts it. Pictures go to
//! `target/ui-screenshots/`.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::browser::Browser;
use tests::rack::Server;
use tests::simulated::{SimulatedMachine, inventory};
use tests::site::Site;

/// What a switch may call itself to break out of a page.
const HOSTILE: &str = r#""><script>document.title='owned'</script>{{7*7}}"#;

fn go(browser: &Browser, server: &Server, path: &str) -> Result<()> {
    browser.goto(&format!("{}{path}", server.url()))
}

fn found(machine: &SimulatedMachine, unit: u32, switch: &str) -> Value {
    let mut found = inventory(machine, "PowerEdge R7615", switch, true);
    found["nics"][0]["lldp"]["port_id"] = json!(format!("swp{unit}"));
    found
}

#[test]
fn what_differs_is_shown_and_accepted() -> Result<()> {
    let Site { api, server, provisioning, dir, namespace } = Site::new("ui/hardware")?;
    let browser = Browser::start(&dir, None)?;
    go(&browser, &server, "/")?;
    browser.find("#token")?.type_text(&server.token()?)?;
    browser.find("#token-form button")?.click()?;
    browser.wait_text("h1", "Servers")?;

    // Two machines are announced on the page; one mistake refuses the list, with its line.
    let machines =
        [(1, "GOOD1"), (2, "LESS2")].map(|(n, serial)| SimulatedMachine::new(&provisioning.url(), n, serial));
    let [mut good, mut less] = machines;
    go(&browser, &server, "/machines")?;
    let list = |second: &str| format!("name,serial,rack,unit\nweb-1,GOOD1,R4,8\n{second},LESS2,R4,9\n");
    browser.find("#list")?.fill(&list("not a name"))?;
    browser.find("#submit")?.click()?;
    browser.wait_text("[role=alert]", "line 3")?;
    browser.find("#list")?.fill(&list("web-2"))?;
    browser.find("#submit")?.click()?;
    browser.wait_text("#machines", "web-2")?;
    browser.picture("machines-expected")?;

    good.boot_agent()?;
    good.send_inventory(&found(&good, 8, "leaf-R4"))?;
    go(&browser, &server, "/nodes/web-1")?;
    browser.wait_text("#place-line", "unit 8")?;
    browser.find("#model summary")?.click()?;
    browser.find("#model-name")?.type_text("r7615")?;
    browser.find("#model form:last-of-type button")?.click()?;
    browser.wait_text("h1", "r7615")?;
    let text = browser.find("#model")?.property("value")?;
    ensure!(text.as_str().is_some_and(|t| t.contains("leaf-{rack}") && t.contains("swp{unit}")), "{text}");
    browser.picture("model")?;

    // The second one lacks a module, and its cable is in the port of the first one.
    let mut short = found(&less, 8, "leaf-R4");
    short["dimms"].as_array_mut().context("no DIMMs")?.remove(1);
    less.boot_agent()?;
    less.send_inventory(&short)?;
    go(&browser, &server, "/nodes/web-2")?;
    browser.wait_text("#quarantine", "In quarantine")?;
    browser.wait_text("#differences", "memory module in slot A2 is missing")?;
    browser.wait_text("#differences", "is on switch leaf-R4 port swp8; expected port swp9")?;
    let rows = browser.execute("return document.querySelectorAll('#differences tbody tr').length")?;
    ensure!(rows == 2, "{rows} differences are shown");
    browser.picture("quarantine")?;
    go(&browser, &server, "/models")?;
    browser.wait_text("#quarantined", "web-2")?;
    browser.picture("models")?;

    // A name that would break out of the page is text.
    short["nics"][0]["lldp"]["system_name"] = json!(HOSTILE);
    less.send_inventory(&short)?;
    go(&browser, &server, "/nodes/web-2")?;
    browser.wait_text("#differences", "<script>document.title")?;
    ensure!(browser.execute("return document.title")? != "owned", "a script of a switch ran");

    browser.find("#accept summary")?.click()?;
    browser.find("#accept-reason")?.type_text("the module is on order")?;
    browser.find("#accept button")?.click()?;
    browser.wait_text("#accepted", "the module is on order")?;
    let node = api.get("/api/v1/nodes/web-2")?;
    ensure!(node["quarantine"].is_null() && node["state"] == "available", "{node:#}");

    // Its papers bring it into the plan.
    api.put(
        "/api/v1/nodes/web-2/papers",
        &json!({ "purchased": "2024-01-15", "warranty_end": "2027-01-14" }),
    )?;
    go(&browser, &server, "/refresh")?;
    browser.wait_text("#plan", "warranty ends")?;
    browser.picture("refresh")?;
    drop(namespace);
    Ok(())
}
