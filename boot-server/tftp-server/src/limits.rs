//! Every bound of this crate, with the reason for its number.

use std::time::Duration;

/// Block size without a `blksize` option, in octets (RFC 1350 section 2).
pub const BLOCK_DEFAULT: u16 = 512;
/// Smallest block size that RFC 2348 allows, in octets. A client that asks for less gets the option ignored.
pub const BLOCK_MIN: u16 = 8;
/// Largest block size granted, in octets: Ethernet's 1,500 less the headers of IPv4 (20), UDP (8) and TFTP (4).
/// Larger blocks would be sent as IP fragments, which many boot ROMs cannot put together.
pub const BLOCK_MAX: u16 = 1468;
/// Most blocks sent ahead of an acknowledgement (RFC 7440 section 3 names 65,535). 64 blocks of [`BLOCK_MAX`] are
/// 92 KiB, the most one session can have in the kernel's send queue, and gain nothing more on a LAN.
pub const WINDOW_MAX: u16 = 64;
/// First wait for an acknowledgement: long against a LAN, short against a person's patience.
pub const RTO_MIN: Duration = Duration::from_millis(250);
/// Longest wait for an acknowledgement where the client named none: firmware itself gives up after some 4 s.
pub const RTO_MAX: Duration = Duration::from_secs(4);
/// Times that the same packet is sent again before the client counts as gone; with [`RTO_MIN`] doubling up to
/// [`RTO_MAX`] that is about 24 s of silence.
pub const RETRIES_MAX: u32 = 8;
/// A transfer that takes longer than this ends, however lively its client: 64 MiB at 64 KiB/s.
pub const TRANSFER_MAX: Duration = Duration::from_secs(17 * 60);
/// Largest request taken, in octets. RFC 2347 section 2 allows 512; some firmware sends more options than fit.
pub const REQUEST_MAX: usize = 1500;
/// Longest file name, in octets.
pub const NAME_MAX: usize = 255;
/// Transfers at one time. A session costs less than 8 KiB of its own and at most 147 KiB of kernel buffers.
pub const SESSIONS_MAX: usize = 4096;
/// Transfers at one time for one IP address: firmware opens one, a boot loader up to four.
pub const SESSIONS_PER_ADDRESS_MAX: usize = 16;
/// Longest text of an ERROR packet that is logged, in characters.
pub const ERROR_TEXT_MAX: usize = 128;
