//! Signatures, keys and their files as minisign has them (jedisct1.github.io/minisign, "Signature format"): Ed25519 (RFC 8032) over
//! BLAKE2b-512 of the content, with a comment that is signed too. Pure: octets in, octets out. What a signature says of an image is
//! [`crate::trust`]'s business, where keys lie is the server's.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b, Blake2b512, Digest as _};
use ed25519_dalek::{Signature as Point, Signer as _, SigningKey, VerifyingKey};

/// Algorithm of a signature over the hash of a file. The older `Ed`, over the file itself, is refused.
const HASHED: &[u8; 2] = b"ED";
/// Algorithm of a key.
const KEY: &[u8; 2] = b"Ed";
/// How the checksum of a private key is made: BLAKE2b-256.
const CHECKSUM: &[u8; 2] = b"B2";
/// What begins the line of the trusted comment.
const TRUSTED: &str = "trusted comment: ";
/// Octets of a private key's file, decoded: algorithms, what a password would be stretched with, id, key, checksum.
const SECRET_LEN: usize = 158;
/// Longest text of a signature or a key that is read, in bytes; ours have a third of it.
pub const TEXT_MAX: usize = 2048;

/// BLAKE2b-512 of what is signed.
pub type Hash = [u8; 64];

/// Why something is no key or no signature, or does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MinisignError {
    /// No signature, or no key, of this form.
    #[error("this is no {0} of minisign's form")]
    Form(&'static str),
    /// A private key under a password.
    #[error("the private key has a password: remove it first (`minisign -C -W -s FILE`)")]
    Password,
    /// By another key.
    #[error("the signature is by another key")]
    OtherKey,
    /// The file or the comment was changed, or the key is not that of the signer.
    #[error("the signature does not hold: the file was changed, or somebody else signed it")]
    Broken,
}

/// Number of a key, by which a signature says whose it is. It proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

/// As minisign writes it: 16 hexadecimal digits, last octet first.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A key that verifies. Its text is the second line of its file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    /// A point that was looked at when this was made.
    point: [u8; 32],
}

impl PublicKey {
    /// Its number.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Its file. The first line is for people.
    pub fn to_file(&self, title: &str) -> String {
        format!("untrusted comment: {}\n{self}\n", one_line(title))
    }

