//! Workers against a controller in memory, on tokio's paused time.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use async_trait::async_trait;
use bmc::{
    BiosAttributes, Bmc, BootDevice, BootOverride, FirmwareItem, PowerAction, Repeat, Secret, Task,
    TaskState, Update,
};
use uuid::Uuid;

use super::*;
use crate::engine::lock;

/// A controller in memory, with faults.
#[derive(Default)]
pub(crate) struct Fake {
    pub state: Mutex<State>,
    pub calls: AtomicU32,
    pub closed: AtomicU32,
}

#[derive(Default)]
pub(crate) struct State {
    pub on: bool,
    pub boot: Option<BootOverride>,
    pub log: Vec<String>,
    /// Calls that never end.
    pub hangs: bool,
    /// Calls that are refused at once, as many as this.
    pub unreachable: u32,
    pub wrong_login: bool,
    pub other_certificate: bool,
    /// Accepts power commands and boot devices, and does nothing.
    pub lies: bool,
    /// Keeps a boot device for ever, also one that was for one start.
    pub holds: bool,
    /// The answer to the next change is lost after it was done.
    pub loses_answer: bool,
    pub slow: Duration,
    /// It has sensors, and sends events.
    pub events: bool,
    /// BIOS attributes in force, and those of the next start.
    pub bios: BiosAttributes,
    pub next_bios: BiosAttributes,
    /// The version of its BIOS, and what an update makes of it once its task is over.
    pub version: String,
    pub next_version: String,
    /// Its tasks: looks that each still takes.
    pub tasks: BTreeMap<String, u32>,
    /// The answer to an update is lost after it was begun.
    pub loses_update: bool,
    /// Tasks fail.
    pub bad_image: bool,
    /// Updates that were begun.
    pub updates: u32,
    /// What is in the virtual drive.
    pub media: Option<String>,
    /// There is none.
    pub no_drive: bool,
}

impl Fake {
    async fn enter(&self, what: &str) -> Result<(), BmcError> {
        self.calls.fetch_add(1, Relaxed);
        let (hangs, slow) = {
            let mut state = lock(&self.state);
            state.log.push(what.to_owned());
            (state.hangs, state.slow)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(slow).await;
        let mut state = lock(&self.state);
        if state.unreachable > 0 {
            state.unreachable -= 1;
            return Err(BmcError::Unreachable { what: what.to_owned() });
        }
        if state.other_certificate {
            return Err(BmcError::Certificate { found: "b".repeat(64), pinned: "a".repeat(64) });
        }
        if state.wrong_login { Err(BmcError::Login) } else { Ok(()) }
    }

    fn changed(&self) -> Result<(), BmcError> {
        if std::mem::take(&mut lock(&self.state).loses_answer) {
            return Err(BmcError::Unreachable { what: "the answer".to_owned() });
        }
        Ok(())
    }
}

/// The driver: several may be made for one controller, as for a real one.
pub(crate) struct Driver(pub Arc<Fake>);

#[async_trait]
impl Bmc for Driver {
    fn kind(&self) -> DriverKind {
        DriverKind::Fake
    }

    async fn media(&self) -> Result<bmc::Media, BmcError> {
        self.0.enter("media?").await?;
        let state = lock(&self.0.state);
        match state.no_drive {
            true => Err(self.unsupported("virtual media")),
            false => Ok(bmc::Media { image: state.media.clone() }),
        }
    }

    async fn insert_media(&self, url: &str) -> Result<(), BmcError> {
        self.0.enter("insert").await?;
        {
            let mut state = lock(&self.0.state);
            if state.no_drive {
                return Err(self.unsupported("virtual media"));
            }
            if !state.lies {
                state.media = Some(url.to_owned());
            }
        }
        self.0.changed()
    }

    async fn eject_media(&self) -> Result<(), BmcError> {
        self.0.enter("eject").await?;
        lock(&self.0.state).media = None;
        self.0.changed()
    }

    async fn power_state(&self) -> Result<PowerState, BmcError> {
        self.0.enter("power?").await?;
        Ok(if lock(&self.0.state).on { PowerState::On } else { PowerState::Off })
    }

