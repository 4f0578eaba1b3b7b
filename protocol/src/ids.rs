//! Newtypes for everything that has an identity, with one textual form each.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A text that is not the form of the id it was parsed as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {expected}")]
pub struct ParseIdError {
    /// The offending text, cut to 80 characters.
    pub text: String,
    /// What was expected, with its form.
    pub expected: &'static str,
}

impl ParseIdError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

macro_rules! text_serde {
    ($t:ty) => {
        impl Serialize for $t {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(D::Error::custom)
            }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
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

macro_rules! uuid_id {
    ($name:ident, $doc:literal, $expected:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                Uuid::try_parse(s).map(Self).map_err(|_| ParseIdError::new(s, $expected))
            }
        }
        text_serde!($name);
    };
}

uuid_id!(NodeId, "A physical machine.", "node id (a UUID)");
uuid_id!(ProjectId, "A project: people who share servers and a quota.", "project id (a UUID)");
uuid_id!(JobId, "One piece of work on one node.", "job id (a UUID)");
uuid_id!(UserId, "A person who may sign in.", "user id (a UUID)");
uuid_id!(ServerId, "A machine lent to a project.", "server id (a UUID)");
uuid_id!(NetworkId, "A network of a project, or of the site.", "network id (a UUID)");
uuid_id!(SubnetId, "A range of addresses on a network.", "subnet id (a UUID)");
uuid_id!(PortId, "A place on a network where one machine is plugged in.", "port id (a UUID)");
uuid_id!(
    SecurityGroupId,
    "Rules of what may reach ports, and what they may reach.",
    "security group id (a UUID)"
);
uuid_id!(RouterId, "What joins subnets of a project.", "router id (a UUID)");
uuid_id!(
    FloatingId,
    "An address of a provider network that leads to a port.",
    "floating address id (a UUID)"
);
uuid_id!(MirrorId, "A copy of a port's traffic.", "mirror id (a UUID)");
uuid_id!(DpuId, "The small computer between a host and its network.", "DPU id (a UUID)");
uuid_id!(VolumeId, "A disk of a project.", "volume id (a UUID)");
uuid_id!(SnapshotId, "A volume as it was at one moment.", "snapshot id (a UUID)");
uuid_id!(GroupId, "Servers that are to be spread, or kept together.", "server group id (a UUID)");

/// A SHA-256 digest (FIPS 180-4), printed as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl FromStr for Sha256 {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError::new(s, "SHA-256 (64 hexadecimal digits)");
        if s.len() != 64 || !s.is_ascii() {
            return Err(wrong());
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(s.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(out))
    }
}
text_serde!(Sha256);

macro_rules! digest_id {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Sha256);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                s.parse().map(Self)
            }
        }
        text_serde!($name);
    };
}

digest_id!(ImageId, "An OS image, named by the SHA-256 of its canonical manifest.");
digest_id!(ChunkId, "A piece of an image, named by the SHA-256 of its raw bytes.");

/// An Ethernet address (EUI-48), printed as `52:54:00:12:34:56`; parses `:` and `-` separators and bare hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// False for addresses that name no single station: all zero, broadcast, and multicast (IEEE 802-2014, 8.2).
    pub fn is_station(&self) -> bool {
        self.0 != [0; 6] && self.0[0] & 1 == 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError::new(s, "MAC address (such as 52:54:00:12:34:56)");
        let hex: String = match s.len() {
            17 => {
                let sep = s.as_bytes()[2];
                if !matches!(sep, b':' | b'-') {
                    return Err(wrong());
                }
                if s.bytes().enumerate().any(|(i, b)| (i % 3 == 2) != (b == sep)) {
                    return Err(wrong());
                }
                s.bytes().filter(|b| *b != sep).map(char::from).collect()
            }
            12 => s.to_owned(),
            _ => return Err(wrong()),
        };
        let mut out = [0; 6];
        for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(out))
    }
}
text_serde!(MacAddr);

/// What names a disk across reboots, never a `/dev` name: `wwn:…`, `serial:…`, or, where a disk has neither, its
/// place on the bus `path:…` (which the plan treats as weaker). A disk that a DPU presents is `volume:…`; no agent knows it by that
/// name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(String);

