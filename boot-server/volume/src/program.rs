//! Programs that a backend asks: started, waited for, ended when they take too long.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::BackendError;

/// Longest text of a program that goes into an error, in characters.
const SAID_MAX: usize = 300;

/// One call of a program.
pub(crate) struct Call {
    program: &'static str,
    what: String,
    command: Command,
    timeout: Duration,
}

impl Call {
    /// Of this program; `what` is for errors, such as `make a target`.
    pub(crate) fn new(program: &'static str, what: impl Into<String>, timeout: Duration) -> Self {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Self { program, what: what.into(), command, timeout }
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What it printed.
    ///
    /// # Errors
    /// Where it cannot be started, ends with an error or takes too long.
    pub(crate) async fn output(self) -> Result<String, BackendError> {
        let (program, what) = (self.program, self.what.clone());
        let failed = |said: String| BackendError::Program { program, what: what.clone(), said };
        let timeout = self.timeout;
        match tokio::time::timeout(timeout, self.run()).await {
            Err(_) => Err(failed(format!("no answer within {timeout:?}"))),
            Ok(Err(e)) => Err(failed(e.to_string())),
            Ok(Ok(output)) if output.status.success() => {
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said: String = said.trim().chars().take(SAID_MAX).collect();
                Err(failed(format!("{} ({})", said, output.status)))
            }
        }
    }

    async fn run(mut self) -> std::io::Result<std::process::Output> {
        self.command.stdin(Stdio::null()).spawn()?.wait_with_output().await
    }
}
