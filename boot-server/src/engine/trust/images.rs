//! Images and their signatures: judged when they come, signed where they were there before, and left behind a floor when they go.

use ::images::StoreError as ImageStoreError;
use ::images::store::Listing;
use ::images::trust::Vouched;
use protocol::ImageId;

use super::{
    ADOPTED, Actor, Change, Engine, EngineError, Floor, KeyError, Severity, Standing, now, queries, rows,
};
use crate::ingest::sentence;
use crate::store::queries::{ImageRow, NewEvent};

impl Engine {
    /// Refuses an image that nobody who is trusted has signed.
    ///
    /// # Errors
    /// [`KeyError::Unsigned`].
    pub(crate) fn check_signed(&self, row: &ImageRow) -> Result<(), EngineError> {
        match self.standing_of(row.id) {
            Standing::Signed { .. } => Ok(()),
            Standing::Refused(why) => {
                Err(KeyError::Unsigned { image: format!("{}:{}", row.name, row.version), why }.into())
            }
        }
    }

    /// Judges the signature of an image anew.
    ///
    /// # Errors
    /// Where the image store cannot be read.
    pub(in crate::engine) async fn judge_image(&self, id: ImageId) -> Result<Standing, EngineError> {
        let (store, anchor) = (self.0.image_store.clone(), self.anchor());
        let found = tokio::task::spawn_blocking(move || store.vouched(id, &anchor)).await?;
        let standing = match found {
            Ok(Vouched { key, title, statement, .. }) => {
                Standing::Signed { key, title, number: statement.number }
            }
            Err(ImageStoreError::Untrusted { cause, .. }) => Standing::Refused(sentence(&cause)),
            Err(other) => return Err(other.into()),
        };
        let mut state = self.0.trust.write();
        if let Standing::Signed { number, .. } = standing {
            state.noticed(number);
        }
        state.images.insert(id, standing.clone());
        Ok(standing)
    }

    /// Signs an image by the site's key, on somebody's word.
    ///
    /// # Errors
    /// [`KeyError::Elsewhere`], or what the image store says.
    pub async fn sign_image(&self, actor: Actor, reference: &str) -> Result<ImageRow, EngineError> {
        let _turn = self.0.trust.turn.lock().await;
        let row = self.image_row(reference).await?;
        self.sign_row(&row).await?;
        let message = format!("image {}:{} was signed by the site's key, {}", row.name, row.version, row.id);
        self.note(actor, None, "image.signed", Severity::Info, message).await?;
        self.announce(Change::Images);
        Ok(row)
    }

    /// Signs an image that came with what was checked, where nobody who is trusted signed it; without the private key it waits.
    pub(in crate::engine) async fn vouch_for(&self, actor: Actor, row: &ImageRow) -> Result<(), EngineError> {
        let _turn = self.0.trust.turn.lock().await;
        match self.judge_image(row.id).await? {
            Standing::Signed { .. } => Ok(()),
            Standing::Refused(_) if self.has_image_key() => self.sign_row(row).await,
            Standing::Refused(_) => self.note_unsigned(actor, row).await,
        }
    }

    async fn sign_row(&self, row: &ImageRow) -> Result<(), EngineError> {
        let manifest = self.manifest(row.id).await?;
        let signature = self.sign_manifest(&manifest).ok_or(KeyError::Elsewhere)?;
        let (store, id) = (self.0.image_store.clone(), row.id);
        tokio::task::spawn_blocking(move || store.put_signature(id, &signature)).await??;
        self.judge_image(row.id).await?;
        Ok(())
    }

    /// At start: judges every image, and signs those that were there before there were signatures. What came into the store's directory since,
    /// on whatever way, is not signed by itself.
    pub(in crate::engine) async fn settle_images(&self, listing: &Listing) -> Result<(), EngineError> {
        for (id, _) in &listing.images {
            self.judge_image(*id).await?;
        }
        let (adopt, can) = {
            let state = self.0.trust.read();
            (state.adopt, state.secret.is_some())
        };
        if adopt && can {
            self.adopt(listing).await?;
        }
        self.finish_rotation().await?;
        for row in self.image_rows().await? {
            if let Standing::Refused(why) = self.standing_of(row.id) {
                tracing::warn!(image = %row.id, name = row.name, version = row.version, why, "image may not be written");
            }
        }
        self.publish_anchor().await
    }

    /// Signs all images that are listed, the first time that this program serves a site.
    async fn adopt(&self, listing: &Listing) -> Result<(), EngineError> {
        for row in self.image_rows().await? {
            let there = listing.images.iter().any(|(id, _)| *id == row.id);
            if !there || matches!(self.standing_of(row.id), Standing::Signed { .. }) {
                continue;
            }
            self.sign_row(&row).await?;
            let message = format!(
                "image {}:{} was there before images were signed: the site's key signed it, {}",
                row.name, row.version, row.id
            );
            self.note(Actor::Server, None, "image.signed", Severity::Warning, message).await?;
        }
        let done = now().0.to_string();
        self.0.store.write(move |db| queries::set_setting(db, ADOPTED, &done)).await?;
        self.0.trust.write().adopt = false;
        Ok(())
    }

    /// Takes an image from the list. What its key signed under its name with a lower number than all that is left is not taken any more.
    pub(in crate::engine) async fn forget_image(&self, row: &ImageRow) -> Result<(), EngineError> {
        let _turn = self.0.trust.turn.lock().await;
        let floor = self.floor_without(row).await?;
        let id = row.id;
        let forget = move |db: &_| {
            queries::delete_image(db, id)?;
            floor.iter().try_for_each(|floor| rows::raise(db, floor))
        };
        self.0.store.write(forget).await?;
        let floors = self.0.store.read(rows::floors).await?;
        {
            let mut state = self.0.trust.write();
            state.floors = floors;
            state.images.remove(&id);
        }
        self.publish_anchor().await
    }

    /// The lowest number of an image's name once it is gone; none where it was not signed.
    async fn floor_without(&self, row: &ImageRow) -> Result<Option<Floor>, EngineError> {
        let Standing::Signed { key, number, .. } = self.standing_of(row.id) else { return Ok(None) };
        let rows = self.image_rows().await?;
        let others = rows.iter().filter(|other| other.name == row.name && other.id != row.id);
        let left = others.filter_map(|other| match self.standing_of(other.id) {
            Standing::Signed { key: by, number, .. } if by == key => Some(number),
            _ => None,
        });
        let number = left.min().unwrap_or(number.saturating_add(1));
        Ok(Some(Floor { key: key.to_string(), name: row.name.clone(), number }))
    }

    /// Tells of an image that was added without a signature.
    pub(crate) async fn note_unsigned(&self, actor: Actor, row: &ImageRow) -> Result<(), EngineError> {
        let Standing::Refused(why) = self.standing_of(row.id) else { return Ok(()) };
        let message = format!("image {}:{} waits for its signature: {why}", row.name, row.version);
        self.record(NewEvent::new(now(), actor.name(), "image.unsigned", Severity::Warning, message)).await
    }
}
