//! Deploys: from a request to an order that the core takes.

use std::time::Duration;

use bmc::Secret;
use boot_server_core::cloud_config::Urls;
use boot_server_core::deploy::{self, DeployRequest, Given};
use boot_server_core::metadata::Instance;
use boot_server_core::node::event::{DeployOrder, Verb};
use boot_server_core::node::{Context, Event, Node, StateName, step};
use boot_server_core::volume::Imaging;
use protocol::inventory::Inventory;
use protocol::job::DiskTarget;
use protocol::{JobId, NodeId, Sha256, Timestamp};
use uuid::Uuid;

use super::fabric::Wired;
use super::{Actor, Along, Engine, EngineError, now, replace};
use crate::secret;
use crate::store::queries::{self, Remembered};
use crate::vault::Place;
use crate::view::DeployPreview;

/// How long an answer is remembered under its idempotency key.
const REMEMBERED: Duration = Duration::from_hours(24);

/// Where answers are kept, which are of no node.
const ANSWERS: Place = Place { row: Uuid::nil(), column: "idempotency.answer" };

/// A request that fits machine and image.
#[derive(Debug, Clone)]
pub struct PlannedDeploy {
    /// What the OS may ask for.
    pub instance: Instance,
    /// SHA-256 of the token with which it asks.
    pub metadata: Sha256,
    /// SHA-256 of the token with which it phones home, whether it will or not.
    pub phone_home: Sha256,
    /// What the core takes. It holds the phone-home token as a hash only; its text is in the OS's vendor data.
    pub order: DeployOrder,
}

/// Answers older than this are forgotten.
pub(super) fn forgotten(now: Timestamp) -> Timestamp {
    Timestamp(now.0.saturating_sub(u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX)))
}

impl Engine {
    /// Checks a request against the node's inventory and the image, and makes the phone-home token.
    ///
    /// # Errors
    /// [`EngineError::NoInventory`], [`EngineError::ImageNotFound`], [`EngineError::DeployRefused`].
    pub async fn plan(&self, node: &Node, request: &DeployRequest) -> Result<PlannedDeploy, EngineError> {
        self.plan_onto(node, request, None, &Wired::default()).await
    }

    /// The same, onto a volume, or for networks of a project.
    ///
    /// # Errors
    /// As [`Engine::plan`].
    pub(super) async fn plan_onto(
        &self,
        node: &Node,
        request: &DeployRequest,
        volume: Option<&DiskTarget>,
        wired: &Wired,
    ) -> Result<PlannedDeploy, EngineError> {
        let inventory = self.inventory(node.id).await?;
        let inventory = inventory.ok_or_else(|| EngineError::NoInventory(node.name.clone()))?;
        let (_, manifest) = self.resolve_image(&request.image).await?;
        let (phone_home, metadata) = (secret::token()?, secret::token()?);
        let base = self.base_for(&inventory);
        let urls = [format!("{base}/phone-home/{phone_home}"), format!("{base}/metadata/{metadata}/")];
        let given = Given {
            node_name: &node.name,
            instance: JobId(Uuid::now_v7()),
            urls: Urls { phone_home: &urls[0], metadata: &urls[1] },
            now: now(),
            network: node.network.as_ref(),
            ports: &wired.ports,
            volume,
        };
        let plan = deploy::plan(request, &inventory, &manifest, &given)?;
        let phone_home = secret::hash(&phone_home);
        let order = DeployOrder {
            spec: plan.spec,
            hostname: plan.instance.hostname.clone(),
            phone_home: plan.phones_home.then_some(phone_home),
            resumed: false,
            imaging: Imaging::default(),
            crosses: wired.crosses,
        };
        Ok(PlannedDeploy { order, instance: plan.instance, metadata: secret::hash(&metadata), phone_home })
    }

    /// The base URL that a machine reaches us by: IPv6 for one whose ports have no IPv4 address.
    fn base_for(&self, inventory: &Inventory) -> String {
        let ipv6_alone = inventory.nics.iter().all(|n| n.address.is_none())
            && inventory.nics.iter().any(|n| n.address6.is_some());
        let mut urls = self.settings().provisioning_urls();
        let url = if ipv6_alone { urls.last() } else { urls.next() };
        url.unwrap_or_default()
    }

    /// Says what a deploy would do. Changes nothing and needs no confirmation.
    ///
    /// # Errors
    /// Where the store cannot be read. A refusal is part of the preview.
    pub async fn preview(&self, node: &Node, request: &DeployRequest) -> Result<DeployPreview, EngineError> {
        let confirmed = DeployRequest { confirm: Some(node.name.clone()), ..request.clone() };
        let (target, refused) = match self.plan(node, &confirmed).await {
            Ok(planned) => {
                let target = planned.order.spec.target.id.clone();
                let rebuild = node.state.name() == StateName::Active;
                let context = Context {
                    now: now(),
                    fresh_job: JobId(Uuid::nil()),
                    policy: self.settings().policy_of(node),
                };
                let refused = step(node, event(planned, rebuild), &context).err().map(EngineError::from);
                let unfit = self.check_health(node, request.allow_critical).err();
                (Some(target), refused.or(unfit).map(|error| error.problem()))
            }
            Err(error @ (EngineError::Store(_) | EngineError::NoRandomness(_))) => return Err(error),
            Err(error) => (None, Some(error.problem())),
        };
        let inventory = self.inventory(node.id).await?;
        let erased: Vec<_> = target.iter().cloned().collect();
        let disks = inventory.map(|i| deploy::fates(&i, &erased)).unwrap_or_default();
        Ok(DeployPreview { target, disks, refused })
    }

