//! The worker of one controller: takes requests in order, one call at a time, and looks by itself now and then.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bmc::{
    BmcError, BootDevice, BootOverride, CALL_MAX, Console, ErrorKind, LogCursor, PowerAction, PowerState,
    Repeat,
};
use boot_server_core::bmc::{Breaker, Chance, Drift, Gate, Lockout, Power, reset_allowed, retry_after};
use failpoint::Point;
use protocol::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ask::{Answer, Ask, What};
use super::clock::Clock;
use super::driver::Shown;
use super::{
    CLOSE_MAX, Change, HealthRead, MAILBOX_MAX, Made, News, PowerError, Read, Reply, Status, Target, Timing,
    Told, Trouble,
};
use crate::engine::{lock, now};
use crate::secret;

/// A driver ends its calls itself; one that does not is cut a little later.
const CUT: Duration = Duration::from_secs(CALL_MAX.as_secs() + 1);
/// After a change of power the state is read this soon.
const LOOK_SOON: Duration = Duration::from_secs(3);
/// The first looks at the health of many controllers are spread over this time at most.
const SPREAD_MAX: Duration = Duration::from_mins(10);
/// Events may come in a flood: for them it is looked at most this often.
const EVENT_LOOK_EVERY: Duration = Duration::from_secs(5);
/// What is known is stored at least this often, so that "last seen" is roughly right after a restart.
const STORE_EVERY: Duration = Duration::from_mins(10);

pub(super) struct Worker {
    target: Target,
    made: Made,
    mailbox: mpsc::Receiver<Ask>,
    queue: VecDeque<What>,
    status: Arc<Mutex<Status>>,
    news: mpsc::Sender<Told>,
    timing: Timing,
    clock: Clock,
    breaker: Breaker,
    lockout: Lockout,
    drift: Drift,
    reset_at: Option<Timestamp>,
    /// It showed another certificate: nothing is sent to it until a person decides.
    stopped: Option<Arc<BmcError>>,
    told: Option<(Timestamp, Status)>,
    next_look: Instant,
    next_health: Instant,
    /// The newest line of the event log that was read.
    cursor: Option<LogCursor>,
    /// The log was read once: what comes from now on is news.
    log_known: bool,
    signals: Signals,
    /// The next look is one because of an event.
    event_came: bool,
    /// The next look is to confirm one that was because of an event.
    confirms: bool,
    /// When such a look was last begun.
    event_look: Option<Instant>,
    /// What ends the subscription to its events.
    subscription: Option<String>,
    /// Not before then is looked whether it is still there; `None` where it sends none.
    next_subscribe: Option<Instant>,
}

/// What others tell a worker beside requests.
pub(super) struct Signals {
    /// An event of the controller came in.
    pub event: Arc<Notify>,
    /// It ends because the controller is left for good.
    pub leave: Arc<AtomicBool>,
}

/// A drawing of chance. Without randomness everybody waits the longest time, which is no fault.
pub(crate) fn chance() -> Chance {
    Chance(secret::random().map_or(u16::MAX, |bytes| u16::from_le_bytes([bytes[0], bytes[1]])))
}

pub(crate) fn power_of(state: PowerState) -> Power {
    match state {
        PowerState::On => Power::On,
        PowerState::Off => Power::Off,
        PowerState::PoweringOn | PowerState::PoweringOff => Power::Turning,
        PowerState::Unknown => Power::Unknown,
    }
}

/// The device, or the network by the other protocol: some controllers know one word for both.
fn same_way(wanted: &BootOverride, found: &BootOverride) -> bool {
    let network = |device| matches!(device, BootDevice::Pxe | BootDevice::Http);
    found.device == wanted.device
        || (wanted.http_uri.is_none() && network(wanted.device) && network(found.device))
}

