//! A machine is made to start anew, with proof at each step: it was off, and it is on.
//!
//! ```text
//! [insert] ─▶
//! set boot ─▶ look ──on──▶ off ─▶ is it off? ──yes──▶ on ─▶ is it on? ──yes──▶ end: on
//!               ├──off───────────────────────────────▶│        │ no, for half a minute
//!               └──unknown──▶ cycle ─▶ end: unproven   ◀───────┘ again, three times in all; then end: no effect
//! ```
//!
//! With a boot image it begins by inserting that, and ends where that or the boot device is refused: what else the firmware would
//! boot is not what is wanted. For firmware and settings nothing is said about what to boot, and a running OS is first asked to
//! shut down.
//!
//! A command whose answer was lost is not sent again blindly: the state is read, and what is still missing is done.

use std::time::Duration;

use protocol::Timestamp;

use super::{Chance, Power};

/// Commands of one kind that a controller may accept without effect.
const TRIES_MAX: u32 = 3;
/// How long the effect of a command may take to show.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an OS may take to shut down.
const SHUTDOWN: Duration = Duration::from_mins(3);
/// The first pause between two looks; each is longer.
const LOOK: Duration = Duration::from_millis(500);
/// The longest pause between two looks.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// Answers that may be missing in a row.
const SILENCES_MAX: u32 = 8;
/// The first pause after a missing answer.
const SILENCE: Duration = Duration::from_secs(5);
/// The longest one.
const SILENCE_MAX: Duration = Duration::from_mins(2);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Put the boot image into the drive, and read that back.
    Insert,
    /// Tell the firmware what to boot.
    SetBoot,
    /// Read the power state.
    Look,
    /// Ask the OS to shut down.
    Ask,
    /// Switch off.
    Off,
    /// Switch on.
    On,
    /// Off and on in one: what runs cannot be read.
    Cycle,
    /// Wait.
    Pause(Duration),
    /// It is over.
    End(End),
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was off and is on.
    On,
    /// The command was taken; what came of it cannot be read.
    Unproven,
    /// Commands were accepted and did nothing.
    NoEffect(Wanted),
    /// The controller refused, or did not answer; its last error is the shell's.
    Failed,
}

/// What a command was to bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Running.
    On,
    /// Not running.
    Off,
}

impl Wanted {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The power state was read.
    Power(Power),
    /// The command was accepted, or the pause is over.
    Done,
    /// The driver cannot do that.
    Unable,
    /// No answer: it may have been done or not.
    Silence,
    /// Refused: asking again gives the same.
    Refused,
}

/// A restart on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    doing: Doing,
    /// It boots from an image in its drive, and from nothing else.
    by_media: bool,
    /// Only switch on what is off; what runs stays as it is.
    on_only: bool,
    /// The OS is to be asked to shut down before it is switched off.
    asks: bool,
    was_off: bool,
    tries: [u32; 2],
    silences: u32,
    looks: u32,
    stuck: Option<Wanted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Insert,
    SetBoot,
    Look,
    Ask,
    Command(Wanted),
    Blind,
    Await { wanted: Wanted, until: Timestamp },
    Pausing { then: Then, pause: Duration },
    Ended(End),
}

/// What follows a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Insert,
    SetBoot,
    Look,
    Await { wanted: Wanted, until: Timestamp },
}

impl Restart {
    /// A restart that begins by telling the firmware what to boot.
    pub fn new() -> Self {
        Self {
            doing: Doing::SetBoot,
            by_media: false,
            on_only: false,
            asks: false,
            was_off: false,
            tries: [0; 2],
            silences: 0,
            looks: 0,
            stuck: None,
        }
    }

    /// A restart that leaves open what is booted; `asks`: an OS runs, and has time to shut down.
    pub fn plain(asks: bool) -> Self {
        Self { doing: Doing::Look, asks, ..Self::new() }
    }

    /// A restart that begins by inserting a boot image.
    pub fn by_media() -> Self {
        Self { doing: Doing::Insert, by_media: true, ..Self::new() }
    }

