//! Sensors, in the three forms that services have: `Thermal` and `Power` (until 2020.4), `Sensors`, and the excerpts of
//! `ThermalSubsystem` and `PowerSubsystem`.
//!
//! The old form is asked first where both are there: it is two requests in place of a hundred.

use super::address::Link;
use super::call::Call;
use super::components::health;
use super::json::{Resource, View};
use crate::{BmcError, Reading, Unit};

impl Call<'_> {
    pub(super) async fn readings(&self) -> Result<Vec<Reading>, BmcError> {
        let tree = self.tree().await?;
        let mut readings = Vec::new();
        for chassis in self.get_all(&tree.chassis).await? {
            let view = chassis.view(self.origin());
            let mut found = self.old_form(&view).await?;
            if found.is_empty() {
                found = self.sensors(&view).await?;
            }
            if found.is_empty() {
                found = self.subsystems(&view).await?;
            }
            readings.extend(found);
        }
        Ok(readings)
    }

    async fn old_form(&self, chassis: &View<'_>) -> Result<Vec<Reading>, BmcError> {
        let mut out = Vec::new();
        if let Some(thermal) = self.get_linked(chassis, "Thermal").await? {
            let view = thermal.view(self.origin());
            for part in present(view.list("Temperatures")?)? {
                out.extend(reading(&part, "ReadingCelsius", Unit::Celsius, "Name")?);
            }
            for part in present(view.list("Fans")?)? {
                // `FanName`, `CurrentReading` and `Units` are those of services before Thermal 1.1 (iLO 4).
                let unit = match part.text("ReadingUnits")?.or(part.text("Units")?) {
                    Some("Percent") => Unit::Percent,
                    _ => Unit::Rpm,
                };
                let name = if part.text("Name")?.is_some() { "Name" } else { "FanName" };
                let value = if part.number("Reading")?.is_some() { "Reading" } else { "CurrentReading" };
                out.extend(reading(&part, value, unit, name)?);
            }
        }
        if let Some(power) = self.get_linked(chassis, "Power").await? {
            let view = power.view(self.origin());
            for part in present(view.list("Voltages")?)? {
                out.extend(reading(&part, "ReadingVolts", Unit::Volt, "Name")?);
            }
            for part in present(view.list("PowerControl")?)? {
                out.extend(reading(&part, "PowerConsumedWatts", Unit::Watt, "Name")?);
            }
            for part in present(view.list("PowerSupplies")?)? {
                let value = if part.number("PowerInputWatts")?.is_some() {
                    "PowerInputWatts"
                } else {
                    "LastPowerOutputWatts"
                };
                out.extend(reading(&part, value, Unit::Watt, "Name")?.filter(|r| r.value.is_some()));
            }
        }
        Ok(out)
    }

    async fn sensors(&self, chassis: &View<'_>) -> Result<Vec<Reading>, BmcError> {
        let mut out = Vec::new();
        for sensor in self.members_of(chassis, "Sensors").await? {
            let view = sensor.view(self.origin());
            if is_present(&view)? {
                let unit = unit(view.text("ReadingUnits")?, view.text("ReadingType")?);
                let name = name(&view, "Name")?.unwrap_or_else(|| sensor.link.last().to_owned());
                out.push(sensor_reading(&view, name, unit)?);
            }
        }
        Ok(out)
    }

    async fn subsystems(&self, chassis: &View<'_>) -> Result<Vec<Reading>, BmcError> {
        let mut out = Vec::new();
        if let Some(thermal) = self.get_linked(chassis, "ThermalSubsystem").await? {
            let view = thermal.view(self.origin());
            if let Some(metrics) = self.get_linked(&view, "ThermalMetrics").await? {
                for excerpt in metrics.view(self.origin()).list("TemperatureReadingsCelsius")? {
                    let name = excerpt.string("DeviceName")?.or(last_of(excerpt.link_text("DataSourceUri")?));
                    out.push(sensor_reading(
                        &excerpt,
                        name.unwrap_or_else(|| "temperature".into()),
                        Unit::Celsius,
                    )?);
                }
            }
            for fan in self.members_of(&view, "Fans").await? {
                out.extend(fan_excerpt(&fan, self)?);
            }
        }
        if let Some(power) = self.get_linked(chassis, "PowerSubsystem").await? {
            for supply in self.members_of(&power.view(self.origin()), "PowerSupplies").await? {
                let view = supply.view(self.origin());
                let Some(metrics) = self.get_linked(&view, "Metrics").await? else { continue };
                let name = view.string("Name")?.unwrap_or_else(|| supply.link.last().to_owned());
                let metrics = metrics.view(self.origin());
                for (property, unit) in [("InputPowerWatts", Unit::Watt), ("InputVoltage", Unit::Volt)] {
                    let excerpt = metrics.object(property)?;
                    if excerpt.exists() {
                        out.push(sensor_reading(&excerpt, format!("{name} {property}"), unit)?);
                    }
                }
            }
        }
        Ok(out)
    }
}

