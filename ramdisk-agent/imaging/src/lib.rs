//! Crate `imaging`: an image into a disk that nobody else has open ([`write`]). The server writes volumes with it straight into their
//! backend, a DPU through what serves the volume to its host. The ramdisk's agent has a writer of its own, as it keeps what a disk already
//! has; what the ends become and what lies in the config partition is decided by `ramdisk_agent_core` for all of them.

mod file;
#[cfg(test)]
mod tests;
mod types;
mod write;

pub use file::FileMedium;
pub use types::{Chunks, Image, ImagingError, Medium, Progress, Step, Watch, Written};
pub use write::{ZERO_MAX, as_disk, write};
