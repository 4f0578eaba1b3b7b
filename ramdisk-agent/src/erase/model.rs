//! Drives in memory: honest ones, and ones that lie.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::drive::{Answer, Drive};
use crate::device::DeviceError;
use crate::sys::ScsiData;

/// In which way a drive does not do what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lie {
    /// It does what it says.
    #[default]
    None,
    /// It says that it erased, and did nothing.
    Ignores,
    /// It erased one half.
    Half,
    /// Writes are acknowledged and dropped.
    DropsWrites,
    /// Its second half is its first half once more.
    Wraps,
}

/// A drive.
#[derive(Default)]
pub struct Model {
    /// How it lies.
    pub lie: Lie,
    /// What NVMe commands are answered; none: it is no NVMe drive. Opcodes that are refused.
    pub nvme_refuses: Vec<u8>,
    /// IDENTIFY DEVICE.
    pub ata: Option<Vec<u8>>,
    /// Service actions of SANITIZE that it has.
    pub scsi: Vec<u8>,
    /// Commands as they came.
    pub log: Mutex<Vec<String>>,
    /// What it holds.
    pub data: Mutex<Vec<u8>>,
    /// Looks until what it does is done.
    pub looks: Mutex<u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Model {
    /// A drive of so many octets, full of a tenant's data.
    pub fn new(len: usize, lie: Lie) -> Self {
        let secret = b"what a tenant wrote, to the last octet. ";
        let data: Vec<u8> = (0..len).map(|n| secret[n % secret.len()] ^ (n >> 12) as u8).collect();
        Self { lie, data: Mutex::new(data), ..Self::default() }
    }

    /// What it holds.
    pub fn data(&self) -> Vec<u8> {
        lock(&self.data).clone()
    }

    fn say(&self, what: String) {
        lock(&self.log).push(what);
    }

    /// Its own erase, with what such drives leave behind.
    fn erase(&self, leaves: u8) {
        let mut data = lock(&self.data);
        let len = data.len();
        match self.lie {
            Lie::Ignores => {}
            Lie::Half => data[..len / 2].fill(leaves),
            Lie::None | Lie::DropsWrites | Lie::Wraps => data.fill(leaves),
        }
    }

    /// True once after each command that began something.
    fn goes_on(&self) -> bool {
        let mut looks = lock(&self.looks);
        *looks = looks.saturating_sub(1);
        *looks > 0
    }

    fn at(&self, offset: u64) -> usize {
        let len = lock(&self.data).len() as u64;
        (if self.lie == Lie::Wraps { offset % (len / 2) } else { offset }) as usize
    }
}

impl Drive for Model {
    fn size(&self) -> u64 {
        lock(&self.data).len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let at = self.at(offset);
        into.copy_from_slice(&lock(&self.data)[at..at + into.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), DeviceError> {
        let at = self.at(offset);
        if self.lie != Lie::DropsWrites {
            let mut data = lock(&self.data);
            let end = data.len().min(at + from.len());
            data[at..end].copy_from_slice(&from[..end - at]);
        }
        Ok(())
    }

    fn zero(&self, range: &Range<u64>) -> Result<(), DeviceError> {
        if self.lie != Lie::DropsWrites {
            lock(&self.data)[range.start as usize..range.end as usize].fill(0);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn give_back(&self, range: &Range<u64>) -> io::Result<()> {
        if self.lie != Lie::Ignores {
            lock(&self.data)[range.start as usize..range.end as usize].fill(0);
        }
        Ok(())
    }

    fn namespace(&self) -> io::Result<u32> {
        Ok(1)
    }

    fn nvme(
        &self,
        command: &ramdisk_agent_core::erase::nvme::Command,
        data: &mut [u8],
        _: Duration,
    ) -> io::Result<u16> {
        if command.opcode != 0x02 {
            self.say(format!("nvme {:#04x} {:#x}", command.opcode, command.dword10));
        }
        if self.nvme_refuses.contains(&command.opcode) {
            return Ok(0x2);
        }
        match command.opcode {
            0x02 => {
                let state = if self.goes_on() { 2 } else { 1 };
                data[..4].copy_from_slice(&[0, 0x80, state, 0]);
            }
            0x84 => {
                self.erase(0xff);
                *lock(&self.looks) = 2;
            }
            0x80 => self.erase(0),
            _ => return Ok(0x1),
        }
        Ok(0)
    }

    fn scsi(&self, command: &[u8], data: ScsiData<'_>, _: Duration) -> io::Result<Answer> {
        let good = Answer { good: true, sense: Vec::new() };
        let sense = |octets: &[u8]| Answer { good: false, sense: octets.to_vec() };
        match (command[0], &self.ata) {
            (0x85, Some(identify)) => return Ok(self.ata(command, data, identify)),
            (0xa3, None) => {
                if let ScsiData::In(answer) = data {
                    answer[1] = if self.scsi.contains(&command[5]) { 3 } else { 1 };
                }
                return Ok(good);
            }
            (0x48, None) => {
                self.say(format!("scsi sanitize {:#04x}", command[1]));
                self.erase(0);
                *lock(&self.looks) = 2;
                return Ok(good);
            }
            (0x00, None) if self.goes_on() => return Ok(sense(&[0x72, 2, 0x04, 0x1b])),
            (0x00, None) => return Ok(good),
            _ => {}
        }
        // ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE.
        Ok(sense(&[0x72, 5, 0x20, 0]))
    }
}

impl Model {
    fn ata(&self, command: &[u8], data: ScsiData<'_>, identify: &[u8]) -> Answer {
        let mut registers = [0; 22];
        registers[0] = 0x72;
        registers[1] = 1;
        registers[7] = 14;
        registers[8..10].copy_from_slice(&[9, 12]);
        registers[21] = 0x50;
        if command[14] != 0xec && command[4] != 0 || matches!(command[14], 0xf1..=0xf6) {
            self.say(format!("ata {:#04x} {:#04x}", command[14], command[4]));
        }
        match (command[14], command[4], data) {
            (0xec, _, ScsiData::In(answer)) => answer.copy_from_slice(&identify[..answer.len()]),
            // SANITIZE STATUS EXT: it goes on, or ended well.
            (0xb4, 0, _) => registers[12] = if self.goes_on() { 0x40 } else { 0x80 },
            (0xb4, ..) => {
                self.erase(0);
                *lock(&self.looks) = 2;
            }
            (0xf4, ..) => self.erase(0),
            (0xf1 | 0xf2 | 0xf3 | 0xf6, ..) => {}
            _ => registers[21] = 0x51,
        }
        Answer { good: registers[21] == 0x50, sense: registers.to_vec() }
    }
}
