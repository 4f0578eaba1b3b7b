//! ATA commands by which a disk is erased (ACS-4), as they go through SCSI (SAT-4, ATA PASS-THROUGH (16)), and what it answers.

use protocol::erase::EraseMethod;

/// Octets of IDENTIFY DEVICE, and of what security commands send.
pub const SECTOR: usize = 512;
/// The password under which a drive is between SECURITY SET PASSWORD and its erase. A power cut between the two leaves the drive
/// locked by it, so it is the same on every machine, and is tried on a drive that is found locked. It protects nothing.
const PASSWORD: &[u8] = b"billet erases this drive";

const IDENTIFY: u8 = 0xec;
const SANITIZE: u8 = 0xb4;
const SET_PASSWORD: u8 = 0xf1;
const UNLOCK: u8 = 0xf2;
const ERASE_PREPARE: u8 = 0xf3;
const ERASE_UNIT: u8 = 0xf4;
const DISABLE_PASSWORD: u8 = 0xf6;

/// Which way data go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Data {
    /// None.
    #[default]
    None,
    /// From the drive.
    In,
    /// To the drive.
    Out,
}

/// A command with its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Command {
    /// COMMAND.
    pub command: u8,
    /// FEATURE.
    pub feature: u16,
    /// COUNT.
    pub count: u16,
    /// LBA, 48 bits.
    pub lba: u64,
    /// Which way data go.
    pub data: Data,
    /// A 48-bit command.
    pub extended: bool,
}

/// How security stands (IDENTIFY DEVICE, word 128).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Security {
    /// The drive has it.
    pub supported: bool,
    /// A password is set.
    pub enabled: bool,
    /// Nothing can be read or written.
    pub locked: bool,
    /// No password can be set.
    pub frozen: bool,
    /// Too many wrong passwords.
    pub exhausted: bool,
    /// The enhanced erase is there.
    pub enhanced: bool,
}

/// What a drive says that it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities {
    /// BLOCK ERASE EXT.
    pub sanitize_block: bool,
    /// CRYPTO SCRAMBLE EXT.
    pub sanitize_crypto: bool,
    /// OVERWRITE EXT.
    pub sanitize_overwrite: bool,
    /// SANITIZE FREEZE LOCK EXT was given.
    pub sanitize_frozen: bool,
    /// The security feature set.
    pub security: Security,
    /// How long SECURITY ERASE UNIT takes, in minutes, as far as the drive says.
    pub erase_minutes: u32,
    /// The same of the enhanced one.
    pub enhanced_minutes: u32,
}

/// Abilities from IDENTIFY DEVICE; `None` where the answer is none of a drive's.
pub fn abilities(identify: &[u8]) -> Option<Abilities> {
    let word = |n: usize| identify.get(2 * n..2 * n + 2).map(|w| u16::from_le_bytes([w[0], w[1]]));
    let bit = |n: usize, bit: u16| word(n).is_some_and(|w| w >> bit & 1 == 1);
    // Word 0 bit 15: an ATAPI device, and no disk.
    if identify.len() < SECTOR
        || bit(0, 15)
        || word(0) == word(1) && word(1) == word(2) && word(2) == word(10)
    {
        return None;
    }
    let sanitize = bit(59, 12);
    // Bit 15: the value has 15 bits, else 8; the highest of either says "longer".
    let minutes = |n: usize| match word(n).unwrap_or(0) {
        w if w >> 15 == 1 => u32::from(w & 0x7fff) * 2,
        w => u32::from(w & 0xff) * 2,
    };
    Some(Abilities {
        sanitize_block: sanitize && bit(59, 15),
        sanitize_crypto: sanitize && bit(59, 13),
        sanitize_overwrite: sanitize && bit(59, 14),
        sanitize_frozen: false,
        security: Security {
            supported: bit(82, 1) && bit(128, 0),
            enabled: bit(128, 1),
            locked: bit(128, 2),
            frozen: bit(128, 3),
            exhausted: bit(128, 4),
            enhanced: bit(128, 5),
        },
        erase_minutes: minutes(89),
        enhanced_minutes: minutes(90),
    })
}

/// IDENTIFY DEVICE.
pub fn identify() -> Command {
    Command { command: IDENTIFY, count: 1, data: Data::In, ..Command::default() }
}

/// SANITIZE STATUS EXT.
pub fn sanitize_status() -> Command {
    Command { command: SANITIZE, extended: true, ..Command::default() }
}

