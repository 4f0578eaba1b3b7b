//! What can be done with a node. The node's state machine says whether it fits; a refusal says what to do instead.

use axum::Json;
use axum::extract::State;
use boot_server_core::deploy::{DeployRequest, is_candidate};
use boot_server_core::node::event::Verb;
use boot_server_core::node::place::BadPlace;
use boot_server_core::node::{Event, Node, Place};
use protocol::DiskId;
use protocol::inventory::Inventory;
use protocol::job::DiskTarget;

use super::extract::{IdempotencyKey, Input, Named};
use super::requests::{
    EmptyRequest, MaintenanceRequest, PlaceRequest, RenameRequest, ServiceRequest, WipeRequest,
};
use super::{Answer, Api};
use crate::engine::{Actor, EngineError};
use crate::http::auth;
use crate::view::{DeployPreview, NodeView, Problem};

/// Longest reason for maintenance, in bytes.
const REASON_MAX: usize = 1024;

/// Who asks.
pub(super) fn operator() -> Actor {
    auth::actor()
}

async fn apply(api: &Api, node: &Node, verb: Verb) -> Answer<Json<NodeView>> {
    let node = api.engine.apply(node.id, operator(), Event::Verb(verb)).await?;
    Ok(Json(api.engine.view(&node).await))
}

