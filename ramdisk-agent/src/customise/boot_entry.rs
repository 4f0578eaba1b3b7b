//! The firmware's boot entry for the written disk, through efivarfs.

use std::fs::File;
use std::io::{self, Write};

use ramdisk_agent_core::efi;
use ramdisk_agent_core::gpt::Entry;

use crate::inspect::tree::Tree;
use crate::sys;

const FOLDER: &str = "sys/firmware/efi/efivars";
/// Vendor of the global variables (UEFI 2.10, 3.3).
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Non-volatile, boot service access, run-time access.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];

/// Makes the entry `label` for the loader on `esp`, in place of older ones of that label, and puts it behind the
/// network entry that was booted from. What was done, in words.
///
/// # Errors
/// Where a variable cannot be written: the store is full, or the firmware protects it.
pub fn set(tree: &Tree, label: &str, esp: Option<&Entry>) -> io::Result<String> {
    if !tree.path("sys/firmware/efi").exists() {
        return Ok("no boot entry: the machine booted by BIOS".to_owned());
    }
    let Some(esp) = esp else { return Ok("no boot entry: the image has no EFI system partition".to_owned()) };
    let mut taken = Vec::new();
    let mut old = Vec::new();
    for name in tree.list(FOLDER) {
        let Some(number) = name.strip_suffix(&format!("-{GLOBAL}")).and_then(efi::entry_number) else {
            continue;
        };
        let option = tree.bytes(format!("{FOLDER}/{name}")).unwrap_or_default();
        if option.get(4..).and_then(efi::label_of).as_deref() == Some(label) {
            remove(tree, &name)?;
            old.push(number);
        } else {
            taken.push(number);
        }
    }
    let number = (0..=u16::MAX)
        .find(|n| !taken.contains(n))
        .ok_or_else(|| io::Error::other("the firmware has no free boot entry"))?;
    write(tree, &format!("Boot{number:04X}"), &efi::load_option(label, esp))?;
    let order = tree.bytes(format!("{FOLDER}/BootOrder-{GLOBAL}")).unwrap_or_default();
    let current = tree.bytes(format!("{FOLDER}/BootCurrent-{GLOBAL}")).unwrap_or_default();
    let current = current.get(4..).and_then(|value| Some(u16::from_le_bytes(*value.first_chunk()?)));
    write(tree, "BootOrder", &efi::order(order.get(4..).unwrap_or_default(), current, number, &old))?;
    Ok(format!("boot entry Boot{number:04X} `{label}` set, behind the network"))
}

/// Has the next boot begin with what comes after the entry that this one came by (`BootNext`), which is what a boot
/// loader does that leaves with an error. What was done, in words.
///
/// # Errors
/// Where the machine has no such entry, or the variable cannot be written.
pub fn go_on(tree: &Tree) -> io::Result<String> {
    let value = |name: &str| {
        let bytes = tree.bytes(format!("{FOLDER}/{name}-{GLOBAL}")).unwrap_or_default();
        bytes.get(4..).unwrap_or_default().to_vec()
    };
    let current = value("BootCurrent").first_chunk().map(|n| u16::from_le_bytes(*n));
    let next = current.and_then(|current| efi::after(&value("BootOrder"), current));
    let next = next.ok_or_else(|| io::Error::other("the firmware's boot order ends with the network"))?;
    write(tree, "BootNext", &next.to_le_bytes())?;
    Ok(format!("the next boot is Boot{next:04X}"))
}

/// Removes every entry that leads to a partition of a disk, and an order to boot something once: after an erase there is nothing
/// there. Labels of those that were removed, and of those that were left.
///
/// # Errors
/// Where a variable cannot be removed.
pub fn remove_of_disks(tree: &Tree) -> io::Result<(Vec<String>, Vec<String>)> {
    let (mut removed, mut kept, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for name in tree.list(FOLDER) {
        let Some(number) = name.strip_suffix(&format!("-{GLOBAL}")).and_then(efi::entry_number) else {
            continue;
        };
        let option = tree.bytes(format!("{FOLDER}/{name}")).unwrap_or_default();
        let option = option.get(4..).unwrap_or_default();
        let label = efi::label_of(option).unwrap_or_else(|| format!("Boot{number:04X}"));
        if efi::leads_to_disk(option) {
            remove(tree, &name)?;
            gone.push(number);
            removed.push(label);
        } else {
            kept.push(label);
        }
    }
    let next = format!("BootNext-{GLOBAL}");
    if tree.path(format!("{FOLDER}/{next}")).exists() {
        remove(tree, &next)?;
    }
    if !gone.is_empty() {
        let order = tree.bytes(format!("{FOLDER}/BootOrder-{GLOBAL}")).unwrap_or_default();
        write(tree, "BootOrder", &efi::without(order.get(4..).unwrap_or_default(), &gone))?;
    }
    Ok((removed, kept))
}

fn remove(tree: &Tree, name: &str) -> io::Result<()> {
    let path = tree.path(format!("{FOLDER}/{name}"));
    make_mutable(&path)?;
    std::fs::remove_file(path)
}

/// One variable is one write (Documentation/filesystems/efivarfs.rst).
fn write(tree: &Tree, name: &str, value: &[u8]) -> io::Result<()> {
    let path = tree.path(format!("{FOLDER}/{name}-{GLOBAL}"));
    if path.exists() {
        make_mutable(&path)?;
    }
    let bytes = [&ATTRIBUTES, value].concat();
    let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
    match file.write(&bytes)? {
        n if n == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

fn make_mutable(path: &std::path::Path) -> io::Result<()> {
    match sys::clear_immutable(&File::open(path)?) {
        // Not every file system knows flags; then there is nothing to clear.
        Err(e) if e.raw_os_error() == Some(libc::ENOTTY) => Ok(()),
        other => other,
    }
}
