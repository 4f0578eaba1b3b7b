//! Machines that are expected, and machines that take the part of others.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use boot_server_core::arrivals::{self, Arrival};

use super::extract::{Input, Named, Params, page_by_place};
use super::requests::{ExpectedMachinesRequest, PageQuery, ReplaceRequest};
use super::verbs::operator;
use super::{Answer, Api};
use crate::engine::{EngineError, Replacing};
use crate::view::{ExpectedImport, Page, Problem, ReplaceView};

/// Machines that are expected and never came, by name.
#[utoipa::path(get, path = "/expected-machines", tag = "machines", operation_id = "list_expected_machines",
    params(PageQuery), responses((status = 200, body = Page<Arrival>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<Arrival>>> {
    Ok(Json(page_by_place(&api.engine.expected_machines().await?, &query)?))
}

/// Takes a list of expected machines in: all of it, or nothing with every mistake and its line. A machine that is here
/// already gets at once what the list says of it.
#[utoipa::path(post, path = "/expected-machines", tag = "machines", operation_id = "import_expected_machines",
    request_body = ExpectedMachinesRequest,
    responses((status = 200, body = ExpectedImport), (status = 400, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn import(
    State(api): State<Api>,
    Input(request): Input<ExpectedMachinesRequest>,
) -> Answer<Json<ExpectedImport>> {
    let list = match (request.csv, request.machines) {
        (Some(csv), None) => arrivals::read_csv(&csv),
        (None, Some(machines)) => arrivals::check(machines),
        _ => {
            return Err(EngineError::BadQuery {
                what: "there is no list, or there are two".to_owned(),
                hint: "send `csv` (a text with headings) or `machines` (a list of objects)",
            }
            .into());
        }
    };
    let list = list.map_err(EngineError::BadList)?;
    let machines = api.engine.import_machines(&operator(), list, request.dry_run).await?;
    Ok(Json(ExpectedImport { dry_run: request.dry_run, machines }))
}

/// Expects a machine no longer.
#[utoipa::path(delete, path = "/expected-machines/{name}", tag = "machines", operation_id = "delete_expected_machine",
    params(("name" = String, Path, description = "Name")),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn remove(State(api): State<Api>, Named(name): Named) -> Answer<StatusCode> {
    api.engine.forget_expected(operator(), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets another machine take the part of a node: its name, place, network settings and deploy. The old one is called
/// `NAME-replaced`, is retired, and its OS is wiped once it boots from the network. All of it happens, or nothing.
#[utoipa::path(post, path = "/nodes/{node}/replace", tag = "machines", operation_id = "replace_node",
    params(("node" = String, Path, description = "Name or id of the old machine")), request_body = ReplaceRequest,
    responses((status = 200, body = ReplaceView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn replace(
    State(api): State<Api>,
    Named(node): Named,
    Input(request): Input<ReplaceRequest>,
) -> Answer<Json<ReplaceView>> {
    let (old, new) = (api.engine.node(&node).await?, api.engine.node(&request.with).await?);
    if !request.dry_run && request.confirm.as_deref() != Some(&old.name) {
        return Err(Problem {
            status: 422,
            code: "confirm-missing".to_owned(),
            message: format!("this wipes disks: `confirm` must be the old machine's name, {}", old.name),
            hint: "type the node's name to confirm".to_owned(),
        }
        .into());
    }
    let how = Replacing {
        take_place: request.take_place,
        allow_smaller: request.allow_smaller,
        dry_run: request.dry_run,
    };
    Ok(Json(api.engine.replace(&old, &new, operator(), how).await?))
}
