//! `billet image …`.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use boot_server_core::deploy::bytes;
use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use images::manifest::{MANIFEST_MAX, is_name};
use images::{Architecture, Datasource, Manifest};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use protocol::{ImageId, Sha256};

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::output::{Format, Show, facts, table};
use super::site;
use super::text::{moment, plain};
use crate::http::api::requests::{IngestRequest, SignatureRequest};
use crate::view::{ImageView, IngestView, Page, VerifyView};

/// Time between two looks at an ingest of the server.
const INTERVAL: Duration = Duration::from_millis(500);

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Add an image from a file of this machine, or from a URL that the server fetches
    Add(AddArgs),
    /// All images
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// Images on their way in, and those that were refused
    Ingests(AgainArgs),
    /// One image
    Show {
        /// Name (newest version), name:version, or id
        image: String,
    },
    /// Remove an image; refused while a running job needs it
    #[command(visible_alias = "rm")]
    Remove {
        /// Name (newest version), name:version, or id
        image: String,
    },
    /// Read every chunk of an image back and compare all hashes
    Verify {
        /// Name (newest version), name:version, or id
        image: String,
    },
    /// Write the manifest of an image to a file, to be signed elsewhere
    Manifest {
        /// Name (newest version), name:version, or id
        image: String,
        /// The file
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Sign a manifest with a key of this machine, asking no server; the signature goes beside it (.minisig)
    Sign(SignArgs),
    /// Give an image the signature that it waits for
    Signature {
        /// Name (newest version), name:version, or id
        image: String,
        /// The signature, as `billet image sign` makes it
        #[arg(required_unless_present = "by_server")]
        file: Option<PathBuf>,
        /// The server signs, with the private part of the site's key that it has
        #[arg(long, conflicts_with = "file")]
        by_server: bool,
    },
}

/// What to sign, and with what.
#[derive(Debug, clap::Args)]
pub struct SignArgs {
    /// The manifest, as `billet image manifest` writes it
    file: PathBuf,
    /// Private key, in minisign's form, without a password
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Number of the image, higher than that of every older one of its name; the time in milliseconds if not given
    #[arg(long)]
    number: Option<u64>,
}

/// What to add.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// File (raw, raw.zst, raw.gz, raw.xz, qcow2) or URL (http, https)
    source: String,
    /// Name, such as debian-12; the file's name if not given
    #[arg(long)]
    name: Option<String>,
    /// Version; today's date if not given
    #[arg(long)]
    version: Option<String>,
    /// SHA-256 that the file must have
    #[arg(long)]
    sha256: Option<Sha256>,
    /// Machine architecture
    #[arg(long, default_value = "x86_64", value_parser = architecture)]
    architecture: Architecture,
    /// User that the image's cloud-init makes
    #[arg(long, value_name = "USER")]
    default_user: Option<String>,
    /// How the OS in it is told who it is; nocloud if not given
    #[arg(long, value_parser = datasource())]
    datasource: Option<Datasource>,
    /// Smallest disk in bytes; the image's own size if not given
    #[arg(long, value_name = "BYTES")]
    minimum_disk: Option<u64>,
    /// SOURCE is a path on the server, below one of its import directories
    #[arg(long)]
    on_server: bool,
}

/// The words for how an OS is told who it is.
pub(super) fn datasource() -> impl TypedValueParser<Value = Datasource> {
    PossibleValuesParser::new(Datasource::ALL.map(Datasource::as_str))
        .try_map(|word| serde_json::from_value(word.into()))
}

fn architecture(text: &str) -> Result<Architecture, String> {
    match text {
        "x86_64" | "amd64" => Ok(Architecture::X86_64),
        "aarch64" | "arm64" => Ok(Architecture::Aarch64),
        other => Err(format!("`{other}` is not x86_64 or aarch64")),
    }
}

