//! What forms of a project's networks page do with routers and floating addresses.

use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::access::Role;

use super::super::super::form::{self, Fields};
use super::super::{Refusal, Ui, Within, address, go, refuse};
use super::page;
use crate::engine::EngineError;
use crate::engine::overlay::{NewFloating, NewGateway};
use crate::http::api::projects::InProject;
use crate::view::Problem;

/// The networks page, with the reason where something was refused.
async fn back(
    ui: &Ui,
    within: &InProject,
    fields: Fields,
    done: Result<(), Problem>,
) -> Result<Response, Refusal> {
    match done {
        Ok(()) => Ok(go(&format!("{}/networks", address(&within.project.name)))),
        Err(problem) => page(ui, within, fields, Some(problem)).await,
    }
}

fn told(error: EngineError) -> Problem {
    error.problem()
}

/// Makes a router, and gives it a way out where one was chosen.
pub(in super::super) async fn create(
    State(ui): State<Ui>,
    Within(within): Within,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let fields = Fields(fields);
    let done = make(&ui, &within, &fields).await;
    back(&ui, &within, fields, done).await
}

async fn make(ui: &Ui, within: &InProject, fields: &Fields) -> Result<(), Problem> {
    let (engine, project, actor) = (&ui.engine, within.project.id, within.who.actor());
    let name = fields.trimmed("router").unwrap_or_default();
    let made = engine.create_router(project, actor.clone(), &name).await.map_err(told)?;
    let Some(network) = fields.trimmed("provider") else { return Ok(()) };
    let (id, wish) = (made.id.to_string(), NewGateway { network, address: None });
    if let Err(error) = engine.set_gateway(project, actor.clone(), &id, wish).await {
        // Whoever corrects the form sends the name again.
        if let Err(left) = engine.remove_router(project, actor, &id).await {
            tracing::warn!(router = id, error = &left as &dyn std::error::Error, "a router is left over");
        }
        return Err(told(error));
    }
    Ok(())
}

/// Does something with a router.
pub(in super::super) async fn act(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, router, verb)): Path<(String, String, String)>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let (engine, project, actor, fields) =
        (&ui.engine, within.project.id, within.who.actor(), Fields(fields));
    let done = match verb.as_str() {
        "join" => engine.join_subnet(project, actor, &router, fields.get("subnet")).await.map(drop),
        "leave" => engine.leave_subnet(project, actor, &router, fields.get("subnet")).await.map(drop),
        "gateway" => {
            let wish = NewGateway { network: fields.get("provider").to_owned(), address: None };
            engine.set_gateway(project, actor, &router, wish).await.map(drop)
        }
        "no-gateway" => engine.clear_gateway(project, actor, &router).await.map(drop),
        "remove" => engine.remove_router(project, actor, &router).await,
        _ => return Err(Refusal(form::problem("not-found", "there is no such action", ""))),
    };
    back(&ui, &within, fields, done.map_err(told)).await
}

/// Takes a floating address, which leads to a port at once where one was chosen.
pub(in super::super) async fn take(
    State(ui): State<Ui>,
    Within(within): Within,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let fields = Fields(fields);
    let wish = NewFloating {
        network: fields.get("provider").to_owned(),
        port: fields.trimmed("port"),
        ..NewFloating::default()
    };
    let done = ui.engine.create_floating(within.project.id, within.who.actor(), wish).await;
    back(&ui, &within, fields, done.map(drop).map_err(told)).await
}

/// Does something with a floating address.
pub(in super::super) async fn act_on_floating(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, floating, verb)): Path<(String, String, String)>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let (engine, project, actor, fields) =
        (&ui.engine, within.project.id, within.who.actor(), Fields(fields));
    let done = match verb.as_str() {
        "associate" => {
            let to = (fields.get("port"), None);
            engine.associate_floating(project, actor, &floating, to).await.map(drop)
        }
        "disassociate" => engine.disassociate_floating(project, actor, &floating).await.map(drop),
        "remove" => engine.remove_floating(project, actor, &floating).await,
        _ => return Err(Refusal(form::problem("not-found", "there is no such action", ""))),
    };
    back(&ui, &within, fields, done.map_err(told)).await
}
