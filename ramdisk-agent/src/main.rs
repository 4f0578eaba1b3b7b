//! `billet-agent`: `/init` of the deploy ramdisk, and the same stages as commands on any Linux.

mod cli;
mod customise;
mod deploy;
mod device;
mod feed;
mod fetch;
mod inspect;
mod sys;
mod verify;
mod write;

fn main() -> anyhow::Result<std::process::ExitCode> {
    cli::run()
}
