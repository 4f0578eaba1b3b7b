//! Sensor data records (chapter 43) and what a raw reading means (section 36.3).

use crate::Unit;

const FULL: u8 = 0x01;
const COMPACT: u8 = 0x02;
/// Where the fields lie in a record, its header of five octets included (tables 43-1 and 43-2, less one).
const FULL_NAME: usize = 47;
const COMPACT_NAME: usize = 31;

/// A sensor, as its record describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensor {
    /// Its number, by which it is read.
    pub number: u8,
    /// Logical unit that it is read at.
    pub lun: u8,
    /// Address of the controller that owns it.
    pub owner: u8,
    /// Entity that it belongs to (table 43-13), and which of these.
    pub entity: (u8, u8),
    /// Sensor type (table 42-3).
    pub kind: u8,
    /// Event/reading type (table 42-1): 1 is thresholds.
    pub reading_type: u8,
    /// Its name.
    pub name: String,
    /// How its readings become numbers; `None` for sensors that have states only.
    pub analog: Option<Analog>,
}

/// How raw readings become numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Analog {
    /// What they count.
    pub unit: Unit,
    format: Format,
    /// Kelvin or Fahrenheit, made Celsius.
    scale: Scale,
    linear: u8,
    factors: Factors,
    /// Thresholds as raw readings, where the controller has them.
    upper_warning: Option<u8>,
    upper_critical: Option<u8>,
    lower_critical: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Unsigned,
    OnesComplement,
    TwosComplement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Same,
    Kelvin,
    Fahrenheit,
}

/// M, B and the two exponents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factors {
    m: i16,
    b: i16,
    b_exponent: i8,
    r_exponent: i8,
}

/// Limits of a sensor, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Upper non-critical.
    pub upper_warning: Option<f64>,
    /// Upper critical.
    pub upper_critical: Option<f64>,
    /// Lower critical.
    pub lower_critical: Option<f64>,
}

impl Analog {
    /// True where the factors depend on the reading and are asked for with it (section 35.5).
    pub fn is_non_linear(&self) -> bool {
        (0x70..=0x7f).contains(&self.linear)
    }

    /// The same with the factors of one reading.
    #[must_use]
    pub fn with_factors(mut self, factors: Factors) -> Self {
        self.factors = factors;
        self
    }

    /// What a raw reading means; `None` where it is no number (1/0, the logarithm of less than nothing).
    pub fn value(&self, raw: u8) -> Option<f64> {
        let x = match self.format {
            Format::Unsigned => f64::from(raw),
            Format::OnesComplement if raw >= 0x80 => -f64::from(!raw),
            Format::OnesComplement => f64::from(raw),
            Format::TwosComplement => f64::from(raw as i8),
        };
        let Factors { m, b, b_exponent, r_exponent } = self.factors;
        let inner = f64::from(m) * x + f64::from(b) * 10_f64.powi(b_exponent.into());
        let value = self.linearise(inner * 10_f64.powi(r_exponent.into()));
        let value = match self.scale {
            Scale::Same => value,
            Scale::Kelvin => value - 273.15,
            Scale::Fahrenheit => (value - 32.0) / 1.8,
        };
        // More digits than a reading of eight bits has are noise of the exponents.
        Some((value * 1e6).round() / 1e6).filter(|value| value.is_finite())
    }

    /// Table 43-1, octet 24.
    fn linearise(&self, y: f64) -> f64 {
        match self.linear {
            1 => y.ln(),
            2 => y.log10(),
            3 => y.log2(),
            4 => y.exp(),
            5 => 10_f64.powf(y),
            6 => y.exp2(),
            7 => 1.0 / y,
            8 => y * y,
            9 => y * y * y,
            10 => y.sqrt(),
            11 => 1.0 / y.cbrt(),
            _ => y,
        }
    }

    /// Its thresholds; none where the factors depend on the reading.
    pub fn limits(&self) -> Limits {
        if self.is_non_linear() {
            return Limits::default();
        }
        let number = |raw: Option<u8>| raw.and_then(|raw| self.value(raw));
        Limits {
            upper_warning: number(self.upper_warning),
            upper_critical: number(self.upper_critical),
            lower_critical: number(self.lower_critical),
        }
    }
}

