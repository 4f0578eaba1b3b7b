//! Volumes and snapshots of a project.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use boot_server_core::access::Role;
use boot_server_core::volume::Volume;
use protocol::VolumeId;
use protocol::dpu::IoLimits;

use super::extract::{Input, LastNamed, Params, bad_query, limit, page_by_place};
use super::projects::InProject;
use super::requests::{EmptyRequest, PageQuery};
use super::volume_requests::{
    AttachRequest, NewVolumeRequest, SnapshotRequest, VolumeChangeRequest, VolumeQuery,
};
use super::{Answer, Api, ProblemResponse};
use crate::engine::volumes::{From, NewVolume, VolumeChange};
use crate::http::auth::need;
use crate::store::volumes::VolumeFilter;
use crate::view::dpus::{SnapshotView, VolumeTypeView, VolumeView};
use crate::view::{Page, Problem};

fn view(api: &Api, volume: Volume) -> VolumeView {
    let hydration = api.engine.hydration(&volume);
    VolumeView::counted(&api.engine, volume).with(hydration)
}

/// The types of volumes that the site has.
#[utoipa::path(get, path = "/projects/{project}/volume-types", tag = "volumes", operation_id = "list_volume_types",
    params(("project" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<VolumeTypeView>), (status = 404, body = Problem)))]
