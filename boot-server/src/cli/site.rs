//! `billet site key …`: the key that signs the site's images, and others that are trusted beside it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use images::minisign::{PublicKey, SecretKey};
use images::trust;

use super::Failure;
use super::client::{Client, encode};
use super::output::{Format, Show, facts, print, table};
use super::text::{moment, plain};
use crate::http::api::requests::{EmptyRequest, ImportKeyRequest, TrustKeyRequest};
use crate::secret;
use crate::view::{KeyOfSiteView, Page};

/// What the first line of a private key's file says.
const TITLE: &str = "Billet's site key, which signs images: keep it secret";

/// About the site.
#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    /// Keys that sign images: show, rotate, import, trust
    #[command(subcommand)]
    Key(KeyCommand),
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// All keys: the site's own, those that are trusted beside it, and those that were the site's
    Show,
    /// Make a new key for the site, which the old one names, and sign all images anew
    ///
    /// On the server, where the private part is there. With --key and --to on this machine, asking no server: the new key and the
    /// statement of the old one are written to files, which `billet site key import` takes.
    Rotate {
        /// Private part of the site's key, where it is not on the server
        #[arg(long, value_name = "FILE", requires = "to")]
        key: Option<PathBuf>,
        /// File for the new private key; its public part and the statement go beside it (.pub, .statement)
        #[arg(long, value_name = "FILE", requires = "key")]
        to: Option<PathBuf>,
    },
    /// Make a key on this machine, asking no server: for a site whose private part never comes to the server
    New {
        /// File for the private key; its public part goes beside it (.pub)
        file: PathBuf,
    },
    /// Make a key that was made elsewhere the site's
    ///
    /// With the private part, images are signed by the server; with the public part alone, images that are added wait for a signature by
    /// `billet image sign`.
    Import {
        /// The private key (minisign's form, no password), or the public one
        file: PathBuf,
        /// Statement by which the site's key names it; not needed where the private part of that key is on the server
        #[arg(long, value_name = "FILE", conflicts_with = "forget")]
        statement: Option<PathBuf>,
        /// The site's key is lost: DPUs and signed boot images learn of the new one by hand only
        #[arg(long)]
        forget: bool,
    },
    /// Trust somebody else's key: images that it signed are taken too
    Trust {
        /// The public key (minisign's form)
        file: PathBuf,
        /// Whose it is
        #[arg(long)]
        title: String,
    },
    /// Trust somebody else's key no more
    Distrust {
        /// Number of the key
        key: String,
    },
}

/// Runs a command; those that ask no server make no client.
pub(super) fn run(
    client: impl FnOnce() -> Result<Client, Failure>,
    format: Format,
    command: SiteCommand,
) -> Result<(), Failure> {
    let SiteCommand::Key(command) = command;
    match command {
        KeyCommand::Show => format.print(&client()?.all::<KeyOfSiteView>("site/keys")?),
        KeyCommand::Rotate { key: Some(key), to: Some(to) } => follow(&key, &to),
        KeyCommand::Rotate { .. } => {
            let key: KeyOfSiteView = client()?.post("site/keys/rotate", &EmptyRequest {})?;
            format.print(&key)
        }
        KeyCommand::New { file } => made(&file).map(drop),
        KeyCommand::Import { file, statement, forget } => {
            let text = read(&file)?;
            let is_private = SecretKey::parse(&text).is_ok();
            let (private, public) = if is_private { (Some(text), None) } else { (None, Some(text)) };
            let statement = statement.as_deref().map(read).transpose()?;
            let request = ImportKeyRequest { private, public, statement, forget };
            format.print(&client()?.post::<_, KeyOfSiteView>("site/keys/import", &request)?)
        }
        KeyCommand::Trust { file, title } => {
            let request = TrustKeyRequest { public: read(&file)?, title };
            format.print(&client()?.post::<_, KeyOfSiteView>("site/keys", &request)?)
        }
        KeyCommand::Distrust { key } => {
            client()?.delete(&format!("site/keys/{}", encode(&key)))?;
            print(&format!("key {} is not trusted any more\n", plain(&key)))
        }
    }
}

/// The key that follows, and the old one's word for it.
fn follow(key: &Path, to: &Path) -> Result<(), Failure> {
    let old = private(key)?;
    let next = made(to)?;
    let path = to.with_added_extension("statement");
    fs::write(&path, trust::succession(&old, &next)).map_err(|error| cannot("write", &path, &error))?;
    print(&format!("{}\n", path.display()))
}

/// A new key in a file, and its public part beside it.
fn made(file: &Path) -> Result<PublicKey, Failure> {
    if file.exists() {
        return Err(Failure::Usage(format!("{} is there already: give another name", file.display())));
    }
    let seed = secret::random().map_err(|error| Failure::Other(error.to_string()))?;
    let key = SecretKey::of_seed(&seed);
    secret::write_private(file, &key.to_file(TITLE)).map_err(|error| cannot("write", file, &error))?;
    let beside = file.with_added_extension("pub");
    let text = key.public().to_file("Billet's site key");
    fs::write(&beside, text).map_err(|error| cannot("write", &beside, &error))?;
    print(&format!("{}\n{}\n", file.display(), beside.display()))?;
    Ok(key.public())
}

/// A private key of this machine.
pub(super) fn private(file: &Path) -> Result<SecretKey, Failure> {
    SecretKey::parse(&read(file)?).map_err(|error| Failure::Hinted {
        message: format!("{}: {error}", file.display()),
        hint: "give a private key as `billet site key new` or `minisign -G -W` makes it".to_owned(),
    })
}

pub(super) fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| cannot("read", path, &error))
}

pub(super) fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::Other(format!("cannot {what} {}: {error}", path.display()))
}

impl Show for Page<KeyOfSiteView> {
    fn table(&self) -> String {
        let rows = self.items.iter().map(|key| {
            let place = if key.private_here { "this server" } else { "" };
            vec![
                key.id.clone(),
                key.role.clone(),
                key.title.clone(),
                place.to_owned(),
                moment(key.added),
                key.key.clone(),
            ]
        });
        table(&["key", "role", "whose", "private part", "since", "public key"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|key| key.id.clone()).collect()
    }
}

impl Show for KeyOfSiteView {
    fn table(&self) -> String {
        facts(&[
            ("key", Some(self.id.clone())),
            ("role", Some(self.role.clone())),
            ("whose", Some(self.title.clone())),
            ("private part", self.private_here.then(|| "this server".to_owned())),
            ("public key", Some(self.key.clone())),
            ("since", Some(moment(self.added))),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.id.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_and_followed_without_a_server() {
        let scratch = crate::store::tests::Scratch::new();
        fs::create_dir_all(&scratch.0).unwrap();
        let (old, next) = (scratch.0.join("old.key"), scratch.0.join("next.key"));
        let nobody = || Err(Failure::Other("a server was asked".to_owned()));
        let key = |command| run(nobody, Format::Table, SiteCommand::Key(command));
        key(KeyCommand::New { file: old.clone() }).unwrap();
        assert!(key(KeyCommand::New { file: old.clone() }).is_err(), "it would be lost");
        key(KeyCommand::Rotate { key: Some(old.clone()), to: Some(next.clone()) }).unwrap();
        let statement = read(&next.with_added_extension("statement")).unwrap();
        let old: PublicKey = read(&old.with_added_extension("pub")).unwrap().parse().unwrap();
        assert_eq!(trust::successor(&old, &statement), Some(private(&next).unwrap().public()));
    }
}
