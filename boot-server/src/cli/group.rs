//! `billet group …` and `billet catalogue`: what a project keeps together or apart, and what it can ask for.

use boot_server_core::names::GroupName;
use boot_server_core::placement::{Domain, Policy};
use boot_server_core::plural::count;
use clap::{Args, Subcommand};

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::output::{Format, Show, facts, table};
use super::placement::word;
use super::server::ProjectArg;
use super::text::{memory, moment};
use crate::http::api::place_requests::GroupRequest;
use crate::view::Page;
use crate::view::place::{CatalogueView, GroupView};

/// Server groups of a project.
#[derive(Debug, Args)]
pub struct GroupArgs {
    /// In which project.
    #[command(flatten)]
    project: ProjectArg,
    /// What to do.
    #[command(subcommand)]
    command: GroupCommand,
}

/// What can be done with server groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Server groups of the project
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One server group
    Show {
        /// Name or id
        group: String,
    },
    /// Make a server group
    Create {
        /// Name: a-z, 0-9 and . _ -
        group: GroupName,
        /// anti-affinity, affinity, soft-anti-affinity or soft-affinity
        #[arg(long, value_parser = word::<Policy>)]
        policy: Policy,
        /// In what: rack, power_feed, room or node
        #[arg(long, value_parser = word::<Domain>, default_value = "rack")]
        domain: Domain,
    },
    /// Remove a server group that no server is in
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        group: String,
    },
}

/// What a project can ask for.
#[derive(Debug, Args)]
pub struct CatalogueArgs {
    /// In which project.
    #[command(flatten)]
    project: ProjectArg,
    #[command(flatten)]
    again: AgainArgs,
}

/// Runs `billet group …`.
pub(super) fn run(client: &Client, format: Format, args: GroupArgs) -> Result<(), Failure> {
    let GroupArgs { project, command } = args;
    let of = |group: &str| project.path(&format!("server-groups/{}", encode(group)));
    match command {
        GroupCommand::List(again) => {
            let (list, stream) = (project.path("server-groups")?, project.path(SITE)?);
            again.list(client, &stream, format, || client.all::<GroupView>(&list))
        }
        GroupCommand::Show { group } => format.print(&client.get::<GroupView>(&of(&group)?)?),
        GroupCommand::Create { group, policy, domain } => {
            let request = GroupRequest { name: group, policy, domain };
            format.print(&client.post::<_, GroupView>(&project.path("server-groups")?, &request)?)
        }
        GroupCommand::Delete { group } => client.delete(&of(&group)?),
    }
}

/// Runs `billet catalogue`.
pub(super) fn catalogue(client: &Client, format: Format, args: CatalogueArgs) -> Result<(), Failure> {
    let (path, stream) = (args.project.path("catalogue")?, args.project.path(SITE)?);
    args.again.list(client, &stream, format, || client.get::<CatalogueView>(&path))
}

impl Show for Page<GroupView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No server groups. Make one with `billet group create NAME --policy anti-affinity`."
                .to_owned();
        }
        let rows = self.items.iter().map(|group| {
            vec![
                group.name.to_string(),
                group.policy.to_string(),
                group.domain.to_string(),
                moment(group.created),
            ]
        });
        table(&["group", "policy", "domain", "made"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|group| group.name.to_string()).collect()
    }
}

impl Show for GroupView {
    fn table(&self) -> String {
        facts(&[
            ("name", Some(self.name.to_string())),
            ("id", Some(self.id.to_string())),
            ("policy", Some(self.policy.to_string())),
            ("domain", Some(self.domain.to_string())),
            ("made by", Some(self.created_by.clone())),
            ("made", Some(moment(self.created))),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.to_string()]
    }
}

impl Show for CatalogueView {
    fn table(&self) -> String {
        let flavors = self.flavors.iter().map(|offer| {
            let numbers = [offer.capacity.free, offer.capacity.used, offer.capacity.total];
            let counts =
                format!("{}, {}", count(offer.counts.cores, "core"), memory(offer.counts.memory_mib << 20));
            let head = vec![offer.name.to_string()];
            [head, numbers.map(|n| n.to_string()).to_vec(), vec![counts, offer.description.clone()]].concat()
        });
        let images = self
            .images
            .iter()
            .map(|image| vec![image.name.clone(), image.version.clone(), image.architecture.clone()]);
        let headings = ["flavor", "free", "used", "total", "counts", "description"];
        format!("{}\n\n{}\n", table(&headings, flavors), table(&["image", "version", "architecture"], images))
    }

    fn names(&self) -> Vec<String> {
        self.flavors.iter().map(|offer| offer.name.to_string()).collect()
    }
}
