//! `billet status`.

use boot_server_core::deploy::bytes;

use super::output::{Show, facts};
use super::text::moment;
use crate::view::{DhcpServerView, StatusView};

impl Show for StatusView {
    fn table(&self) -> String {
        let nodes =
            self.nodes.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ");
        let ramdisk = match (self.ramdisk.present, &self.ramdisk.kernel) {
            (false, _) => "missing: machines cannot boot the agent".to_owned(),
            (true, kernel) => {
                format!("{} {}", kernel.as_deref().unwrap_or("present"), bytes(self.ramdisk.bytes))
            }
        };
        let dhcp = if self.dhcp.enabled { format!("{} leases", self.dhcp.leases) } else { "off".to_owned() };
        let others = self.dhcp_servers.iter().map(DhcpServerView::sentence).collect::<Vec<_>>().join("; ");
        facts(&[
            ("version", Some(self.version.clone())),
            ("running since", Some(moment(self.started))),
            ("interface", self.interface.clone()),
            ("address", self.address.map(|a| a.to_string())),
            ("IPv6 address", self.address6.map(|a| a.to_string())),
            ("dhcp", Some(dhcp)),
            ("other dhcp servers", (!others.is_empty()).then_some(others)),
            ("ramdisk", Some(ramdisk)),
            ("nodes", Some(if nodes.is_empty() { "none".to_owned() } else { nodes })),
        ])
    }

    fn names(&self) -> Vec<String> {
        self.interface.iter().cloned().collect()
    }
}
