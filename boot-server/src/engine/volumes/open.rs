//! Opens the places where the site keeps its volumes.

use super::{Backends, VolumeError};
use crate::config::Settings;
use crate::engine::EngineError;

/// Opens all of them. To be called within a tokio runtime: targets are looked after by tasks.
///
/// # Errors
/// Where one cannot be opened.
pub fn open(settings: &Settings) -> Result<Backends, EngineError> {
    let mut backends = Backends::new();
    for this in &settings.volumes {
        backends.insert(this.name.clone(), this.place.clone().open().map_err(VolumeError::from)?);
    }
    Ok(backends)
}
