//! Signing in at an OpenID provider that is not ours (the package `oidc-provider`), through its own pages, in a real browser. All
//! of it runs on the loopback of one namespace, where nothing else can be reached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::browser::Browser;
use tests::rack::{Namespace, Process};
use tests::site::{Site, target};
use ureq::Agent;

/// Billet as browsers know it. The provider is `localhost`: another site than this, as it is in life.
const BILLET: &str = "http://127.0.0.1:8090";
const PORT: &str = "9171";
const SECRET: &str = "oidc-client-secret-of-a-test-0123456789";
/// Time for the provider to listen.
const START: Duration = Duration::from_secs(60);
/// New keys are asked for ten seconds after the last time, at the earliest.
const ROTATED: Duration = Duration::from_secs(60);

/// The provider; it ends when dropped.
struct Provider {
    _process: Process,
}

impl Provider {
    /// Starts it, with a key that it makes now.
    fn start(namespace: &Namespace, dir: &Path, algorithm: &str) -> Result<Self> {
        let mut command = namespace.command("node");
        command.arg(directory().join("provider.mjs"));
        command.args([PORT, &format!("{BILLET}/oidc/callback"), SECRET, algorithm]);
        let log = dir.join(format!("provider-{algorithm}.log"));
        let mut process = Process::start("oidc-provider", command, &log)?;
        let end = Instant::now() + START;
        while !fs::read_to_string(&log)?.contains("listening") {
            ensure!(process.running(), "the provider ended: {}", fs::read_to_string(&log)?);
            ensure!(Instant::now() < end, "the provider does not start: {}", fs::read_to_string(&log)?);
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(Self { _process: process })
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("openid")
}

/// True where the provider can be run; else says what is missing.
fn is_there() -> bool {
    let node = Command::new("node").arg("--version").output().is_ok_and(|out| out.status.success());
    let there = node && directory().join("node_modules/oidc-provider").exists();
    if !there {
        println!(
            "skipped: no OpenID provider (`cargo xtask openid-provider` fetches it; Node.js 20 or newer)"
        );
    }
    there
}

/// A site with the provider in its configuration.
fn site(name: &str) -> Result<Site> {
    let secret = target().join(format!("oidc-{name}.secret"));
    fs::write(&secret, SECRET)?;
    let config = format!(
        "\n[oidc]\nissuer = \"http://localhost:{PORT}\"\nclient_id = \"billet\"\nclient_secret_file = {secret:?}\n\
         url = \"{BILLET}\"\nname = \"Example ID\"\n\
         [[oidc.grants]]\nvalue = \"dc-operators\"\nsite_role = \"operator\"\n\
         [[oidc.grants]]\nvalue = \"team-web\"\nproject = \"web\"\nrole = \"member\"\n"
    );
    let site = Site::with_config(&format!("oidc/{name}"), &config)?;
    site.api.post("/api/v1/projects", &json!({ "name": "web", "description": "" }))?;
    Ok(site)
}

/// Goes to a page of Billet.
fn go(browser: &Browser, path: &str) -> Result<()> {
    browser.goto(&format!("{BILLET}{path}"))
}

/// Types a name at the provider's page, agrees at the next, and waits for Billet.
fn at_the_provider(browser: &Browser, name: &str) -> Result<()> {
    browser.find("input[name=login]")?.type_text(name)?;
    browser.find("input[name=password]")?.type_text("any")?;
    browser.find("button[type=submit]")?.click()?;
    browser.find("input[name=prompt][value=consent]")?;
    browser.find("button[type=submit]")?.click()?;
    browser.wait_for("return location.port === '8090' && !location.pathname.startsWith('/oidc/')")
}

/// Signs in by the button of the login page, from nothing, on the way to `path`.
fn sign_in(browser: &Browser, name: &str, path: &str) -> Result<String> {
    browser.forget()?;
    go(browser, path)?;
    browser.wait_text("#by-provider", "Sign in at Example ID")?;
    browser.find("#by-provider")?.click()?;
    at_the_provider(browser, name)?;
    Ok(browser.url()?.replace(BILLET, ""))
}

/// Names of all users.
fn users(site: &Site) -> Result<Vec<Value>> {
    Ok(site.api.get("/api/v1/users")?["items"].as_array().cloned().unwrap_or_default())
}

/// Who came by the provider, and what came of it, as the audit has it; the newest one. Entries are written soon, not at once.
fn audited(site: &Site, actor: &str, outcome: &str) -> Result<()> {
    let found = site.api.wait("/api/v1/audit?kind=login&limit=20", Duration::from_secs(10), |page| {
        let entry = page["items"].as_array()?.iter().find(|entry| entry["what"] == "GET /oidc/callback")?;
        (entry["actor"] == actor && entry["outcome"] == outcome).then(|| entry.clone())
    });
    let entry = found.with_context(|| format!("no login of {actor} with `{outcome}`"))?;
    ensure!(entry["source"] == "127.0.0.1", "{entry}");
    Ok(())
}

/// Sends this browser to the provider with one parameter of the request, or the cookie, changed on the way.
fn depart_with_a_change(site: &Site, browser: &Browser, changed: &str) -> Result<()> {
    let agent: Agent = Agent::config_builder().max_redirects(0).proxy(None).build().new_agent();
    let answer = agent.get(format!("{}/oidc/login?next=/racks", site.server.url())).call()?;
    let header = |name: &str| answer.headers().get(name).and_then(|h| h.to_str().ok()).map(str::to_owned);
    let location = header("location").context("no way to the provider")?;
    let cookie = header("set-cookie").context("no cookie")?;
    let cookie = cookie.split([';', '=']).nth(1).context("an empty cookie")?;
    let other = |text: &str| {
        if text.starts_with('A') { text.replacen('A', "B", 1) } else { format!("A{}", &text[1..]) }
    };
    let (base, query) = location.split_once('?').context("a way without a query")?;
    let query: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if name == changed => format!("{name}={}", other(value)),
            _ => pair.to_owned(),
        })
        .collect();
    browser.forget()?;
    go(browser, "/login")?;
    let cookie = if changed == "cookie" { other(cookie) } else { cookie.to_owned() };
    browser.set_cookie("billet_oidc", &cookie, "/oidc/")?;
    browser.goto(&format!("{base}?{}", query.join("&")))
}

