//! `billet-agent`: `/init` of the deploy ramdisk, and the same stages as commands on any Linux.

mod agent;
mod bmc_account;
mod cli;
mod client;
mod customise;
mod deploy;
mod device;
mod erase;
mod feed;
mod fetch;
mod init;
mod inspect;
mod sys;
mod tpm;
mod trust;
mod verify;
mod write;

fn main() -> anyhow::Result<std::process::ExitCode> {
    // As PID 1 there is nobody to print a usage text for.
    if std::process::id() == 1 || std::env::args().nth(1).as_deref() == Some("init") {
        init::run();
    }
    cli::run()
}
