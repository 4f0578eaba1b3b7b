//! Firmware variables of OVMF with a key more in its signature database, as a site's own key is enrolled by hand in a
//! real machine's setup. Layout: edk2's `VariableFormat.h` (authenticated variables); UEFI 2.10 section 32.4.1.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// `EFI_IMAGE_SECURITY_DATABASE_GUID`, vendor of the variable `db`.
const DATABASE: [u8; 16] =
    [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];
/// `EFI_CERT_X509_GUID`.
const X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
/// Who enrolled it: any.
const OWNER: [u8; 16] = *b"Billet rack test";
/// Length of a variable's header.
const HEADER: usize = 60;
/// `VARIABLE_DATA`, start of each variable.
const START: [u8; 2] = [0xaa, 0x55];
/// Cleared in the state of a variable that is deleted.
const DELETED: u8 = 0xfd;

/// A copy of the variables in `from` with the certificate (DER) in `db`.
///
/// # Errors
/// Where `from` holds no such variables, or has no room.
pub fn with_key(from: &Path, certificate: &[u8], to: &Path) -> Result<()> {
    let mut bytes = fs::read(from).with_context(|| format!("reading {} (package ovmf)", from.display()))?;
    // The volume's header gives its own length; the store's header is 28 octets.
    let volume = bytes.get(48..50).context("no firmware volume")?;
    let first = usize::from(u16::from_le_bytes([volume[0], volume[1]])) + 28;
    let mut at = first;
    let mut db = None;
    while bytes.get(at..at + 2) == Some(&START) {
        let (name, data) = (number(&bytes, at + 36)?, number(&bytes, at + 40)?);
        let text = bytes.get(at + HEADER..at + HEADER + name).context("a variable that is cut off")?;
        let is_db = text == [b'd', 0, b'b', 0, 0, 0] && bytes[at + 44..at + HEADER] == DATABASE;
        if is_db && bytes[at + 2] == 0x3f {
            db = Some((at, at + HEADER + name, data));
        }
        at = (at + HEADER + name + data).next_multiple_of(4);
    }
    let (old, start, len) = db.context("the variables have no signature database")?;
    let list = signature_list(certificate);
    let mut fresh = bytes[old..start].to_vec();
    fresh[40..44].copy_from_slice(&u32::try_from(len + list.len())?.to_le_bytes());
    fresh.extend_from_slice(&bytes[start..start + len]);
    fresh.extend(list);
    let room = bytes.get(at..at + fresh.len()).context("no room for another key")?;
    ensure!(room.iter().all(|b| *b == 0xff), "the variables end in something else");
    bytes[old + 2] &= DELETED;
    bytes[at..at + fresh.len()].copy_from_slice(&fresh);
    fs::write(to, bytes).with_context(|| format!("writing {}", to.display()))
}

fn number(bytes: &[u8], at: usize) -> Result<usize> {
    let found = bytes.get(at..).and_then(|b| b.first_chunk()).context("a variable that is cut off")?;
    Ok(usize::try_from(u32::from_le_bytes(*found))?)
}

/// `EFI_SIGNATURE_LIST` of one certificate.
fn signature_list(certificate: &[u8]) -> Vec<u8> {
    let size = (certificate.len() + 16) as u32;
    let mut list = X509.to_vec();
    list.extend((28 + size).to_le_bytes());
    list.extend(0_u32.to_le_bytes());
    list.extend(size.to_le_bytes());
    list.extend(OWNER);
    list.extend_from_slice(certificate);
    list
}
