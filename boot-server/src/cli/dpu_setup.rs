//! `billet dpu …`: the set-up of a DPU by its own BMC.

use std::path::PathBuf;

use boot_server_core::bmc::health::Verdict;
use boot_server_core::setup::{Mode, Part, Privilege};
use clap::{Subcommand, ValueEnum};
use protocol::Sha256;

use super::Failure;
use super::bmc::secret;
use super::client::{Client, encode};
use super::output::{Format, Show, facts, table};
use super::text::{moment, plain};
use crate::http::api::dpu_requests::{DpuBmcRequest, DpuJobRequest};
use crate::http::api::requests::EmptyRequest;
use crate::view::Page;
use crate::view::dpu_setup::DpuJobView;
use crate::view::dpus::DpuView;

/// What can be done by the BMC of a DPU.
#[derive(Debug, Subcommand)]
pub enum SetupCommand {
    /// Give a DPU its own BMC, or change what is known of it
    SetBmc {
        /// Name or id of the DPU
        dpu: String,
        /// Name or address of the BMC
        #[arg(long)]
        address: Option<String>,
        /// Port, where it is not 443
        #[arg(long)]
        port: Option<u16>,
        /// User name
        #[arg(long)]
        user: Option<String>,
        /// File with the password; `-` for standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Forget the BMC of a DPU with its account
    ForgetBmc {
        /// Name or id of the DPU
        dpu: String,
    },
    /// Accept the certificate that the BMC of a DPU shows now
    TrustBmc {
        /// Name or id of the DPU
        dpu: String,
    },
    /// Read by its BMC what a DPU is, and find its host
    Enroll {
        /// Name or id of the DPU
        dpu: String,
    },
    /// Set the mode, in force after the next power cycle of the host
    Mode {
        /// Name or id of the DPU
        dpu: String,
        /// The mode
        #[arg(value_enum)]
        mode: ModeArg,
        /// Power-cycle the host for it, where it has a BMC and runs
        #[arg(long)]
        power_cycle: bool,
    },
    /// Set what the host may do with the DPU; the DPU is restarted for it
    HostPrivilege {
        /// Name or id of the DPU
        dpu: String,
        /// The privilege
        #[arg(value_enum)]
        privilege: PrivilegeArg,
    },
    /// Install an image (BFB)
    Install {
        /// Name or id of the DPU
        dpu: String,
        /// Path in the server's media directory
        image: String,
        /// SHA-256 of the file, as its maker publishes it
        #[arg(long, value_name = "HEX")]
        sha256: Option<Sha256>,
        /// The image has no `billet-dpu` in it: nobody is waited for
        #[arg(long)]
        without_agent: bool,
    },
    /// Install the image before the one that Billet installed last
    Rollback {
        /// Name or id of the DPU
        dpu: String,
    },
    /// Write the firmware of a part
    Firmware {
        /// Name or id of the DPU
        dpu: String,
        /// The part
        #[arg(value_enum)]
        part: PartArg,
        /// Path in the server's media directory
        image: String,
        /// SHA-256 of the file, as its maker publishes it
        #[arg(long, value_name = "HEX")]
        sha256: Option<Sha256>,
    },
    /// Restart the DPU's own system
    Reset {
        /// Name or id of the DPU
        dpu: String,
        /// At once, without asking it to shut down
        #[arg(long)]
        force: bool,
    },
    /// Jobs that set a DPU up, the newest first
    Jobs {
        /// Name or id of the DPU
        dpu: String,
    },
    /// One job
    Job {
        /// Name or id of the DPU
        dpu: String,
        /// Id of the job
        job: String,
    },
    /// Call a job off
    Cancel {
        /// Name or id of the DPU
        dpu: String,
        /// Id of the job
        job: String,
    },
}

/// What a DPU is to its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// A computer of its own between host and network
    Dpu,
    /// A plain NIC
    Nic,
}

/// What a host may do with its DPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrivilegeArg {
    /// Anything
    Privileged,
    /// Use it
    Restricted,
}

/// A part with firmware of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PartArg {
    /// The BMC of the DPU
    Bmc,
    /// The root of trust beside it
    Cec,
    /// The NIC
    Nic,
}

