//! `cargo xtask bench`: measurements against what others do. Ours and the peers run in turn in one run, because
//! machines differ and a figure of yesterday compares with nothing.

use anyhow::Result;
use clap::Subcommand;

mod api;
mod bmc;
mod create;
mod dhcp;
mod dpu;
mod http;
mod tftp;
mod write;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The control plane with 10,000 nodes, beside OpenStack Ironic.
    Api(api::Args),
    /// Reading management controllers while many of them hang.
    Bmc(bmc::Args),
    /// Leasing addresses, from DISCOVER to ACK, beside dnsmasq and Kea.
    Dhcp(dhcp::Args),
    /// A host's disk through its DPU, beside the same iSCSI target directly.
    Dpu(dpu::Args),
    /// Sending files by HTTP, to one client and to many, beside nginx.
    Http(http::Args),
    /// Sending boot files by TFTP, to one client and to many, beside other servers.
    Tftp(tftp::Args),
    /// Writing an image to a disk, and writing it again over an equal disk.
    Write(write::Args),
}

/// Runs the benchmark.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Api(args) => api::run(args),
        What::Bmc(args) => bmc::run(args),
        What::Dhcp(args) => dhcp::run(args),
        What::Dpu(args) => dpu::run(args),
        What::Http(args) => http::run(args),
        What::Tftp(args) => tftp::run(args),
        What::Write(args) => write::run(args),
    }
}

/// The middle value, or the mean of the two; not a number where there is none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 if middle > 0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values.get(middle).copied().unwrap_or(f64::NAN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
