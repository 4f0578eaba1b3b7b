//! New servers: machines are placed and claimed, all or none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use boot_server_core::amounts::Amounts;
use boot_server_core::cloud_config::Login;
use boot_server_core::deploy;
use boot_server_core::node::Severity;
use boot_server_core::placement::{self, By, Candidate, Reason, ReasonCode, Rejected, Request, Wanted};
use boot_server_core::server::{BATCH_MAX, BootVolume, Phase, Server, Spec, names, os_disk};
use images::Manifest;
use protocol::limits::USER_DATA_MAX;
use protocol::{GroupId, NetworkId, NodeId, ProjectId, ServerId};
use serde::{Deserialize, Serialize};

use super::super::deploys::{fingerprint, forgotten};
use super::super::volumes::boot_amounts;
use super::{Actor, Engine, EngineError, ServerError, fresh, line, now};
use crate::asking::carried;
use crate::store::StoreError;
use crate::store::queries::Remembered;
use crate::store::servers::{self as rows, Claim, NotClaimed};

/// How often machines are looked for anew where others were faster: by another Billet over the same database.
const TRIES_MAX: usize = 16;
/// Servers of one project, whatever its quota says.
const SERVERS_MAX: u64 = 10_000;

/// What a server is to have that its machine's DPU presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Needs<'a> {
    /// The volume that the OS is on, if it is on one.
    pub volume: Option<&'a BootVolume>,
    /// It is on these networks.
    pub networks: &'a [NetworkId],
}

/// Servers that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewServers {
    /// The name, or a pattern with `{n}` for the number.
    pub name: String,
    /// How many.
    pub count: usize,
    /// Of this flavor.
    pub flavor: Option<String>,
    /// This machine, by name or id.
    pub node: Option<String>,
    /// Only from this pool.
    pub pool: Option<String>,
    /// Image: its id, its name (newest version), or `name:version`.
    pub image: String,
    /// User to make; the image's default user if not given.
    pub user: Option<String>,
    /// Names of keys of the project.
    pub keys: Vec<String>,
    /// Public keys as they are.
    pub ssh_keys: Vec<String>,
    /// cloud-init user data.
    pub user_data: Option<String>,
    /// A server group of the project, by name or id.
    pub group: Option<String>,
    /// The OS is put on a volume.
    pub boot_volume: Option<BootVolume>,
    /// Networks of the project, by name or id, on which each gets a port.
    pub networks: Vec<String>,
}

/// What was asked for, with everything looked up that does not change while machines are looked for.
struct Wish {
    project: ProjectId,
    names: Vec<String>,
    flavor: Option<String>,
    wanted: Wanted,
    billed: Option<Amounts>,
    spec: Spec,
    manifest: Arc<Manifest>,
    group: Option<GroupId>,
    pool: Option<boot_server_core::names::PoolName>,
    words: String,
    remember: Option<Remembered>,
}

impl Engine {
    /// Makes servers: claims a machine for each, all or none. Their OS is put on them behind this call. With an idempotency key the
    /// same request is done once and answered again.
    ///
    /// # Errors
    /// [`ServerError`], [`EngineError::NameTaken`], [`EngineError::KeyReused`], or where a store fails.
    pub async fn create_servers(
        &self,
        project: ProjectId,
        actor: Actor,
        request: NewServers,
        idempotency_key: Option<String>,
    ) -> Result<Vec<Server>, EngineError> {
        let scope = format!("servers {project}");
        let print = fingerprint(&request);
        if let Some(key) = &idempotency_key
            && let Some(answer) = self.answered(&scope, key, &print).await?
        {
            return self.remembered_servers(&answer).await;
        }
        let remember =
            idempotency_key.map(|key| Remembered { scope, key, request: print, answer: String::new() });
        let wish = self.look_up(project, request, remember).await?;
        // Ended also where whoever asked goes away meanwhile: memory and database agree on what was claimed.
        let engine = self.clone();
        tokio::spawn(carried(async move { engine.claim(wish, &actor).await })).await?
    }