impl DiskId {
    /// The strongest name that the reported facts allow; `None` where a disk has none at all.
    /// Serial numbers are compared after trimming white space (ATA pads them, ACS-3 7.13.5).
    pub fn of(wwn: Option<&str>, serial: Option<&str>, bus_path: Option<&str>) -> Option<Self> {
        let clean = |s: Option<&str>| {
            let s = s?.trim();
            (!s.is_empty() && s.chars().any(|c| c != '0')).then(|| s.to_owned())
        };
        if let Some(serial) = clean(serial) {
            return Some(Self(format!("serial:{serial}")));
        }
        if let Some(wwn) = clean(wwn) {
            return Some(Self(format!("wwn:{wwn}")));
        }
        clean(bus_path).map(|p| Self(format!("path:{p}")))
    }

    /// The name of a disk that a DPU presents.
    pub fn of_volume(volume: VolumeId) -> Self {
        Self(format!("volume:{volume}"))
    }

    /// The volume, where a DPU presents the disk.
    pub fn volume(&self) -> Option<VolumeId> {
        self.0.strip_prefix("volume:")?.parse().ok()
    }

    /// The whole name with its kind.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its kind, as printed on the drive's label.
    pub fn label(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(_, rest)| rest)
    }

    /// True where the disk is known only by its slot, so another drive put there would answer to the same name.
    pub fn is_weak(&self) -> bool {
        self.0.starts_with("path:")
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DiskId {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let known = ["wwn:", "serial:", "path:"].iter().any(|p| s.len() > p.len() && s.starts_with(p))
            || s.strip_prefix("volume:").is_some_and(|id| id.parse::<VolumeId>().is_ok());
        if known {
            Ok(Self(s.to_owned()))
        } else {
            Err(ParseIdError::new(s, "disk id (serial:…, wwn:…, path:… or volume:…)"))
        }
    }
}
text_serde!(DiskId);

/// A moment: milliseconds since 1970-01-01T00:00:00Z. The cores get it as an argument and never ask a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This moment and a duration later; saturates at the end of time.
    pub fn after(self, d: std::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero where it lies in the future (clocks step).
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mac_forms() {
        let mac = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        for text in ["52:54:00:12:34:56", "52-54-00-12-34-56", "525400123456", "52:54:00:12:34:56"] {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:5g",
            "52:54-00:12:34:56",
            "+2:54:00:12:34:56",
            "5254:001234:56xx",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn disk_id_prefers_what_is_printed_on_the_label() {
        let id = |w, s, p| DiskId::of(w, s, p).map(|d| d.to_string());
        assert_eq!(id(Some("eui.01"), Some(" S1 "), Some("pci")).as_deref(), Some("serial:S1"));
        assert_eq!(id(Some("eui.01"), Some("   "), None).as_deref(), Some("wwn:eui.01"));
        assert_eq!(id(Some("0000"), Some("0000"), Some("pci-1")).as_deref(), Some("path:pci-1"));
        assert_eq!(id(None, None, None), None);
        assert!("serial:".parse::<DiskId>().is_err());
        let volume = VolumeId(Uuid::from_u128(7));
        let id = DiskId::of_volume(volume);
        assert_eq!((id.volume(), id.to_string().parse()), (Some(volume), Ok(id)));
        assert!("volume:x".parse::<DiskId>().is_err());
    }

    proptest! {
        #[test]
        fn text_forms_come_back(bytes: [u8; 32], mac: [u8; 6], node: u128) {
            let sha = Sha256(bytes);
            prop_assert_eq!(sha.to_string().parse(), Ok(sha));
            prop_assert_eq!(MacAddr(mac).to_string().parse(), Ok(MacAddr(mac)));
            let node = NodeId(Uuid::from_u128(node));
            prop_assert_eq!(node.to_string().parse(), Ok(node));
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = (text.parse::<MacAddr>(), text.parse::<Sha256>(), text.parse::<NodeId>(), text.parse::<DiskId>());
        }
    }
}
