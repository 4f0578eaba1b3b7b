//! TFTP packets (RFC 1350 section 5, RFC 2347): octets to values and back. Parsing never panics, whatever comes.

use std::borrow::Cow;
use std::fmt;

/// Why octets are not a TFTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Fewer octets than the packet's fixed part has.
    #[error("packet of {0} octets is too short")]
    Short(usize),
    /// An opcode that no RFC implemented here defines.
    #[error("unknown opcode {0}")]
    Opcode(u16),
    /// A string without its terminating zero octet.
    #[error("unterminated string")]
    Unterminated,
    /// A transfer mode that is neither `octet` nor `netascii` (`mail` is obsolete, RFC 1350 section 1).
    #[error("unknown transfer mode")]
    Mode,
}

/// How the file's octets cross the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As they are.
    Octet,
    /// As lines of text that end in CR LF (RFC 764).
    Netascii,
}

/// The options of a request, as far as they are known here and their values are numbers. Unknown options and
/// nonsense are dropped, as RFC 2347 section 2 wants; values are clamped when the transfer starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestOptions {
    /// Octets per block asked for (RFC 2348).
    pub blksize: Option<u64>,
    /// Seconds until a retransmission (RFC 2349).
    pub timeout: Option<u64>,
    /// The size of the file is asked for (RFC 2349); the value sent is 0 in a read request.
    pub tsize: Option<u64>,
    /// Blocks per acknowledgement asked for (RFC 7440).
    pub windowsize: Option<u64>,
}

/// A read or write request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// File name as sent; see [`normalise`](crate::normalise). Octets that are not UTF-8 are replaced.
    pub name: Cow<'a, str>,
    /// Transfer mode.
    pub mode: Mode,
    /// Options.
    pub options: RequestOptions,
}

/// One packet from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Read request.
    Rrq(Request<'a>),
    /// Write request.
    Wrq(Request<'a>),
    /// A block of data.
    Data {
        /// Block number, counting from 1 and wrapping to 0.
        block: u16,
        /// Its octets.
        data: &'a [u8],
    },
    /// Acknowledgement.
    Ack {
        /// Last block that arrived in order.
        block: u16,
    },
    /// The other side gave up.
    Error {
        /// Why.
        code: ErrorCode,
        /// In its words; octets that are not UTF-8 are replaced.
        message: Cow<'a, str>,
    },
    /// Option acknowledgement (RFC 2347 section 3).
    Oack(RequestOptions),
}

/// The error codes of RFC 1350 appendix I and RFC 2347.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// Not defined, see the message.
    pub const UNDEFINED: Self = Self(0);
    /// File not found.
    pub const NOT_FOUND: Self = Self(1);
    /// Access violation.
    pub const ACCESS: Self = Self(2);
    /// Illegal TFTP operation.
    pub const ILLEGAL: Self = Self(4);
    /// Terminated by option negotiation; also what firmware sends when it only wanted the size.
    pub const OPTION: Self = Self(8);
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

impl<'a> Packet<'a> {
    /// Reads one datagram.
    ///
    /// # Errors
    /// [`ParseError`] where the octets are no packet of RFC 1350 or RFC 2347.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let short = ParseError::Short(bytes.len());
        let (opcode, rest) = split_u16(bytes).ok_or(short)?;
        match opcode {
            RRQ => Request::parse(rest).map(Packet::Rrq),
            WRQ => Request::parse(rest).map(Packet::Wrq),
            DATA => split_u16(rest).map(|(block, data)| Packet::Data { block, data }).ok_or(short),
            ACK => split_u16(rest).map(|(block, _)| Packet::Ack { block }).ok_or(short),
            ERROR => {
                let (code, text) = split_u16(rest).ok_or(short)?;
                // Firmware leaves the terminating zero away often enough; the text is only logged.
                let text = text.split(|b| *b == 0).next().unwrap_or_default();
                Ok(Packet::Error { code: ErrorCode(code), message: String::from_utf8_lossy(text) })
            }
            OACK => RequestOptions::parse(rest).map(Packet::Oack),
            other => Err(ParseError::Opcode(other)),
        }
    }
}

impl<'a> Request<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (name, rest) = split_string(bytes)?;
        let (mode, rest) = split_string(rest)?;
        let mode = if mode.eq_ignore_ascii_case(b"octet") {
            Mode::Octet
        } else if mode.eq_ignore_ascii_case(b"netascii") {
            Mode::Netascii
        } else {
            return Err(ParseError::Mode);
        };
        Ok(Self { name: String::from_utf8_lossy(name), mode, options: RequestOptions::parse(rest)? })
    }
}

impl Request<'_> {
    /// The same, in memory of its own.
    pub fn into_owned(self) -> Request<'static> {
        Request { name: self.name.into_owned().into(), mode: self.mode, options: self.options }
    }
}

impl RequestOptions {
    fn parse(mut bytes: &[u8]) -> Result<Self, ParseError> {
        let mut options = Self::default();
        while !bytes.is_empty() {
            let (name, rest) = split_string(bytes)?;
            if name.is_empty() {
                // Padding: some ROMs fill the request up with zeros.
                bytes = rest;
                continue;
            }
            let (value, rest) = split_string(rest)?;
            bytes = rest;
            let Some(field) = options.field_mut(name) else { continue };
            // RFC 2347 section 2: an option occurs once; the first one counts.
            if field.is_none() {
                *field = number(value);
            }
        }
        Ok(options)
    }

