//! Images that people can name: the list beside the image store.

use std::sync::Arc;

use boot_server_core::node::{Node, State};
use images::{Manifest, StoreError as ImageStoreError};
use protocol::job::Task;
use protocol::{ImageId, Timestamp};

use super::volumes::VolumeError;
use super::{Change, Engine, EngineError, lock, now};
use crate::store::queries::{self, ImageRow};

/// Manifests kept parsed; a manifest of a 100 GB image takes about 3 MB.
const MANIFESTS_MAX: usize = 64;

impl Engine {
    /// The image store: chunks and manifests. Its calls block.
    pub fn images(&self) -> &images::Store {
        &self.0.image_store
    }

    /// All images, newest first.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn image_rows(&self) -> Result<Vec<ImageRow>, EngineError> {
        Ok(self.0.store.read(queries::images).await?)
    }

    /// The image with this id, the newest one of this name that somebody who is trusted has signed, or the one of `name:version`, to be
    /// written.
    ///
    /// # Errors
    /// [`EngineError::ImageNotFound`], [`EngineError::Key`] where nobody signed it, or what the image store says.
    pub async fn resolve_image(&self, reference: &str) -> Result<(ImageId, Arc<Manifest>), EngineError> {
        let mut row = self.image_row(reference).await?;
        if row.name == reference && self.check_signed(&row).is_err() {
            // One that waits for its signature does not stand in the way of the one before.
            let rows = self.image_rows().await?;
            let signed = rows.into_iter().find(|it| it.name == reference && self.check_signed(it).is_ok());
            row = signed.unwrap_or(row);
        }
        self.check_signed(&row)?;
        Ok((row.id, self.manifest(row.id).await?))
    }

    /// The line of an image in the list, by the same names as [`Engine::resolve_image`].
    ///
    /// # Errors
    /// [`EngineError::ImageNotFound`], or where the store cannot be read.
    pub async fn image_row(&self, reference: &str) -> Result<ImageRow, EngineError> {
        let rows = self.image_rows().await?;
        let is = |row: &ImageRow| match (reference.parse::<ImageId>(), reference.split_once(':')) {
            (Ok(id), _) => row.id == id,
            (Err(_), Some((name, version))) => row.name == name && row.version == version,
            (Err(_), None) => row.name == reference,
        };
        let found = rows.into_iter().find(is);
        found.ok_or_else(|| EngineError::ImageNotFound(reference.chars().take(80).collect()))
    }

    /// A manifest, from memory where it was read before.
    ///
    /// # Errors
    /// What the image store says.
    pub async fn manifest(&self, id: ImageId) -> Result<Arc<Manifest>, EngineError> {
        if let Some(known) = lock(&self.0.manifests).get(&id) {
            return Ok(known.clone());
        }
        let store = self.0.image_store.clone();
        let manifest = Arc::new(tokio::task::spawn_blocking(move || store.manifest(id)).await??);
        let mut cache = lock(&self.0.manifests);
        if cache.len() >= MANIFESTS_MAX {
            cache.pop_first();
        }
        cache.insert(id, manifest.clone());
        Ok(manifest)
    }

    /// Lists an image that lies in the image store.
    ///
    /// # Errors
    /// Where it does not lie there, or the store fails.
    pub async fn add_image_row(
        &self,
        id: ImageId,
        added: Timestamp,
        origin: &str,
    ) -> Result<ImageRow, EngineError> {
        self.judge_image(id).await?;
        let manifest = self.manifest(id).await?;
        let row = ImageRow {
            id,
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            added,
            origin: origin.to_owned(),
        };
        let stored = row.clone();
        self.0.store.write(move |db| queries::put_image(db, &stored)).await?;
        self.announce(Change::Images);
        Ok(row)
    }

    /// Removes an image and the chunks that only it needed.
    ///
    /// # Errors
    /// [`EngineError::ImageNotFound`], [`EngineError::ImageInUse`] while a job needs it, or what the stores say.
    pub async fn remove_image(&self, reference: &str) -> Result<ImageRow, EngineError> {
        let row = self.image_row(reference).await?;
        if let Some(node) = self.0.nodes.find(|node| needs(node, row.id)) {
            let image = format!("{}:{}", row.name, row.version);
            return Err(EngineError::ImageInUse { image, node: node.name.clone() });
        }
        if let Some(volume) = self.hydrates_from(row.id).await? {
            let image = format!("{}:{}", row.name, row.version);
            return Err(VolumeError::Hydrates { image, volume: volume.name }.into());
        }
        // The list first: what is not listed cannot be asked for, and a crash now leaves an image that the next
        // start lists again.
        let id = row.id;
        self.forget_image(&row).await?;
        lock(&self.0.manifests).remove(&id);
        let store = self.0.image_store.clone();
        tokio::task::spawn_blocking(move || {
            match store.remove(id) {
                Ok(()) | Err(ImageStoreError::NoImage(_)) => {}
                Err(other) => return Err(other),
            }
            match store.collect_garbage() {
                Ok(collected) => {
                    tracing::info!(chunks = collected.chunks, bytes = collected.bytes, "collected")
                }
                Err(error) => tracing::warn!(%error, "chunks were not collected, they stay for now"),
            }
            Ok(())
        })
        .await??;
        self.announce(Change::Images);
        Ok(row)
    }

    /// Makes the list and the image store agree after a crash between the two.
    pub(super) async fn reconcile_images(&self) -> Result<(), EngineError> {
        let store = self.0.image_store.clone();
        let listing = tokio::task::spawn_blocking(move || store.manifests()).await??;
        for (id, cause) in &listing.broken {
            tracing::error!(image = %id, %cause, "image manifest is damaged; add the image again");
        }
        let rows = self.image_rows().await?;
        for (id, _) in &listing.images {
            if !rows.iter().any(|row| row.id == *id) {
                tracing::info!(image = %id, "image was in the store but not in the list");
                self.add_image_row(*id, now(), "found in the image store").await?;
            }
        }
        for row in rows {
            let there = listing.images.iter().any(|(id, _)| *id == row.id)
                || listing.broken.iter().any(|(id, _)| *id == row.id);
            if !there {
                tracing::warn!(image = %row.id, name = row.name, "image is gone from the store");
                self.0.store.write(move |db| queries::delete_image(db, row.id)).await?;
            }
        }
        self.settle_images(&listing).await
    }
}

/// True where a job that runs, or that can be retried, writes this image.
fn needs(node: &Node, image: ImageId) -> bool {
    let run = match &node.state {
        State::Failed(failure) => failure.run.as_deref(),
        state => state.run(),
    };
    run.is_some_and(|run| matches!(&run.job.task, Task::Deploy(spec) if spec.image == image))
}