    async fn power(&self, action: PowerAction) -> Result<(), BmcError> {
        self.0.enter(action.as_str()).await?;
        let mut state = lock(&self.0.state);
        if !state.lies {
            state.on = !matches!(action, PowerAction::ForceOff | PowerAction::SoftOff);
            if state.on {
                let next = std::mem::take(&mut state.next_bios);
                state.bios.0.extend(next.0);
            }
        }
        drop(state);
        self.0.changed()
    }

    async fn boot_override(&self) -> Result<BootOverride, BmcError> {
        self.0.enter("boot?").await?;
        let none =
            BootOverride { device: BootDevice::None, repeat: Repeat::Once, mode: None, http_uri: None };
        Ok(lock(&self.0.state).boot.clone().unwrap_or(none))
    }

    async fn set_boot_override(&self, wanted: &BootOverride) -> Result<(), BmcError> {
        self.0.enter("boot!").await?;
        let mut state = lock(&self.0.state);
        if !state.lies {
            let repeat = if state.holds { Repeat::Always } else { wanted.repeat };
            state.boot = Some(BootOverride { repeat, ..wanted.clone() });
        }
        drop(state);
        self.0.changed()
    }

    async fn reset_bmc(&self) -> Result<(), BmcError> {
        self.0.enter("reset bmc").await
    }

    async fn change_password(&self, _: &Secret) -> Result<(), BmcError> {
        self.0.enter("password").await?;
        self.0.changed()
    }

    async fn console(&self) -> Result<Box<dyn Console>, BmcError> {
        self.0.enter("console").await?;
        Ok(Box::new(tokio::io::duplex(64).0))
    }

    async fn readings(&self) -> Result<Vec<Reading>, BmcError> {
        if !lock(&self.0.state).events {
            return Err(self.unsupported("sensors"));
        }
        self.0.enter("sensors?").await?;
        Ok(Vec::new())
    }

    async fn subscribe(&self, destination: &str, context: &str) -> Result<String, BmcError> {
        if !lock(&self.0.state).events {
            return Err(self.unsupported("subscriptions to events"));
        }
        self.0.enter(&format!("subscribe {destination} {context}")).await?;
        Ok("subscription 1".to_owned())
    }

    async fn unsubscribe(&self, subscription: &str) -> Result<(), BmcError> {
        self.0.enter(&format!("end {subscription}")).await
    }

    async fn firmware(&self) -> Result<Vec<FirmwareItem>, BmcError> {
        self.0.enter("firmware?").await?;
        let version = Some(lock(&self.0.state).version.clone());
        Ok(vec![FirmwareItem { id: "/f/BIOS".into(), name: "BIOS".into(), version, updateable: true }])
    }

    async fn update(&self, _: &Update) -> Result<Task, BmcError> {
        self.0.enter("update").await?;
        let mut state = lock(&self.0.state);
        state.updates += 1;
        let id = format!("/t/{}", state.updates);
        state.tasks.insert(id.clone(), 2);
        if std::mem::take(&mut state.loses_update) {
            return Err(BmcError::TimedOut { what: "the update".into(), after: Duration::from_secs(30) });
        }
        Ok(Task { id, state: TaskState::Running, percent: None, message: None })
    }

    async fn task(&self, id: &str) -> Result<Task, BmcError> {
        self.0.enter("task?").await?;
        let mut state = lock(&self.0.state);
        let bad = state.bad_image;
        let looks = state.tasks.get_mut(id).ok_or_else(|| BmcError::Gone { what: id.to_owned() })?;
        let over = *looks == 0;
        *looks = looks.saturating_sub(1);
        if over && !bad {
            state.version = state.next_version.clone();
        }
        let task_state = match (over, bad) {
            (false, _) => TaskState::Running,
            (true, false) => TaskState::Completed,
            (true, true) => TaskState::Failed,
        };
        let message = bad.then(|| "the image is not for this machine".to_owned());
        Ok(Task { id: id.to_owned(), state: task_state, percent: Some(50), message })
    }

    async fn tasks(&self) -> Result<Vec<String>, BmcError> {
        self.0.enter("tasks?").await?;
        Ok(lock(&self.0.state).tasks.keys().cloned().collect())
    }