    async fn look_up(
        &self,
        project: ProjectId,
        request: NewServers,
        remember: Option<Remembered>,
    ) -> Result<Wish, EngineError> {
        if !(1..=BATCH_MAX).contains(&request.count) {
            let what = format!("{} servers in one request are not from 1 to {BATCH_MAX}", request.count);
            return Err(bad(what, "ask several times").into());
        }
        let names = names(&request.name, request.count).map_err(ServerError::BadName)?;
        let (image, manifest) = self.resolve_image(&request.image).await?;
        let mut ssh_keys = request.ssh_keys.clone();
        for name in &request.keys {
            ssh_keys.push(self.key(project, name).await?.public_key);
        }
        let user = request.user.clone().filter(|user| !user.is_empty());
        check_login(&names[0], user.as_deref().or(manifest.default_user.as_deref()), &ssh_keys)?;
        if request.user_data.as_ref().is_some_and(|data| data.len() > USER_DATA_MAX) {
            return Err(
                bad(format!("user data is larger than {USER_DATA_MAX} bytes"), "make it smaller").into()
            );
        }
        let (wanted, flavor, billed, words) = self.wanted(&request).await?;
        let pool = match &request.pool {
            Some(pool) => Some(pool.parse().map_err(|_| no_such("pool", pool))?),
            None => None,
        };
        let group = match &request.group {
            Some(group) => Some(self.server_group(project, group).await?.id),
            None => None,
        };
        let spec = Spec {
            image,
            image_name: format!("{} {}", manifest.name, manifest.version),
            hostname: String::new(),
            user,
            ssh_keys,
            user_data: request.user_data,
            boot_volume: request.boot_volume,
            networks: self.networks_of(project, &request.networks)?,
        };
        Ok(Wish { project, names, flavor, wanted, billed, spec, manifest, group, pool, words, remember })
    }

