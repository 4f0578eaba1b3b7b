//! Signatures, keys and lists of trusted keys, as they come from a store, a server on the network or a person.

use images::minisign::{PublicKey, SecretKey, Signature};
use images::trust::{Anchor, Statement, TrustError, TrustedKey, successor};
use protocol::{ImageId, Sha256};

/// Nothing holds that nobody signed, and what is taken has one spelling.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // Nobody has signed anything by this key but this.
    let key = SecretKey::of_seed(&[7; 32]);
    if text.parse::<Signature>().is_ok() {
        assert!(key.public().verify(b"content", &text).is_err(), "nobody signed it");
        assert!(successor(&key.public(), &text).is_none(), "nobody named it");
    }
    if let Ok(public) = text.parse::<PublicKey>() {
        assert_eq!(public.to_string().parse(), Ok(public));
        assert!(public.verify(b"content", &key.sign(b"content", "x")).is_err(), "another key's");
    }
    if let Ok(secret) = SecretKey::parse(&text) {
        let signed = secret.sign(b"content", "x");
        assert_eq!(secret.public().verify(b"content", &signed).as_deref(), Ok("x"));
    }
    if let Ok(statement) = text.parse::<Statement>() {
        assert_eq!(statement.to_string(), text);
    }
    if let Ok(anchor) = Anchor::parse(data) {
        assert_eq!(Anchor::parse(&anchor.to_json()).ok(), Some(anchor.clone()));
        let none = anchor.judge(ImageId(Sha256([0; 32])), data, Some(&key.sign(data, "x")));
        assert!(none.is_err(), "a comment that is none");
    }
    let title = String::new();
    let own = Anchor::new(vec![TrustedKey { key: key.public(), title, floors: [].into() }]);
    let judged = own.judge(ImageId(Sha256([0; 32])), b"{}", Some(&text));
    assert!(!matches!(judged, Ok(_) | Err(TrustError::Manifest(_))), "read before it was judged");
}