    /// What to do now.
    pub fn step(&self) -> Step {
        match self.doing {
            Doing::Insert => Step::Insert,
            Doing::SetBoot => Step::SetBoot,
            Doing::Look | Doing::Await { .. } => Step::Look,
            Doing::Ask => Step::Ask,
            Doing::Command(Wanted::Off) => Step::Off,
            Doing::Command(Wanted::On) => Step::On,
            Doing::Blind => Step::Cycle,
            Doing::Pausing { pause, .. } => Step::Pause(pause),
            Doing::Ended(end) => Step::End(end),
        }
    }

    /// What a command was to bring about that had no effect so far.
    pub fn stuck(&self) -> Option<Wanted> {
        self.stuck
    }

    /// True once the machine was seen off: whatever happens now, it must not be left so.
    pub fn must_switch_on(&self) -> bool {
        self.was_off && !matches!(self.doing, Doing::Ended(_))
    }

    /// True once a command to switch on was sent.
    pub fn switched_on(&self) -> bool {
        self.tries[Wanted::On as usize] > 0
    }

    /// Whoever asked for it does not want it any more: what was switched off is switched on again, all else stays.
    pub fn call_off(&mut self) {
        match self.doing {
            Doing::Ended(_) => {}
            _ if self.tries[Wanted::Off as usize] == 0 && !self.was_off => {
                self.doing = Doing::Ended(End::Unproven);
            }
            Doing::Command(Wanted::Off) => (self.on_only, self.doing) = (true, Doing::Look),
            _ => self.on_only = true,
        }
    }

    /// The machine showed itself on the network: proof enough.
    pub fn handle_evidence(&mut self) {
        self.doing = Doing::Ended(End::On);
    }

    /// What came of the step that [`Restart::step`] named.
    pub fn handle_answer(&mut self, now: Timestamp, answer: Answer, chance: Chance) {
        if !matches!(answer, Answer::Silence) && !matches!(self.doing, Doing::Pausing { .. }) {
            self.silences = 0;
        }
        self.doing = match (self.doing, answer) {
            (Doing::Ended(end), _) => Doing::Ended(end),
            (Doing::Pausing { then, .. }, _) => then.doing(),
            (doing, Answer::Silence) => self.silence(doing, chance),
            (Doing::Insert, Answer::Done | Answer::Power(_)) => Doing::SetBoot,
            (Doing::Insert, Answer::Unable) => Doing::Ended(End::Failed),
            (Doing::SetBoot, Answer::Unable) if self.by_media => Doing::Ended(End::Failed),
            // The firmware's own order is as good: it has the network first.
            (Doing::SetBoot, Answer::Done | Answer::Unable | Answer::Power(_)) => Doing::Look,
            (Doing::Look, Answer::Power(power)) => self.looked(power, chance),
            (Doing::Await { wanted, until }, Answer::Power(power)) => {
                self.awaited(now, wanted, until, power, chance)
            }
            (Doing::Ask, Answer::Done | Answer::Power(_)) => {
                (self.asks, self.looks) = (false, 0);
                Doing::Await { wanted: Wanted::Off, until: now.after(SHUTDOWN) }
            }
            // An OS that cannot be asked is switched off.
            (Doing::Ask, Answer::Unable | Answer::Refused) => {
                self.asks = false;
                Doing::Look
            }
            (Doing::Command(wanted), Answer::Done | Answer::Power(_)) => {
                self.tries[wanted as usize] += 1;
                self.looks = 0;
                Doing::Await { wanted, until: now.after(PATIENCE) }
            }
            (Doing::Look | Doing::Await { .. } | Doing::Command(_), Answer::Unable) => Doing::Blind,
            (Doing::Look | Doing::Await { .. }, Answer::Done) => Doing::Look,
            (Doing::Blind, Answer::Done | Answer::Power(_)) => Doing::Ended(End::Unproven),
            (Doing::Blind, Answer::Unable) | (_, Answer::Refused) => Doing::Ended(End::Failed),
        };
    }