/// Reads a record; `None` for those that describe no sensor, or not enough of one.
pub fn parse(record: &[u8]) -> Option<Sensor> {
    let (name_at, analog) = match *record.get(3)? {
        FULL => (FULL_NAME, parse_analog(record)),
        COMPACT => (COMPACT_NAME, None),
        _ => return None,
    };
    let name = text(*record.get(name_at)?, record.get(name_at + 1..).unwrap_or_default());
    let at = |index: usize| record.get(index).copied();
    Some(Sensor {
        owner: at(5)?,
        lun: at(6)? & 3,
        number: at(7)?,
        entity: (at(8)?, at(9)? & 0x7f),
        kind: at(12)?,
        reading_type: at(13)? & 0x7f,
        name,
        analog,
    })
}

fn parse_analog(record: &[u8]) -> Option<Analog> {
    let at = |index: usize| record.get(index).copied();
    let units = at(20)?;
    let format = match units >> 6 {
        0 => Format::Unsigned,
        1 => Format::OnesComplement,
        2 => Format::TwosComplement,
        _ => return None,
    };
    // A rate (bits 5:3) or a product of units (bits 2:1) is none of ours.
    let simple = units & 0x3e == 0;
    let (unit, scale) = match (at(21)?, units & 1) {
        (_, 1) => (Unit::Percent, Scale::Same),
        (1, _) if simple => (Unit::Celsius, Scale::Same),
        (2, _) if simple => (Unit::Celsius, Scale::Fahrenheit),
        (3, _) if simple => (Unit::Celsius, Scale::Kelvin),
        (4, _) if simple => (Unit::Volt, Scale::Same),
        (5, _) if simple => (Unit::Ampere, Scale::Same),
        (6, _) if simple => (Unit::Watt, Scale::Same),
        (18, _) => (Unit::Rpm, Scale::Same),
        _ => (Unit::Other, Scale::Same),
    };
    // Octet 19: which thresholds can be read, from lower non-critical in bit 0 to upper non-recoverable in bit 5.
    let readable = at(18)?;
    let threshold = |bit: u8, index: usize| at(index).filter(|_| readable & (1 << bit) != 0);
    Some(Analog {
        unit,
        format,
        scale,
        linear: at(23)? & 0x7f,
        factors: factors(at(24)?, at(25)?, at(26)?, at(27)?, at(29)?),
        upper_warning: threshold(3, 38),
        upper_critical: threshold(4, 37),
        lower_critical: threshold(1, 40),
    })
}

/// Reads the answer to Get Sensor Reading Factors (section 35.5): the next reading, then octets as in a record.
pub fn parse_factors(data: &[u8]) -> Option<Factors> {
    match data {
        [_, m, m_high, b, b_high, _, exponents, ..] => Some(factors(*m, *m_high, *b, *b_high, *exponents)),
        _ => None,
    }
}

/// M and B have ten bits, the exponents four, all signed.
fn factors(m: u8, m_high: u8, b: u8, b_high: u8, exponents: u8) -> Factors {
    let ten = |low: u8, high: u8| {
        let raw = i16::from(low) | i16::from(high >> 6) << 8;
        if raw >= 0x200 { raw - 0x400 } else { raw }
    };
    let four = |raw: u8| if raw >= 8 { raw as i8 - 16 } else { raw as i8 };
    Factors {
        m: ten(m, m_high),
        b: ten(b, b_high),
        b_exponent: four(exponents & 0x0f),
        r_exponent: four(exponents >> 4),
    }
}

/// Reads a text of a type/length octet (section 43.15; FRU's, section 13 of its specification, are alike). What is no text
/// is left out.
pub fn text(type_length: u8, octets: &[u8]) -> String {
    let octets = &octets[..octets.len().min(usize::from(type_length & 0x3f))];
    let text: String = match type_length >> 6 {
        0 => octets.iter().map(|o| format!("{o:02x}")).collect(),
        1 => octets.iter().flat_map(|o| [o >> 4, o & 0x0f]).map(bcd_plus).collect(),
        2 => six_bit(octets),
        _ => octets.iter().map(|o| char::from(*o)).collect(),
    };
    text.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned()
}

fn bcd_plus(nibble: u8) -> char {
    match nibble {
        0..=9 => char::from(b'0' + nibble),
        10 => ' ',
        11 => '-',
        12 => '.',
        13 => ':',
        14 => ',',
        _ => '_',
    }
}

