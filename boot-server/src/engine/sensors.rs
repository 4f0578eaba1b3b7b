//! What sensors measured, kept and asked for. What is kept for how long, and how small, is the core's business.

use std::sync::Arc;
use std::time::Duration;

use bmc::Reading;
use boot_server_core::bmc::history::{self, Row, SAMPLES_KEPT, SENSORS_MAX, WINDOW, WINDOWS_KEPT};
use protocol::{NodeId, Timestamp};

use super::{Engine, EngineError, lock, now};
use crate::store::sensors::{self, HealthRow, SensorRow};
use crate::view::{MeasuredView, SensorHistory, SensorSeries};

/// Points of one sensor in an answer.
pub const POINTS_MAX: u64 = 2000;
/// Points in an answer, some 6 MB of JSON: all sensors that are kept, where no step is named.
const ALL_POINTS_MAX: usize = 80_000;
/// Points that are aimed at where no step is named.
const POINTS: u64 = 288;
/// Lists of sensors that are aged in one transaction: some milliseconds.
const AGED: usize = 20;
/// Between two transactions others have their turn.
const PAUSE: Duration = Duration::from_millis(50);

/// A question about what was measured.
#[derive(Debug, Clone, Default)]
pub struct HistoryQuery {
    /// Only this sensor.
    pub sensor: Option<String>,
    /// From then on; a day before the end if not given.
    pub from: Option<Timestamp>,
    /// Until before then; now if not given.
    pub to: Option<Timestamp>,
    /// Between two points; fitting the time if not given.
    pub step: Option<Duration>,
}

fn bad(what: String, hint: &'static str) -> EngineError {
    EngineError::BadQuery { what, hint }
}

/// A step that gives some hundred points of a time, and is not shorter than the time between two readings.
fn fitting(time: Duration, every: Duration) -> Duration {
    let steps = [1, 5, 10, 15, 30, 60, 120, 240, 720, 1440].map(Duration::from_mins);
    let wanted = (time / u32::try_from(POINTS).unwrap_or(1)).max(every);
    steps.into_iter().find(|step| *step >= wanted).unwrap_or(wanted)
}

impl Engine {
    /// Between two looks at the sensors of a machine, at most.
    pub fn health_interval(&self) -> Duration {
        self.settings().bmc.health
    }

    /// Keeps one look at a machine: what its sensors measured, and how it is.
    pub(super) async fn note_look(
        &self,
        node: NodeId,
        readings: &[Reading],
        health: HealthRow,
    ) -> Result<(), EngineError> {
        let known = self.sensors_of(node).await?;
        let names = history::distinct(readings.iter().map(|reading| reading.name.as_str()));
        let mut all = known.to_vec();
        let mut values: Vec<(u16, history::Measured)> = Vec::with_capacity(readings.len());
        for (name, reading) in names.into_iter().zip(readings) {
            let row = SensorRow::of(name, reading);
            let place = all.iter().position(|s| s.name == row.name && s.unit == row.unit);
            let number = match place {
                Some(place) => {
                    all[place] = row;
                    place
                }
                None if all.len() < SENSORS_MAX => {
                    all.push(row);
                    all.len() - 1
                }
                None => continue,
            };
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            if let Some(value) = reading.value.filter(|value| value.is_finite()) {
                values.push((number, value.into()));
            }
        }
        values.sort_by_key(|(number, _)| *number);
        // The first look makes the row, also where a controller has no sensors.
        let new = all != *known || known.is_empty();
        let all = Arc::new(all);
        let (stored, sample) = (all.clone(), Row { at: now(), values });
        self.store()
            .write(move |db| sensors::put_look(db, node, new.then_some(&stored[..]), &sample, &health))
            .await?;
        if new {
            lock(&self.0.sensors).insert(node, all);
        }
        Ok(())
    }

