//! What a run came to, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use super::field::Plan;
use super::fleet::Fleet;
use super::live::{Cable, Flooded};
use super::machine::Machine;
use super::personality::Personality;

/// Lost machines that are named.
const NAMED_MAX: usize = 10;

/// One run.
#[derive(Debug, Clone)]
pub struct Report {
    title: String,
    /// Its phases, in order.
    pub phases: Vec<Phase>,
    /// Largest resident set of the server, in bytes.
    pub memory: u64,
}

/// Machines that were switched on together.
#[derive(Debug, Clone, Default)]
pub struct Phase {
    /// What it was.
    pub name: String,
    /// Machines.
    pub machines: usize,
    /// Machines whose agent did not come up, and why.
    pub lost: Vec<String>,
    /// By firmware.
    pub kinds: BTreeMap<Personality, Kind>,
    /// Time of each agent's welcome since the first machine was switched on, ascending.
    pub hello: Vec<Duration>,
    /// Time of each machine from its own power button to its agent's welcome, ascending.
    pub boot: Vec<Duration>,
    /// Time from the first REQUEST to the ACK of each DHCP exchange, ascending.
    pub ack: Vec<Duration>,
    /// Time from the first DISCOVER to the ACK of each DHCP exchange, ascending.
    pub dora: Vec<Duration>,
    /// Messages that machines had to send again.
    pub retries: Retries,
    /// The last troubles of machines that came up all the same: how often each.
    pub troubles: BTreeMap<String, u32>,
    /// How long it took.
    pub took: Duration,
    /// CPU time of the server in it.
    pub server_cpu: Duration,
    /// CPU time of the fleet itself.
    pub fleet_cpu: Duration,
    /// The cable.
    pub cable: Cable,
    /// The flood, where there was one.
    pub flooded: Option<Flooded>,
}

/// Machines of one firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kind {
    /// How many.
    pub machines: u32,
    /// How many were lost.
    pub lost: u32,
}

/// Messages sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retries {
    /// DHCP.
    pub dhcp: u32,
    /// TFTP.
    pub tftp: u32,
    /// HTTP.
    pub http: u32,
    /// Whole boots.
    pub boots: u32,
}

impl Phase {
    /// What the fleet came to.
    pub fn of(name: &str, fleet: &Fleet) -> Self {
        let mut phase = Self { name: name.to_owned(), machines: fleet.machines().len(), ..Self::default() };
        fleet.machines().iter().for_each(|machine| phase.count(machine));
        for times in [&mut phase.hello, &mut phase.boot, &mut phase.ack, &mut phase.dora] {
            times.sort_unstable();
        }
        phase
    }

    fn count(&mut self, machine: &Machine) {
        let kind = self.kinds.entry(machine.personality()).or_default();
        kind.machines += 1;
        if !machine.is_up() {
            kind.lost += 1;
            let mac = machine.identity().mac;
            self.lost.push(format!("{} {mac} {}", machine.personality(), machine.stands_at()));
        }
        let (marks, counts) = (machine.marks(), machine.counts());
        if let Some(hello) = marks.hello {
            self.hello.push(hello);
            self.boot.extend(marks.on.map(|on| hello.saturating_sub(on)));
        }
        for took in &counts.dhcp {
            self.ack.push(took.ack);
            self.dora.push(took.all);
            self.retries.dhcp += took.retries;
        }
        self.retries.tftp += counts.tftp_retries;
        self.retries.http += counts.http_retries;
        self.retries.boots += counts.restarts;
        if let Some(why) = &counts.last_trouble {
            *self.troubles.entry(why.clone()).or_default() += 1;
        }
    }

