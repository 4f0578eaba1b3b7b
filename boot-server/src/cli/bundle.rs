//! `billet bundle …`: one file with everything that a site without a network needs. Making one, and looking into one, works on
//! files alone; taking one in goes through the server, or before the first start past it.

use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use protocol::Timestamp;
use serde::Serialize;

use super::Failure;
use super::backup::SiteArgs;
use super::client::{Client, Connection};
use super::image::{Bar, Counted};
use super::output::{Format, Show, facts, table};
use super::text::{memory, moment};
use crate::bundle::{self, BundleError, Gather, Keys, Known, Place, Source, Wishes};
use crate::config::Config;
use crate::http::api::bundle_requests::{BundlePathRequest, BundleSwitchRequest};
use crate::minisign::Signer;
use crate::view::{BundleCheckView, BundleView, Page};

/// What can be done with bundles.
#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Make one of what this machine has: program, boot files, images, documents; signed by the site's key
    Create(CreateArgs),
    /// Read one from end to end, and say whose it is and what is in it; changes nothing
    Verify(VerifyArgs),
    /// Take one in: all of it is checked before any of it can be seen
    ///
    /// The file is sent to the server. With --on-server it lies there already; with --offline it is taken in past the server, for
    /// a machine on which none ran yet.
    Import(ImportArgs),
    /// Those that were taken in and are kept
    #[command(visible_alias = "ls")]
    List,
    /// Serve the boot files of another one that is kept; images stay
    Switch {
        /// Its number, or `none` for what the configuration names alone
        number: String,
    },
}

/// Arguments of `billet bundle create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// File to write; it must not exist
    file: PathBuf,
    #[command(flatten)]
    site: SiteArgs,
    /// Only this image: name (newest version), name:version, or id; again for more [default: all]
    #[arg(long, value_name = "IMAGE")]
    image: Vec<String>,
    /// No images
    #[arg(long, conflicts_with = "image")]
    no_images: bool,
    /// Goes up from bundle to bundle; a site takes no smaller one than it had [default: seconds since 1970]
    #[arg(long, value_name = "NUMBER")]
    number: Option<u64>,
    /// Only what this older bundle lacks; its first part (index and manifests) is enough
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Who signed that one, where it was not this site
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// The program for this processor, such as aarch64=/srv/billet [default: the one that runs, for its own]
    #[arg(long, value_name = "PROCESSOR=FILE", value_parser = program)]
    program: Vec<(String, PathBuf)>,
    /// Directory with docs/, licences/, quirks/ and sbom/ (`cargo xtask share` makes it) [default: /usr/share/billet]
    #[arg(long, value_name = "DIRECTORY")]
    shared: Option<PathBuf>,
}

/// Arguments of `billet bundle verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The bundle; `-` for standard input
    file: PathBuf,
    /// Public key of who may have signed it; again for more. Those that the site trusts are tried too
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    #[command(flatten)]
    site: SiteArgs,
    /// FILE is a path on the server, below one of its import directories; the server says too whether it would take it
    #[arg(long, conflicts_with_all = ["key", "config", "state_dir"])]
    on_server: bool,
}

/// Arguments of `billet bundle import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The bundle; with --offline `-` for standard input
    file: PathBuf,
    /// Take it in though a newer one was there; this is written down
    #[arg(long)]
    allow_older: bool,
    /// FILE is a path on the server, below one of its import directories
    #[arg(long)]
    on_server: bool,
    /// Past the server, into the state directory
    #[arg(long, conflicts_with = "on_server")]
    offline: bool,
    /// With --offline: public key of who may have signed it; again for more. Those of the configuration are tried too
    #[arg(long, value_name = "FILE", requires = "offline")]
    key: Vec<PathBuf>,
    #[command(flatten)]
    site: SiteArgs,
}

