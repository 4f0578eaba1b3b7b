//! How an agent proves by its machine's TPM 2.0 which machine that is, and what it booted. Optional: an agent without a TPM asks
//! for nothing of this, and a server from before answers 404.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /agent/v1/tpm` | [`TpmKeys`] | [`TpmChallenge`] |
//! | `PUT /agent/v1/tpm` | [`TpmProof`] | 204 |

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Sha256;

/// Octets, written as hexadecimal digits. What is in them shows in no log.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Octets(pub Vec<u8>);

impl fmt::Debug for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} octets)", self.0.len())
    }
}

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digit = |n: u8| char::from_digit(n.into(), 16).unwrap_or('0');
        let text: String = self.0.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let pair = |two: &[u8]| match two {
            [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
            _ => None,
        };
        let octets: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
        octets.map(Self).ok_or_else(|| de::Error::custom("not an even number of hexadecimal digits"))
    }
}

/// The keys of the machine's TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmKeys {
    /// Public area (TPMT_PUBLIC) of its endorsement key, of one of TCG's default templates.
    pub ek: Octets,
    /// Public area of the attestation key that was made beside it.
    pub ak: Octets,
    /// Certificate of the endorsement key (DER), where the TPM has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Octets>,
}

/// What only the TPM with these keys can answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmChallenge {
    /// TPM2_ActivateCredential: the credential,
    pub credential: Octets,
    /// and its encrypted seed.
    pub secret: Octets,
    /// Qualifying data of the quote; used once.
    pub nonce: Octets,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmProof {
    /// What the credential opened to.
    pub opened: Octets,
    /// TPMS_ATTEST of a quote of registers 0 to 15 of the SHA-256 bank.
    pub quote: Octets,
    /// ECDSA: `r` and `s`, 32 octets each.
    pub signature: Octets,
    /// Those registers, in order.
    pub pcrs: Vec<Sha256>,
    /// The firmware's log of what it measured (TCG crypto-agile form), where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Octets>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets of version 1. If this fails, do not change the test: agents and servers of the field speak this.
    #[test]
    fn a_proof_is_written_as_ever() {
        let octets = |n: u8| Octets(vec![n, 0xaf]);
        let keys = TpmKeys { ek: octets(1), ak: octets(2), certificate: None };
        assert_eq!(serde_json::to_string(&keys).unwrap(), r#"{"ek":"01af","ak":"02af"}"#);
        let challenge = TpmChallenge { credential: octets(1), secret: octets(2), nonce: octets(3) };
        let text = r#"{"credential":"01af","secret":"02af","nonce":"03af"}"#;
        assert_eq!(serde_json::to_string(&challenge).unwrap(), text);
        assert_eq!(serde_json::from_str::<TpmChallenge>(text).unwrap(), challenge);
        let proof = TpmProof {
            opened: octets(1),
            quote: octets(2),
            signature: octets(3),
            pcrs: vec![Sha256([0; 32])],
            log: Some(Octets::default()),
        };
        let zeros = "0".repeat(64);
        let text =
            format!(r#"{{"opened":"01af","quote":"02af","signature":"03af","pcrs":["{zeros}"],"log":""}}"#);
        assert_eq!(serde_json::to_string(&proof).unwrap(), text);
        assert_eq!(serde_json::from_str::<TpmProof>(&text).unwrap(), proof);
        for wrong in ["\"0\"", "\"0g\"", "\"é\"", "7"] {
            assert!(serde_json::from_str::<Octets>(wrong).is_err(), "{wrong}");
        }
        assert_eq!(format!("{:?}", octets(9)), "(2 octets)");
    }
}