/// Four characters in three octets, the lowest bits first, counted from the space.
fn six_bit(octets: &[u8]) -> String {
    let mut out = String::new();
    for piece in octets.chunks(3) {
        let bits = piece.iter().rev().fold(0_u32, |bits, octet| bits << 8 | u32::from(*octet));
        let count = piece.len() * 8 / 6;
        out.extend((0..count).map(|n| char::from(0x20 + (bits >> (6 * n) & 0x3f) as u8)));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A full record of a temperature: readings are degrees, 8 bits unsigned.
    fn record() -> Vec<u8> {
        let mut record = vec![0; FULL_NAME];
        (record[3], record[5], record[7], record[8], record[9]) = (FULL, 0x20, 9, 3, 1);
        (record[12], record[13], record[18], record[21], record[24]) = (1, 1, 0x3f, 1, 1);
        (record[36], record[37], record[38], record[40]) = (110, 100, 90, 5);
        record.push(0xc4);
        record.extend(b"CPU1");
        record
    }

    #[test]
    fn a_full_record_is_a_sensor_with_limits() {
        let sensor = parse(&record()).unwrap();
        assert_eq!((sensor.name.as_str(), sensor.number, sensor.entity), ("CPU1", 9, (3, 1)));
        let analog = sensor.analog.unwrap();
        assert_eq!((analog.unit, analog.value(42)), (Unit::Celsius, Some(42.0)));
        let limits =
            Limits { upper_warning: Some(90.0), upper_critical: Some(100.0), lower_critical: Some(5.0) };
        assert_eq!(analog.limits(), limits);
    }

    #[test]
    fn readings_are_made_numbers_by_factors_sign_and_curve() {
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut record = record();
            change(&mut record);
            parse(&record).unwrap().analog.unwrap()
        };
        // 12 V: M = 63, R exponent = -3.
        let volts = with(&|r| (r[21], r[24], r[29]) = (4, 63, 0xd0));
        assert_eq!((volts.unit, volts.value(190)), (Unit::Volt, Some(11.97)));
        let signed = with(&|r| r[20] = 0x80);
        assert_eq!(signed.value(0xf6), Some(-10.0));
        assert_eq!(with(&|r| r[20] = 0x40).value(0xf6), Some(-9.0));
        // B = -5, with exponent 1: 10 - 50.
        let offset = with(&|r| (r[26], r[27], r[29]) = (0xfb, 0xc0, 0x01));
        assert_eq!(offset.value(10), Some(-40.0));
        assert_eq!(with(&|r| r[23] = 7).value(4), Some(0.25));
        assert_eq!(with(&|r| r[23] = 7).value(0), None);
        // 10^305 is a number, but a million of them are none.
        assert_eq!(with(&|r| (r[23], r[24]) = (5, 61)).value(5), None);
        assert_eq!(with(&|r| r[21] = 3).value(200), Some(-73.15));
        assert_eq!(with(&|r| r[21] = 2).value(212), Some(100.0));
        assert_eq!(with(&|r| r[20] = 1).unit, Unit::Percent);
        assert_eq!(with(&|r| (r[20], r[21]) = (0x08, 4)).unit, Unit::Other);
        let strange = with(&|r| r[23] = 0x71);
        assert!(strange.is_non_linear());
        assert_eq!(strange.limits(), Limits::default());
        let factors = parse_factors(&[0, 2, 0, 1, 0, 0, 0]).unwrap();
        assert_eq!(strange.with_factors(factors).value(10), Some(21.0));
    }

    #[test]
    fn texts_of_all_four_kinds_are_read() {
        assert_eq!(text(0xc3, b"abcdef"), "abc");
        assert_eq!(text(0x02, &[0xab, 0x01]), "ab01");
        assert_eq!(text(0x42, &[0x12, 0xb3]), "12-3");
        // The example of section 43.15 (FRU specification, section 13.3): "IPMI".
        assert_eq!(text(0x83, &[0x29, 0xdc, 0xa6]), "IPMI");
        assert_eq!(text(0xc5, b"a\0\x1b \0"), "a");
    }

    proptest! {
        #[test]
        fn no_record_panics(record in proptest::collection::vec(any::<u8>(), 0..70), full in any::<bool>(), raw in any::<u8>()) {
            let mut record = record;
            if let Some(kind) = record.get_mut(3) {
                *kind = if full { FULL } else { COMPACT };
            }
            if let Some(analog) = parse(&record).and_then(|s| s.analog) {
                prop_assert!(analog.value(raw).is_none_or(f64::is_finite));
                let _ = analog.limits();
            }
            let _ = parse_factors(&record);
        }
    }
}