/// Runs a command.
pub(super) fn run(client: &Client, format: Format, command: ImageCommand) -> Result<(), Failure> {
    let path = |image: &str| format!("images/{}", encode(image));
    match command {
        ImageCommand::Add(args) => add(client, format, args),
        ImageCommand::List(again) => again.list(client, SITE, format, || client.all::<ImageView>("images")),
        ImageCommand::Ingests(again) => {
            again.list(client, SITE, format, || client.all::<IngestView>("ingests"))
        }
        ImageCommand::Show { image } => format.print(&client.get::<ImageView>(&path(&image))?),
        ImageCommand::Remove { image } => {
            client.delete(&path(&image))?;
            super::deploy::line(&format!("removed {}", plain(&image)))
        }
        ImageCommand::Verify { image } => verify(client, format, &path(&image)),
        ImageCommand::Manifest { image, to } => {
            let octets = client.octets(&format!("{}/manifest", path(&image)), MANIFEST_MAX as u64)?;
            std::fs::write(&to, octets).map_err(|error| site::cannot("write", &to, &error))?;
            super::output::print(&format!("{}\n", to.display()))
        }
        ImageCommand::Sign(args) => sign(&args),
        ImageCommand::Signature { image, file, .. } => {
            let signature = file.as_deref().map(site::read).transpose()?;
            let request = SignatureRequest { signature };
            format.print(&client.post::<_, ImageView>(&format!("{}/signature", path(&image)), &request)?)
        }
    }
}

/// Signs a manifest; what is in it is said, so that whoever signs sees what.
pub(super) fn sign(args: &SignArgs) -> Result<(), Failure> {
    let octets = std::fs::read(&args.file).map_err(|error| site::cannot("read", &args.file, &error))?;
    let manifest = Manifest::parse(&octets).map_err(|error| Failure::Hinted {
        message: format!("{}: {error}", args.file.display()),
        hint: "give the file as `billet image manifest` writes it".to_owned(),
    })?;
    let number = args.number.unwrap_or_else(|| crate::engine::now().0);
    let key = site::private(&args.key)?;
    let to = args.file.with_added_extension("minisig");
    let signature = images::trust::sign(&key, &manifest, number);
    std::fs::write(&to, signature).map_err(|error| site::cannot("write", &to, &error))?;
    super::output::print(&format!(
        "{}: {} {} ({}), number {number}, by key {}\n",
        to.display(),
        manifest.name,
        manifest.version,
        manifest.id(),
        key.public().id()
    ))
}

fn verify(client: &Client, format: Format, path: &str) -> Result<(), Failure> {
    let empty = serde_json::json!({});
    let report: VerifyView = client.post_with(&format!("{path}/verify"), &empty, None, None)?;
    format.print(&report)?;
    if report.good {
        return Ok(());
    }
    Err(Failure::Hinted {
        message: format!("image {} is damaged", report.image),
        hint: "check the server's disk, remove the image and add it again".to_owned(),
    })
}

fn add(client: &Client, format: Format, args: AddArgs) -> Result<(), Failure> {
    let is_url = args.source.starts_with("http://") || args.source.starts_with("https://");
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&args.source).ok_or_else(|| {
            Failure::Usage(format!("`{}` gives no name for the image: use --name", plain(&args.source)))
        })?,
    };
    let version = args.version.clone().unwrap_or_else(today);
    for (what, text) in [("name", &name), ("version", &version)] {
        if !is_name(text) {
            return Err(Failure::Usage(format!(
                "{what} `{}` must be 1 to 64 of a-z, 0-9, `.`, `-`, `_`",
                plain(text)
            )));
        }
    }
    if is_url || args.on_server {
        return add_on_server(client, format, args, name, version, is_url);
    }
    upload(client, format, &args, &name, &version)
}

