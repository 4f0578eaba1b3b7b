//! `cargo xtask fuzz`: libFuzzer over the targets of `tests/fuzz`, for as long as one likes. What it finds is kept under
//! `target/fuzz/corpus`; `--keep` adds the inputs that reach new code to the committed corpus.

use std::fs;

use anyhow::{Result, ensure};
use tests_fuzz::{TARGETS, corpus};

use crate::{paths, suite, tool};

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// Only this target
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Add short inputs that reach new code to the committed corpus
    #[arg(long)]
    keep: bool,
}

/// Longest input, in octets: some packets of a conversation.
const INPUT_MAX: u32 = 16 << 10;
/// Longest input that is committed, in octets: the corpus is for people to read too.
const KEPT_MAX: u32 = 512;

/// Runs them one after the other.
pub fn run(args: &Args) -> Result<()> {
    let names: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
    let wanted: Vec<_> =
        names.iter().filter(|name| args.target.as_deref().is_none_or(|t| t == **name)).collect();
    ensure!(!wanted.is_empty(), "there is no such target; there are {}", names.join(", "));
    suite::cargo_tool("cargo-fuzz")?;
    for name in wanted {
        let found = paths::target().join("fuzz/corpus").join(name);
        fs::create_dir_all(&found)?;
        let broken = format!("-artifact_prefix={}/", paths::target().join("fuzz").display());
        let (found, committed) = (tool::text(&found)?, corpus(name));
        let committed = tool::text(&committed)?;
        let time = format!("-max_total_time={}", args.seconds);
        libfuzzer(name, &[found, committed, "--", &time, &broken, &format!("-max_len={INPUT_MAX}")])?;
        if args.keep {
            libfuzzer(name, &[committed, found, "--", "-merge=1", &format!("-max_len={KEPT_MAX}")])?;
        }
    }
    Ok(())
}

/// Coverage needs no sanitizer, and only sanitizers would need a nightly compiler.
fn libfuzzer(name: &str, args: &[&str]) -> Result<()> {
    let mut command = tool::command(&suite::cargo_program(), &["fuzz", "run", "--sanitizer", "none"]);
    command.arg("--fuzz-dir").arg(paths::root().join("tests/fuzz/libfuzzer"));
    command.arg("--target-dir").arg(paths::target().join("fuzz")).arg(name).args(args);
    tool::shown(command.current_dir(paths::root()))
}