impl Worker {
    pub fn new(
        target: Target,
        made: Made,
        mailbox: mpsc::Receiver<Ask>,
        (status, news): (Arc<Mutex<Status>>, mpsc::Sender<Told>),
        timing: Timing,
        signals: Signals,
    ) -> Self {
        let on = match target.power {
            Some(PowerState::On) => Some(true),
            Some(PowerState::Off) => Some(false),
            _ => None,
        };
        // The first looks of many are spread over the time between two.
        let spread = |time: Duration| time * u32::from(chance().0) / u32::from(u16::MAX);
        let health = if target.now { Duration::ZERO } else { spread(timing.health.min(SPREAD_MAX)) };
        Self {
            reset_at: target.reset_at,
            target,
            made,
            mailbox,
            queue: VecDeque::new(),
            status,
            news,
            timing,
            clock: Clock::new(),
            breaker: Breaker::default(),
            lockout: Lockout::default(),
            drift: Drift::new(on),
            stopped: None,
            told: None,
            next_look: Instant::now() + spread(timing.poll),
            next_health: Instant::now() + health,
            cursor: None,
            log_known: false,
            signals,
            event_came: false,
            confirms: false,
            event_look: None,
            subscription: None,
            next_subscribe: Some(Instant::now()),
        }
    }

    /// Works until `stop`, or until nobody can ask any more; then ends the session.
    pub async fn run(mut self, stop: CancellationToken) {
        let bmc = self.made.bmc.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
        let leave = self.signals.leave.load(Ordering::Relaxed);
        let subscription = self.subscription.take().filter(|_| leave && self.stopped.is_none());
        // Whoever waits is told that it is over before the session ends.
        drop(self);
        if let Some(subscription) = subscription
            && !matches!(tokio::time::timeout(CLOSE_MAX, bmc.unsubscribe(&subscription)).await, Ok(Ok(())))
        {
            tracing::info!("a BMC that is forgotten goes on sending events, which nobody takes");
        }
        if tokio::time::timeout(CLOSE_MAX, bmc.close()).await.is_err() {
            tracing::debug!("a BMC did not end its session in time");
        }
    }

    async fn work(&mut self) {
        loop {
            while self.queue.len() < MAILBOX_MAX
                && let Ok(ask) = self.mailbox.try_recv()
            {
                self.queue.push_back(ask.what);
            }
            if let Some(what) = self.queue.pop_front() {
                self.serve(what).await;
                continue;
            }
            tokio::select! {
                biased;
                ask = self.mailbox.recv() => match ask {
                    Some(ask) => self.queue.push_back(ask.what),
                    None => return,
                },
                () = tokio::time::sleep_until(self.next_look) => self.look().await,
                () = tokio::time::sleep_until(self.next_health) => self.look_at_health().await,
                () = self.signals.event.notified() => self.event(),
            }
        }
    }

    async fn serve(&mut self, what: What) {
        if what.is_given_up() {
            return;
        }
        match what {
            What::Read(read, answer) => {
                let result = self.read(&read, true).await;
                let others = self.same_reads(&read);
                for waiting in others {
                    drop(waiting.send(result.clone()));
                }
                drop(answer.send(result));
            }
            What::Change(change, answer) => {
                let result = self.change(&change).await;
                drop(answer.send(result));
            }
            What::Console(answer) => {
                let result = self.console().await;
                drop(answer.send(result));
            }
        }
        self.settle().await;
    }

    /// Equal reads that wait and that no change comes before.
    fn same_reads(&mut self, read: &Read) -> Vec<Answer<Reply>> {
        let mut same = Vec::new();
        let mut rest = VecDeque::with_capacity(self.queue.len());
        let mut changes = false;
        for what in self.queue.drain(..) {
            match what {
                What::Read(other, answer) if !changes && other == *read => same.push(answer),
                other => {
                    changes |= !matches!(other, What::Read(..));
                    rest.push_back(other);
                }
            }
        }
        self.queue = rest;
        same
    }

    /// Looks at the power state by itself.
    async fn look(&mut self) {
        // A refusal is no news here: it was told when it began.
        drop(self.read(&Read::Power, false).await);
        self.settle().await;
        let pause = if self.lockout.refused() { self.timing.poll_refused } else { self.timing.poll };
        self.next_look = Instant::now() + chance().jitter(pause);
        if let Some(until) = self.breaker.open_until() {
            // As soon as it may be asked again, it is.
            self.next_look = self.clock.instant(until) + Duration::from_millis(1);
        }
    }