fn program(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((processor, file)) if !processor.is_empty() && !file.is_empty() => {
            Ok((processor.to_owned(), file.into()))
        }
        _ => Err("give it as aarch64=/srv/billet".to_owned()),
    }
}

pub(super) fn run(connection: &Connection, format: Format, command: BundleCommand) -> Result<(), Failure> {
    match command {
        BundleCommand::Create(args) => create(format, args),
        BundleCommand::Verify(args) => verify(connection, format, &args),
        BundleCommand::Import(args) if args.offline => offline(format, &args),
        BundleCommand::Import(args) => import(&connection.client()?, format, &args),
        BundleCommand::List => format.print(&connection.client()?.get::<Page<BundleView>>("bundles")?),
        BundleCommand::Switch { number } => {
            let number = match number.as_str() {
                "none" => None,
                digits => Some(digits.parse().map_err(|_| {
                    Failure::Usage("give the number of a bundle (`billet bundle list`), or `none`".to_owned())
                })?),
            };
            let done: Page<BundleView> =
                connection.client()?.post("bundles/switch", &BundleSwitchRequest { number })?;
            format.print(&done)
        }
    }
}

fn create(format: Format, args: CreateArgs) -> Result<(), Failure> {
    let config = args.site.config()?;
    let fail = |error: BundleError| failure(&error);
    let signer = Signer::open(&config.state_dir.join("signing.key"))
        .map_err(|error| failure(&BundleError::Signing(error)))?;
    let mut keys = Keys::of_site(&config.bundles.keys, &config.state_dir).map_err(fail)?;
    args.key.iter().try_for_each(|path| keys.add_file(path)).map_err(fail)?;
    let base = args.since.as_deref().map(|path| Known::read(path, &keys)).transpose().map_err(fail)?;
    let store = images::Store::open(config.state_dir.join("images")).map_err(|e| failure(&e.into()))?;
    let chosen = if args.no_images { Vec::new() } else { chosen(&store, &args.image)? };
    let mut programs = args.program;
    if !programs.iter().any(|(processor, _)| processor == std::env::consts::ARCH) {
        let own =
            std::env::current_exe().map_err(|e| Failure::Other(format!("cannot find this program: {e}")))?;
        programs.push((std::env::consts::ARCH.to_owned(), own));
    }
    let shared = args.shared.or_else(|| Some(PathBuf::from("/usr/share/billet")).filter(|dir| dir.is_dir()));
    let files = bundle::gather(&config, &Gather { programs, shared }).map_err(fail)?;
    let number = args.number.unwrap_or_else(|| crate::engine::now().0 / 1000);
    let source = Source { number, files, images: chosen, store: &store, base };
    let made = bundle::create(source, &signer, &args.file).map_err(fail)?;
    let key = signer.public().lines().nth(1).unwrap_or_default().to_owned();
    format.print(&Made {
        file: args.file.display().to_string(),
        number,
        digest: made.digest.to_string(),
        key,
        base: made.index.base.map(|base| base.number),
        size: made.size,
        images: made.index.images.iter().map(|image| format!("{}:{}", image.name, image.version)).collect(),
        files: made.index.files.len() as u64,
        pieces: made.index.pieces().count() as u64,
    })
}

/// Images by the names that the API takes; of a name alone, the greatest version.
fn chosen(store: &images::Store, wanted: &[String]) -> Result<Vec<protocol::ImageId>, Failure> {
    let listing = store.manifests().map_err(|error| failure(&error.into()))?;
    if let Some((id, _)) = listing.broken.first() {
        return Err(Failure::Other(format!("the manifest of image {id} is damaged: remove it first")));
    }
    let all = listing.images;
    if wanted.is_empty() {
        return Ok(all.into_iter().map(|(id, _)| id).collect());
    }
    let find = |name: &String| {
        let fits = |(id, image): &&(protocol::ImageId, images::Manifest)| {
            *name == id.to_string()
                || *name == image.name
                || *name == format!("{}:{}", image.name, image.version)
        };
        let found = all.iter().filter(fits).max_by_key(|(_, image)| &image.version);
        found.map(|(id, _)| *id).ok_or_else(|| failure(&BundleError::NoImage(name.clone())))
    };
    wanted.iter().map(find).collect()
}

