//! `billet export`: what a site tells the other side of a one-way gateway, as one signed archive.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::Timestamp;

use super::Failure;
use super::audit::point;
use super::client::Client;
use super::output::print;
use crate::http::api::SIGNATURE;

/// Largest archive that is fetched, in octets.
const ARCHIVE_MAX: u64 = 2 << 30;

/// Arguments of `billet export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Everything since this moment, such as 2026-11-27 or 2026-11-27T05:00Z
    #[arg(long, value_parser = point)]
    since: Timestamp,
    /// File to write, or directory to put it in; the signature goes beside it, as FILE.minisig
    #[arg(long, default_value = ".", value_name = "PATH")]
    out: PathBuf,
}

/// Fetches an archive and its signature.
pub(super) fn run(client: &Client, args: &ExportArgs) -> Result<(), Failure> {
    let path = format!("export?since={}", args.since.0);
    let (octets, header) = client.octets_with(&path, ARCHIVE_MAX, SIGNATURE)?;
    let signature = header.and_then(|header| STANDARD.decode(header).ok());
    let signature =
        signature.ok_or_else(|| Failure::Other("the server's answer has no signature".to_owned()))?;
    let file = match args.out.is_dir() {
        true => args.out.join(name(&signature)),
        false => args.out.clone(),
    };
    let beside = file.with_added_extension("minisig");
    let write = |path: &Path, octets: &[u8]| {
        std::fs::write(path, octets)
            .map_err(|error| Failure::Other(format!("cannot write {}: {error}", path.display())))
    };
    write(&beside, &signature)?;
    write(&file, &octets)?;
    print(&format!("{}\n{}\n", file.display(), beside.display()))
}

/// The name that was signed with it, if it is a plain one.
fn name(signature: &[u8]) -> String {
    let text = String::from_utf8_lossy(signature);
    let signed = text.lines().nth(2).and_then(|line| line.strip_prefix("trusted comment: "));
    let plain = |name: &&str| {
        name.starts_with("billet-export-")
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
    };
    signed.filter(plain).unwrap_or("billet-export.tar.zst").to_owned()
}
