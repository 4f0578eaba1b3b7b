//! Bounds on everything that comes from outside, in one place, each with the reason for the number.

/// Largest JSON body of any request that is not an inventory, in octets (DESIGN section 11).
pub const JSON_BODY_MAX: usize = 1 << 20;
/// Largest inventory body, in octets: 64 NICs, 512 disks and 4,096 PCI functions fit in a tenth of it.
pub const INVENTORY_BODY_MAX: usize = 16 << 20;
/// NICs of one machine; the largest servers seen have 24 ports with their VFs off.
pub const NICS_MAX: usize = 64;
/// Disks of one machine: two fully populated 90-bay shelves and the local ones.
pub const DISKS_MAX: usize = 512;
/// DIMM slots of one machine.
pub const DIMMS_MAX: usize = 512;
/// PCI functions of one machine.
pub const PCI_MAX: usize = 4096;
/// Length of any string that a machine reports (serial, model, LLDP name), in octets; longer is cut.
pub const REPORTED_STRING_MAX: usize = 512;
/// Reports in one batch.
pub const REPORTS_MAX: usize = 256;
/// User data, in octets: what cloud platforms commonly allow is 16 KiB to 64 KiB.
pub const USER_DATA_MAX: usize = 64 << 10;
/// Largest public area, quote or signature of a TPM, in octets: RSA keys of 4,096 bits take 600.
pub const TPM_STRUCTURE_MAX: usize = 2 << 10;
/// Largest certificate of a TPM's endorsement key, in octets; they have 1 to 2 KiB.
pub const TPM_CERTIFICATE_MAX: usize = 4 << 10;
/// Largest event log of a firmware, in octets; they have tens of KiB, and two digits for each must fit a body.
pub const TPM_LOG_MAX: usize = 256 << 10;
