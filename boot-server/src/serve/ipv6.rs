//! What is served over IPv6: router advertisements and DHCPv6.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use boot_server_core::dhcp::Stage;
use boot_server_core::dhcp6;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::sink::Seen;
use crate::config::{Ipv6Settings, Pool6, Settings};
use crate::engine::Engine;
use crate::loaders::Loaders;
use crate::net::dhcp::Stored;
use crate::net::dhcp6::{Dhcp6Server, Dhcp6Sink};
use crate::net::ra;
use crate::store::{Store, leases6, queries};

/// Where the server's DHCP unique identifier is kept: clients remember it, so it must never change.
const DUID_SETTING: &str = "dhcp6.duid";
/// Identifiers made of a UUID (RFC 8415 section 11.5).
const DUID_UUID: [u8; 2] = [0, 4];

/// Keeps leases and hears about machines. Sightings share the queue of strangers: losing one costs a mark in a waterfall.
struct Sink {
    engine: Engine,
    seen: mpsc::Sender<Seen>,
}

impl Dhcp6Sink for Sink {
    fn persist(&self, leases: Vec<dhcp6::Lease>) -> Stored<'_> {
        Box::pin(async move {
            self.engine.store().write(move |db| leases6::put(db, &leases)).await?;
            Ok(())
        })
    }

    fn observed(&self, _interface: &str, observed: dhcp6::Observed) {
        let Some(mac) = observed.mac else { return };
        if observed.stage != Stage::Os
            && observed.message == dhcp6::MessageType::Solicit
            && self.seen.try_send(Seen::Boot(mac)).is_err()
        {
            tracing::debug!(%mac, "sighting dropped");
        }
        // An address that is only offered is nobody's yet, and does no harm here.
        if let Some(ip) = observed.ip {
            self.engine.address_given(mac, ip.into());
        }
    }
}

/// Binds what the settings ask for.
///
/// # Errors
/// Where a socket cannot be had.
pub(super) async fn bind(
    engine: &Engine,
    seen: mpsc::Sender<Seen>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let settings = engine.settings();
    bind_advertiser(settings, tasks, stop)?;
    let Some(ipv6) = &settings.ipv6 else { return Ok(()) };
    let Some(pool) = &ipv6.dhcp else { return Ok(()) };
    let duid = duid(engine.store()).await?;
    let leases = engine.store().read(leases6::all).await?;
    tracing::info!(start = %pool.start, end = %pool.end, known = leases.len(), "DHCPv6 gives out addresses");
    let server = Dhcp6Server::bind(&settings.interface, config(settings, ipv6, pool, duid), leases).context(
        "cannot serve DHCPv6 (run as root; stop another DHCPv6 server, or set dhcp6.enabled = false)",
    )?;
    tasks.spawn(server.run(Arc::new(Sink { engine: engine.clone(), seen }), stop.clone()));
    Ok(())
}

/// Where another router advertises, we say nothing. Where IPv6 is not served, we say that there is nothing.
fn bind_advertiser(
    settings: &Settings,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let announcement = match &settings.ipv6 {
        Some(ipv6) => {
            let Some(advertise) = ipv6.advertise else { return Ok(()) };
            Some(ra::Announcement {
                address: ipv6.network.address,
                prefix: ipv6.network.prefix,
                managed: ipv6.dhcp.is_some(),
                autonomous: advertise.autonomous,
                router: advertise.router,
            })
        }
        // iPXE asks for IPv6 beside DHCPv4 and waits for both.
        None if settings.dhcp.is_some() => None,
        None => return Ok(()),
    };
    match ra::RouterAdvertiser::bind(&settings.interface, announcement) {
        Ok(advertiser) => {
            tasks.spawn(advertiser.run(stop.clone()));
            Ok(())
        }
        Err(error) if announcement.is_none() => {
            tracing::warn!(%error, "no IPv6 on the interface: iPXE will wait some 16 s for it at each boot");
            Ok(())
        }
        Err(error) => Err(error).context("cannot advertise (run as root, or set ipv6.advertise = false)"),
    }
}

/// The server's identifier; made once.
async fn duid(store: &Store) -> anyhow::Result<Vec<u8>> {
    let made = Uuid::new_v4();
    let text = store
        .write(move |db| {
            if let Some(known) = queries::setting(db, DUID_SETTING)? {
                return Ok(known);
            }
            queries::set_setting(db, DUID_SETTING, &made.to_string())?;
            Ok(made.to_string())
        })
        .await?;
    let uuid: Uuid = text.parse().context("the DHCPv6 identifier in the database is damaged")?;
    Ok([&DUID_UUID[..], uuid.as_bytes()].concat())
}

fn config(settings: &Settings, ipv6: &Ipv6Settings, pool: &Pool6, duid: Vec<u8>) -> dhcp6::Config {
    let own = ipv6.network;
    dhcp6::Config {
        address: own.address,
        duid,
        // There must be no other server, so nobody need wait for one.
        preference: u8::MAX,
        http_base: format!("http://{}", SocketAddr::from((own.address, settings.port))),
        boot: Loaders::new(settings).boot_files(settings.secure_boot),
        subnets: vec![dhcp6::Subnet {
            net: dhcp6::Ipv6Net::new(own.address, own.prefix),
            range: dhcp6::Range { first: pool.start, last: pool.end },
            dns: pool.dns.clone(),
            lease_time: pool.lease,
        }],
    }
}
