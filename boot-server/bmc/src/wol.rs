//! Wake-on-LAN: a magic packet (AMD white paper 20213) to everybody on a segment. It can switch on and nothing else, and
//! learns nothing.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use async_trait::async_trait;
use protocol::MacAddr;
use tokio::net::UdpSocket;

use crate::{Bmc, BmcError, DriverKind, PowerAction, PowerState};

/// UDP port "discard", which is what wakers use; the adapter looks at the octets only.
pub const PORT: u16 = 9;
/// How often a packet is sent: nobody answers, and one may be lost.
const COPIES: usize = 3;
/// Between two copies.
const PAUSE: Duration = Duration::from_millis(100);

/// Which machine, and from where.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the adapter that wakes the machine.
    pub mac: MacAddr,
    /// Our own address on the machine's segment. A socket that is bound to it sends its broadcasts there.
    pub from: Ipv4Addr,
    /// Where the packet goes: all on the segment, or one broadcast address beyond a router that lets it through.
    pub to: SocketAddrV4,
}

impl Settings {
    /// To everybody on the segment where we have this address.
    pub fn new(mac: MacAddr, from: Ipv4Addr) -> Self {
        Self { mac, from, to: SocketAddrV4::new(Ipv4Addr::BROADCAST, PORT) }
    }
}

/// A machine that can be woken.
#[derive(Debug, Clone)]
pub struct Driver {
    settings: Settings,
}

impl Driver {
    /// A driver; nothing is sent yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    async fn wake(&self) -> std::io::Result<()> {
        let socket = UdpSocket::bind((self.settings.from, 0)).await?;
        socket.set_broadcast(true)?;
        let packet = magic_packet(self.settings.mac);
        for copy in 0..COPIES {
            if copy > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            socket.send_to(&packet, self.settings.to).await?;
        }
        Ok(())
    }
}

/// Six octets of ones, then the address sixteen times.
pub fn magic_packet(mac: MacAddr) -> Vec<u8> {
    [&[0xff; 6][..], &mac.0.repeat(16)].concat()
}

#[async_trait]
impl Bmc for Driver {
    fn kind(&self) -> DriverKind {
        DriverKind::Wol
    }

    async fn power_state(&self) -> Result<PowerState, BmcError> {
        Ok(PowerState::Unknown)
    }

    async fn power(&self, action: PowerAction) -> Result<(), BmcError> {
        if action != PowerAction::On {
            return Err(self.unsupported("any change of power but switching on"));
        }
        self.wake().await.map_err(|e| BmcError::Unreachable {
            what: format!("a magic packet from {} to {}: {e}", self.settings.from, self.settings.to),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_magic_packet_goes_out_and_nothing_else_can_be_done() {
        let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mac: MacAddr = "52:54:00:77:00:01".parse().unwrap();
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, receiver.local_addr().unwrap().port());
        let driver = Driver::new(Settings { to, ..Settings::new(mac, Ipv4Addr::LOCALHOST) });
        driver.power(PowerAction::On).await.unwrap();
        let mut packet = [0; 200];
        let len = receiver.recv(&mut packet).await.unwrap();
        assert_eq!(len, 102);
        assert_eq!(packet[..12], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0x77, 0, 1]);
        assert!(packet[6..102].chunks(6).all(|m| m == mac.0));
        assert_eq!(driver.power_state().await.unwrap(), PowerState::Unknown);
        for action in [
            PowerAction::SoftOff,
            PowerAction::ForceOff,
            PowerAction::Reset,
            PowerAction::Cycle,
            PowerAction::Nmi,
        ] {
            assert!(matches!(driver.power(action).await, Err(BmcError::Unsupported { .. })));
        }
        assert!(matches!(driver.readings().await, Err(BmcError::Unsupported { .. })));
    }
}