/// Runs it.
pub(super) fn run(client: &Client, format: Format, command: SetupCommand) -> Result<(), Failure> {
    let of = |dpu: &str| format!("dpus/{}", encode(dpu));
    let job_of = |dpu: &str, job: &str| format!("{}/jobs/{}", of(dpu), encode(job));
    let begin = |dpu: &str, request: &DpuJobRequest| {
        format.print(&client.post::<_, DpuJobView>(&format!("{}/jobs", of(dpu)), request)?)
    };
    let verb = |dpu: &str, verb: &str| {
        format.print(&client.post::<_, DpuView>(&format!("{}/{verb}", of(dpu)), &EmptyRequest {})?)
    };
    match command {
        SetupCommand::SetBmc { dpu, address, port, user, password_file } => {
            let password = secret(password_file.as_deref())?;
            let request = DpuBmcRequest { address, port, user, password };
            format.print(&client.put::<_, DpuView>(&format!("{}/bmc", of(&dpu)), &request)?)
        }
        SetupCommand::ForgetBmc { dpu } => client.delete(&format!("{}/bmc", of(&dpu))),
        SetupCommand::TrustBmc { dpu } => verb(&dpu, "bmc/trust"),
        SetupCommand::Enroll { dpu } => verb(&dpu, "enroll"),
        SetupCommand::Mode { dpu, mode, power_cycle } => {
            let mode = if mode == ModeArg::Nic { Mode::Nic } else { Mode::Dpu };
            begin(&dpu, &DpuJobRequest::Mode { mode, power_cycle })
        }
        SetupCommand::HostPrivilege { dpu, privilege } => {
            let privilege = match privilege {
                PrivilegeArg::Privileged => Privilege::Privileged,
                PrivilegeArg::Restricted => Privilege::Restricted,
            };
            begin(&dpu, &DpuJobRequest::HostPrivilege { privilege })
        }
        SetupCommand::Install { dpu, image, sha256, without_agent } => {
            begin(&dpu, &DpuJobRequest::Install { image, sha256, agent: !without_agent })
        }
        SetupCommand::Rollback { dpu } => begin(&dpu, &DpuJobRequest::Rollback {}),
        SetupCommand::Firmware { dpu, part, image, sha256 } => {
            let part = match part {
                PartArg::Bmc => Part::Bmc,
                PartArg::Cec => Part::Cec,
                PartArg::Nic => Part::Nic,
            };
            begin(&dpu, &DpuJobRequest::Firmware { part, image, sha256 })
        }
        SetupCommand::Reset { dpu, force } => begin(&dpu, &DpuJobRequest::Reset { force }),
        SetupCommand::Jobs { dpu } => {
            let items = client.all::<DpuJobView>(&format!("{}/jobs", of(&dpu)))?;
            format.print(&items)
        }
        SetupCommand::Job { dpu, job } => format.print(&client.get::<DpuJobView>(&job_of(&dpu, &job))?),
        SetupCommand::Cancel { dpu, job } => {
            let path = format!("{}/cancel", job_of(&dpu, &job));
            format.print(&client.post::<_, DpuJobView>(&path, &EmptyRequest {})?)
        }
    }
}

/// What is shown of a DPU's own BMC, and of the last job.
pub(super) fn setup_facts(dpu: &DpuView) -> Vec<(&'static str, Option<String>)> {
    let Some(bmc) = &dpu.bmc else { return Vec::new() };
    let card = bmc.card.clone().unwrap_or_default();
    let versions =
        card.firmware.iter().filter_map(|one| Some(format!("{} {}", one.item, one.version.as_ref()?)));
    let versions: Vec<String> = versions.map(|line| plain(&line)).collect();
    let paired: Vec<String> = bmc.paired.iter().map(ToString::to_string).collect();
    let job = dpu.job.as_ref().map(|job| format!("{}: {}", job.stage, plain(&job.words)));
    vec![
        ("BMC", Some(format!("{} as {}", plain(&bmc.address), plain(&bmc.user)))),
        ("BMC's trouble", bmc.trouble.as_deref().map(plain)),
        ("health", bmc.health.as_ref().map(health)),
        ("card", card.model.as_deref().map(plain)),
        ("part number", card.part_number.as_deref().map(plain)),
        ("card's serial", card.serial.as_deref().map(plain)),
        ("base MAC", card.base_mac.map(|mac| mac.to_string())),
        ("management MAC", card.oob_mac.map(|mac| mac.to_string())),
        ("mode", card.mode.map(|mode| mode.as_str().to_owned())),
        ("host", card.privilege.map(|privilege| privilege.as_str().to_owned())),
        ("its system", card.boot.as_deref().map(plain)),
        ("firmware", (!versions.is_empty()).then(|| versions.join("\n"))),
        ("paired because", (!paired.is_empty()).then(|| paired.join(", "))),
        ("in doubt", bmc.doubt.as_deref().map(plain)),
        ("last job", job),
    ]
}

fn health(health: &Verdict) -> String {
    let reasons = health.reasons.iter().map(|reason| plain(reason));
    [vec![health.level.as_str().to_owned()], reasons.collect()].concat().join("\n")
}

impl Show for Page<DpuJobView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No jobs.".to_owned();
        }
        let rows = self.items.iter().map(|job| {
            vec![
                job.id.to_string(),
                plain(&job.what),
                job.stage.clone(),
                plain(job.version.as_deref().unwrap_or("-")),
                plain(&job.by),
                moment(job.begun),
            ]
        });
        table(&["job", "what", "stage", "version", "by", "begun"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|job| job.id.to_string()).collect()
    }
}

impl Show for DpuJobView {
    fn table(&self) -> String {
        facts(&[
            ("job", Some(self.id.to_string())),
            ("what", Some(plain(&self.what))),
            ("stage", Some(self.stage.clone())),
            (if self.is_over() { "end" } else { "waits for" }, Some(plain(&self.words))),
            ("hint", self.hint.as_deref().map(plain)),
            ("as before", self.undone.map(|undone| if undone { "yes" } else { "no" }.to_owned())),
            ("image", self.image.as_deref().map(plain)),
            ("sha256", self.sha256.map(|sha256| sha256.to_string())),
            ("version before", self.version_before.as_deref().map(plain)),
            ("version", self.version.as_deref().map(plain)),
            ("by", Some(plain(&self.by))),
            ("begun", Some(moment(self.begun))),
            ("until", self.deadline.map(moment)),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.id.to_string()]
    }
}