    /// An event says that something happened, by whoever knows where events go: what did is read, now and then.
    fn event(&mut self) {
        let earliest = self.event_look.map_or_else(Instant::now, |last| last + EVENT_LOOK_EVERY);
        self.next_health = self.next_health.min(earliest.max(Instant::now()));
        self.event_came = true;
    }

    /// Asks it to send its events, and looks now and then whether it still does: it forgets that where it is restarted,
    /// or where it could not send them for a while. Where it cannot, or will not, it is polled as before.
    async fn subscribe(&mut self) {
        let (Some(destination), Some(at)) = (self.target.events.clone(), self.next_subscribe) else { return };
        if at > Instant::now() || !matches!(self.gate(), Ok(false)) {
            return;
        }
        let (bmc, context) = (self.made.bmc.clone(), format!("billet {}", self.target.node));
        let asked = tokio::time::timeout(CUT, bmc.subscribe(&destination, &context)).await;
        self.next_subscribe = Some(Instant::now() + self.timing.subscription);
        let events = match asked {
            Ok(Ok(subscription)) => {
                self.subscription = Some(subscription);
                Ok(())
            }
            Ok(Err(error)) => {
                if error.kind() == ErrorKind::Unsupported {
                    self.next_subscribe = None;
                }
                Err(error.to_string())
            }
            Err(_) => Err(format!("no answer within {} s", CUT.as_secs())),
        };
        if let Err(why) = &events {
            tracing::info!(node = %self.target.node, why, "a BMC does not send events: it is polled");
        }
        lock(&self.status).events = Some(events);
    }

    /// Reads sensors, parts and the event log by itself. A controller that is silent or refuses is left alone.
    async fn look_at_health(&mut self) {
        self.next_health = Instant::now() + chance().jitter(self.timing.health);
        let by_event = std::mem::take(&mut self.event_came);
        if std::mem::take(&mut self.confirms) || by_event {
            self.event_look = Some(Instant::now());
        }
        if !matches!(self.gate(), Ok(false)) || self.lockout.refused() {
            return;
        }
        let mut read = HealthRead::default();
        let mut any = false;
        if let Ok(Reply::Readings(readings)) = self.read(&Read::Readings, false).await {
            (read.readings, any) = (readings, true);
        }
        if matches!(self.gate(), Ok(false))
            && let Ok(Reply::Components(components)) = self.read(&Read::Components, false).await
        {
            (read.components, any) = (components, true);
        }
        if matches!(self.gate(), Ok(false))
            && let Ok(Reply::Log(lines)) = self.read(&Read::Log(self.cursor.clone()), false).await
        {
            if let Some(last) = lines.last() {
                self.cursor = Some(LogCursor { id: last.id.clone(), at: last.at });
            }
            // What was there before Billet looked is history, and stands in the log.
            if std::mem::replace(&mut self.log_known, true) {
                read.lines = lines;
            }
        }
        self.settle().await;
        if any || !read.lines.is_empty() {
            self.tell(News::Health(read)).await;
        }
        if by_event {
            // A change of health is told when it was seen twice.
            self.confirms = true;
            self.next_health = self.next_health.min(Instant::now() + EVENT_LOOK_EVERY);
        }
        // Behind the log: what happened before is no news.
        self.subscribe().await;
    }

    /// True: something harmless is to be asked first.
    fn gate(&self) -> Result<bool, PowerError> {
        let now = self.clock.now();
        if let Some(error) = &self.stopped {
            return Err(PowerError::Bmc(error.clone()));
        }
        self.lockout.allowed(now).map_err(|until| PowerError::LockedOut { until, now })?;
        match self.breaker.gate(now) {
            Gate::Go => Ok(false),
            Gate::Probe => Ok(true),
            Gate::Wait(until) => Err(PowerError::Waits { until, now }),
        }
    }

