//! Bundles that are taken in while the server runs, and what a crash left of one.

use std::io::Read;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use boot_server_core::node::Severity;
use protocol::ImageId;

use super::{Actor, Change, Engine, EngineError, now};
use crate::bundle::{self, BundleError, Checked, Keys, Place, Release, Releases, Wishes};
use crate::loaders::Loaders;
use crate::store::queries::{self, ImageRow};

impl Engine {
    fn bundle_place(&self) -> Place {
        Place { state_dir: self.settings().state_dir.clone(), images: self.images().clone() }
    }

    /// Whose bundles are taken.
    fn bundle_keys(&self) -> Result<Keys, BundleError> {
        Keys::of_site(&self.settings().bundle_keys, &self.settings().state_dir)
    }

    /// Bundles that were taken in and are kept, newest first.
    ///
    /// # Errors
    /// Where they cannot be listed.
    pub async fn bundles(&self) -> Result<Vec<Release>, EngineError> {
        let releases = Releases::new(&self.settings().state_dir);
        Ok(tokio::task::spawn_blocking(move || releases.list()).await??)
    }

    /// Takes a bundle in. Goes on to its end, or nothing of it can be seen; `stop` ends it.
    ///
    /// # Errors
    /// [`EngineError::Bundle`], or where its images cannot be listed: then the next start lists them.
    pub async fn import_bundle(
        &self,
        from: impl Read + Send + 'static,
        actor: Actor,
        allow_older: bool,
        stop: Arc<AtomicBool>,
    ) -> Result<Release, EngineError> {
        let (place, keys) = (self.bundle_place(), self.bundle_keys()?);
        let before = self.loader_names();
        let wishes = Wishes { allow_older, by: actor.name().to_owned(), now: now() };
        let taken = tokio::task::spawn_blocking(move || {
            let mut progress = |_, _| match stop.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            bundle::import(from, &keys, &place, &wishes, &mut progress)
        });
        match taken.await? {
            Ok(release) => {
                self.tell_of(&release, actor).await?;
                if before != self.loader_names() {
                    tracing::warn!(
                        "loaders came that were not there, or went: start billet again to have them offered"
                    );
                }
                Ok(release)
            }
            Err(error) => {
                let why = crate::ingest::sentence(&error);
                let message = format!("a bundle was not taken in: {why}");
                self.note(actor, None, "bundle.refused", Severity::Warning, message).await?;
                Err(error.into())
            }
        }
    }

    fn loader_names(&self) -> Vec<&'static str> {
        Loaders::new(self.settings()).present().map(|(name, _)| name).collect()
    }

    /// Reads a bundle from end to end and says what there is against it here.
    ///
    /// # Errors
    /// [`EngineError::Bundle`].
    pub async fn verify_bundle(
        &self,
        from: impl Read + Send + 'static,
        stop: Arc<AtomicBool>,
    ) -> Result<Checked, EngineError> {
        let (place, keys) = (self.bundle_place(), self.bundle_keys()?);
        let checked = tokio::task::spawn_blocking(move || {
            let mut progress = |_, _| match stop.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            bundle::verify(from, &keys, Some(&place), &mut progress)
        });
        Ok(checked.await??)
    }

    /// Serves the boot files of another bundle that is kept, or those of the configuration.
    ///
    /// # Errors
    /// [`EngineError::Bundle`].
    pub async fn switch_bundle(&self, number: Option<u64>, actor: Actor) -> Result<(), EngineError> {
        let releases = Releases::new(&self.settings().state_dir);
        tokio::task::spawn_blocking(move || releases.switch(number)).await??;
        let message = match number {
            Some(number) => format!("boot files of bundle {number} are served"),
            None => "boot files of no bundle are served".to_owned(),
        };
        self.note(actor, None, "bundle.switched", Severity::Warning, message).await
    }

    /// Lists the images of a bundle, all at once, and writes down that it came.
    async fn tell_of(&self, release: &Release, actor: Actor) -> Result<(), EngineError> {
        let mut rows = Vec::with_capacity(release.index.images.len());
        let origin = format!("bundle {}", release.index.number);
        for image in &release.index.images {
            let (name, version) = (image.name.clone(), image.version.clone());
            let id = ImageId(image.manifest.id);
            rows.push(ImageRow { id, name, version, added: now(), origin: origin.clone() });
        }
        // Its index, which a key of the bundles signed, names each of them by its hash.
        for row in &rows {
            self.vouch_for(actor.clone(), row).await?;
        }
        let images = rows.len();
        self.0.store.write(move |db| rows.iter().try_for_each(|row| queries::put_image(db, row))).await?;
        self.announce(Change::Images);
        let index = &release.index;
        let mut message = format!(
            "bundle {} was taken in: {images} images, {} files, signed by {}",
            index.number,
            index.files.len(),
            release.note.key
        );
        let severity = match release.note.over {
            Some(newer) => {
                message.push_str(&format!("; it is older than bundle {newer}, and was allowed nevertheless"));
                Severity::Warning
            }
            None => Severity::Info,
        };
        self.note(actor, None, "bundle.imported", severity, message).await?;
        let (releases, release) = (Releases::new(&self.settings().state_dir), release.clone());
        Ok(tokio::task::spawn_blocking(move || releases.told(&release)).await??)
    }

    /// Does what was left of bundles: by a crash between the switch and the list, or by an import beside the server.
    pub(super) async fn finish_bundles(&self) -> Result<(), EngineError> {
        let place = self.bundle_place();
        let found = tokio::task::spawn_blocking(move || -> Result<Vec<Release>, BundleError> {
            let mut untold = Vec::new();
            for release in Releases::new(&place.state_dir).list()?.into_iter().rev() {
                if release.told {
                    continue;
                }
                if !release.finished {
                    bundle::finish(&release, &place)?;
                }
                untold.push(release);
            }
            Ok(untold)
        });
        // A site whose bundle is damaged serves what it has; the log says what is to be done.
        let untold = match found.await? {
            Ok(untold) => untold,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "a bundle that was taken in is not whole: take it in again");
                return Ok(());
            }
        };
        for release in untold {
            self.tell_of(&release, Actor::Operator(release.note.by.clone())).await?;
        }
        Ok(())
    }
}
