//! What a boot loader tells of its machine when it asks for the machine's script.

use serde::Deserialize;

use crate::node::Claim;

/// Longest text taken, in characters; SMBIOS strings have at most 64.
const TEXT_MAX: usize = 128;

/// The query of the request. Texts may be anything: the machine's maker wrote them, and anybody can ask.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct BootRequest {
    /// Address of the port that boots, with `-` or `:`.
    pub mac: String,
    /// SMBIOS UUID.
    pub uuid: String,
    /// SMBIOS serial number.
    pub serial: String,
    /// SMBIOS manufacturer.
    pub manufacturer: String,
    /// SMBIOS product.
    pub product: String,
    /// `pcbios` or `efi`.
    pub platform: String,
    /// `i386`, `x86_64` or `arm64`.
    pub buildarch: String,
}

impl BootRequest {
    /// Who it says that it is. What cannot be read is as if it were not told.
    pub fn claim(&self) -> Claim {
        Claim {
            uuid: self.uuid.parse().ok(),
            serial: Some(printable(&self.serial)).filter(|s| !s.is_empty()),
            macs: self.mac.parse().into_iter().collect(),
        }
    }
}

/// A text from outside for the log or for people: without control characters, and no longer than 128 characters.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_told() {
        let asked = BootRequest {
            mac: "52-54-00-00-00-01".into(),
            uuid: "nonsense".into(),
            serial: "A\u{1b}[31m1".into(),
            ..BootRequest::default()
        };
        let claim = asked.claim();
        assert_eq!((claim.uuid, claim.serial.as_deref()), (None, Some("A[31m1")));
        assert_eq!(claim.macs[0].to_string(), "52:54:00:00:00:01");
        assert_eq!(BootRequest::default().claim(), Claim::default());
    }
}
