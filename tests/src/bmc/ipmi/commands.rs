//! The commands of the controller; each returns its data or a completion code.

use std::time::{SystemTime, UNIX_EPOCH};

use bmc::ipmi::chassis::{emit_flags, parse_flags};
use bmc::ipmi::message::{Request, Response, completion, net_fn};
use bmc::ipmi::rakp::ADMINISTRATOR;
use bmc::ipmi::sol::Sol;
use bmc::{BootDevice, PowerAction, PowerState};

use super::controller::{Controller, SOL_PACKET, Terminal};
use super::records::inventory;

type Answer = Result<Vec<u8>, u8>;

/// Number of the one user.
const USER: u8 = 2;
/// Codes of single commands: a parameter that is not there; a payload that somebody has.
const NO_PARAMETER: u8 = 0x80;
const PAYLOAD_TAKEN: u8 = 0x80;
const PAYLOAD_IDLE: u8 = 0x80;
/// Octets of a password.
const PASSWORD: usize = 20;
/// Octets of an answer that a controller with small buffers gives.
const PIECE_MAX: u8 = 24;

impl Controller {
    /// Commands that need no session.
    pub(super) fn plain(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let (request, sequence) = Request::parse(message).ok()?;
        let outcome = match (request.net_fn, request.command) {
            // Section 22.13: IPMI 2.0, users with names, K_g or none.
            (net_fn::APP, 0x38) => {
                Ok(vec![1, 0x80, if self.plan.kg.is_some() { 0x24 } else { 0x04 }, 0x02, 0, 0, 0, 0])
            }
            (net_fn::APP, 0x54) if self.plan.hides_suites => return None,
            (net_fn::APP, 0x54) => self.cipher_suites(&request.data),
            (net_fn::APP, 0x37) => Ok(self.guid().to_vec()),
            _ => Err(completion::PRIVILEGE),
        };
        let (completion, data) = outcome.map_or_else(|code| (code, Vec::new()), |data| (0, data));
        Some(Response { net_fn: request.net_fn, command: request.command, completion, data }.emit(sequence))
    }

    fn cipher_suites(&self, data: &[u8]) -> Answer {
        let all: Vec<u8> = self
            .plan
            .suites
            .iter()
            .flat_map(|s| {
                let a = s.algorithms();
                [0xc0, s.id(), a.authentication, 0x40 | a.integrity, 0x80 | a.confidentiality]
            })
            .collect();
        let index = usize::from(data.get(2).ok_or(completion::LENGTH)? & 0x3f);
        Ok([&[1], all.chunks(16).nth(index).unwrap_or_default()].concat())
    }

    /// The SMBIOS UUID, with its first three fields little-endian, as controllers send it.
    pub(super) fn guid(&self) -> [u8; 16] {
        let uuid = self.machine.identity().uuid.and_then(|u| u.parse::<uuid::Uuid>().ok());
        uuid.unwrap_or_default().to_bytes_le()
    }

    /// True for Close Session.
    pub(super) fn closes(&self, request: &Request) -> bool {
        (request.net_fn, request.command) == (net_fn::APP, 0x3c)
    }

    /// Commands of a session.
    pub(super) fn command(&mut self, session: u32, request: &Request) -> Answer {
        match request.net_fn {
            net_fn::APP => self.app(session, request.command, &request.data),
            net_fn::CHASSIS => self.chassis(request.command, &request.data),
            net_fn::SENSOR => self.sensor(request.command, &request.data),
            net_fn::STORAGE => self.storage(request.command, &request.data),
            net_fn::TRANSPORT => transport(request.command, &request.data),
            _ => Err(completion::INVALID_COMMAND),
        }
    }

    fn app(&mut self, session: u32, command: u8, data: &[u8]) -> Answer {
        match command {
            // Device 20h with SDRs, firmware 1.23, IPMI 2.0, all of a controller's functions, no maker.
            0x01 => Ok(vec![0x20, 0x81, 0x01, 0x23, 0x02, 0xbf, 0, 0, 0, 0, 0]),
            0x02 => {
                self.sessions.retain(|id, _| *id == session);
                Ok(Vec::new())
            }
            0x37 => Ok(self.guid().to_vec()),
            0x3b => Ok(vec![ADMINISTRATOR]),
            0x3c => Ok(Vec::new()),
            // Two users, of which the second has a name and is administrator.
            0x44 => Ok(vec![2, 1, 0, 0x30 | ADMINISTRATOR]),
            0x46 => self.user_name(data),
            0x47 => self.set_password(data),
            0x48 => self.activate(session, data),
            0x49 => {
                self.console.take_if(|_| data.first() == Some(&1)).map(|_| Vec::new()).ok_or(PAYLOAD_IDLE)
            }
            // Instances of the payload: one, active or not.
            0x4a => Ok(vec![1, u8::from(self.console.is_some()), 0]),
            _ => self.plain_in_session(command, data),
        }
    }

