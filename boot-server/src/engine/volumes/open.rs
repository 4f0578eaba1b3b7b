//! Opens the places where the site keeps its volumes.

use std::sync::Arc;

use volume::{Backend, FileBackend, IscsiBackend};

use super::{Backends, VolumeError};
use crate::config::{Settings, VolumePlace};
use crate::engine::EngineError;

/// Opens all of them. Must be called within a tokio runtime: targets are looked after by tasks.
///
/// # Errors
/// Where one cannot be opened.
pub async fn open(settings: &Settings) -> Result<Backends, EngineError> {
    let mut backends = Backends::new();
    for this in &settings.volumes {
        let backend: Arc<dyn Backend> = match &this.place {
            VolumePlace::File { directory } => {
                let directory = directory.clone();
                let opened = tokio::task::spawn_blocking(move || FileBackend::open(&directory)).await?;
                Arc::new(opened.map_err(VolumeError::from)?)
            }
            VolumePlace::Iscsi(iscsi) => {
                Arc::new(IscsiBackend::open(iscsi.clone()).map_err(VolumeError::from)?)
            }
        };
        backends.insert(this.name.clone(), backend);
    }
    Ok(backends)
}
