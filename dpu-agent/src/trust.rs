//! Whose images this DPU takes: the keys that the server named when it accepted the DPU for the first time, kept in a file. From then on a key
//! is replaced only by one that it named itself, and floors only rise; whatever else the server says of keys is not believed. Who wants to
//! begin anew removes the file.

use std::path::Path;

use images::minisign::TEXT_MAX;
use images::trust::{ANCHOR_MAX, Anchor, AnchorError, SUCCESSION_MAX};
use protocol_http::HttpError;

use crate::files::{self, FileError};

/// Its name in the DPU's directory.
pub const FILE: &str = "trust.json";

/// Why the keys stay what they were.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The server does not say.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// What the server says, or what is in the file, are no keys.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Asks the server, and keeps what may be believed.
///
/// # Errors
/// [`TrustError`]; the file is as it was then.
pub fn learn(http: &ureq::Agent, server: &str, path: &Path) -> Result<(), TrustError> {
    let mut said = Vec::new();
    protocol_http::get(http, &format!("{server}/trust/anchor"), ANCHOR_MAX, &mut said)?;
    let said = Anchor::parse(&said)?;
    let mut list = Vec::new();
    protocol_http::get(http, &format!("{server}/trust/succession"), SUCCESSION_MAX * TEXT_MAX, &mut list)?;
    let succession: Vec<String> = serde_json::from_slice(&list).unwrap_or_default();
    let known = if path.exists() { Some(Anchor::parse(&files::read(path, ANCHOR_MAX)?)?) } else { None };
    if known.is_none() {
        let keys: Vec<_> = said.keys.iter().map(|key| key.key.to_string()).collect();
        tracing::info!(?keys, "images are taken by these keys from now on");
    }
    let next = known.as_ref().map_or_else(|| said.clone(), |known| believed(known, &said, &succession));
    if known.as_ref() != Some(&next) {
        files::replace_private(path, &next.to_json())?;
    }
    Ok(())
}

/// What is known, with what of the server's words follows from it.
fn believed(known: &Anchor, said: &Anchor, succession: &[String]) -> Anchor {
    let mut next = known.clone();
    next.follow(succession);
    for key in &mut next.keys {
        let Some(same) = said.keys.iter().find(|said| said.key == key.key) else {
            tracing::warn!(
                key = %key.key,
                "the server does not name this key any more: images are taken by it all the same, and by no new one"
            );
            continue;
        };
        for (name, floor) in &same.floors {
            let own = key.floors.entry(name.clone()).or_default();
            *own = (*own).max(*floor);
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use images::minisign::SecretKey;
    use images::trust::{TrustedKey, succession};

    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::of_seed(&[seed; 32])
    }

    fn anchor(keys: &[(u8, u64)]) -> Anchor {
        let trusted = |(seed, floor): &(u8, u64)| TrustedKey {
            key: key(*seed).public(),
            title: "site".into(),
            floors: [("debian-12".to_owned(), *floor)].into(),
        };
        Anchor::new(keys.iter().map(trusted).collect())
    }

    #[test]
    fn a_key_is_replaced_by_its_own_word_alone_and_floors_only_rise() {
        let known = anchor(&[(1, 5)]);
        assert_eq!(believed(&known, &anchor(&[(1, 7)]), &[]), anchor(&[(1, 7)]));
        assert_eq!(believed(&known, &anchor(&[(1, 3)]), &[]), known, "a floor falls");
        assert_eq!(believed(&known, &anchor(&[(2, 1), (3, 1)]), &[]), known, "other keys");
        let by_other = succession(&key(2), &key(2).public());
        assert_eq!(believed(&known, &anchor(&[(2, 1)]), &[by_other]), known, "another key's word");
        let steps = [succession(&key(1), &key(2).public())];
        assert_eq!(believed(&known, &anchor(&[(2, 9)]), &steps), anchor(&[(2, 9)]));
        assert_eq!(believed(&anchor(&[(2, 9)]), &anchor(&[(1, 1)]), &steps), anchor(&[(2, 9)]), "not back");
    }
}
