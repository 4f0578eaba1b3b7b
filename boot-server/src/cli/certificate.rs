//! `billet certificate …`: what is certified of disks that were erased.

use std::path::{Path, PathBuf};

use boot_server_core::deploy::bytes;
use clap::Subcommand;

use super::again::{AgainArgs, SITE};
use super::client::{Client, Connection, encode};
use super::output::{Format, Show, facts, print, table};
use super::text::{moment, plain};
use super::{Failure, usage};
use crate::view::{CertificateView, Page};

/// What can be done with certificates.
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// All of them, newest first
    #[command(visible_alias = "ls")]
    List {
        /// Of disks of this node, by name or id, also of one that was forgotten
        #[arg(long)]
        node: Option<String>,
        /// Of the disk with this serial number
        #[arg(long)]
        serial: Option<String>,
        #[command(flatten)]
        again: AgainArgs,
    },
    /// One of them
    Show {
        /// Its id
        id: String,
    },
    /// Write one as ID.json and its signature as ID.json.minisig
    Save {
        /// Its id
        id: String,
        /// Where to
        #[arg(long, default_value = ".", value_name = "DIRECTORY")]
        dir: PathBuf,
    },
    /// Check the signature of a certificate that was saved; needs no server
    Verify {
        /// The certificate
        file: PathBuf,
        /// The signature: FILE.minisig if not given
        #[arg(long)]
        signature: Option<PathBuf>,
        /// The public key, or a file with it, as `billet usage key` prints it
        #[arg(long)]
        key: String,
    },
}

/// Runs a command.
pub(super) fn run(
    connection: &Connection,
    format: Format,
    command: CertificateCommand,
) -> Result<(), Failure> {
    match command {
        CertificateCommand::List { node, serial, again } => {
            list(&connection.client()?, format, node.as_deref(), serial.as_deref(), again)
        }
        CertificateCommand::Show { id } => format.print(&get(&connection.client()?, &id)?),
        CertificateCommand::Save { id, dir } => save(&get(&connection.client()?, &id)?, &dir),
        CertificateCommand::Verify { file, signature, key } => usage::verify(&file, signature, key),
    }
}

fn get(client: &Client, id: &str) -> Result<CertificateView, Failure> {
    client.get(&format!("certificates/{}", encode(id)))
}

/// Prints the certificates of a node, of a disk, or all.
pub(super) fn list(
    client: &Client,
    format: Format,
    node: Option<&str>,
    serial: Option<&str>,
    again: AgainArgs,
) -> Result<(), Failure> {
    let mut path = "certificates?limit=1000".to_owned();
    for (key, value) in [("node", node), ("serial", serial)] {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", encode(value)));
        }
    }
    again.list(client, SITE, format, || client.all::<CertificateView>(&path))
}

fn save(view: &CertificateView, dir: &Path) -> Result<(), Failure> {
    let Some(signature) = &view.signature else {
        return Err(Failure::Hinted {
            message: "this certificate was never signed: the site's key could not be had".to_owned(),
            hint: "print it with -o json; only the server vouches for it".to_owned(),
        });
    };
    // The id is the server's word, and no path.
    let name = view.id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>();
    let file = dir.join(format!("{name}.json"));
    let beside = dir.join(format!("{name}.json.minisig"));
    for (path, text) in [(&file, &view.text), (&beside, signature)] {
        std::fs::write(path, text)
            .map_err(|error| Failure::Other(format!("cannot write {}: {error}", path.display())))?;
    }
    print(&format!("{}\n{}\n", file.display(), beside.display()))
}

fn method(view: &CertificateView) -> String {
    view.method.map_or_else(|| "-".to_owned(), |method| method.to_string())
}

impl Show for CertificateView {
    fn table(&self) -> String {
        let signed = if self.signature.is_some() { "yes" } else { "no: the key could not be had" };
        let text = facts(&[
            ("certificate", Some(self.id.clone())),
            ("issued", Some(moment(self.issued))),
            ("node", Some(plain(&self.node))),
            ("disk", Some(plain(&self.disk))),
            ("model", self.model.as_deref().map(plain)),
            ("size", Some(bytes(self.size_bytes))),
            ("result", Some(self.result.clone())),
            ("method", Some(method(self))),
            ("grade", Some(format!("{} (NIST SP 800-88 Rev. 2)", self.grade))),
            ("signed", Some(signed.to_owned())),
        ]);
        format!("{text}\n{}\n", super::text::plain_lines(&self.text))
    }

    fn names(&self) -> Vec<String> {
        vec![self.id.clone()]
    }
}

impl Show for Page<CertificateView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No certificates. Disks get one when they are erased: when a project gives a server back, or by `billet node provide NAME --erase`.".to_owned();
        }
        let row = |c: &CertificateView| {
            vec![
                moment(c.issued),
                plain(&c.node),
                plain(&c.disk),
                c.result.clone(),
                method(c),
                c.grade.to_string(),
                c.id.clone(),
            ]
        };
        table(
            &["issued", "node", "disk", "result", "method", "grade", "certificate"],
            self.items.iter().map(row),
        )
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|c| c.id.clone()).collect()
    }
}