fn fan_excerpt(fan: &Resource, call: &Call<'_>) -> Result<Option<Reading>, BmcError> {
    let view = fan.view(call.origin());
    let excerpt = view.object("SpeedPercent")?;
    if !excerpt.exists() || !is_present(&view)? {
        return Ok(None);
    }
    let name = view.string("Name")?.unwrap_or_else(|| fan.link.last().to_owned());
    let mut reading = sensor_reading(&excerpt, name, Unit::Percent)?;
    if let Some(rpm) = excerpt.number("SpeedRPM")? {
        (reading.value, reading.unit) = (Some(rpm), Unit::Rpm);
    }
    reading.health = health(&view.object("Status")?, "Health")?;
    Ok(Some(reading))
}

/// A part of `Thermal` or `Power`.
pub(super) fn reading(
    part: &View<'_>,
    value: &str,
    unit: Unit,
    name_of: &str,
) -> Result<Option<Reading>, BmcError> {
    let Some(name) = name(part, name_of)? else { return Ok(None) };
    Ok(Some(Reading {
        name,
        unit,
        value: part.number(value)?,
        health: health(&part.object("Status")?, "Health")?,
        upper_warning: part.number("UpperThresholdNonCritical")?,
        upper_critical: part.number("UpperThresholdCritical")?,
        lower_critical: part.number("LowerThresholdCritical")?,
    }))
}

/// A `Sensor`, or an excerpt of one.
pub(super) fn sensor_reading(view: &View<'_>, name: String, unit: Unit) -> Result<Reading, BmcError> {
    let thresholds = view.object("Thresholds")?;
    let threshold = |name: &str| thresholds.object(name)?.number("Reading");
    Ok(Reading {
        name,
        unit,
        value: view.number("Reading")?,
        health: health(&view.object("Status")?, "Health")?,
        upper_warning: threshold("UpperCaution")?,
        upper_critical: threshold("UpperCritical")?,
        lower_critical: threshold("LowerCritical")?,
    })
}

fn name(view: &View<'_>, property: &str) -> Result<Option<String>, BmcError> {
    match view.string(property)? {
        Some(name) => Ok(Some(name)),
        None => view.string("MemberId"),
    }
}

fn present<'a>(parts: Vec<View<'a>>) -> Result<Vec<View<'a>>, BmcError> {
    let mut out = Vec::new();
    for part in parts {
        if is_present(&part)? {
            out.push(part);
        }
    }
    Ok(out)
}

/// An empty slot has no state.
pub(super) fn is_present(view: &View<'_>) -> Result<bool, BmcError> {
    Ok(view.object("Status")?.text("State")? != Some("Absent"))
}

fn last_of(link: Option<Link>) -> Option<String> {
    link.map(|l| l.last().to_owned())
}

/// Units are those of UCUM (DSP0268, Sensor).
fn unit(units: Option<&str>, kind: Option<&str>) -> Unit {
    match (units, kind) {
        (Some("Cel"), _) | (None, Some("Temperature")) => Unit::Celsius,
        (Some("RPM" | "{rev}/min"), _) | (None, Some("Rotational")) => Unit::Rpm,
        (Some("%"), _) | (None, Some("Percent")) => Unit::Percent,
        (Some("V"), _) | (None, Some("Voltage")) => Unit::Volt,
        (Some("A"), _) | (None, Some("Current")) => Unit::Ampere,
        (Some("W"), _) | (None, Some("Power")) => Unit::Watt,
        _ => Unit::Other,
    }
}
