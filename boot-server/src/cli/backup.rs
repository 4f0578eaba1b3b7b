//! `billet backup …` and `billet restore`: the whole state of a site in one file. Works on the files themselves, beside a
//! server that may run.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::facts;
use super::text::{memory, moment};
use super::{Failure, Format, Show, user};
use crate::backup::{self, BackupError, Site, Summary};
use crate::minisign::SignError;
use crate::serve::{ServeArgs, configuration};

/// What can be done with backups.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Make one: a new file, sealed by a passphrase, signed by the site
    Create(CreateArgs),
    /// Read one from end to end, its database too, and say what is in it
    Verify(FromArgs),
    /// Let a restored site go on: the next start of its server drives machines, volumes, DPUs and networks again
    ///
    /// Look first who has what by now: machines that got owners after the backup was made are free here, and their DPUs are told so.
    Release(SiteArgs),
}

/// Where the site is.
#[derive(Debug, Args)]
pub struct SiteArgs {
    /// Configuration file [default: /etc/billet/billet.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where keys, images and, without PostgreSQL, the database are
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
}

/// Arguments of `billet backup create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// File to write; it must not exist
    file: PathBuf,
    #[command(flatten)]
    site: SiteArgs,
    /// File with the passphrase on its first line, instead of asking. Without the passphrase nothing is ever read again
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Leave out the images, which are added again after a restore
    #[arg(long)]
    without_images: bool,
}

/// A backup.
#[derive(Debug, Args)]
pub struct FromArgs {
    /// The backup
    file: PathBuf,
    /// File with the passphrase on its first line, instead of asking
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// File with the site's public key (`billet usage key`): who else signed it is refused
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
}

/// Arguments of `billet restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    from: FromArgs,
    #[command(flatten)]
    site: SiteArgs,
    /// Nothing happened since the backup: go on where it stopped, and hold no machine
    #[arg(long)]
    as_it_was: bool,
}

/// A backup, as it is shown.
#[derive(Serialize)]
struct Shown {
    file: String,
    created: String,
    version: String,
    size: u64,
    rows: i64,
    images: u64,
    files: u64,
}

impl Shown {
    fn new(file: &Path, summary: Summary) -> Self {
        let Summary { created, version, size, rows, images, files } = summary;
        Self {
            file: file.display().to_string(),
            created: moment(created),
            version,
            size,
            rows,
            images,
            files,
        }
    }
}

impl Show for Shown {
    fn table(&self) -> String {
        facts(&[
            ("backup", Some(self.file.clone())),
            ("of", Some(self.created.clone())),
            ("by version", Some(self.version.clone())),
            ("size", Some(memory(self.size))),
            ("rows of the database", Some(self.rows.to_string())),
            ("images", Some(self.images.to_string())),
            ("keys and other files", Some(self.files.to_string())),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.file.clone()]
    }
}

impl SiteArgs {
    /// The same as options of the server.
    pub(super) fn serve(&self) -> ServeArgs {
        ServeArgs { config: self.config.clone(), state_dir: self.state_dir.clone(), ..ServeArgs::default() }
    }

    fn site(&self) -> Result<Site, Failure> {
        let config = configuration(&self.serve()).map_err(|error| Failure::Other(format!("{error:#}")))?;
        let store = config.location().map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Site { store, volumes: config.volume_directories(), state_dir: config.state_dir })
    }
}

impl FromArgs {
    /// The public key's text.
    fn public(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.public_key else { return Ok(None) };
        let text = std::fs::read_to_string(path);
        text.map(Some).map_err(|e| Failure::Usage(format!("cannot read {}: {e}", path.display())))
    }

    fn passphrase(&self) -> Result<String, Failure> {
        user::password(self.passphrase_file.as_deref(), "Passphrase of the backup: ")
    }
}

pub(super) fn run(format: Format, command: BackupCommand) -> Result<(), Failure> {
    match command {
        BackupCommand::Create(args) => {
            let site = args.site.site()?;
            let passphrase = user::new_password(args.passphrase_file.as_deref(), "New passphrase: ")?;
            let made =
                backup::create(&site, &args.file, &passphrase, !args.without_images, crate::engine::now());
            format.print(&Shown::new(&args.file, made.map_err(|error| failure(&error))?))
        }
        BackupCommand::Verify(args) => {
            let found = backup::verify(&args.file, &args.passphrase()?, args.public()?.as_deref());
            format.print(&Shown::new(&args.file, found.map_err(|error| failure(&error))?))
        }
        BackupCommand::Release(args) => {
            let site = args.site()?;
            backup::release(&site.state_dir).map_err(|error| Failure::Hinted {
                message: super::store::chain(&error),
                hint: "a site that is held has `restored.json` in its state directory".to_owned(),
            })?;
            super::output::print("released: restart the server\n")
        }
    }
}

pub(super) fn restore(format: Format, args: &RestoreArgs) -> Result<(), Failure> {
    let site = args.site.site()?;
    let (passphrase, public) = (args.from.passphrase()?, args.from.public()?);
    let done = backup::restore(&args.from.file, &passphrase, public.as_deref(), &site, !args.as_it_was);
    format.print(&Shown::new(&args.from.file, done.map_err(|error| failure(&error))?))
}

fn failure(error: &BackupError) -> Failure {
    let hint = match error {
        BackupError::NoSite(_) => "say where the site is: --config, or --state-dir",
        BackupError::NotEmpty(_) => "give another directory with --state-dir, or move away what is there",
        BackupError::Signature(SignError::Minisign(_)) => {
            "get the file again, from a copy; or give the public key of the site that made it"
        }
        BackupError::Signature(_) => {
            "look at signing.key in the state directory; run this as root, or as the server's user"
        }
        BackupError::NoBackup(_) => "get the file again, from a copy",
        BackupError::Copy(crate::store::copy::CopyError::NotEmpty { .. }) => "restore to an empty database",
        _ => "nothing is at its place; mend that and run it again",
    };
    Failure::Hinted { message: super::store::chain(error), hint: hint.to_owned() }
}
