//! Looking at what answers at an address, before anybody gives it a password.

use super::address::{Origin, Transport};
use super::client::Client;
use super::limits;
use super::tls::{Pin, Trust};
use super::tree::Root;
use super::wire::{Deadline, Wire};
use crate::{BmcError, Credentials, Secret};

/// What a controller shows to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// SHA-256 of its certificate, to be pinned; `None` with plain HTTP.
    pub certificate: Option<Pin>,
    /// `Vendor` of the service root.
    pub vendor: Option<String>,
    /// `Product` of the service root.
    pub product: Option<String>,
    /// `RedfishVersion`.
    pub redfish_version: Option<String>,
    /// `UUID` of the service.
    pub uuid: Option<String>,
    /// Which profile of vendor quirks would be used, as far as the service root tells.
    pub profile: String,
}

/// Reads the service root, without credentials.
///
/// # Errors
/// Where nothing answers, or what answers is no Redfish service.
pub async fn probe(address: &str, transport: Transport) -> Result<Probe, BmcError> {
    let wire = Wire::new(Origin::parse(address, transport)?, Trust::new(None))?;
    // The client sends these only with a login, and reading the service root is none.
    let nobody = Credentials { user: String::new(), password: Secret(String::new()) };
    let client = Client::new(wire, nobody);
    let root = Root::read(&client, Deadline::after(limits::CALL)).await?;
    let certificate = client.wire.trust().pinned();
    client.close().await;
    Ok(Probe {
        certificate,
        vendor: root.vendor,
        product: root.product,
        redfish_version: root.version,
        uuid: root.uuid,
        profile: root.profile.name.clone(),
    })
}