fn verify(connection: &Connection, format: Format, args: &VerifyArgs) -> Result<(), Failure> {
    let shown = if args.on_server {
        let request = BundlePathRequest { path: args.file.clone(), allow_older: false };
        connection.client()?.post_with("bundles/verify", &request, None, None)?
    } else {
        let config = args.site.config()?;
        let mut keys = Keys::of_site(&config.bundles.keys, &config.state_dir).map_err(|e| failure(&e))?;
        args.key.iter().try_for_each(|path| keys.add_file(path)).map_err(|e| failure(&e))?;
        let source = Input::open(&args.file)?;
        let bar = Bar::new("verify", source.size);
        let mut progress = |done, all| {
            bar.set(done, Some(all));
            ControlFlow::Continue(())
        };
        let checked = bundle::verify(source.reader, &keys, None, &mut progress);
        bar.end();
        BundleCheckView::of(&checked.map_err(|error| failure(&error))?)
    };
    format.print(&shown)?;
    match shown.refused {
        Some(why) => Err(Failure::Other(format!("the bundle is whole, and would not be taken in: {why}"))),
        None => Ok(()),
    }
}

fn import(client: &Client, format: Format, args: &ImportArgs) -> Result<(), Failure> {
    if args.on_server {
        let request = BundlePathRequest { path: args.file.clone(), allow_older: args.allow_older };
        let taken: BundleView = client.post_with("bundles/import", &request, None, None)?;
        return format.print(&taken);
    }
    let refuse = |e: std::io::Error| Failure::Usage(format!("cannot read {}: {e}", args.file.display()));
    let file = File::open(&args.file).map_err(refuse)?;
    let size = file.metadata().map_err(refuse)?.len();
    let bar = Bar::new("bundle", size);
    let mut reader = Counted::new(file, size, &bar);
    let path = format!("bundles/upload?allow_older={}", args.allow_older);
    let key = uuid::Uuid::new_v4().to_string();
    let taken = client.upload::<BundleView>(&path, size, &key, &mut reader);
    bar.end();
    format.print(&taken?)
}

/// Takes a bundle in without a server. Everything that is made is the state directory's owner's.
fn offline(format: Format, args: &ImportArgs) -> Result<(), Failure> {
    let config = args.site.config()?;
    let fail = |error: BundleError| failure(&error);
    // Read before this process becomes somebody who may not.
    let source = Input::open(&args.file)?;
    let mut keys = Keys::of_site(&config.bundles.keys, &config.state_dir).map_err(fail)?;
    args.key.iter().try_for_each(|path| keys.add_file(path)).map_err(fail)?;
    become_owner(&config.state_dir)?;
    let store = images::Store::open(config.state_dir.join("images")).map_err(|e| failure(&e.into()))?;
    let place = Place { state_dir: config.state_dir, images: store };
    let wishes = Wishes {
        allow_older: args.allow_older,
        by: "import beside the server".to_owned(),
        now: Timestamp(crate::engine::now().0),
    };
    let bar = Bar::new("bundle", source.size);
    let mut progress = |done, all| {
        bar.set(done, Some(all));
        ControlFlow::Continue(())
    };
    let taken = bundle::import(source.reader, &keys, &place, &wishes, &mut progress);
    bar.end();
    format.print(&BundleView::of(&taken.map_err(fail)?))
}

