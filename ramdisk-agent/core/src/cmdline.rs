//! The kernel command line, where the boot script tells the agent whom to call.

use std::net::Ipv4Addr;

use protocol::MacAddr;
use protocol::agent::{ARG_ADDRESS, ARG_BOOT_MAC, ARG_GATEWAY, ARG_NONCE, ARG_SERVER};

/// What the boot script said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootArgs {
    /// Base URL of the provisioning listener, without a slash at the end.
    pub server: Option<String>,
    /// One-time nonce.
    pub nonce: Option<String>,
    /// Address of the NIC that booted.
    pub mac: Option<MacAddr>,
    /// The machine's own settings: nothing is asked of DHCP.
    pub fixed: Option<Fixed>,
}

/// Settings of a machine that gets none by DHCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed {
    /// Its address.
    pub address: Ipv4Addr,
    /// Length of the network prefix.
    pub prefix: u8,
    /// Router, if any.
    pub gateway: Option<Ipv4Addr>,
}

/// Reads `/proc/cmdline`. Of a repeated argument the last counts, as for the kernel; a malformed MAC is left out.
pub fn parse(cmdline: &str) -> BootArgs {
    let mut args = BootArgs::default();
    let mut gateway = None;
    for word in cmdline.split_ascii_whitespace() {
        let Some((key, value)) = word.split_once('=').filter(|(_, v)| !v.is_empty()) else { continue };
        match key {
            ARG_SERVER => args.server = Some(value.trim_end_matches('/').to_owned()),
            ARG_NONCE => args.nonce = Some(value.to_owned()),
            ARG_BOOT_MAC => args.mac = value.parse().ok(),
            ARG_ADDRESS => args.fixed = fixed(value),
            ARG_GATEWAY => gateway = value.parse().ok(),
            _ => {}
        }
    }
    if let Some(fixed) = &mut args.fixed {
        fixed.gateway = gateway;
    }
    args
}

fn fixed(text: &str) -> Option<Fixed> {
    let (address, prefix) = text.split_once('/')?;
    let prefix = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?;
    Some(Fixed { address: address.parse().ok()?, prefix, gateway: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ours_and_skips_the_rest() {
        let args = parse(
            "initrd=x quiet billet.server=http://10.77.0.1:8080/ billet.nonce=ab billet.mac=52-54-00-12-34-56 x= y\n",
        );
        assert_eq!(args.server.as_deref(), Some("http://10.77.0.1:8080"));
        assert_eq!(args.nonce.as_deref(), Some("ab"));
        assert_eq!(args.mac, Some(MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56])));
        assert_eq!(parse("billet.mac=zz billet.server"), BootArgs::default());
    }

    #[test]
    fn reads_the_settings_of_a_machine_without_dhcp() {
        let of = |text: &str| parse(text).fixed;
        let address = "10.77.0.50".parse().unwrap();
        let gateway = "10.77.0.1".parse().ok();
        let found = of("billet.gateway=10.77.0.1 billet.address=10.77.0.50/24");
        assert_eq!(found, Some(Fixed { address, prefix: 24, gateway }));
        assert_eq!(of("billet.address=10.77.0.50/24"), Some(Fixed { address, prefix: 24, gateway: None }));
        for bad in ["10.77.0.50", "10.77.0.50/0", "10.77.0.50/33", "x/24", "/"] {
            assert_eq!(of(&format!("billet.address={bad}")), None, "{bad}");
        }
    }
}
