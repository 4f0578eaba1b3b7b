//! `billet network`, `provider`, `subnet`, `port`, `security-group`, `router`, `floating` and `mirror`: networks of projects.

mod addresses;
mod groups;
mod networks;
mod ports;
mod routers;
mod show;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::output::{Format, Show};
use super::server::ProjectArg;
use crate::view::Page;

pub use addresses::{FloatingCommand, MirrorCommand};
pub use groups::GroupCommand;
pub use networks::{NetworkCommand, ProviderCommand};
pub use ports::{PortCommand, SubnetCommand};
pub use routers::RouterCommand;

pub(super) use networks::provider;

/// Something of a project's networks.
#[derive(Debug, Args)]
pub struct OverlayArgs<C: Subcommand> {
    /// In which project.
    #[command(flatten)]
    project: ProjectArg,
    /// What to do.
    #[command(subcommand)]
    command: C,
}

/// What can be done with a kind of thing.
pub(super) trait Verbs: Subcommand {
    /// Its collection in the API, such as `networks`.
    const COLLECTION: &'static str;

    /// Does it.
    fn run(self, of: &Collection<'_>) -> Result<(), Failure>;
}

/// Runs a command on things of a project.
pub(super) fn run<C: Verbs>(client: &Client, format: Format, args: OverlayArgs<C>) -> Result<(), Failure> {
    let OverlayArgs { project, command } = args;
    command.run(&Collection { client, format, project: &project, name: C::COLLECTION })
}

/// A collection of a project in the API.
pub(super) struct Collection<'a> {
    client: &'a Client,
    format: Format,
    project: &'a ProjectArg,
    name: &'static str,
}

impl Collection<'_> {
    fn path(&self) -> Result<String, Failure> {
        self.project.path(self.name)
    }

    fn of(&self, one: &str, rest: &str) -> Result<String, Failure> {
        self.project.path(&format!("{}/{}{rest}", self.name, encode(one)))
    }

    fn list<V: DeserializeOwned>(&self, again: AgainArgs, query: &str) -> Result<(), Failure>
    where
        Page<V>: Show,
    {
        let (list, stream) = (format!("{}{query}", self.path()?), self.project.path(SITE)?);
        again.list(self.client, &stream, self.format, || self.client.all::<V>(&list))
    }

    fn show<V: DeserializeOwned + Show>(&self, one: &str) -> Result<(), Failure> {
        self.format.print(&self.client.get::<V>(&self.of(one, "")?)?)
    }

    fn create<V: DeserializeOwned + Show>(&self, request: &impl Serialize) -> Result<(), Failure> {
        self.format.print(&self.client.post::<_, V>(&self.path()?, request)?)
    }

    fn change<V: DeserializeOwned + Show>(&self, one: &str, request: &impl Serialize) -> Result<(), Failure> {
        self.format.print(&self.client.patch::<_, V>(&self.of(one, "")?, request)?)
    }

    fn ask<V: DeserializeOwned + Show>(
        &self,
        one: &str,
        verb: &str,
        request: &impl Serialize,
    ) -> Result<(), Failure> {
        self.format.print(&self.client.post::<_, V>(&self.of(one, verb)?, request)?)
    }

    fn delete(&self, one: &str) -> Result<(), Failure> {
        self.client.delete(&self.of(one, "")?)
    }
}
