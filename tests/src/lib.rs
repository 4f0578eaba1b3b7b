//! The virtual rack and what the suites share. A rack is a network namespace with a bridge, a Billet server and QEMU
//! machines; it ends its own processes and takes its namespace away, whatever becomes of the test. The fleet is thousands
//! of simulated machines.

pub mod bmc;
pub mod browser;
pub mod chaos;
pub mod dhcp_load;
pub mod dhcp_wire;
pub mod dpu;
pub mod exporter;
pub mod exports;
pub mod fleet;
pub mod measured;
pub mod overlay;
pub mod pages;
pub mod powercut;
pub mod python;
pub mod rack;
pub mod scenario;
pub mod simulated;
pub mod simulated_dpu;
pub mod site;
pub mod spdk;
pub mod switch;
pub mod tftp;
pub mod trust;
pub mod volumes;
