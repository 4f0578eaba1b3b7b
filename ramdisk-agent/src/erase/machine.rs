//! What a tenant may have left beside the disks: boot entries, and what is in the TPM. None of it keeps an erase from being done; what
//! could not be cleaned is told.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use protocol::erase::MachineRecord;
use ramdisk_agent_core::tpm;

use crate::customise::boot_entry;
use crate::inspect::tree::Tree;

/// Cleans it.
pub fn clean() -> MachineRecord {
    let tree = Tree::new(Path::new("/"));
    let mut record = MachineRecord { tpm: clear_tpm(&tree), ..MachineRecord::default() };
    match boot_entry::remove_of_disks(&tree) {
        Ok((removed, kept)) => (record.boot_entries_removed, record.boot_entries_kept) = (removed, kept),
        Err(error) => record.warnings.push(format!("boot entries of disks could not be removed: {error}")),
    }
    record
}

/// Clears the TPM by its lockout authorisation, which is empty unless the tenant took it; `None` where there is none.
fn clear_tpm(tree: &Tree) -> Option<String> {
    let device = ["dev/tpmrm0", "dev/tpm0"].iter().map(|path| tree.path(path)).find(|path| path.exists())?;
    let answer = || -> std::io::Result<Vec<u8>> {
        let mut device = File::options().read(true).write(true).open(&device)?;
        device.write_all(&tpm::CLEAR)?;
        let mut answer = vec![0; 4096];
        let len = device.read(&mut answer)?;
        answer.truncate(len);
        Ok(answer)
    };
    Some(match answer() {
        Ok(answer) => match tpm::code(&answer) {
            Some(0) => "the TPM was cleared".to_owned(),
            Some(code) => {
                format!("the TPM was not cleared: it answers {code:#x}; clear it in the firmware's setup")
            }
            None => "the TPM was not cleared: its answer makes no sense".to_owned(),
        },
        Err(error) => format!("the TPM was not cleared: {error}"),
    })
}