/// The command that begins a sanitize; `None` for other methods.
pub fn sanitize(method: EraseMethod) -> Option<Command> {
    // The keys in LBA keep a stray command from erasing a drive (ACS-4, 7.36).
    let (feature, lba, count) = match method {
        EraseMethod::AtaSanitizeCrypto => (0x0011, 0x4372_7970, 0),
        EraseMethod::AtaSanitizeBlock => (0x0012, 0x426b_4572, 0),
        // Pattern of zeros, one pass.
        EraseMethod::AtaSanitizeOverwrite => (0x0014, 0x4f57_u64 << 32, 1),
        _ => return None,
    };
    Some(Command { command: SANITIZE, feature, count, lba, extended: true, ..Command::default() })
}

/// A security command and the sector that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityStep {
    /// SECURITY SET PASSWORD.
    SetPassword,
    /// SECURITY UNLOCK.
    Unlock,
    /// SECURITY DISABLE PASSWORD.
    Disable,
    /// SECURITY ERASE PREPARE.
    Prepare,
    /// SECURITY ERASE UNIT; true: enhanced.
    Erase(bool),
}

/// The command, and what it sends.
pub fn security(step: SecurityStep) -> (Command, [u8; SECTOR]) {
    let mut sector = [0; SECTOR];
    for (to, from) in sector[2..34].iter_mut().zip(PASSWORD) {
        *to = *from;
    }
    let send = |command| Command { command, count: 1, data: Data::Out, ..Command::default() };
    let command = match step {
        SecurityStep::SetPassword => send(SET_PASSWORD),
        SecurityStep::Unlock => send(UNLOCK),
        SecurityStep::Disable => send(DISABLE_PASSWORD),
        SecurityStep::Prepare => Command { command: ERASE_PREPARE, ..Command::default() },
        SecurityStep::Erase(enhanced) => {
            // Word 0, bit 1: enhanced (ACS-4, 7.42).
            sector[0] = u8::from(enhanced) << 1;
            send(ERASE_UNIT)
        }
    };
    (command, sector)
}

/// The command as SCSI carries it (SAT-4, 12.2.3); the drive's registers are asked for in the sense data.
pub fn pass_through(command: &Command) -> [u8; 16] {
    let protocol = match command.data {
        Data::None => 3,
        Data::In => 4,
        Data::Out => 5,
    };
    // CK_COND; with data: direction, blocks of 512 octets, and their number in COUNT.
    let transfer = match command.data {
        Data::None => 1 << 5,
        Data::In => 1 << 5 | 1 << 3 | 1 << 2 | 2,
        Data::Out => 1 << 5 | 1 << 2 | 2,
    };
    let [f1, f0] = command.feature.to_be_bytes();
    let [c1, c0] = command.count.to_be_bytes();
    let [_, _, l5, l4, l3, l2, l1, l0] = command.lba.to_be_bytes();
    [
        0x85,
        protocol << 1 | u8::from(command.extended),
        transfer,
        f1,
        f0,
        c1,
        c0,
        l3,
        l0,
        l4,
        l1,
        l5,
        l2,
        0x40,
        command.command,
        0,
    ]
}

/// What a drive's registers say after a command (SAT-4, 12.2.2.6: ATA Status Return descriptor).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Registers {
    /// ERROR.
    pub error: u8,
    /// STATUS.
    pub status: u8,
    /// COUNT.
    pub count: u16,
    /// LBA, lowest 16 bits.
    pub lba_low: u16,
}

/// Finds the registers in descriptor sense data.
pub fn registers(sense: &[u8]) -> Option<Registers> {
    if sense.first()? & 0x7f != 0x72 {
        return None;
    }
    let mut rest = sense.get(8..)?;
    loop {
        let length = usize::from(*rest.get(1)?) + 2;
        let descriptor = rest.get(..length)?;
        if descriptor[0] == 0x09 && length >= 14 {
            return Some(Registers {
                error: descriptor[3],
                count: u16::from_be_bytes([descriptor[4], descriptor[5]]),
                lba_low: u16::from_be_bytes([descriptor[9], descriptor[7]]),
                status: descriptor[13],
            });
        }
        rest = rest.get(length..)?;
    }
}

impl Registers {
    /// ERR or DF.
    pub fn failed(&self) -> bool {
        self.status & 0x21 != 0
    }
}

/// How a sanitize stands (ACS-4, 7.36.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not running: true where the newest ended without an error.
    Idle(bool),
    /// So many of 65,536 parts are done.
    Running(u16),
    /// Frozen.
    Frozen,
}

/// Reads the registers after SANITIZE STATUS EXT.
pub fn status(registers: &Registers) -> Status {
    match registers.count {
        c if c & 1 << 14 != 0 => Status::Running(registers.lba_low),
        c if c & 1 << 13 != 0 => Status::Frozen,
        c => Status::Idle(c & 1 << 15 != 0 && !registers.failed()),
    }
}
