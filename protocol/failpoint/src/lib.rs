//! Crate `failpoint`: named places in our programs where a test lets them die, fail or wait, and a clock that a test sets wrong.
//!
//! A debug build reads `BILLET_FAILPOINTS` when it comes to the first of them; a release has none of it ([`hit`] is an empty function
//! that the compiler removes), unless it is built with the feature `on`. Points are a closed enum, so that a test can walk all.
//!
//! ```text
//! BILLET_FAILPOINTS="store.commit.after=kill@3;agent.chunk.write=eio@2+;journal.append=wait:50;clock=+3600000/2000"
//!                    └ at the third time, die   └ from the second on    └ each time, 50 ms      └ 2 s after start an hour forward
//! ```

mod point;
mod setting;

pub use point::Point;
pub use setting::{Action, Setting, Settings, Times};

/// Name of the variable.
pub const VARIABLE: &str = "BILLET_FAILPOINTS";

/// True where this build looks at [`VARIABLE`].
pub const COMPILED_IN: bool = cfg!(any(debug_assertions, feature = "on"));

/// The program is at this place: it dies, waits, or is told to fail as a system call would.
///
/// # Errors
/// What the test wants.
#[inline]
pub fn hit(point: Point) -> std::io::Result<()> {
    if COMPILED_IN { live::hit(point) } else { Ok(()) }
}

/// As [`hit`], where nothing can fail: an error that is asked for is none.
#[inline]
pub fn pass(point: Point) {
    // What cannot fail there is asked for by mistake, and the test that does it sees that nothing happened.
    drop(hit(point));
}

/// How wrong the clock is to be now, in milliseconds.
#[inline]
pub fn skew_ms() -> i64 {
    if COMPILED_IN { live::skew_ms() } else { 0 }
}

/// What is set, for a line in the log; `None` where nothing is.
pub fn active() -> Option<String> {
    if COMPILED_IN { live::active() } else { None }
}

mod live {
    use std::io;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use super::{Action, Point, Settings, VARIABLE};

    struct Live {
        settings: Settings,
        begun: Instant,
        counts: Vec<AtomicU64>,
    }

    fn live() -> Option<&'static Live> {
        static LIVE: OnceLock<Option<Live>> = OnceLock::new();
        LIVE.get_or_init(|| {
            let text = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty())?;
            let settings = match Settings::parse(&text) {
                Ok(settings) => settings,
                Err(why) => {
                    // A test that set nothing would prove nothing.
                    eprintln!("{VARIABLE}: {why}");
                    std::process::exit(2);
                }
            };
            let counts = Point::ALL.iter().map(|_| AtomicU64::new(0)).collect();
            Some(Live { settings, begun: Instant::now(), counts })
        })
        .as_ref()
    }

    pub(super) fn hit(point: Point) -> io::Result<()> {
        let Some(live) = live() else { return Ok(()) };
        let Some(setting) = live.settings.of(point) else { return Ok(()) };
        let time = live.counts[point as usize].fetch_add(1, Ordering::SeqCst) + 1;
        if !setting.times.contains(time) {
            return Ok(());
        }
        match setting.action {
            Action::Kill => {
                eprintln!("failpoint {}: dies", point.name());
                std::process::abort();
            }
            Action::Error(number) => {
                eprintln!("failpoint {}: error {number}", point.name());
                Err(io::Error::from_raw_os_error(number))
            }
            Action::Wait(time) => {
                std::thread::sleep(time);
                Ok(())
            }
        }
    }

    pub(super) fn skew_ms() -> i64 {
        let Some(live) = live() else { return 0 };
        let (skew, after) = live.settings.clock;
        if live.begun.elapsed() >= after { skew } else { 0 }
    }

    pub(super) fn active() -> Option<String> {
        live().and_then(|_| std::env::var(VARIABLE).ok())
    }
}
