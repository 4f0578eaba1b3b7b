//! Reads an ID token and says whose it is (OpenID Connect Core 1.0, 3.1.3.7; RFC 7515, 7517, 7518). Pure: keys and time are arguments.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::Timestamp;
use ring::signature::{self, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

/// Clocks of provider and server may differ by so much, in seconds.
const LEEWAY: u64 = 60;
/// Longest token that is read, in octets.
const TOKEN_MAX: usize = 64 << 10;
/// Longest subject (OpenID Connect Core, 2).
const SUBJECT_MAX: usize = 255;
/// Keys of a provider that are looked at.
const KEYS_MAX: usize = 64;

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is none.
    #[error("the ID token cannot be read: {0}")]
    Form(&'static str),
    /// `none`, HMAC, or one that we do not speak.
    #[error("the ID token is signed by `{0}`; RS256 and ES256 are taken")]
    Algorithm(String),
    /// Perhaps the provider has new keys.
    #[error("the provider has no key that the ID token names")]
    NoKey,
    /// Changed on its way, or by somebody else.
    #[error("the signature of the ID token is not right")]
    Signature,
    /// It says something that does not fit.
    #[error("the ID token is not for us: {0}")]
    Claim(&'static str),
}

/// A provider's keys (RFC 7517).
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Keys {
    keys: Vec<Key>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Key {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: String,
    e: String,
    x: String,
    y: String,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that we would have to know (RFC 7515, 4.1.11): we know none.
    crit: Option<Value>,
}

/// What the token must say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The provider.
    pub issuer: &'a str,
    /// Us.
    pub client_id: &'a str,
    /// What was sent with the request, and with no other.
    pub nonce: &'a str,
    /// The time.
    pub now: Timestamp,
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// The provider's name for them, which it never gives to another.
    pub subject: String,
    /// All it says.
    pub all: Value,
}

/// Checks signature and claims.
///
/// # Errors
/// [`TokenError`].
pub fn check(token: &str, keys: &Keys, expected: Expected<'_>) -> Result<Claims, TokenError> {
    if token.len() > TOKEN_MAX {
        return Err(TokenError::Form("it is too long"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Form("it has no parts"))?;
    let (header, payload) = signed.split_once('.').ok_or(TokenError::Form("it has no parts"))?;
    let decode =
        |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Form("it is not base64url"));
    let header: Header =
        serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Form("its header is no JSON"))?;
    if header.crit.is_some() {
        return Err(TokenError::Form("it asks for extensions that are not known here"));
    }
    verify(&header, keys, signed.as_bytes(), &decode(signature)?)?;
    let claims: Value =
        serde_json::from_slice(&decode(payload)?).map_err(|_| TokenError::Form("its claims are no JSON"))?;
    check_claims(claims, expected)
}

fn verify(header: &Header, keys: &Keys, signed: &[u8], signature: &[u8]) -> Result<(), TokenError> {
    let (kty, crv) = match header.alg.as_str() {
        "RS256" => ("RSA", None),
        "ES256" => ("EC", Some("P-256")),
        other => return Err(TokenError::Algorithm(other.chars().take(16).collect())),
    };
    let fits = |key: &&Key| {
        key.kty == kty
            && key.crv.as_deref() == crv
            && key.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && key.alg.as_deref().is_none_or(|alg| alg == header.alg)
            && (header.kid.is_none() || key.kid == header.kid)
    };
    let mut known = keys.keys.iter().take(KEYS_MAX).filter(fits).peekable();
    if known.peek().is_none() {
        return Err(TokenError::NoKey);
    }
    let right = known.any(|key| key.verifies(signed, signature).unwrap_or(false));
    if right { Ok(()) } else { Err(TokenError::Signature) }
}

impl Key {
    fn verifies(&self, signed: &[u8], signature: &[u8]) -> Option<bool> {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        Some(if self.kty == "RSA" {
            let (n, e) = (decode(&self.n)?, decode(&self.e)?);
            // ring takes 2048 to 8192 bits, and refuses the rest.
            let key = signature::RsaPublicKeyComponents { n: &n, e: &e };
            key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok()
        } else {
            let (x, y) = (decode(&self.x)?, decode(&self.y)?);
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            let key = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
            key.verify(signed, signature).is_ok()
        })
    }
}

fn check_claims(claims: Value, expected: Expected<'_>) -> Result<Claims, TokenError> {
    let text = |name: &str| claims[name].as_str().unwrap_or_default();
    let seconds = |name: &str| claims[name].as_f64().filter(|s| *s >= 0.0 && *s < 1e12);
    #[expect(clippy::cast_precision_loss, reason = "seconds of this century have 31 bits")]
    let (now, leeway) = ((expected.now.0 / 1000) as f64, LEEWAY as f64);
    if text("iss") != expected.issuer {
        return Err(TokenError::Claim("another issuer made it"));
    }
    let audience: Vec<&str> = match &claims["aud"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let other = audience.len() > 1 || !claims["azp"].is_null();
    if !audience.contains(&expected.client_id) || (other && text("azp") != expected.client_id) {
        return Err(TokenError::Claim("it is for another client"));
    }
    if seconds("exp").is_none_or(|end| end + leeway <= now) {
        return Err(TokenError::Claim("it has expired"));
    }
    if seconds("iat").is_none_or(|made| made > now + leeway) {
        return Err(TokenError::Claim("it was made in the future"));
    }
    if seconds("nbf").is_some_and(|from| from > now + leeway) {
        return Err(TokenError::Claim("it is not good yet"));
    }
    let same: bool = text("nonce").as_bytes().ct_eq(expected.nonce.as_bytes()).into();
    if expected.nonce.is_empty() || !same {
        return Err(TokenError::Claim("it answers another request"));
    }
    let subject = text("sub").to_owned();
    if subject.is_empty() || subject.len() > SUBJECT_MAX {
        return Err(TokenError::Claim("it names nobody"));
    }
    Ok(Claims { subject, all: claims })
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const EXPECTED: Expected<'_> =
        Expected { issuer: "https://id.example", client_id: "billet", nonce: "n-0S6", now: NOW };

    struct Provider {
        pair: EcdsaKeyPair,
        random: SystemRandom,
    }

    impl Provider {
        fn new() -> Self {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            let pair =
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
            Self { pair, random }
        }

        fn keys(&self) -> Keys {
            let point = self.pair.public_key().as_ref();
            let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
            let (x, y) = (part(1..33), part(33..65));
            let key = json!({"kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "x": x, "y": y});
            serde_json::from_value(json!({ "keys": [{"kty": "OKP", "x": "AA"}, key] })).unwrap()
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", part(header), part(claims));
            let signature = self.pair.sign(&self.random, signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
        }
    }

    fn header() -> Value {
        json!({"alg": "ES256", "kid": "one"})
    }

    fn claims() -> Value {
        json!({"iss": "https://id.example", "sub": "alice-1", "aud": "billet", "exp": 1_800_000_600,
            "iat": 1_800_000_000, "nonce": "n-0S6"})
    }

    #[test]
    fn a_good_token_says_whose_it_is() {
        let provider = Provider::new();
        let found = check(&provider.sign(&header(), &claims()), &provider.keys(), EXPECTED).unwrap();
        assert_eq!(found.subject, "alice-1");
    }

    #[test]
    fn each_claim_is_looked_at() {
        let provider = Provider::new();
        for (name, value) in [
            ("iss", json!("https://id.example/")),
            ("iss", json!(null)),
            ("aud", json!("other")),
            ("aud", json!(["billet", "other"])),
            ("aud", json!([])),
            ("azp", json!("other")),
            ("exp", json!(1_799_999_940)),
            ("exp", json!("1800000600")),
            ("iat", json!(1_800_000_061)),
            ("iat", json!(null)),
            ("nbf", json!(1_800_000_061)),
            ("nonce", json!("n-0S7")),
            ("nonce", json!(null)),
            ("sub", json!("")),
            ("sub", json!("x".repeat(256))),
        ] {
            let mut claims = claims();
            claims[name] = value.clone();
            let result = check(&provider.sign(&header(), &claims), &provider.keys(), EXPECTED);
            assert!(matches!(result, Err(TokenError::Claim(_))), "{name} {value}: {result:?}");
        }
        let mut several = claims();
        several["aud"] = json!(["other", "billet"]);
        several["azp"] = json!("billet");
        assert!(check(&provider.sign(&header(), &several), &provider.keys(), EXPECTED).is_ok());
        let empty = Expected { nonce: "", ..EXPECTED };
        let mut none = claims();
        none["nonce"] = json!("");
        assert!(check(&provider.sign(&header(), &none), &provider.keys(), empty).is_err());
    }

    #[test]
    fn nothing_but_the_providers_signature_is_believed() {
        let (provider, other) = (Provider::new(), Provider::new());
        let good = provider.sign(&header(), &claims());
        let keys = provider.keys();
        assert_eq!(check(&other.sign(&header(), &claims()), &keys, EXPECTED), Err(TokenError::Signature));
        let rotated = json!({"alg": "ES256", "kid": "two"});
        assert_eq!(check(&provider.sign(&rotated, &claims()), &keys, EXPECTED), Err(TokenError::NoKey));
        for alg in ["none", "HS256", "RS512", "es256", ""] {
            let token = provider.sign(&json!({"alg": alg, "kid": "one"}), &claims());
            assert!(matches!(check(&token, &keys, EXPECTED), Err(TokenError::Algorithm(_))), "{alg}");
        }
        let critical = json!({"alg": "ES256", "kid": "one", "crit": ["b64"]});
        assert!(matches!(
            check(&provider.sign(&critical, &claims()), &keys, EXPECTED),
            Err(TokenError::Form(_))
        ));
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let (head, _) = signed.split_once('.').unwrap();
        let mut admin = claims();
        admin["sub"] = json!("root");
        let swapped = format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(admin.to_string()));
        assert_eq!(check(&swapped, &keys, EXPECTED), Err(TokenError::Signature));
        for bad in ["", ".", "..", "a.b.c", &format!("{signed}."), &"x.".repeat(40_000), "e30.e30."] {
            assert!(check(bad, &keys, EXPECTED).is_err(), "{}", bad.len());
        }
        assert_eq!(check(&good, &Keys::default(), EXPECTED), Err(TokenError::NoKey));
    }

    /// RFC 7515, appendix A.3: the key and the signature of others.
    #[test]
    fn the_signature_of_rfc_7515_is_right() {
        let keys: Keys = serde_json::from_value(json!({"keys": [{"kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}))
        .unwrap();
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        assert_eq!(check(token, &keys, EXPECTED), Err(TokenError::Claim("another issuer made it")));
    }
}