    async fn wanted(
        &self,
        request: &NewServers,
    ) -> Result<(Wanted, Option<String>, Option<Amounts>, String), EngineError> {
        match (&request.flavor, &request.node) {
            (Some(_), Some(_)) | (None, None) => {
                Err(bad("a server is of a flavor, or on a node that is named".to_owned(), "give one of both")
                    .into())
            }
            (Some(name), None) => {
                let flavor = self.flavor(name).await?;
                if flavor.withdrawn {
                    return Err(
                        bad(format!("flavor {name} is not offered any more"), "choose another").into()
                    );
                }
                let billed = flavor.billed();
                let amounts = Amounts {
                    servers: 1,
                    cores: billed.cores,
                    memory_mib: billed.memory_mib,
                    disks: billed.disks,
                    ..Amounts::default()
                };
                let words = format!("flavor {name}");
                Ok((Wanted::Flavor(flavor), Some(name.clone()), Some(amounts), words))
            }
            (None, Some(_)) if request.count != 1 => {
                Err(bad("one node is one server".to_owned(), "leave `count` out, or ask for a flavor").into())
            }
            // A node of another project's pool answers as one that is not there: placement says only that none is offered.
            (None, Some(reference)) => {
                let words = format!("node {}", reference.chars().take(80).collect::<String>());
                match self.node(reference).await {
                    Ok(node) => Ok((Wanted::Node(node.id), None, None, words)),
                    Err(EngineError::NodeNotFound(_)) => {
                        Err(ServerError::NoCapacity { asked: words, count: 1, rejected: Vec::new() }.into())
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    async fn claim(&self, wish: Wish, actor: &Actor) -> Result<Vec<Server>, EngineError> {
        // One at a time: the next one sees what this one took.
        let _turn = self.0.claims.lock().await;
        for _ in 0..TRIES_MAX {
            let (servers, group) = self.place_servers(&wish, actor).await?;
            match self.store_claim(&wish, &servers, group, actor).await {
                Ok(()) => return Ok(servers),
                Err(StoreError::Claim(NotClaimed::NodeTaken(node))) => {
                    if let Some(slot) = self.0.nodes.slot(node) {
                        self.reload(node, &slot).await?;
                    }
                }
                Err(StoreError::Claim(NotClaimed::GroupChanged)) => {}
                // The same request came twice at once, and the other one was first.
                Err(StoreError::Conflict) => {
                    let Some(it) = &wish.remember else { return Err(StoreError::Conflict.into()) };
                    let answer = self.answered(&it.scope, &it.key, &it.request).await?;
                    return self.remembered_servers(&answer.ok_or(StoreError::Conflict)?).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let count = wish.names.len();
        Err(ServerError::NoCapacity { asked: wish.words, count, rejected: Vec::new() }.into())
    }

    /// Chooses machines, and makes the servers that would have them.
    async fn place_servers(
        &self,
        wish: &Wish,
        actor: &Actor,
    ) -> Result<(Vec<Server>, Option<(GroupId, BTreeSet<NodeId>)>), EngineError> {
        let (project, of) = (wish.project, wish.group);
        let read = move |db: &_| {
            let members = of.map(|group| rows::group_nodes(db, project, group)).transpose()?;
            Ok((rows::count(db, project)?, members))
        };
        let (count, members) = self.store().read(read).await?;
        if count + wish.names.len() as u64 > SERVERS_MAX {
            return Err(ServerError::Full("servers").into());
        }
        let group = match (of, &members) {
            (Some(group), Some(members)) => Some(self.placement_group(project, group, members).await?),
            _ => None,
        };
        let request = Request {
            by: By::Project(project),
            wanted: wish.wanted.clone(),
            count: wish.names.len(),
            pool: wish.pool.clone(),
            group,
        };
        let nodes = self.choose(wish, &request).await?;
        let mut servers = Vec::with_capacity(nodes.len());
        for (name, node) in wish.names.iter().zip(nodes) {
            servers.push(self.new_server(wish, name, node, actor).await?);
        }
        Ok((servers, of.zip(members.map(|members| members.into_iter().collect()))))
    }

    /// Machines that fit by placement and can take the image.
    async fn choose(&self, wish: &Wish, request: &Request) -> Result<Vec<NodeId>, EngineError> {
        let mut candidates: Vec<Candidate> = self.candidates().await?;
        let mut unfit: BTreeMap<NodeId, Rejected> = BTreeMap::new();
        loop {
            let nodes = placement::place(request, &candidates).map_err(|mut rejected| {
                rejected.extend(std::mem::take(&mut unfit).into_values());
                ServerError::NoCapacity { asked: wish.words.clone(), count: wish.names.len(), rejected }
            })?;
            let before = unfit.len();
            let needs = Needs { volume: wish.spec.boot_volume.as_ref(), networks: &wish.spec.networks };
            for node in &nodes {
                if let Err(why) = self.takes(*node, &wish.manifest, needs).await? {
                    let name = self.0.nodes.get(*node).map(|n| n.name.clone()).unwrap_or_default();
                    let reasons = vec![Reason { code: ReasonCode::Flavor, words: why }];
                    unfit.insert(*node, Rejected { node: *node, name, reasons });
                }
            }
            if unfit.len() == before {
                return Ok(nodes);
            }
            candidates.retain(|candidate| !unfit.contains_key(&candidate.node));
        }
    }

    /// Whether the machine can be what is wished for; if not, why.
    pub(in crate::engine) async fn takes(
        &self,
        node: NodeId,
        manifest: &Manifest,
        needs: Needs<'_>,
    ) -> Result<Result<(), String>, EngineError> {
        if let Some(boots) = needs.volume
            && let Err(why) = self.takes_boot_volume(node, boots).await?
        {
            return Ok(Err(why));
        }
        if !needs.networks.is_empty()
            && let Err(why) = self.takes_networks(node, needs.networks).await?
        {
            return Ok(Err(why));
        }
        if needs.volume.is_none() {
            return self.takes_image(node, manifest).await;
        }
        let Some(inventory) = self.inventory(node).await? else {
            return Ok(Err("it was never inspected".to_owned()));
        };
        Ok(deploy::check_firmware(&inventory, manifest).map_err(|refused| refused.message))
    }

    /// Whether the image can be put on a disk of this machine; if not, why.
    async fn takes_image(
        &self,
        node: NodeId,
        manifest: &Manifest,
    ) -> Result<Result<(), String>, EngineError> {
        let Some(inventory) = self.inventory(node).await? else {
            return Ok(Err("it was never inspected".to_owned()));
        };
        if let Err(refused) = deploy::check_firmware(&inventory, manifest) {
            return Ok(Err(refused.message));
        }
        let disk = os_disk(&inventory, manifest.minimum_disk);
        Ok(disk.map(drop).ok_or_else(|| format!("no disk of {} bytes", manifest.minimum_disk)))
    }

    async fn new_server(
        &self,
        wish: &Wish,
        name: &str,
        node: NodeId,
        actor: &Actor,
    ) -> Result<Server, EngineError> {
        let amounts = match wish.billed {
            Some(amounts) => amounts,
            None => {
                let inventory = self.inventory(node).await?;
                inventory.map(|inventory| boot_server_core::server::amounts(&inventory)).unwrap_or_default()
            }
        };
        Ok(Server {
            id: fresh(),
            project: wish.project,
            name: name.to_owned(),
            flavor: wish.flavor.clone(),
            node,
            group: wish.group,
            spec: Spec { hostname: name.to_owned(), ..wish.spec.clone() },
            amounts,
            phase: Phase::Claimed,
            fault: false,
            note: None,
            by: actor.name().to_owned(),
            created: now(),
            active: None,
            deleted: None,
            version: 1,
        })
    }

    async fn store_claim(
        &self,
        wish: &Wish,
        servers: &[Server],
        group: Option<(GroupId, BTreeSet<NodeId>)>,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let at = now();
        let ids: Vec<String> = servers.iter().map(|server| server.id.to_string()).collect();
        let remember = wish.remember.clone().map(|it| Remembered { answer: ids.join(" "), ..it });
        let what = |server: &Server| {
            let kind = server.flavor.as_ref().map(|flavor| format!("flavor {flavor}, ")).unwrap_or_default();
            format!("created ({kind}{})", server.spec.image_name)
        };
        let events: Vec<_> = servers
            .iter()
            .map(|server| line(server, actor, "server.created", Severity::Info, &what(server), at))
            .collect();
        let boots = wish.spec.boot_volume.as_ref();
        let volume = boots.map(|boots| boot_amounts(boots, wish.manifest.minimum_disk)).unwrap_or_default();
        let claim = Claim { servers: servers.to_vec(), group, volume, remember };
        let lines = events.clone();
        let write = move |db: &_| rows::claim(db, &claim, &lines, at, forgotten(at));
        let numbers = self.store().write(write).await?;
        for (number, event) in numbers.into_iter().zip(events) {
            self.announce_event(number, event);
        }
        servers.iter().for_each(|server| self.announce_server(server));
        Ok(())
    }

    async fn remembered_servers(&self, answer: &str) -> Result<Vec<Server>, EngineError> {
        let ids: Vec<ServerId> = answer.split(' ').filter_map(|id| id.parse().ok()).collect();
        let read = move |db: &_| {
            ids.into_iter().filter_map(|id| rows::get(db, id).transpose()).collect::<Result<Vec<_>, _>>()
        };
        Ok(self.store().read(read).await?)
    }
}

/// Checks host name, user and keys as the deploy will.
pub(super) fn check_login(
    hostname: &str,
    user: Option<&str>,
    ssh_keys: &[String],
) -> Result<(), EngineError> {
    let login = Login { hostname, user: user.unwrap_or("root"), ssh_keys, password_hash: None };
    Ok(login.check()?)
}

pub(in crate::engine) fn bad(what: String, hint: &'static str) -> ServerError {
    ServerError::Bad { what, hint }
}

pub(super) fn no_such(what: &'static str, name: &str) -> ServerError {
    ServerError::NoSuch { what, name: name.chars().take(80).collect() }
}
