//! Datagrams of port 623: RMCP (section 13.1), ASF presence ping, the session headers of IPMI 1.5 (only without a session)
//! and 2.0 (section 13.6), sealed and opened. Both ends of a session use this file.

use super::limits::DATAGRAM_MAX;
use super::suite::{BLOCK, Keys};

/// RMCP version 1.0.
const RMCP: u8 = 6;
/// Sequence number of a datagram that wants no RMCP acknowledgement.
const NO_ACK: u8 = 0xff;
const CLASS_ASF: u8 = 6;
const CLASS_IPMI: u8 = 7;
/// Authentication types of the session header (table 13-8).
const TYPE_NONE: u8 = 0;
const TYPE_RMCPP: u8 = 6;
/// ASF's number (IANA enterprise 4542), and its message types.
const ASF_IANA: [u8; 4] = [0, 0, 0x11, 0xbe];
const ASF_PING: u8 = 0x80;
const ASF_PONG: u8 = 0x40;
/// Octets of the RMCP header.
const RMCP_LEN: usize = 4;
/// Octets of the RMCP+ session header, from the authentication type to the length.
const HEADER_LEN: usize = 12;
/// "Next header" of the session trailer (table 13-8).
const NEXT_HEADER: u8 = 7;

/// Why a datagram is not understood, or not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PacketError(pub &'static str);

/// What a payload is (table 13-16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// An IPMI message.
    Ipmi,
    /// Serial over LAN.
    Sol,
    /// RMCP+ Open Session Request.
    OpenRequest,
    /// RMCP+ Open Session Response.
    OpenResponse,
    /// RAKP Message 1.
    Rakp1,
    /// RAKP Message 2.
    Rakp2,
    /// RAKP Message 3.
    Rakp3,
    /// RAKP Message 4.
    Rakp4,
}

const PAYLOADS: [(Payload, u8); 8] = [
    (Payload::Ipmi, 0x00),
    (Payload::Sol, 0x01),
    (Payload::OpenRequest, 0x10),
    (Payload::OpenResponse, 0x11),
    (Payload::Rakp1, 0x12),
    (Payload::Rakp2, 0x13),
    (Payload::Rakp3, 0x14),
    (Payload::Rakp4, 0x15),
];

impl Payload {
    fn number(self) -> u8 {
        PAYLOADS.iter().find(|(p, _)| *p == self).map_or(0, |(_, n)| *n)
    }

    fn from_number(number: u8) -> Option<Self> {
        PAYLOADS.iter().find(|(_, n)| *n == number).map(|(p, _)| *p)
    }
}

/// A datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// ASF presence ping, with its tag.
    Ping(u8),
    /// ASF presence pong: its tag, and whether IPMI is spoken.
    Pong(u8, bool),
    /// A message of IPMI 1.5 outside of a session.
    Plain15(&'a [u8]),
    /// A payload of RMCP+ outside of a session.
    Plain(Payload, &'a [u8]),
    /// A payload of a session, sealed.
    Sealed(Sealed<'a>),
}

/// A payload of a session, not yet opened: nothing in it is to be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// Session id, of the end that receives it.
    pub session: u32,
    /// Session sequence number.
    pub sequence: u32,
    /// What it says it is.
    pub payload: Payload,
    body: &'a [u8],
    /// From the authentication type to the end.
    all: &'a [u8],
}

impl Sealed<'_> {
    /// Checks its integrity and decrypts it.
    ///
    /// # Errors
    /// Where it was not made with these keys.
    pub fn open(&self, keys: &Keys) -> Result<Vec<u8>, PacketError> {
        let len = keys.suite().check_len();
        let cut = self.all.len().checked_sub(len).ok_or(PacketError("no integrity check value"))?;
        let (octets, check) = self.all.split_at(cut);
        if !keys.check(octets).matches(check, len) {
            return Err(PacketError("the integrity check value is wrong"));
        }
        let trailer = octets.get(HEADER_LEN + self.body.len()..).unwrap_or_default();
        match trailer {
            [pad @ .., count, NEXT_HEADER] if usize::from(*count) == pad.len() && pad.len() < 4 => {}
            _ => return Err(PacketError("the session trailer is not one")),
        }
        keys.decrypt(self.body).ok_or(PacketError("the payload cannot be decrypted"))
    }
}