#[test]
fn people_sign_in_at_a_provider_of_others() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let site = site("people")?;
    let provider = Provider::start(&site.namespace, &site.dir, "RS256")?;
    let browser = &Browser::start(&site.dir, Some(&site.namespace))?;

    // A group of the provider is a role at the site.
    ensure!(sign_in(browser, "olga", "/racks")? == "/racks", "{}", browser.url()?);
    browser.wait_text("h1", "Racks")?;
    audited(&site, "olga.o", "")?;
    let olga = users(&site)?.pop().context("nobody was added")?;
    ensure!(
        olga["name"] == "olga.o" && olga["site_role"] == "operator" && olga["full_name"] == "Olga <b>Ops</b>",
        "{olga}"
    );
    ensure!(olga["password"] == false, "{olga}");
    go(browser, "/me")?;
    browser.wait_text("main", "olga.o")?;
    browser.screenshot(&target().join("ui-screenshots/oidc-me.png"), true)?;

    // Signed out here: the page asks again.
    browser.find("form[action='/logout'] button")?.click()?;
    browser.wait_for("return location.pathname === '/login'")?;
    go(browser, "/racks")?;
    browser.wait_for("return location.pathname === '/login'")?;

    // Another group is a role in a project, and nothing at the site.
    ensure!(sign_in(browser, "mia", "/my/web/servers")? == "/my/web/servers", "{}", browser.url()?);
    browser.wait_text(".empty", "No server yet")?;
    audited(&site, "mia.m", "")?;
    let members = site.api.get("/api/v1/projects/web/members")?;
    ensure!(members["items"][0]["name"] == "mia.m" && members["items"][0]["role"] == "member", "{members}");
    go(browser, "/racks")?;
    ensure!(!browser.text("body")?.contains("Racks"), "a member sees the racks");

    // Whom no grant fits is not let in, and becomes nobody here.
    ensure!(
        sign_in(browser, "mallory", "/racks")?.starts_with("/login?refused=nobody"),
        "{}",
        browser.url()?
    );
    browser.wait_text("#login-error", "does not let you in")?;
    audited(&site, "nobody", "nobody")?;
    ensure!(users(&site)?.len() == 2, "mallory was added: {:?}", users(&site)?);
    let events = site.api.get("/api/v1/events?limit=5")?.to_string();
    ensure!(events.contains("the provider knows mallory.m"), "{events}");

    // New keys, another algorithm: the same person, as soon as they are asked for.
    drop(provider);
    let _provider = Provider::start(&site.namespace, &site.dir, "ES256")?;
    let end = Instant::now() + ROTATED;
    while sign_in(browser, "olga", "/racks")? != "/racks" {
        ensure!(Instant::now() < end, "new keys are not taken");
    }
    audited(&site, "olga.o", "")?;
    ensure!(users(&site)?.len() == 2, "the same subject is another user: {:?}", users(&site)?);
    Ok(())
}

#[test]
fn what_was_not_asked_for_like_this_is_refused() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let site = site("changed")?;
    let _provider = Provider::start(&site.namespace, &site.dir, "RS256")?;
    let browser = &Browser::start(&site.dir, Some(&site.namespace))?;
    for (changed, outcome) in [
        ("nonce", "bad-token"),
        ("state", "not-begun-here"),
        ("cookie", "not-begun-here"),
        ("code_challenge", "provider"),
    ] {
        depart_with_a_change(&site, browser, changed)?;
        at_the_provider(browser, "olga")?;
        ensure!(browser.url()?.contains("/login?refused=provider"), "{changed}: {}", browser.url()?);
        audited(&site, "nobody", outcome).with_context(|| changed.to_owned())?;
        go(browser, "/racks")?;
        ensure!(browser.url()?.contains("/login"), "{changed}: somebody is signed in");
        ensure!(users(&site)?.is_empty(), "{changed}: somebody was added");
    }
    // And with nothing changed.
    depart_with_a_change(&site, browser, "")?;
    at_the_provider(browser, "olga")?;
    if !browser.url()?.ends_with("/racks") {
        bail!("nobody came in: {}", browser.url()?);
    }
    audited(&site, "olga.o", "")
}