    fn looked(&mut self, power: Power, chance: Chance) -> Doing {
        match power {
            Power::On if self.was_off || self.on_only => Doing::Ended(End::On),
            Power::On if self.asks => Doing::Ask,
            Power::On => self.command(Wanted::Off),
            Power::Off => {
                self.was_off = true;
                self.command(Wanted::On)
            }
            Power::Turning => self.pause(Then::Look, chance),
            Power::Unknown => Doing::Blind,
        }
    }

    fn awaited(
        &mut self,
        now: Timestamp,
        wanted: Wanted,
        until: Timestamp,
        power: Power,
        chance: Chance,
    ) -> Doing {
        match (wanted, power) {
            (Wanted::On, Power::On) => {
                self.stuck = None;
                Doing::Ended(End::On)
            }
            (Wanted::Off, Power::Off) => {
                (self.was_off, self.stuck) = (true, None);
                self.command(Wanted::On)
            }
            (_, Power::Unknown) => Doing::Ended(End::Unproven),
            _ if now < until => self.pause(Then::Await { wanted, until }, chance),
            (Wanted::Off, _) if self.on_only => Doing::Ended(End::On),
            // The OS did not shut down.
            (Wanted::Off, _) if self.tries[Wanted::Off as usize] == 0 => self.command(Wanted::Off),
            // It was accepted, and nothing came of it.
            _ => {
                self.stuck = Some(wanted);
                self.command(wanted)
            }
        }
    }

    /// The command, unless it was given often enough.
    fn command(&mut self, wanted: Wanted) -> Doing {
        if self.tries[wanted as usize] >= TRIES_MAX {
            self.stuck = Some(wanted);
            return Doing::Ended(End::NoEffect(wanted));
        }
        Doing::Command(wanted)
    }

    fn pause(&mut self, then: Then, chance: Chance) -> Doing {
        let pause = chance.jitter(LOOK.saturating_mul(1 << self.looks.min(8)).min(LOOK_MAX));
        self.looks = self.looks.saturating_add(1);
        if matches!(then, Then::Look) && self.looks > 60 {
            // Neither on nor off for minutes.
            return Doing::Blind;
        }
        Doing::Pausing { then, pause }
    }

    fn silence(&mut self, doing: Doing, chance: Chance) -> Doing {
        self.silences = self.silences.saturating_add(1);
        if self.silences > SILENCES_MAX {
            return Doing::Ended(End::Failed);
        }
        let pause = chance.jitter(SILENCE.saturating_mul(1 << self.silences.min(8)).min(SILENCE_MAX));
        let then = match doing {
            Doing::Insert => Then::Insert,
            Doing::SetBoot => Then::SetBoot,
            Doing::Ask => {
                self.asks = false;
                Then::Look
            }
            Doing::Command(wanted) => {
                // It may have been done: it counts, and the state says what is still missing.
                self.tries[wanted as usize] += 1;
                Then::Look
            }
            Doing::Blind => return Doing::Ended(End::Failed),
            _ => Then::Look,
        };
        Doing::Pausing { then, pause }
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self::new()
    }
}

