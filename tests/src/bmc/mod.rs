//! A stand-in for management controllers: real endpoints on real sockets, whose power button is a [`Machine`].

pub mod button;
pub mod ipmi;
pub mod ipmi_sim;
pub mod libvirt;
mod machine;
pub mod media;
mod memory;
mod qemu;
pub mod redfish;
pub mod sushy;

pub use machine::Machine;
pub use memory::MemoryMachine;
pub use qemu::QemuMachine;
