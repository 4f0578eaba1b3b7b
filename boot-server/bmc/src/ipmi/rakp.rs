//! The messages by which a session is made (sections 13.17 to 13.24), read and written; both ends use them.

use super::limits::USER_MAX;
use super::packet::PacketError;
use super::suite::Algorithms;

/// The privilege level Administrator (section 6.8).
pub const ADMINISTRATOR: u8 = 4;
/// Set in the role of RAKP 1: the user is looked up by name alone (section 13.20).
pub const NAME_ONLY: u8 = 0x10;

/// Status codes (table 13-15).
pub mod status {
    /// No error.
    pub const OK: u8 = 0x00;
    /// No room for a session.
    pub const RESOURCES: u8 = 0x01;
    /// No such session.
    pub const SESSION: u8 = 0x02;
    /// Authentication algorithm.
    pub const AUTHENTICATION: u8 = 0x04;
    /// Integrity algorithm.
    pub const INTEGRITY: u8 = 0x05;
    /// The role is none.
    pub const ROLE: u8 = 0x09;
    /// The user may not have the role.
    pub const UNAUTHORIZED_ROLE: u8 = 0x0a;
    /// No room for a session with this role.
    pub const RESOURCES_ROLE: u8 = 0x0b;
    /// Length of the user name.
    pub const NAME_LENGTH: u8 = 0x0c;
    /// No such user.
    pub const UNAUTHORIZED_NAME: u8 = 0x0d;
    /// The code is not made with the user's password.
    pub const CHECK: u8 = 0x0f;
    /// Confidentiality algorithm.
    pub const CONFIDENTIALITY: u8 = 0x10;
    /// The three algorithms are no suite.
    pub const NO_SUITE: u8 = 0x11;
    /// A parameter.
    pub const PARAMETER: u8 = 0x12;
}

/// RMCP+ Open Session Request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    /// Message tag.
    pub tag: u8,
    /// Session id of the console.
    pub console: u32,
    /// What it asks for.
    pub algorithms: Algorithms,
}

impl OpenRequest {
    /// As octets.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![self.tag, ADMINISTRATOR, 0, 0];
        out.extend(self.console.to_le_bytes());
        emit_algorithms(&mut out, self.algorithms);
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(octets: &[u8]) -> Result<Self, PacketError> {
        let (head, rest) = octets.split_first_chunk::<8>().ok_or(SHORT)?;
        let [tag, _, _, _, a, b, c, d] = *head;
        Ok(Self { tag, console: u32::from_le_bytes([a, b, c, d]), algorithms: parse_algorithms(rest)? })
    }
}

/// RMCP+ Open Session Response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenResponse {
    /// Message tag of the request.
    pub tag: u8,
    /// Session id of the console.
    pub console: u32,
    /// What became of it: session id of the controller and algorithms, or a status code.
    pub outcome: Result<(u32, Algorithms), u8>,
}

