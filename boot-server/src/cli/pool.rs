//! `billet pool …`: sets of machines, and to whom they are offered.

use boot_server_core::names::{PoolName, Tag};
use boot_server_core::plural::count;
use boot_server_core::pool::{EraseWhen, Idle, Offer, Pool};
use clap::{Args, Subcommand};
use protocol::ProjectId;

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::node::path;
use super::output::{Format, Show, facts, table};
use super::text::moment;
use crate::http::api::place_requests::{NodePoolRequest, NodeTagsRequest};
use crate::view::place::PoolView;
use crate::view::{NodeDetail, NodeView, Page};

/// What can be done with pools.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// All pools
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One pool
    Show {
        /// Name
        pool: String,
    },
    /// Make a pool
    Create {
        /// Name: a-z, 0-9 and . _ -
        pool: PoolName,
        #[command(flatten)]
        change: PoolArgs,
    },
    /// Change a pool; what is not named stays
    Set {
        /// Name
        pool: String,
        #[command(flatten)]
        change: PoolArgs,
    },
    /// Remove a pool that no machine is in
    #[command(visible_alias = "rm")]
    Delete {
        /// Name
        pool: String,
    },
    /// Put nodes into a pool
    Put {
        /// Name of the pool
        pool: PoolName,
        /// Names or ids of nodes
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Say of a node what its inventory does not
    Tag {
        /// Name or id of the node
        node: String,
        /// Tags to add: a-z, 0-9 and . _ - = : /
        tags: Vec<Tag>,
        /// Tags to take away
        #[arg(long, value_name = "TAG")]
        remove: Vec<Tag>,
    },
}

/// What a pool is.
#[derive(Debug, Args)]
pub struct PoolArgs {
    /// For people
    #[arg(long)]
    description: Option<String>,
    /// Offered to this project alone, by name or id; again for more
    #[arg(long, value_name = "PROJECT", conflicts_with = "all_projects")]
    project: Vec<String>,
    /// Offered to every project
    #[arg(long)]
    all_projects: bool,
    /// What destroys something on its machines needs a second person
    #[arg(long, value_name = "YES")]
    four_eyes: Option<bool>,
    /// When disks are erased: between-tenants, always, when-asked
    #[arg(long, value_name = "WHEN")]
    erase: Option<String>,
    /// Switch idle machines off after so many minutes; `keep`: leave them on
    #[arg(long, value_name = "MINUTES")]
    idle_off: Option<String>,
    /// Take other machines before those of this pool: what each costs from the start
    #[arg(long, value_name = "WEIGHT")]
    base_weight: Option<u32>,
}

impl PoolArgs {
    fn apply(self, client: &Client, pool: &mut Pool) -> Result<(), Failure> {
        if let Some(description) = self.description {
            pool.description = description;
        }
        if self.all_projects {
            pool.offered = Offer::All;
        } else if !self.project.is_empty() {
            let ids = self.project.iter().map(|project| project_id(client, project));
            pool.offered = Offer::Projects(ids.collect::<Result<_, _>>()?);
        }
        pool.four_eyes = self.four_eyes.unwrap_or(pool.four_eyes);
        pool.erase = match self.erase.as_deref() {
            None => pool.erase,
            Some("between-tenants") => EraseWhen::BetweenTenants,
            Some("always") => EraseWhen::Always,
            Some("when-asked") => EraseWhen::WhenAsked,
            Some(other) => {
                return Err(Failure::Usage(format!(
                    "`{other}` is none of between-tenants, always, when-asked"
                )));
            }
        };
        pool.idle = match self.idle_off.as_deref() {
            None => pool.idle,
            Some("keep") => Idle::Keep,
            Some(minutes) => Idle::OffAfterMinutes(minutes.parse().map_err(|_| {
                Failure::Usage(format!("`{minutes}` is neither `keep` nor a number of minutes"))
            })?),
        };
        pool.weights.base = self.base_weight.unwrap_or(pool.weights.base);
        Ok(())
    }
}

