//! What sensors measured, as the API shows it.

use bmc::Unit;
use boot_server_core::bmc::history::{Measured, Point};
use protocol::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the sensors of a node measured in a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SensorHistory {
    /// From then on.
    pub from: Timestamp,
    /// Until before then.
    pub to: Timestamp,
    /// Seconds between two points.
    pub step_seconds: u64,
    /// Sensors that were read in this time.
    pub sensors: Vec<SensorSeries>,
}

/// What one sensor measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SensorSeries {
    /// Its name; of several with one name, the second is `… (2)`.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// At or above this is a warning.
    pub upper_warning: Option<f64>,
    /// At or above this is critical.
    pub upper_critical: Option<f64>,
    /// At or below this is critical.
    pub lower_critical: Option<f64>,
    /// One point per step; a step in which it was not read has none.
    pub points: Vec<MeasuredView>,
}

/// What a sensor measured in one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MeasuredView {
    /// Begin of the step.
    pub at: Timestamp,
    /// Least.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Greatest.
    pub max: f64,
}

impl From<Point> for MeasuredView {
    fn from(Point { at, measured: Measured { min, mean, max } }: Point) -> Self {
        Self { at, min, mean: (mean * 1000.0).round() / 1000.0, max }
    }
}
