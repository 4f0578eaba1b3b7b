//! Sensors read: numbers with their limits, and parts whose states are told by discrete sensors (sections 35.14 and 42).

use super::events;
use super::link::{Ask, Link, data};
use super::message::completion;
use super::repository::Repository;
use super::sdr::{self, Analog, Sensor};
use crate::{BmcError, Component, ComponentKind, Health, Reading, Severity};

const GET_FACTORS: u8 = 0x23;
const GET_READING: u8 = 0x2d;
const WHAT: &str = "a sensor";
/// Slave address of the controller itself; sensors of others need bridging.
const OURS: u8 = 0x20;
/// Event/reading type of sensors whose states have their own meaning (table 42-1).
const ALL_STATES: u16 = 0x7fff;

/// All sensors that give numbers.
pub(super) async fn readings(link: &mut Link, repository: &mut Repository) -> Result<Vec<Reading>, BmcError> {
    let mut out = Vec::new();
    for sensor in repository.refresh(link).await?.to_vec() {
        let Some(analog) = sensor.analog.filter(|_| sensor.owner == OURS) else { continue };
        let read = read(link, &sensor).await?;
        let value = match read.as_ref().and_then(|r| r.raw) {
            Some(raw) => value(link, &sensor, analog, raw).await?,
            None => None,
        };
        let limits = analog.limits();
        let health = read.as_ref().filter(|_| value.is_some()).map(State::threshold_health);
        out.push(Reading {
            name: sensor.name,
            unit: analog.unit,
            value,
            health,
            upper_warning: limits.upper_warning,
            upper_critical: limits.upper_critical,
            lower_critical: limits.lower_critical,
        });
    }
    Ok(out)
}

/// Parts of which a discrete sensor tells a state.
pub(super) async fn components(
    link: &mut Link,
    repository: &mut Repository,
) -> Result<Vec<Component>, BmcError> {
    let mut out = Vec::new();
    for sensor in repository.refresh(link).await?.to_vec() {
        let Some(kind) = component_kind(&sensor) else { continue };
        let Some(states) = read(link, &sensor).await?.filter(|r| r.raw.is_some()).map(|r| r.states) else {
            continue;
        };
        // A part that is absent is none.
        if let Some(health) = health_of(&sensor, states) {
            out.push(Component {
                kind,
                name: sensor.name,
                health,
                location: None,
                model: None,
                serial: None,
                part_number: None,
            });
        }
    }
    Ok(out)
}

/// What a discrete sensor is about, where that is a part.
fn component_kind(sensor: &Sensor) -> Option<ComponentKind> {
    if sensor.owner != OURS || sensor.reading_type == events::THRESHOLD {
        return None;
    }
    match sensor.kind {
        0x04 | 0x0a => Some(ComponentKind::Fan),
        0x07 => Some(ComponentKind::Processor),
        0x08 | 0x09 => Some(ComponentKind::PowerSupply),
        0x0c => Some(ComponentKind::Memory),
        0x0d => Some(ComponentKind::Drive),
        0x28 => Some(ComponentKind::Bmc),
        0x29 => Some(ComponentKind::Other),
        _ => None,
    }
}

/// The worst of the states that hold; `None` where a part is not there, or nothing is known.
fn health_of(sensor: &Sensor, states: u16) -> Option<Health> {
    let holds = |offset: u8| states & ALL_STATES & (1 << offset) != 0;
    let known = |offset: u8| events::state(sensor.kind, sensor.reading_type, offset);
    let found: Vec<_> = (0..15).filter(|o| holds(*o)).filter_map(known).collect();
    if found.iter().any(|(words, _)| *words == "absent") {
        return None;
    }
    let worst = found.iter().map(|(_, severity)| *severity).max()?;
    Some(match worst {
        Severity::Ok => Health::Ok,
        Severity::Warning => Health::Warning,
        Severity::Critical => Health::Critical,
    })
}

/// An answer to Get Sensor Reading.
struct State {
    /// `None` while the sensor has no reading.
    raw: Option<u8>,
    states: u16,
}

impl State {
    /// Bits 5:0 are the thresholds that are passed, from lower non-critical to upper non-recoverable.
    fn threshold_health(&self) -> Health {
        match self.states as u8 & 0x3f {
            0 => Health::Ok,
            bits if bits & 0b11_0110 != 0 => Health::Critical,
            _ => Health::Warning,
        }
    }
}

/// `None` for a sensor that its controller does not know, which happens in repositories made for several models.
async fn read(link: &mut Link, sensor: &Sensor) -> Result<Option<State>, BmcError> {
    let ask = Ask::sensor(WHAT, GET_READING, &[sensor.number]);
    let response = link.answer(&ask).await?;
    match response.completion {
        completion::OK => {}
        completion::PRIVILEGE => return data(&ask, response).map(|_| None),
        _ => return Ok(None),
    }
    let [raw, flags, rest @ ..] = &response.data[..] else { return Ok(None) };
    // Section 35.14: bit 5 "reading unavailable", bit 6 "scanning enabled".
    let there = flags & 0x20 == 0 && flags & 0x40 != 0;
    let states = [rest.first(), rest.get(1)].map(|o| o.copied().unwrap_or(0));
    Ok(Some(State { raw: there.then_some(*raw), states: u16::from_le_bytes(states) }))
}

async fn value(link: &mut Link, sensor: &Sensor, analog: Analog, raw: u8) -> Result<Option<f64>, BmcError> {
    if !analog.is_non_linear() {
        return Ok(analog.value(raw));
    }
    let response = link.answer(&Ask::sensor(WHAT, GET_FACTORS, &[sensor.number, raw])).await?;
    let factors = Some(&response.data).filter(|_| response.completion == completion::OK);
    Ok(factors.and_then(|d| sdr::parse_factors(d)).and_then(|f| analog.with_factors(f).value(raw)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sensor(kind: u8, reading_type: u8) -> Sensor {
        let name = String::from("x");
        Sensor { number: 1, lun: 0, owner: OURS, entity: (0, 0), kind, reading_type, name, analog: None }
    }

    #[test]
    fn a_part_is_as_well_as_its_worst_state() {
        let supply = sensor(0x08, events::SENSOR_SPECIFIC);
        assert_eq!(component_kind(&supply), Some(ComponentKind::PowerSupply));
        assert_eq!(health_of(&supply, 0x8001), Some(Health::Ok));
        assert_eq!(health_of(&supply, 0x8005), Some(Health::Warning));
        assert_eq!(health_of(&supply, 0x8007), Some(Health::Critical));
        assert_eq!(health_of(&supply, 0x8000), None);
        assert_eq!(health_of(&sensor(0x04, 0x08), 1), None, "absent");
        assert_eq!(component_kind(&sensor(0x04, events::THRESHOLD)), None);
    }

    #[test]
    fn thresholds_passed_are_health() {
        let health = |states| State { raw: Some(0), states }.threshold_health();
        assert_eq!(
            [health(0xc0), health(0x08), health(0x01), health(0x18), health(0x02)],
            [Health::Ok, Health::Warning, Health::Warning, Health::Critical, Health::Critical]
        );
    }
}
