//! Floating addresses.

use std::net::IpAddr;
use std::sync::Arc;

use boot_server_core::amounts::Amounts;
use boot_server_core::network::{Family, Floating};
use protocol::{FloatingId, PortId, ProjectId};
use uuid::Uuid;

use super::routers::outside;
use super::{
    Actor, Engine, EngineError, Held, OverlayError, added, changed, line, metered, optional_name, removed,
    row, unmetered,
};
use crate::engine::now;
use crate::store::overlay::{Plug, Row};

/// Floating addresses of a project.
const FLOATING_MAX: usize = 10_000;

/// A floating address to take.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewFloating {
    /// Its name, if any.
    pub name: Option<String>,
    /// Of which provider network.
    pub network: String,
    /// This one; the next free one where left out.
    pub address: Option<IpAddr>,
    /// It leads to this port at once.
    pub port: Option<String>,
}

impl Engine {
    /// Takes a floating address.
    ///
    /// # Errors
    /// [`OverlayError`], [`EngineError::NameTaken`], the quota, or what the store says.
    pub async fn create_floating(
        &self,
        project: ProjectId,
        actor: Actor,
        wish: NewFloating,
    ) -> Result<Arc<Row<Floating>>, EngineError> {
        let (name, at) = (optional_name(wish.name.as_deref())?, now());
        let turn = self.overlay_turn().await?;
        let network = self.overlay_network(project, &wish.network)?;
        if self.0.overlay.known(|known| Floating::shelf(known).count(project)) >= FLOATING_MAX {
            return Err(OverlayError::Full { what: "floating addresses", limit: FLOATING_MAX }.into());
        }
        let (subnet, address) = outside(&turn, &network, wish.address, None)?;
        let to = match &wish.port {
            Some(port) => Some(self.inner_address(project, port, None, address)?),
            None => None,
        };
        let made = row(FloatingId(Uuid::now_v7()), project, name, Floating { project, subnet, address, to });
        let one = Amounts { addresses: 1, ..Amounts::default() };
        let steps = vec![added(made.clone()), metered(project, made.id.0, address.to_string(), one, at)];
        let event =
            line(project, &actor, "floating.created", format!("floating address {address} was taken"));
        self.overlay_commit(turn, steps, Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Makes a floating address lead to a port: to this address of it, or its only one of the family.
    ///
    /// # Errors
    /// [`OverlayError`], or what the store says.
    pub async fn associate_floating(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
        (port, inner): (&str, Option<IpAddr>),
    ) -> Result<Arc<Row<Floating>>, EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.floating(project, reference)?;
        let to = Some(self.inner_address(project, port, inner, before.value.address)?);
        let message = format!("floating address {} leads to port {port}", before.value.address);
        let value = Floating { to, ..before.value.clone() };
        if value == before.value {
            return Ok(before);
        }
        let (made, step) = changed(&before, before.name.clone(), value);
        let event = line(project, &actor, "floating.associated", message);
        self.overlay_commit(turn, vec![step], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Makes a floating address lead nowhere.
    ///
    /// # Errors
    /// [`OverlayError::NoSuch`], or what the store says.
    pub async fn disassociate_floating(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
    ) -> Result<Arc<Row<Floating>>, EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.floating(project, reference)?;
        if before.value.to.is_none() {
            return Ok(before);
        }
        let value = Floating { to: None, ..before.value.clone() };
        let (made, step) = changed(&before, before.name.clone(), value);
        let message = format!("floating address {} leads nowhere", made.value.address);
        let event = line(project, &actor, "floating.disassociated", message);
        self.overlay_commit(turn, vec![step], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Gives a floating address back.
    ///
    /// # Errors
    /// [`OverlayError::NoSuch`], or what the store says.
    pub async fn remove_floating(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
    ) -> Result<(), EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.floating(project, reference)?;
        let message = format!("floating address {} was given back", before.value.address);
        let event = line(project, &actor, "floating.removed", message);
        let steps = vec![removed::<Floating>(before.id), unmetered(before.id.0)];
        self.overlay_commit(turn, steps, Some(event)).await
    }

    /// A floating address of a project, by id, name, or itself.
    ///
    /// # Errors
    /// [`OverlayError::NoSuch`].
    pub fn floating(&self, project: ProjectId, reference: &str) -> Result<Arc<Row<Floating>>, EngineError> {
        if let Ok(address) = reference.parse::<IpAddr>() {
            let found =
                self.overlay_things::<Floating>(project, None, 1, |it| it.address == address).rows.pop();
            return Ok(found.ok_or_else(|| OverlayError::no_such::<Floating>(reference))?);
        }
        self.overlay_thing(project, reference)
    }

    fn inner_address(
        &self,
        project: ProjectId,
        port: &str,
        wanted: Option<IpAddr>,
        outer: IpAddr,
    ) -> Result<(PortId, IpAddr), EngineError> {
        let port = self.overlay_thing::<Plug>(project, port)?;
        if let Some(wanted) = wanted {
            return Ok((port.id, wanted));
        }
        let family = Family::of(outer);
        let of_family: Vec<IpAddr> =
            port.value.port.addresses.iter().copied().filter(|it| Family::of(*it) == family).collect();
        match of_family.as_slice() {
            [one] => Ok((port.id, *one)),
            [] => Err(OverlayError::bad(
                format!("the port has no address of the family of {outer}"),
                "give it one, or choose another port",
            )
            .into()),
            _ => Err(OverlayError::bad("the port has several addresses", "say which one").into()),
        }
    }
}
