//! Words of a boot order that come from people: each is a type that can hold only what every script we write can hold.
//! What a script then says is in `ipxe`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ipxe::{ScriptError, Url};

/// Longest path below the media directory, in octets.
pub const MEDIA_PATH_MAX: usize = 200;
/// Longest name of a file that is put beside a kernel, in octets; wimboot keeps names in 32 octets with a zero.
pub const FILE_NAME_MAX: usize = 31;
/// Longest iSCSI name, in octets (RFC 7143 section 4.2.7.1).
pub const IQN_MAX: usize = 223;
/// Longest CHAP name or secret, in octets: iPXE and most targets take no more.
pub const CHAP_MAX: usize = 255;

/// A word that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct WordError {
    /// The offending text, cut to 80 characters.
    pub text: String,
    /// What was expected.
    pub expected: &'static str,
}

fn wrong(text: &str, expected: &'static str) -> WordError {
    WordError { text: text.chars().take(80).collect(), expected }
}

/// Where a file comes from: a URL, or a path in the server's media directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Anywhere.
    Url(Url),
    /// Served by Billet below `/boot/media/`.
    Media(MediaPath),
}

/// A relative path of plain names. Whether it leads out of its directory by a symbolic link is for whoever opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPath(String);

/// A file name without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(String);

/// Name of an iSCSI initiator or target: `iqn.`, `eui.` or `naa.` (RFC 7143 section 4.2.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iqn(String);

/// A host by name or address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(String);

/// A CHAP name or secret. It is never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ChapText(String);

impl Location {
    /// The URL of this file for a client that reaches us at `base`.
    ///
    /// # Errors
    /// Where base and path together are too long for a script.
    pub fn url(&self, base: &str) -> Result<Url, ScriptError> {
        match self {
            Self::Url(url) => Ok(url.clone()),
            Self::Media(path) => Url::new(format!("{base}/boot/media/{path}")),
        }
    }
}

impl MediaPath {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ChapText {
    /// Its octets as iPXE reads them for a setting of type `hex`: no text can be syntax in this form.
    pub fn hex(&self) -> String {
        self.0.bytes().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ChapText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChapText(…)")
    }
}

impl FromStr for Location {
    type Err = WordError;
    fn from_str(s: &str) -> Result<Self, WordError> {
        if s.contains("://") {
            let url = Url::new(s).map_err(|_| wrong(s, "a URL of http, https or tftp"))?;
            return Ok(Self::Url(url));
        }
        s.parse().map(Self::Media)
    }
}

impl FromStr for MediaPath {
    type Err = WordError;
    fn from_str(s: &str) -> Result<Self, WordError> {
        let name = |n: &str| !n.starts_with('.') && !n.is_empty() && n.bytes().all(is_plain);
        if s.len() <= MEDIA_PATH_MAX && s.split('/').all(name) {
            Ok(Self(s.to_owned()))
        } else {
            Err(wrong(s, "a URL, or a path in the media directory (letters, digits and . _ - + ~, no `..`)"))
        }
    }
}

fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"._-+~".contains(&b)
}

impl FromStr for FileName {
    type Err = WordError;
    fn from_str(s: &str) -> Result<Self, WordError> {
        let plain = s.bytes().all(is_plain) && s.starts_with(|c: char| c.is_ascii_alphanumeric());
        if plain && s.len() <= FILE_NAME_MAX {
            Ok(Self(s.to_owned()))
        } else {
            Err(wrong(s, "a file name of at most 31 letters, digits and . _ - + ~"))
        }
    }
}

impl FromStr for Iqn {
    type Err = WordError;
    fn from_str(s: &str) -> Result<Self, WordError> {
        let lower = s.to_ascii_lowercase();
        let kind = ["iqn.", "eui.", "naa."].iter().any(|k| lower.len() > k.len() && lower.starts_with(k));
        let plain = lower.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b));
        if kind && plain && lower.len() <= IQN_MAX {
            Ok(Self(lower))
        } else {
            Err(wrong(s, "an iSCSI name (iqn., eui. or naa., then letters, digits and - . :)"))
        }
    }
}

impl FromStr for Host {
    type Err = WordError;
    fn from_str(s: &str) -> Result<Self, WordError> {
        let inner = s.strip_prefix('[').and_then(|s| s.strip_suffix(']')).unwrap_or(s);
        if let Ok(v6) = inner.parse::<Ipv6Addr>() {
            return Ok(Self(format!("[{v6}]")));
        }
        if s.parse::<Ipv4Addr>().is_ok() || crate::cloud_config::is_hostname(s) {
            return Ok(Self(s.to_owned()));
        }
        Err(wrong(s, "a host name or an address"))
    }
}

