//! NVMe commands by which a disk is erased, and what it answers (NVM Express Base Specification 2.0).

use protocol::erase::EraseMethod;

/// Octets of an Identify answer.
pub const IDENTIFY: usize = 4096;
/// Octets of the Sanitize Status log that are read.
pub const SANITIZE_LOG: usize = 512;

/// Get Log Page, Identify, Format NVM, Sanitize (5, figure 137).
const GET_LOG: u8 = 0x02;
const IDENTIFY_OPCODE: u8 = 0x06;
const FORMAT: u8 = 0x80;
const SANITIZE: u8 = 0x84;
/// All namespaces.
const ALL: u32 = 0xffff_ffff;
/// Sanitize Status (5.16.1.25).
const SANITIZE_STATUS: u32 = 0x81;
/// Allow Unrestricted Sanitize Exit: a drive that fails can be given another command (5.24).
const AUSE: u32 = 1 << 3;
/// Overwrite passes: one.
const ONE_PASS: u32 = 1 << 4;

/// An admin command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Command {
    /// Opcode.
    pub opcode: u8,
    /// Namespace.
    pub namespace: u32,
    /// Command Dwords 10 and 11.
    pub dword10: u32,
    /// Command Dword 11.
    pub dword11: u32,
}

/// What a controller and a namespace say that they can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities {
    /// SANICAP: block erase.
    pub sanitize_block: bool,
    /// SANICAP: crypto erase.
    pub sanitize_crypto: bool,
    /// SANICAP: overwrite.
    pub sanitize_overwrite: bool,
    /// OACS: Format NVM.
    pub format: bool,
    /// FNA: Format with crypto erase.
    pub format_crypto: bool,
    /// FNA: a format, or its erase, is of all namespaces.
    pub format_is_for_all: bool,
    /// Namespaces that are active.
    pub namespaces: u32,
    /// How blocks are laid out now, as Format NVM is told to keep it.
    pub layout: u32,
}

/// Asks for the controller's abilities.
pub fn identify_controller() -> Command {
    Command { opcode: IDENTIFY_OPCODE, dword10: 1, ..Command::default() }
}

/// Asks for the namespace's.
pub fn identify_namespace(namespace: u32) -> Command {
    Command { opcode: IDENTIFY_OPCODE, namespace, ..Command::default() }
}

/// Asks for the list of active namespaces.
pub fn active_namespaces() -> Command {
    Command { opcode: IDENTIFY_OPCODE, dword10: 2, ..Command::default() }
}

/// Asks how a sanitize stands.
pub fn sanitize_status() -> Command {
    let dwords = SANITIZE_LOG as u32 / 4 - 1;
    Command { opcode: GET_LOG, namespace: ALL, dword10: SANITIZE_STATUS | dwords << 16, ..Command::default() }
}

/// The command of a method; `None` for those of other drives.
pub fn command(method: EraseMethod, namespace: u32, abilities: &Abilities) -> Option<Command> {
    let sanitize = |action| Some(Command { opcode: SANITIZE, dword10: action | AUSE, ..Command::default() });
    let format = |erase: u32| {
        Some(Command {
            opcode: FORMAT,
            namespace,
            dword10: abilities.layout | erase << 9,
            ..Command::default()
        })
    };
    match method {
        EraseMethod::NvmeSanitizeBlock => sanitize(2),
        EraseMethod::NvmeSanitizeOverwrite => sanitize(3 | ONE_PASS),
        EraseMethod::NvmeSanitizeCrypto => sanitize(4),
        EraseMethod::NvmeFormatErase => format(1),
        EraseMethod::NvmeFormatCrypto => format(2),
        _ => None,
    }
}

/// True where the command only begins the work, which the log then tells of.
pub fn goes_on(method: EraseMethod) -> bool {
    matches!(
        method,
        EraseMethod::NvmeSanitizeBlock | EraseMethod::NvmeSanitizeCrypto | EraseMethod::NvmeSanitizeOverwrite
    )
}

/// Abilities from the answers to the three Identify commands. Octets that are not there say no.
pub fn abilities(controller: &[u8], namespace: &[u8], list: &[u8]) -> Abilities {
    let octet = |at: usize| controller.get(at).copied().unwrap_or(0);
    let sanicap = octet(328);
    let fna = octet(524);
    let namespaces = list.as_chunks::<4>().0.iter().take_while(|id| **id != [0; 4]).count();
    let of = |at: usize| u32::from(namespace.get(at).copied().unwrap_or(0));
    // FLBAS: the format's number, its upper bits, and whether metadata lie at the end of the data; DPS: protection (5.17.2.1).
    let (flbas, dps) = (of(26), of(29));
    let layout =
        flbas & 0xf | (flbas >> 4 & 1) << 4 | (dps & 7) << 5 | (dps >> 3 & 1) << 8 | (flbas >> 5 & 3) << 12;
    Abilities {
        sanitize_crypto: sanicap & 1 != 0,
        sanitize_block: sanicap & 2 != 0,
        sanitize_overwrite: sanicap & 4 != 0,
        format: octet(256) & 2 != 0,
        format_crypto: fna & 4 != 0,
        format_is_for_all: fna & 3 != 0,
        // A controller too old for the list has one, as far as can be told: the caller asks the kernel too.
        namespaces: u32::try_from(namespaces).unwrap_or(u32::MAX).max(1),
        layout,
    }
}

/// How a sanitize stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// None was ever done.
    Never,
    /// Done.
    Done,
    /// So many of 65,536 parts are done.
    Running(u16),
    /// The newest one failed.
    Failed,
}

/// Reads the log. A log that is cut or that says what it may not is a failure.
pub fn status(log: &[u8]) -> Status {
    let Some(&[p0, p1, s0, _]) = log.first_chunk::<4>() else { return Status::Failed };
    match s0 & 7 {
        0 => Status::Never,
        // 4: done, and blocks were given back without having been asked (since 1.4).
        1 | 4 => Status::Done,
        2 => Status::Running(u16::from_le_bytes([p0, p1])),
        _ => Status::Failed,
    }
}
