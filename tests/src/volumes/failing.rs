//! Programs that fail at a chosen call: a directory that comes first in `PATH`, with a script in the place of each. A call either
//! is refused, or is carried out and its answer lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Nothing is done.
    Refused,
    /// It is done, and nobody hears of it.
    AnswerLost,
}

/// The directory of scripts.
pub struct Failing {
    dir: PathBuf,
}

impl Failing {
    /// Makes scripts for these programs, which are looked for in `PATH` as it is now.
    ///
    /// # Errors
    /// Where one is not installed.
    pub fn of(dir: &Path, programs: &[&str]) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let path = std::env::var_os("PATH").context("no PATH")?;
        for program in programs {
            let real = std::env::split_paths(&path)
                .map(|dir| dir.join(program))
                .find(|path| path.exists())
                .with_context(|| format!("{program} is not installed"))?;
            let (real, state) = (real.display(), dir.display());
            let script = format!(
                "#!/bin/sh\nn=$(($(cat {state}/count) + 1))\necho $n > {state}/count\n\
                 [ $n = $(cat {state}/at) ] || exec {real} \"$@\"\n\
                 [ $(cat {state}/how) = Refused ] || {real} \"$@\" > /dev/null 2>&1\n\
                 echo injected >&2\nexit 5\n"
            );
            let path = dir.join(program);
            fs::write(&path, script)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        let failing = Self::at(dir);
        failing.never()?;
        Ok(failing)
    }

    /// The one that was made in this directory.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// `PATH` with the scripts before all else.
    pub fn path(&self) -> String {
        format!("{}:{}", self.dir.display(), std::env::var("PATH").unwrap_or_default())
    }

    /// The `number`th call from now on fails.
    ///
    /// # Errors
    /// Where that cannot be written down.
    pub fn fail(&self, number: usize, how: How) -> Result<()> {
        fs::write(self.dir.join("at"), number.to_string())?;
        fs::write(self.dir.join("how"), format!("{how:?}"))?;
        Ok(fs::write(self.dir.join("count"), "0")?)
    }

    /// No call fails from now on.
    ///
    /// # Errors
    /// As [`Failing::fail`].
    pub fn never(&self) -> Result<()> {
        self.fail(0, How::Refused)
    }

    /// Calls since the last setting.
    ///
    /// # Errors
    /// Where there is no number.
    pub fn calls(&self) -> Result<usize> {
        Ok(fs::read_to_string(self.dir.join("count"))?.trim().parse()?)
    }
}
