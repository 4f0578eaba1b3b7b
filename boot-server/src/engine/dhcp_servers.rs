//! What DHCP is told of the nodes, and who else serves DHCP on the wire: an event when one comes, changes or goes.

use std::fmt::Write as _;

use boot_server_core::dhcp::Known;
use boot_server_core::dhcp::foreign::{ForeignServer, ForeignServers, GONE_AFTER, GONE_AFTER_EXPECTED, Seen};
use boot_server_core::node::Severity;

use super::{Actor, Engine, EngineError, lock, now};
use crate::view::DhcpServerView;

#[derive(Debug, Default)]
pub(super) struct DhcpServers {
    seen: ForeignServers,
    expected: bool,
}

impl Engine {
    /// The machines that are nodes. Takes milliseconds where there are thousands.
    pub fn known_machines(&self) -> Known {
        let mut known = Known::default();
        for node in self.0.nodes.all() {
            known.macs.extend(&node.identity.macs);
            known.uuids.extend(node.identity.uuid);
        }
        known
    }

    /// Tells whether another DHCP server is what the site has, and no fault: this one works beside it.
    pub fn expect_dhcp_servers(&self, expected: bool) {
        lock(&self.0.dhcp_servers).expected = expected;
    }

    /// Another DHCP server showed itself. Makes an event where it is new or changed.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn dhcp_server_seen(&self, seen: Seen) -> Result<(), EngineError> {
        let (news, expected) = {
            let mut servers = lock(&self.0.dhcp_servers);
            (servers.seen.handle_seen(now(), seen), servers.expected)
        };
        let Some(server) = news else { return Ok(()) };
        let view = DhcpServerView::new(server, expected);
        let (severity, hint) = if expected {
            (Severity::Info, "")
        } else {
            (
                Severity::Warning,
                "; machines may follow it instead of this server: stop it, or work beside it (dhcp.mode)",
            )
        };
        let message = format!("another DHCP server is on the wire: {}{hint}", view.sentence());
        match severity {
            Severity::Info => tracing::info!("{message}"),
            _ => tracing::warn!("{message}"),
        }
        self.note(Actor::Server, None, "dhcp.foreign-server", severity, message).await
    }

    /// Forgets the servers that were not seen for a while, with an event for each.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn forget_dhcp_servers(&self) -> Result<(), EngineError> {
        let (gone, expected) = {
            let mut servers = lock(&self.0.dhcp_servers);
            let after = if servers.expected { GONE_AFTER_EXPECTED } else { GONE_AFTER };
            (servers.seen.handle_timeout(now(), after), servers.expected)
        };
        for server in gone {
            let message =
                format!("a DHCP server is gone: {}", DhcpServerView::new(server, expected).sentence());
            tracing::info!("{message}");
            self.note(Actor::Server, None, "dhcp.foreign-server.gone", Severity::Info, message).await?;
        }
        Ok(())
    }

    /// The DHCP servers other than this one that are on the wire now.
    pub fn dhcp_servers(&self) -> Vec<DhcpServerView> {
        let servers = lock(&self.0.dhcp_servers);
        servers.seen.iter().map(|s| DhcpServerView::new(s.clone(), servers.expected)).collect()
    }
}

impl DhcpServerView {
    fn new(server: ForeignServer, expected: bool) -> Self {
        let ForeignServer { address, mac, interface, first_seen, last_seen, boots, lends } = server;
        Self { address, mac, interface, first_seen, last_seen, lends, boots, expected }
    }

    /// Who it is and what it does, for people.
    pub fn sentence(&self) -> String {
        let mut text = self.address.to_string();
        if let Some(mac) = self.mac {
            // Writing to a string does not fail.
            let _ = write!(text, " ({mac})");
        }
        let _ = write!(text, " on {}", self.interface);
        text.push_str(match (self.lends, self.boots) {
            (true, true) => ", lends addresses and tells machines what to boot",
            (true, false) => ", lends addresses",
            (false, true) => ", tells machines what to boot",
            (false, false) => "",
        });
        text
    }
}
