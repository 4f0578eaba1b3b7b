//! IPMI messages on a LAN (section 13.8): requests, responses, completion codes.

use super::packet::PacketError;

/// Slave address of the controller.
const BMC: u8 = 0x20;
/// Software id of a remote console (section 5.5).
const CONSOLE: u8 = 0x81;

/// Network functions of requests (table 5-1).
pub mod net_fn {
    /// Chassis.
    pub const CHASSIS: u8 = 0x00;
    /// Sensor and event.
    pub const SENSOR: u8 = 0x04;
    /// Application.
    pub const APP: u8 = 0x06;
    /// Storage: FRU, SDR, SEL.
    pub const STORAGE: u8 = 0x0a;
    /// LAN and serial ports.
    pub const TRANSPORT: u8 = 0x0c;
}

/// Completion codes (table 5-2).
pub mod completion {
    /// Done.
    pub const OK: u8 = 0x00;
    /// Busy.
    pub const BUSY: u8 = 0xc0;
    /// The command is not known.
    pub const INVALID_COMMAND: u8 = 0xc1;
    /// The command is not known for this logical unit.
    pub const INVALID_LUN: u8 = 0xc2;
    /// Time-out in the controller.
    pub const TIMEOUT: u8 = 0xc3;
    /// No memory.
    pub const NO_SPACE: u8 = 0xc4;
    /// The reservation was cancelled.
    pub const RESERVATION: u8 = 0xc5;
    /// The data has the wrong length.
    pub const LENGTH: u8 = 0xc7;
    /// A field of the data is too long.
    pub const FIELD_LENGTH: u8 = 0xc8;
    /// A parameter is out of range.
    pub const RANGE: u8 = 0xc9;
    /// So many octets cannot be returned.
    pub const TOO_MANY: u8 = 0xca;
    /// There is no such sensor, record or thing.
    pub const NOT_PRESENT: u8 = 0xcb;
    /// A field of the data is invalid.
    pub const INVALID_FIELD: u8 = 0xcc;
    /// The command is not for such a sensor or record.
    pub const ILLEGAL: u8 = 0xcd;
    /// A response could not be had.
    pub const NO_RESPONSE: u8 = 0xce;
    /// An SDR repository in update mode.
    pub const UPDATING: u8 = 0xd0;
    /// Firmware in update mode.
    pub const FIRMWARE: u8 = 0xd1;
    /// Initialisation is under way.
    pub const STARTING: u8 = 0xd2;
    /// The privilege does not suffice.
    pub const PRIVILEGE: u8 = 0xd4;
    /// Not in this state.
    pub const STATE: u8 = 0xd5;
    /// A sub-function is disabled.
    pub const DISABLED: u8 = 0xd6;
}

/// The words of a completion code.
pub fn completion_words(code: u8) -> &'static str {
    use completion as c;
    match code {
        c::BUSY => "node busy",
        c::INVALID_COMMAND => "invalid command",
        c::INVALID_LUN => "command invalid for the LUN",
        c::TIMEOUT => "timeout while processing",
        c::NO_SPACE => "out of space",
        c::RESERVATION => "reservation cancelled",
        c::LENGTH => "request data length invalid",
        c::FIELD_LENGTH => "request data field length limit exceeded",
        c::RANGE => "parameter out of range",
        c::TOO_MANY => "cannot return that many octets",
        c::NOT_PRESENT => "requested sensor, data or record not present",
        c::INVALID_FIELD => "invalid data field",
        c::ILLEGAL => "command illegal for the sensor or record",
        c::NO_RESPONSE => "no response could be provided",
        c::UPDATING => "SDR repository in update mode",
        c::FIRMWARE => "firmware in update mode",
        c::STARTING => "initialisation in progress",
        c::PRIVILEGE => "insufficient privilege",
        c::STATE => "not supported in the present state",
        c::DISABLED => "sub-function disabled",
        0xff => "unspecified error",
        0x80..=0xbe => "an error of this command",
        _ => "an unknown error",
    }
}

/// A command and its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Network function, even.
    pub net_fn: u8,
    /// Command.
    pub command: u8,
    /// Its data.
    pub data: Vec<u8>,
}