fn add_on_server(
    client: &Client,
    format: Format,
    args: AddArgs,
    name: String,
    version: String,
    is_url: bool,
) -> Result<(), Failure> {
    let (url, path) = if is_url { (Some(args.source), None) } else { (None, Some(args.source.into())) };
    let request = IngestRequest {
        name,
        version,
        path,
        url,
        size: None,
        sha256: args.sha256,
        architecture: Some(args.architecture),
        default_user: args.default_user,
        datasource: args.datasource,
        minimum_disk: args.minimum_disk,
    };
    let key = uuid::Uuid::new_v4().to_string();
    let mut ingest: IngestView =
        client.post_with("images", &request, Some(Duration::from_secs(60)), Some(&key))?;
    let bar = Bar::new(&ingest.image, ingest.bytes_total.unwrap_or(0));
    loop {
        bar.set(ingest.bytes_read, ingest.bytes_total);
        if let Some(image) = ingest.finished {
            bar.end();
            return format.print(&client.get::<ImageView>(&format!("images/{image}"))?);
        }
        if let Some(problem) = ingest.failed {
            bar.end();
            return Err(Failure::Problem(problem));
        }
        thread::sleep(INTERVAL);
        ingest = client.get(&format!("ingests/{}", ingest.id))?;
    }
}

fn upload(client: &Client, format: Format, args: &AddArgs, name: &str, version: &str) -> Result<(), Failure> {
    let refuse = |e: io::Error| Failure::Usage(format!("cannot read {}: {e}", plain(&args.source)));
    let file = File::open(&args.source).map_err(refuse)?;
    let metadata = file.metadata().map_err(refuse)?;
    if !metadata.is_file() {
        return Err(Failure::Usage(format!("{} is not a file", plain(&args.source))));
    }
    let size = metadata.len();
    let arch = serde_json::to_value(args.architecture).ok().and_then(|v| v.as_str().map(str::to_owned));
    let mut path = format!("images/upload?name={name}&version={version}&size={size}");
    let more = [
        ("sha256", args.sha256.map(|s| s.to_string())),
        ("architecture", arch),
        ("default_user", args.default_user.clone()),
        ("datasource", args.datasource.map(|word| word.as_str().to_owned())),
        ("minimum_disk", args.minimum_disk.map(|m| m.to_string())),
    ];
    for (key, value) in more {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", encode(&value)));
        }
    }
    let bar = Bar::new(&format!("{name} {version}"), size);
    let mut reader = Counted::new(file, size, &bar);
    let key = uuid::Uuid::new_v4().to_string();
    let added = client.upload::<ImageView>(&path, size, &key, &mut reader);
    bar.end();
    format.print(&added?)
}

/// `debian-12` of `/srv/Debian-12.raw.zst` or `https://host/debian-12.qcow2?x`.
fn name_of(source: &str) -> Option<String> {
    let source = source.split(['?', '#']).next()?;
    let file = Path::new(source).file_name()?.to_str()?;
    let mut name = file.to_ascii_lowercase();
    for ending in [".zst", ".gz", ".xz", ".raw", ".img", ".qcow2"] {
        if let Some(rest) = name.strip_suffix(ending) {
            name = rest.to_owned();
        }
    }
    is_name(&name).then_some(name)
}

fn today() -> String {
    jiff::Timestamp::now().strftime("%Y%m%d").to_string()
}

pub(super) struct Counted<'a> {
    inner: File,
    done: u64,
    total: u64,
    bar: &'a Bar,
}

impl<'a> Counted<'a> {
    /// A file of `total` octets that is sent.
    pub(super) fn new(inner: File, total: u64, bar: &'a Bar) -> Self {
        Self { inner, done: 0, total, bar }
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.done += n as u64;
        self.bar.set(self.done, Some(self.total));
        Ok(n)
    }
}

/// A bar on a terminal, nothing elsewhere.
pub(super) struct Bar(Option<ProgressBar>);

