//! The client's side of the Network Block Device protocol, as far as a disk needs it: fixed newstyle handshake with
//! `NBD_OPT_GO`, simple replies (`doc/proto.md` of the NBD project). No sockets: whatever can be read and written.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// "NBDMAGIC", "IHAVEOPT".
const GREETING: [u64; 2] = [0x4e42_444d_4147_4943, 0x4948_4156_454f_5054];
/// `NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES`.
const CLIENT: u32 = 3;
const OPT_GO: u32 = 7;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const INFO_EXPORT: u16 = 0;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
/// `NBD_FLAG_READ_ONLY`.
const READ_ONLY: u16 = 1 << 1;
/// Octets of an answer to an option: names and descriptions are 4 KiB at most.
const OPTION_MAX: u32 = 16 << 10;
/// Answers to one option: one for each kind of information.
const OPTIONS_MAX: usize = 16;
/// `NBD_ESHUTDOWN`: the server goes away.
const SHUTDOWN: u32 = 108;

/// What a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Bytes.
    pub size: u64,
    /// Writes are refused.
    pub read_only: bool,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    /// Bytes are read.
    Read = 0,
    /// Bytes are written; they follow.
    Write = 1,
    /// What was answered is made durable.
    Flush = 3,
    /// The range reads as zeros afterwards.
    Zero = 6,
}

/// An answer, before its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Of the request.
    pub handle: u64,
    /// Zero where it was done, else an error of the protocol.
    pub error: u32,
}

/// Agrees on export `name`.
///
/// # Errors
/// Where the connection breaks, or the server does not have it.
pub fn shake_hands(stream: &mut (impl Read + Write), name: &str) -> io::Result<Export> {
    if [u64_of(stream)?, u64_of(stream)?] != GREETING {
        return Err(wrong("no NBD server greets like this"));
    }
    let _server = u16_of(stream)?;
    let length = u32::try_from(name.len()).map_err(|_| wrong("the export's name is too long"))?;
    let option = [
        &CLIENT.to_be_bytes()[..],
        &GREETING[1].to_be_bytes(),
        &OPT_GO.to_be_bytes(),
        &(length + 6).to_be_bytes(),
        &length.to_be_bytes(),
        name.as_bytes(),
        &0_u16.to_be_bytes(),
    ];
    stream.write_all(&option.concat())?;
    let mut export = None;
    for _ in 0..OPTIONS_MAX {
        if u64_of(stream)? != OPTION_REPLY || u32_of(stream)? != OPT_GO {
            return Err(wrong("an answer to another question"));
        }
        let (kind, length) = (u32_of(stream)?, u32_of(stream)?);
        if length > OPTION_MAX {
            return Err(wrong("an answer that is too long"));
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data)?;
        match kind {
            REP_ACK => return export.ok_or_else(|| wrong("an export without a size")),
            REP_INFO => export = info(&data)?.or(export),
            _ => return Err(io::Error::other(String::from_utf8_lossy(&data).into_owned())),
        }
    }
    Err(wrong("answers without end"))
}

fn info(mut data: &[u8]) -> io::Result<Option<Export>> {
    if u16_of(&mut data)? != INFO_EXPORT {
        return Ok(None);
    }
    let (size, flags) = (u64_of(&mut data)?, u16_of(&mut data)?);
    Ok(Some(Export { size, read_only: flags & READ_ONLY != 0 }))
}

/// The head of a request.
pub fn request(command: Command, handle: u64, offset: u64, length: u32) -> [u8; 28] {
    let mut head = [0; 28];
    let fields: [&[u8]; 6] = [
        &REQUEST.to_be_bytes(),
        &0_u16.to_be_bytes(),
        &(command as u16).to_be_bytes(),
        &handle.to_be_bytes(),
        &offset.to_be_bytes(),
        &length.to_be_bytes(),
    ];
    head.iter_mut().zip(fields.concat()).for_each(|(to, from)| *to = from);
    head
}

/// Reads the head of an answer.
///
/// # Errors
/// Where the connection breaks, or the server says that it goes away.
pub fn reply(stream: &mut impl Read) -> io::Result<Reply> {
    if u32_of(stream)? != SIMPLE_REPLY {
        return Err(wrong("an answer in another form"));
    }
    let (error, handle) = (u32_of(stream)?, u64_of(stream)?);
    if error == SHUTDOWN {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(Reply { handle, error })
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn u16_of(stream: &mut impl Read) -> io::Result<u16> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn u32_of(stream: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn u64_of(stream: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}
