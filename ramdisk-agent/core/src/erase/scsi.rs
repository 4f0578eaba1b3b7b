//! SCSI commands by which a disk is erased (SBC-4, 5.32; SPC-5), and what it answers.

use protocol::erase::EraseMethod;

/// Octets of an answer to REPORT SUPPORTED OPERATION CODES about one command.
pub const SUPPORTED: usize = 16;

const SANITIZE: u8 = 0x48;
/// IMMED: the command ends at once and the work goes on; AUSE: a drive that fails can be given another command.
const IMMED_AUSE: u8 = 1 << 7 | 1 << 5;

/// What a drive says that it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities {
    /// BLOCK ERASE.
    pub block: bool,
    /// CRYPTOGRAPHIC ERASE.
    pub crypto: bool,
    /// OVERWRITE.
    pub overwrite: bool,
}

/// The service action of a method.
pub fn service_action(method: EraseMethod) -> Option<u8> {
    match method {
        EraseMethod::ScsiSanitizeOverwrite => Some(0x01),
        EraseMethod::ScsiSanitizeBlock => Some(0x02),
        EraseMethod::ScsiSanitizeCrypto => Some(0x03),
        _ => None,
    }
}

/// Asks whether the drive has a service action of SANITIZE: REPORT SUPPORTED OPERATION CODES (SPC-5, 6.35), option 3.
pub fn ask_supported(action: u8) -> [u8; 12] {
    [0xa3, 0x0c, 3, SANITIZE, 0, action, 0, 0, 0, SUPPORTED as u8, 0, 0]
}

/// True where the answer says: as the standard has it.
pub fn supported(answer: &[u8]) -> bool {
    answer.get(1).is_some_and(|octet| octet & 7 == 3)
}

/// SANITIZE, and the parameters that it sends.
pub fn sanitize(action: u8) -> ([u8; 10], Vec<u8>) {
    // One pass of a pattern of four zeros (SBC-4, 5.32.2.2).
    let parameters = if action == 1 { vec![1, 0, 0, 4, 0, 0, 0, 0] } else { Vec::new() };
    ([SANITIZE, IMMED_AUSE | action, 0, 0, 0, 0, 0, 0, parameters.len() as u8, 0], parameters)
}

/// TEST UNIT READY.
pub const TEST_UNIT_READY: [u8; 6] = [0; 6];

/// Key, code and qualifier of sense data of either form (SPC-5, 4.4).
pub fn sense(data: &[u8]) -> Option<(u8, u8, u8)> {
    let at = |n: usize| data.get(n).copied();
    match at(0)? & 0x7f {
        0x70 | 0x71 => Some((at(2)? & 0xf, at(12)?, at(13)?)),
        0x72 | 0x73 => Some((at(1)? & 0xf, at(2)?, at(3)?)),
        _ => None,
    }
}

/// How a sanitize stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Done,
    /// On its way.
    Running,
    /// It failed.
    Failed,
    /// The drive says something else; it is asked again.
    Other(u8, u8, u8),
}

/// Reads the answer to TEST UNIT READY: no sense data, or these.
pub fn status(sense: Option<(u8, u8, u8)>) -> Status {
    match sense {
        None | Some((0, ..)) => Status::Done,
        // NOT READY, sanitize in progress.
        Some((2, 0x04, 0x1b)) => Status::Running,
        // MEDIUM ERROR, SANITIZE COMMAND FAILED.
        Some((_, 0x31, 0x03)) => Status::Failed,
        Some((key, code, qualifier)) => Status::Other(key, code, qualifier),
    }
}