/// The id of a project that is given by name or id.
fn project_id(client: &Client, reference: &str) -> Result<ProjectId, Failure> {
    match reference.parse() {
        Ok(id) => Ok(id),
        Err(_) => {
            let project: crate::view::ProjectView = client.get(&format!("projects/{}", encode(reference)))?;
            Ok(project.id)
        }
    }
}

fn address(name: &str) -> String {
    format!("pools/{}", encode(name))
}

/// Runs a command.
pub(super) fn run(client: &Client, format: Format, command: PoolCommand) -> Result<(), Failure> {
    match command {
        PoolCommand::List(again) => again.list(client, SITE, format, || client.all::<PoolView>("pools")),
        PoolCommand::Show { pool } => format.print(&client.get::<PoolView>(&address(&pool))?),
        PoolCommand::Create { pool, change } => {
            let mut pool = Pool::new(pool);
            change.apply(client, &mut pool)?;
            format.print(&client.post::<_, PoolView>("pools", &pool)?)
        }
        PoolCommand::Set { pool, change } => {
            let changed = client.change(&address(&pool), |view: PoolView| {
                let mut pool = view.pool;
                change.apply(client, &mut pool)?;
                Ok(pool)
            });
            format.print::<PoolView>(&changed?)
        }
        PoolCommand::Delete { pool } => client.delete(&address(&pool)),
        PoolCommand::Put { pool, nodes } => {
            let request = NodePoolRequest { pool: Some(pool) };
            let moved = nodes.iter().map(|node| client.put::<_, NodeView>(&path(node, "/pool"), &request));
            format.print(&Page { items: moved.collect::<Result<Vec<_>, _>>()?, next: None })
        }
        PoolCommand::Tag { node, tags, remove } => {
            let detail: NodeDetail = client.get(&path(&node, ""))?;
            let mut all = detail.node.tags;
            all.extend(tags);
            all.retain(|tag| !remove.contains(tag));
            let request = NodeTagsRequest { tags: all };
            format.print(&client.put::<_, NodeView>(&path(&node, "/tags"), &request)?)
        }
    }
}

fn offered(pool: &Pool) -> String {
    match &pool.offered {
        Offer::All => "all".to_owned(),
        Offer::Projects(projects) if projects.is_empty() => "nobody".to_owned(),
        Offer::Projects(projects) => count(projects.len(), "project"),
    }
}

fn idle(pool: &Pool) -> String {
    match pool.idle {
        Idle::Keep => "stays on".to_owned(),
        Idle::OffAfterMinutes(minutes) => format!("off after {minutes} min"),
    }
}

impl Show for Page<PoolView> {
    fn table(&self) -> String {
        let rows = self.items.iter().map(|view| {
            let pool = &view.pool;
            vec![
                pool.name.to_string(),
                view.nodes.to_string(),
                offered(pool),
                if pool.four_eyes { "yes" } else { "" }.to_owned(),
                idle(pool),
                pool.description.clone(),
            ]
        });
        table(&["pool", "nodes", "offered to", "four eyes", "idle", "description"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|view| view.pool.name.to_string()).collect()
    }
}

impl Show for PoolView {
    fn table(&self) -> String {
        let pool = &self.pool;
        let projects = match &pool.offered {
            Offer::All => "all projects".to_owned(),
            Offer::Projects(projects) => {
                projects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            }
        };
        let w = &pool.weights;
        facts(&[
            ("name", Some(pool.name.to_string())),
            ("description", Some(pool.description.clone()).filter(|text| !text.is_empty())),
            ("nodes", Some(self.nodes.to_string())),
            ("offered to", Some(projects)),
            ("four eyes", Some(if pool.four_eyes { "yes" } else { "no" }.to_owned())),
            ("idle", Some(idle(pool))),
            (
                "weights",
                Some(format!(
                    "base {}, core {}, GiB {}, disk {}, GPU {}, DPU {}",
                    w.base, w.core, w.memory_gib, w.disk, w.gpu, w.dpu
                )),
            ),
            ("changed", Some(moment(self.changed))),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.pool.name.to_string()]
    }
}
