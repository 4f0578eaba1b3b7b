//! Every bound of the DHCP server, with the reason for its number.

use std::time::Duration;

/// How long an address is held for a client that was offered it: RFC 2131 figure 3 lets a client wait 10 s and more
/// for offers, and firmware shows them in a menu.
pub const OFFER_HOLD: Duration = Duration::from_secs(60);
/// How long a declined address rests: somebody uses it who did not ask us.
pub const DECLINE_REST: Duration = Duration::from_secs(60 * 60);
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