/// Reads a datagram.
///
/// # Errors
/// Where it is none, or none that is of use here.
pub fn parse(datagram: &[u8]) -> Result<Datagram<'_>, PacketError> {
    if datagram.len() > DATAGRAM_MAX {
        return Err(PacketError("the datagram is too long"));
    }
    match datagram {
        [RMCP, _, _, CLASS_ASF, rest @ ..] => parse_asf(rest),
        [RMCP, _, NO_ACK, CLASS_IPMI, TYPE_NONE, rest @ ..] => parse_plain15(rest),
        [RMCP, _, NO_ACK, CLASS_IPMI, TYPE_RMCPP, ..] => parse_rmcpp(&datagram[RMCP_LEN..]),
        [RMCP, _, NO_ACK, CLASS_IPMI, ..] => Err(PacketError("an authentication type of IPMI 1.5")),
        _ => Err(PacketError("not RMCP")),
    }
}

/// ASF 2.0, section 3.2.4.
fn parse_asf(rest: &[u8]) -> Result<Datagram<'_>, PacketError> {
    let rest = rest.strip_prefix(&ASF_IANA).ok_or(PacketError("RMCP of another enterprise than ASF"))?;
    match rest {
        [ASF_PING, tag, ..] => Ok(Datagram::Ping(*tag)),
        // Behind reserved octet and length: enterprise (4), OEM (4), supported entities (bit 7 is IPMI).
        [ASF_PONG, tag, _, _, data @ ..] => {
            Ok(Datagram::Pong(*tag, data.get(8).is_some_and(|entities| entities & 0x80 != 0)))
        }
        _ => Err(PacketError("an ASF message of another kind")),
    }
}

/// Behind the authentication type: sequence number, session id, length.
fn parse_plain15(rest: &[u8]) -> Result<Datagram<'_>, PacketError> {
    let (header, body) = rest.split_first_chunk::<9>().ok_or(PacketError("a short header"))?;
    if header[..8] != [0; 8] {
        return Err(PacketError("a session of IPMI 1.5"));
    }
    body.get(..usize::from(header[8])).map(Datagram::Plain15).ok_or(PacketError("a short message"))
}

fn parse_rmcpp(all: &[u8]) -> Result<Datagram<'_>, PacketError> {
    let (header, rest) = all.split_first_chunk::<HEADER_LEN>().ok_or(PacketError("a short header"))?;
    let [_, kind, s0, s1, s2, s3, n0, n1, n2, n3, l0, l1] = *header;
    let session = u32::from_le_bytes([s0, s1, s2, s3]);
    let sequence = u32::from_le_bytes([n0, n1, n2, n3]);
    let len = usize::from(u16::from_le_bytes([l0, l1]));
    let body = rest.get(..len).ok_or(PacketError("a short payload"))?;
    let payload = Payload::from_number(kind & 0x3f).ok_or(PacketError("an unknown payload type"))?;
    let (encrypted, authenticated) = (kind & 0x80 != 0, kind & 0x40 != 0);
    match (session, encrypted, authenticated) {
        (0, false, false) => Ok(Datagram::Plain(payload, body)),
        (1.., true, true) => Ok(Datagram::Sealed(Sealed { session, sequence, payload, body, all })),
        _ => Err(PacketError("a packet that lacks a protection")),
    }
}

/// A presence ping.
pub fn ping(tag: u8) -> Vec<u8> {
    [&[RMCP, 0, NO_ACK, CLASS_ASF][..], &ASF_IANA, &[ASF_PING, tag, 0, 0]].concat()
}

/// The answer to a presence ping, of a controller that speaks IPMI.
pub fn pong(tag: u8) -> Vec<u8> {
    let head = [&[RMCP, 0, NO_ACK, CLASS_ASF][..], &ASF_IANA, &[ASF_PONG, tag, 0, 16]].concat();
    [&head[..], &ASF_IANA, &[0; 4], &[0x81, 0], &[0; 6]].concat()
}

/// A message of IPMI 1.5 outside of a session.
pub fn plain15(message: &[u8]) -> Vec<u8> {
    let mut out = vec![RMCP, 0, NO_ACK, CLASS_IPMI, TYPE_NONE];
    out.extend([0; 8]);
    out.push(message.len() as u8);
    out.extend_from_slice(message);
    out
}

