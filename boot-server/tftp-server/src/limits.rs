//! Every bound of this crate, with the reason for its number.

use std::time::Duration;

/// Block size without a `blksize` option, in octets (RFC 1350 section 2).
pub const BLOCK_DEFAULT: u16 = 512;
/// Smallest block size that RFC 2348 allows, in octets. A client that asks for less gets the option ignored.
pub const BLOCK_MIN: u16 = 8;
/// Largest block size granted, in octets: Ethernet's 1,500 less the headers of IPv4 (20), UDP (8) and TFTP (4).
/// Larger blocks would be sent as IP fragments, which many boot ROMs cannot put together.
pub const BLOCK_MAX: u16 = 1468;
/// Octets before a block of data in its packet: opcode and block number.
pub const HEADER: usize = 4;
/// Most blocks sent ahead of an acknowledgement (RFC 7440 section 3 names 65,535): 92 KiB of [`BLOCK_MAX`], more gains
/// nothing on a LAN and more than fits a ROM's receive ring is lost.
pub const WINDOW_MAX: u16 = 64;
/// Most packets handed to the kernel at once. It cuts them apart itself (`UDP_SEGMENT`, at most 64), and until they left
/// they count as the session's memory.
pub const BURST_PACKETS: usize = 32;
/// Octets of the largest burst.
pub const BURST_OCTETS: usize = BURST_PACKETS * (BLOCK_MAX as usize + HEADER);
/// First wait for an acknowledgement: long against a LAN, short against a person's patience.
pub const RTO_FIRST: Duration = Duration::from_millis(250);
/// Shortest wait for an acknowledgement, however quick the client answered so far: a client that writes what it got to
/// a slow memory pauses for some milliseconds. A packet sent in vain costs little, since doubled ACKs are ignored.
pub const RTO_MIN: Duration = Duration::from_millis(30);
/// Longest wait for an acknowledgement where the client named none: firmware itself gives up after some 4 s.
pub const RTO_MAX: Duration = Duration::from_secs(4);
/// A client that acknowledged nothing for so long is gone: longer than the longest time-out of firmware that was seen.
pub const SILENCE_MAX: Duration = Duration::from_secs(23);
/// Times that a packet is sent again at least before the client counts as gone, whatever `timeout` it asked for.
pub const RETRIES_MIN: u32 = 3;
/// The same request again within this time from a client that was already answered and has acknowledged something is a
/// datagram that the network doubled; after it, a client that began anew.
pub const DOUBLED_MAX: Duration = Duration::from_secs(1);
/// Time for a file to be opened or made. Firmware asks again after 1 to 4 s.
pub const OPEN_MAX: Duration = Duration::from_secs(10);
/// Pause after an error of a socket that may pass.
pub const ERROR_PAUSE: Duration = Duration::from_millis(250);
/// A transfer that takes longer than this ends, however lively its client: 64 MiB at 64 KiB/s.
pub const TRANSFER_MAX: Duration = Duration::from_secs(17 * 60);
/// Largest request taken, in octets. RFC 2347 section 2 allows 512; some firmware sends more options than fit.
pub const REQUEST_MAX: usize = 1500;
/// Longest file name, in octets.
pub const NAME_MAX: usize = 255;
/// Largest packet of a running transfer that is looked at, in octets: an ACK has 4, the text of an ERROR is cut.
pub const REPLY_MAX: usize = ERROR_TEXT_MAX + 4;
/// Memory of one session, in octets: its own, its socket, and what the kernel holds for the socket. It is the sum of
/// twice [`SEND_BUFFER`] (the kernel doubles what is asked for), one burst beyond that (the kernel looks before it takes
/// one, not after; it needs up to 66 KiB for it), twice [`RECEIVE_BUFFER`], and some 6 KiB for task and socket.
pub const SESSION_MEMORY_MAX: usize = 128 << 10;
/// Send buffer of a session's socket, in octets.
pub const SEND_BUFFER: usize = 16 << 10;
/// Receive buffer of a session's socket, in octets: some twenty ACKs, of which only one can be of use.
pub const RECEIVE_BUFFER: usize = 8 << 10;
/// Receive buffer of the socket that takes requests, in octets: a request costs the kernel 768, and some thousand
/// machines that get power at the same moment ask at the same moment.
pub const LISTEN_BUFFER: usize = 4 << 20;
/// Transfers at one time, with [`SESSION_MEMORY_MAX`] for each at most.
pub const SESSIONS_MAX: usize = 4096;
/// Transfers at one time for one IP address: firmware opens one, a boot loader up to four.
pub const SESSIONS_PER_ADDRESS_MAX: usize = 16;
/// Longest text of an ERROR packet that is logged, in characters.
pub const ERROR_TEXT_MAX: usize = 128;

/// Packets of one client that are taken in a row: more than a window's acknowledgements; a flood must not keep the others
/// waiting.
pub(crate) const DRAIN_MAX: usize = 64;