    fn json(&self) -> Value {
        let quantiles =
            |times: &[Duration]| json!({ "p50": at(times, 50), "p99": at(times, 99), "max": at(times, 100) });
        json!({
            "name": self.name, "machines": self.machines, "lost": self.lost.len(),
            "hello_s": quantiles(&self.hello), "boot_s": quantiles(&self.boot), "ack_s": quantiles(&self.ack),
            "dora_s": quantiles(&self.dora),
            "retries": { "dhcp": self.retries.dhcp, "tftp": self.retries.tftp, "http": self.retries.http,
                "boots": self.retries.boots },
            "server_cpu_s": self.server_cpu.as_secs_f64(), "fleet_cpu_s": self.fleet_cpu.as_secs_f64(),
            "frames": self.cable.up.frames + self.cable.down.frames,
            "frames_lost": self.cable.up.lost + self.cable.down.lost,
            "flood": self.flooded.map(|f| json!({ "sent": f.sent, "answered": f.answered, "s": f.took.as_secs_f64() })),
            "kinds": self.kinds.iter()
                .map(|(k, n)| (k.name().to_owned(), json!({ "machines": n.machines, "lost": n.lost })))
                .collect::<serde_json::Map<_, _>>(),
        })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: machines {}  lost {}  took {}",
            self.name,
            self.machines,
            self.lost.len(),
            s(self.took)
        )?;
        let row = |f: &mut fmt::Formatter<'_>, what: &str, times: &[Duration], of: &str| {
            let [a, b, c] = [50, 99, 100].map(|p| at(times, p));
            writeln!(f, "  {what:<12} 50 % {a:8.3} s   99 % {b:8.3} s   100 % {c:8.3} s   {of}")
        };
        row(f, "agent hello", &self.hello, "since the first machine was switched on")?;
        row(f, "boot", &self.boot, "of each machine, to agent hello")?;
        row(f, "DHCP", &self.dora, "DISCOVER to ACK")?;
        row(f, "ACK", &self.ack, "REQUEST to ACK")?;
        let Retries { dhcp, tftp, http, boots } = self.retries;
        writeln!(f, "  sent again   DHCP {dhcp}  TFTP {tftp}  HTTP {http}  whole boots {boots}")?;
        let Cable { up, down, refused } = self.cable;
        writeln!(
            f,
            "  cable        frames {}  lost {}  duplicated {}  corrupted {}  reordered {}  refused {refused}",
            up.frames + down.frames,
            up.lost + down.lost,
            up.duplicated + down.duplicated,
            up.corrupted + down.corrupted,
            up.reordered + down.reordered
        )?;
        writeln!(f, "  CPU          server {}  fleet {}", s(self.server_cpu), s(self.fleet_cpu))?;
        if let Some(flood) = self.flooded {
            writeln!(
                f,
                "  flood        {} DISCOVERs in {}, {} offers",
                flood.sent,
                s(flood.took),
                flood.answered
            )?;
        }
        let mut kinds = String::new();
        for (kind, n) in &self.kinds {
            write!(kinds, "  {kind} {}", n.machines)?;
            if n.lost > 0 {
                write!(kinds, " (lost {})", n.lost)?;
            }
        }
        writeln!(f, "  firmware   {kinds}")?;
        for (trouble, count) in self.troubles.iter().take(NAMED_MAX) {
            writeln!(f, "  trouble      {count} x {trouble}")?;
        }
        self.lost.iter().take(NAMED_MAX).try_for_each(|lost| writeln!(f, "  LOST         {lost}"))
    }
}

impl Report {
    /// The report of a run.
    pub fn new(plan: &Plan, phases: Vec<Phase>, memory: u64) -> Self {
        let (crew, faults) = (&plan.crew, plan.faults);
        let bodies = match crew.habits.body_bytes {
            Some(bytes) => format!("kernel and RAM disk cut to {} KiB each (HTTP range)", bytes / 1024),
            None => "kernel and RAM disk whole".to_owned(),
        };
        let title = format!(
            "fleet: {} machines switched on over {}, seed {}; loss {} %, duplicates {} %, corruption {} %, \
             reordering {} %, delay {} ms; {bodies}; no POST, no kernel start",
            crew.count,
            s(crew.over),
            crew.seed,
            faults.loss * 100.0,
            faults.duplicate * 100.0,
            faults.corrupt * 100.0,
            faults.reorder * 100.0,
            faults.delay.as_millis(),
        );
        Self { title, phases, memory }
    }

    /// Machines lost in all phases.
    pub fn lost(&self) -> usize {
        self.phases.iter().map(|p| p.lost.len()).sum()
    }

    /// The same as JSON.
    pub fn json(&self) -> Value {
        let phases: Vec<Value> = self.phases.iter().map(Phase::json).collect();
        json!({ "title": self.title, "lost": self.lost(), "server_peak_bytes": self.memory, "phases": phases })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        self.phases.iter().try_for_each(|phase| phase.write(f))?;
        writeln!(f, "server memory, at its peak: {} MiB", self.memory >> 20)?;
        write!(f, "lost {}", self.lost())
    }
}

/// A percentile of ascending times, in seconds; 0 where there are none.
pub fn at(times: &[Duration], percent: usize) -> f64 {
    let n = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(n).map_or(0.0, Duration::as_secs_f64)
}

fn s(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let times: Vec<_> = (1..=200).map(Duration::from_secs).collect();
        assert_eq!([50, 99, 100].map(|p| at(&times, p)), [100.0, 198.0, 200.0]);
        assert_eq!(at(&times[..1], 50), 1.0);
        assert_eq!(at(&[], 50), 0.0);
    }
}
