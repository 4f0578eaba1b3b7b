//! Running other programs: a failure says which program, with its own last words.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Lines of a failed program's output that are shown.
const TAIL_LINES: usize = 30;

/// A command from its words. What `cargo run` told this program of its own package is not passed on: build scripts watch
/// those variables, and whatever cargo is started from here would compile such crates again.
pub fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    for (name, _) in std::env::vars_os() {
        let own =
            name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_"));
        if own {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a program whose output matters only when it fails.
pub fn quiet(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a program and returns what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.stdin(Stdio::null()).output().with_context(|| {
        format!("`{program}` cannot be started (cargo xtask deps installs what is needed)")
    })?;
    if !out.status.success() {
        let text = [out.stdout, out.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        bail!("`{}` failed ({}):\n{tail}", describe(command), out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a program that speaks to the person at the terminal.
pub fn shown(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", describe(command));
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("`{program}` cannot be started"))?;
    if !status.success() {
        bail!("`{}` failed ({status})", describe(command));
    }
    Ok(())
}

/// True where a program of that name is found in `PATH`.
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|d| d.join(program).is_file())
}

/// A path as text; the paths of this project are UTF-8.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("path {} is not UTF-8", path.display()))
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