impl Bar {
    pub(super) fn new(what: &str, total: u64) -> Self {
        Self(io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = "{prefix} [{bar:30}] {decimal_bytes} of {decimal_total_bytes} {decimal_bytes_per_sec} {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(plain(what));
            bar
        }))
    }

    pub(super) fn set(&self, done: u64, total: Option<u64>) {
        if let Some(bar) = &self.0 {
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_position(done);
        }
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Show for Page<IngestView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No image is on its way in.".to_owned();
        }
        let rows = self.items.iter().map(|ingest| {
            let read = match ingest.bytes_total {
                Some(total) => format!("{} of {}", bytes(ingest.bytes_read), bytes(total)),
                None => bytes(ingest.bytes_read),
            };
            let state = match (&ingest.failed, &ingest.finished) {
                (Some(problem), _) => format!("refused: {}", problem.message),
                (None, Some(_)) => "added".to_owned(),
                (None, None) => "is read".to_owned(),
            };
            vec![ingest.image.clone(), read, state, ingest.id.to_string()]
        });
        table(&["image", "read", "state", "id"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|ingest| ingest.id.to_string()).collect()
    }
}

impl Show for Page<ImageView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No images. Add one: billet image add FILE".to_owned();
        }
        let rows = self.items.iter().map(|i| {
            vec![
                i.name.clone(),
                i.version.clone(),
                i.architecture.clone(),
                i.firmware.join(", "),
                bytes(i.data_bytes),
                bytes(i.minimum_disk),
                moment(i.added),
                i.signed.as_ref().map_or_else(|| "NOBODY".to_owned(), |by| by.title.clone()),
                i.used_by.len().to_string(),
                short(i.id),
            ]
        });
        table(
            &[
                "name",
                "version",
                "architecture",
                "firmware",
                "data",
                "disk",
                "added",
                "signed by",
                "nodes",
                "id",
            ],
            rows,
        )
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|i| format!("{}:{}", i.name, i.version)).collect()
    }
}

fn short(id: ImageId) -> String {
    id.to_string().chars().take(12).collect()
}

impl Show for ImageView {
    fn table(&self) -> String {
        facts(&[
            ("name", Some(self.name.clone())),
            ("version", Some(self.version.clone())),
            ("id", Some(self.id.to_string())),
            ("architecture", Some(self.architecture.clone())),
            ("firmware", Some(self.firmware.join(", "))),
            ("raw disk", Some(bytes(self.raw_bytes))),
            ("data", Some(format!("{} in {} chunks", bytes(self.data_bytes), self.chunks))),
            ("minimum disk", Some(bytes(self.minimum_disk))),
            ("sha256", Some(self.sha256.to_string())),
            ("default user", self.default_user.clone()),
            ("datasource", Some(self.datasource.as_str().to_owned())),
            ("added", Some(moment(self.added))),
            ("origin", Some(self.origin.clone())),
            (
                "signed by",
                self.signed.as_ref().map(|by| format!("{} ({}), number {}", by.title, by.key, by.number)),
            ),
            ("NOT DEPLOYABLE", self.unsigned.clone()),
            ("used by", Some(self.used_by.join(", ")).filter(|u| !u.is_empty())),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![format!("{}:{}", self.name, self.version)]
    }
}

impl Show for VerifyView {
    fn table(&self) -> String {
        let mut text = if self.good {
            format!("image {} is whole: {} chunks checked\n", self.image, self.checked)
        } else {
            format!("image {}: {} chunks checked, {} bad\n", self.image, self.checked, self.bad.len())
        };
        for bad in &self.bad {
            text.push_str(&format!("chunk {} at byte {}: {}\n", bad.index, bad.offset, plain(&bad.fault)));
        }
        if let Some(found) = self.whole {
            text.push_str(&format!("the whole disk hashes to {found}\n"));
        }
        text
    }

    fn names(&self) -> Vec<String> {
        self.bad.iter().map(|b| b.id.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn names_come_from_files() {
        assert_eq!(name_of("/srv/Debian-12.raw.zst").as_deref(), Some("debian-12"));
        assert_eq!(name_of("https://host/a/noble.img?x=1").as_deref(), Some("noble"));
        assert_eq!(name_of("disk.qcow2").as_deref(), Some("disk"));
        assert_eq!(name_of("my image.raw"), None);
        assert_eq!(name_of("/"), None);
    }
}
