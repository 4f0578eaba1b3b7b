//! The API against its own document, by an implementation that is not ours: schemathesis makes requests of what
//! `/api/v1/openapi.json` says, right ones and wrong ones, and compares the answers with it. No answer may be a mistake of the
//! server, undocumented, or of another form than documented.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::python::environment;
use tests::simulated::{SimulatedMachine, inventory};
use tests::site::Site;

/// The program, pinned.
const PACKAGES: [&str; 1] = ["schemathesis==4.32.5"];
/// Time for all of it, in seconds.
const TIME: &str = "45";
/// What every answer is held to. Two answers of 5xx are right where a management controller is spoken to (502, 504): those are
/// documented, and the log is looked at for the others.
const CHECKS: &str = "status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,unsupported_method,missing_required_header";
/// The stream of events does not end; the other two look at a network for up to a minute.
const LEFT_OUT: [&str; 3] = ["stream_events", "check_network", "scan_bmcs"];
/// Operations that must have been tried, at least.
const OPERATIONS_MIN: usize = 78;

#[test]
fn answers_are_as_the_document_says() -> Result<()> {
    let Some(environment) = environment("schemathesis", &PACKAGES)? else {
        println!("skipped: no schemathesis (python3-venv and the Python package index are needed)");
        return Ok(());
    };
    let mut site = Site::new("schemathesis")?;
    for number in 1..=3 {
        let mut machine = SimulatedMachine::new(&site.provisioning.url(), number, &format!("SN-{number}"));
        machine.boot_agent()?;
        machine.send_inventory(&inventory(&machine, "PowerEdge", "leaf-3", number == 1))?;
    }
    site.api.post("/api/v1/nodes", &json!({ "name": "announced", "macs": ["52:54:00:77:00:01"] }))?;
    site.api.post("/api/v1/tokens", &json!({ "name": "robot", "role": "reader" }))?;
    let baseline = json!({ "name": "r650", "bios": { "BootMode": "Uefi" } });
    site.api.post("/api/v1/baselines", &baseline)?;

    let report = site.dir.join("report.json");
    let mut program = Command::new(environment.join("bin/st"));
    program.current_dir(&site.dir).arg("run").arg(format!("{}/api/v1/openapi.json", site.server.url()));
    program.arg("-H").arg(format!("Authorization: Bearer {}", site.server.token()?));
    program.args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-time", TIME]);
    program.args([
        "--max-examples",
        "40",
        "--seed",
        "1",
        "--no-shrink",
        "--continue-on-failure",
        "--no-color",
    ]);
    program.args(["--request-timeout", "30", "--suppress-health-check", "all"]);
    program.arg("--report").arg("json").arg("--report-json-path").arg(&report);
    for id in LEFT_OUT {
        program.args(["--exclude-operation-id", id]);
    }
    let done = program.output().context("starting schemathesis")?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    fs::write(site.dir.join("schemathesis.log"), &said)?;
    let tested = number_after(&said, "Tested: ").context("it does not say what it tested")?;
    ensure!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    ensure!(tested >= OPERATIONS_MIN, "only {tested} operations were tried:\n{said}");

    // What the server holds to be its own mistake stands in its log.
    let log = fs::read_to_string(site.server.log())?;
    let mistakes: Vec<_> =
        log.lines().filter(|line| line.contains("panicked") || line.contains("request failed")).collect();
    ensure!(mistakes.is_empty(), "{mistakes:#?}");
    ensure!(site.server.process()?.running(), "the server ended");
    ensure!(site.api.get("/api/v1/status").is_ok(), "the server answers no more");
    Ok(())
}

fn number_after(text: &str, word: &str) -> Option<usize> {
    let rest = text.split(word).nth(1)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
