//! The DPU's own tool for settings of its firmware, `mlxconfig`: asked and told what the plan of functions says.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use dpu_agent_core::firmware::{Difference, Setting, difference, parse};
use protocol::Timestamp;
use protocol::functions::{FunctionPlan, FunctionsSeen, Model};
use tokio::process::Command;

/// Between two looks; settings of a firmware change by hand, or by us.
const LOOK: Duration = Duration::from_mins(1);
/// The tool reads and writes flash.
const CALL: Duration = Duration::from_secs(60);
/// Characters of what the tool says that go into a problem.
const WORDS: usize = 300;

/// Where the tool is.
#[derive(Debug, Clone, clap::Args)]
pub struct Tool {
    /// NVIDIA's tool that writes settings of the firmware, such as /usr/bin/mlxconfig: the plan of functions is written by it.
    #[arg(long, value_name = "PATH")]
    mlxconfig: Option<PathBuf>,
    /// The device that it is told, such as /dev/mst/mt41692_pciconf0.
    #[arg(long, value_name = "DEVICE", requires = "mlxconfig")]
    mlx_device: Option<String>,
}

/// The settings as they were at the last look.
#[derive(Debug)]
pub struct Firmware {
    tool: Tool,
    plan: Option<FunctionPlan>,
    next: Timestamp,
    last: Difference,
    trouble: Option<String>,
}

impl Firmware {
    /// Nothing is known yet.
    pub fn new(tool: Tool) -> Self {
        Self { tool, plan: None, next: Timestamp(0), last: Difference::default(), trouble: None }
    }

    /// Makes the firmware what the plan says, as far as that can be without a reset. A firmware without a plan is left alone.
    pub async fn follow(&mut self, plan: Option<&FunctionPlan>, now: Timestamp) {
        if self.plan.as_ref() == plan && now < self.next {
            return;
        }
        (self.plan, self.next) = (plan.copied(), now.after(LOOK));
        (self.last, self.trouble) = (Difference::default(), None);
        let Some(plan) = plan.filter(|plan| plan.model != Model::Generic) else { return };
        if let Err(why) = self.write(plan).await {
            tracing::warn!(%why, "the plan of functions is not written");
            self.trouble = Some(why);
        }
    }

    async fn write(&mut self, plan: &FunctionPlan) -> Result<(), String> {
        self.last = self.look(plan).await?;
        if self.last.set.is_empty() {
            return Ok(());
        }
        let words: Vec<String> = self.last.set.iter().map(Setting::to_string).collect();
        tracing::info!(settings = words.join(" "), "the firmware gets other settings");
        let arguments: Vec<&str> =
            ["-y", "set"].into_iter().chain(words.iter().map(String::as_str)).collect();
        self.call(&arguments).await?;
        // What it says that it wrote is read back.
        self.last = self.look(plan).await?;
        match self.last.set.first() {
            None => Ok(()),
            Some(setting) => Err(format!("mlxconfig took {setting}, and does not show it")),
        }
    }

    async fn look(&self, plan: &FunctionPlan) -> Result<Difference, String> {
        // All of them: the tool refuses to be asked for one that the card does not have.
        Ok(difference(plan, &parse(&self.call(&["-e", "query"]).await?)))
    }

    async fn call(&self, arguments: &[&str]) -> Result<String, String> {
        let (Some(program), Some(device)) = (&self.tool.mlxconfig, &self.tool.mlx_device) else {
            return Err(
                "the plan of functions is not written: start billet-dpu with --mlxconfig and --mlx-device"
                    .to_owned(),
            );
        };
        let mut command = Command::new(program);
        command.args(["-d", device]).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let name = program.display();
        let output = tokio::time::timeout(CALL, command.output())
            .await
            .map_err(|_| format!("{name} did not end within {} s", CALL.as_secs()))?
            .map_err(|error| format!("{name} cannot be run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let said = format!("{} {text}", String::from_utf8_lossy(&output.stderr));
        let said: String =
            said.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(WORDS).collect();
        Err(format!("{name} refuses: {said}"))
    }

    /// What keeps the plan from being so.
    pub fn problems(&self) -> Vec<String> {
        let missing = self
            .last
            .missing
            .iter()
            .map(|key| format!("the firmware has no setting {key}, which the plan of functions needs"));
        let reset = self.last.seen.needs_reset.then(|| {
            "the plan of functions is written, and in force after a power cycle of the host".to_owned()
        });
        self.trouble.iter().cloned().chain(missing).chain(reset).collect()
    }

    /// For the report; none without a plan.
    pub fn seen(&self) -> Option<FunctionsSeen> {
        self.plan?;
        Some(self.last.seen.clone())
    }
}
