//! Whose images are written here: what the site put behind the ramdisk, or what was given on the command line. Without either nothing is
//! written.

use std::path::Path;

use images::Manifest;
use images::trust::{ANCHOR_MAX, ANCHOR_PATH, Anchor, TrustError};
use protocol::ImageId;
use protocol::fault::{Fault, FaultCode};

use crate::feed::Feed;
use crate::fetch::Fetcher;

/// Whose.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Of these keys.
    Keys(Anchor),
    /// Nobody's, and why.
    Nobody(String),
    /// Anybody's: somebody said so on the command line.
    Anybody,
}

impl Trust {
    /// What the ramdisk carries.
    pub fn of_ramdisk() -> Self {
        match Self::of_file(Path::new(ANCHOR_PATH)) {
            Ok(trust) => trust,
            Err(why) => Self::Nobody(why),
        }
    }

    /// The keys in this file.
    ///
    /// # Errors
    /// Why there are none, in words.
    pub fn of_file(path: &Path) -> Result<Self, String> {
        let size = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?.len();
        if size > ANCHOR_MAX as u64 {
            return Err(format!("{} is too large", path.display()));
        }
        let octets = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Anchor::parse(&octets).map(Self::Keys).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// One line for the console.
    pub fn describe(&self) -> String {
        match self {
            Self::Keys(anchor) => {
                let keys: Vec<_> =
                    anchor.keys.iter().map(|key| format!("{} ({})", key.key.id(), key.title)).collect();
                format!("images are taken by key {}", keys.join(", "))
            }
            Self::Nobody(why) => format!("no image is taken: {why}"),
            Self::Anybody => "images are taken WITHOUT a signature, as was asked".to_owned(),
        }
    }

    /// Whether an image can be taken at all; asked before anything is fetched.
    ///
    /// # Errors
    /// Where nobody's is.
    pub fn check(&self) -> Result<(), Fault> {
        let Self::Nobody(why) = self else { return Ok(()) };
        Err(Fault::new(
            FaultCode::Untrusted,
            format!("this ramdisk does not say whose images it may write: {why}"),
            "boot the ramdisk that the server serves, or make the signed boot image again (`billet boot uki`)",
        ))
    }

    /// Judges a manifest that was fetched, and of which nothing was read, by its signature. Where its key is unknown, the server is asked
    /// whether a key that is known named it.
    ///
    /// # Errors
    /// [`FaultCode::Untrusted`], [`FaultCode::Manifest`].
    pub fn judge(
        &self,
        fetcher: &mut Fetcher,
        feed: &Feed,
        id: ImageId,
        manifest: &[u8],
    ) -> Result<Manifest, Fault> {
        let Self::Keys(anchor) = self else {
            self.check()?;
            return Manifest::parse_as(manifest, id).map_err(|e| refused(id, &TrustError::Manifest(e)));
        };
        let signature = fetcher.signature(feed, id)?;
        let mut vouched = anchor.judge(id, manifest, signature.as_deref());
        if matches!(vouched, Err(TrustError::Foreign(_))) {
            let mut later = anchor.clone();
            if later.follow(&fetcher.succession(feed)) {
                vouched = later.judge(id, manifest, signature.as_deref());
            }
        }
        let vouched = vouched.map_err(|e| refused(id, &e))?;
        feed.note(format!(
            "image {} {} is signed by key {} ({}), number {}",
            vouched.statement.name,
            vouched.statement.version,
            vouched.key.id(),
            vouched.title,
            vouched.statement.number
        ));
        Ok(vouched.manifest)
    }
}

/// The fault of an image that is not taken.
pub fn refused(id: ImageId, error: &TrustError) -> Fault {
    let (code, hint) = match error {
        TrustError::Manifest(_) => (FaultCode::Manifest, "add the image again"),
        TrustError::Unsigned | TrustError::Signature(_) | TrustError::Comment | TrustError::OtherImage(_) => {
            (
                FaultCode::Untrusted,
                "give the image its signature (`billet image signature`), then deploy again",
            )
        }
        TrustError::Foreign(_) => (
            FaultCode::Untrusted,
            "have the image signed by the site's key, or trust the other one (`billet site key trust`); a boot image made before must be made again",
        ),
        TrustError::Broken => (
            FaultCode::Untrusted,
            "the image is not what was added: find out who changed it, then add it again",
        ),
        TrustError::Older { .. } => {
            (FaultCode::Untrusted, "deploy an image that the site still has; find out who asked for this one")
        }
    };
    let mut message = format!("image {id} is refused: {error}");
    if let Some(cause) = std::error::Error::source(error).filter(|_| code == FaultCode::Untrusted) {
        message.push_str(&format!(": {cause}"));
    }
    Fault::new(code, message, hint)
}