    /// Puts an OS on a node. With an idempotency key the same request is done once and answered again.
    ///
    /// # Errors
    /// As [`Engine::plan`] and [`Engine::apply`]; [`EngineError::KeyReused`].
    pub async fn deploy(
        &self,
        node: &Node,
        actor: Actor,
        request: DeployRequest,
        rebuild: bool,
        idempotency_key: Option<String>,
    ) -> Result<Node, EngineError> {
        let verb = if rebuild { "rebuild" } else { "deploy" };
        let remember = idempotency_key.map(|key| Remembered {
            scope: format!("{verb} {}", node.id),
            key,
            request: fingerprint(&request),
            answer: node.id.to_string(),
        });
        if let Some(wanted) = &remember
            && self.answered(&wanted.scope, &wanted.key, &wanted.request).await?.is_some()
        {
            return self.node(&node.id.to_string()).await;
        }
        self.check_health(node, request.allow_critical)?;
        let planned = self.plan(node, &request).await?;
        let sealed = self.seal_instance(node.id, &planned.instance, planned.metadata, planned.phone_home)?;
        let instance = planned.order.phone_home.map(|_| sealed);
        let deploy = Some(replace::seal(&self.0.vault, node.id, &request)?);
        let along = Along { remember: remember.clone(), instance, deploy, ..Along::default() };
        let done = self.apply_along(node.id, actor, event(planned, rebuild), along).await;
        match (done, remember) {
            // The same request came twice at once and the other one was first.
            (Err(error), Some(wanted)) => {
                match self.answered(&wanted.scope, &wanted.key, &wanted.request).await? {
                    Some(_) => self.node(&node.id.to_string()).await,
                    None => Err(error),
                }
            }
            (done, _) => done,
        }
    }

    /// What was answered to the same request under this idempotency key, if it came before. `request` is a
    /// fingerprint of the body.
    ///
    /// # Errors
    /// [`EngineError::KeyReused`] where the key came with another request.
    pub async fn answered(
        &self,
        scope: &str,
        key: &str,
        request: &str,
    ) -> Result<Option<String>, EngineError> {
        let (scope, key_text, since) = (scope.to_owned(), key.to_owned(), forgotten(now()));
        let found = self.0.store.read(move |db| queries::remembered(db, &scope, &key_text, since)).await?;
        match found {
            Some(before) if before.request == request => Ok(Some(before.answer)),
            Some(_) => Err(EngineError::KeyReused(key.chars().take(80).collect())),
            None => Ok(None),
        }
    }

    /// Remembers an answer under its idempotency key, for requests that change no node.
    ///
    /// # Errors
    /// A conflict where the key was used meanwhile, or what the store says.
    pub async fn remember(&self, it: Remembered) -> Result<(), EngineError> {
        let at = now();
        Ok(self.0.store.write(move |db| queries::remember(db, &it, at, forgotten(at))).await?)
    }

    /// Keeps the answer to a request whose key was remembered, sealed.
    ///
    /// # Errors
    /// What the store says.
    pub async fn keep_answer(&self, it: Remembered, answer: String) -> Result<(), EngineError> {
        let sealed = self.0.vault.seal(ANSWERS, &Secret(answer))?;
        let it = Remembered { answer: sealed, ..it };
        Ok(self.0.store.write(move |db| queries::keep_answer(db, &it)).await?)
    }

    /// What [`keep_answer`](Self::keep_answer) kept.
    ///
    /// # Errors
    /// Where the key of the vault is another one.
    pub fn open_answer(&self, sealed: &str) -> Result<String, EngineError> {
        Ok(self.0.vault.unseal(ANSWERS, sealed)?.0)
    }

    /// Forgets a key: its request was refused, and may be made again.
    ///
    /// # Errors
    /// What the store says.
    pub async fn forget_answer(&self, it: &Remembered) -> Result<(), EngineError> {
        let it = it.clone();
        Ok(self.0.store.write(move |db| queries::forget_answer(db, &it)).await?)
    }

    /// True where the OS on this node phoned home with a token of this hash before.
    pub(crate) fn is_home(&self, id: NodeId, token: protocol::Sha256) -> bool {
        let node = self.0.nodes.get(id);
        let known = node.as_ref().and_then(|n| n.installed.as_ref()).and_then(|i| i.phone_home);
        known.is_some_and(|known| secret::same(&known, &token))
    }

    /// The node that waits for a phone-home with this token hash, or had it as its last.
    pub(crate) fn node_of_phone_home(&self, token: protocol::Sha256) -> Option<NodeId> {
        let is = |known: &Option<protocol::Sha256>| known.as_ref().is_some_and(|k| secret::same(k, &token));
        let waits = |node: &Node| {
            let run = match &node.state {
                boot_server_core::node::State::Failed(failure) => failure.run.as_deref(),
                state => state.run(),
            };
            run.is_some_and(|run| is(&run.phone_home))
                || node.installed.as_ref().is_some_and(|i| is(&i.phone_home))
        };
        self.0.nodes.find(waits).map(|node| node.id).or_else(|| self.node_of_ticket(token))
    }
}

fn event(planned: PlannedDeploy, rebuild: bool) -> Event {
    let order = Box::new(planned.order);
    Event::Verb(if rebuild { Verb::Rebuild(order) } else { Verb::Deploy(order) })
}

/// SHA-256 of a request's canonical JSON.
pub fn fingerprint<T: serde::Serialize>(request: &T) -> String {
    secret::hash(&serde_json::to_string(request).unwrap_or_default()).to_string()
}
