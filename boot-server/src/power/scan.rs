//! Looking for controllers in a network that somebody named. No account is used: the Redfish service root (DSP0266, 6.4) and
//! the presence ping of RMCP (ASF 2.0, section 3.2.4.2) answer to everybody.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bmc::redfish::{Transport, probe};
use futures_util::{StreamExt as _, stream};
use tokio::net::UdpSocket;

use crate::view::{FoundRedfish, ScanFound};

/// Longest prefix that may be scanned is 32, the shortest this: 1,024 addresses.
pub const PREFIX_MIN: u8 = 22;
/// Addresses that are asked at the same time.
const AT_ONCE: usize = 128;
/// How long one address may take for each protocol.
const PATIENCE: Duration = Duration::from_secs(4);
/// Port of RMCP.
const RMCP: u16 = 623;
/// RMCP header (version 6, no sequence number, class ASF), IANA number of ASF, presence ping, tag 1.
const PING: [u8; 12] = [0x06, 0x00, 0xff, 0x06, 0x00, 0x00, 0x11, 0xbe, 0x80, 0x01, 0x00, 0x00];

/// A network of at most 1,024 IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanRange {
    first: u32,
    count: u32,
}

impl ScanRange {
    /// Reads `10.0.0.0/24`, or one address.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let wrong = || {
            format!("`{}` is no IPv4 network such as 10.0.0.0/24", text.chars().take(60).collect::<String>())
        };
        let address: Ipv4Addr = address.trim().parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.trim().parse().ok().filter(|p| *p <= 32).ok_or_else(wrong)?;
        if prefix < PREFIX_MIN {
            return Err(format!("/{prefix} is too large: at most /{PREFIX_MIN} (1,024 addresses) at a time"));
        }
        if address.is_multicast() || address.is_broadcast() || address.is_unspecified() {
            return Err(format!("{address} is no address of a machine"));
        }
        let size = 1_u32 << (32 - prefix);
        let network = u32::from(address) & !(size - 1);
        // The network's own address and its broadcast address are nobody's.
        let (first, count) = if size > 2 { (network + 1, size - 2) } else { (network, size) };
        Ok(Self { first, count })
    }

    fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.first..self.first + self.count).map(Ipv4Addr::from)
    }
}

/// What answers in a network, by address.
pub async fn scan(range: ScanRange) -> Vec<ScanFound> {
    let found = stream::iter(range.addresses()).map(look).buffered(AT_ONCE);
    found.filter_map(std::future::ready).collect().await
}

async fn look(address: Ipv4Addr) -> Option<ScanFound> {
    let text = address.to_string();
    let redfish = tokio::time::timeout(PATIENCE, probe(&text, Transport::Tls));
    let (redfish, ipmi) = tokio::join!(redfish, ping(SocketAddr::new(IpAddr::V4(address), RMCP)));
    let redfish = redfish.ok().and_then(Result::ok).map(|probe| FoundRedfish {
        certificate: probe.certificate.map(|pin| pin.to_string()),
        vendor: probe.vendor,
        product: probe.product,
        version: probe.redfish_version,
    });
    (redfish.is_some() || ipmi).then_some(ScanFound { address, redfish, ipmi, node: None })
}

/// True where something answers a presence ping and supports IPMI.
async fn ping(to: SocketAddr) -> bool {
    let asked = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(to).await?;
        let mut answer = [0; 64];
        // A datagram may be lost.
        for _ in 0..2 {
            socket.send(&PING).await?;
            if let Ok(length) = tokio::time::timeout(PATIENCE / 2, socket.recv(&mut answer)).await {
                return Ok::<_, std::io::Error>(is_pong(&answer[..length?]));
            }
        }
        Ok(false)
    };
    asked.await.unwrap_or(false)
}

/// A presence pong whose supported entities name IPMI (ASF 2.0, section 3.2.4.3).
fn is_pong(datagram: &[u8]) -> bool {
    datagram.len() >= 21
        && datagram[0] == 0x06
        && datagram[3] & 0x1f == 0x06
        && datagram[8] == 0x40
        && datagram[20] & 0x80 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_bounded() {
        let of = |text| ScanRange::parse(text).map(|range| range.addresses().count());
        assert_eq!(of("10.0.0.7/24"), Ok(254));
        assert_eq!(of("10.0.0.0/22"), Ok(1022));
        assert_eq!((of("10.0.0.7"), of("10.0.0.7/31")), (Ok(1), Ok(2)));
        for wrong in
            ["", "10.0.0.0/21", "10.0.0.0/33", "10.0.0/24", "224.0.0.0/24", "fe80::/64", "0.0.0.0/24"]
        {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            ScanRange::parse("255.255.255.0/24").unwrap().addresses().last(),
            Some([255, 255, 255, 254].into())
        );
    }

    #[tokio::test]
    async fn a_pong_is_told_from_noise() {
        let mut pong = [0_u8; 28];
        pong[..12].copy_from_slice(&[6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x40, 1, 0, 16]);
        assert!(!is_pong(&pong), "no IPMI in it");
        pong[20] = 0x81;
        assert!(is_pong(&pong));
        assert!(!is_pong(&pong[..20]) && !is_pong(&PING));
        let answers = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = answers.local_addr().unwrap();
        tokio::spawn(async move {
            let mut asked = [0; 64];
            let (length, from) = answers.recv_from(&mut asked).await.unwrap();
            assert_eq!(asked[..length], PING);
            answers.send_to(&pong, from).await.unwrap();
        });
        assert!(ping(to).await);
    }
}
