//! A browser for tests: chromedriver over the WebDriver protocol (W3C WebDriver 2), with as much of it as the suites
//! need. It can run inside a rack's namespace, where nothing but the rack can be reached.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use ureq::Agent;

use crate::rack::{Forward, Namespace, Process};

const DRIVER: &str = "/usr/bin/chromedriver";
/// Key of an element reference (WebDriver 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Time for one command; the first one starts the browser on a machine that may be busy.
const COMMAND: Duration = Duration::from_secs(120);
/// Time that `wait_*` allow.
const WAIT: Duration = Duration::from_secs(30);
/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(100);
/// Largest answer that is read, in bytes: a screenshot of a long page.
const ANSWER_MAX: u64 = 64 << 20;

/// A kind of picture: its name, width and height of the window in CSS pixels, and whether it is dark.
type Kind = (&'static str, u32, u32, bool);
const BY_DAY: [Kind; 2] = [("1280", 1280, 900, false), ("390", 390, 844, false)];

/// A browser with one window; it ends when dropped.
#[derive(Debug)]
pub struct Browser {
    session: String,
    agent: Agent,
    profile: PathBuf,
    _driver: Process,
    _forward: Option<Forward>,
}

impl Browser {
    /// Starts one; its profile lies in `dir`. In a namespace it reaches that namespace alone.
    ///
    /// # Errors
    /// Where chromedriver or Chromium do not start (Debian package `chromium-driver`).
    pub fn start(dir: &Path, namespace: Option<&Namespace>) -> Result<Self> {
        let mut command = namespace.map_or_else(|| Command::new(DRIVER), |n| n.command(DRIVER));
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver =
            Process::spawn("chromedriver", command).context("package chromium-driver is needed")?;
        let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&mut driver)?));
        let forward = namespace.map(|n| Forward::start(n.clone_handle()?, inside)).transpose()?;
        let base = forward.as_ref().map_or_else(|| format!("http://{inside}"), Forward::url);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(COMMAND))
            .build();
        let profile = dir.join(format!("chromium-{}", std::process::id()));
        let _ = fs::remove_dir_all(&profile);
        let mut browser =
            Self { session: base, agent: config.new_agent(), profile, _driver: driver, _forward: forward };
        browser.open_session()?;
        Ok(browser)
    }

    fn open_session(&mut self) -> Result<()> {
        let profile = format!("--user-data-dir={}", self.profile.display());
        let flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--window-size=1280,900",
            &profile,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let answer = self.post("/session", &wanted)?;
        let id = answer["sessionId"].as_str().context("a session without an id")?;
        self.session = format!("{}/session/{id}", self.session);
        Ok(())
    }

    /// Loads a page.
    ///
    /// # Errors
    /// Where it does not load.
    pub fn goto(&self, url: &str) -> Result<()> {
        self.post("/url", &json!({ "url": url })).map(drop)
    }

    /// The address of the page.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn url(&self) -> Result<String> {
        let url = self.get("/url")?;
        Ok(url.as_str().unwrap_or_default().to_owned())
    }

    /// The first element that a CSS selector finds; waits for it.
    ///
    /// # Errors
    /// Where none comes.
    pub fn find(&self, css: &str) -> Result<Element<'_>> {
        let wanted = json!({ "using": "css selector", "value": css });
        let found = until(&format!("element {css}"), || Ok(self.post("/element", &wanted).ok()))?;
        let id = found[ELEMENT].as_str().context("an element without a reference")?.to_owned();
        Ok(Element { browser: self, id })
    }

    /// Runs a script in the page and returns its value.
    ///
    /// # Errors
    /// Where it throws.
    pub fn execute(&self, script: &str) -> Result<Value> {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text of the page, or of the elements that a selector finds, as it is seen.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn text(&self, css: &str) -> Result<String> {
        let css = json!(css);
        let script =
            format!("return Array.from(document.querySelectorAll({css})).map(e => e.innerText).join('\\n')");
        Ok(self.execute(&script)?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until a text stands in the elements that a selector finds.
    ///
    /// # Errors
    /// Where it does not come; the message holds what is there instead.
    pub fn wait_text(&self, css: &str, wanted: &str) -> Result<()> {
        let end = Instant::now() + WAIT;
        loop {
            // A page that is just being replaced has no text for a moment.
            let text = self.text(css).unwrap_or_default();
            if text.contains(wanted) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("`{wanted}` did not come in {css}; there is:\n{text}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until a script returns true.
    ///
    /// # Errors
    /// Where it does not.
    pub fn wait_for(&self, script: &str) -> Result<()> {
        until(script, || Ok(self.execute(script).ok().filter(|v| *v == Value::Bool(true)))).map(drop)
    }

    /// Makes the window as wide and high as this, in CSS pixels.
    ///
    /// # Errors
    /// Where the browser refuses.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let params =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.cdp("Emulation.setDeviceMetricsOverride", &params).map(drop)
    }

    /// Makes the system's colour scheme dark or light.
    ///
    /// # Errors
    /// Where the browser refuses.
    pub fn dark(&self, dark: bool) -> Result<()> {
        let value = if dark { "dark" } else { "light" };
        let params = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.cdp("Emulation.setEmulatedMedia", &params).map(drop)
    }

    /// Writes a picture of the whole page, or of the window alone, as PNG.
    ///
    /// # Errors
    /// Where none can be made or written.
    pub fn screenshot(&self, file: &Path, whole: bool) -> Result<()> {
        let params = json!({ "format": "png", "captureBeyondViewport": whole });
        let answer = self.cdp("Page.captureScreenshot", &params)?;
        let bytes = base64(answer["data"].as_str().context("a screenshot without data")?)?;
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(file, bytes).with_context(|| format!("writing {}", file.display()))
    }

    /// Pictures of the page as it is, 1280 pixels wide and light, dark, and 390 pixels wide, in `target/ui-screenshots/`; and the
    /// proof that it fits its window each time.
    ///
    /// # Errors
    /// Where it is wider than its window, or none can be written.
    pub fn picture(&self, name: &str) -> Result<()> {
        self.pictures(name, &[BY_DAY[0], ("dark", 1280, 900, true), BY_DAY[1]])
    }

    /// As [`picture`](Self::picture), without the dark one.
    ///
    /// # Errors
    /// As there.
    pub fn picture_by_day(&self, name: &str) -> Result<()> {
        self.pictures(name, &BY_DAY)
    }

    fn pictures(&self, name: &str, kinds: &[Kind]) -> Result<()> {
        let dir = crate::site::target().join("ui-screenshots");
        for &(kind, width, height, dark) in kinds {
            self.dark(dark)?;
            self.resize(width, height)?;
            let wide = self.execute("return [document.documentElement.scrollWidth, window.innerWidth]")?;
            ensure!(wide[0].as_u64() <= wide[1].as_u64(), "{name} ({kind}) is wider than its window: {wide}");
            self.screenshot(&dir.join(format!("{name}-{kind}.png")), true)?;
        }
        self.resize(1280, 900)
    }

    /// Fails where a script failed, or the content security policy blocked something. Forms that are answered with a reason
    /// (422, 409, 412), pages that are not there (404) and streams of a stopped server are reported by the browser, too; they
    /// are no failures.
    ///
    /// # Errors
    /// What the console says.
    pub fn console_is_clean(&self) -> Result<()> {
        let expected = ["422", "ERR_", "401", "404", "409", "412"];
        let lines = self.console()?;
        let bad: Vec<_> = lines.iter().filter(|l| !expected.iter().any(|e| l.contains(e))).collect();
        ensure!(bad.is_empty(), "the console says {bad:#?}");
        Ok(())
    }

    /// What the page said in the console so far: scripts that fail, and what the content security policy blocked.
    ///
    /// # Errors
    /// Where the browser does not tell.
    pub fn console(&self) -> Result<Vec<String>> {
        let lines = self.post("/se/log", &json!({ "type": "browser" }))?;
        let text = |line: &Value| line["message"].as_str().unwrap_or_default().to_owned();
        Ok(lines.as_array().map(|lines| lines.iter().map(text).collect()).unwrap_or_default())
    }

    /// Takes a cookie of the page's host (WebDriver 14.3).
    ///
    /// # Errors
    /// Where the browser refuses.
    pub fn set_cookie(&self, name: &str, value: &str, path: &str) -> Result<()> {
        let cookie = json!({ "name": name, "value": value, "path": path, "httpOnly": true });
        self.post("/cookie", &json!({ "cookie": cookie })).map(drop)
    }

    /// Forgets all cookies, of all hosts.
    ///
    /// # Errors
    /// Where the browser refuses.
    pub fn forget(&self) -> Result<()> {
        self.cdp("Network.clearBrowserCookies", &json!({})).map(drop)
    }

    fn cdp(&self, command: &str, params: &Value) -> Result<Value> {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    fn get(&self, path: &str) -> Result<Value> {
        let answer = self.agent.get(format!("{}{path}", self.session)).call()?;
        value(path, answer)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.agent.post(format!("{}{path}", self.session));
        let answer = request.content_type("application/json").send(body.to_string())?;
        value(path, answer)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session; chromedriver is killed after it.
        let _ = self.agent.delete(&self.session).call();
        let _ = fs::remove_dir_all(&self.profile);
    }
}

/// An element of the page that was there when it was found.
#[derive(Debug)]
pub struct Element<'a> {
    browser: &'a Browser,
    id: String,
}

impl Element<'_> {
    /// Clicks it; it is scrolled into view first.
    ///
    /// # Errors
    /// Where something lies over it.
    pub fn click(&self) -> Result<()> {
        self.browser.post(&format!("/element/{}/click", self.id), &json!({})).map(drop)
    }

    /// Types into it.
    ///
    /// # Errors
    /// Where it takes no text.
    pub fn type_text(&self, text: &str) -> Result<()> {
        self.browser.post(&format!("/element/{}/value", self.id), &json!({ "text": text })).map(drop)
    }

    /// Empties it, then types into it.
    ///
    /// # Errors
    /// Where it takes no text.
    pub fn fill(&self, text: &str) -> Result<()> {
        self.browser.post(&format!("/element/{}/clear", self.id), &json!({}))?;
        self.type_text(text)
    }

    /// A property, such as `value`.
    ///
    /// # Errors
    /// Where the element is gone.
    pub fn property(&self, name: &str) -> Result<Value> {
        self.browser.get(&format!("/element/{}/property/{name}", self.id))
    }
}

/// The port that the driver chose, from its own words.
fn port(driver: &mut Process) -> Result<u16> {
    let out = driver.child().stdout.take().context("chromedriver without output")?;
    let mut lines = BufReader::new(out).lines();
    let found = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, port) = line.split_once("started successfully on port ")?;
        port.trim_end_matches('.').parse().ok()
    });
    // Whoever stops reading a pipe stops its writer.
    std::thread::spawn(move || lines.for_each(drop));
    found.context("chromedriver did not say its port")
}

fn value(what: &str, answer: ureq::http::Response<ureq::Body>) -> Result<Value> {
    let status = answer.status();
    let mut body: Value = answer.into_body().into_with_config().limit(ANSWER_MAX).read_json()?;
    if !status.is_success() {
        bail!("{what}: {}: {}", body["value"]["error"], body["value"]["message"]);
    }
    Ok(body["value"].take())
}

fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + WAIT;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > end {
            bail!("{what} did not come within {WAIT:?}");
        }
        std::thread::sleep(POLL);
    }
}

/// Decodes base64 (RFC 4648 section 4).
fn base64(text: &str) -> Result<Vec<u8>> {
    let (mut out, mut bits, mut held) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for byte in text.bytes().filter(|b| *b != b'=') {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => bail!("byte {other} is not base64"),
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        for (text, plain) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(base64(text).unwrap(), plain.as_bytes());
        }
        assert!(base64("Z*==").is_err());
    }
}