/// A payload of RMCP+ outside of a session.
pub fn plain(payload: Payload, body: &[u8]) -> Vec<u8> {
    let mut out = vec![RMCP, 0, NO_ACK, CLASS_IPMI, TYPE_RMCPP, payload.number()];
    out.extend([0; 8]);
    out.extend((body.len() as u16).to_le_bytes());
    out.extend_from_slice(body);
    out
}

/// A payload of a session: encrypted, padded, with its integrity check value.
pub fn seal(
    keys: &Keys,
    payload: Payload,
    session: u32,
    sequence: u32,
    vector: [u8; BLOCK],
    body: &[u8],
) -> Vec<u8> {
    let body = keys.encrypt(vector, body);
    let mut out = vec![RMCP, 0, NO_ACK, CLASS_IPMI, TYPE_RMCPP, 0xc0 | payload.number()];
    out.extend(session.to_le_bytes());
    out.extend(sequence.to_le_bytes());
    out.extend((body.len() as u16).to_le_bytes());
    out.extend_from_slice(&body);
    // What is checked, with the two octets of the trailer, is a multiple of four octets long (section 13.28.4).
    let pad = (4 - (out.len() - RMCP_LEN + 2) % 4) % 4;
    out.extend(std::iter::repeat_n(0xff, pad));
    out.extend([pad as u8, NEXT_HEADER]);
    let check = keys.check(&out[RMCP_LEN..]);
    out.extend_from_slice(check.cut(keys.suite().check_len()));
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::suite::Suite;
    use super::*;

    fn keys(suite: Suite) -> Keys {
        Keys::new(suite, &suite.mac(b"secret", &[b"x"]))
    }

    #[test]
    fn what_is_sealed_can_be_opened_and_any_changed_octet_is_noticed() {
        for suite in Suite::ALL {
            let sealed = seal(&keys(suite), Payload::Sol, 0x0102_0304, 9, [5; 16], b"hello");
            let Ok(Datagram::Sealed(read)) = parse(&sealed) else { panic!("not sealed") };
            assert_eq!((read.session, read.sequence, read.payload), (0x0102_0304, 9, Payload::Sol));
            assert_eq!(read.open(&keys(suite)).unwrap(), b"hello");
            let other = Keys::new(suite, &suite.mac(b"other", &[b"x"]));
            assert_eq!(read.open(&other), Err(PacketError("the integrity check value is wrong")));
            for at in RMCP_LEN..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 0x20;
                if let Ok(Datagram::Sealed(read)) = parse(&changed) {
                    assert!(read.open(&keys(suite)).is_err(), "octet {at} was changed");
                }
            }
            for len in 0..sealed.len() {
                if let Ok(Datagram::Sealed(read)) = parse(&sealed[..len]) {
                    assert!(read.open(&keys(suite)).is_err(), "cut to {len}");
                }
            }
        }
    }

    #[test]
    fn a_session_packet_without_a_protection_is_refused() {
        let mut sealed = seal(&keys(Suite::Three), Payload::Ipmi, 1, 1, [0; 16], b"x");
        for kind in [0x00, 0x40, 0x80] {
            sealed[5] = kind;
            assert_eq!(parse(&sealed), Err(PacketError("a packet that lacks a protection")));
        }
    }

    #[test]
    fn pings_and_plain_messages_are_read_as_they_were_written() {
        assert_eq!(parse(&ping(7)), Ok(Datagram::Ping(7)));
        assert_eq!(parse(&pong(7)), Ok(Datagram::Pong(7, true)));
        assert_eq!(parse(&plain15(b"abc")), Ok(Datagram::Plain15(b"abc")));
        assert_eq!(parse(&plain(Payload::Rakp3, b"abc")), Ok(Datagram::Plain(Payload::Rakp3, b"abc")));
        assert_eq!(parse(&vec![6; DATAGRAM_MAX + 1]), Err(PacketError("the datagram is too long")));
    }

    proptest! {
        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..400), rmcpp in any::<bool>()) {
            let mut octets = octets;
            if rmcpp {
                octets.splice(0..0, [RMCP, 0, NO_ACK, CLASS_IPMI, TYPE_RMCPP, 0xc0]);
            }
            if let Ok(Datagram::Sealed(sealed)) = parse(&octets) {
                for suite in Suite::ALL {
                    prop_assert!(sealed.open(&keys(suite)).is_err());
                }
            }
        }
    }
}
