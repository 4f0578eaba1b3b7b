//! The one transition: `step(node, event, context) -> new node, effects, notes`. Total and pure; what does not fit is
//! refused and changes nothing.

use protocol::Timestamp;
use protocol::fault::Fault;
use protocol::job::Job;

use super::boot::Usual;
use super::event::{Context, Effect, Erased, Event, Note, Outcome, Refused, Severity};
use super::state::{Failure, Fallback, OnVolume, Run, RunStage, State, StateName};
use super::timeline::{Phase, Timeline};
use super::{Node, agent, care, deadline, machine, medium, orders, people, power, service, trust};

/// Takes `event` in.
///
/// # Errors
/// Where the event does not fit the node as it stands; then nothing has changed.
pub fn step(node: &Node, event: Event, context: &Context) -> Result<Outcome, Refused> {
    let mut s =
        Step { node: node.clone(), effects: Vec::new(), notes: Vec::new(), records: Vec::new(), context };
    match event {
        Event::DhcpSeen { first_seen } => machine::dhcp_seen(&mut s, first_seen),
        Event::LoaderServed { by } => machine::loader_served(&mut s, by),
        Event::BootRequested { boot, nonce, claim } => machine::boot_requested(&mut s, &boot, nonce, claim),
        Event::KernelServed => machine::mark_boot(&mut s, Phase::Kernel),
        Event::BootBegun { ticket } => orders::begun(&mut s, ticket)?,
        Event::MediumMade { job, nonce } => medium::made(&mut s, job, nonce)?,
        Event::PhoneHome { token, host_keys } => machine::phone_home(&mut s, token, host_keys)?,
        Event::Hello { hello, nonce, session } => agent::hello(&mut s, &hello, nonce, session)?,
        Event::Inventory { disks_blank, macs, compared } => {
            agent::inventory(&mut s, disks_blank, macs, compared)?;
        }
        Event::Compared(compared) => care::compared(&mut s, compared),
        Event::Quoted(quoted) => trust::quoted(&mut s, *quoted)?,
        Event::WorkTaken { job } => agent::work_taken(&mut s, job)?,
        Event::Report(batch) => agent::report(&mut s, &batch)?,
        Event::Power { job, bmc, news } => power::power(&mut s, job, bmc, news),
        Event::Prepared { job, news } => machine::prepared(&mut s, job, news)?,
        Event::Service { job, news } => service::news(&mut s, job, news),
        Event::PoweredOff => power::off(&mut s),
        Event::Tick => deadline::tick(&mut s),
        Event::ServerStarted => deadline::server_started(&mut s),
        Event::Restored { of } => care::restored(&mut s, of),
        Event::Verb(verb) => people::verb(&mut s, verb)?,
    }
    medium::settle(&mut s);
    trust::settle(&mut s);
    Ok(Outcome { node: s.node, effects: s.effects, notes: s.notes, records: s.records })
}

/// A step on its way: the node being changed and what follows.
pub(super) struct Step<'a> {
    pub node: Node,
    pub effects: Vec<Effect>,
    pub notes: Vec<Note>,
    pub records: Vec<Erased>,
    pub context: &'a Context,
}

impl Step<'_> {
    pub fn now(&self) -> Timestamp {
        self.context.now
    }

    pub fn info(&mut self, kind: &str, message: impl Into<String>) {
        self.note(kind, Severity::Info, message);
    }

    pub fn warn(&mut self, kind: &str, message: impl Into<String>) {
        self.note(kind, Severity::Warning, message);
    }

    pub fn note(&mut self, kind: &str, severity: Severity, message: impl Into<String>) {
        self.notes.push(Note { kind: kind.to_owned(), severity, message: message.into() });
    }

    pub fn mark(&mut self, phase: Phase) {
        let now = self.now();
        self.node.timeline.mark(phase, now);
    }

    /// A run of `task` at its beginning. With an agent at hand it is assigned at once, else the machine must boot.
    pub fn new_run(&mut self, job: Job, fallback: Fallback) -> Run {
        orders::end(self);
        let now = self.now();
        let mut run = Run {
            job,
            stage: RunStage::Boot,
            since: now,
            deadline: now,
            restarts: 0,
            acked: 0,
            progress: None,
            abort: false,
            fallback,
            phone_home: None,
            resumed: false,
            crosses: false,
            hostname: None,
            on_volume: OnVolume::default(),
            erased: Vec::new(),
            power: None,
        };
        self.begin(&mut run);
        run
    }

    /// Sends a run to its first stage: a disk that is a volume is prepared; else, with an agent at hand, the job is assigned, or
    /// the machine must boot.
    pub fn begin(&mut self, run: &mut Run) {
        if run.boots_volume() {
            run.enter(RunStage::Volume, self.now());
        } else if self.node.link.session.is_some() {
            run.enter(RunStage::Assign, self.now());
            self.effects.push(Effect::WakeAgent);
        } else {
            run.enter(RunStage::Boot, self.now());
            self.effects.push(Effect::PowerCycle);
        }
    }

    /// New work that a person asked for: its waterfall starts here.
    pub fn start_timeline(&mut self, title: String) {
        self.node.timeline = Timeline::start(title);
        self.mark(Phase::Requested);
    }

    /// Ends the current work with a cause.
    pub fn fail(&mut self, fault: Fault) {
        let during = self.node.state.name();
        let at = self.now();
        let run = self.node.state.run().cloned();
        let service = self.node.state.service().cloned();
        // After the write the OS is whole and may only be slow, and an OS that was running stays whole until the agent
        // has taken the job: then the disk stays what a netboot is sent to.
        let boot = match run.as_ref() {
            Some(run) if matches!(run.stage, RunStage::Restart | RunStage::FirstBoot) => Usual::LocalDisk,
            Some(run) if run.fallback == Fallback::Active && run.is_untouched() => Usual::LocalDisk,
            None if service.as_ref().is_some_and(|service| service.back == Fallback::Active) => {
                Usual::LocalDisk
            }
            _ => Usual::Agent,
        };
        self.note(
            &format!("{during}.failed"),
            Severity::Error,
            format!("{} ({})", fault.message, fault.hint),
        );
        self.mark(Phase::Done);
        let (run, service) = (run.map(Box::new), service.map(Box::new));
        self.node.state = State::Failed(Failure { during, fault, at, boot, run, service });
    }

    /// The machine left the agent: its credentials end with that boot.
    pub fn drop_agent(&mut self) {
        self.node.link.session = None;
    }

    pub fn wrong_state(&self, verb: &'static str, hint: &'static str) -> Refused {
        Refused::WrongState { verb, state: self.node.state.name(), hint }
    }

    pub fn is(&self, names: &[StateName]) -> bool {
        names.contains(&self.node.state.name())
    }
}
