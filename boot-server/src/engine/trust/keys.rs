//! The site's key changes hands, and others are trusted beside it.

use ::images::StoreError as ImageStoreError;
use ::images::minisign::{PublicKey, SecretKey};
use ::images::trust::{self as signatures, Anchor, KEYS_MAX, TrustError, Vouched};
use protocol::ImageId;

use super::{
    Actor, Change, Engine, EngineError, KeyError, KeyRow, Role, SITE, Severity, Standing, files, now, rows,
};
use crate::ingest::sentence;
use crate::secret;
use crate::store::queries::{self, ImageRow, NewEvent};

/// Longest title of a key, in characters.
const TITLE_MAX: usize = 80;

/// Another key for the site.
#[derive(Debug)]
pub struct Successor {
    /// The key.
    pub key: PublicKey,
    /// Its private part, where it is to be here.
    pub secret: Option<SecretKey>,
    /// By which the key of now names it; `None` where that key is lost: then nobody who trusts it learns of the new one by itself.
    pub statement: Option<String>,
}

impl Engine {
    /// All keys that are known, oldest first.
    pub fn site_keys(&self) -> Vec<KeyRow> {
        self.0.trust.read().keys.clone()
    }

    /// A new key follows the site's, which names it: images are signed anew.
    ///
    /// # Errors
    /// [`KeyError::Elsewhere`], or where something cannot be written.
    pub async fn rotate_key(&self, actor: Actor) -> Result<KeyRow, EngineError> {
        let _turn = self.0.trust.turn.lock().await;
        let old = self.0.trust.read().secret.clone().ok_or(KeyError::Elsewhere)?;
        let secret = SecretKey::of_seed(&secret::random()?);
        let statement = Some(signatures::succession(&old, &secret.public()));
        self.succeed(actor, Successor { key: secret.public(), secret: Some(secret), statement }).await
    }

