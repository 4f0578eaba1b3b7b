//! Power, boot device and identify light (chapter 28).

use super::link::{Ask, Link, malformed};
use super::message::completion;
use crate::{BmcError, BootDevice, BootMode, BootOverride, DriverKind, PowerAction, PowerState, Repeat};

const GET_STATUS: u8 = 0x01;
const CONTROL: u8 = 0x02;
const IDENTIFY: u8 = 0x04;
const SET_BOOT_OPTIONS: u8 = 0x08;
const GET_BOOT_OPTIONS: u8 = 0x09;
/// Parameters of the boot options (table 28-14).
const SET_IN_PROGRESS: u8 = 0;
const VALID_BIT_CLEARING: u8 = 3;
const BOOT_INFO_ACKNOWLEDGE: u8 = 4;
const BOOT_FLAGS: u8 = 5;
/// Of the boot flags' first octet.
const VALID: u8 = 0x80;
const PERSISTENT: u8 = 0x40;
const EFI: u8 = 0x20;

/// Device selectors of the boot flags (table 28-14, parameter 5, bits 5:2 of the second octet).
const DEVICES: [(BootDevice, u8); 5] = [
    (BootDevice::None, 0),
    (BootDevice::Pxe, 1),
    (BootDevice::Disk, 2),
    (BootDevice::Cdrom, 5),
    (BootDevice::Bios, 6),
];

pub(super) async fn power_state(link: &mut Link) -> Result<PowerState, BmcError> {
    const WHAT: &str = "the chassis status";
    let data = link.read(&Ask::chassis(WHAT, GET_STATUS, &[])).await?;
    let state = data.first().ok_or_else(|| malformed(WHAT, "no data"))?;
    Ok(if state & 1 != 0 { PowerState::On } else { PowerState::Off })
}

pub(super) async fn power(link: &mut Link, action: PowerAction) -> Result<(), BmcError> {
    // Section 28.3. "On" where it runs is refused by some controllers, and nothing to do.
    if action == PowerAction::On && power_state(link).await? == PowerState::On {
        return Ok(());
    }
    let control = match action {
        PowerAction::ForceOff => 0,
        PowerAction::On => 1,
        PowerAction::Cycle => 2,
        PowerAction::Reset => 3,
        PowerAction::Nmi => 4,
        PowerAction::SoftOff => 5,
    };
    link.change(&Ask::chassis("the chassis control", CONTROL, &[control])).await.map(drop)
}

/// Lights for as long as a controller can: for ever where it knows that, else as long as it does by itself.
pub(super) async fn identify(link: &mut Link, on: bool) -> Result<(), BmcError> {
    const WHAT: &str = "the identify light";
    let off: &[u8] = &[0];
    // Section 28.5: interval in seconds, then whether it is for ever.
    let data: &[u8] = if on { &[255, 1] } else { off };
    match link.change(&Ask::chassis(WHAT, IDENTIFY, data)).await {
        Err(BmcError::Refused { .. }) if on => {
            link.change(&Ask::chassis(WHAT, IDENTIFY, &[255])).await.map(drop)
        }
        outcome => outcome.map(drop),
    }
}

/// `loses_valid`: this controller was found to drop the valid bit; a device is an override there.
pub(super) async fn boot_override(link: &mut Link, loses_valid: bool) -> Result<BootOverride, BmcError> {
    let mut flags = flags(link).await?;
    if loses_valid {
        flags[0] |= VALID;
    }
    Ok(parse_flags(&flags))
}

async fn flags(link: &mut Link) -> Result<[u8; 5], BmcError> {
    const WHAT: &str = "the boot options";
    let data = link.read(&Ask::chassis(WHAT, GET_BOOT_OPTIONS, &[BOOT_FLAGS, 0, 0])).await?;
    // Behind parameter version and number.
    let flags = data.get(2..7).and_then(|f| <[u8; 5]>::try_from(f).ok());
    flags.ok_or_else(|| malformed(WHAT, "less than five octets of flags"))
}

/// Reads the boot flags.
pub fn parse_flags(flags: &[u8; 5]) -> BootOverride {
    let selector = (flags[1] >> 2) & 0x0f;
    // Remote media (7, 8, 9, 11) are what virtual media appear as; they are a CD drive here.
    let device = match selector {
        8 | 9 => BootDevice::Cdrom,
        11 => BootDevice::Disk,
        _ => DEVICES.iter().find(|(_, n)| *n == selector).map_or(BootDevice::None, |(d, _)| *d),
    };
    let device = if flags[0] & VALID == 0 { BootDevice::None } else { device };
    let repeat = if flags[0] & PERSISTENT != 0 { Repeat::Always } else { Repeat::Once };
    let mode = if flags[0] & EFI != 0 { BootMode::Uefi } else { BootMode::Legacy };
    if device == BootDevice::None {
        return BootOverride { device, repeat: Repeat::Always, mode: None, http_uri: None };
    }
    BootOverride { device, repeat, mode: Some(mode), http_uri: None }
}