impl FromStr for ChapText {
    type Err = WordError;
    fn from_str(s: &str) -> Result<Self, WordError> {
        let plain = s.chars().all(|c| !c.is_control());
        if plain && (1..=CHAP_MAX).contains(&s.len()) {
            Ok(Self(s.to_owned()))
        } else {
            // The text may be a secret: it is not repeated.
            Err(wrong("…", "a CHAP name or secret of 1 to 255 octets without control characters"))
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::Media(path) => path.fmt(f),
        }
    }
}

macro_rules! shown {
    ($($t:ty),*) => {$(
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
shown!(MediaPath, FileName, Iqn, Host);

/// Types that are their text in JSON.
macro_rules! text_serde {
    ($t:ty, $text:expr) => {
        impl Serialize for $t {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let text: fn(&$t) -> String = $text;
                s.serialize_str(&text(self))
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $t {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::schema::Object::with_type(utoipa::openapi::schema::Type::String).into()
            }
        }
        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $t {}
    };
}
pub(crate) use text_serde;

text_serde!(Location, ToString::to_string);
text_serde!(MediaPath, ToString::to_string);
text_serde!(FileName, ToString::to_string);
text_serde!(Iqn, ToString::to_string);
text_serde!(Host, ToString::to_string);
text_serde!(ChapText, |t| t.reveal().to_owned());

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn media(text: &str) -> bool {
        matches!(text.parse(), Ok(Location::Media(_)))
    }

    #[test]
    fn where_files_come_from() {
        assert!(media("debian/12/linux") && media("a") && media("win/boot.wim"));
        for bad in ["", "/etc/passwd", "..", "a/../b", "a//b", "a/", ".hidden", "a b", "a;b", "${x}", "a\\b"]
        {
            assert!(bad.parse::<Location>().is_err(), "{bad:?}");
        }
        let url = "https://mirror.example/linux".parse::<Location>().unwrap();
        assert_eq!(url.url("http://10.0.0.1:8080").unwrap().to_string(), "https://mirror.example/linux");
        let path = "debian/linux".parse::<Location>().unwrap();
        let base = "http://10.0.0.1:8080";
        assert_eq!(path.url(base).unwrap().to_string(), "http://10.0.0.1:8080/boot/media/debian/linux");
        assert!("file:///etc/passwd".parse::<Location>().is_err());
    }

    #[test]
    fn iscsi_words() {
        assert_eq!("IQN.2026-01.Rack:Vol1".parse::<Iqn>().unwrap().to_string(), "iqn.2026-01.rack:vol1");
        for bad in ["", "iqn.", "vol1", "iqn.2026-01.rack:a b", "iqn.2026-01.rack:${x}", "iqn.x\n"] {
            assert!(bad.parse::<Iqn>().is_err(), "{bad:?}");
        }
        assert_eq!("fd77::1".parse::<Host>().unwrap().to_string(), "[fd77::1]");
        assert_eq!("[fd77::1]".parse::<Host>().unwrap().to_string(), "[fd77::1]");
        assert!("san-1.example".parse::<Host>().is_ok() && "10.0.0.1".parse::<Host>().is_ok());
        for bad in ["", "a b", "a:b", "-x", "$x"] {
            assert!(bad.parse::<Host>().is_err(), "{bad:?}");
        }
        let secret = "se$cret || shell".parse::<ChapText>().unwrap();
        assert!(secret.hex().starts_with("73:65:24:"));
        assert_eq!(format!("{secret:?}"), "ChapText(…)");
    }

    proptest! {
        /// Whatever is accepted has no character that a script or a shell takes for syntax, and reads back as itself.
        #[test]
        fn accepted_words_are_harmless(text in "[ -~]{0,40}|(iqn|http://|a/).*|.*") {
            let mut shown = vec![];
            shown.extend(text.parse::<Location>().ok().map(|w| w.to_string()));
            shown.extend(text.parse::<FileName>().ok().map(|w| w.to_string()));
            shown.extend(text.parse::<Iqn>().ok().map(|w| w.to_string()));
            shown.extend(text.parse::<Host>().ok().map(|w| w.to_string()));
            shown.extend(text.parse::<ChapText>().ok().map(|w| w.hex()));
            for word in shown {
                let syntax = word.contains(['$', '|', '{', '\\', '"', '\'', '`', ' ', '\n', '#', ';']);
                prop_assert!(!syntax || word.starts_with("http"), "{word}");
                prop_assert!(word.chars().all(|c| c.is_ascii_graphic()), "{word}");
                prop_assert!(!word.starts_with('-'), "{word}");
            }
        }
    }
}
