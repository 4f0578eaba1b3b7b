//! Boot images in the virtual drives of machines that are booted without DHCP: their addresses, and taking them out again.
//!
//! The address of an image is a secret, and the nonce in the image follows from it: so nothing of either is stored but the
//! nonce's hash, and the image is made anew from its address each time that it is read.

use std::sync::Arc;
use std::time::Duration;

use bmc::DriverKind;
use boot_server_core::node::{BootKind, Event, Node, Severity, required_boot};
use protocol::inventory::{FirmwareMode, Inventory};
use protocol::{JobId, NodeId, Sha256};
use tokio_util::sync::CancellationToken;

use super::{Actor, Engine, EngineError, lock, now};
use crate::boot_image;
use crate::http::BootFiles;
use crate::power::{Change, PowerError, Read, Reply};
use crate::secret;

/// Where images lie below the base URL; then follow ticket and [`IMAGE_NAME`].
pub const IMAGE_PATH: &str = "/boot/image";
/// Their name, by which they are known in a drive whose controller tells no more. Some want a name that ends so.
pub const IMAGE_NAME: &str = "billet.iso";
/// What makes the nonce of the ticket.
const NONCE: &[u8] = b"nonce of a billet boot image";
/// How often a controller that does not answer is asked to take the image out, and the pause between.
const EJECT_TRIES: u32 = 10;
const EJECT_PAUSE: Duration = Duration::from_secs(30);
/// How long a drive may take to show what was put into it, and the pause between two looks.
const SHOW_TRIES: u32 = 10;
const SHOW_PAUSE: Duration = Duration::from_secs(2);

/// Why a machine cannot be booted from virtual media, and what to do.
pub(super) struct NoMedia {
    pub what: String,
    pub hint: String,
}

/// True where a drive that shows this has an image of ours in it. Some controllers keep the name alone, some not even that.
fn is_ours(image: &str) -> bool {
    image.ends_with(IMAGE_NAME)
}

/// What a drive shows, for people: without the ticket, which is the machine's alone.
pub fn without_ticket(image: &str) -> String {
    match image.split_once(IMAGE_PATH) {
        Some((base, _)) if is_ours(image) => format!("{base}{IMAGE_PATH}/…/{IMAGE_NAME}"),
        _ => image.to_owned(),
    }
}

fn nonce_of(ticket: &str) -> String {
    Sha256(secret::hmac(ticket.as_bytes(), NONCE)).to_string()
}

impl Engine {
    /// True where the job that waits for this machine boots it from virtual media.
    pub(super) fn by_media(&self, node: &Node) -> bool {
        let option = lock(&self.0.bmcs).get(&node.id).and_then(|row| row.options.netboot);
        node.boots_by_media(option) && required_boot(node, now()).kind() == BootKind::Agent
    }

    /// What keeps this machine from being booted so, as far as it can be told beforehand.
    pub(super) fn no_media(&self, node: &Node, inventory: Option<&Inventory>) -> Option<NoMedia> {
        let refuse = |what: String, hint: &str| Some(NoMedia { what, hint: hint.to_owned() });
        let driver = lock(&self.0.bmcs).get(&node.id).map(|row| row.driver);
        let with_redfish = "give it a BMC by Redfish (`billet bmc set`), or let it boot from the network (`billet node network --clear`)";
        match driver {
            Some(DriverKind::Redfish | DriverKind::Fake) => {}
            Some(driver) => {
                return refuse(
                    format!("{} is to boot from virtual media, and its BMC by {driver} has none", node.name),
                    with_redfish,
                );
            }
            None => {
                return refuse(
                    format!("{} is to boot from virtual media, and no BMC of it is known", node.name),
                    with_redfish,
                );
            }
        }
        if let Some(missing) = boot_image::missing(&BootFiles::new(self.settings())) {
            return refuse(missing, "install it on the server, then retry");
        }
        if inventory.is_some_and(|i| i.firmware.mode == FirmwareMode::Bios) {
            return refuse(
                format!("{} boots by BIOS, and boot images are for UEFI", node.name),
                "switch the machine to UEFI, or let it boot from the network",
            );
        }
        if inventory.and_then(|i| i.cpus.first()).is_some_and(|cpu| cpu.architecture == "aarch64") {
            return refuse(
                format!("{} is an arm64 machine, and boot images are for x64", node.name),
                "let it boot from the network",
            );
        }
        None
    }

