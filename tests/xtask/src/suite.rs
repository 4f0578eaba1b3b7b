//! `cargo xtask test`: every check and every test, and one line at the end that says how it went.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{build, deps, image, loaders, paths, ramdisk, tool};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out the suites that switch on virtual machines or a browser; they count as one that was skipped.
    #[arg(long)]
    fast: bool,
}

/// How many checks went which way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
}

/// Runs everything; fails where anything failed.
pub fn run(args: &Args) -> Result<()> {
    let mut tally = Tally::default();
    deps::run()?;
    tally.step("web UI assets", build::ui);
    tally.step("formatting", || cargo(&["fmt", "--all", "--check"]));
    tally.step("clippy", || {
        cargo(&["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])
    });
    tally.dependencies();
    let built = args.fast || tally.everything_for_machines();
    let filter = if args.fast || !built { Some("not (package(tests) & kind(test))") } else { None };
    if filter.is_some() {
        eprintln!("skipped: the suites that need machines, images or a browser");
        tally.skipped += 1;
    }
    match nextest(filter) {
        Ok(tests) => tally.add(tests),
        Err(e) => {
            eprintln!("FAILED: tests: {e:#}");
            tally.failed += 1;
        }
    }
    let Tally { passed, failed, skipped } = tally;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        bail!("{failed} checks failed");
    }
    Ok(())
}

impl Tally {
    fn step(&mut self, name: &str, check: impl FnOnce() -> Result<()>) -> bool {
        let began = Instant::now();
        let result = check();
        let seconds = began.elapsed().as_secs_f64();
        match &result {
            Ok(()) => {
                self.passed += 1;
                eprintln!("ok: {name} ({seconds:.0} s)");
            }
            Err(e) => {
                self.failed += 1;
                eprintln!("FAILED: {name} ({seconds:.0} s): {e:#}");
            }
        }
        result.is_ok()
    }

    /// Licences, bans and sources of dependencies. Advisories need the network and are left to a run by hand.
    fn dependencies(&mut self) {
        self.step("dependencies", || {
            cargo_tool("cargo-deny")?;
            cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"])
        });
    }

    /// The programs, the ramdisk and the images; true where all are there.
    fn everything_for_machines(&mut self) -> bool {
        self.step("OpenID provider", build::openid_provider);
        let mut built = self.step("programs and tests", programs);
        built &= self.step("ramdisk", || {
            ramdisk::run(&ramdisk::Args { check_reproducible: true, ..ramdisk::Args::default() })
        });
        built &= self.step("boot loaders", loaders::run);
        built &= self.step("image tiny-a", || image::tiny::build(image::Variant::A).map(drop));
        built &= self.step("image tiny-b", || image::tiny::build(image::Variant::B).map(drop));
        built & self.step("image debian-12", || image::debian::build().map(drop))
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Builds all programs and tests in one go, so that nothing is compiled a second time with other features. The suites
/// run the server of this build: one that is made for release costs six minutes more on two processors, and `xtask demo`
/// runs that one.
fn programs() -> Result<()> {
    cargo(&["build", "--quiet", "--locked", "--workspace", "--all-targets"])
}

/// Runs the tests of all crates and counts them by nextest's own summary.
fn nextest(filter: Option<&str>) -> Result<Tally> {
    cargo_tool("cargo-nextest")?;
    let args = ["nextest", "run", "--locked", "--workspace", "--profile", "ci", "--color", "never"];
    let mut command = tool::command(&cargo_program(), &args);
    if std::env::var_os("BILLET_BIN").is_none() {
        command.env("BILLET_BIN", paths::target().join("debug/billet"));
    }
    if let Some(filter) = filter {
        command.args(["-E", filter]);
    }
    let mut child = command
        .current_dir(paths::root())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting cargo nextest")?;
    let mut tally = None;
    for line in BufReader::new(child.stderr.take().context("nextest without stderr")?).lines() {
        let line = line?;
        eprintln!("{line}");
        tally = summary(&line).or(tally);
    }
    let status = child.wait()?;
    let tally = tally.with_context(|| format!("nextest ran no tests ({status})"))?;
    if !status.success() && tally.failed == 0 {
        bail!("nextest failed without a failed test ({status})");
    }
    Ok(tally)
}

/// `Summary [ 2.5s] 12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 3 skipped`
fn summary(line: &str) -> Option<Tally> {
    let (_, counts) = line.trim().strip_prefix("Summary [")?.split_once(" run: ")?;
    let mut tally = Tally::default();
    for part in counts.split(", ") {
        let (number, what) = part.split_once(' ')?;
        // Inside the parentheses after "passed" are further numbers that are part of it.
        let Ok(number) = number.parse::<u32>() else { continue };
        match what.split(' ').next()? {
            "passed" => tally.passed += number,
            "skipped" => tally.skipped += number,
            "failed" | "timed" | "exec" => tally.failed += number,
            _ => {}
        }
    }
    Some(tally)
}

fn cargo(args: &[&str]) -> Result<()> {
    tool::shown(tool::command(&cargo_program(), args).current_dir(paths::root()))
}

/// The cargo that runs us.
pub fn cargo_program() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// Installs a subcommand of cargo where it is missing; not optimised, which takes minutes more than it ever gives back.
pub fn cargo_tool(name: &str) -> Result<()> {
    if tool::exists(name) || in_cargo_home(name) {
        return Ok(());
    }
    cargo(&["install", "--locked", "--debug", name])
}

/// Cargo finds its own subcommands there even where `PATH` does not lead to them.
fn in_cargo_home(program: &str) -> bool {
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|h| format!("{h}/.cargo")));
    home.is_ok_and(|h| std::path::Path::new(&h).join("bin").join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextest_summaries() {
        let tally = |passed, failed, skipped| Some(Tally { passed, failed, skipped });
        for (line, expected) in [
            ("     Summary [   0.039s] 7 tests run: 7 passed, 0 skipped", tally(7, 0, 0)),
            ("     Summary [  41.3s] 5 tests run: 4 passed (1 slow), 1 failed, 3 skipped", tally(4, 1, 3)),
            (
                "     Summary [ 1s] 9/12 tests run: 7 passed (1 flaky, 2 leaky), 1 timed out, 1 exec failed, 0 skipped",
                tally(7, 2, 0),
            ),
            ("        PASS [   0.011s] (5/7) xtask summary", None),
        ] {
            assert_eq!(summary(line), expected, "{line}");
        }
    }
}