    /// Checks a signature's file against octets, and returns the comment that was signed with them.
    ///
    /// # Errors
    /// [`MinisignError`].
    pub fn verify(&self, octets: &[u8], signature: &str) -> Result<String, MinisignError> {
        Signature::from_str(signature)?.verify(self, &Blake2b512::digest(octets).into())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode([&KEY[..], &self.id.0, &self.point].concat()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// From its file, or from that file's second line alone.
impl FromStr for PublicKey {
    type Err = MinisignError;

    fn from_str(text: &str) -> Result<Self, MinisignError> {
        let wrong = MinisignError::Form("public key");
        let octets = last_line(text).ok_or(wrong)?;
        let (Some(KEY), Some(id), Some(point), 42) =
            (array::<2>(&octets, 0), array::<8>(&octets, 2), array::<32>(&octets, 10), octets.len())
        else {
            return Err(wrong);
        };
        // A point of small order verifies what nobody signed.
        if VerifyingKey::from_bytes(point).map_err(|_| wrong)?.is_weak() {
            return Err(wrong);
        }
        Ok(Self { id: KeyId(*id), point: *point })
    }
}

/// A key that signs.
#[derive(Clone)]
pub struct SecretKey {
    id: KeyId,
    key: SigningKey,
}

impl SecretKey {
    /// The key of this seed (RFC 8032, section 5.1.5); its number follows from it.
    pub fn of_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let mut id = [0; 8];
        id.copy_from_slice(&Blake2b512::digest(key.verifying_key().as_bytes())[..8]);
        Self { id: KeyId(id), key }
    }

    /// From a private key's file without a password, or from the base64 of a seed, which is how Billet wrote keys once.
    ///
    /// # Errors
    /// [`MinisignError::Form`], [`MinisignError::Password`].
    pub fn parse(text: &str) -> Result<Self, MinisignError> {
        let wrong = MinisignError::Form("private key");
        let octets = last_line(text).ok_or(wrong)?;
        if let Ok(seed) = <&[u8; 32]>::try_from(&octets[..]) {
            return Ok(Self::of_seed(seed));
        }
        if octets.len() != SECRET_LEN || array(&octets, 0) != Some(KEY) || array(&octets, 4) != Some(CHECKSUM)
        {
            return Err(wrong);
        }
        if array(&octets, 2) != Some(&[0, 0]) {
            return Err(MinisignError::Password);
        }
        let id = KeyId(*array(&octets, 54).ok_or(wrong)?);
        let key = SigningKey::from_bytes(array(&octets, 62).ok_or(wrong)?);
        let (public, sum) = (array::<32>(&octets, 94), array::<32>(&octets, 126).ok_or(wrong)?);
        // minisign 0.11 leaves the checksum of a key without a password zero.
        let sums = *sum == [0; 32] || *sum == checksum(id, &key);
        if public != Some(key.verifying_key().as_bytes()) || !sums {
            return Err(wrong);
        }
        Ok(Self { id, key })
    }

    /// Its file, which `minisign -S -s` takes. A secret.
    pub fn to_file(&self, title: &str) -> String {
        let mut octets = [&KEY[..], &[0, 0], CHECKSUM, &[0; 48], &self.id.0].concat();
        octets.extend_from_slice(self.key.as_bytes());
        octets.extend_from_slice(self.key.verifying_key().as_bytes());
        octets.extend_from_slice(&checksum(self.id, &self.key));
        format!("untrusted comment: {}\n{}\n", one_line(title), STANDARD.encode(octets))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey { id: self.id, point: self.key.verifying_key().to_bytes() }
    }

    /// The signature's file for these octets. The comment is signed too; it has one line.
    pub fn sign(&self, octets: &[u8], comment: &str) -> String {
        self.sign_hash(&Blake2b512::digest(octets).into(), comment)
    }

    /// As [`SecretKey::sign`], for octets of which there are too many to have them together.
    pub fn sign_hash(&self, hash: &Hash, comment: &str) -> String {
        let comment = one_line(comment);
        let signature = self.key.sign(hash).to_bytes();
        let whole = self.key.sign(&[&signature[..], comment.as_bytes()].concat()).to_bytes();
        let first = [&HASHED[..], &self.id.0, &signature].concat();
        format!(
            "untrusted comment: signature by Billet\n{}\n{TRUSTED}{comment}\n{}\n",
            STANDARD.encode(first),
            STANDARD.encode(whole)
        )
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.id)
    }
}

/// A signature's file, taken apart and not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The key that it says it is by.
    pub key: KeyId,
    point: [u8; 64],
    comment: String,
    whole: [u8; 64],
}

impl Signature {
    /// Checks it against the hash of octets, and returns the comment that was signed with them.
    ///
    /// # Errors
    /// [`MinisignError::OtherKey`], [`MinisignError::Broken`].
    pub fn verify(self, key: &PublicKey, hash: &Hash) -> Result<String, MinisignError> {
        if self.key != key.id {
            return Err(MinisignError::OtherKey);
        }
        let all = [&self.point[..], self.comment.as_bytes()].concat();
        let point = VerifyingKey::from_bytes(&key.point).map_err(|_| MinisignError::Broken)?;
        let holds = point.verify_strict(hash, &Point::from_bytes(&self.point)).is_ok()
            && point.verify_strict(&all, &Point::from_bytes(&self.whole)).is_ok();
        if holds { Ok(self.comment) } else { Err(MinisignError::Broken) }
    }

    /// The comment, of which nothing is known before [`Signature::verify`].
    pub fn unverified_comment(&self) -> &str {
        &self.comment
    }
}

impl FromStr for Signature {
    type Err = MinisignError;