    /// Makes an image for a job and puts it into the drive; success means that the drive shows it.
    pub(super) async fn insert(&self, id: NodeId, job: JobId) -> Result<Inserted, EngineError> {
        let ticket = secret::hex()?;
        let event = Event::MediumMade { job, nonce: secret::hash(&nonce_of(&ticket)) };
        self.apply(id, Actor::Server, event).await?;
        let base = self.settings().images_url();
        let url = format!("{base}{IMAGE_PATH}/{ticket}/{IMAGE_NAME}");
        Ok(Inserted(self.insert_url(id, url).await))
    }

    async fn insert_url(&self, id: NodeId, url: String) -> Result<(), PowerError> {
        self.0.power.change(id, Change::InsertMedia(url)).await?;
        let mut found = None;
        for _ in 0..SHOW_TRIES {
            match self.0.power.read(id, Read::Media).await? {
                // A controller may tell no name; then what is in the drive is what was just put there.
                Reply::Media(media)
                    if media.image.as_deref().is_some_and(|i| is_ours(i) || !i.contains('/')) =>
                {
                    return Ok(());
                }
                Reply::Media(media) => found = media.image,
                _ => return Err(PowerError::Gone),
            }
            tokio::time::sleep(SHOW_PAUSE).await;
        }
        let found = found.map_or_else(|| "an empty drive".to_owned(), |_| "another image".to_owned());
        Err(PowerError::NotTaken { wanted: "the boot image".to_owned(), found })
    }

    /// Whose image has this ticket and what nonce is in it, while that is good.
    pub fn boot_image(&self, ticket: &str) -> Option<(Arc<Node>, String)> {
        let nonce = nonce_of(ticket);
        let hash = secret::hash(&nonce);
        let node = self.0.nodes.with_secret(hash)?;
        node.awaits_medium(hash, now()).then_some((node, nonce))
    }

    /// Takes our image out of a drive, where it is still in it. Returns once that is over; `false` where the server stops before.
    ///
    /// # Errors
    /// Where the store fails.
    pub(super) async fn eject(&self, id: NodeId, stop: &CancellationToken) -> Result<bool, EngineError> {
        for tries in 1.. {
            let Some(node) = self.0.nodes.get(id) else { return Ok(true) };
            if node.medium.is_some() {
                // Another job inserts its own, in place of what is there.
                return Ok(true);
            }
            match self.eject_ours(id).await {
                Ok(false) => return Ok(true),
                Ok(true) => {
                    let message = "the boot image was taken out of the virtual drive (read back)";
                    self.note(Actor::Server, Some(id), "media.ejected", Severity::Info, message).await?;
                    return Ok(true);
                }
                Err(error) if error.is_transient() && tries < EJECT_TRIES => {
                    tracing::debug!(node = %id, %error, "the boot image is taken out later");
                }
                Err(error) => {
                    let message = format!(
                        "the boot image is still in the virtual drive: {error}; take it out with `billet node media {} eject`",
                        node.name
                    );
                    self.note(Actor::Server, Some(id), "media.not_ejected", Severity::Warning, message)
                        .await?;
                    return Ok(true);
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                () = tokio::time::sleep(EJECT_PAUSE) => {}
            }
        }
        Ok(true)
    }

    /// True where there was something to take out, and there is nothing any more.
    async fn eject_ours(&self, id: NodeId) -> Result<bool, PowerError> {
        let look = async || match self.0.power.read(id, Read::Media).await? {
            Reply::Media(media) => Ok(media.image),
            _ => Err(PowerError::Gone),
        };
        if look().await?.is_none_or(|image| !is_ours(&image) && image.contains('/')) {
            return Ok(false);
        }
        self.0.power.change(id, Change::EjectMedia).await?;
        for _ in 0..SHOW_TRIES {
            if look().await?.is_none() {
                return Ok(true);
            }
            tokio::time::sleep(SHOW_PAUSE).await;
        }
        Err(PowerError::NotTaken { wanted: "an empty drive".to_owned(), found: "the image".to_owned() })
    }
}

/// What the controller said to an image.
pub(super) struct Inserted(pub Result<(), PowerError>);