pub(super) async fn types(
    State(api): State<Api>,
    _within: InProject,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<VolumeTypeView>>> {
    let types = api.engine.volume_types().into_iter();
    let view = |(name, kind): (String, volume::Kind)| VolumeTypeView {
        encrypted: api.engine.encrypts(&name),
        name,
        kind: kind.as_str().to_owned(),
    };
    let types: Vec<_> = types.map(view).collect();
    Ok(Json(page_by_place(&types, &query)?))
}

/// Living volumes of a project, oldest first.
#[utoipa::path(get, path = "/projects/{project}/volumes", tag = "volumes", operation_id = "list_volumes",
    params(("project" = String, Path, description = "Name or id"), VolumeQuery),
    responses((status = 200, body = Page<VolumeView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<VolumeQuery>,
) -> Answer<Json<Page<VolumeView>>> {
    let (project, limit) = (within.project.id, limit(query.limit)?);
    let wrong = |_| bad_query("the cursor is not one of this list".to_owned());
    let after =
        query.cursor.as_deref().map(|cursor| cursor.parse::<VolumeId>().map_err(wrong)).transpose()?;
    let server = match &query.server {
        Some(server) => Some(api.engine.server(project, server).await?.id),
        None => None,
    };
    // One more than asked for tells whether there is a next page.
    let mut volumes = api.engine.volumes(project, VolumeFilter { server, after, limit: limit + 1 }).await?;
    let more = volumes.len() > limit;
    volumes.truncate(limit);
    let next = volumes.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Json(Page { items: volumes.into_iter().map(|volume| view(&api, volume)).collect(), next }))
}

/// Makes a volume. It is there once its status is `available`.
#[utoipa::path(post, path = "/projects/{project}/volumes", tag = "volumes", operation_id = "create_volume",
    params(("project" = String, Path, description = "Name or id")), request_body = NewVolumeRequest,
    responses((status = 201, body = VolumeView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn create(
    State(api): State<Api>,
    within: InProject,
    Input(request): Input<NewVolumeRequest>,
) -> Answer<(StatusCode, Json<VolumeView>)> {
    within.need(Role::Member)?;
    let from = match (request.image, request.snapshot) {
        (None, None) => From::Blank,
        (Some(image), None) => From::Image(image),
        (None, Some(snapshot)) => From::Snapshot(snapshot),
        (Some(_), Some(_)) => return Err(bad("a volume is made of an image or of a snapshot, not of both")),
    };
    let limits = limits(request.iops, request.bytes_per_second)?;
    let wish = NewVolume {
        name: request.name,
        kind: request.kind,
        size: request.size,
        from,
        limits,
        encrypted: request.encrypted,
    };
    let volume = api.engine.create_volume(within.project.id, within.who.actor(), wish).await?;
    Ok((StatusCode::CREATED, Json(view(&api, volume))))
}

fn limits(iops: Option<u64>, bytes_per_second: Option<u64>) -> Answer<Option<IoLimits>> {
    if iops == Some(0) || bytes_per_second == Some(0) {
        return Err(bad("a limit of 0 would let nothing through"));
    }
    let given = iops.is_some() || bytes_per_second.is_some();
    Ok(given.then_some(IoLimits { iops, bytes_per_second }))
}

fn bad(message: &str) -> ProblemResponse {
    ProblemResponse::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "bad-volume",
        message.to_owned(),
        "leave one of them out, or give another number",
    )
}

/// One volume.
#[utoipa::path(get, path = "/projects/{project}/volumes/{volume}", tag = "volumes", operation_id = "show_volume",
    params(("project" = String, Path, description = "Name or id"), ("volume" = String, Path, description = "Name or id")),
    responses((status = 200, body = VolumeView), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(api): State<Api>,
    within: InProject,
    LastNamed(volume): LastNamed,
) -> Answer<Json<VolumeView>> {
    let volume = api.engine.volume(within.project.id, &volume).await?;
    Ok(Json(view(&api, volume)))
}

/// Gives a volume another name, other limits, or more room while nobody has it.
#[utoipa::path(patch, path = "/projects/{project}/volumes/{volume}", tag = "volumes", operation_id = "change_volume",
    params(("project" = String, Path, description = "Name or id"), ("volume" = String, Path, description = "Name or id")),
    request_body = VolumeChangeRequest,
    responses((status = 200, body = VolumeView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn change(
    State(api): State<Api>,
    within: InProject,
    LastNamed(volume): LastNamed,
    Input(request): Input<VolumeChangeRequest>,
) -> Answer<Json<VolumeView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let VolumeChangeRequest { name, size, iops, bytes_per_second } = request;
    let change = VolumeChange { name, size, iops, bytes_per_second };
    let volume = api.engine.change_volume(project, &volume, actor, change).await?;
    Ok(Json(view(&api, volume)))
}

/// Removes a volume that nobody has. What is on it is lost.
#[utoipa::path(delete, path = "/projects/{project}/volumes/{volume}", tag = "volumes", operation_id = "delete_volume",
    params(("project" = String, Path, description = "Name or id"), ("volume" = String, Path, description = "Name or id")),
    responses((status = 202, body = VolumeView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn remove(
    State(api): State<Api>,
    within: InProject,
    LastNamed(volume): LastNamed,
) -> Answer<(StatusCode, Json<VolumeView>)> {
    within.need(Role::Member)?;
    let volume = api.engine.delete_volume(within.project.id, &volume, within.who.actor()).await?;
    Ok((StatusCode::ACCEPTED, Json(view(&api, volume))))
}

/// Gives a volume to a server, running or not. Its machine has it once its status is `in_use`.
#[utoipa::path(post, path = "/projects/{project}/volumes/{volume}/attach", tag = "volumes", operation_id = "attach_volume",
    params(("project" = String, Path, description = "Name or id"), ("volume" = String, Path, description = "Name or id")),
    request_body = AttachRequest,
    responses((status = 202, body = VolumeView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn attach(
    State(api): State<Api>,
    within: InProject,
    LastNamed(volume): LastNamed,
    Input(AttachRequest { server }): Input<AttachRequest>,
) -> Answer<(StatusCode, Json<VolumeView>)> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let volume = api.engine.attach_volume(project, &volume, actor, &server).await?;
    Ok((StatusCode::ACCEPTED, Json(view(&api, volume))))
}

/// Takes a volume from its server. It is available again once nobody can write to it.
#[utoipa::path(post, path = "/projects/{project}/volumes/{volume}/detach", tag = "volumes", operation_id = "detach_volume",
    params(("project" = String, Path, description = "Name or id"), ("volume" = String, Path, description = "Name or id")),
    request_body = EmptyRequest,
    responses((status = 202, body = VolumeView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn detach(
    State(api): State<Api>,
    within: InProject,
    LastNamed(volume): LastNamed,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<(StatusCode, Json<VolumeView>)> {
    within.need(Role::Member)?;
    let volume = api.engine.detach_volume(within.project.id, &volume, within.who.actor()).await?;
    Ok((StatusCode::ACCEPTED, Json(view(&api, volume))))
}

/// Takes a volume from a DPU that is to let go of it, though it does not say that it did: the volume is being detached, or its server has
/// another DPU by now. For operators of the site, where the DPU is gone for good
/// or off: in a backend that cannot cut anybody off (`iscsi-external`, `nvme-tcp`) whoever still has the volume goes on writing to it.
#[utoipa::path(post, path = "/projects/{project}/volumes/{volume}/force-detach", tag = "volumes",
    operation_id = "force_detach_volume",
    params(("project" = String, Path, description = "Name or id"), ("volume" = String, Path, description = "Name or id")),
    request_body = EmptyRequest,
    responses((status = 200, body = VolumeView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn force_detach(
    State(api): State<Api>,
    within: InProject,
    LastNamed(volume): LastNamed,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<VolumeView>> {
    need(Role::Operator)?;
    let volume = api.engine.force_detach_volume(within.project.id, &volume, within.who.actor()).await?;
    Ok(Json(view(&api, volume)))
}

/// Snapshots of a project, oldest first.
#[utoipa::path(get, path = "/projects/{project}/snapshots", tag = "volumes", operation_id = "list_snapshots",
    params(("project" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<SnapshotView>), (status = 404, body = Problem)))]
pub(super) async fn snapshots(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<SnapshotView>>> {
    let all: Vec<_> =
        api.engine.snapshots(within.project.id).await?.into_iter().map(SnapshotView::from).collect();
    Ok(Json(page_by_place(&all, &query)?))
}

/// Keeps a volume as it is now, as after a power cut.
#[utoipa::path(post, path = "/projects/{project}/snapshots", tag = "volumes", operation_id = "create_snapshot",
    params(("project" = String, Path, description = "Name or id")), request_body = SnapshotRequest,
    responses((status = 201, body = SnapshotView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn create_snapshot(
    State(api): State<Api>,
    within: InProject,
    Input(SnapshotRequest { name, volume }): Input<SnapshotRequest>,
) -> Answer<(StatusCode, Json<SnapshotView>)> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let snapshot = api.engine.create_snapshot(project, actor, &volume, name).await?;
    Ok((StatusCode::CREATED, Json(snapshot.into())))
}

/// One snapshot.
#[utoipa::path(get, path = "/projects/{project}/snapshots/{snapshot}", tag = "volumes", operation_id = "show_snapshot",
    params(("project" = String, Path, description = "Name or id"), ("snapshot" = String, Path, description = "Name or id")),
    responses((status = 200, body = SnapshotView), (status = 404, body = Problem)))]
pub(super) async fn show_snapshot(
    State(api): State<Api>,
    within: InProject,
    LastNamed(snapshot): LastNamed,
) -> Answer<Json<SnapshotView>> {
    Ok(Json(api.engine.snapshot(within.project.id, &snapshot).await?.into()))
}

/// Removes a snapshot. Volumes that were made of it stay.
#[utoipa::path(delete, path = "/projects/{project}/snapshots/{snapshot}", tag = "volumes", operation_id = "delete_snapshot",
    params(("project" = String, Path, description = "Name or id"), ("snapshot" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is removed"), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn remove_snapshot(
    State(api): State<Api>,
    within: InProject,
    LastNamed(snapshot): LastNamed,
) -> Answer<StatusCode> {
    within.need(Role::Member)?;
    api.engine.delete_snapshot(within.project.id, within.who.actor(), &snapshot).await?;
    Ok(StatusCode::NO_CONTENT)
}
