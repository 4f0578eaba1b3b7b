//! TPM 2.0 (TCG "TPM 2.0 Library", parts 1 to 3, revision 1.59), as far as both ends of an attestation need it.
//!
//! ```text
//!  agent                                       server
//!  EK, AK made (the same each time)  ── public areas, EK certificate ──▶  templates compared
//!  ActivateCredential  ◀── secret under EK and the AK's name, nonce ──  credential
//!  Quote over the nonce  ── secret, quote, signature, PCRs, event log ──▶  all of it checked: verify, log
//! ```
//!
//! `wire` reads and writes, `public` are keys and their templates, `command` speaks with a TPM through whatever carries octets.
//! Behind the feature `verify`: `credential`, `quote` and `log`. Nothing here opens a device, asks a clock or makes random
//! octets; what a peer says is bounded and never trusted to be well-formed.

pub mod command;
pub mod public;
pub mod wire;

#[cfg(feature = "verify")]
pub mod credential;
#[cfg(feature = "verify")]
pub mod log;
#[cfg(feature = "verify")]
pub mod quote;

/// Octets of SHA-256.
pub const SHA256: usize = 32;
/// Registers that are read and quoted: those that firmware, loader and kernel measure into.
pub const PCRS: u8 = 16;
/// Largest event log that is looked at, in octets. Firmware writes some tens of KiB.
pub const LOG_MAX: usize = 256 << 10;
/// Largest certificate of an endorsement key, in octets.
pub const CERTIFICATE_MAX: usize = 4 << 10;
/// Largest public area, quote or signature, in octets.
pub const STRUCTURE_MAX: usize = 2 << 10;
