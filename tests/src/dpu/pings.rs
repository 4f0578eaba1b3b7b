//! Pings that go on while something happens, and what was lost of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::rack::{Namespace, Process};

/// Between two pings.
pub const EVERY: Duration = Duration::from_millis(100);

/// Pings under way.
#[derive(Debug)]
pub struct Pings {
    process: Process,
    log: PathBuf,
}

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Answers.
    pub answered: usize,
    /// Questions between the first and the last answer that had none.
    pub lost: usize,
    /// Longest time without an answer.
    pub longest: Duration,
}

impl Pings {
    /// Asks `address` from `namespace`; the log is in `dir`.
    ///
    /// # Errors
    /// Where `ping` does not start.
    pub fn start(namespace: &Namespace, address: &str, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("ping-{address}.log"));
        let _ = fs::remove_file(&log);
        let mut command = namespace.command("ping");
        command.args(["-n", "-i", &EVERY.as_secs_f64().to_string(), address]);
        Ok(Self { process: Process::start("ping", command, &log)?, log })
    }

    /// Ends them.
    ///
    /// # Errors
    /// Where nothing was answered.
    pub fn finish(mut self) -> Result<Told> {
        self.process.kill()?;
        let text = fs::read_to_string(&self.log)?;
        told(&text).with_context(|| format!("no answer:\n{text}"))
    }
}

fn told(text: &str) -> Option<Told> {
    let number = |line: &str| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse::<usize>().ok();
    let answers = text.lines().filter(|line| line.contains("bytes from"));
    let answers: BTreeSet<usize> = answers.filter_map(number).collect();
    let (first, last) = (answers.first()?, answers.last()?);
    let gaps = answers.iter().zip(answers.iter().skip(1)).map(|(a, b)| b - a);
    let longest = EVERY * u32::try_from(gaps.max().unwrap_or(1)).ok()?;
    Some(Told { answered: answers.len(), lost: last - first + 1 - answers.len(), longest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_found() {
        let line = |n| format!("64 bytes from 10.0.0.1: icmp_seq={n} ttl=64 time=0.3 ms\n");
        let text: String =
            [1, 2, 3, 6, 7].map(line).concat() + "From 10.0.0.2 icmp_seq=5 Destination Host Unreachable\n";
        let want = Told { answered: 5, lost: 2, longest: Duration::from_millis(300) };
        assert_eq!(told(&text), Some(want));
        assert_eq!(told("PING 10.0.0.1\n"), None);
    }
}
