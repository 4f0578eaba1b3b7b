//! What is stored of an address, and who a client is. What is done with it is in `table`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use protocol::ids::ParseIdError;
use protocol::{MacAddr, Timestamp};
use serde::{Deserialize, Serialize};

use super::limits;
use super::relay::Placement;

/// Who holds a lease. The Ethernet address where there is one, whatever the client identifier says: firmware, iPXE, the
/// agent and the OS of one machine send different identifiers (RFC 2131 section 4.2 would make them four clients), and
/// one machine shall keep one address from POST to login. Else, as for InfiniBand (RFC 4390), the identifier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientKey {
    /// Ethernet address. As text: `mac:52:54:00:12:34:56`.
    Mac(MacAddr),
    /// Client identifier (option 61). As text: `id:` and hexadecimal digits.
    Id(Vec<u8>),
}

/// One address and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub ip: Ipv4Addr,
    /// Who has or had it; of a declined one, who declined it or was found using it.
    pub client: ClientKey,
    /// What is the case until [`expires`](Self::expires).
    pub state: LeaseState,
    /// From then on the address is free, and kept in mind for this client as long as no other needs it.
    pub expires: Timestamp,
    /// Where the client was plugged in when it was lent the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

/// What is the case with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// Lent.
    Bound,
    /// The client, or a probe, found somebody else using it.
    Declined,
}

impl ClientKey {
    /// `None` for a client that tells neither.
    pub(crate) fn of(mac: Option<MacAddr>, id: Option<&[u8]>) -> Option<Self> {
        let id = || {
            id.filter(|id| !id.is_empty())
                .map(|id| Self::Id(id[..id.len().min(limits::CLIENT_ID_MAX)].to_vec()))
        };
        mac.map(Self::Mac).or_else(id)
    }

    /// FNV-1a: spreads neighbouring addresses, and is the same on every machine and in every version.
    pub(crate) fn hash(&self) -> u64 {
        let bytes = match self {
            Self::Mac(mac) => mac.0.as_slice(),
            Self::Id(id) => id,
        };
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => write!(f, "mac:{mac}"),
            Self::Id(id) => {
                f.write_str("id:")?;
                id.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
    }
}

impl FromStr for ClientKey {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        if let Some(mac) = s.strip_prefix("mac:") {
            return mac.parse().map(Self::Mac);
        }
        s.strip_prefix("id:").and_then(from_hex).map(Self::Id).ok_or_else(|| ParseIdError {
            text: s.chars().take(80).collect(),
            expected: "DHCP client (mac:… or id:…)",
        })
    }
}

/// The octets that pairs of hexadecimal digits stand for; at least one.
pub(crate) fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let nibble = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[a, b]| Some(nibble(a)? << 4 | nibble(b)?)).collect()
}

impl Serialize for ClientKey {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClientKey {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