    fn from_str(text: &str) -> Result<Self, MinisignError> {
        let wrong = MinisignError::Form("signature");
        if text.len() > TEXT_MAX {
            return Err(wrong);
        }
        let mut lines = text.lines().skip(1);
        let decoded = |line: Option<&str>| STANDARD.decode(line.unwrap_or_default().trim()).ok();
        let first = decoded(lines.next()).ok_or(wrong)?;
        let comment = lines.next().and_then(|line| line.strip_prefix(TRUSTED)).ok_or(wrong)?.to_owned();
        let whole = decoded(lines.next()).and_then(|octets| octets.try_into().ok()).ok_or(wrong)?;
        let (Some(HASHED), Some(id), Some(point), 74) =
            (array::<2>(&first, 0), array::<8>(&first, 2), array::<64>(&first, 10), first.len())
        else {
            return Err(wrong);
        };
        // More than these four lines is something else.
        if lines.any(|line| !line.trim().is_empty()) {
            return Err(wrong);
        }
        Ok(Self { key: KeyId(*id), point: *point, comment, whole })
    }
}

/// BLAKE2b-512 of octets that are all there.
pub fn hash(octets: &[u8]) -> Hash {
    Blake2b512::digest(octets).into()
}

fn checksum(id: KeyId, key: &SigningKey) -> [u8; 32] {
    let all = [&KEY[..], &id.0, key.as_bytes(), key.verifying_key().as_bytes()].concat();
    Blake2b::<blake2::digest::consts::U32>::digest(all).into()
}

fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// The octets of the last line that has any.
fn last_line(text: &str) -> Option<Vec<u8>> {
    if text.len() > TEXT_MAX {
        return None;
    }
    STANDARD.decode(text.lines().map(str::trim).rfind(|line| !line.is_empty())?).ok()
}

