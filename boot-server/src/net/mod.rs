//! The boot protocols' sockets. What is answered is decided in `boot_server_core::dhcp` and in `tftp-server`.

pub mod dhcp;
pub mod dhcp6;
pub mod foreign;
pub mod lines;
pub mod packet;
pub mod ra;
pub mod raw;
pub mod tftp;

use std::io;
use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use protocol::MacAddr;

/// Why a boot protocol cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// There is no interface of this name, or it is not an Ethernet one.
    #[error("no Ethernet interface `{0}`")]
    NoInterface(String),
    /// The interfaces could not be listed.
    #[error("cannot list the network interfaces")]
    List(#[source] nix::Error),
    /// The configuration cannot be.
    #[error("DHCP configuration")]
    Config(#[from] boot_server_core::dhcp::ConfigError),
    /// The configuration of DHCPv6 cannot be.
    #[error("DHCPv6 configuration")]
    Config6(#[from] boot_server_core::dhcp6::ConfigError),
    /// A socket could not be set up; most often the port is taken, or the right to it is missing.
    #[error("cannot {what} on {interface}")]
    Socket {
        /// What for.
        what: &'static str,
        /// Where.
        interface: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The directory of boot files.
    #[error("cannot open the boot files in {path}")]
    BootDirectory {
        /// Which.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// TFTP cannot listen.
    #[error(transparent)]
    Tftp(#[from] tftp_server::BindError),
    /// A thread's event loop cannot be made.
    #[error("cannot make an event loop for a thread")]
    Thread(#[source] io::Error),
}

/// An Ethernet interface as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its IPv4 addresses with their prefix lengths, in the kernel's order.
    pub ipv4: Vec<(Ipv4Addr, u8)>,
}

impl Interface {
    /// Looks an interface up in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetError::NoInterface`], [`NetError::List`].
    pub fn find(name: &str) -> Result<Self, NetError> {
        let mut mac = None;
        let mut ipv4 = Vec::new();
        for entry in getifaddrs().map_err(NetError::List)?.filter(|e| e.interface_name == name) {
            let Some(address) = entry.address else { continue };
            if let Some(link) = address.as_link_addr() {
                mac = link.addr().map(MacAddr);
            }
            if let Some(v4) = address.as_sockaddr_in() {
                let mask = entry.netmask.and_then(|m| m.as_sockaddr_in().map(|m| u32::from(m.ip())));
                let prefix = mask.map_or(32, u32::count_ones);
                ipv4.push((v4.ip(), u8::try_from(prefix).unwrap_or(32)));
            }
        }
        let mac = mac.ok_or_else(|| NetError::NoInterface(name.into()))?;
        Ok(Self { name: name.into(), mac, ipv4 })
    }
}

#[cfg(test)]
mod lab;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests6;
