//! What a machine that asks for its boot script gets: the engine's answer with the files and kernel arguments of this
//! server, as a script that every boot loader's renderer can write.

use std::net::IpAddr;
use std::sync::Arc;

use boot_server_core::ipxe::{BiosDisk, CommandLine, Initrd, Kernel, KernelArg, Script, ScriptError, Url};
use boot_server_core::node::Claim;
use boot_server_core::ordered::{self, For};
use protocol::MacAddr;
use protocol::agent::{ARG_BOOT_MAC, ARG_NONCE, ARG_SERVER};

use crate::config::Settings;
use crate::engine::{BootAnswer, Engine};
use crate::http::BootFiles;
use crate::http::files::{Part, Processor};

/// Makes boot scripts.
#[derive(Clone)]
pub struct Scripts {
    engine: Engine,
    files: Arc<BootFiles>,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Asking {
    /// What the machine says that it is; not believed beyond what the provisioning network is trusted for.
    pub claim: Claim,
    /// Its processor.
    pub processor: Processor,
    /// Address that it asks from.
    pub address: IpAddr,
    /// Base URL by which it reaches this server.
    pub base: String,
}

impl Scripts {
    /// Scripts of this engine, with these files.
    pub fn new(engine: Engine, files: Arc<BootFiles>) -> Self {
        Self { engine, files }
    }

    /// The script of the machine that asks, now. Makes it a node where it is unknown.
    ///
    /// # Errors
    /// Where something cannot stand in a script.
    pub async fn of(&self, asking: Asking) -> Result<Script, ScriptError> {
        let Asking { claim, processor, address, base } = asking;
        let mac = claim.macs.first().copied();
        let answer = match self.engine.boot(claim, address).await {
            Ok(answer) => answer,
            Err(error) => {
                // The machine asks again; what is wrong stands in the log.
                tracing::error!(error = &error as &dyn std::error::Error, "no boot script");
                BootAnswer::Refuse { why: error.to_string() }
            }
        };
        match answer {
            BootAnswer::Agent { name, nonce } => match self.files.missing(processor) {
                None => self.agent(&base, processor, &name, &nonce, mac),
                Some(missing) => {
                    tracing::error!(missing, node = name, "the agent cannot be booted");
                    Ok(Script::Refuse {
                        message: format!("kernel or ramdisk is missing on the server ({name})"),
                    })
                }
            },
            BootAnswer::LocalDisk { name } => Ok(Script::LocalDisk {
                message: format!("{name} boots its disk"),
                bios: BiosDisk::NextDevice,
            }),
            BootAnswer::Ordered { name, boot, ticket } => {
                let to = For { node: &name, base: &base, ticket: &ticket };
                // The agent and the disk have answers of their own.
                ordered::script(&boot, &to).map(|script| {
                    script.unwrap_or_else(|| Script::Refuse { message: format!("{name} has no such order") })
                })
            }
            BootAnswer::Refuse { why } => Ok(Script::Refuse { message: why }),
        }
    }

    fn agent(
        &self,
        base: &str,
        processor: Processor,
        name: &str,
        nonce: &str,
        mac: Option<MacAddr>,
    ) -> Result<Script, ScriptError> {
        let settings: &Settings = self.engine.settings();
        let url = |part: Part| Url::new(format!("{base}/boot/files/{}", part.name(processor)));
        let mut args = kernel_arguments(&settings.kernel_arguments)?;
        args.push(KernelArg::new(ARG_SERVER, base)?);
        args.push(KernelArg::new(ARG_NONCE, nonce)?);
        if let Some(mac) = mac {
            args.push(KernelArg::new(ARG_BOOT_MAC, &mac.to_string())?);
        }
        let initrd = |part| Ok(Initrd { url: url(part)?, name: None });
        let mut initrds = vec![initrd(Part::Initramfs)?];
        if self.files.path(Part::Firmware.name(processor)).is_some() {
            initrds.push(initrd(Part::Firmware)?);
        }
        Ok(Script::Agent {
            message: format!("{name} starts the agent"),
            boot: Kernel { kernel: url(Part::Kernel)?, initrds, args: CommandLine::new(args)? },
        })
    }
}

/// Checks the site's own kernel arguments.
///
/// # Errors
/// Where one of them cannot stand in a script.
pub fn check_kernel_arguments(text: &str) -> Result<(), ScriptError> {
    CommandLine::new(kernel_arguments(text)?).map(drop)
}

/// The site's own kernel arguments.
pub(crate) fn kernel_arguments(text: &str) -> Result<Vec<KernelArg>, ScriptError> {
    text.split_whitespace().map(KernelArg::parse).collect()
}
