//! Whose images are written: keys that a site trusts, what a signature says of an image, and the judgement of both. Pure.
//!
//! ```text
//!  manifest (octets) ┐                         ┌─ name, version and id are those of the manifest
//!  signature (text)  ├─▶ a key of the anchor ──┤
//!  anchor            ┘   signed these octets   └─ its number is not below the floor of this name
//! ```
//!
//! The number grows with every image that a key signs. The floor of a name is the lowest number that the site still has an image of, so that
//! an image that was taken away, such as one with a known hole, stays away, whoever keeps its octets.
//!
//! A key is followed by another when it says so itself ([`succession`]): who has the old one learns the new one, and forgets the old.
//! The other way round nothing is learned.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use protocol::ImageId;
use serde::{Deserialize, Serialize};

use crate::manifest::{Manifest, ManifestError, is_name};
use crate::minisign::{KeyId, MinisignError, PublicKey, SecretKey, Signature, hash};

/// First word of the comment of an image's signature.
pub const IMAGE: &str = "billet-image/1";
/// First word of the comment by which a key names the one that follows it.
const SUCCESSOR: &str = "billet-key/1";
/// Value of [`Anchor::format`].
pub const FORMAT: &str = "billet-trust/1";
/// Path of an anchor in the ramdisk.
pub const ANCHOR_PATH: &str = "/etc/billet/trust.json";
/// Largest anchor in bytes: some ten thousand names.
pub const ANCHOR_MAX: usize = 1 << 20;
/// Keys of an anchor.
pub const KEYS_MAX: usize = 64;
/// Changes of keys that are followed: one a month for five years.
pub const SUCCESSION_MAX: usize = 64;

/// What the signature of an image says; its trusted comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Name of the image.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its id.
    pub image: ImageId,
    /// Grows with every image that the key signs.
    pub number: u64,
}

impl Statement {
    /// About this image.
    pub fn of(manifest: &Manifest, number: u64) -> Self {
        Self { name: manifest.name.clone(), version: manifest.version.clone(), image: manifest.id(), number }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{IMAGE} {} {} {} {}", self.name, self.version, self.image, self.number)
    }
}

impl FromStr for Statement {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let words: Vec<&str> = text.split(' ').collect();
        let [IMAGE, name, version, image, number] = words[..] else { return Err(TrustError::Comment) };
        let image = image.parse().map_err(|_| TrustError::Comment)?;
        let number = number.parse().map_err(|_| TrustError::Comment)?;
        let statement = Self { name: name.to_owned(), version: version.to_owned(), image, number };
        // One spelling only.
        let exact = is_name(name) && is_name(version) && statement.to_string() == text;
        if exact { Ok(statement) } else { Err(TrustError::Comment) }
    }
}

/// Signs an image: the signature's file.
pub fn sign(key: &SecretKey, manifest: &Manifest, number: u64) -> String {
    key.sign(&manifest.canonical(), &Statement::of(manifest, number).to_string())
}

/// By this `key` names the one that follows it: a signature's file whose comment is what is signed.
pub fn succession(key: &SecretKey, next: &PublicKey) -> String {
    let words = format!("{SUCCESSOR} {next}");
    key.sign(words.as_bytes(), &words)
}

/// An image that somebody who is trusted vouches for.
#[derive(Debug, Clone)]
pub struct Vouched {
    /// Its manifest.
    pub manifest: Manifest,
    /// What the signature says.
    pub statement: Statement,
    /// Who signed it.
    pub key: PublicKey,
    /// Whose key that is.
    pub title: String,
}

