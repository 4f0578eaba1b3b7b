//! Power, boot device and all else that the management controller of one node can do.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bmc::{
    BiosAttributes, BootOverride, Component, FirmwareItem, Identity, LogEntry, Media, Reading, SecureBoot,
};
use boot_server_core::node::Node;

use super::bmc_requests::{
    BmcRequest, BootDeviceRequest, MediaRequest, PowerRequest, SensorQuery, SwitchRequest,
};
use super::extract::{Input, Named, Params, page_by_place};
use super::requests::{EmptyRequest, PageQuery};
use super::verbs::operator;
use super::{Answer, Api};
use crate::engine::{EngineError, without_ticket};
use crate::http::auth::need_places;
use crate::power::{Change, PowerError, Read, Reply};
use crate::view::{BmcView, FaultReport, Page, PowerView, Problem, SensorHistory};

/// Longest URL of an image, in octets.
const URL_MAX: usize = 2048;

async fn read(api: &Api, node: &str, read: Read) -> Answer<Reply> {
    let node = api.engine.node(node).await?;
    Ok(api.engine.bmc_read(node.id, read).await?)
}

async fn change(api: &Api, node: &str, change: Change, note: (&str, String)) -> Answer<Node> {
    let node = api.engine.node(node).await?;
    api.engine.bmc_change(node.id, operator(), change, note).await?;
    Ok(node)
}

/// What a worker can only answer by a mistake in the program.
fn other<T>() -> Answer<T> {
    Err(EngineError::from(PowerError::Gone).into())
}

fn page<T: Clone>(items: &[T], query: &PageQuery) -> Answer<Json<Page<T>>> {
    Ok(Json(page_by_place(items, query)?))
}

/// Whether the machine runs, read now.
#[utoipa::path(get, path = "/nodes/{node}/power", tag = "power", operation_id = "read_power",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = PowerView), (status = 404, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn power(State(api): State<Api>, Named(node): Named) -> Answer<Json<PowerView>> {
    match read(&api, &node, Read::Power).await? {
        Reply::Power(state) => Ok(Json(PowerView { state, confirmed: true })),
        _ => other(),
    }
}

/// Switches the machine, and waits some seconds for the proof that it happened.
#[utoipa::path(post, path = "/nodes/{node}/power", tag = "power", operation_id = "switch_power",
    params(("node" = String, Path, description = "Name or id")), request_body = PowerRequest,
    responses((status = 200, body = PowerView), (status = 404, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn switch(
    State(api): State<Api>,
    Named(node): Named,
    Input(request): Input<PowerRequest>,
) -> Answer<Json<PowerView>> {
    let node = api.engine.node(&node).await?;
    Ok(Json(api.engine.switch(node.id, operator(), request.action).await?))
}

/// What the firmware is told to boot next.
#[utoipa::path(get, path = "/nodes/{node}/boot-device", tag = "power", operation_id = "read_boot_device",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = BootOverride), (status = 404, body = Problem)))]
pub(super) async fn boot_device(State(api): State<Api>, Named(node): Named) -> Answer<Json<BootOverride>> {
    match read(&api, &node, Read::Boot).await? {
        Reply::Boot(boot) => Ok(Json(boot)),
        _ => other(),
    }
}

/// Tells the firmware what to boot next, and reads it back.
#[utoipa::path(put, path = "/nodes/{node}/boot-device", tag = "power", operation_id = "set_boot_device",
    params(("node" = String, Path, description = "Name or id")), request_body = BootDeviceRequest,
    responses((status = 200, body = BootOverride), (status = 404, body = Problem), (status = 502, body = Problem)))]
pub(super) async fn set_boot_device(
    State(api): State<Api>,
    Named(node): Named,
    Input(request): Input<BootDeviceRequest>,
) -> Answer<Json<BootOverride>> {
    let BootDeviceRequest { device, repeat, mode, http_uri } = request;
    let wanted = BootOverride { device, repeat, mode, http_uri };
    let note = format!("boot device {device:?}, {repeat:?}").to_lowercase();
    change(&api, &node, Change::Boot(wanted.clone()), ("boot_device.set", note)).await?;
    Ok(Json(wanted))
}

