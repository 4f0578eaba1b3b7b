//! Servers that this user works with, by name: `billet context …`, `--context`. They are in a file of the user's own that
//! nobody else can read, because it holds tokens.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::client::{Connection, directory};
use super::output::{Format, Show, table};
use super::text::plain;
use super::{Failure, login};
use crate::secret::write_private;

/// What can be done with contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Servers that are remembered; a star marks the one that is used
    #[command(visible_alias = "ls")]
    List,
    /// Use a server from now on
    Use {
        /// Name of the context
        name: String,
    },
    /// Remember a server: the one of --server, with the token of --token-file or BILLET_TOKEN, or one that is asked for
    Set {
        /// Name of the context
        name: String,
    },
    /// Forget a server and its token
    #[command(visible_alias = "rm")]
    Remove {
        /// Name of the context
        name: String,
    },
}

/// A server, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Context {
    pub server: String,
    pub token: String,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Contexts {
    /// Used where none is named.
    current: Option<String>,
    contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Those of this user; none where there is no file.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn read() -> Result<Self, Failure> {
        let Some(path) = file() else { return Ok(Self::default()) };
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|e| Failure::Other(format!("{} is damaged: {e}", path.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Failure::Other(format!("cannot read {}: {e}", path.display()))),
        }
    }

    /// The one of this name, or the one that is used.
    ///
    /// # Errors
    /// Where there is none of this name.
    pub fn find(&self, name: Option<&str>) -> Result<Option<&Context>, Failure> {
        match name.or(self.current.as_deref()) {
            None => Ok(None),
            Some(name) => self.contexts.get(name).map(Some).ok_or_else(|| missing(name)),
        }
    }

    fn write(&self) -> Result<(), Failure> {
        let nowhere =
            || Failure::Other("neither HOME nor XDG_CONFIG_HOME says where to remember it".to_owned());
        let path = file().ok_or_else(nowhere)?;
        let text = serde_json::to_string_pretty(self).map_err(|e| Failure::Other(e.to_string()))?;
        write_private(&path, &text)
            .map_err(|e| Failure::Other(format!("cannot write {}: {e}", path.display())))
    }
}

fn missing(name: &str) -> Failure {
    Failure::Hinted {
        message: format!("no context `{}`", plain(name)),
        hint: "list them with `billet context list`".to_owned(),
    }
}

fn file() -> Option<PathBuf> {
    Some(directory()?.join("contexts.json"))
}

/// Runs a command.
pub(super) fn run(connection: &Connection, format: Format, command: ContextCommand) -> Result<(), Failure> {
    let mut known = Contexts::read()?;
    match command {
        ContextCommand::List => return format.print(&Shown::of(&known)),
        ContextCommand::Use { name } => {
            known.find(Some(&name))?;
            known.current = Some(name);
        }
        ContextCommand::Set { name } => {
            if name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(Failure::Usage("a context has a name without spaces".to_owned()));
            }
            let server = connection.given().ok_or_else(|| Failure::Usage("give --server".to_owned()))?;
            let token = match connection.given_token()? {
                Some(token) => token,
                None => login::ask(&server)?,
            };
            known.contexts.insert(name.clone(), Context { server, token });
            known.current.get_or_insert(name);
        }
        ContextCommand::Remove { name } => {
            known.contexts.remove(&name).ok_or_else(|| missing(&name))?;
            known.current.take_if(|current| *current == name);
        }
    }
    known.write()
}

/// What is shown of a context; never its token.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    server: String,
    current: bool,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Shown(Vec<Line>);

impl Shown {
    fn of(known: &Contexts) -> Self {
        let line = |(name, context): (&String, &Context)| Line {
            name: name.clone(),
            server: context.server.clone(),
            current: known.current.as_ref() == Some(name),
        };
        Self(known.contexts.iter().map(line).collect())
    }
}

impl Show for Shown {
    fn table(&self) -> String {
        if self.0.is_empty() {
            return "No contexts. Remember a server with `billet context set NAME --server URL`.".to_owned();
        }
        let mark = |line: &Line| if line.current { "*" } else { "" }.to_owned();
        table(&["", "name", "server"], self.0.iter().map(|l| vec![mark(l), l.name.clone(), l.server.clone()]))
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|line| line.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Contexts {
        let context = |server: &str| Context { server: server.to_owned(), token: "secret-of-it".to_owned() };
        let contexts = [("lab", "http://lab:8090"), ("prod", "https://prod")];
        let contexts = contexts.into_iter().map(|(name, server)| (name.to_owned(), context(server)));
        Contexts { current: Some("lab".to_owned()), contexts: contexts.collect() }
    }

    #[test]
    fn the_named_one_goes_before_the_one_in_use() {
        let known = known();
        assert_eq!(known.find(None).unwrap().unwrap().server, "http://lab:8090");
        assert_eq!(known.find(Some("prod")).unwrap().unwrap().server, "https://prod");
        assert!(known.find(Some("none")).unwrap_err().to_string().contains("no context `none`"));
        assert!(Contexts::default().find(None).unwrap().is_none());
    }

    #[test]
    fn tokens_are_never_shown() {
        for format in [Format::Table, Format::Json, Format::Yaml, Format::Name] {
            let text = format.render(&Shown::of(&known())).unwrap();
            assert!(text.contains("lab") && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn the_file_is_the_owner_s_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let path =
            std::env::temp_dir().join(format!("billet-contexts-{}/contexts.json", uuid::Uuid::new_v4()));
        write_private(&path, "{}").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, &serde_json::to_string(&known()).unwrap()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