    /// A key that was made elsewhere follows the site's. Without a word by that one (`forget`) all that it signed counts no more, but for
    /// images of which it is known here that they were as they are.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn import_key(
        &self,
        actor: Actor,
        next: Successor,
        forget: bool,
    ) -> Result<KeyRow, EngineError> {
        let _turn = self.0.trust.turn.lock().await;
        let (site, own) = {
            let state = self.0.trust.read();
            let known = state.keys.iter().any(|row| row.key == next.key && row.role != Role::Site);
            if known {
                return Err(KeyError::Known.into());
            }
            (state.site().map(|row| row.key), state.secret.clone())
        };
        if site == Some(next.key) {
            return self.take_private(actor, next).await;
        }
        let statement = match (&next.statement, &own) {
            _ if forget => None,
            (Some(statement), _) => {
                let names = site.and_then(|site| signatures::successor(&site, statement));
                if names != Some(next.key) {
                    return Err(KeyError::Statement.into());
                }
                Some(statement.clone())
            }
            (None, Some(own)) => Some(signatures::succession(own, &next.key)),
            (None, None) => return Err(KeyError::NoStatement.into()),
        };
        self.succeed(actor, Successor { statement, ..next }).await
    }

    /// The private part of the site's key comes here.
    async fn take_private(&self, actor: Actor, next: Successor) -> Result<KeyRow, EngineError> {
        let row = self.0.trust.read().site().cloned().ok_or(KeyError::Elsewhere)?;
        let Some(secret) = next.secret else { return Ok(row) };
        self.keep(&secret, true).await?;
        self.0.trust.write().secret = Some(secret);
        let message =
            format!("the private part of the site's key {} is on this machine from now on", row.key.id());
        self.note(actor, None, "key.imported", Severity::Warning, message).await?;
        Ok(row)
    }

    async fn keep(&self, secret: &SecretKey, at_once: bool) -> Result<(), EngineError> {
        let (path, secret) = (self.settings().image_key(), secret.clone());
        let kept = tokio::task::spawn_blocking(move || {
            files::keep_next(&path, &secret)?;
            if at_once { files::take_next(&path) } else { Ok(()) }
        });
        Ok(kept.await?.map_err(KeyError::from)?)
    }

    /// The key is the site's from now on. The caller has the turn.
    async fn succeed(&self, actor: Actor, next: Successor) -> Result<KeyRow, EngineError> {
        if let Some(secret) = &next.secret {
            self.keep(secret, false).await?;
        }
        let (row, old, floors) = self.rows_of(&next);
        let line = succession_line(&actor, &row, old.as_ref(), next.statement.is_some());
        let (stored, before, event) = (row.clone(), old.clone(), line.clone());
        let write = move |db: &_| {
            before.iter().try_for_each(|row| rows::put_key(db, row))?;
            rows::put_key(db, &stored)?;
            floors.iter().try_for_each(|floor| rows::raise(db, floor))?;
            queries::insert_event(db, &event)
        };
        let number = self.0.store.write(write).await?;
        self.announce_event(number, line);
        let (path, here) = (self.settings().image_key(), next.secret.is_some());
        let settled = tokio::task::spawn_blocking(move || files::after(&path, here)).await?;
        settled.map_err(KeyError::from)?;
        let (keys, floors) = self.0.store.read(|db| Ok((rows::keys(db)?, rows::floors(db)?))).await?;
        {
            let mut state = self.0.trust.write();
            (state.keys, state.floors, state.secret) = (keys, floors, next.secret);
        }
        self.sign_anew(old.map(|row| row.key)).await?;
        self.publish_anchor().await?;
        self.announce(Change::Images);
        Ok(row)
    }

    /// The row of the new key, the old one's as it is from then on, and the floors that the new one takes over.
    fn rows_of(&self, next: &Successor) -> (KeyRow, Option<KeyRow>, Vec<super::Floor>) {
        let state = self.0.trust.read();
        let old = state.site().cloned().map(|row| KeyRow {
            role: if next.statement.is_some() { Role::Former } else { Role::Forgotten },
            ended: Some(now()),
            statement: next.statement.clone(),
            ..row
        });
        let row = KeyRow {
            key: next.key,
            role: Role::Site,
            title: SITE.to_owned(),
            added: now(),
            ended: None,
            statement: None,
        };
        let text = old.as_ref().map(|row| row.key.to_string());
        let taken = state.floors.iter().filter(|floor| Some(&floor.key) == text.as_ref());
        let floors = taken.map(|floor| super::Floor { key: next.key.to_string(), ..floor.clone() }).collect();
        (row, old, floors)
    }

    /// Images that the old key signed get signatures by the new one, with the numbers that they have, where its private part is here.
    async fn sign_anew(&self, old: Option<PublicKey>) -> Result<(), EngineError> {
        for row in self.image_rows().await? {
            if let Standing::Signed { key, .. } = self.standing_of(row.id)
                && Some(key) == old
            {
                self.sign_again(&row, key).await?;
            }
            self.judge_image(row.id).await?;
        }
        Ok(())
    }

    /// What a rotation left that was cut off. Only images that were listed before it: what somebody puts into the store's directory since
    /// may be signed by the old key, and is not taken for that.
    pub(super) async fn finish_rotation(&self) -> Result<(), EngineError> {
        let former = self.site_keys().into_iter().filter(|row| row.role == Role::Former);
        let former: Vec<_> = former.filter_map(|row| Some((row.key, row.ended?))).collect();
        if former.is_empty() || !self.has_image_key() {
            return Ok(());
        }
        for row in self.image_rows().await? {
            if matches!(self.standing_of(row.id), Standing::Signed { .. }) {
                continue;
            }
            for (key, _) in former.iter().filter(|(_, ended)| row.added < *ended) {
                self.sign_again(&row, *key).await?;
            }
            self.judge_image(row.id).await?;
        }
        Ok(())
    }

    /// Signs an image that `old` signed. The signature is looked at again before: what lies in the store may have been changed since.
    async fn sign_again(&self, row: &ImageRow, old: PublicKey) -> Result<(), EngineError> {
        let Some(secret) = self.0.trust.read().secret.clone() else { return Ok(()) };
        let (store, id) = (self.0.image_store.clone(), row.id);
        let signed = tokio::task::spawn_blocking(move || {
            let trusted = signatures::TrustedKey { key: old, title: String::new(), floors: [].into() };
            match store.vouched(id, &Anchor::new(vec![trusted])) {
                Ok(Vouched { manifest, statement, .. }) => {
                    store.put_signature(id, &signatures::sign(&secret, &manifest, statement.number))
                }
                Err(ImageStoreError::Untrusted { cause, .. }) => {
                    tracing::warn!(image = %id, why = sentence(&cause), "image is not signed anew");
                    Ok(())
                }
                Err(ImageStoreError::NoImage(_)) => Ok(()),
                Err(other) => Err(other),
            }
        });
        Ok(signed.await??)
    }

    /// Takes a signature that was made elsewhere, if it holds.
    ///
    /// # Errors
    /// [`KeyError::Unsigned`] where it does not; the image stays as it was.
    pub async fn give_signature(
        &self,
        actor: Actor,
        reference: &str,
        text: String,
    ) -> Result<ImageRow, EngineError> {
        let _turn = self.0.trust.turn.lock().await;
        let row = self.image_row(reference).await?;
        let (store, anchor, id) = (self.0.image_store.clone(), self.anchor(), row.id);
        let judged =
            tokio::task::spawn_blocking(move || -> Result<Result<Vouched, TrustError>, ImageStoreError> {
                let vouched = anchor.judge(id, &store.manifest_bytes(id)?, Some(&text));
                if vouched.is_ok() {
                    store.put_signature(id, &text)?;
                }
                Ok(vouched)
            });
        let image = format!("{}:{}", row.name, row.version);
        let vouched = judged.await??;
        let vouched =
            vouched.map_err(|cause| KeyError::Refused { image: image.clone(), why: sentence(&cause) })?;
        self.judge_image(id).await?;
        let message =
            format!("image {image} has a signature by key {} ({}), {id}", vouched.key.id(), vouched.title);
        self.note(actor, None, "image.signed", Severity::Info, message).await?;
        self.announce(Change::Images);
        Ok(row)
    }

    /// The manifest of an image as it is signed.
    ///
    /// # Errors
    /// What the image store says.
    pub async fn manifest_octets(&self, id: ImageId) -> Result<Vec<u8>, EngineError> {
        let store = self.0.image_store.clone();
        Ok(tokio::task::spawn_blocking(move || store.manifest_bytes(id)).await??)
    }

    /// From now on somebody else's images are taken too.
    ///
    /// # Errors
    /// [`KeyError::Known`], [`KeyError::Title`], [`EngineError::Full`].
    pub async fn trust_key(&self, actor: Actor, key: PublicKey, title: &str) -> Result<KeyRow, EngineError> {
        let _turn = self.0.trust.turn.lock().await;
        let fits = |c: char| !c.is_control();
        if title.trim().is_empty() || title.chars().count() > TITLE_MAX || !title.chars().all(fits) {
            return Err(KeyError::Title.into());
        }
        let known = self.site_keys();
        if known.iter().any(|row| row.key == key) {
            return Err(KeyError::Known.into());
        }
        if known.len() >= KEYS_MAX {
            return Err(EngineError::Full("it knows 64 keys"));
        }
        let row = KeyRow {
            key,
            role: Role::Vendor,
            title: title.trim().to_owned(),
            added: now(),
            ended: None,
            statement: None,
        };
        let message = format!("images by key {} ({}) are taken from now on", key.id(), row.title);
        let stored = row.clone();
        self.change_keys(actor, "key.trusted", message, move |db| rows::put_key(db, &stored)).await?;
        Ok(row)
    }

    /// Somebody else's images are not taken any more.
    ///
    /// # Errors
    /// [`KeyError::NotFound`].
    pub async fn distrust_key(&self, actor: Actor, id: &str) -> Result<(), EngineError> {
        let _turn = self.0.trust.turn.lock().await;
        let found = self.site_keys().into_iter().find(|row| {
            row.role == Role::Vendor && (row.key.id().to_string() == id || row.key.to_string() == id)
        });
        let row = found.ok_or_else(|| KeyError::NotFound(id.chars().take(60).collect()))?;
        let message = format!("images by key {} ({}) are not taken any more", row.key.id(), row.title);
        self.change_keys(actor, "key.distrusted", message, move |db| rows::delete_key(db, &row.key).map(drop))
            .await
    }

    async fn change_keys(
        &self,
        actor: Actor,
        kind: &str,
        message: String,
        change: impl Fn(&crate::store::db::Connection) -> Result<(), crate::store::StoreError> + Send + 'static,
    ) -> Result<(), EngineError> {
        let line = NewEvent::new(now(), actor.name(), kind, Severity::Warning, message);
        let event = line.clone();
        let write = move |db: &_| {
            change(db)?;
            queries::insert_event(db, &event)
        };
        let number = self.0.store.write(write).await?;
        self.announce_event(number, line);
        let keys = self.0.store.read(rows::keys).await?;
        self.0.trust.write().keys = keys;
        for row in self.image_rows().await? {
            self.judge_image(row.id).await?;
        }
        self.publish_anchor().await?;
        self.announce(Change::Images);
        Ok(())
    }
}

fn succession_line(actor: &Actor, row: &KeyRow, old: Option<&KeyRow>, named: bool) -> NewEvent {
    let before = old.map(|old| old.key.id().to_string()).unwrap_or_default();
    let (kind, how) = if named {
        ("key.rotated", "which named it")
    } else {
        ("key.forgotten", "which is forgotten: who trusts it must be told of the new one by hand")
    };
    let message = format!("key {} signs the site's images in the place of {before}, {how}", row.key.id());
    NewEvent::new(now(), actor.name(), kind, Severity::Warning, message)
}