/// Switches the identify light.
#[utoipa::path(post, path = "/nodes/{node}/identify", tag = "power", operation_id = "identify_node",
    params(("node" = String, Path, description = "Name or id")), request_body = SwitchRequest,
    responses((status = 204), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn identify(
    State(api): State<Api>,
    Named(node): Named,
    Input(SwitchRequest { on }): Input<SwitchRequest>,
) -> Answer<StatusCode> {
    let note = format!("identify light {}", if on { "on" } else { "off" });
    change(&api, &node, Change::Identify(on), ("bmc.identify", note)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The management controller, as Billet knows it.
#[utoipa::path(get, path = "/nodes/{node}/bmc", tag = "bmcs", operation_id = "show_bmc",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = BmcView), (status = 404, body = Problem)))]
pub(super) async fn bmc(State(api): State<Api>, Named(node): Named) -> Answer<Json<BmcView>> {
    let node = api.engine.node(&node).await?;
    Ok(Json(api.engine.bmc(node.id).ok_or_else(|| EngineError::from(PowerError::NoBmc))?))
}

/// Gives the node a management controller, or changes what is known of it. An address that the agent did not find in the
/// machine only the site's own token may name: the server connects to it.
#[utoipa::path(put, path = "/nodes/{node}/bmc", tag = "bmcs", operation_id = "set_bmc",
    params(("node" = String, Path, description = "Name or id")), request_body = BmcRequest,
    responses((status = 200, body = BmcView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn set_bmc(
    State(api): State<Api>,
    Named(node): Named,
    Input(request): Input<BmcRequest>,
) -> Answer<Json<BmcView>> {
    let node = api.engine.node(&node).await?;
    let change = request.into();
    if api.engine.names_a_place(node.id, &change).await {
        need_places()?;
    }
    Ok(Json(api.engine.set_bmc(node.id, operator(), change).await?))
}

/// Forgets the management controller of a node with its account.
#[utoipa::path(delete, path = "/nodes/{node}/bmc", tag = "bmcs", operation_id = "forget_bmc",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn forget_bmc(State(api): State<Api>, Named(node): Named) -> Answer<StatusCode> {
    let node = api.engine.node(&node).await?;
    api.engine.remove_bmc(node.id, operator()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Restarts the controller itself, at most once an hour. The machine runs on.
#[utoipa::path(post, path = "/nodes/{node}/bmc/reset", tag = "bmcs", operation_id = "reset_bmc",
    params(("node" = String, Path, description = "Name or id")), request_body = EmptyRequest,
    responses((status = 204), (status = 404, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn reset(
    State(api): State<Api>,
    Named(node): Named,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<StatusCode> {
    let note = "the BMC itself is being restarted".to_owned();
    change(&api, &node, Change::ResetBmc, ("bmc.reset", note)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Accepts the certificate that the controller shows at its next call, in place of the one that was pinned.
#[utoipa::path(post, path = "/nodes/{node}/bmc/trust", tag = "bmcs", operation_id = "trust_bmc",
    params(("node" = String, Path, description = "Name or id")), request_body = EmptyRequest,
    responses((status = 200, body = BmcView), (status = 404, body = Problem)))]
pub(super) async fn trust(
    State(api): State<Api>,
    Named(node): Named,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<BmcView>> {
    let node = api.engine.node(&node).await?;
    Ok(Json(api.engine.trust_bmc(node.id, operator()).await?))
}

/// Gives the controller's account a random password, which only Billet knows.
#[utoipa::path(post, path = "/nodes/{node}/bmc/rotate", tag = "bmcs", operation_id = "rotate_bmc",
    params(("node" = String, Path, description = "Name or id")), request_body = EmptyRequest,
    responses((status = 200, body = BmcView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn rotate(
    State(api): State<Api>,
    Named(node): Named,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<BmcView>> {
    let node = api.engine.node(&node).await?;
    Ok(Json(api.engine.rotate_bmc(node.id, operator()).await?))
}

/// Who the machine is, as its controller says.
#[utoipa::path(get, path = "/nodes/{node}/bmc/identity", tag = "bmcs", operation_id = "read_bmc_identity",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = Identity), (status = 404, body = Problem)))]
pub(super) async fn identity(State(api): State<Api>, Named(node): Named) -> Answer<Json<Identity>> {
    match read(&api, &node, Read::Identity).await? {
        Reply::Identity(identity) => Ok(Json(Identity::clone(&identity))),
        _ => other(),
    }
}

/// Temperatures, fans, voltages, power: read now.
#[utoipa::path(get, path = "/nodes/{node}/bmc/sensors", tag = "bmcs", operation_id = "read_sensors",
    params(("node" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<Reading>), (status = 404, body = Problem)))]
pub(super) async fn sensors(
    State(api): State<Api>,
    Named(node): Named,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<Reading>>> {
    match read(&api, &node, Read::Readings).await? {
        Reply::Readings(readings) => page(&readings, &query),
        _ => other(),
    }
}

/// What the sensors measured: samples of the last 24 hours, and the least, mean and greatest of half hours for 30 days.
#[utoipa::path(get, path = "/nodes/{node}/sensors/history", tag = "bmcs", operation_id = "sensor_history",
    params(("node" = String, Path, description = "Name or id"), SensorQuery),
    responses((status = 200, body = SensorHistory), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn history(
    State(api): State<Api>,
    Named(node): Named,
    Params(query): Params<SensorQuery>,
) -> Answer<Json<SensorHistory>> {
    let node = api.engine.node(&node).await?;
    Ok(Json(api.engine.history(node.id, query.into()).await?))
}

/// Parts with a health of their own: read now.
#[utoipa::path(get, path = "/nodes/{node}/bmc/components", tag = "bmcs", operation_id = "read_components",
    params(("node" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<Component>), (status = 404, body = Problem)))]
pub(super) async fn components(
    State(api): State<Api>,
    Named(node): Named,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<Component>>> {
    match read(&api, &node, Read::Components).await? {
        Reply::Components(components) => page(&components, &query),
        _ => other(),
    }
}

/// The controller's event log, oldest first.
#[utoipa::path(get, path = "/nodes/{node}/bmc/log", tag = "bmcs", operation_id = "read_bmc_log",
    params(("node" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<LogEntry>), (status = 404, body = Problem)))]
pub(super) async fn log(
    State(api): State<Api>,
    Named(node): Named,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<LogEntry>>> {
    match read(&api, &node, Read::Log(None)).await? {
        Reply::Log(lines) => page(&lines, &query),
        _ => other(),
    }
}

/// Empties the controller's event log.
#[utoipa::path(delete, path = "/nodes/{node}/bmc/log", tag = "bmcs", operation_id = "clear_bmc_log",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn clear_log(State(api): State<Api>, Named(node): Named) -> Answer<StatusCode> {
    let note = "the BMC's event log was emptied".to_owned();
    change(&api, &node, Change::ClearLog, ("bmc.log_cleared", note)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is not as it should be: what to replace, and where it is.
#[utoipa::path(get, path = "/nodes/{node}/faults", tag = "bmcs", operation_id = "node_faults",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = FaultReport), (status = 404, body = Problem)))]
pub(super) async fn faults(State(api): State<Api>, Named(node): Named) -> Answer<Json<FaultReport>> {
    let node = api.engine.node(&node).await?;
    Ok(Json(api.engine.faults(&node).await))
}

/// The machines in which something is not as it should be, the worst first: what to replace, and where it is.
#[utoipa::path(get, path = "/faults", tag = "bmcs", operation_id = "faults",
    params(PageQuery), responses((status = 200, body = Page<FaultReport>)))]
pub(super) async fn all_faults(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<FaultReport>>> {
    page(&api.engine.all_faults().await, &query)
}

/// Firmware versions.
#[utoipa::path(get, path = "/nodes/{node}/bmc/firmware", tag = "bmcs", operation_id = "read_firmware",
    params(("node" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<FirmwareItem>), (status = 404, body = Problem)))]
pub(super) async fn firmware(
    State(api): State<Api>,
    Named(node): Named,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<FirmwareItem>>> {
    match read(&api, &node, Read::Firmware).await? {
        Reply::Firmware(items) => page(&items, &query),
        _ => other(),
    }
}

/// What is in the virtual CD drive.
#[utoipa::path(get, path = "/nodes/{node}/bmc/media", tag = "bmcs", operation_id = "read_media",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = Media), (status = 404, body = Problem)))]
pub(super) async fn media(State(api): State<Api>, Named(node): Named) -> Answer<Json<Media>> {
    match read(&api, &node, Read::Media).await? {
        Reply::Media(media) => Ok(Json(Media { image: media.image.as_deref().map(without_ticket) })),
        _ => other(),
    }
}

/// Puts an image into the virtual CD drive.
#[utoipa::path(put, path = "/nodes/{node}/bmc/media", tag = "bmcs", operation_id = "insert_media",
    params(("node" = String, Path, description = "Name or id")), request_body = MediaRequest,
    responses((status = 204), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn insert_media(
    State(api): State<Api>,
    Named(node): Named,
    Input(MediaRequest { url }): Input<MediaRequest>,
) -> Answer<StatusCode> {
    let scheme = url.starts_with("http://") || url.starts_with("https://");
    if !scheme || url.len() > URL_MAX || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let error = EngineError::BadBmc {
            what: "the image is no http or https URL".to_owned(),
            hint: "give a URL that the BMC can reach",
        };
        return Err(error.into());
    }
    let note = format!("virtual CD {url}");
    change(&api, &node, Change::InsertMedia(url), ("bmc.media", note)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Empties the virtual CD drive.
#[utoipa::path(delete, path = "/nodes/{node}/bmc/media", tag = "bmcs", operation_id = "eject_media",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn eject_media(State(api): State<Api>, Named(node): Named) -> Answer<StatusCode> {
    let note = "virtual CD taken out".to_owned();
    change(&api, &node, Change::EjectMedia, ("bmc.media", note)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// BIOS attributes as they are.
#[utoipa::path(get, path = "/nodes/{node}/bios", tag = "bmcs", operation_id = "read_bios",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = serde_json::Value), (status = 404, body = Problem)))]
pub(super) async fn bios(State(api): State<Api>, Named(node): Named) -> Answer<Json<BiosAttributes>> {
    match read(&api, &node, Read::Bios).await? {
        Reply::Bios(attributes) => Ok(Json(BiosAttributes::clone(&attributes))),
        _ => other(),
    }
}

/// Sets BIOS attributes, in force after the next restart.
#[utoipa::path(put, path = "/nodes/{node}/bios", tag = "bmcs", operation_id = "set_bios",
    params(("node" = String, Path, description = "Name or id")), request_body = serde_json::Value,
    responses((status = 204), (status = 404, body = Problem), (status = 502, body = Problem)))]
pub(super) async fn set_bios(
    State(api): State<Api>,
    Named(node): Named,
    Input(changes): Input<BiosAttributes>,
) -> Answer<StatusCode> {
    let names = changes.0.keys().cloned().collect::<Vec<_>>().join(", ");
    let note = format!("BIOS attributes set: {}", names.chars().take(400).collect::<String>());
    change(&api, &node, Change::Bios(changes), ("bmc.bios", note)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether Secure Boot is on.
#[utoipa::path(get, path = "/nodes/{node}/secure-boot", tag = "bmcs", operation_id = "read_secure_boot",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = SecureBoot), (status = 404, body = Problem)))]
pub(super) async fn secure_boot(State(api): State<Api>, Named(node): Named) -> Answer<Json<SecureBoot>> {
    match read(&api, &node, Read::SecureBoot).await? {
        Reply::SecureBoot(state) => Ok(Json(state)),
        _ => other(),
    }
}

/// Switches Secure Boot, in force after the next restart.
#[utoipa::path(put, path = "/nodes/{node}/secure-boot", tag = "bmcs", operation_id = "set_secure_boot",
    params(("node" = String, Path, description = "Name or id")), request_body = SwitchRequest,
    responses((status = 204), (status = 404, body = Problem), (status = 502, body = Problem)))]
pub(super) async fn set_secure_boot(
    State(api): State<Api>,
    Named(node): Named,
    Input(SwitchRequest { on }): Input<SwitchRequest>,
) -> Answer<StatusCode> {
    let note = format!("Secure Boot {} after the next restart", if on { "on" } else { "off" });
    change(&api, &node, Change::SecureBoot(on), ("bmc.secure_boot", note)).await?;
    Ok(StatusCode::NO_CONTENT)
}
