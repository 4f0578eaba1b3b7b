//! One-time passwords by the clock (RFC 6238) over HMAC-SHA-1, six digits, thirty seconds: what every authenticator speaks.

use hmac::{Hmac, KeyInit as _, Mac as _};
use protocol::Timestamp;
use subtle::ConstantTimeEq as _;

/// Length of a step (RFC 6238, 5.2).
const STEP_SECONDS: u64 = 30;
/// Steps before and after the present one whose codes are taken: clocks differ, people are slow.
const WINDOW: u64 = 1;
/// Octets of a key: the length of the hash (RFC 4226, 4).
pub const KEY: usize = 20;
const DIGITS: u32 = 6;

/// The step whose code this is, if it is one of now and not of a step up to `used`: a code is good once (RFC 6238, 5.2).
pub fn check(key: &[u8], code: &str, now: Timestamp, used: Option<u64>) -> Option<u64> {
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let present = now.0 / 1000 / STEP_SECONDS;
    let steps = present.saturating_sub(WINDOW)..=present + WINDOW;
    let mut found = None;
    for step in steps {
        let right: bool = text(key, step, DIGITS).as_bytes().ct_eq(code.as_bytes()).into();
        if right && used.is_none_or(|used| step > used) {
            found = Some(step);
        }
    }
    found
}

/// The code of a step (RFC 4226, 5.3).
fn text(key: &[u8], step: u64, digits: u32) -> String {
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(&step.to_be_bytes());
    let hash = mac.finalize().into_bytes();
    let at = usize::from(hash[hash.len() - 1] & 0xf);
    let four = [hash[at] & 0x7f, hash[at + 1], hash[at + 2], hash[at + 3]];
    let width = usize::try_from(digits).unwrap_or(0);
    format!("{:0width$}", u32::from_be_bytes(four) % 10_u32.pow(digits))
}

/// The code of now; for tests and for whoever has the key.
pub fn code(key: &[u8], now: Timestamp) -> String {
    text(key, now.0 / 1000 / STEP_SECONDS, DIGITS)
}

/// A key as people type it into an authenticator: base32 (RFC 4648, 6) without padding.
pub fn base32(key: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut out = String::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in key {
        bits = (bits << 8) | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            out.push(char::from(ALPHABET[usize::try_from((bits >> count) & 31).unwrap_or(0)]));
        }
    }
    if count > 0 {
        out.push(char::from(ALPHABET[usize::try_from((bits << (5 - count)) & 31).unwrap_or(0)]));
    }
    out
}

/// A key as it was printed by [`base32`].
pub fn from_base32(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        bits = ((bits << 5) | u32::from(value)) & 0xfff;
        count += 5;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xff).unwrap_or(0));
        }
    }
    Some(out)
}

/// What an authenticator reads from the square (Key URI format of Google Authenticator).
pub fn uri(key: &[u8], user: &str) -> String {
    let user = crate::http::encode(user);
    format!(
        "otpauth://totp/Billet:{user}?secret={}&issuer=Billet&algorithm=SHA1&digits=6&period=30",
        base32(key)
    )
}

/// The URI as a QR code (ISO/IEC 18004), drawn as the path of an SVG of `1 + …` squares a side; with its quiet zone.
pub fn qr(uri: &str) -> Option<Square> {
    let code = qrcodegen::QrCode::encode_text(uri, qrcodegen::QrCodeEcc::Medium).ok()?;
    let size = code.size();
    let mut path = String::new();
    for y in 0..size {
        for x in (0..size).filter(|x| code.get_module(*x, y)) {
            path.push_str(&format!("M{} {}h1v1h-1z", x + 4, y + 4));
        }
    }
    Some(Square { side: size + 8, path })
}

/// A QR code: dark squares of one unit.
#[derive(Debug, Clone)]
pub struct Square {
    /// Units of a side, quiet zone included.
    pub side: i32,
    /// Of the SVG element `path`.
    pub path: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, SHA-1, eight digits.
    #[test]
    fn codes_of_rfc_6238() {
        let key = b"12345678901234567890";
        for (seconds, wanted) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(text(key, seconds / STEP_SECONDS, 8), wanted, "{seconds}");
        }
    }

    /// RFC 4226, appendix D.
    #[test]
    fn codes_of_rfc_4226() {
        let codes: Vec<String> = (0..10).map(|n| text(b"12345678901234567890", n, 6)).collect();
        let wanted = "755224 287082 359152 969429 338314 254676 287922 162583 399871 520489";
        assert_eq!(codes.join(" "), wanted);
    }

    #[test]
    fn a_code_is_good_once_and_a_step_early_or_late() {
        let key = b"12345678901234567890";
        let at = |seconds: u64| Timestamp(seconds * 1000);
        let code = code(key, at(600));
        assert_eq!(check(key, &code, at(600), None), Some(20));
        assert_eq!(check(key, &format!(" {} {}", &code[..3], &code[3..]), at(630), None), Some(20));
        assert_eq!(check(key, &code, at(570), None), Some(20));
        assert_eq!(check(key, &code, at(660), None), None);
        assert_eq!(check(key, &code, at(539), None), None);
        assert_eq!(check(key, &code, at(600), Some(20)), None, "used");
        assert_eq!(check(key, &code, at(600), Some(19)), Some(20));
        assert_eq!(check(key, "", at(600), None), None);
    }

    /// RFC 4648, section 10.
    #[test]
    fn base32_of_rfc_4648() {
        for (octets, wanted) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(octets.as_bytes()), wanted);
            assert_eq!(from_base32(wanted).as_deref(), Some(octets.as_bytes()));
        }
        let square = qr(&uri(b"12345678901234567890", "alice@site")).unwrap();
        assert!(square.side > 30 && square.path.starts_with("M4 4h1v1h-1z"));
    }
}