fn array<const N: usize>(octets: &[u8], at: usize) -> Option<&[u8; N]> {
    octets.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by minisign 0.11 (`-G -W`, then `-S -H`, then `-S -l`).
    const THEIR_PUBLIC: &str = "untrusted comment: minisign public key EFB568065BCA8E5E\n\
        RWRejspbBmi174ULzYsWdulwMN5T0R3Ml1xu3vnrvp+6GEGyPb2v4Q5Y\n";
    const THEIR_SECRET: &str = "untrusted comment: minisign encrypted secret key\n\
        RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAXo7KWwZote9upL4P7UZpS0m38gbh4On2SXk4o5YkYeF7peoPPLn83oULzYsWdulwMN5T0R3Ml1xu3vnrvp+6GEGyPb2v4Q5YAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    const THEIRS: &str = "untrusted comment: signature from minisign secret key\n\
        RURejspbBmi176fcln19upJkMf3M5Gtc0drpy8Y4DrRrNAoPIEGHeAhKK6cEPqHTViz/dpLtZqozfc3y1ie1s9ByTTdaYKYCuAc=\n\
        trusted comment: a comment\n\
        K5jGmFCWKNpNOJvSHI71pR6hSl607jnBmbMDGXo0Flzp0dQd1PdpZ+eNwKNNKfe+M5iKm+kYewd+Lm4wl/5yCA==\n";
    const THEIRS_OF_THE_OLD_FORM: &str = "untrusted comment: signature from minisign secret key\n\
        RWRejspbBmi172Nk8gcQt/Z1OU7xdJxM1AdnBRB9kb0xuQkj/2HwTXnXqRw5fNcqI9BzjKN/dqq3XDYHTc0MR6DQkFy59TLT5Qo=\n\
        trusted comment: a comment\n\
        OawzKzcKRlZivPwoUjgg//osEHjshPedcDOkkR3XVKQdIz8tdsaOYym6nam7SnjOueJeou15mIfQtWWCiXnjDg==\n";

    fn key(seed: u8) -> SecretKey {
        SecretKey::of_seed(&[seed; 32])
    }

    #[test]
    fn what_minisign_made_is_taken_and_made_alike() {
        let public: PublicKey = THEIR_PUBLIC.parse().unwrap();
        assert_eq!(public.id().to_string(), "EFB568065BCA8E5E");
        assert_eq!(public.verify(b"test", THEIRS), Ok("a comment".to_owned()));
        assert_eq!(public.verify(b"tesT", THEIRS), Err(MinisignError::Broken));
        assert_eq!(public.verify(b"test", THEIRS_OF_THE_OLD_FORM), Err(MinisignError::Form("signature")));
        let secret = SecretKey::parse(THEIR_SECRET).unwrap();
        assert_eq!(secret.public(), public);
        // Ed25519 has no chance in it: the same octets, but for the line that nobody trusts.
        let ours = secret.sign(b"test", "a comment");
        assert_eq!(ours.split_once('\n').unwrap().1, THEIRS.split_once('\n').unwrap().1);
    }

    #[test]
    fn another_implementation_takes_what_is_made_here() {
        let (secret, content) = (key(7), b"content".to_vec());
        let text = secret.sign(&content, "billet-image/1 x");
        let theirs = minisign_verify::PublicKey::decode(&secret.public().to_file("t")).unwrap();
        let signature = minisign_verify::Signature::decode(&text).unwrap();
        assert!(theirs.verify(&content, &signature, false).is_ok());
        assert_eq!(signature.trusted_comment(), "billet-image/1 x");
        assert!(theirs.verify(b"other", &signature, false).is_err());
    }

    #[test]
    fn a_private_key_comes_back_from_its_file() {
        let file = key(3).to_file("Billet's site key");
        assert_eq!(SecretKey::parse(&file).unwrap().public(), key(3).public());
        let seed = format!("{}\n", STANDARD.encode([3; 32]));
        assert_eq!(SecretKey::parse(&seed).unwrap().public(), key(3).public(), "as it was written once");
        let mut octets = last_line(&file).unwrap();
        octets[2] = b'S';
        assert_eq!(SecretKey::parse(&STANDARD.encode(&octets)).unwrap_err(), MinisignError::Password);
        for at in [0, 4, 54, 62, 94, 126, 157] {
            let mut octets = last_line(&file).unwrap();
            octets[at] ^= 1;
            let error = SecretKey::parse(&STANDARD.encode(octets)).unwrap_err();
            assert_eq!(error, MinisignError::Form("private key"), "{at}");
        }
    }

    #[test]
    fn what_has_another_form_is_refused() {
        let (public, signature) = (key(7).public(), key(7).sign(b"x", "c"));
        for bad in
            ["", "x\ny\nz\n", &signature[..40], &format!("{signature}more\n"), &"x".repeat(TEXT_MAX + 1)]
        {
            assert_eq!(public.verify(b"x", bad), Err(MinisignError::Form("signature")), "{bad}");
        }
        assert_eq!(public.verify(b"x", &key(8).sign(b"x", "c")), Err(MinisignError::OtherKey));
        // A key of small order: all zero but for the sign.
        let weak = STANDARD.encode([&KEY[..], &[0; 8], &[1], &[0; 31]].concat());
        for bad in ["", "AAAA", &weak, &public.to_string()[..40]] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
        assert_eq!(key(7).sign(b"x", "a\nb"), key(7).sign(b"x", "ab"), "a comment has one line");
    }

    proptest! {
        /// Wherever a signature, its comment or the content is changed, it does not hold any more.
        #[test]
        fn an_altered_octet_anywhere_is_refused(
            content in proptest::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index, flip in 1_u8..,
        ) {
            let (public, text) = (key(7).public(), key(7).sign(&content, "billet-image/1 a 1"));
            prop_assert!(public.verify(&content, &text).is_ok());
            let mut other = content.clone();
            let place = at.index(other.len());
            other[place] ^= flip;
            prop_assert!(public.verify(&other, &text).is_err());
            // From the second line on: the first is trusted by nobody.
            let from = text.find('\n').unwrap() + 1;
            let mut altered = text.clone().into_bytes();
            let place = from + at.index(altered.len() - from - 1);
            altered[place] ^= flip;
            if let Ok(altered) = String::from_utf8(altered) {
                // A line may end in another way; its content is the same.
                let lines = |text: &str| text.lines().skip(1).map(|l| l.trim_end().to_owned()).collect::<Vec<_>>();
                let same = lines(&altered) == lines(&text);
                prop_assert!(same || public.verify(&content, &altered).is_err(), "{altered}");
            }
        }
    }
}