    async fn sensors_of(&self, node: NodeId) -> Result<Arc<Vec<SensorRow>>, EngineError> {
        if let Some(known) = lock(&self.0.sensors).get(&node) {
            return Ok(known.clone());
        }
        let stored = Arc::new(self.store().read(move |db| sensors::sensors(db, node)).await?);
        Ok(lock(&self.0.sensors).entry(node).or_insert(stored).clone())
    }

    /// What the sensors of a node measured.
    ///
    /// # Errors
    /// [`EngineError::BadQuery`] where it is more than one answer holds, or what the store says.
    pub async fn history(&self, node: NodeId, query: HistoryQuery) -> Result<SensorHistory, EngineError> {
        // What was read in this very millisecond is part of it.
        let to = query.to.unwrap_or_else(|| Timestamp(now().0 + 1));
        let from = query.from.unwrap_or(Timestamp(to.0.saturating_sub(millis(SAMPLES_KEPT))));
        let time = to.since(from);
        if from >= to {
            return Err(bad("the time ends before it begins".to_owned(), "give `from` before `to`"));
        }
        let step = query.step.unwrap_or_else(|| fitting(time, self.health_interval()));
        if step < Duration::from_secs(1) || time.as_secs() / step.as_secs().max(1) > POINTS_MAX {
            return Err(bad(
                format!("a step of {} s gives more than {POINTS_MAX} points", step.as_secs()),
                "give a longer step or a shorter time",
            ));
        }
        let known = self.sensors_of(node).await?;
        let wanted = |number: u16, sensor: &SensorRow| match &query.sensor {
            Some(name) => (*name == sensor.name).then_some(number),
            None => Some(number),
        };
        let wanted: Vec<u16> = (0..).zip(known.iter()).filter_map(|(n, s)| wanted(n, s)).collect();
        if let (Some(name), true) = (&query.sensor, wanted.is_empty()) {
            return Err(EngineError::SensorNotFound(name.chars().take(80).collect()));
        }
        // The points are those of whole steps.
        let begin = history::floor(from, step);
        let rows = self.store().read(move |db| sensors::measured(db, node, begin, to)).await?;
        let mut series = tokio::task::spawn_blocking(move || history::resample(&rows, step)).await?;
        series.retain(|number, _| wanted.contains(number));
        if series.values().map(Vec::len).sum::<usize>() > ALL_POINTS_MAX {
            return Err(bad(
                format!("that are more than {ALL_POINTS_MAX} points"),
                "name a sensor, or give a longer step or a shorter time",
            ));
        }
        let sensors = wanted
            .into_iter()
            .filter_map(|number| {
                let points = series.remove(&number)?;
                let sensor = known.get(usize::from(number))?;
                Some(SensorSeries {
                    name: sensor.name.clone(),
                    unit: sensor.unit,
                    upper_warning: sensor.upper_warning,
                    upper_critical: sensor.upper_critical,
                    lower_critical: sensor.lower_critical,
                    points: points.into_iter().map(MeasuredView::from).collect(),
                })
            })
            .collect();
        Ok(SensorHistory { from, to, step_seconds: step.as_secs(), sensors })
    }

    /// Makes windows of old samples, and forgets old windows.
    pub(super) async fn age_samples(&self) -> Result<(), EngineError> {
        let before = |kept| history::floor(Timestamp(now().0.saturating_sub(millis(kept))), WINDOW);
        let (samples, windows) = (before(SAMPLES_KEPT), before(WINDOWS_KEPT));
        let mut after = 0;
        loop {
            let lists = self.store().read(move |db| sensors::lists(db, after, AGED)).await?;
            let Some(last) = lists.last() else { return Ok(()) };
            after = *last;
            self.store()
                .write(move |db| {
                    lists.iter().try_for_each(|list| sensors::age(db, *list, samples, windows, WINDOW))
                })
                .await?;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_fits_the_time() {
        let of = |hours: u64| fitting(Duration::from_hours(hours), Duration::from_mins(5)).as_secs() / 60;
        assert_eq!([of(1), of(24), of(7 * 24), of(30 * 24), of(365 * 24)], [5, 5, 60, 240, 1825]);
    }
}