    async fn bios(&self) -> Result<BiosAttributes, BmcError> {
        self.0.enter("bios?").await?;
        Ok(lock(&self.0.state).bios.clone())
    }

    async fn set_bios(&self, changes: &BiosAttributes) -> Result<(), BmcError> {
        self.0.enter("bios!").await?;
        lock(&self.0.state).next_bios.0.extend(changes.0.clone());
        self.0.changed()
    }

    async fn close(&self) {
        self.0.closed.fetch_add(1, Relaxed);
    }
}

/// Workers over controllers in memory, one per address.
pub(crate) struct Bench {
    pub power: Power,
    pub news: mpsc::Receiver<Told>,
    pub fakes: Arc<Mutex<BTreeMap<String, Arc<Fake>>>>,
}

pub(crate) fn fake_drivers(fakes: Arc<Mutex<BTreeMap<String, Arc<Fake>>>>) -> Drivers {
    Arc::new(move |target: &Target| {
        let fake = lock(&fakes).entry(target.address.clone()).or_default().clone();
        Ok(Made::plain(Driver(fake)))
    })
}

impl Bench {
    fn new() -> Self {
        Self::with(Timing::default())
    }

    fn with(timing: Timing) -> Self {
        let fakes = Arc::<Mutex<BTreeMap<String, Arc<Fake>>>>::default();
        let (sender, news) = mpsc::channel(NEWS_MAX);
        Self { power: Power::new(fake_drivers(fakes.clone()), timing, sender), news, fakes }
    }

    fn add(&self, n: u128) -> (NodeId, Arc<Fake>) {
        let target = target(n);
        let (node, address) = (target.node, target.address.clone());
        self.power.set(target).unwrap();
        (node, lock(&self.fakes)[&address].clone())
    }

