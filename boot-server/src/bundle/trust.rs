//! Whose bundles are taken. A bundle never says that itself: keys come from the command line, the configuration, and the site's
//! own signing key.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use images::minisign::MinisignError;

use super::{BundleError, io};
use crate::minisign::{SignError, Signer, verify};

/// First line of a signature in a bundle. It is not signed, so it is always the same.
const UNTRUSTED: &str = "untrusted comment: signature by Billet";

/// Public keys, as minisign has them; second lines.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<String>);

impl Keys {
    /// These ones: each a line, or the text of a file.
    ///
    /// # Errors
    /// [`BundleError::Key`].
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, BundleError> {
        texts.into_iter().map(line).collect::<Result<_, _>>().map(Self)
    }

    /// The keys of a site: those of its configuration, and its own where it has signed anything yet.
    ///
    /// # Errors
    /// [`BundleError::Key`], or where its own cannot be read.
    pub fn of_site(listed: &[String], state_dir: &Path) -> Result<Self, BundleError> {
        let mut keys = Self::new(listed.iter().map(String::as_str))?;
        let own = state_dir.join("signing.key");
        if own.exists() {
            keys.add(&Signer::open(&own).map_err(BundleError::Signing)?.public())?;
        }
        Ok(keys)
    }

    /// One more.
    ///
    /// # Errors
    /// [`BundleError::Key`].
    pub fn add(&mut self, text: &str) -> Result<(), BundleError> {
        let key = line(text)?;
        if !self.0.contains(&key) {
            self.0.push(key);
        }
        Ok(())
    }

    /// One more, from a file.
    ///
    /// # Errors
    /// As [`Keys::add`], and where it cannot be read.
    pub fn add_file(&mut self, path: &Path) -> Result<(), BundleError> {
        self.add(&fs::read_to_string(path).map_err(io("read", path))?)
    }

    /// Which of them signed these octets with this comment.
    pub(super) fn signer(&self, octets: &[u8], signature: &str) -> Result<(String, String), BundleError> {
        if self.0.is_empty() {
            return Err(BundleError::NoKeys);
        }
        if normal(signature).as_deref() != Some(signature) {
            return Err(BundleError::SignatureForm);
        }
        for key in &self.0 {
            match verify(octets, signature, key) {
                Ok(comment) => return Ok((key.clone(), comment)),
                Err(SignError::Minisign(MinisignError::OtherKey)) => {}
                Err(error) => return Err(BundleError::Signature(error)),
            }
        }
        Err(BundleError::Stranger(number(signature)))
    }
}

/// The one form of a signature: nothing in it can be changed that is not signed.
pub(super) fn normal(signature: &str) -> Option<String> {
    let mut lines = signature.lines().skip(1);
    let (first, comment, last) = (lines.next()?, lines.next()?, lines.next()?);
    let same = |line: &str| STANDARD.decode(line).ok().map(|octets| STANDARD.encode(octets));
    Some(format!("{UNTRUSTED}\n{}\n{comment}\n{}\n", same(first)?, same(last)?))
}

/// The number of the key that a signature names, as minisign shows it.
fn number(signature: &str) -> String {
    let octets = signature.lines().nth(1).and_then(|line| STANDARD.decode(line).ok()).unwrap_or_default();
    let number = octets.get(2..10).unwrap_or_default();
    number.iter().rev().map(|octet| format!("{octet:02X}")).collect()
}

/// The line that is the key.
fn line(text: &str) -> Result<String, BundleError> {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let octets = STANDARD.decode(line).unwrap_or_default();
    if octets.len() == 42 && octets.starts_with(b"Ed") {
        return Ok(line.to_owned());
    }
    Err(BundleError::Key(line.chars().take(60).filter(|c| !c.is_control()).collect()))
}
