//! Looking at the machine. A collector that fails adds a warning and never stops the others.

pub mod disks;
pub mod tree;
