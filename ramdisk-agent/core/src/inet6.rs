//! The kernel's list of IPv6 addresses, `/proc/net/if_inet6`, which tells their flags.

use std::net::Ipv6Addr;

/// Duplicate address detection has not ended, or found a duplicate (linux/if_addr.h).
const TENTATIVE: u32 = 0x40;
const DUPLICATE: u32 = 0x08;

/// How far an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It can be used.
    Ready,
    /// Whether somebody else uses it is being found out.
    Tentative,
    /// Somebody else uses it.
    Duplicate,
}

/// Addresses of one port, in the kernel's order.
pub fn addresses(text: &str, port: &str) -> Vec<(Ipv6Addr, Readiness)> {
    let one = |line: &str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [address, _, _, _, flags, name] = words[..] else { return None };
        let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let readiness = match flags {
            f if f & DUPLICATE != 0 => Readiness::Duplicate,
            f if f & TENTATIVE != 0 => Readiness::Tentative,
            _ => Readiness::Ready,
        };
        (name == port).then_some((address, readiness))
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read() {
        let text = "fe80000000000000505400fffe770001 02 40 20 80     eth0\n\
                    fd770000000000000000000000010005 02 80 00 c0     eth0\n\
                    fd770000000000000000000000010006 02 80 00 c8     eth0\n\
                    00000000000000000000000000000001 01 80 10 80       lo\nnonsense\n";
        let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        assert_eq!(
            addresses(text, "eth0"),
            [
                (ip("fe80::5054:ff:fe77:1"), Readiness::Ready),
                (ip("fd77::1:5"), Readiness::Tentative),
                (ip("fd77::1:6"), Readiness::Duplicate),
            ]
        );
        assert_eq!(addresses(text, "eth1"), []);
    }
}