    async fn read(&mut self, read: &Read, again: bool) -> Result<Reply, PowerError> {
        let probe = self.gate()?;
        if probe && *read != Read::Power {
            self.ask(&Read::Power).await?;
        }
        let begun = Instant::now();
        let mut tries = 1;
        loop {
            let error = match self.ask(read).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let pause = retry_after(tries, begun.elapsed(), chance());
            match pause.filter(|_| again && error.is_transient() && self.gate().is_ok()) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
            tries += 1;
        }
    }

    async fn ask(&mut self, read: &Read) -> Result<Reply, PowerError> {
        let bmc = self.made.bmc.clone();
        let reply = self.call("a reading", async { read.call(bmc.as_ref()).await }).await?;
        if let Reply::Power(power) = &reply {
            self.power_read(*power).await;
        }
        Ok(reply)
    }

    async fn change(&mut self, change: &Change) -> Result<Reply, PowerError> {
        if self.gate()? {
            self.ask(&Read::Power).await?;
        }
        let now = self.clock.now();
        if matches!(change, Change::ResetBmc) {
            reset_allowed(self.reset_at, now).map_err(|until| PowerError::ResetTooSoon { until, now })?;
            // Noted before it is asked: an answer that is lost must not lead to a second one.
            self.reset_at = Some(now);
            self.tell(News::Reset(now)).await;
        }
        if let Change::Power(action) = change {
            let wanted = match action {
                PowerAction::On => Some(true),
                PowerAction::SoftOff | PowerAction::ForceOff => Some(false),
                PowerAction::Reset | PowerAction::Cycle | PowerAction::Nmi => None,
            };
            self.drift.handle_change(now, wanted);
            self.next_look = Instant::now() + LOOK_SOON;
        }
        let reply = match self.do_change(change).await {
            Err(error) if error.is_transient() => self.perhaps_done(change, error).await?,
            other => other?,
        };
        if let Change::Boot(wanted) = change {
            self.read_back(change, wanted).await?;
        }
        Ok(reply)
    }

    async fn do_change(&mut self, change: &Change) -> Result<Reply, PowerError> {
        let bmc = self.made.bmc.clone();
        failpoint::pass(Point::PowerBefore);
        let reply = self.call("a change", async { change.call(bmc.as_ref()).await }).await;
        failpoint::pass(Point::PowerAfter);
        reply
    }

    /// The answer to a change was lost. Where the state says that it was done, it was; where it says that it was not,
    /// and doing it twice is the same as once, it is done again, once.
    async fn perhaps_done(&mut self, change: &Change, error: PowerError) -> Result<Reply, PowerError> {
        let Some(read) = change.proof() else { return Err(error) };
        if self.gate().is_err() {
            return Err(error);
        }
        match self.ask(&read).await {
            Ok(state) if change.is_done(&state) => Ok(Reply::Done),
            Ok(_) => self.do_change(change).await,
            Err(_) => Err(error),
        }
    }

