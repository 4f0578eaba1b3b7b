//! What the driver takes from a controller at most, and why so much.

use std::time::Duration;

/// Whole time of one call of the trait: 2 s less than [`crate::CALL_MAX`], so that an error is told in time.
pub(super) const CALL: Duration = Duration::from_secs(28);
/// Connecting by TCP: three SYNs (RFC 6298: 1 s, 2 s, 4 s).
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// The TLS handshake: slow controllers need 2 to 4 s for RSA.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);
/// Ending a session: nobody waits for it.
pub(super) const LOGOUT: Duration = Duration::from_secs(5);
/// Body of an answer: an expanded log of 4,096 lines has 1 KiB to 2 KiB each.
pub(super) const BODY: usize = 8 << 20;
/// Head of an answer: hyper's buffer; the longest heads in the field have 2 KiB.
pub(super) const HEAD: usize = 64 << 10;
/// Nesting of JSON; the deepest schema has 9 levels (DSP8010), an expanded one twice that.
pub(super) const DEPTH: usize = 32;
/// Objects in one answer: one takes up to 600 octets in memory, so 8 MiB of `{"a":0},` would take 600 MiB.
pub(super) const OBJECTS: usize = 40_000;
/// Values in one answer: 32 octets each at least.
pub(super) const VALUES: usize = 400_000;
/// A link; DSP0266 has none longer than 255, queries come on top.
pub(super) const LINK: usize = 2048;
/// Redirects in a row: `/redfish/v1` to `/redfish/v1/` is one.
pub(super) const REDIRECTS: usize = 3;
/// Pages of one collection.
pub(super) const PAGES: usize = 128;
/// Members of a collection other than a log: a machine has at most some hundred sensors, and 100 drives.
pub(super) const MEMBERS: usize = 1024;
/// Chassis of one machine.
pub(super) const CHASSIS: usize = 16;
/// Lines of a log that are fetched one by one in a call, where the controller gives links only.
pub(super) const SINGLE_LINES: usize = 200;
/// Connections at a time; small controllers have 4 to 8 server threads.
pub(super) const CONNECTIONS: usize = 2;
/// A text of the controller that goes into an error or a log line, in characters.
pub(super) const WORDS: usize = 400;
/// Sending a firmware image of 1 GiB at 1 MiB/s takes 17 minutes.
pub(super) const UPLOAD: Duration = Duration::from_secs(3600);
/// The firmware image.
pub(super) const IMAGE: u64 = 4 << 30;
/// Between two looks at a task that a call waits for.
pub(super) const TASK_POLL: Duration = Duration::from_secs(1);
/// After a refused login nobody else of the same call tries: each try counts for the controller's lock-out.
pub(super) const LOGIN_PAUSE: Duration = Duration::from_secs(2);