/// Takes a node out of enroll, available or failed and keeps it.
#[utoipa::path(post, path = "/nodes/{node}/manage", tag = "nodes", operation_id = "manage_node",
    params(("node" = String, Path, description = "Name or id")), request_body = EmptyRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn manage(
    State(api): State<Api>,
    Named(node): Named,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<NodeView>> {
    apply(&api, &api.engine.node(&node).await?, Verb::Manage).await
}

/// Looks at the hardware again.
#[utoipa::path(post, path = "/nodes/{node}/inspect", tag = "nodes", operation_id = "inspect_node",
    params(("node" = String, Path, description = "Name or id")), request_body = EmptyRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn inspect(
    State(api): State<Api>,
    Named(node): Named,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<NodeView>> {
    apply(&api, &api.engine.node(&node).await?, Verb::Inspect).await
}

/// Stops the job at the next safe point.
#[utoipa::path(post, path = "/nodes/{node}/abort", tag = "nodes", operation_id = "abort_node",
    params(("node" = String, Path, description = "Name or id")), request_body = EmptyRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn abort(
    State(api): State<Api>,
    Named(node): Named,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<NodeView>> {
    apply(&api, &api.engine.node(&node).await?, Verb::Abort).await
}

/// Does the failed job again.
#[utoipa::path(post, path = "/nodes/{node}/retry", tag = "nodes", operation_id = "retry_node",
    params(("node" = String, Path, description = "Name or id")), request_body = EmptyRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn retry(
    State(api): State<Api>,
    Named(node): Named,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<NodeView>> {
    apply(&api, &api.engine.node(&node).await?, Verb::Retry).await
}

/// Offers a node; the disks that are named are wiped first, all others stay as they are.
#[utoipa::path(post, path = "/nodes/{node}/provide", tag = "nodes", operation_id = "provide_node",
    params(("node" = String, Path, description = "Name or id")), request_body = WipeRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn provide(
    State(api): State<Api>,
    Named(node): Named,
    Input(request): Input<WipeRequest>,
) -> Answer<Json<NodeView>> {
    let node = api.engine.node(&node).await?;
    // What it owes is done whatever was asked for.
    let whole = request.erase || (node.dirty.is_some() && !request.wipe.is_empty());
    let how = api.engine.cleaning(&node, whole);
    let wipe = match (whole, request.wipe.is_empty()) {
        (true, _) => whole_machine(&api, &node, &request).await?,
        (false, true) => Vec::new(),
        (false, false) => targets(&api, &node, &request).await?,
    };
    apply(&api, &node, Verb::Provide { wipe, how }).await
}

/// Gives a node back: wipes the disk with its OS (or those that are named), then offers it.
#[utoipa::path(post, path = "/nodes/{node}/delete", tag = "nodes", operation_id = "delete_node",
    params(("node" = String, Path, description = "Name or id")), request_body = WipeRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn delete(
    State(api): State<Api>,
    Named(node): Named,
    Input(mut request): Input<WipeRequest>,
) -> Answer<Json<NodeView>> {
    let node = api.engine.node(&node).await?;
    let whole = request.erase || node.dirty.is_some();
    let how = api.engine.cleaning(&node, whole);
    if whole {
        let wipe = whole_machine(&api, &node, &request).await?;
        return apply(&api, &node, Verb::Delete { wipe, how }).await;
    }
    if request.wipe.is_empty() {
        request.wipe.extend(node.os_disks());
    }
    // Nothing to wipe: the state machine says what is missing.
    let wipe = if request.wipe.is_empty() { Vec::new() } else { targets(&api, &node, &request).await? };
    apply(&api, &node, Verb::Delete { wipe, how }).await
}

/// All fixed disks, which need not be named but must be meant.
async fn whole_machine(api: &Api, node: &Node, request: &WipeRequest) -> Answer<Vec<DiskTarget>> {
    if request.confirm.as_deref() != Some(&node.name) {
        return Err(unconfirmed("this erases every fixed disk", node).into());
    }
    if request.erase && !request.wipe.is_empty() {
        let message = "an erase is of the whole machine: it takes no disks".to_owned();
        return Err(refuse("erase-whole", message, "leave `wipe` away").into());
    }
    Ok(api.engine.whole_machine(node).await?)
}

fn unconfirmed(what: &str, node: &Node) -> Problem {
    refuse(
        "confirm-missing",
        format!("{what}: `confirm` must be the node's name, {}", node.name),
        "type the node's name to confirm",
    )
}

async fn targets(api: &Api, node: &Node, request: &WipeRequest) -> Answer<Vec<DiskTarget>> {
    if request.confirm.as_deref() != Some(&node.name) {
        return Err(unconfirmed("this wipes a disk", node).into());
    }
    let inventory = api.engine.inventory(node.id).await?;
    let inventory = inventory.ok_or_else(|| EngineError::NoInventory(node.name.clone()))?;
    let mut targets: Vec<DiskTarget> = Vec::new();
    for id in &request.wipe {
        let target = target(id, &inventory)?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    Ok(targets)
}

/// The one disk with this id, if it may be wiped at all.
fn target(id: &DiskId, inventory: &Inventory) -> Result<DiskTarget, Problem> {
    let mut found = inventory.disks.iter().filter(|d| d.id.as_ref() == Some(id));
    match (found.next(), found.next()) {
        (Some(disk), None) if is_candidate(disk) => {
            Ok(DiskTarget { id: id.clone(), size_bytes: disk.size_bytes })
        }
        (Some(disk), None) => Err(refuse(
            "disk-refused",
            format!("disk {} is removable, on USB, or write protected", disk.name),
            "choose a fixed, writable disk",
        )),
        (None, _) => Err(refuse(
            "disk-not-found",
            format!("no disk {id} in this machine"),
            "inspect the node again if disks were changed",
        )),
        (Some(_), Some(_)) => Err(refuse(
            "disk-ambiguous",
            format!("several disks answer to {id}"),
            "this drive's serial number is not unique: take one out, or have it corrected",
        )),
    }
}

fn refuse(code: &str, message: String, hint: &str) -> Problem {
    Problem { status: 422, code: code.to_owned(), message, hint: hint.to_owned() }
}

/// Puts an OS on an available node. Erases a disk.
#[utoipa::path(post, path = "/nodes/{node}/deploy", tag = "nodes", operation_id = "deploy_node",
    params(("node" = String, Path, description = "Name or id"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key does the same thing once, within 24 hours")),
    request_body = DeployRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn deploy(
    State(api): State<Api>,
    Named(node): Named,
    IdempotencyKey(key): IdempotencyKey,
    Input(request): Input<DeployRequest>,
) -> Answer<Json<NodeView>> {
    put_os(&api, &node, request, false, key).await
}

/// Puts an OS on an active node again. Erases a disk.
#[utoipa::path(post, path = "/nodes/{node}/rebuild", tag = "nodes", operation_id = "rebuild_node",
    params(("node" = String, Path, description = "Name or id"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key does the same thing once, within 24 hours")),
    request_body = DeployRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn rebuild(
    State(api): State<Api>,
    Named(node): Named,
    IdempotencyKey(key): IdempotencyKey,
    Input(request): Input<DeployRequest>,
) -> Answer<Json<NodeView>> {
    put_os(&api, &node, request, true, key).await
}

async fn put_os(
    api: &Api,
    node: &str,
    request: DeployRequest,
    rebuild: bool,
    key: Option<String>,
) -> Answer<Json<NodeView>> {
    let node = api.engine.node(node).await?;
    let node = api.engine.deploy(&node, operator(), request, rebuild, key).await?;
    Ok(Json(api.engine.view(&node).await))
}

/// Says what a deploy would erase and what stays, and whether it would be refused. Changes nothing; `confirm` is not
/// needed.
#[utoipa::path(post, path = "/nodes/{node}/deploy/preview", tag = "nodes", operation_id = "preview_deploy",
    params(("node" = String, Path, description = "Name or id")), request_body = DeployRequest,
    responses((status = 200, body = DeployPreview), (status = 404, body = Problem)))]
pub(super) async fn preview(
    State(api): State<Api>,
    Named(node): Named,
    Input(request): Input<DeployRequest>,
) -> Answer<Json<DeployPreview>> {
    let node = api.engine.node(&node).await?;
    Ok(Json(api.engine.preview(&node, &request).await?))
}

/// Changes firmware or settings of a node through its management controller, and reads back what came of it.
#[utoipa::path(post, path = "/nodes/{node}/service", tag = "nodes", operation_id = "service_node",
    params(("node" = String, Path, description = "Name or id")), request_body = ServiceRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn service(
    State(api): State<Api>,
    Named(node): Named,
    Input(ServiceRequest { steps, restart }): Input<ServiceRequest>,
) -> Answer<Json<NodeView>> {
    let node = api.engine.node(&node).await?;
    let node = api.engine.service(&node, operator(), steps, restart).await?;
    Ok(Json(api.engine.view(&node).await))
}

/// Puts a node under maintenance, or ends it.
#[utoipa::path(post, path = "/nodes/{node}/maintenance", tag = "nodes", operation_id = "maintain_node",
    params(("node" = String, Path, description = "Name or id")), request_body = MaintenanceRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn maintenance(
    State(api): State<Api>,
    Named(node): Named,
    Input(request): Input<MaintenanceRequest>,
) -> Answer<Json<NodeView>> {
    let reason = checked_reason(request.reason)?;
    if let Some(until) = request.until
        && (reason.is_none() || until <= crate::engine::now())
    {
        let message = "the end of a maintenance lies ahead, and belongs to one that is set".to_owned();
        return Err(refuse("until", message, "give milliseconds since 1970, or leave it out").into());
    }
    let by = Some(operator().name().to_owned());
    let verb = Verb::Maintenance { reason, until: request.until, by };
    apply(&api, &api.engine.node(&node).await?, verb).await
}

/// Says in which rack a node stands.
#[utoipa::path(put, path = "/nodes/{node}/place", tag = "nodes", operation_id = "place_node",
    params(("node" = String, Path, description = "Name or id")), request_body = PlaceRequest,
    responses((status = 200, body = NodeView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn place(
    State(api): State<Api>,
    Named(node): Named,
    Input(request): Input<PlaceRequest>,
) -> Answer<Json<NodeView>> {
    let place = place_of(request)?;
    let node = api.engine.node(&node).await?;
    api.engine.apply(node.id, operator(), Event::Verb(Verb::Place { place })).await?;
    // The cabling plan of its model may go by its place.
    let node = api.engine.compare_again(node.id).await?;
    Ok(Json(api.engine.view(&node).await))
}

/// A reason for maintenance, as it is stored.
pub(super) fn checked_reason(reason: Option<String>) -> Result<Option<String>, Problem> {
    let reason = reason.map(|r| r.trim().to_owned());
    if reason.as_ref().is_some_and(|r| r.is_empty() || r.len() > REASON_MAX) {
        let message = format!("the reason must have 1 to {REASON_MAX} bytes");
        return Err(refuse("reason", message, "say why, or send null to end the maintenance"));
    }
    Ok(reason)
}

/// The place that a request names, if any.
pub(super) fn place_of(request: PlaceRequest) -> Result<Option<Place>, EngineError> {
    let PlaceRequest { rack, unit, height, room, power_feed } = request;
    let nothing = unit.is_none() && height.is_none() && room.is_none() && power_feed.is_none();
    match rack {
        None if nothing => Ok(None),
        None => Err(EngineError::BadPlace(BadPlace::NoRack)),
        Some(rack) => Ok(Some(Place { rack, unit, height, room, power_feed })),
    }
}

/// Gives a node another name.
#[utoipa::path(post, path = "/nodes/{node}/rename", tag = "nodes", operation_id = "rename_node",
    params(("node" = String, Path, description = "Name or id")), request_body = RenameRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn rename(
    State(api): State<Api>,
    Named(node): Named,
    Input(request): Input<RenameRequest>,
) -> Answer<Json<NodeView>> {
    apply(&api, &api.engine.node(&node).await?, Verb::Rename { name: request.name }).await
}
