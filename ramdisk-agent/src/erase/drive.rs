//! A drive as it is erased: blocks, and the commands that are neither read nor write.

use std::io;
use std::ops::Range;
use std::time::Duration;

use ramdisk_agent_core::erase::{ata, nvme};

use crate::device::{DeviceError, Target};
use crate::sys::{self, Buffer, ScsiData};

/// GOOD and CHECK CONDITION (SAM-5, 5.3).
const GOOD: u8 = 0;
const CHECK: u8 = 2;
/// RECOVERED ERROR: also where registers were asked for and all is well.
const RECOVERED: u8 = 1;

/// What a SCSI command came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The drive took it and did it.
    pub good: bool,
    /// Sense data.
    pub sense: Vec<u8>,
}

/// A drive, or a model of one in tests.
pub trait Drive: Sync {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Reads past the page cache; the buffer is aligned.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError>;
    /// Writes past the page cache; the buffer is aligned.
    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), DeviceError>;
    /// Makes a range read as zeros, by command or by writing.
    fn zero(&self, range: &Range<u64>) -> Result<(), DeviceError>;
    /// Makes what was written durable.
    fn flush(&self) -> Result<(), DeviceError>;
    /// Gives a range back, which is guaranteed to read as zeros.
    fn give_back(&self, range: &Range<u64>) -> io::Result<()>;
    /// Number of its namespace, of an NVMe drive.
    fn namespace(&self) -> io::Result<u32>;
    /// An admin command: the drive's status.
    fn nvme(&self, command: &nvme::Command, data: &mut [u8], longest: Duration) -> io::Result<u16>;
    /// A SCSI command.
    fn scsi(&self, command: &[u8], data: ScsiData<'_>, longest: Duration) -> io::Result<Answer>;
}

impl Drive for Target {
    fn size(&self) -> u64 {
        Self::size(self)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        Self::read_at(self, offset, into)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), DeviceError> {
        Self::write_at(self, offset, from)
    }

    fn zero(&self, range: &Range<u64>) -> Result<(), DeviceError> {
        Self::zero(self, range)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Self::flush(self)
    }

    fn give_back(&self, range: &Range<u64>) -> io::Result<()> {
        Self::give_back(self, range)
    }

    fn namespace(&self) -> io::Result<u32> {
        sys::nvme_namespace(self.device().ok_or(io::ErrorKind::Unsupported)?)
    }

    fn nvme(&self, command: &nvme::Command, data: &mut [u8], longest: Duration) -> io::Result<u16> {
        let device = self.device().ok_or(io::ErrorKind::Unsupported)?;
        let nvme::Command { opcode, namespace, dword10, dword11 } = *command;
        // The kernel maps it for DMA: a buffer of its own, which is aligned.
        let mut buffer = Buffer::new(data.len());
        let status = sys::nvme_admin(
            device,
            (opcode, namespace, dword10, dword11),
            &mut buffer[..data.len()],
            longest,
        )?;
        data.copy_from_slice(&buffer[..data.len()]);
        Ok(status)
    }

    fn scsi(&self, command: &[u8], data: ScsiData<'_>, longest: Duration) -> io::Result<Answer> {
        let device = self.device().ok_or(io::ErrorKind::Unsupported)?;
        let (status, sense) = sys::scsi(device, command, data, longest)?;
        let key = ramdisk_agent_core::erase::scsi::sense(&sense).map(|(key, ..)| key);
        let good = status == GOOD || (status == CHECK && key.is_some_and(|key| key <= RECOVERED));
        Ok(Answer { good, sense })
    }
}

/// Sends an ATA command: the drive's registers, where they came back.
pub fn ata(
    drive: &dyn Drive,
    command: &ata::Command,
    data: &mut [u8],
    longest: Duration,
) -> io::Result<ata::Registers> {
    let cdb = ata::pass_through(command);
    let data = match command.data {
        ata::Data::None => ScsiData::None,
        ata::Data::In => ScsiData::In(data),
        ata::Data::Out => ScsiData::Out(data),
    };
    let answer = drive.scsi(&cdb, data, longest)?;
    match ata::registers(&answer.sense) {
        Some(registers) if registers.failed() => Err(io::Error::other(format!(
            "the drive aborts it (status {:#04x}, error {:#04x})",
            registers.status, registers.error
        ))),
        Some(registers) => Ok(registers),
        None if answer.good => Ok(ata::Registers::default()),
        None => Err(io::Error::other("the adapter does not pass it on")),
    }
}
