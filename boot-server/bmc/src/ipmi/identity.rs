//! Who the machine and its controller are: Get Device ID (section 20.1), Get System GUID (section 22.14), FRU.

use super::fru;
use super::link::{Ask, Link, malformed};
use super::message::completion;
use crate::{BmcError, FirmwareItem, Identity};

const GET_DEVICE_ID: u8 = 0x01;
const GET_SYSTEM_GUID: u8 = 0x37;

pub(super) async fn identity(link: &mut Link) -> Result<Identity, BmcError> {
    let version = version(link).await?;
    let guid = link.answer(&Ask::app("the system GUID", GET_SYSTEM_GUID, &[])).await?;
    let uuid = <[u8; 16]>::try_from(&guid.data[..]).ok().filter(|_| guid.completion == completion::OK);
    let fru = fru::read(link).await?.unwrap_or_default();
    Ok(Identity {
        manufacturer: fru.manufacturer().cloned(),
        model: fru.model().cloned(),
        serial: fru.serial().cloned(),
        uuid: uuid.and_then(|u| uuid_text(&u)),
        bmc_version: Some(version),
        protocol_version: Some("2.0".into()),
        ..Identity::default()
    })
}

pub(super) async fn firmware(link: &mut Link) -> Result<Vec<FirmwareItem>, BmcError> {
    let version = Some(version(link).await?);
    Ok(vec![FirmwareItem {
        id: "bmc".into(),
        name: "Management controller".into(),
        version,
        updateable: false,
    }])
}

async fn version(link: &mut Link) -> Result<String, BmcError> {
    const WHAT: &str = "the device id";
    match link.read(&Ask::app(WHAT, GET_DEVICE_ID, &[])).await?[..] {
        // Major is binary, minor is BCD.
        [_, _, major, minor, ..] => Ok(format!("{}.{:02x}", major & 0x7f, minor)),
        _ => Err(malformed(WHAT, "an answer of less than four octets")),
    }
}

/// A GUID as SMBIOS prints it; `None` where it is not set.
///
/// Section 20.8 orders the octets from the last of the text to the first, but most controllers send the octets of the SMBIOS
/// record, whose first three fields are little-endian. They are told apart by the version, which is in the upper half of one
/// octet and is 1 to 5, and the variant, whose upper bits are 10.
pub fn uuid_text(guid: &[u8; 16]) -> Option<String> {
    if guid.iter().all(|o| *o == 0) || guid.iter().all(|o| *o == 0xff) {
        return None;
    }
    let plausible = |u: &[u8; 16]| (1..=5).contains(&(u[6] >> 4)) && u[8] >> 6 == 0b10;
    let mut smbios = *guid;
    smbios[..4].reverse();
    smbios[4..6].reverse();
    smbios[6..8].reverse();
    let mut reversed = *guid;
    reversed.reverse();
    let chosen = [smbios, reversed, *guid].into_iter().find(plausible).unwrap_or(smbios);
    let hex: String = chosen.iter().map(|o| format!("{o:02x}")).collect();
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_the_uuid_in_whichever_order_it_comes() {
        let uuid = "b111e700-0102-4304-8506-070809101112";
        let smbios = [0x00, 0xe7, 0x11, 0xb1, 0x02, 0x01, 0x04, 0x43, 0x85, 6, 7, 8, 9, 0x10, 0x11, 0x12];
        let text = [0xb1, 0x11, 0xe7, 0x00, 0x01, 0x02, 0x43, 0x04, 0x85, 6, 7, 8, 9, 0x10, 0x11, 0x12];
        let mut reversed = text;
        reversed.reverse();
        for guid in [smbios, text, reversed] {
            assert_eq!(uuid_text(&guid).as_deref(), Some(uuid));
        }
        assert_eq!(uuid_text(&[0; 16]), None);
        assert_eq!(uuid_text(&[0xff; 16]), None);
    }
}