impl Then {
    fn doing(self) -> Doing {
        match self {
            Self::Insert => Doing::Insert,
            Self::SetBoot => Doing::SetBoot,
            Self::Look => Doing::Look,
            Self::Await { wanted, until } => Doing::Await { wanted, until },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A controller and its machine, on virtual time.
    struct Bench {
        on: bool,
        /// Commands that do nothing.
        lies: bool,
        /// How long a command takes to show.
        slow: Duration,
        coming: Option<(Timestamp, bool)>,
        now: Timestamp,
        commands: Vec<Wanted>,
        silent: Box<dyn FnMut() -> bool>,
    }

    impl Bench {
        fn new(on: bool) -> Self {
            Self {
                on,
                lies: false,
                slow: Duration::from_secs(1),
                coming: None,
                now: Timestamp(0),
                commands: Vec::new(),
                silent: Box::new(|| false),
            }
        }

        fn command(&mut self, wanted: Wanted) {
            self.commands.push(wanted);
            if !self.lies {
                self.coming = Some((self.now.after(self.slow), wanted == Wanted::On));
            }
        }

        fn run(&mut self, restart: &mut Restart, chance: Chance) -> End {
            for _ in 0..10_000 {
                if let Some((at, on)) = self.coming
                    && at <= self.now
                {
                    (self.on, self.coming) = (on, None);
                }
                let silent = (self.silent)();
                let answer = match restart.step() {
                    Step::End(end) => return end,
                    Step::Pause(pause) => {
                        self.now = self.now.after(pause);
                        Answer::Done
                    }
                    Step::Look if !silent => Answer::Power(if self.on { Power::On } else { Power::Off }),
                    Step::Look => Answer::Silence,
                    step => {
                        match step {
                            Step::On => self.command(Wanted::On),
                            Step::Off => self.command(Wanted::Off),
                            _ => {}
                        }
                        if silent { Answer::Silence } else { Answer::Done }
                    }
                };
                restart.handle_answer(self.now, answer, chance);
            }
            panic!("it does not end: {restart:?}")
        }
    }

    #[test]
    fn a_machine_that_runs_is_switched_off_and_on() {
        let mut bench = Bench::new(true);
        assert_eq!(bench.run(&mut Restart::new(), Chance(0)), End::On);
        assert_eq!((bench.commands, bench.on), (vec![Wanted::Off, Wanted::On], true));
    }

    #[test]
    fn a_machine_that_is_off_is_switched_on() {
        let mut bench = Bench::new(false);
        assert_eq!(bench.run(&mut Restart::new(), Chance(0)), End::On);
        assert_eq!(bench.commands, [Wanted::On]);
    }

    #[test]
    fn a_controller_that_does_nothing_is_found_out() {
        let mut bench = Bench { lies: true, ..Bench::new(false) };
        let mut restart = Restart::new();
        assert_eq!(bench.run(&mut restart, Chance(0)), End::NoEffect(Wanted::On));
        assert_eq!((bench.commands.len(), restart.stuck()), (3, Some(Wanted::On)));
        assert!(bench.now.since(Timestamp(0)) < Duration::from_mins(3), "{:?}", bench.now);
    }

    #[test]
    fn a_slow_one_is_waited_for() {
        let mut bench = Bench { slow: Duration::from_secs(25), ..Bench::new(true) };
        assert_eq!(bench.run(&mut Restart::new(), Chance(u16::MAX)), End::On);
        assert_eq!(bench.commands, [Wanted::Off, Wanted::On]);
    }

    #[test]
    fn an_os_is_asked_before_it_is_switched_off() {
        let mut restart = Restart::plain(true);
        let mut now = Timestamp(0);
        restart.handle_answer(now, Answer::Power(Power::On), Chance(0));
        assert_eq!(restart.step(), Step::Ask);
        restart.handle_answer(now, Answer::Done, Chance(0));
        while restart.step() != Step::Off {
            assert!(now.since(Timestamp(0)) < Duration::from_mins(4), "{restart:?}");
            match restart.step() {
                Step::Pause(pause) => {
                    now = now.after(pause);
                    restart.handle_answer(now, Answer::Done, Chance(0));
                }
                Step::Look => restart.handle_answer(now, Answer::Power(Power::On), Chance(0)),
                other => panic!("{other:?}"),
            }
        }
        assert!(now.since(Timestamp(0)) >= SHUTDOWN, "it had time");
        let mut deaf = Restart::plain(true);
        deaf.handle_answer(now, Answer::Power(Power::On), Chance(0));
        deaf.handle_answer(now, Answer::Unable, Chance(0));
        let mut bench = Bench::new(true);
        assert_eq!(bench.run(&mut deaf, Chance(0)), End::On);
        assert_eq!(bench.commands, [Wanted::Off, Wanted::On]);
        let mut plain = Restart::plain(false);
        assert_eq!(Bench::new(true).run(&mut plain, Chance(0)), End::On);
    }

    #[test]
    fn what_cannot_be_read_is_cycled_once() {
        let mut restart = Restart::new();
        restart.handle_answer(Timestamp(0), Answer::Unable, Chance(0));
        assert_eq!(restart.step(), Step::Look);
        restart.handle_answer(Timestamp(0), Answer::Power(Power::Unknown), Chance(0));
        assert_eq!(restart.step(), Step::Cycle);
        restart.handle_answer(Timestamp(0), Answer::Done, Chance(0));
        assert_eq!(restart.step(), Step::End(End::Unproven));
    }

    #[test]
    fn a_refusal_ends_it_and_a_lost_answer_does_not() {
        let mut refused = Restart::new();
        refused.handle_answer(Timestamp(0), Answer::Refused, Chance(0));
        assert_eq!(refused.step(), Step::End(End::Failed));
        // The answer to the first command is lost, but it was done: it is not sent again.
        let mut bench = Bench::new(false);
        let mut calls = 0;
        bench.silent = Box::new(move || {
            calls += 1;
            calls == 3
        });
        assert_eq!(bench.run(&mut Restart::new(), Chance(0)), End::On);
        assert_eq!(bench.commands, [Wanted::On]);
    }

    #[test]
    fn an_image_is_inserted_first_or_nothing_is_done() {
        let mut bench = Bench::new(true);
        let mut restart = Restart::by_media();
        assert_eq!(restart.step(), Step::Insert);
        assert_eq!(bench.run(&mut restart, Chance(0)), End::On);
        assert_eq!(bench.commands, [Wanted::Off, Wanted::On]);
        for refused in [Answer::Unable, Answer::Refused] {
            let mut restart = Restart::by_media();
            restart.handle_answer(Timestamp(0), refused, Chance(0));
            assert_eq!(restart.step(), Step::End(End::Failed), "no drive");
            let mut restart = Restart::by_media();
            restart.handle_answer(Timestamp(0), Answer::Done, Chance(0));
            restart.handle_answer(Timestamp(0), refused, Chance(0));
            assert_eq!(restart.step(), Step::End(End::Failed), "it would boot something else");
        }
        let mut silent = Restart::by_media();
        silent.handle_answer(Timestamp(0), Answer::Silence, Chance(0));
        silent.handle_answer(Timestamp(0), Answer::Done, Chance(0));
        assert_eq!(silent.step(), Step::Insert, "inserting the same twice does no harm");
    }

    #[test]
    fn called_off_it_leaves_nothing_switched_off() {
        let mut early = Restart::new();
        early.call_off();
        assert_eq!(early.step(), Step::End(End::Unproven));
        let mut bench = Bench::new(true);
        let mut late = Restart::new();
        for answer in [Answer::Done, Answer::Power(Power::On), Answer::Done] {
            late.handle_answer(Timestamp(0), answer, Chance(0));
        }
        bench.on = false;
        late.call_off();
        assert_eq!(bench.run(&mut late, Chance(0)), End::On);
        assert_eq!(bench.commands, [Wanted::On]);
    }

    proptest! {
        /// It always ends, soon; never more than three commands of a kind; a good controller that is silent now and then
        /// leaves the machine running.
        #[test]
        fn it_ends(on: bool, lies: bool, slow in 0_u64..40, silences in prop::collection::vec(any::<bool>(), 0..40), chance: u16) {
            let mut bench = Bench { lies, slow: Duration::from_secs(slow), ..Bench::new(on) };
            let mut left = silences.into_iter();
            bench.silent = Box::new(move || left.next().unwrap_or(false));
            let end = bench.run(&mut Restart::new(), Chance(chance));
            for wanted in [Wanted::On, Wanted::Off] {
                prop_assert!(bench.commands.iter().filter(|c| **c == wanted).count() <= 3);
            }
            prop_assert!(bench.now.since(Timestamp(0)) < Duration::from_mins(60));
            if end == End::On && slow < 30 {
                prop_assert!(bench.on && bench.commands.last() != Some(&Wanted::Off), "{:?}", bench.commands);
            }
        }
    }
}
