//! Every bound of the DHCP server, with the reason for its number.

use std::time::Duration;

/// How long an address is held for a client that was offered it: RFC 2131 figure 3 lets a client wait 10 s and more
/// for offers, and firmware shows them in a menu.
pub const OFFER_HOLD: Duration = Duration::from_secs(60);
/// The same for strangers while addresses are short: a client that means it asks within seconds of the offer (RFC 2131
/// section 4.1: the first repetition comes after 4 s), and the pool recovers soon after a flood.
pub const OFFER_HOLD_SHORT: Duration = Duration::from_secs(10);
/// Addresses are short where less than this share (a quarter) of the pool is left.
pub const SHORT_SHARE: u64 = 4;
/// Known machines that have no address now have this share (an eighth) of the pool to themselves at most...
pub const KEPT_SHARE: u64 = 8;
/// ...and no more addresses than this: a hall's machines that are switched on again at once.
pub const KEPT_MAX: u64 = 256;
/// How long a declined address rests at first: somebody uses it who did not ask us. Doubled each time.
pub const DECLINE_REST: Duration = Duration::from_secs(60 * 60);
/// How long it rests at most.
pub const DECLINE_REST_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// No more than this share (a quarter) of a pool rests: a client that declines everything must not take it all away.
pub const RESTING_SHARE: u64 = 4;
/// How long it is believed that nobody uses an address because nobody answered a probe.
pub const PROOF_LASTS: Duration = Duration::from_secs(10 * 60);
/// Shortest lease that may be configured: firmware takes a minute from ACK to its next stage.
pub const LEASE_MIN: Duration = Duration::from_secs(120);
/// Longest lease that may be configured.
pub const LEASE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Addresses in all pools of one subnet: a /12, more than one site's machines.
pub const POOL_MAX: u64 = 1 << 20;
/// Smallest reply, in octets: the BOOTP minimum (RFC 1542 section 2.1), which old ROMs and relays insist on.
pub const REPLY_MIN: usize = 300;
/// Largest packet taken, in octets: what fits an Ethernet frame, jumbo frames included.
pub const PACKET_MAX: usize = 9000;
/// Longest client identifier kept, in octets; a longer one is cut, as option 61 has at most 255.
pub const CLIENT_ID_MAX: usize = 255;
/// Longest text (vendor class, host name) kept for people to read, in octets.
pub const TEXT_MAX: usize = 64;
/// Longest message that every client takes, in octets of UDP payload: RFC 2131 section 2 asks for 576 octets of IP
/// datagram, less 28 of headers.
pub const MESSAGE_MAX: usize = 548;
/// Longest message that a client is believed to take, whatever its option 57 says: what fits an Ethernet frame.
pub const MESSAGE_LONGEST: usize = 1472;
/// Most subnets; one per rack row of a large site.
pub const SUBNETS_MAX: usize = 1024;
/// Most reservations of all subnets.
pub const RESERVATIONS_MAX: usize = 100_000;