    /// News so far, without what is only the state.
    fn told(&mut self) -> Vec<News> {
        let mut told = Vec::new();
        while let Ok(next) = self.news.try_recv() {
            if !matches!(next.news, News::Status(_)) {
                told.push(next.news);
            }
        }
        told
    }
}

pub(crate) fn target(n: u128) -> Target {
    let address = format!("10.0.{}.{}", n / 250, n % 250);
    Target::new(NodeId(Uuid::from_u128(n)), DriverKind::Fake, address)
}

fn log(fake: &Fake) -> Vec<String> {
    std::mem::take(&mut lock(&fake.state).log)
}

fn pxe() -> BootOverride {
    BootOverride { device: BootDevice::Pxe, repeat: Repeat::Once, mode: None, http_uri: None }
}

fn quiet() -> Timing {
    // The first look comes at a random moment of this time: practically never.
    let long = Duration::from_hours(100_000);
    Timing { poll: long, poll_refused: long, health: long, subscription: Duration::from_mins(30) }
}

#[tokio::test(start_paused = true)]
async fn requests_are_taken_in_order_and_equal_reads_together() {
    let bench = Bench::with(quiet());
    let (node, fake) = bench.add(1);
    lock(&fake.state).slow = Duration::from_millis(100);
    let read = || bench.power.power_state(node);
    let on = || bench.power.change(node, Change::Power(PowerAction::On));
    let (a, b, c, d, e) = tokio::join!(read(), read(), on(), read(), read());
    assert_eq!((a.unwrap(), b.unwrap()), (PowerState::Off, PowerState::Off));
    assert!(matches!(c.unwrap(), Reply::Done));
    assert_eq!((d.unwrap(), e.unwrap()), (PowerState::On, PowerState::On), "read after the change");
    assert_eq!(log(&fake), ["power?", "on", "power?"]);
}

#[tokio::test(start_paused = true)]
async fn reads_are_tried_again_and_changes_are_not() {
    let bench = Bench::with(quiet());
    let (node, fake) = bench.add(1);
    lock(&fake.state).unreachable = 2;
    assert_eq!(bench.power.power_state(node).await.unwrap(), PowerState::Off);
    assert_eq!(log(&fake).len(), 3);
    lock(&fake.state).loses_answer = true;
    let reset = bench.power.change(node, Change::Power(PowerAction::Reset)).await;
    assert_eq!(reset.unwrap_err().kind(), Some(ErrorKind::Unreachable), "it may have been done: not again");
    assert_eq!(log(&fake), ["reset"]);
    lock(&fake.state).on = false;
    lock(&fake.state).loses_answer = true;
    bench.power.change(node, Change::Power(PowerAction::On)).await.unwrap();
    assert_eq!(log(&fake), ["on", "power?"], "it was done: the state says so");
    lock(&fake.state).unreachable = 1;
    bench.power.change(node, Change::Power(PowerAction::ForceOff)).await.unwrap();
    assert_eq!(log(&fake), ["force_off", "power?", "force_off"], "it was not done, and twice is as once");
}

#[tokio::test(start_paused = true)]
async fn a_boot_device_that_does_not_show_is_no_success() {
    let bench = Bench::with(quiet());
    let (node, fake) = bench.add(1);
    bench.power.change(node, Change::Boot(pxe())).await.unwrap();
    lock(&fake.state).lies = true;
    let disk = BootOverride { device: BootDevice::Disk, ..pxe() };
    let error = bench.power.change(node, Change::Boot(disk)).await.unwrap_err();
    assert!(matches!(error, PowerError::NotTaken { .. }), "{error}");
    assert_eq!(error.to_string(), "the BMC accepted the boot device disk and shows pxe, once");
    *lock(&fake.state) = State { holds: true, ..State::default() };
    let error = bench.power.change(node, Change::Boot(pxe())).await.unwrap_err();
    assert_eq!(error.problem().code, "bmc-not-once");
    let http = BootOverride { device: BootDevice::Http, ..pxe() };
    lock(&fake.state).boot = Some(BootOverride { repeat: Repeat::Always, ..pxe() });
    lock(&fake.state).lies = true;
    let error = bench.power.change(node, Change::Boot(http)).await.unwrap_err();
    assert!(matches!(&error, PowerError::NotOnce { device } if device == "pxe"), "{error}");
    lock(&fake.state).lies = false;
    let always = BootOverride { repeat: Repeat::Always, ..pxe() };
    bench.power.change(node, Change::Boot(always)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_left_alone_and_found_again() {
    let mut bench = Bench::with(quiet());
    let (node, fake) = bench.add(1);
    lock(&fake.state).unreachable = 1000;
    assert_eq!(bench.power.power_state(node).await.unwrap_err().kind(), Some(ErrorKind::Unreachable));
    assert_eq!(log(&fake).len(), 3);
    let error = bench.power.power_state(node).await.unwrap_err();
    assert!(matches!(error, PowerError::Waits { .. }), "{error}");
    assert_eq!(error.problem().code, "bmc-waits");
    assert!(log(&fake).is_empty(), "nothing was sent");
    assert!(matches!(bench.told().as_slice(), [News::Lost(_)]));
    // It comes back while nobody asks: the worker itself looks, at the latest after five minutes.
    let mut timed = Bench::new();
    let (node, fake) = timed.add(2);
    lock(&fake.state).unreachable = 6;
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!(timed.power.power_state(node).await.unwrap(), PowerState::Off);
    let told = timed.told();
    assert!(matches!(told.as_slice(), [News::Lost(_), News::Back]), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn wrong_logins_stop_before_the_account_is_locked() {
    let mut bench = Bench::new();
    let (node, fake) = bench.add(1);
    lock(&fake.state).wrong_login = true;
    let mut locked = 0;
    for _ in 0..10 {
        let error = bench.power.power_state(node).await.unwrap_err();
        locked += u32::from(matches!(error, PowerError::LockedOut { .. }));
    }
    assert_eq!((log(&fake).len(), locked), (3, 7));
    assert!(matches!(bench.told().as_slice(), [News::Login(_)]), "told once");
    tokio::time::sleep(Duration::from_mins(60)).await;
    let tried = log(&fake).len();
    assert!((6..=36).contains(&tried), "{tried} logins in an hour by itself");
    // New credentials begin anew.
    lock(&fake.state).wrong_login = false;
    bench.power.set(target(1)).unwrap();
    assert_eq!(bench.power.power_state(node).await.unwrap(), PowerState::Off);
    assert_eq!(fake.closed.load(Relaxed), 1, "the old session was ended first");
}

#[tokio::test(start_paused = true)]
async fn another_certificate_stops_the_driver() {
    let mut bench = Bench::new();
    let (node, fake) = bench.add(1);
    lock(&fake.state).other_certificate = true;
    for _ in 0..3 {
        let error = bench.power.power_state(node).await.unwrap_err();
        assert_eq!(error.problem().code, "bmc-certificate");
    }
    tokio::time::sleep(Duration::from_hours(2)).await;
    assert_eq!(log(&fake).len(), 1, "nothing more was sent");
    assert!(matches!(bench.told().as_slice(), [News::Certificate(_)]));
}

#[tokio::test(start_paused = true)]
async fn a_hand_at_the_button_is_noticed_and_our_own_is_not() {
    let mut bench = Bench::new();
    let (node, fake) = bench.add(1);
    bench.power.power_state(node).await.unwrap();
    bench.power.change(node, Change::Power(PowerAction::On)).await.unwrap();
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert!(bench.told().is_empty());
    assert_eq!(bench.power.status(node).unwrap().power, Some(PowerState::On));
    lock(&fake.state).on = false;
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(bench.told(), [News::Drift(false)]);
    assert_eq!(bench.power.status(node).unwrap().power, Some(PowerState::Off), "corrected");
}

#[tokio::test(start_paused = true)]
async fn a_controller_is_restarted_once_an_hour() {
    let mut bench = Bench::with(quiet());
    let (node, fake) = bench.add(1);
    bench.power.change(node, Change::ResetBmc).await.unwrap();
    let error = bench.power.change(node, Change::ResetBmc).await.unwrap_err();
    assert_eq!(error.problem().code, "bmc-reset-limit");
    assert!(matches!(bench.told().as_slice(), [News::Reset(_)]));
    tokio::time::sleep(Duration::from_mins(61)).await;
    bench.power.change(node, Change::ResetBmc).await.unwrap();
    assert_eq!(log(&fake), ["reset bmc", "reset bmc"]);
}

#[tokio::test(start_paused = true)]
async fn a_console_is_opened_in_its_turn_and_sessions_end_with_the_server() {
    let bench = Bench::with(quiet());
    let (node, fake) = bench.add(1);
    let console = bench.power.open_console(node).await.unwrap();
    assert_eq!(bench.power.power_state(node).await.unwrap(), PowerState::Off, "the worker goes on");
    drop(console);
    let nobody = NodeId(Uuid::from_u128(9));
    assert!(matches!(bench.power.power_state(nobody).await, Err(PowerError::NoBmc)));
    lock(&fake.state).hangs = true;
    let hung = tokio::spawn({
        let power = bench.power.clone();
        async move { power.power_state(node).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.power.stop().await;
    assert_eq!(fake.closed.load(Relaxed), 1);
    assert!(matches!(hung.await.unwrap(), Err(PowerError::Gone)), "whoever waited is told");
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_are_refused_by_name() {
    let bench = Bench::with(quiet());
    let (node, fake) = bench.add(1);
    lock(&fake.state).hangs = true;
    let many = futures_util::future::join_all(
        (0..100).map(|n| bench.power.change(node, Change::Identify(n % 2 == 0))),
    );
    let refused = many.await.into_iter().filter(|r| matches!(r, Err(PowerError::Full))).count();
    assert!(refused >= 100 - 2 * MAILBOX_MAX - 1, "{refused}");
}

/// 500 controllers of which 30 % hang: the others answer as if those were not there.
#[tokio::test(start_paused = true)]
async fn hung_controllers_hold_up_nobody() {
    let mut bench = Bench::new();
    let mut healthy = Vec::new();
    for n in 0..500 {
        let (node, fake) = bench.add(n);
        let hangs = n % 10 < 3;
        let mut state = lock(&fake.state);
        (state.hangs, state.slow) = (hangs, Duration::from_millis(50));
        drop(state);
        if !hangs {
            healthy.push(node);
        }
    }
    let power = &bench.power;
    let mut took = Vec::new();
    for round in 0..5 {
        let reads = healthy.iter().map(|node| async move {
            let begun = tokio::time::Instant::now();
            power.power_state(*node).await.unwrap();
            begun.elapsed()
        });
        took.extend(futures_util::future::join_all(reads).await);
        tokio::time::sleep(Duration::from_secs(20 * round)).await;
    }
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    assert!(p99 < Duration::from_secs(2), "{p99:?}");
    let lost = bench.told().iter().filter(|news| matches!(news, News::Lost(_))).count();
    assert!(lost <= 150, "{lost}");
}

/// A controller that sends events, and what it was asked since the last look at that.
fn eventful(bench: &mut Bench, n: u128) -> (NodeId, Arc<Fake>) {
    let target = Target { events: Some("https://b/e".into()), now: true, ..target(n) };
    let fake = lock(&bench.fakes).entry(target.address.clone()).or_default().clone();
    lock(&fake.state).events = true;
    let node = target.node;
    bench.power.set(target).unwrap();
    (node, fake)
}

#[tokio::test(start_paused = true)]
async fn an_event_makes_it_look_but_a_flood_does_not_make_it_run() {
    let mut bench = Bench::with(quiet());
    let (node, fake) = eventful(&mut bench, 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = |what: &str| log(&fake).iter().filter(|line| line.starts_with(what)).count();
    assert_eq!(asked("sensors?"), 1, "what was just named is looked at");
    assert_eq!(bench.power.status(node).unwrap().events, Some(Ok(())));
    bench.power.event(node);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(asked("sensors?"), 1, "at once");
    for _ in 0..2000 {
        bench.power.event(node);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let looks = asked("sensors?");
    assert!((5..=7).contains(&looks), "{looks} looks in 32 s");
    tokio::time::sleep(Duration::from_mins(2)).await;
    log(&fake);
    tokio::time::sleep(Duration::from_mins(60)).await;
    assert_eq!(asked("sensors?"), 0, "it is quiet again");
    bench.power.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_renewed_and_ends_with_its_controller() {
    let timing = Timing { health: Duration::from_mins(10), ..quiet() };
    let mut bench = Bench::with(timing);
    let (node, fake) = eventful(&mut bench, 1);
    tokio::time::sleep(Duration::from_mins(100)).await;
    let lines = log(&fake);
    let subscribed: Vec<_> = lines.iter().filter(|line| line.starts_with("subscribe")).collect();
    assert!((3..=4).contains(&subscribed.len()), "{subscribed:?}");
    assert_eq!(*subscribed[0], format!("subscribe https://b/e billet {node}"));
    bench.power.remove(node);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(log(&fake).contains(&"end subscription 1".to_owned()));
    // Where the server stops it will be back, and the subscription stays.
    let (_, other) = eventful(&mut bench, 2);
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.power.stop().await;
    let lines = log(&other);
    assert!(
        lines.iter().any(|l| l.starts_with("subscribe")) && !lines.iter().any(|l| l.starts_with("end")),
        "{lines:?}"
    );
}

/// A controller that was away was restarted, perhaps, and may have forgotten what it was asked.
#[tokio::test(start_paused = true)]
async fn a_controller_that_is_back_is_asked_for_its_events_again() {
    let mut bench = Bench::with(Timing { subscription: quiet().poll, ..quiet() });
    let (node, fake) = eventful(&mut bench, 1);
    let subscribed = || log(&fake).iter().filter(|line| line.starts_with("subscribe")).count();
    tokio::time::sleep(Duration::from_mins(90)).await;
    assert_eq!(subscribed(), 1);
    lock(&fake.state).unreachable = 3;
    drop(bench.power.power_state(node).await);
    tokio::time::sleep(Duration::from_mins(9)).await;
    assert_eq!(subscribed(), 0);
    assert!(bench.power.power_state(node).await.is_ok());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(subscribed(), 1);
    bench.power.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_without_events_is_polled() {
    let mut bench = Bench::with(Timing { health: Duration::from_mins(10), ..quiet() });
    let (node, fake) = eventful(&mut bench, 1);
    lock(&fake.state).events = false;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let status = bench.power.status(node).unwrap();
    assert!(status.events.unwrap().unwrap_err().contains("subscriptions"), "it is said why");
    assert!(status.error.is_none(), "and is no fault of it");
    bench.power.stop().await;
}