impl OpenResponse {
    /// As octets.
    pub fn emit(&self) -> Vec<u8> {
        let status = self.outcome.err().unwrap_or(status::OK);
        let mut out = vec![self.tag, status, ADMINISTRATOR, 0];
        out.extend(self.console.to_le_bytes());
        if let Ok((bmc, algorithms)) = self.outcome {
            out.extend(bmc.to_le_bytes());
            emit_algorithms(&mut out, algorithms);
        }
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(octets: &[u8]) -> Result<Self, PacketError> {
        let (tag, status, console, rest) = head(octets)?;
        if status != status::OK {
            return Ok(Self { tag, console, outcome: Err(status) });
        }
        let (bmc, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        Ok(Self { tag, console, outcome: Ok((u32::from_le_bytes(*bmc), parse_algorithms(rest)?)) })
    }
}

/// RAKP Message 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp1 {
    /// Message tag.
    pub tag: u8,
    /// Session id of the controller.
    pub bmc: u32,
    /// Random number of the console.
    pub random: [u8; 16],
    /// Privilege level and look-up.
    pub role: u8,
    /// User name.
    pub user: Vec<u8>,
}

impl Rakp1 {
    /// As octets.
    pub fn emit(&self) -> Vec<u8> {
        let user = &self.user[..self.user.len().min(USER_MAX)];
        let mut out = vec![self.tag, 0, 0, 0];
        out.extend(self.bmc.to_le_bytes());
        out.extend(self.random);
        out.extend([self.role, 0, 0, user.len() as u8]);
        out.extend_from_slice(user);
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(octets: &[u8]) -> Result<Self, PacketError> {
        let (tag, _, bmc, rest) = head(octets)?;
        let (random, rest) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
        let ([role, _, _, len], rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        let user = rest.get(..usize::from(*len)).filter(|u| u.len() <= USER_MAX).ok_or(SHORT)?;
        Ok(Self { tag, bmc, random: *random, role: *role, user: user.to_vec() })
    }
}

/// RAKP Message 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp2 {
    /// Message tag of RAKP 1.
    pub tag: u8,
    /// Session id of the console.
    pub console: u32,
    /// What the controller says, or a status code.
    pub outcome: Result<Answer, u8>,
}

/// Random number, GUID and code of a controller.
pub type Answer = ([u8; 16], [u8; 16], Vec<u8>);

impl Rakp2 {
    /// As octets.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.outcome.as_ref().err().copied().unwrap_or(status::OK), 0, 0];
        out.extend(self.console.to_le_bytes());
        if let Ok((random, guid, code)) = &self.outcome {
            out.extend(random);
            out.extend(guid);
            out.extend(code);
        }
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(octets: &[u8]) -> Result<Self, PacketError> {
        let (tag, status, console, rest) = head(octets)?;
        if status != status::OK {
            return Ok(Self { tag, console, outcome: Err(status) });
        }
        let (random, rest) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
        let (guid, code) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
        Ok(Self { tag, console, outcome: Ok((*random, *guid, code.to_vec())) })
    }
}

/// RAKP Message 3 or 4, which are alike: the session id is that of the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp34 {
    /// Message tag.
    pub tag: u8,
    /// Session id of the receiver.
    pub session: u32,
    /// The code, or a status code.
    pub outcome: Result<Vec<u8>, u8>,
}

impl Rakp34 {
    /// As octets.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.outcome.as_ref().err().copied().unwrap_or(status::OK), 0, 0];
        out.extend(self.session.to_le_bytes());
        out.extend(self.outcome.iter().flatten());
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(octets: &[u8]) -> Result<Self, PacketError> {
        let (tag, status, session, rest) = head(octets)?;
        let outcome = if status == status::OK { Ok(rest.to_vec()) } else { Err(status) };
        Ok(Self { tag, session, outcome })
    }
}

const SHORT: PacketError = PacketError("a short handshake message");

/// Tag, status, session id. Controllers that refuse may leave the session id out.
fn head(octets: &[u8]) -> Result<(u8, u8, u32, &[u8]), PacketError> {
    match octets {
        [tag, status, _, _, a, b, c, d, rest @ ..] => {
            Ok((*tag, *status, u32::from_le_bytes([*a, *b, *c, *d]), rest))
        }
        [tag, code, ..] if *code != status::OK => Ok((*tag, *code, 0, &[])),
        _ => Err(SHORT),
    }
}

/// Table 13-9: three payloads of eight octets each.
fn emit_algorithms(out: &mut Vec<u8>, algorithms: Algorithms) {
    let Algorithms { authentication, integrity, confidentiality } = algorithms;
    for (kind, number) in [authentication, integrity, confidentiality].into_iter().enumerate() {
        out.extend([kind as u8, 0, 0, 8, number, 0, 0, 0]);
    }
}

fn parse_algorithms(octets: &[u8]) -> Result<Algorithms, PacketError> {
    let mut found = [None; 3];
    for payload in octets.chunks_exact(8).take(3) {
        let slot =
            found.get_mut(usize::from(payload[0])).ok_or(PacketError("an unknown algorithm payload"))?;
        // A length of 0 leaves the choice to the controller, which may not choose here.
        *slot = (payload[3] == 8).then_some(payload[4] & 0x3f);
    }
    match found {
        [Some(authentication), Some(integrity), Some(confidentiality)] => {
            Ok(Algorithms { authentication, integrity, confidentiality })
        }
        _ => Err(PacketError("an algorithm is missing")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::suite::Suite;
    use super::*;

    #[test]
    fn every_message_is_read_as_it_was_written() {
        let algorithms = Suite::Seventeen.algorithms();
        let open = OpenRequest { tag: 1, console: 0xa0a1_a2a3, algorithms };
        assert_eq!(open.emit().len(), 32);
        assert_eq!(OpenRequest::parse(&open.emit()), Ok(open));
        for outcome in [Ok((7, algorithms)), Err(status::NO_SUITE)] {
            let answer = OpenResponse { tag: 1, console: 9, outcome };
            assert_eq!(OpenResponse::parse(&answer.emit()), Ok(answer));
        }
        let first = Rakp1 { tag: 2, bmc: 7, random: [3; 16], role: 0x14, user: b"admin".to_vec() };
        assert_eq!(Rakp1::parse(&first.emit()), Ok(first));
        for outcome in [Ok(([1; 16], [2; 16], vec![3; 32])), Err(status::UNAUTHORIZED_NAME)] {
            let second = Rakp2 { tag: 2, console: 9, outcome };
            assert_eq!(Rakp2::parse(&second.emit()), Ok(second));
        }
        for outcome in [Ok(vec![3; 32]), Err(status::CHECK)] {
            let third = Rakp34 { tag: 2, session: 9, outcome };
            assert_eq!(Rakp34::parse(&third.emit()), Ok(third));
        }
        assert_eq!(Rakp2::parse(&[5, 0x0d]).unwrap().outcome, Err(0x0d));
    }

    proptest! {
        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..90)) {
            let _ = (OpenRequest::parse(&octets), OpenResponse::parse(&octets));
            let _ = (Rakp1::parse(&octets), Rakp2::parse(&octets), Rakp34::parse(&octets));
        }
    }
}
