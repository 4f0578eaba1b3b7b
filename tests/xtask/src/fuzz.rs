//! `cargo xtask fuzz`: libFuzzer over the targets of `tests/fuzz`, for as long as one likes. New inputs that reach new code
//! are added to the committed corpus; one that breaks a target is named at the end.

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
}

/// Runs them one after the other.
pub fn run(args: &Args) -> Result<()> {
    let names: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
    let wanted: Vec<_> =
        names.iter().filter(|name| args.target.as_deref().is_none_or(|t| t == **name)).collect();
    ensure!(!wanted.is_empty(), "there is no such target; there are {}", names.join(", "));
    suite::cargo_tool("cargo-fuzz")?;
    let dir = paths::root().join("tests/fuzz/libfuzzer");
    for name in wanted {
        // Coverage needs no sanitizer, and only sanitizers would need a nightly compiler.
        let mut command = tool::command(&suite::cargo_program(), &["fuzz", "run", "--sanitizer", "none"]);
        command.arg("--fuzz-dir").arg(&dir).arg("--target-dir").arg(paths::target().join("fuzz"));
        command.arg(name).arg(corpus(name));
        command.args([
            "--",
            &format!("-max_total_time={}", args.seconds),
            "-max_len=16384",
            "-print_final_stats=1",
        ]);
        tool::shown(command.current_dir(paths::root()))?;
    }
    Ok(())
}