/// Makes the boot flags; `before` are those that the controller has, of which the mode is kept where none is wanted.
///
/// # Errors
/// Where IPMI has no such device.
pub fn emit_flags(wanted: &BootOverride, before: &[u8; 5]) -> Result<[u8; 5], BmcError> {
    let found = DEVICES.iter().find(|(d, _)| *d == wanted.device);
    let Some((_, selector)) = found else {
        return Err(BmcError::Unsupported { driver: DriverKind::Ipmi, what: "booting by HTTP" });
    };
    if wanted.device == BootDevice::None {
        return Ok([0; 5]);
    }
    let mode = match wanted.mode {
        Some(BootMode::Uefi) => EFI,
        Some(BootMode::Legacy) => 0,
        None => before[0] & EFI,
    };
    let repeat = if wanted.repeat == Repeat::Always { PERSISTENT } else { 0 };
    Ok([VALID | mode | repeat, selector << 2, 0, 0, 0])
}

/// True where the controller has the device that was just set but not the valid bit. A BIOS clears the bit, but not
/// within the moment between the two commands; OpenIPMI's simulator never has it.
pub(super) async fn drops_valid(link: &mut Link, wanted: &BootOverride) -> Result<bool, BmcError> {
    let flags = flags(link).await?;
    let read = parse_flags(&[flags[0] | VALID, flags[1], 0, 0, 0]);
    Ok(flags[0] & VALID == 0 && read.device == wanted.device)
}

/// Sets the boot flags, between "set in progress" and "set complete" where the controller has those.
pub(super) async fn set_boot_override(link: &mut Link, wanted: &BootOverride) -> Result<(), BmcError> {
    let before = if wanted.mode.is_none() { flags(link).await.unwrap_or_default() } else { [0; 5] };
    let flags = emit_flags(wanted, &before)?;
    optional(link, &[SET_IN_PROGRESS, 1]).await?;
    // Without this the flags are forgotten 60 s after they were set.
    optional(link, &[VALID_BIT_CLEARING, 0x08]).await?;
    // The BIOS is told that it has not handled them yet.
    optional(link, &[BOOT_INFO_ACKNOWLEDGE, 1, 1]).await?;
    let data = [&[BOOT_FLAGS][..], &flags].concat();
    let outcome = link.change(&Ask::chassis("the boot options", SET_BOOT_OPTIONS, &data)).await;
    optional(link, &[SET_IN_PROGRESS, 0]).await?;
    outcome.map(drop)
}

/// A parameter that not every controller has: only a lost connection is an error.
async fn optional(link: &mut Link, data: &[u8]) -> Result<(), BmcError> {
    let response = link.answer(&Ask::chassis("the boot options", SET_BOOT_OPTIONS, data)).await?;
    if response.completion != completion::OK {
        tracing::debug!(
            parameter = data.first(),
            code = response.completion,
            "the BMC has no such boot option"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_they_were_written() {
        for device in [BootDevice::Pxe, BootDevice::Disk, BootDevice::Cdrom, BootDevice::Bios] {
            for repeat in [Repeat::Once, Repeat::Always] {
                for mode in [BootMode::Legacy, BootMode::Uefi] {
                    let wanted = BootOverride { device, repeat, mode: Some(mode), http_uri: None };
                    assert_eq!(parse_flags(&emit_flags(&wanted, &[0; 5]).unwrap()), wanted);
                }
            }
        }
    }

    #[test]
    fn flags_are_those_that_ipmitool_sends() {
        // `chassis bootdev pxe options=persistent,efiboot`.
        let mut wanted = BootOverride {
            device: BootDevice::Pxe,
            repeat: Repeat::Always,
            mode: Some(BootMode::Uefi),
            http_uri: None,
        };
        assert_eq!(emit_flags(&wanted, &[0; 5]).unwrap(), [0xe0, 0x04, 0, 0, 0]);
        wanted.mode = None;
        assert_eq!(emit_flags(&wanted, &[0x20, 0, 0, 0, 0]).unwrap()[0], 0xe0, "the mode is kept");
        wanted.device = BootDevice::Http;
        assert!(matches!(emit_flags(&wanted, &[0; 5]), Err(BmcError::Unsupported { .. })));
        wanted.device = BootDevice::None;
        assert_eq!(emit_flags(&wanted, &[0xe0, 4, 0, 0, 0]).unwrap(), [0; 5]);
    }

    #[test]
    fn flags_that_are_not_valid_are_no_override() {
        assert_eq!(parse_flags(&[0x60, 4, 0, 0, 0]).device, BootDevice::None);
        assert_eq!(parse_flags(&[0x80, 8 << 2, 0, 0, 0]).device, BootDevice::Cdrom);
    }
}
