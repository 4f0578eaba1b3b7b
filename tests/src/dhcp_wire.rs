//! A wire between a DHCP server and its clients: two network namespaces and a veth pair, with room for 100,000 leases.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::dhcp_load::{self, Load, Outcome};
use crate::rack::{Namespace, OPERATORS_PORT, Server};

/// The server's address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
/// The address at the clients' end; the load's relay.
pub const RELAY: Ipv4Addr = Ipv4Addr::new(10, 67, 255, 1);
/// Length of the network's prefix.
pub const PREFIX: u8 = 14;
/// The network's mask.
pub const MASK: &str = "255.252.0.0";
/// First and last of 196,608 addresses to lend.
pub const POOL: (&str, &str) = ("10.64.1.0", "10.67.0.255");
/// The server's end.
pub const LINK: &str = "v0";
/// The clients' end.
pub const CLIENTS: &str = "v1";

/// The wire, and a directory for the server's state that is emptied at its start.
#[derive(Debug)]
pub struct Wire {
    /// Where the server runs.
    pub server: Namespace,
    /// Where clients run.
    pub clients: Namespace,
    /// For files of both.
    pub dir: PathBuf,
}

impl Wire {
    /// A new one.
    ///
    /// # Errors
    /// Where namespaces cannot be made (root is needed).
    pub fn new(dir: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir)?;
        let (server, clients) = (Namespace::new()?, Namespace::new()?);
        server.ip(&[
            "link",
            "add",
            LINK,
            "type",
            "veth",
            "peer",
            "name",
            CLIENTS,
            "netns",
            clients.name(),
        ])?;
        server.ip(&["addr", "add", &format!("{SERVER}/{PREFIX}"), "dev", LINK])?;
        server.ip(&["link", "set", LINK, "up"])?;
        clients.ip(&["addr", "add", &format!("{RELAY}/{PREFIX}"), "dev", CLIENTS])?;
        clients.ip(&["link", "set", CLIENTS, "up"])?;
        Ok(Self { server, clients, dir: dir.to_owned() })
    }

    /// Starts our server.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start(&self) -> Result<Server> {
        let (state, (first, last)) = (self.dir.join("state"), POOL);
        let config = format!(
            "state_dir = {state:?}\n\n[provisioning]\ninterface = \"{LINK}\"\n\n[dhcp]\nrange_start = \"{first}\"\n\
             range_end = \"{last}\"\n\n[operators]\nlisten = \"127.0.0.1:{OPERATORS_PORT}\"\n"
        );
        Server::start_with(&self.server, &self.dir, &config)
    }

    /// Runs code on a thread at the clients' end.
    ///
    /// # Errors
    /// What the code says.
    pub fn at_clients<T: Send>(&self, code: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let handle = self.clients.clone_handle()?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                handle.enter()?;
                code()
            });
            inside.join().map_err(|_| anyhow!("the code at the clients' end broke"))?
        })
    }

    /// Runs a load.
    ///
    /// # Errors
    /// As [`dhcp_load::run`].
    pub fn load(&self, load: &Load) -> Result<Outcome> {
        self.at_clients(|| dhcp_load::run(load))
    }
}
