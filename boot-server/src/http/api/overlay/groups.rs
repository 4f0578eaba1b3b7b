//! Security groups of a project.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use boot_server_core::access::Role;
use std::collections::BTreeSet;

use boot_server_core::network::{Rule, SecurityGroup};
use protocol::{ProjectId, SecurityGroupId};

use super::super::extract::{Input, LastNamed, Params};
use super::super::network_requests::{SecurityGroupChangeRequest, SecurityGroupRequest};
use super::super::projects::InProject;
use super::super::requests::PageQuery;
use super::super::versions::Version;
use super::super::{Answer, Api};
use super::page;
use crate::engine::{Engine, EngineError};
use crate::view::networks::{SecurityGroupView, SecurityRule};
use crate::view::{Page, Problem};

/// Security groups of a project, oldest first.
#[utoipa::path(get, path = "/projects/{project}/security-groups", tag = "networks", operation_id = "list_security_groups",
    params(("project" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<SecurityGroupView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn list(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<SecurityGroupView>>> {
    Ok(Json(page::<SecurityGroup, _>(&api, within.project.id, &query, |_| true)?))
}

/// One security group with its rules.
#[utoipa::path(get, path = "/projects/{project}/security-groups/{group}", tag = "networks", operation_id = "show_security_group",
    params(("project" = String, Path, description = "Name or id"),
        ("group" = String, Path, description = "Name or id")),
    responses((status = 200, body = SecurityGroupView), (status = 404, body = Problem)))]
pub async fn show(
    State(api): State<Api>,
    within: InProject,
    LastNamed(group): LastNamed,
) -> Answer<(Extension<Version>, Json<SecurityGroupView>)> {
    let found = api.engine.overlay_thing::<SecurityGroup>(within.project.id, &group)?;
    Ok((Extension(Version(found.version)), Json(found.as_ref().into())))
}

/// Makes a security group.
#[utoipa::path(post, path = "/projects/{project}/security-groups", tag = "networks", operation_id = "create_security_group",
    params(("project" = String, Path, description = "Name or id")),
    request_body = SecurityGroupRequest,
    responses((status = 201, body = SecurityGroupView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn create(
    State(api): State<Api>,
    within: InProject,
    Input(SecurityGroupRequest { name, rules }): Input<SecurityGroupRequest>,
) -> Answer<(StatusCode, Json<SecurityGroupView>)> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let engine = &api.engine;
    let read = |own| rules_of(engine, project, &rules, (&name, Some(own)));
    let made = engine.create_security_group(project, actor, &name, read).await?;
    Ok((StatusCode::CREATED, Json(made.as_ref().into())))
}

/// Changes a security group; rules that are given stand in place of all that there were. It holds on running ports at once.
#[utoipa::path(patch, path = "/projects/{project}/security-groups/{group}", tag = "networks", operation_id = "change_security_group",
    params(("project" = String, Path, description = "Name or id"),
        ("group" = String, Path, description = "Name or id")),
    request_body = SecurityGroupChangeRequest,
    responses((status = 200, body = SecurityGroupView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn change(
    State(api): State<Api>,
    within: InProject,
    LastNamed(group): LastNamed,
    Input(SecurityGroupChangeRequest { name, rules }): Input<SecurityGroupChangeRequest>,
) -> Answer<Json<SecurityGroupView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let rules = rules.map(|rules| rules_of(&api.engine, project, &rules, ("", None))).transpose()?;
    let made = api.engine.change_security_group(project, actor, &group, (name, rules)).await?;
    Ok(Json(made.as_ref().into()))
}

/// Removes a security group. Refused while ports have it, or other groups name it.
#[utoipa::path(delete, path = "/projects/{project}/security-groups/{group}", tag = "networks", operation_id = "delete_security_group",
    params(("project" = String, Path, description = "Name or id"),
        ("group" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is removed"), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub async fn remove(
    State(api): State<Api>,
    within: InProject,
    LastNamed(group): LastNamed,
) -> Answer<StatusCode> {
    within.need(Role::Member)?;
    api.engine.remove_security_group(within.project.id, within.who.actor(), &group).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Rules as they are kept. A group that is being made may name itself.
fn rules_of(
    engine: &Engine,
    project: ProjectId,
    rules: &[SecurityRule],
    (own_name, own): (&str, Option<SecurityGroupId>),
) -> Result<BTreeSet<Rule>, EngineError> {
    let find = |name: &str| match own.filter(|_| name == own_name) {
        Some(own) => Ok(own),
        None => engine.overlay_thing::<SecurityGroup>(project, name).map(|row| row.id),
    };
    let mut all = BTreeSet::new();
    for rule in rules {
        all.extend(rule.rules::<EngineError>(find)?);
    }
    Ok(all)
}
