//! Every bound of the DHCPv6 server, with the reason for its number.

pub use crate::dhcp::limits::{DECLINE_REST, LEASE_MAX, LEASE_MIN};

/// Leases kept at once. Ranges of IPv6 are larger than any table; this is more than one site's machines, some 20 MiB.
pub const LEASES_MAX: usize = 1 << 16;
/// Relays that a request may come through: `HOP_COUNT_LIMIT` of RFC 3315, of which RFC 8415 needs 8.
pub const RELAYS_MAX: usize = 32;
/// Associations answered in one message: a machine asks for one per port.
pub const IAS_MAX: usize = 8;
/// Addresses looked at in one association.
pub const ADDRESSES_MAX: usize = 8;
/// Longest DHCP unique identifier, in octets (RFC 8415 section 11.1: 128 after the type).
pub const DUID_MAX: usize = 130;
/// Places tried for a fresh address before the table is searched: a range that is nearly full.
pub const PROBES_MAX: u64 = 256;
/// Largest packet taken, in octets: what fits an Ethernet frame, jumbo frames included.
pub const PACKET_MAX: usize = 9000;
