//! What the controller says of itself: sensor data records, events, inventory.

use std::collections::BTreeMap;

use bmc::ipmi::fru;

/// Sensors and their readings.
pub(super) struct Sensors {
    /// Records in order; the id of each is its place.
    pub records: Vec<Vec<u8>>,
    /// Raw reading and two octets of states, by number.
    readings: BTreeMap<u8, (u8, [u8; 2])>,
}

/// Number of the processor's temperature.
pub const TEMPERATURE: u8 = 1;
/// Number of the fan.
pub const FAN: u8 = 2;
/// Number of the 12 V rail.
pub const VOLTAGE: u8 = 3;
/// Number of the power supply, which has states only.
pub const SUPPLY: u8 = 4;

impl Sensors {
    pub fn new() -> Self {
        let mut records = vec![
            // Degrees; upper critical 100, warning 90, lower critical 5.
            full("CPU Temp", TEMPERATURE, 0x01, (3, 1), 1, (1, 0), Some((90, 100, 5))),
            // 100 revolutions each.
            full("Fan 1", FAN, 0x04, (29, 1), 18, (100, 0), Some((250, 255, 3))),
            // 63 mV each: exponent -3.
            full("P12V", VOLTAGE, 0x02, (20, 1), 4, (63, 0xd0), None),
            compact("PSU 1", SUPPLY, 0x08, (10, 1)),
        ];
        for (id, record) in records.iter_mut().enumerate() {
            record[0] = id as u8 + 1;
        }
        let readings = [
            (TEMPERATURE, (42, [0xc0, 0])),
            (FAN, (60, [0xc0, 0])),
            (VOLTAGE, (190, [0xc0, 0])),
            (SUPPLY, (0, [1, 0x80])),
        ];
        Self { records, readings: readings.into() }
    }

    pub fn set(&mut self, number: u8, raw: u8, passed: u8) {
        if let Some(reading) = self.readings.get_mut(&number) {
            let states = if number == SUPPLY { [passed, 0x80] } else { [0xc0 | passed, 0] };
            *reading = (raw, states);
        }
    }

    /// Answer to Get Sensor Reading: event messages and scanning are on.
    pub fn reading(&self, number: u8) -> Option<Vec<u8>> {
        self.readings.get(&number).map(|(raw, [low, high])| vec![*raw, 0xc0, *low, *high])
    }

    /// Answer to Get Sensor Thresholds (section 35.9): a mask, then lower non-critical to upper non-recoverable.
    pub fn thresholds(&self, number: u8) -> Option<Vec<u8>> {
        let record = self.records.iter().find(|r| r[7] == number && r[3] == 1)?;
        Some(vec![record[18] & 0x3f, record[41], record[40], record[39], record[38], record[37], record[36]])
    }
}

/// A full record (table 43-1). `thresholds`: upper warning, upper critical, lower critical.
fn full(
    name: &str,
    number: u8,
    kind: u8,
    entity: (u8, u8),
    unit: u8,
    (m, exponents): (u8, u8),
    thresholds: Option<(u8, u8, u8)>,
) -> Vec<u8> {
    let mut record = vec![0; 47];
    (record[2], record[3], record[5], record[7]) = (0x51, 1, 0x20, number);
    // Initialised, scanning; thresholds readable.
    (record[8], record[9], record[10], record[11], record[12], record[13]) =
        (entity.0, entity.1, 0x7f, 0x68, kind, 1);
    (record[21], record[24], record[29], record[34]) = (unit, m, exponents, 0xff);
    if let Some((warning, critical, low)) = thresholds {
        record[18] = 0b01_1010;
        (record[38], record[37], record[40]) = (warning, critical, low);
    }
    finish(record, name)
}

/// A compact record (table 43-2) of states that the sensor type defines.
fn compact(name: &str, number: u8, kind: u8, entity: (u8, u8)) -> Vec<u8> {
    let mut record = vec![0; 31];
    (record[2], record[3], record[5], record[7]) = (0x51, 2, 0x20, number);
    (record[8], record[9], record[10], record[11], record[12], record[13]) =
        (entity.0, entity.1, 0x7f, 0x48, kind, 0x6f);
    (record[14], record[16], record[18], record[20], record[23]) = (0x0f, 0x0f, 0x0f, 0xc0, 1);
    finish(record, name)
}

fn finish(mut record: Vec<u8>, name: &str) -> Vec<u8> {
    record.push(0xc0 | name.len() as u8);
    record.extend(name.as_bytes());
    record[4] = (record.len() - 5) as u8;
    record
}

/// An event.
pub(super) struct Event {
    pub seconds: u32,
    pub event: [u8; 6],
}

impl Event {
    /// As a record of the event log (section 32.1) with this id.
    pub fn record(&self, id: u16) -> Vec<u8> {
        let mut record = id.to_le_bytes().to_vec();
        record.push(2);
        record.extend(self.seconds.to_le_bytes());
        record.extend([0x20, 0, 4]);
        record.extend(self.event);
        record
    }
}

/// The inventory of a machine.
pub(super) fn inventory(identity: &bmc::Identity) -> Vec<u8> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (maker, model, serial) =
        (text(&identity.manufacturer), text(&identity.model), text(&identity.serial));
    fru::emit(&[&maker, &model, "PN-1", "1.0", &serial])
}
