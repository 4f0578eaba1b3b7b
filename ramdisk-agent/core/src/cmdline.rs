//! The kernel command line, where the boot script tells the agent whom to call.

use protocol::MacAddr;
use protocol::agent::{ARG_BOOT_MAC, ARG_NONCE, ARG_SERVER};

/// What the boot script said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootArgs {
    /// Base URL of the provisioning listener, without a slash at the end.
    pub server: Option<String>,
    /// One-time nonce.
    pub nonce: Option<String>,
    /// Address of the NIC that booted.
    pub mac: Option<MacAddr>,
}

/// Reads `/proc/cmdline`. Of a repeated argument the last counts, as for the kernel; a malformed MAC is left out.
pub fn parse(cmdline: &str) -> BootArgs {
    let mut args = BootArgs::default();
    for word in cmdline.split_ascii_whitespace() {
        let Some((key, value)) = word.split_once('=').filter(|(_, v)| !v.is_empty()) else { continue };
        match key {
            ARG_SERVER => args.server = Some(value.trim_end_matches('/').to_owned()),
            ARG_NONCE => args.nonce = Some(value.to_owned()),
            ARG_BOOT_MAC => args.mac = value.parse().ok(),
            _ => {}
        }
    }
    args
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
}
