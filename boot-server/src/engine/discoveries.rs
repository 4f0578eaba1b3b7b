//! Machines that are being made nodes at this moment. Strangers are stored side by side, so that the store commits a
//! whole rack at once; two requests of *one* machine are not, so that it does not become two nodes.

use std::collections::BTreeSet;
use std::sync::Mutex;

use boot_server_core::node::Claim;
use protocol::MacAddr;
use tokio::sync::Notify;
use uuid::Uuid;

use super::lock;

/// What is spoken for.
#[derive(Debug, Default)]
pub(super) struct Discoveries {
    reserved: Mutex<Reserved>,
    released: Notify,
}

#[derive(Debug, Default)]
struct Reserved {
    names: BTreeSet<String>,
    macs: BTreeSet<MacAddr>,
    uuids: BTreeSet<Uuid>,
}

/// One discovery; when dropped, whoever waits for it looks again.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    all: &'a Discoveries,
    /// Name of the node to be.
    pub name: String,
    claim: Claim,
}

/// What became of an attempt.
pub(super) enum Attempt<'a, T> {
    /// There was no need.
    Known(T),
    /// It may be made.
    Reserved(Reservation<'a>),
}

impl Discoveries {
    /// Waits until nobody else makes a node of this machine. Then `known` is asked whether there is one meanwhile, else
    /// a name is found by `name`, which is told how many nodes are being made and which names are spoken for.
    ///
    /// # Errors
    /// What `name` says.
    pub async fn reserve<T, E>(
        &self,
        claim: &Claim,
        known: impl Fn() -> Option<T>,
        name: impl Fn(usize, &BTreeSet<String>) -> Result<String, E>,
    ) -> Result<Attempt<'_, T>, E> {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            // From here on no release is missed.
            released.as_mut().enable();
            {
                let mut reserved = lock(&self.reserved);
                if let Some(known) = known() {
                    return Ok(Attempt::Known(known));
                }
                if !reserved.has_some(claim) {
                    let name = name(reserved.names.len(), &reserved.names)?;
                    reserved.add(&name, claim);
                    let claim = claim.clone();
                    return Ok(Attempt::Reserved(Reservation { all: self, name, claim }));
                }
            }
            released.await;
        }
    }
}

impl Reserved {
    fn has_some(&self, claim: &Claim) -> bool {
        claim.macs.iter().any(|mac| self.macs.contains(mac))
            || claim.uuid.is_some_and(|uuid| self.uuids.contains(&uuid))
    }

    fn add(&mut self, name: &str, claim: &Claim) {
        self.names.insert(name.to_owned());
        self.macs.extend(&claim.macs);
        self.uuids.extend(claim.uuid);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut reserved = lock(&self.all.reserved);
        reserved.names.remove(&self.name);
        for mac in &self.claim.macs {
            reserved.macs.remove(mac);
        }
        if let Some(uuid) = self.claim.uuid {
            reserved.uuids.remove(&uuid);
        }
        drop(reserved);
        self.all.released.notify_waiters();
    }
}
