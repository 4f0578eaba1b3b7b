//! What the texts of a DPU's kernel and programs say of it.
//!
//! On a BlueField the representor of the host's physical function N is `pfNhpf`, that of its virtual function M `pfNvfM`
//! (NVIDIA DOCA, "vSwitch and Representors Model"). The address that the host's function has stands in
//! `/sys/class/net/pN/smart_nic/pf/config` and `…/vfM/config` ("Controlling Host PF and VF Parameters").

use protocol::MacAddr;
use protocol::functions::Representor;

/// Longest text of a fact, in characters.
pub const TEXT_MAX: usize = 128;

/// What makers leave where a serial number or a model belongs (as dmidecode's users know it).
const BLANKS: [&str; 7] =
    ["", "0", "none", "default string", "not specified", "to be filled by o.e.m.", "system serial number"];

/// A serial number or a model; `None` where the maker left none. Texts of the device tree end with a NUL.
pub fn label(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect();
    let text = text.trim();
    (!BLANKS.contains(&text.to_lowercase().as_str())).then(|| text.to_owned())
}

/// The version in what a program says to `--version`: the first word that begins with a digit and has a dot.
pub fn version(said: &str) -> Option<String> {
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let word = said.split_whitespace().find(is_version)?;
    Some(word.chars().take(TEXT_MAX).collect())
}

/// Below `/sys/class/net`: the file that says which address the host's function of this representor has.
pub fn function_file(representor: &str) -> Option<String> {
    Some(match Representor::named(representor)? {
        Representor::Physical { pf } => format!("p{pf}/smart_nic/pf/config"),
        Representor::Virtual { pf, vf } => format!("p{pf}/smart_nic/vf{vf}/config"),
    })
}

/// The address in such a file, in the line `MAC        : e4:8b:01:a5:79:5e`.
pub fn function_mac(config: &str) -> Option<MacAddr> {
    let value = config.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "MAC").then_some(value)
    })?;
    value.trim().parse().ok().filter(MacAddr::is_station)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        assert_eq!(label("MT2242X12345\0"), Some("MT2242X12345".to_owned()));
        assert_eq!(label(" BlueField-3 P-Series\n"), Some("BlueField-3 P-Series".to_owned()));
        for blank in ["", "\n", "None\n", "To be filled by O.E.M.", "Not Specified"] {
            assert_eq!(label(blank), None, "{blank}");
        }
        assert_eq!(label(&"x".repeat(500)).map(|text| text.len()), Some(TEXT_MAX));
    }

    /// As Debian 12's programs say it.
    #[test]
    fn versions() {
        for (said, version_said) in [
            ("ovs-vswitchd (Open vSwitch) 3.1.0\n", "3.1.0"),
            ("ovn-controller 23.03.1\nOpen vSwitch Library 3.1.0\nOpenFlow versions 0x6:0x6\n", "23.03.1"),
            ("qemu-storage-daemon version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n", "7.2.22"),
            ("billet-blk 0.1.0\n", "0.1.0"),
        ] {
            assert_eq!(version(said).as_deref(), Some(version_said));
        }
        assert_eq!(version("no such option"), None);
    }

    #[test]
    fn functions_of_a_bluefield() {
        assert_eq!(function_file("pf0hpf").as_deref(), Some("p0/smart_nic/pf/config"));
        assert_eq!(function_file("pf1vf12").as_deref(), Some("p1/smart_nic/vf12/config"));
        for other in ["p0", "pf", "pfhpf", "pf0", "pf0vf", "pf0vfx", "en3f0pf0sf0", "br-int"] {
            assert_eq!(function_file(other), None, "{other}");
        }
        let config = "MAC        : e4:8b:01:a5:79:5e\nMaxTxRate  : 0\nState      : Follow\n";
        assert_eq!(function_mac(config).map(|mac| mac.to_string()).as_deref(), Some("e4:8b:01:a5:79:5e"));
        assert_eq!(function_mac("MAC: 00:00:00:00:00:00\n"), None);
        assert_eq!(function_mac("State : Follow\n"), None);
    }
}
