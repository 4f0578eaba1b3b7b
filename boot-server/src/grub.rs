//! What GRUB asks for, by TFTP and by HTTP: its start script, the configuration of this machine, and by TFTP also kernel
//! and ramdisk, because GRUB before 2.12 knows no HTTP.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use boot_server_core::grub::{START_PATH, asked, render};
use boot_server_core::ipxe::{Script, ScriptError, Url};
use boot_server_core::node::Claim;
use tftp_server::{File, OpenError};

use crate::http::BootFiles;
use crate::http::files::Processor;
use crate::net::tftp::{MakeFile, Making};
use crate::scripts::{Asking, Scripts};

/// Below this, kernel and ramdisk are served by TFTP under the names that they have by HTTP.
const FILES_PATH: &str = "boot/files/";

/// Names of the site's own images begin like this.
const UKI: &str = "uki-";

/// Makes GRUB's configurations.
#[derive(Clone)]
pub struct Grub {
    scripts: Scripts,
    files: Arc<BootFiles>,
}

impl Grub {
    /// With these scripts and files.
    pub fn new(scripts: Scripts, files: Arc<BootFiles>) -> Self {
        Self { scripts, files }
    }

    /// The configuration of this name for the machine at `address`, which reaches us by `base`; `None` where it is the
    /// name of none.
    ///
    /// # Errors
    /// Where something cannot stand in a script.
    pub async fn config(
        &self,
        path: &str,
        address: IpAddr,
        base: String,
    ) -> Option<Result<String, ScriptError>> {
        let own = match Url::new(base.clone()) {
            Ok(own) => own,
            Err(error) => return Some(Err(error)),
        };
        if path == START_PATH {
            return Some(Ok(render(&Script::Start { base: own.clone() }, &own)));
        }
        let (mac, uuid) = asked(path)?;
        tracing::debug!(%address, mac, uuid, "GRUB asks for its configuration");
        let claim = Claim { uuid: uuid.parse().ok(), serial: None, macs: mac.parse().into_iter().collect() };
        // Only x64 machines are sent to GRUB.
        let asking = Asking { claim, processor: Processor::X64, address, base };
        Some(self.scripts.of(asking).await.map(|script| render(&script, &own)))
    }

    /// The files of TFTP that are not the same for all and for ever: GRUB's configurations; kernel, ramdisk and the
    /// site's own image, which are opened anew each time, so that a new one needs no restart. `base` is the URL of the
    /// provisioning listener.
    pub fn by_tftp(self, base: String) -> MakeFile {
        Box::new(move |peer: SocketAddr, name: &str| -> Option<Making> {
            if name == START_PATH || asked(name).is_some() {
                let (this, base, name) = (self.clone(), base.clone(), name.to_owned());
                return Some(Box::pin(async move {
                    match this.config(&name, peer.ip(), base).await {
                        Some(Ok(text)) => Ok(File::Memory(text.into_bytes().into())),
                        Some(Err(error)) => {
                            tracing::error!(%error, "boot script cannot be made");
                            Err(OpenError::Io(std::io::Error::other(error)))
                        }
                        None => Err(OpenError::NotFound),
                    }
                }));
            }
            let changing = name.starts_with(FILES_PATH) || name.starts_with(UKI);
            let path = self.files.path(boot_file(name)).filter(|_| changing)?;
            Some(Box::pin(std::future::ready(open(&path))))
        })
    }
}

/// The boot file that is meant by a name of TFTP.
pub fn boot_file(name: &str) -> &str {
    name.strip_prefix(FILES_PATH).unwrap_or(name)
}

fn open(path: &PathBuf) -> Result<File, OpenError> {
    std::fs::File::open(path).and_then(File::from_file).map_err(OpenError::Io)
}