    fn plain_in_session(&mut self, command: u8, data: &[u8]) -> Answer {
        let request = Request::new(net_fn::APP, command, data);
        if !matches!(command, 0x38 | 0x54) {
            return Err(completion::INVALID_COMMAND);
        }
        let answer = self.plain(&request.emit(0)).ok_or(completion::INVALID_COMMAND)?;
        Response::parse(&answer).map(|(r, _)| r.data).map_err(|_| completion::INVALID_COMMAND)
    }

    fn user_name(&self, data: &[u8]) -> Answer {
        let mut name = match data {
            [1] => Vec::new(),
            [USER] => self.plan.user.clone().into_bytes(),
            _ => return Err(completion::INVALID_FIELD),
        };
        name.resize(16, 0);
        Ok(name)
    }

    fn set_password(&mut self, data: &[u8]) -> Answer {
        let [id, operation, password @ ..] = data else { return Err(completion::LENGTH) };
        // Bit 7: twenty octets; operation 2: set.
        if id & 0x3f != USER || id & 0x80 == 0 || operation & 3 != 2 || password.len() != PASSWORD {
            return Err(completion::INVALID_FIELD);
        }
        let end = password.iter().position(|o| *o == 0).unwrap_or(PASSWORD);
        let password = std::str::from_utf8(&password[..end]).map_err(|_| completion::INVALID_FIELD)?;
        self.plan.password = password.to_owned();
        Ok(Vec::new())
    }

    fn activate(&mut self, session: u32, data: &[u8]) -> Answer {
        if data.get(..2) != Some(&[1, 1]) {
            return Err(completion::INVALID_FIELD);
        }
        if self.console.is_some() {
            return Err(PAYLOAD_TAKEN);
        }
        let printed = self.machine.console();
        self.console =
            Some(Terminal { session, sol: Sol::of_controller(SOL_PACKET), printed, rest: Vec::new() });
        let [low, high] = SOL_PACKET.to_le_bytes();
        let [port_low, port_high] = self.port.to_le_bytes();
        Ok(vec![0, 0, 0, 0, low, high, low, high, port_low, port_high, 0xff, 0xff])
    }

    fn chassis(&mut self, command: u8, data: &[u8]) -> Answer {
        let on = self.machine.power_state() == PowerState::On;
        match command {
            0x01 => Ok(vec![u8::from(on), 0, 0x40 | u8::from(self.identified) << 4]),
            0x02 => self.control(data.first().ok_or(completion::LENGTH)? & 0x0f, on),
            0x04 => {
                let seconds = data.first().copied().unwrap_or(15);
                self.identified = seconds > 0 || data.get(1).is_some_and(|force| force & 1 != 0);
                Ok(Vec::new())
            }
            0x08 => self.set_boot_option(data),
            0x09 => self.boot_option(data),
            _ => Err(completion::INVALID_COMMAND),
        }
    }

    fn control(&self, control: u8, on: bool) -> Answer {
        let action = match control {
            0 => PowerAction::ForceOff,
            1 => PowerAction::On,
            2 => PowerAction::Cycle,
            3 => PowerAction::Reset,
            4 => PowerAction::Nmi,
            5 => PowerAction::SoftOff,
            _ => return Err(completion::INVALID_FIELD),
        };
        if matches!(action, PowerAction::Reset | PowerAction::Nmi) && !on {
            return Err(completion::STATE);
        }
        // As a controller does: it answers, then acts.
        let machine = self.machine.clone();
        std::thread::spawn(move || {
            if let Err(e) = machine.power(action) {
                eprintln!("the machine of the stand-in: {e:#}");
            }
        });
        Ok(Vec::new())
    }

    fn set_boot_option(&mut self, data: &[u8]) -> Answer {
        let (parameter, value) = data.split_first().ok_or(completion::LENGTH)?;
        match parameter & 0x7f {
            0 if self.plan.no_set_in_progress => return Err(NO_PARAMETER),
            5 => {
                let flags = <[u8; 5]>::try_from(value).map_err(|_| completion::LENGTH)?;
                self.machine
                    .set_boot_override(&parse_flags(&flags))
                    .map_err(|_| completion::INVALID_FIELD)?;
            }
            0..=7 => {}
            _ => return Err(NO_PARAMETER),
        }
        self.boot_options.insert(parameter & 0x7f, value.to_vec());
        Ok(Vec::new())
    }

    fn boot_option(&self, data: &[u8]) -> Answer {
        let parameter = data.first().ok_or(completion::LENGTH)? & 0x7f;
        let value = match parameter {
            0 if self.plan.no_set_in_progress => return Err(NO_PARAMETER),
            5 => {
                let ordered = self.machine.boot_override();
                let none = ordered.device == BootDevice::None;
                emit_flags(&ordered, &[0; 5]).ok().filter(|_| !none).unwrap_or_default().to_vec()
            }
            0..=7 => self.boot_options.get(&parameter).cloned().unwrap_or_else(|| vec![0]),
            _ => return Err(NO_PARAMETER),
        };
        Ok([&[1, parameter][..], &value].concat())
    }

    fn sensor(&self, command: u8, data: &[u8]) -> Answer {
        let number = *data.first().ok_or(completion::LENGTH)?;
        match command {
            0x2d => self.sensors.reading(number).ok_or(completion::NOT_PRESENT),
            0x27 => self.sensors.thresholds(number).ok_or(completion::NOT_PRESENT),
            _ => Err(completion::INVALID_COMMAND),
        }
    }

