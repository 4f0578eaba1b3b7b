//! Limits of IPMI, with the reason for each number.

use std::time::Duration;

/// UDP port of RMCP (section 13.1.2).
pub const PORT: u16 = 623;
/// Longest datagram that is taken: a message has at most 255 octets of data, a SOL packet 64 KiB by its length field but
/// no more than an Ethernet frame in practice.
pub const DATAGRAM_MAX: usize = 1500;
/// Longest user name (section 22.28).
pub const USER_MAX: usize = 16;
/// Longest password of IPMI 2.0 (section 22.30).
pub const PASSWORD_MAX: usize = 20;
/// Longest K_g (section 13.33).
pub const KG_MAX: usize = 20;
/// When a request is sent again, and after the last of them given up: 7.5 s. A lost datagram costs half a second, and a
/// controller that thinks for seconds is not flooded.
pub const RETRANSMIT: &[Duration] = &[ms(500), ms(1000), ms(2000), ms(2000), ms(2000)];
/// The same where a missing answer has another meaning than a dead controller: a command or suite that it does not know.
pub const RETRANSMIT_OPTIONAL: &[Duration] = &[ms(400), ms(600)];
/// The same for a change of power, which is not to be carried out twice where it can be helped.
pub const RETRANSMIT_CHANGE: &[Duration] = &[ms(2500), ms(2500), ms(2500)];
/// Pieces of 16 octets of the list of cipher suites (section 22.15.1: indices 0 to 3Fh).
pub const SUITE_PIECES_MAX: u8 = 64;
/// A session without traffic ends after 60 s ± 3 s (section 6.12.15); one that was quiet for this long is opened anew.
pub const SESSION_IDLE: Duration = Duration::from_secs(45);
/// Between two signs of life on a session that carries a console.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Tries of a command that the controller is too busy for, and the pause before each.
pub const BUSY_TRIES: u32 = 5;
/// Pause before a command is tried again.
pub const BUSY_PAUSE: Duration = Duration::from_millis(300);
/// Records of the SDR repository: the largest machines have some hundreds.
pub const SDR_MAX: usize = 2048;
/// Octets of a FRU device that are read: its offsets are in units of 8 octets in one octet, and areas as long.
pub const FRU_MAX: usize = 4096;
/// Fields of one FRU area.
pub const FRU_FIELDS_MAX: usize = 32;
/// How often a reservation that was cancelled is made anew within one call.
pub const RESERVATIONS_MAX: u32 = 8;
/// Users of a channel (section 22.26: six bits).
pub const USERS_MAX: u8 = 63;
/// Time that reading the event log may take before what was read so far is returned.
pub const LOG_TIME: Duration = Duration::from_secs(24);
/// Octets typed on a console that wait to be sent.
pub const SOL_QUEUE_MAX: usize = 4096;
/// Longest piece that is sent on a console, whatever the controller allows.
pub const SOL_PIECE_MAX: usize = 200;
/// Time to an acknowledgement of console data, and tries (section 15.10: defaults are 100 ms and 7).
pub const SOL_RETRY: Duration = Duration::from_millis(500);
/// Tries of one piece of console data.
pub const SOL_TRIES: u32 = 8;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