/// Makes the directory where there is none; otherwise goes on as whoever owns it.
fn become_owner(state_dir: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    let other = |e: &dyn std::fmt::Display| Failure::Hinted {
        message: format!("cannot write to {}: {e}", state_dir.display()),
        hint: "run this as root, or as the server's user".to_owned(),
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(|e| other(&e))?;
    let meta = std::fs::metadata(state_dir).map_err(|e| other(&e))?;
    if !nix::unistd::geteuid().is_root() || meta.uid() == 0 {
        return Ok(());
    }
    nix::unistd::setegid(meta.gid().into())
        .and_then(|()| nix::unistd::seteuid(meta.uid().into()))
        .map_err(|e| other(&e))
}

/// A bundle that is read here.
struct Input {
    reader: Box<dyn std::io::Read>,
    size: u64,
}

impl Input {
    fn open(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Self { reader: Box::new(std::io::stdin().lock()), size: 0 });
        }
        let refuse = |e: std::io::Error| Failure::Usage(format!("cannot read {}: {e}", path.display()));
        let file = File::open(path).map_err(refuse)?;
        let size = file.metadata().map_err(refuse)?.len();
        Ok(Self { reader: Box::new(BufReader::with_capacity(1 << 20, file)), size })
    }
}

fn failure(error: &BundleError) -> Failure {
    Failure::Hinted { message: crate::ingest::sentence(error), hint: error.hint().to_owned() }
}

impl SiteArgs {
    /// The configuration with the options over it.
    fn config(&self) -> Result<Config, Failure> {
        crate::serve::configuration(&self.serve()).map_err(|error| Failure::Other(format!("{error:#}")))
    }
}

/// What was made.
#[derive(Serialize)]
struct Made {
    file: String,
    number: u64,
    digest: String,
    key: String,
    base: Option<u64>,
    size: u64,
    images: Vec<String>,
    files: u64,
    pieces: u64,
}

impl Show for Made {
    fn table(&self) -> String {
        facts(&[
            ("bundle", Some(self.file.clone())),
            ("number", Some(self.number.to_string())),
            ("digest", Some(self.digest.clone())),
            ("signed by", Some(self.key.clone())),
            ("lacks what is in", self.base.map(|base| format!("bundle {base}"))),
            ("size", Some(memory(self.size))),
            ("images", Some(self.images.join(" "))),
            ("files", Some(self.files.to_string())),
            ("pieces", Some(self.pieces.to_string())),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.file.clone()]
    }
}

impl Show for BundleCheckView {
    fn table(&self) -> String {
        facts(&[
            ("bundle", Some(self.number.to_string())),
            ("digest", Some(self.digest.to_string())),
            ("by version", Some(self.version.clone())),
            ("signed by", Some(self.key.clone())),
            ("needs", self.base.map(|base| format!("bundle {base}"))),
            ("size", Some(memory(self.size))),
            ("images", Some(self.images.join(" "))),
            ("files", Some(self.files.to_string())),
            ("pieces", Some(self.pieces.to_string())),
            ("would be refused", self.refused.clone()),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.number.to_string()]
    }
}

impl Show for BundleView {
    fn table(&self) -> String {
        facts(&[
            ("bundle", Some(self.number.to_string())),
            ("served", Some(if self.current { "yes" } else { "no" }.to_owned())),
            ("digest", Some(self.digest.to_string())),
            ("by version", Some(self.version.clone())),
            ("signed by", Some(self.key.clone())),
            ("taken in", Some(format!("{} by {}", moment(self.imported), self.by))),
            ("though there was", self.over.map(|newer| format!("bundle {newer}"))),
            ("images", Some(self.images.join(" "))),
            ("files", Some(self.files.to_string())),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.number.to_string()]
    }
}

impl Show for Page<BundleView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No bundles.".to_owned();
        }
        let rows = self.items.iter().map(|it| {
            vec![
                it.number.to_string(),
                if it.current { "yes" } else { "" }.to_owned(),
                it.version.clone(),
                moment(it.imported),
                it.by.clone(),
                it.images.join(" "),
                it.files.to_string(),
            ]
        });
        table(&["number", "served", "by version", "taken in", "by", "images", "files"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|it| it.number.to_string()).collect()
    }
}