    fn storage(&mut self, command: u8, data: &[u8]) -> Answer {
        match command {
            0x10 => {
                let [low, high] = (inventory(&self.machine.identity()).len() as u16).to_le_bytes();
                if data == [0] { Ok(vec![low, high, 0]) } else { Err(completion::NOT_PRESENT) }
            }
            0x11 => self.read_fru(data),
            // Version 1.5 (BCD, low digit first), count, free space, two times, operations: reserve.
            0x20 => {
                let [low, high] = (self.sensors.records.len() as u16).to_le_bytes();
                Ok(vec![0x51, low, high, 0xff, 0xff, 1, 0, 0, 0x40, 1, 0, 0, 0x40, 0x22])
            }
            0x22 | 0x42 => {
                self.reservation = self.reservation.wrapping_add(1).max(1);
                Ok(self.reservation.to_le_bytes().to_vec())
            }
            0x23 => self.sdr(data),
            0x40 => {
                let [low, high] = (self.log.len() as u16).to_le_bytes();
                Ok(vec![0x51, low, high, 0xff, 0xff, 1, 0, 0, 0x40, 1, 0, 0, 0x40, 0x02])
            }
            0x43 => self.event(data),
            0x47 => self.clear_log(data),
            0x48 => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
                Ok((now as u32).to_le_bytes().to_vec())
            }
            _ => Err(completion::INVALID_COMMAND),
        }
    }

    fn read_fru(&self, data: &[u8]) -> Answer {
        let [0, low, high, count] = data else { return Err(completion::NOT_PRESENT) };
        let all = inventory(&self.machine.identity());
        let rest = all.get(usize::from(u16::from_le_bytes([*low, *high]))..).ok_or(completion::RANGE)?;
        if *count > PIECE_MAX && self.plan.sdr_in_pieces {
            return Err(completion::TOO_MANY);
        }
        let piece = &rest[..rest.len().min(usize::from(*count))];
        Ok([&[piece.len() as u8], piece].concat())
    }

    fn sdr(&self, data: &[u8]) -> Answer {
        let [r0, r1, i0, i1, offset, count] = *data else { return Err(completion::LENGTH) };
        let whole = offset == 0 && count == 0xff;
        if !(whole && [r0, r1] == [0, 0]) && u16::from_le_bytes([r0, r1]) != self.reservation {
            return Err(completion::RESERVATION);
        }
        if self.plan.sdr_in_pieces && count > PIECE_MAX {
            return Err(completion::TOO_MANY);
        }
        let records = &self.sensors.records;
        let id = usize::from(u16::from_le_bytes([i0, i1]));
        let index = match id {
            0 => 0,
            0xffff => records.len() - 1,
            id => id - 1,
        };
        let record = records.get(index).ok_or(completion::NOT_PRESENT)?;
        let next = if index + 1 == records.len() { 0xffff } else { index as u16 + 2 };
        let rest = record.get(usize::from(offset)..).ok_or(completion::RANGE)?;
        Ok([&next.to_le_bytes()[..], &rest[..rest.len().min(usize::from(count))]].concat())
    }

    fn event(&self, data: &[u8]) -> Answer {
        let [_, _, i0, i1, offset, count] = *data else { return Err(completion::LENGTH) };
        let id = u16::from_le_bytes([i0, i1]);
        let index = match id {
            0 => 0,
            0xffff => self.log.len().saturating_sub(1),
            id => usize::from(id) - 1,
        };
        let event = self.log.get(index).ok_or(completion::NOT_PRESENT)?;
        let record = event.record(index as u16 + 1);
        let next = if index + 1 == self.log.len() { 0xffff } else { index as u16 + 2 };
        let rest = record.get(usize::from(offset)..).ok_or(completion::RANGE)?;
        Ok([&next.to_le_bytes()[..], &rest[..rest.len().min(usize::from(count))]].concat())
    }

    fn clear_log(&mut self, data: &[u8]) -> Answer {
        let [r0, r1, b'C', b'L', b'R', step] = *data else { return Err(completion::INVALID_FIELD) };
        if u16::from_le_bytes([r0, r1]) != self.reservation {
            return Err(completion::RESERVATION);
        }
        if step == 0xaa {
            self.log.clear();
        }
        Ok(vec![1])
    }
}

/// SOL's settings (section 26.3), as far as clients look at them before they activate.
fn transport(command: u8, data: &[u8]) -> Answer {
    if command != 0x22 {
        return Err(completion::INVALID_COMMAND);
    }
    let parameter = *data.get(1).ok_or(completion::LENGTH)?;
    let value: &[u8] = match parameter {
        0 => &[0],
        1 => &[1],
        2 => &[0xc0 | ADMINISTRATOR],
        3 => &[12, 96],
        4 => &[7, 50],
        5 | 6 => &[0x0a],
        7 => &[1],
        8 => &[0x6f, 0x02],
        _ => return Err(NO_PARAMETER),
    };
    Ok([&[0x11], value].concat())
}
