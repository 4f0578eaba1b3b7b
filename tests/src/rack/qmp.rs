//! QEMU's control socket (QMP).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Time for QEMU to open its socket, and to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// A connection to one machine's QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Qmp {
    /// Connects, waiting for the socket to appear while QEMU is `alive`.
    ///
    /// # Errors
    /// Where QEMU ends, or does not open it in time.
    pub fn connect(path: &Path, mut alive: impl FnMut() -> bool) -> Result<Self> {
        let end = Instant::now() + ANSWER;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < end && alive() => std::thread::sleep(Duration::from_millis(20)),
                Err(e) => return Err(e).with_context(|| format!("connecting to {}", path.display())),
            }
        };
        stream.set_read_timeout(Some(ANSWER))?;
        let mut qmp = Self { stream: BufReader::new(stream), events: Vec::new() };
        qmp.read().context("QEMU's greeting")?;
        qmp.command("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returns.
    ///
    /// # Errors
    /// Where QEMU refuses or is gone.
    pub fn command(&mut self, name: &str, arguments: Value) -> Result<Value> {
        let text = json!({ "execute": name, "arguments": arguments }).to_string();
        self.stream.get_mut().write_all(format!("{text}\n").as_bytes())?;
        loop {
            let mut answer = self.read().with_context(|| format!("QEMU's answer to {name}"))?;
            if answer.get("event").is_some() {
                self.events.push(answer);
            } else if let Some(error) = answer.get("error") {
                bail!("QEMU refused {name}: {error}");
            } else {
                return Ok(answer["return"].take());
            }
        }
    }

    /// Events seen while waiting for answers since the last call.
    pub fn take_events(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.events)
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("QEMU closed its control socket");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