    /// What was accepted must show. Drivers that cannot read it are believed.
    async fn read_back(&mut self, change: &Change, wanted: &BootOverride) -> Result<(), PowerError> {
        match self.ask(&Read::Boot).await {
            Ok(state) if change.is_done(&state) => Ok(()),
            Ok(Reply::Boot(found)) if same_way(wanted, &found) && found.repeat == Repeat::Always => {
                Err(PowerError::NotOnce { device: format!("{:?}", found.device).to_lowercase() })
            }
            Ok(Reply::Boot(found)) => {
                let wanted = format!("the boot device {:?}", wanted.device).to_lowercase();
                let found = format!("{:?}, {:?}", found.device, found.repeat).to_lowercase();
                Err(PowerError::NotTaken { wanted, found })
            }
            Ok(other) => Err(PowerError::wrong_reply(&other)),
            Err(error) if error.kind() == Some(ErrorKind::Unsupported) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn console(&mut self) -> Result<Box<dyn Console>, PowerError> {
        if self.gate()? {
            self.ask(&Read::Power).await?;
        }
        let bmc = self.made.bmc.clone();
        self.call("the console", async { bmc.console().await }).await
    }

    /// One call, cut where the driver does not end it, and what it tells of the controller.
    async fn call<T>(
        &mut self,
        what: &str,
        call: impl Future<Output = Result<T, BmcError>>,
    ) -> Result<T, PowerError> {
        let result = match tokio::time::timeout(CUT, call).await {
            Ok(result) => result,
            Err(_) => Err(BmcError::TimedOut { what: what.to_owned(), after: CUT }),
        };
        match result {
            Ok(value) => {
                self.lockout.reset();
                self.answered(None).await;
                Ok(value)
            }
            Err(error) => {
                let error = Arc::new(error);
                self.failed(&error).await;
                Err(PowerError::Bmc(error))
            }
        }
    }

    async fn failed(&mut self, error: &Arc<BmcError>) {
        let trouble = Trouble::of(error);
        match error.kind() {
            // Nothing was sent for this.
            ErrorKind::Unsupported => {}
            ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::Tls => {
                let lost = self.breaker.handle_silence(self.clock.now(), chance());
                let until = self.breaker.open_until();
                {
                    let mut status = lock(&self.status);
                    status.failures = status.failures.saturating_add(1);
                    status.error = Some(trouble.clone());
                    status.wait_until = until;
                }
                if lost {
                    self.tell(News::Lost(trouble)).await;
                }
            }
            ErrorKind::Login => {
                let first = !self.lockout.refused();
                self.lockout.handle_failure(self.clock.now());
                self.answered(Some(trouble.clone())).await;
                if first {
                    self.tell(News::Login(trouble)).await;
                }
            }
            ErrorKind::Certificate => {
                self.answered(Some(trouble.clone())).await;
                if self.stopped.replace(error.clone()).is_none() {
                    self.tell(News::Certificate(trouble)).await;
                }
            }
            _ => self.answered(Some(trouble)).await,
        }
    }

    /// It answered, well or with a refusal.
    async fn answered(&mut self, trouble: Option<Trouble>) {
        let back = self.breaker.handle_answer();
        {
            let mut status = lock(&self.status);
            status.last_seen = Some(now());
            status.wait_until = None;
            status.failures = if trouble.is_some() { status.failures.saturating_add(1) } else { 0 };
            status.error = trouble;
        }
        if back {
            // It was restarted, perhaps.
            self.next_subscribe = self.next_subscribe.map(|_| Instant::now());
            self.next_health = Instant::now();
            self.tell(News::Back).await;
        }
        self.pin().await;
    }

    /// The certificate of the first answer is the one that counts from then on.
    async fn pin(&mut self) {
        let shown = |of: &Option<Shown>| of.as_ref().and_then(|shown| shown());
        if self.target.certificate.is_none()
            && let Some(shown) = shown(&self.made.certificate)
        {
            self.target.certificate = Some(shown.clone());
            self.tell(News::Pinned(shown)).await;
        }
        if self.target.host_key.is_none()
            && let Some(shown) = shown(&self.made.host_key)
        {
            self.target.host_key = Some(shown.clone());
            self.tell(News::HostKey(shown)).await;
        }
    }

    async fn power_read(&mut self, power: PowerState) {
        lock(&self.status).power = Some(power);
        if let Some(on) = self.drift.handle_reading(self.clock.now(), power_of(power)) {
            self.tell(News::Drift(on)).await;
        }
    }

    /// Tells what is known where it changed, or where that was told long ago.
    async fn settle(&mut self) {
        let status = lock(&self.status).clone();
        let now = self.clock.now();
        let old = self.told.as_ref().is_none_or(|(at, told)| {
            now.since(*at) > STORE_EVERY
                || (told.power, &told.error, told.wait_until.is_some())
                    != (status.power, &status.error, status.wait_until.is_some())
        });
        if old {
            self.told = Some((now, status.clone()));
            self.tell(News::Status(status)).await;
        }
    }

    async fn tell(&self, news: News) {
        let told = Told { node: self.target.node, address: self.target.address.clone(), news };
        // Nobody listens any more: the server stops.
        drop(self.news.send(told).await);
    }
}
