//! Whose images are written: the site's key, keys of others that are trusted too, and which images they signed.
//!
//! ```text
//!  site key ──signs──▶ manifest, when an image is added ──▶ image store  <id>.minisig
//!     │                                                          │ judged here, by a DPU and by the agent, each for itself
//!     └─ public part, floors ──▶ trust.json ──▶ behind every ramdisk that is served
//! ```
//!
//! Keys and floors are rows of the database; the private part is a file, and may be missing: then what is added waits for a signature that was
//! made elsewhere. What judges is crate `images`. Decision record 0052.

mod files;
mod images;
mod keys;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use ::images::Manifest;
use ::images::minisign::{MinisignError, PublicKey, SecretKey};
use ::images::trust::{self, Anchor, TrustedKey};
use boot_server_core::node::Severity;
use protocol::ImageId;

use super::{Actor, Change, Engine, EngineError, now};
use crate::config::Settings;
use crate::secret::NoRandomness;
use crate::store::trust::{self as rows, Floor, KeyRow, Role};
use crate::store::{Store, queries};

pub use files::KeyFileError;
pub use keys::Successor;

/// Set once images that were there before there were signatures have been signed.
const ADOPTED: &str = "trust.adopted";
/// Title of the site's key.
const SITE: &str = "this site";

/// Why keys or signatures are refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The files of the keys.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The system gives no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// What was given is no key, or no signature.
    #[error(transparent)]
    Form(#[from] MinisignError),
    /// Nobody vouches for the image.
    #[error("image {image} may not be written: {why}")]
    Unsigned {
        /// The image, by name and version.
        image: String,
        /// Why not.
        why: String,
    },
    /// A signature that was given is not good for the image.
    #[error("the signature of image {image} is refused: {why}")]
    Refused {
        /// The image, by name and version.
        image: String,
        /// Why.
        why: String,
    },
    /// The private part of the site's key is not here.
    #[error("the private part of the site's key is not on this machine")]
    Elsewhere,
    /// The key is there already.
    #[error("this key is known already")]
    Known,
    /// No such key of somebody else.
    #[error("no key `{0}` of somebody else is trusted")]
    NotFound(String),
    /// Halves of two keys, or none.
    #[error("give a public key, or a private one, or both of one key")]
    Pair,
    /// A title that cannot be.
    #[error("a key needs a title of at most 80 characters")]
    Title,
    /// The statement is not that of the site's key about this one.
    #[error("the statement is not one by which the site's key names this one")]
    Statement,
    /// The site's key did not name the new one.
    #[error("the site's key did not name this one, and its private part is not here to do it")]
    NoStatement,
}

impl KeyError {
    /// Status, code and hint.
    pub fn parts(&self) -> (u16, &'static str, &'static str) {
        match self {
            Self::File(_) | Self::NoRandomness(_) => {
                (503, "site-key", "look at the server's log and at `trust` in its state directory")
            }
            Self::Form(_) => (422, "bad-key", "give the file as minisign or `billet image sign` writes it"),
            Self::Unsigned { .. } => (
                409,
                "image-unsigned",
                "sign its manifest (`billet image sign`), then give the signature: `billet image signature IMAGE FILE`",
            ),
            Self::Refused { .. } => {
                (422, "bad-signature", "sign the manifest of this very image (`billet image manifest`)")
            }
            Self::Known => (409, "key-known", "see `billet site key show`"),
            Self::NotFound(_) => (404, "key-not-found", "list them with `billet site key show`"),
            Self::Pair => (422, "bad-key", "give the files of one key"),
            Self::Title => (422, "bad-title", "say whose key it is"),
            Self::Statement | Self::NoStatement => (
                409,
                "key-statement",
                "make it where the old key is (`billet site key rotate --key OLD`); if that key is lost, give --forget",
            ),
            Self::Elsewhere => (
                409,
                "key-elsewhere",
                "sign where the key is (`billet image sign`), and give the signature here",
            ),
        }
    }
}

/// What a signature is worth here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A trusted key signed it.
    Signed {
        /// Which.
        key: PublicKey,
        /// Whose it is.
        title: String,
        /// Its number.
        number: u64,
    },
    /// Nobody that counts did.
    Refused(String),
}

/// Keys, floors, and what they make of the images.
pub(super) struct Trust {
    state: RwLock<State>,
    /// Held while keys or signatures change.
    turn: tokio::sync::Mutex<()>,
}

