//! Staying with a job until it is over: a bar on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::{Duration, Instant};

use boot_server_core::deploy::bytes;
use boot_server_core::node::StateName;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use protocol::JobId;

use super::Failure;
use super::client::Client;
use super::node::path;
use super::output::Format;
use super::text::{plain, span};
use crate::view::{EventView, NodeView, Page};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// A server that restarts is back within this time; it loses no job.
const SERVER_GONE_MAX: Duration = Duration::from_mins(5);
/// Without a terminal, a line is printed each time that so many percent more are done.
const LINE_EVERY_PERCENT: u64 = 10;

/// Whether to stay.
#[derive(Debug, Clone, clap::Args)]
pub struct WatchArgs {
    /// Stay until it is over, and show how far it is
    #[arg(long, short)]
    pub(super) watch: bool,
    /// With --watch: give up waiting after so many seconds (the job goes on)
    #[arg(long, value_name = "SECONDS", default_value_t = 5400, requires = "watch")]
    pub(super) timeout: u64,
}

/// What counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The OS phoned home.
    Active,
    /// The node is offered.
    Available,
    /// The job ended without a fault.
    Over,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    Failed { message: String, hint: String },
    CalledOff(StateName),
}

/// What a look at the node says; `None` where the job goes on.
pub(super) fn verdict(goal: Goal, node: &NodeView) -> Option<Verdict> {
    if node.state == StateName::Failed {
        let fault = node.fault.clone();
        let (message, hint) = fault.map(|f| (f.message, f.hint)).unwrap_or_default();
        return Some(Verdict::Failed { message, hint });
    }
    if node.job.is_some() {
        return None;
    }
    let done = match goal {
        Goal::Active => node.state == StateName::Active,
        Goal::Available => node.state == StateName::Available,
        Goal::Over => true,
    };
    Some(if done { Verdict::Done } else { Verdict::CalledOff(node.state) })
}

/// Stays with the job that `node` has, and prints the node when it is over.
///
/// # Errors
/// Where the job fails, is called off, or takes longer than allowed.
pub(super) fn watch(
    client: &Client,
    format: Format,
    node: &NodeView,
    goal: Goal,
    args: &WatchArgs,
) -> Result<(), Failure> {
    let start = Instant::now();
    let limit = Duration::from_secs(args.timeout);
    let mut shown = Shown::new();
    let mut last_answer = Instant::now();
    let mut current = node.clone();
    loop {
        shown.show(&current);
        if let Some(mut verdict) = verdict(goal, &current) {
            shown.end();
            if verdict == Verdict::Done && goal == Goal::Over && was_called_off(client, node)? {
                verdict = Verdict::CalledOff(current.state);
            }
            return conclude(format, verdict, &current, start.elapsed());
        }
        if start.elapsed() >= limit {
            shown.end();
            let state = &current.state;
            return Err(Failure::Timeout(format!(
                "{} is still {state} after {} s; the job goes on",
                plain(&current.name),
                args.timeout
            )));
        }
        thread::sleep(INTERVAL.min(limit.saturating_sub(start.elapsed())));
        match client.get::<NodeView>(&path(&node.id.to_string(), "")) {
            Ok(node) => (current, last_answer) = (node, Instant::now()),
            Err(Failure::Unreachable { .. } | Failure::Timeout(_))
                if last_answer.elapsed() < SERVER_GONE_MAX =>
            {
                shown.note("the server does not answer; trying again");
            }
            Err(other) => {
                shown.end();
                return Err(other);
            }
        }
    }
}

/// True where somebody stopped the job that `node` had. Its state does not tell: it is the one it would have ended in.
fn was_called_off(client: &Client, node: &NodeView) -> Result<bool, Failure> {
    let Some(job) = &node.job else { return Ok(false) };
    let page: Page<EventView> = client.get(&format!("events?node={}&limit=20", node.id))?;
    Ok(page.items.iter().any(|e| e.at >= job.since && e.kind == "job.aborted"))
}

fn conclude(format: Format, verdict: Verdict, node: &NodeView, took: Duration) -> Result<(), Failure> {
    match verdict {
        Verdict::Done if format == Format::Table => {
            let took = span(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            super::deploy::line(&format!("{} is {} after {took}", plain(&node.name), node.state))
        }
        Verdict::Done => format.print(node),
        Verdict::Failed { message, hint } => {
            Err(Failure::Hinted { message: format!("{} failed: {message}", node.name), hint })
        }
        Verdict::CalledOff(state) => {
            Err(Failure::Other(format!("the job was called off; {} is {state}", node.name)))
        }
    }
}

/// What has been shown so far.
struct Shown {
    bar: Option<ProgressBar>,
    job: Option<JobId>,
    line: String,
}

impl Shown {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, job: None, line: String::new() }
    }

    fn show(&mut self, node: &NodeView) {
        let job = node.job.as_ref().map(|j| j.id);
        if job.is_some() {
            self.job = job;
        }
        match &self.bar {
            Some(bar) => draw(bar, node),
            None => {
                let line = status_line(node);
                if line != self.line {
                    eprintln!("{line}");
                    self.line = line;
                }
            }
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None if self.line != text => {
                eprintln!("{text}");
                text.clone_into(&mut self.line);
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn draw(bar: &ProgressBar, node: &NodeView) {
    let progress = node.job.as_ref().and_then(|j| j.progress.as_ref()).filter(|p| p.bytes_total > 0);
    let (template, message) = match (progress, &node.job) {
        (Some(p), Some(job)) => {
            bar.set_length(p.bytes_total);
            bar.set_position(p.bytes_done);
            let rate = format!("{}/s", bytes(p.bytes_per_second));
            let left = job.seconds_left.map(|s| format!(", {} left", span(s * 1000))).unwrap_or_default();
            let done = format!("{} of {}", bytes(p.bytes_done), bytes(p.bytes_total));
            ("{spinner} {prefix} [{bar:30}] {percent}% {msg}", format!("{done} {rate}{left}"))
        }
        _ => {
            let waits = node.waits_for.as_ref().map(|w| format!("waits for {w}")).unwrap_or_default();
            ("{spinner} {prefix} {wide_msg}", waits)
        }
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    let stage =
        node.job.as_ref().map_or_else(|| node.state.to_string(), |j| format!("{} {}", j.verb, j.stage));
    bar.set_prefix(format!("{}: {stage}", plain(&node.name)));
    bar.set_message(plain(&message));
}

/// One line about a node that changes only when something worth a line changed.
pub(super) fn status_line(node: &NodeView) -> String {
    let name = plain(&node.name);
    let Some(job) = &node.job else { return format!("{name}: {}", node.state) };
    let mut line = format!("{name}: {} {}", job.verb, job.stage);
    if let Some(p) = job.progress.as_ref().filter(|p| p.bytes_total > 0) {
        let percent =
            u64::try_from(u128::from(p.bytes_done) * 100 / u128::from(p.bytes_total)).unwrap_or(100);
        let step = percent / LINE_EVERY_PERCENT * LINE_EVERY_PERCENT;
        line.push_str(&format!(" {step} % of {}", bytes(p.bytes_total)));
    } else if let Some(waits) = node.waits_for.as_ref().filter(|_| job.progress.is_none()) {
        line.push_str(&format!(", waits for {}", plain(waits)));
    }
    line
}