/// Why an image is not written.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Nobody signed it.
    #[error("the image is not signed")]
    Unsigned,
    /// No signature of this form.
    #[error("the image's signature cannot be read")]
    Signature(#[source] MinisignError),
    /// Nobody that this site trusts.
    #[error("the image is signed by key {0}, which is not trusted here")]
    Foreign(KeyId),
    /// Another file was signed.
    #[error("the image's signature does not hold: its manifest was changed, or somebody else signed it")]
    Broken,
    /// The signature is about something else, such as a report.
    #[error("the signature is not that of an image")]
    Comment,
    /// The comment names another image.
    #[error("the signature is that of {0}")]
    OtherImage(String),
    /// Older than anything of its name that the site has.
    #[error(
        "image {name} {version} is older than what this site still has: its number is {number}, and none below {floor} is taken"
    )]
    Older {
        /// Name.
        name: String,
        /// Version.
        version: String,
        /// Number in its signature.
        number: u64,
        /// Lowest that is taken.
        floor: u64,
    },
    /// Not the manifest that was asked for.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Why something is no anchor.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// Not JSON, or not of this shape.
    #[error("this is no list of trusted keys of format {FORMAT}")]
    Json(#[from] serde_json::Error),
    /// Another format, or limits passed.
    #[error("list of trusted keys: {0}")]
    Invalid(&'static str),
    /// A key in it.
    #[error("list of trusted keys")]
    Key(#[from] MinisignError),
}

/// Keys that are trusted, as a ramdisk carries them and a DPU keeps them. Fields are only added to: what does not know one leaves it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// [`FORMAT`].
    pub format: String,
    /// The keys.
    pub keys: Vec<TrustedKey>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedKey {
    /// The key.
    #[serde(with = "key_text")]
    pub key: PublicKey,
    /// For people: whose it is.
    pub title: String,
    /// Lowest number that is taken, by name of image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub floors: BTreeMap<String, u64>,
}

impl Anchor {
    /// These keys.
    pub fn new(keys: Vec<TrustedKey>) -> Self {
        Self { format: FORMAT.to_owned(), keys }
    }

    /// From its file.
    ///
    /// # Errors
    /// [`AnchorError`].
    pub fn parse(octets: &[u8]) -> Result<Self, AnchorError> {
        if octets.len() > ANCHOR_MAX {
            return Err(AnchorError::Invalid("it is too large"));
        }
        let anchor: Self = serde_json::from_slice(octets)?;
        if anchor.format != FORMAT {
            return Err(AnchorError::Invalid("it has another format"));
        }
        if anchor.keys.is_empty() || anchor.keys.len() > KEYS_MAX {
            return Err(AnchorError::Invalid("it has no keys, or too many"));
        }
        Ok(anchor)
    }

    /// Its file.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).expect("keys and numbers are JSON");
        text.push(b'\n');
        text
    }

    /// Judges the manifest of image `id`, of which nothing was read before, by its signature.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn judge(
        &self,
        id: ImageId,
        manifest: &[u8],
        signature: Option<&str>,
    ) -> Result<Vouched, TrustError> {
        let signature: Signature =
            signature.ok_or(TrustError::Unsigned)?.parse().map_err(TrustError::Signature)?;
        // Two keys may have the same number, which proves nothing.
        let mut keys = self.keys.iter().filter(|trusted| trusted.key.id() == signature.key).peekable();
        if keys.peek().is_none() {
            return Err(TrustError::Foreign(signature.key));
        }
        let hash = hash(manifest);
        let signer =
            keys.find_map(|trusted| Some((trusted, signature.clone().verify(&trusted.key, &hash).ok()?)));
        let (signer, comment) = signer.ok_or(TrustError::Broken)?;
        let statement: Statement = comment.parse()?;
        let manifest = Manifest::parse_as(manifest, id)?;
        if statement != Statement::of(&manifest, statement.number) {
            return Err(TrustError::OtherImage(format!("{} {}", statement.name, statement.version)));
        }
        let Statement { name, version, number, .. } = &statement;
        match signer.floors.get(name) {
            Some(floor) if number < floor => Err(TrustError::Older {
                name: name.clone(),
                version: version.clone(),
                number: *number,
                floor: *floor,
            }),
            _ => Ok(Vouched { manifest, statement, key: signer.key, title: signer.title.clone() }),
        }
    }

    /// Follows statements of [`succession`], in whatever order: each key of the anchor that named one which follows it is replaced. True
    /// where any was.
    pub fn follow(&mut self, statements: &[String]) -> bool {
        let mut changed = false;
        for trusted in &mut self.keys {
            for _ in 0..SUCCESSION_MAX {
                let mut next = statements.iter().filter_map(|text| successor(&trusted.key, text));
                let Some(next) = next.next() else { break };
                trusted.key = next;
                changed = true;
            }
        }
        changed
    }
}