struct State {
    /// The private part of the site's key, where it is here.
    secret: Option<SecretKey>,
    keys: Vec<KeyRow>,
    floors: Vec<Floor>,
    images: BTreeMap<ImageId, Standing>,
    /// The number that was given last.
    last: u64,
    /// Images that were there before are to be signed.
    adopt: bool,
}

impl State {
    fn anchor(&self) -> Anchor {
        let trusted = self.keys.iter().filter(|row| matches!(row.role, Role::Site | Role::Vendor));
        Anchor::new(trusted.map(|row| self.trusted(row)).collect())
    }

    fn trusted(&self, row: &KeyRow) -> TrustedKey {
        let text = row.key.to_string();
        let floors = self.floors.iter().filter(|floor| floor.key == text);
        TrustedKey {
            key: row.key,
            title: row.title.clone(),
            floors: floors.map(|floor| (floor.name.clone(), floor.number)).collect(),
        }
    }

    fn site(&self) -> Option<&KeyRow> {
        self.keys.iter().find(|row| row.role == Role::Site)
    }

    /// The number of the next image that is signed: the time, so that who signs elsewhere needs to know nothing, and more than the last.
    fn number(&mut self) -> u64 {
        self.last = now().0.max(self.last.saturating_add(1));
        self.last
    }

    fn noticed(&mut self, number: u64) {
        // Nobody's clock is that far ahead; a number of another's choice must not use ours up.
        if number < u64::MAX / 4 {
            self.last = self.last.max(number);
        }
    }
}

impl Trust {
    /// Reads the keys; makes the site's where there never was one.
    pub(super) async fn open(settings: &Settings, store: &Store) -> Result<Self, EngineError> {
        let (mut keys, floors, adopted) =
            store.read(|db| Ok((rows::keys(db)?, rows::floors(db)?, queries::setting(db, ADOPTED)?))).await?;
        let site = keys.iter().find(|row| row.role == Role::Site).map(|row| row.key);
        let path = settings.image_key();
        let secret = tokio::task::spawn_blocking(move || files::open(&path, site)).await?;
        let secret = secret.map_err(KeyError::from)?;
        if site.is_none()
            && let Some(secret) = &secret
        {
            let row = KeyRow {
                key: secret.public(),
                role: Role::Site,
                title: SITE.to_owned(),
                added: now(),
                ended: None,
                statement: None,
            };
            let stored = row.clone();
            store.write(move |db| rows::put_key(db, &stored)).await?;
            keys.push(row);
        }
        let last = floors.iter().map(|floor| floor.number).max().unwrap_or(0);
        let adopt = adopted.is_none();
        let state = State { secret, keys, floors, images: BTreeMap::new(), last: 0, adopt };
        let trust = Self { state: RwLock::new(state), turn: tokio::sync::Mutex::default() };
        trust.write().noticed(last);
        Ok(trust)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Engine {
    /// The keys that are trusted now, as machines are told them.
    pub fn anchor(&self) -> Arc<Anchor> {
        Arc::new(self.0.trust.read().anchor())
    }

    /// The statements by which former keys of the site named the ones that followed them, oldest first.
    pub fn succession(&self) -> Vec<String> {
        self.0.trust.read().keys.iter().filter_map(|row| row.statement.clone()).collect()
    }

    /// What the signature of this image is worth.
    pub fn standing_of(&self, image: ImageId) -> Standing {
        let known = self.0.trust.read().images.get(&image).cloned();
        known.unwrap_or_else(|| Standing::Refused("the image is not signed".to_owned()))
    }

    /// The signature of an image that is being added; `None` where the key is elsewhere.
    pub fn sign_manifest(&self, manifest: &Manifest) -> Option<String> {
        let mut state = self.0.trust.write();
        let number = state.number();
        state.secret.as_ref().map(|secret| trust::sign(secret, manifest, number))
    }

    /// True where the private part of the site's key is on this machine.
    pub fn has_image_key(&self) -> bool {
        self.0.trust.read().secret.is_some()
    }

    /// Writes what machines are told to trust, for whoever makes ramdisks.
    async fn publish_anchor(&self) -> Result<(), EngineError> {
        let (anchor, path) = (self.anchor(), self.settings().anchor());
        let written = tokio::task::spawn_blocking(move || files::publish(&path, &anchor)).await?;
        Ok(written.map_err(KeyError::from)?)
    }
}

#[cfg(test)]
mod tests;