    /// Names are compared without regard to case (RFC 2347 section 2).
    fn field_mut(&mut self, name: &[u8]) -> Option<&mut Option<u64>> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("blksize") {
            Some(&mut self.blksize)
        } else if is("timeout") {
            Some(&mut self.timeout)
        } else if is("tsize") {
            Some(&mut self.tsize)
        } else if is("windowsize") {
            Some(&mut self.windowsize)
        } else {
            None
        }
    }

    /// True where no option is present, so that no OACK is due (RFC 2347 section 3).
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let fields = [
            ("blksize", self.blksize),
            ("timeout", self.timeout),
            ("tsize", self.tsize),
            ("windowsize", self.windowsize),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                put_string(out, name);
                put_string(out, &value.to_string());
            }
        }
    }
}

/// Replaces `out` with an RRQ; what a client sends.
pub fn emit_rrq(out: &mut Vec<u8>, name: &str, mode: Mode, options: &RequestOptions) {
    start(out, RRQ);
    put_string(out, name);
    put_string(out, if mode == Mode::Octet { "octet" } else { "netascii" });
    options.emit(out);
}

/// Replaces `out` with an OACK.
pub fn emit_oack(out: &mut Vec<u8>, options: &RequestOptions) {
    start(out, OACK);
    options.emit(out);
}

/// Puts the header of a DATA packet at the start of `out`, where there is room for it; the block follows.
pub fn put_data_header(out: &mut [u8], block: u16) {
    if let Some(header) = out.first_chunk_mut::<4>() {
        let ([_, opcode], [high, low]) = (DATA.to_be_bytes(), block.to_be_bytes());
        *header = [0, opcode, high, low];
    }
}

/// Replaces `out` with an ACK.
pub fn emit_ack(out: &mut Vec<u8>, block: u16) {
    start(out, ACK);
    out.extend_from_slice(&block.to_be_bytes());
}

/// Replaces `out` with an ERROR.
pub fn emit_error(out: &mut Vec<u8>, code: ErrorCode, message: &str) {
    start(out, ERROR);
    out.extend_from_slice(&code.0.to_be_bytes());
    put_string(out, message);
}

fn start(out: &mut Vec<u8>, opcode: u16) {
    out.clear();
    out.extend_from_slice(&opcode.to_be_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|b| *b != 0));
    out.push(0);
}

/// Decimal digits and nothing else; a number that does not fit is nonsense.
fn number(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok()
}

fn split_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*head), rest))
}

fn split_string(bytes: &[u8]) -> Result<(&[u8], &[u8]), ParseError> {
    let end = bytes.iter().position(|b| *b == 0).ok_or(ParseError::Unterminated)?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_firmware_sends() {
        let rrq = b"\0\x01snponly.efi\0octet\0tsize\x000\0BLKSIZE\x001468\0windowsize\x004\0x-vendor\0yes\0";
        let Ok(Packet::Rrq(request)) = Packet::parse(rrq) else { panic!("not an RRQ") };
        assert_eq!(request.name, "snponly.efi");
        assert_eq!(request.mode, Mode::Octet);
        let expected =
            RequestOptions { blksize: Some(1468), tsize: Some(0), windowsize: Some(4), timeout: None };
        assert_eq!(request.options, expected);
    }

    #[test]
    fn refuses_what_is_no_packet() {
        assert_eq!(Packet::parse(b""), Err(ParseError::Short(0)));
        assert_eq!(Packet::parse(b"\0\x04\0"), Err(ParseError::Short(3)));
        assert_eq!(Packet::parse(b"\0\x03\0"), Err(ParseError::Short(3)));
        assert_eq!(Packet::parse(b"\0\x09"), Err(ParseError::Opcode(9)));
        assert_eq!(Packet::parse(b"\0\x01name"), Err(ParseError::Unterminated));
        assert_eq!(Packet::parse(b"\0\x01name\0mail\0"), Err(ParseError::Mode));
        assert_eq!(Packet::parse(b"\0\x01name\0octet\0blksize\0"), Err(ParseError::Unterminated));
        // The datagram that stops a server which reads into a buffer of 1,024 octets.
        let mut long = b"\0\x01".to_vec();
        long.extend(std::iter::repeat_n(b'a', 1021));
        long.push(0);
        assert_eq!(Packet::parse(&long), Err(ParseError::Unterminated));
    }

    #[test]
    fn nonsense_options_are_dropped() {
        let rrq = b"\0\x01f\0OcTeT\0blksize\0big\0timeout\0-1\0tsize\x0099999999999999999999999\0";
        let Ok(Packet::Rrq(request)) = Packet::parse(rrq) else { panic!("not an RRQ") };
        assert!(request.options.is_empty());
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>, opcode in 0u8..8) {
            let _ = Packet::parse(&bytes);
            let mut framed = vec![0, opcode];
            framed.extend(&bytes);
            let _ = Packet::parse(&framed);
        }

        #[test]
        fn requests_come_back(name in "[^\0]{0,64}", netascii: bool, blksize: Option<u64>, timeout: Option<u64>,
                              tsize: Option<u64>, windowsize: Option<u64>) {
            let mode = if netascii { Mode::Netascii } else { Mode::Octet };
            let options = RequestOptions { blksize, timeout, tsize, windowsize };
            let mut out = Vec::new();
            emit_rrq(&mut out, &name, mode, &options);
            prop_assert_eq!(Packet::parse(&out), Ok(Packet::Rrq(Request { name: name.into(), mode, options })));
            emit_oack(&mut out, &options);
            prop_assert_eq!(Packet::parse(&out), Ok(Packet::Oack(options)));
        }
    }
}