/// The key that `key` names in this statement, if it is one by it.
pub fn successor(key: &PublicKey, statement: &str) -> Option<PublicKey> {
    let signature: Signature = statement.parse().ok()?;
    let words = signature.unverified_comment().to_owned();
    let words = signature.verify(key, &hash(words.as_bytes())).ok()?;
    let next: PublicKey = words.strip_prefix(SUCCESSOR)?.strip_prefix(' ')?.parse().ok()?;
    (next != *key).then_some(next)
}

/// A key as its text.
mod key_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::minisign::PublicKey;

    pub(super) fn serialize<S: Serializer>(key: &PublicKey, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(key)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<PublicKey, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use protocol::Sha256;

    use super::*;
    use crate::{Architecture, PartitionTable, manifest};

    fn image(name: &str, version: &str) -> Manifest {
        Manifest {
            format: manifest::FORMAT.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: Architecture::X86_64,
            firmware: BTreeSet::new(),
            partition_table: PartitionTable::None,
            raw_size: 65536,
            sha256: Sha256([1; 32]),
            minimum_disk: 65536,
            default_user: None,
            datasource: None,
            chunk_size: 65536,
            chunks: vec![None],
        }
    }

    fn key(seed: u8) -> SecretKey {
        SecretKey::of_seed(&[seed; 32])
    }

    fn trusted(seed: u8) -> TrustedKey {
        TrustedKey { key: key(seed).public(), title: "site".to_owned(), floors: BTreeMap::new() }
    }

    fn judge(anchor: &Anchor, image: &Manifest, signature: &str) -> Result<u64, TrustError> {
        anchor.judge(image.id(), &image.canonical(), Some(signature)).map(|it| it.statement.number)
    }

    #[test]
    fn what_a_trusted_key_signed_is_taken_and_nothing_else() {
        let (anchor, one) = (Anchor::new(vec![trusted(1), trusted(2)]), image("one", "1"));
        assert_eq!(judge(&anchor, &one, &sign(&key(1), &one, 5)).unwrap(), 5);
        assert_eq!(judge(&anchor, &one, &sign(&key(2), &one, 6)).unwrap(), 6, "a vendor's");
        let foreign = judge(&anchor, &one, &sign(&key(3), &one, 5));
        assert!(matches!(foreign, Err(TrustError::Foreign(id)) if id == key(3).public().id()));
        assert!(matches!(anchor.judge(one.id(), &one.canonical(), None), Err(TrustError::Unsigned)));
        assert!(matches!(judge(&anchor, &one, "no"), Err(TrustError::Signature(_))));
        // Another image, under the signature of this one.
        let two = image("two", "1");
        assert!(matches!(judge(&anchor, &two, &sign(&key(1), &one, 5)), Err(TrustError::Broken)));
        let asked = anchor.judge(two.id(), &one.canonical(), Some(&sign(&key(1), &one, 5)));
        assert!(matches!(asked, Err(TrustError::Manifest(ManifestError::WrongId { .. }))));
    }

    #[test]
    fn a_comment_that_says_something_else_is_refused() {
        let (anchor, one) = (Anchor::new(vec![trusted(1)]), image("one", "1"));
        let good = Statement::of(&one, 5).to_string();
        for (comment, is) in [
            (good.clone(), true),
            (Statement::of(&image("two", "1"), 5).to_string(), false),
            (Statement { version: "2".to_owned(), ..Statement::of(&one, 5) }.to_string(), false),
            ("usage.csv".to_owned(), false),
            (String::new(), false),
            (good.replace(" 5", " +5"), false),
            (good.replace(" 5", " 05"), false),
            (good.replace(" one ", "  one "), false),
            (format!("{good} "), false),
            (good.replace(IMAGE, "billet-image/2"), false),
        ] {
            let signature = key(1).sign(&one.canonical(), &comment);
            assert_eq!(judge(&anchor, &one, &signature).is_ok(), is, "{comment}");
        }
    }

    #[test]
    fn what_lies_below_the_floor_of_its_name_stays_away() {
        let mut anchor = Anchor::new(vec![trusted(1), trusted(2)]);
        anchor.keys[0].floors.insert("one".to_owned(), 5);
        let (one, other) = (image("one", "1"), image("other", "1"));
        let older = judge(&anchor, &one, &sign(&key(1), &one, 4)).unwrap_err();
        assert_eq!(
            older.to_string(),
            "image one 1 is older than what this site still has: its number is 4, and none below 5 is taken"
        );
        assert!(judge(&anchor, &one, &sign(&key(1), &one, 5)).is_ok());
        assert!(judge(&anchor, &other, &sign(&key(1), &other, 4)).is_ok(), "another name");
        assert!(judge(&anchor, &one, &sign(&key(2), &one, 4)).is_ok(), "another key counts for itself");
    }

    #[test]
    fn a_key_that_follows_is_learned_from_the_old_one_alone() {
        let one = image("one", "1");
        let mut old = Anchor::new(vec![trusted(1)]);
        old.keys[0].floors.insert("one".to_owned(), 5);
        let steps = [succession(&key(2), &key(3).public()), succession(&key(1), &key(2).public())];
        assert!(old.clone().follow(&steps));
        let mut new = old.clone();
        assert!(new.follow(&steps), "over two steps, in whatever order");
        assert_eq!(new.keys[0].key, key(3).public());
        assert!(judge(&new, &one, &sign(&key(3), &one, 5)).is_ok());
        assert!(
            matches!(judge(&new, &one, &sign(&key(3), &one, 4)), Err(TrustError::Older { .. })),
            "floors stay"
        );
        assert!(
            matches!(judge(&new, &one, &sign(&key(1), &one, 9)), Err(TrustError::Foreign(_))),
            "the old is forgotten"
        );
        // Who has the new one learns nothing of the old one.
        let mut latest = Anchor::new(vec![trusted(3)]);
        assert!(!latest.follow(&steps));
        // Nor anything from words that another key signed, or that are no such statement.
        let words = format!("{SUCCESSOR} {}", key(9).public());
        for bad in [
            succession(&key(9), &key(9).public()),
            key(1).sign(b"something else", &words),
            key(1).sign(words.as_bytes(), "something else"),
            key(1).sign(&one.canonical(), &Statement::of(&one, 1).to_string()),
            succession(&key(1), &key(1).public()),
        ] {
            assert!(!old.clone().follow(std::slice::from_ref(&bad)), "{bad}");
        }
        // Two that follow each other end.
        let ring = [succession(&key(1), &key(2).public()), succession(&key(2), &key(1).public())];
        old.follow(&ring);
    }

    /// If this fails, do not change it: ramdisks and DPUs in the field read it.
    #[test]
    fn an_anchor_is_this_json() {
        let mut anchor = Anchor::new(vec![trusted(1)]);
        anchor.keys[0].floors.insert("one".to_owned(), 5);
        let text = format!(
            "{{\"format\":\"billet-trust/1\",\"keys\":[{{\"key\":\"{}\",\"title\":\"site\",\"floors\":{{\"one\":5}}}}]}}\n",
            key(1).public()
        );
        assert_eq!(String::from_utf8(anchor.to_json()).unwrap(), text);
        assert_eq!(Anchor::parse(text.as_bytes()).unwrap(), anchor);
        let later = text.replace("\"keys\"", "\"ca\":\"x\",\"keys\"");
        assert_eq!(Anchor::parse(later.as_bytes()).unwrap(), anchor, "a field of a later version");
        for bad in ["", "{}", &text.replace("trust/1", "trust/2"), &text.replace("RWQ", "RWR")[..60]] {
            assert!(Anchor::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Anchor::parse(&Anchor::new(Vec::new()).to_json()).is_err(), "without a key");
        assert!(Anchor::parse(&vec![b' '; ANCHOR_MAX + 1]).is_err());
    }

    proptest! {
        /// Whatever octet of the manifest is altered, the image is refused.
        #[test]
        fn an_altered_manifest_is_refused(at: prop::sample::Index, flip in 1_u8..) {
            let (anchor, one) = (Anchor::new(vec![trusted(1)]), image("one", "1"));
            let signature = sign(&key(1), &one, 5);
            let mut octets = one.canonical();
            let place = at.index(octets.len());
            octets[place] ^= flip;
            let id = ImageId(crate::chunk::sha256(&octets));
            prop_assert!(matches!(anchor.judge(id, &octets, Some(&signature)), Err(TrustError::Broken)));
        }

        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,300}") {
            let _ = Anchor::parse(&octets);
            let anchor = Anchor::new(vec![trusted(1)]);
            prop_assert!(anchor.judge(image("one", "1").id(), &octets, Some(&text)).is_err());
            prop_assert!(successor(&key(1).public(), &text).is_none());
        }
    }
}