impl Request {
    /// A command.
    pub fn new(net_fn: u8, command: u8, data: &[u8]) -> Self {
        Self { net_fn, command, data: data.to_vec() }
    }

    /// As octets, with a sequence number of 6 bits.
    pub fn emit(&self, sequence: u8) -> Vec<u8> {
        let mut out = vec![BMC, self.net_fn << 2];
        out.push(checksum(&out));
        out.extend([CONSOLE, sequence << 2, self.command]);
        out.extend_from_slice(&self.data);
        out.push(checksum(&out[3..]));
        out
    }

    /// Reads a request; also its sequence number.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(octets: &[u8]) -> Result<(Self, u8), PacketError> {
        let (to, net_fn, sequence, command, data) = parts(octets)?;
        if to != BMC || net_fn & 1 != 0 {
            return Err(PacketError("not a request to the controller"));
        }
        Ok((Self::new(net_fn, command, data), sequence))
    }
}

/// What a controller answers to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Network function of the request, even.
    pub net_fn: u8,
    /// The command.
    pub command: u8,
    /// Completion code.
    pub completion: u8,
    /// Data behind it.
    pub data: Vec<u8>,
}

impl Response {
    /// As octets, with the sequence number of the request.
    pub fn emit(&self, sequence: u8) -> Vec<u8> {
        let mut out = vec![CONSOLE, (self.net_fn | 1) << 2];
        out.push(checksum(&out));
        out.extend([BMC, sequence << 2, self.command, self.completion]);
        out.extend_from_slice(&self.data);
        out.push(checksum(&out[3..]));
        out
    }

    /// Reads a response; also its sequence number.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(octets: &[u8]) -> Result<(Self, u8), PacketError> {
        let (_, net_fn, sequence, command, data) = parts(octets)?;
        let (completion, data) = data.split_first().ok_or(PacketError("a response without a code"))?;
        if net_fn & 1 == 0 {
            return Err(PacketError("not a response"));
        }
        let response = Self { net_fn: net_fn & !1, command, completion: *completion, data: data.to_vec() };
        Ok((response, sequence))
    }
}

/// Receiver, network function, sequence number, command, data.
fn parts(octets: &[u8]) -> Result<(u8, u8, u8, u8, &[u8]), PacketError> {
    let [to, net_fn, _, from @ .., _] = octets else { return Err(PacketError("a short message")) };
    let [_, sequence, command, data @ ..] = from else { return Err(PacketError("a short message")) };
    let sum = |octets: &[u8]| octets.iter().fold(0_u8, |sum, octet| sum.wrapping_add(*octet));
    if sum(&octets[..3]) != 0 || sum(&octets[3..]) != 0 {
        return Err(PacketError("a wrong checksum"));
    }
    Ok((*to, net_fn >> 2, sequence >> 2, *command, data))
}

/// Two's complement of the sum (section 13.8).
fn checksum(octets: &[u8]) -> u8 {
    octets.iter().fold(0_u8, |sum, octet| sum.wrapping_sub(*octet))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_the_octets_that_others_send() {
        // Get Channel Authentication Capabilities, as ipmitool sends it.
        let request = Request::new(net_fn::APP, 0x38, &[0x8e, 4]);
        assert_eq!(request.emit(0), [0x20, 0x18, 0xc8, 0x81, 0, 0x38, 0x8e, 0x04, 0xb5]);
        assert_eq!(Request::parse(&request.emit(63)), Ok((request, 63)));
    }

    #[test]
    fn a_response_is_read_as_it_was_written() {
        let response = Response { net_fn: 0, command: 1, completion: 0xc1, data: vec![1, 2, 3] };
        let octets = response.emit(5);
        assert_eq!(Response::parse(&octets), Ok((response, 5)));
        assert!(Request::parse(&octets).is_err());
        for at in 0..octets.len() {
            let mut changed = octets.clone();
            changed[at] ^= 1;
            assert_eq!(Response::parse(&changed), Err(PacketError("a wrong checksum")));
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (Request::parse(&octets), Response::parse(&octets));
        }
    }
}
