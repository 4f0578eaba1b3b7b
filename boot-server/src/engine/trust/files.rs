//! The files of the keys: the private part of the site's key, and what machines are told to trust.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use images::minisign::{MinisignError, PublicKey, SecretKey};
use images::trust::Anchor;

use crate::secret::{self, NoRandomness};

/// What the first line of the private key's file says.
pub(super) const TITLE: &str = "Billet's site key, which signs images: keep it secret";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// A file.
    #[error("cannot {action} {}", path.display())]
    File {
        /// Such as `read`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// What is in it.
    #[error("{} holds no private key", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: MinisignError,
    },
    /// The system gives no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyFileError {
    move |cause| KeyFileError::File { action, path: path.to_owned(), cause }
}

/// The private part of the site's key, where it is here; a new one is made only where the site never had a key.
pub(super) fn open(path: &Path, site: Option<PublicKey>) -> Result<Option<SecretKey>, KeyFileError> {
    settle(path, site)?;
    let secret = match read(path)? {
        Some(secret) => secret,
        None if site.is_some() => return Ok(None),
        None => {
            let secret = SecretKey::of_seed(&secret::random()?);
            write(path, &secret)?;
            tracing::info!(path = %path.display(), key = %secret.public(), "made the site's key, which signs images");
            secret
        }
    };
    if site.is_some_and(|site| site != secret.public()) {
        tracing::error!(
            path = %path.display(),
            "this is not the private part of the site's key: images are not signed here (`billet site key show`)"
        );
        return Ok(None);
    }
    Ok(Some(secret))
}

/// The next key lies beside the old one until the database knows it: whichever it knows is the one.
fn settle(path: &Path, site: Option<PublicKey>) -> Result<(), KeyFileError> {
    let next = next(path);
    let Some(waiting) = read(&next)? else { return Ok(()) };
    if site == Some(waiting.public()) {
        take_next(path)
    } else {
        fs::remove_file(&next).map_err(failed("remove", &next))
    }
}

fn next(path: &Path) -> PathBuf {
    path.with_added_extension("next")
}

/// Keeps a key that is to follow, until it does.
pub(super) fn keep_next(path: &Path, secret: &SecretKey) -> Result<(), KeyFileError> {
    write(&next(path), secret)
}

/// The key that was kept is the one from now on; the old one is gone.
pub(super) fn take_next(path: &Path) -> Result<(), KeyFileError> {
    fs::rename(next(path), path).and_then(|()| sync_parent(path)).map_err(failed("write", path))
}

/// The database knows another key: the one that was kept is taken, or, where its private part stays elsewhere, the old one goes.
pub(super) fn after(path: &Path, here: bool) -> Result<(), KeyFileError> {
    if here {
        return take_next(path);
    }
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(cause)),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<Option<SecretKey>, KeyFileError> {
    let text = match fs::read_to_string(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(failed("read", path))?,
    };
    let damaged = |cause| KeyFileError::Damaged { path: path.to_owned(), cause };
    SecretKey::parse(&text).map(Some).map_err(damaged)
}

fn write(path: &Path, secret: &SecretKey) -> Result<(), KeyFileError> {
    secret::write_private(path, &secret.to_file(TITLE))
        .and_then(|()| sync_parent(path))
        .map_err(failed("write", path))
}

/// Writes what machines are told to trust, where it changed.
pub(super) fn publish(path: &Path, anchor: &Anchor) -> Result<(), KeyFileError> {
    let text = anchor.to_json();
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let new = path.with_added_extension("new");
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_parent(path)
    };
    write().map_err(failed("write", path))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Scratch;

    #[test]
    fn a_key_is_made_once_and_not_where_the_site_has_one_elsewhere() {
        let scratch = Scratch::new();
        let path = scratch.0.join("trust/site.key");
        let made = open(&path, None).unwrap().unwrap();
        assert_eq!(open(&path, Some(made.public())).unwrap().unwrap().public(), made.public());
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let other = SecretKey::of_seed(&[3; 32]);
        assert!(open(&path, Some(other.public())).unwrap().is_none(), "another site's");
        fs::remove_file(&path).unwrap();
        assert!(open(&path, Some(made.public())).unwrap().is_none(), "kept elsewhere");
        assert!(!path.exists());
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(open(&path, None), Err(KeyFileError::Damaged { .. })));
    }

    /// Whoever is cut off while a key is changed has the one that the database knows.
    #[test]
    fn a_cut_leaves_the_key_that_the_database_knows() {
        let scratch = Scratch::new();
        let path = scratch.0.join("trust/site.key");
        let old = open(&path, None).unwrap().unwrap();
        let new = SecretKey::of_seed(&[3; 32]);
        keep_next(&path, &new).unwrap();
        assert_eq!(open(&path, Some(old.public())).unwrap().unwrap().public(), old.public());
        assert!(!next(&path).exists(), "it never came to that");
        keep_next(&path, &new).unwrap();
        assert_eq!(open(&path, Some(new.public())).unwrap().unwrap().public(), new.public());
        assert!(!next(&path).exists());
    }
}
