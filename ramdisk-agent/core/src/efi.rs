//! Boot entries of a UEFI firmware as bytes: load options (UEFI 2.10, 3.1.3) and the boot order.

use crate::gpt::{Entry, SECTOR};

/// Where a firmware looks on an EFI system partition without being told (UEFI 2.10, 3.5.1.1).
pub const LOADER: &str =
    if cfg!(target_arch = "aarch64") { "\\EFI\\BOOT\\BOOTAA64.EFI" } else { "\\EFI\\BOOT\\BOOTX64.EFI" };
/// `LOAD_OPTION_ACTIVE`.
const ACTIVE: u32 = 1;
/// Longest label, in UTF-16 units: what firmware setup screens show.
const LABEL_MAX: usize = 64;

/// The load option for the loader on this EFI system partition.
pub fn load_option(label: &str, esp: &Entry) -> Vec<u8> {
    let mut path = hard_drive(esp);
    path.extend(file_path(LOADER));
    // End of the entire device path (10.3.1).
    path.extend([0x7f, 0xff, 4, 0]);
    let mut out = ACTIVE.to_le_bytes().to_vec();
    out.extend((path.len() as u16).to_le_bytes());
    out.extend(label.encode_utf16().take(LABEL_MAX).flat_map(u16::to_le_bytes));
    out.extend([0, 0]);
    out.extend(path);
    out
}

/// The label of a load option; `None` where the bytes are none.
pub fn label_of(option: &[u8]) -> Option<String> {
    let units = option.get(6..)?.as_chunks::<2>().0.iter().map(|u| u16::from_le_bytes(*u));
    let units: Vec<u16> = units.take_while(|u| *u != 0).take(4 * LABEL_MAX).collect();
    Some(String::from_utf16_lossy(&units))
}

/// True for a load option that leads to a partition of a disk; cut and strange ones do not.
pub fn leads_to_disk(option: &[u8]) -> bool {
    // Attributes, length of the path, the label and its end, then nodes of the path (UEFI 2.10, 3.1.3 and 10.2).
    let Some(text) = option.get(6..) else { return false };
    let Some(end) = text.as_chunks::<2>().0.iter().position(|unit| *unit == [0, 0]) else { return false };
    let mut path = text.get(2 * end + 2..).unwrap_or_default();
    while let [kind, sub, low, high, ..] = path {
        let len = usize::from(u16::from_le_bytes([*low, *high]));
        match (kind, sub) {
            (4, 1) => return true,
            (0x7f, _) => return false,
            _ if len < 4 => return false,
            _ => path = path.get(len..).unwrap_or_default(),
        }
    }
    false
}

/// The boot order without these; the rest keeps its order.
pub fn without(old: &[u8], gone: &[u16]) -> Vec<u8> {
    let old = old.as_chunks::<2>().0.iter().map(|n| u16::from_le_bytes(*n));
    old.filter(|n| !gone.contains(n)).flat_map(u16::to_le_bytes).collect()
}

/// The boot order with `entry` right behind `current`, the network entry that this boot came by, and without `gone`; the
/// rest keeps its order. Network first: without a BMC, a machine that starts its disk first could never be reached
/// again; what it then boots is the server's decision. Where `current` is not known, `entry` comes first.
pub fn order(old: &[u8], current: Option<u16>, entry: u16, gone: &[u16]) -> Vec<u8> {
    let old = old.as_chunks::<2>().0.iter().map(|n| u16::from_le_bytes(*n));
    let rest: Vec<u16> = old.filter(|n| *n != entry && !gone.contains(n)).collect();
    let first = current.filter(|n| rest.contains(n));
    let rest = rest.into_iter().filter(|n| Some(*n) != first);
    first.into_iter().chain([entry]).chain(rest).flat_map(u16::to_le_bytes).collect()
}

/// The entry that the firmware would have tried after `current`, where that is in the order; `None` where it was the last.
pub fn after(order: &[u8], current: u16) -> Option<u16> {
    let order = order.as_chunks::<2>().0.iter().map(|n| u16::from_le_bytes(*n));
    order.skip_while(|n| *n != current).nth(1)
}

/// Number of a variable named `Boot0001`; `None` for `BootOrder` and the like.
pub fn entry_number(variable: &str) -> Option<u16> {
    let digits = variable.strip_prefix("Boot").filter(|d| d.len() == 4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// Hard drive media device path (10.3.5.1), format GPT, signature GUID.
fn hard_drive(esp: &Entry) -> Vec<u8> {
    let mut out = vec![4, 1, 42, 0];
    out.extend(esp.number.to_le_bytes());
    out.extend((esp.bytes.start / SECTOR).to_le_bytes());
    out.extend(((esp.bytes.end - esp.bytes.start) / SECTOR).to_le_bytes());
    out.extend(esp.guid);
    out.extend([2, 2]);
    out
}

/// File path media device path (10.3.5.4).
fn file_path(path: &str) -> Vec<u8> {
    let text: Vec<u8> = path.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut out = vec![4, 4];
    out.extend((text.len() as u16 + 4).to_le_bytes());
    out.extend(text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_of_an_entry() {
        let esp =
            Entry { number: 15, kind: [0; 16], guid: [7; 16], bytes: 1 << 20..9 << 20, name: String::new() };
        let option = load_option("Billet", &esp);
        assert_eq!(label_of(&option).as_deref(), Some("Billet"));
        assert!(leads_to_disk(&option) && !leads_to_disk(&option[..20]) && !leads_to_disk(&[]));
        // A network card: PCI, then its address.
        let network = [&option[..20], &[1, 1, 6, 0, 0, 3, 3, 11, 4, 0, 0x7f, 0xff, 4, 0]].concat();
        assert!(!leads_to_disk(&network));
        assert_eq!(without(&[1, 0, 2, 0, 3, 0], &[2, 9]), [1, 0, 3, 0]);
        assert_eq!(option[..6], [1, 0, 0, 0, 94, 0]);
        let path = &option[6 + 14..];
        assert_eq!(path.len(), 94);
        assert_eq!(path[..12], [4, 1, 42, 0, 15, 0, 0, 0, 0, 8, 0, 0]);
        assert_eq!(path[24..42], [[7; 16].as_slice(), &[2, 2]].concat());
        assert_eq!(path[42..46], [4, 4, 48, 0]);
        assert_eq!(path[90..], [0x7f, 0xff, 4, 0]);
    }

    #[test]
    fn order_and_numbers() {
        assert_eq!(order(&[1, 0, 2, 0, 3, 0], None, 3, &[2]), [3, 0, 1, 0]);
        assert_eq!(order(&[1, 0, 2, 0, 3, 0], Some(2), 4, &[]), [2, 0, 4, 0, 1, 0, 3, 0]);
        assert_eq!(order(&[1, 0, 2, 0], Some(9), 4, &[1]), [4, 0, 2, 0]);
        assert_eq!(order(&[], None, 0, &[]), [0, 0]);
        assert_eq!(after(&[1, 0, 2, 0, 3, 0], 2), Some(3));
        assert_eq!((after(&[1, 0, 2, 0], 2), after(&[1, 0], 7), after(&[], 0)), (None, None, None));
        assert_eq!(entry_number("Boot001A"), Some(26));
        assert_eq!(entry_number("BootOrder"), None);
        assert_eq!(entry_number("Boot001"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), first: u16) {
            let _ = (label_of(&bytes), leads_to_disk(&bytes), without(&bytes, &[1]));
            let _ = order(&bytes, Some(first), first, &[1]);
        }
    }
}
