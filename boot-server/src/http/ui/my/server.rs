//! One server of a project: how its installation goes, how it is reached, and what can be done with it.

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::access::Role;
use boot_server_core::approval::{Approval, Status};
use boot_server_core::metadata::hostkey::HostKey;
use boot_server_core::server::{Phase, Server};
use serde_json::json;
use uuid::Uuid;

use super::super::form::{self, Fields};
use super::super::format::{self as f, Look};
use super::super::recipe::Recipe;
use super::super::timeline::{self, Bar};
use super::attached::Attached;
use super::servers::look;
use super::{Frame, Refusal, Ui, Within, go, images, refuse, render};
use crate::engine::servers::{Reinstall, ServerPower};
use crate::engine::{EngineError, now};
use crate::http::api::projects::InProject;
use crate::store::approvals::ApprovalFilter;
use crate::store::queries::Remembered;
use crate::view::Problem;
use crate::view::place::OfferedImage;
use crate::view::servers::ServerDetail;

/// Requests that wait, of one server, that its page shows.
const WAITING_MAX: usize = 20;

#[derive(Template)]
#[template(path = "my/server.html")]
struct ServerPage {
    frame: Frame,
    detail: ServerDetail,
    look: Look,
    group: Option<String>,
    bars: Vec<Bar>,
    total: String,
    host_keys: Vec<HostKey>,
    images: Vec<OfferedImage>,
    /// Volumes, and which it could have.
    attached: Attached,
    /// What a second person must want.
    waiting: Vec<Approval>,
    /// The OS that it can go back to.
    before: Option<String>,
    problem: Option<Problem>,
    /// A form that is sent twice puts the OS on once.
    key: Uuid,
    recipe: Recipe,
}

impl ServerPage {
    /// It can be switched.
    fn runs(&self) -> bool {
        self.detail.server.phase == Phase::Active
    }

    /// It can be given an OS anew.
    fn installs(&self) -> bool {
        matches!(self.detail.server.phase, Phase::Active | Phase::Error)
    }

    /// There are volumes, of which something must be said before it is deleted.
    fn keeps_volumes(&self) -> bool {
        !self.attached.volumes.is_empty()
    }

    /// It is still there.
    fn lives(&self) -> bool {
        !matches!(self.detail.server.phase, Phase::Deleting | Phase::Deleted)
    }
}

#[derive(Template)]
#[template(path = "my/console.html")]
struct ConsolePage {
    frame: Frame,
    server: String,
    attach: String,
    recipe: Recipe,
}

pub(super) async fn show(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, server)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let server = ui.engine.server(within.project.id, &server).await?;
    page(&ui, &within, server, None).await
}

async fn page(
    ui: &Ui,
    within: &InProject,
    server: Server,
    problem: Option<Problem>,
) -> Result<Response, Refusal> {
    let project = within.project.id;
    // What is told of the OS is told of this server's alone: not of what stood on the machine before.
    let own = matches!(server.phase, Phase::Active | Phase::Error) && server.active.is_some();
    let node = ui.engine.node(&server.node.to_string()).await.ok().filter(|_| own);
    let host_keys = node.and_then(|node| node.installed).map(|os| os.host_keys).unwrap_or_default();
    let waiting = ApprovalFilter {
        status: Some(Status::Waiting),
        node: Some(server.node),
        project: Some(project),
        limit: WAITING_MAX,
        ..ApprovalFilter::default()
    };
    let waiting = ui.engine.approvals(waiting).await?;
    let groups = ui.engine.server_groups(project).await?;
    let group = groups.iter().find(|g| Some(g.id) == server.group).map(|g| g.name.to_string());
    let attached = Attached::of(ui, &server).await?;
    let before = ui.engine.rolls_back_to(&server).await;
    let working = matches!(server.phase, Phase::Claimed | Phase::Deploying | Phase::Deleting);
    let detail = ui.engine.server_detail(server).await?;
    let (bars, total) = timeline::bars(&detail.timeline, now(), working);
    let page = ServerPage {
        frame: Frame::of(ui, within, "servers"),
        look: look(detail.server.phase),
        recipe: recipe(&within.project.name, &detail.server.name),
        images: images(ui).await?,
        attached,
        waiting,
        detail,
        group,
        bars,
        total,
        host_keys,
        before,
        problem,
        key: Uuid::now_v7(),
    };
    Ok(render(if page.problem.is_some() { 422 } else { 200 }, &page))
}

fn recipe(project: &str, server: &str) -> Recipe {
    let (shell, path) = (f::shell(server), format!("projects/{project}/servers/{server}"));
    let cli = |verb: &str| format!("billet server {verb} {shell} --project {}", f::shell(project));
    let nothing = json!({});
    let mut recipe = Recipe::default().and(&cli("show"), "GET", &path, None);
    for verb in ["start", "stop", "reboot", "reinstall"] {
        recipe = recipe.and(&cli(verb), "POST", &format!("{path}/{verb}"), Some(&nothing));
    }
    let words = json!({ "server": server, "words": "it does not start" });
    recipe
        .and(
            &format!("billet server rename {shell} new-name --project {}", f::shell(project)),
            "PATCH",
            &path,
            Some(&json!({ "name": "new-name" })),
        )
        .and(
            &format!("{} 'it does not start'", cli("report")),
            "POST",
            &format!("projects/{project}/faults"),
            Some(&words),
        )
        .and(&cli("delete"), "DELETE", &path, None)
}

/// Does what a form on the page asks for, and shows the page, with the reason where it was refused.
pub(super) async fn act(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, reference, verb)): Path<(String, String, String)>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let server = ui.engine.server(within.project.id, &reference).await?;
    match done(&ui, &within, &server, &verb, &Fields(fields)).await {
        Ok(server) => {
            let at = format!("{}/servers", super::address(&within.project.name));
            Ok(go(&if verb == "delete" { at } else { format!("{at}/{}", server.id) }))
        }
        Err(problem) => page(&ui, &within, server, Some(problem)).await,
    }
}

async fn done(
    ui: &Ui,
    within: &InProject,
    server: &Server,
    verb: &str,
    fields: &Fields,
) -> Result<Server, Problem> {
    let problem = |error: EngineError| error.problem();
    let (engine, project, actor) = (&ui.engine, within.project.id, within.who.actor());
    let id = server.id.to_string();
    if matches!(verb, "delete" | "reinstall" | "rollback") && fields.get("confirm") != server.name {
        return Err(form::not_confirmed(fields.get("confirm"), &server.name));
    }
    let power = match verb {
        "delete" => return engine.delete_server(project, &id, actor).await.map_err(problem),
        "reinstall" => {
            return reinstall(ui, within, server, fields).await.map_err(problem);
        }
        "rollback" => return engine.rollback_server(project, &id, actor).await.map_err(problem),
        "rename" => {
            return engine
                .rename_server(project, &id, actor, fields.get("name").trim())
                .await
                .map_err(problem);
        }
        "fault" => {
            engine.report_fault(project, &id, actor, fields.text("words").trim()).await.map_err(problem)?;
            return Ok(server.clone());
        }
        "start" => ServerPower::Start,
        "stop" => ServerPower::Stop,
        "off" => ServerPower::StopHard,
        "reboot" => ServerPower::Reboot,
        _ => return Err(form::problem("not-found", "there is no such action", "")),
    };
    engine.switch_server(project, &id, actor, power).await.map_err(problem)?;
    engine.server(project, &id).await.map_err(problem)
}

/// Once for each form that was shown, however often it is sent.
async fn reinstall(
    ui: &Ui,
    within: &InProject,
    server: &Server,
    fields: &Fields,
) -> Result<Server, EngineError> {
    let engine = &ui.engine;
    let image = fields.trimmed("image");
    let wanted = Remembered {
        scope: format!("{} reinstall {}", within.who.key(), server.id),
        key: fields.get("key").chars().take(80).collect(),
        request: image.clone().unwrap_or_default(),
        answer: String::new(),
    };
    let known = !wanted.key.is_empty();
    if known && engine.answered(&wanted.scope, &wanted.key, &wanted.request).await?.is_some() {
        return engine.server(within.project.id, &server.id.to_string()).await;
    }
    if known {
        engine.remember(wanted.clone()).await?;
    }
    let change = Reinstall { image, ..Reinstall::default() };
    let id = server.id.to_string();
    let done = engine.reinstall_server(within.project.id, &id, within.who.actor(), change).await;
    if known && done.is_err() {
        engine.forget_answer(&wanted).await?;
    }
    done
}

pub(super) async fn console(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, server)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let server = ui.engine.server(within.project.id, &server).await?;
    let (project, name) = (&within.project.name, &server.name);
    let attach = format!("projects/{}/servers/{}/console/attach", within.project.id, server.id);
    let recipe = Recipe::default().and(
        &format!("billet server console {} --project {}", f::shell(name), f::shell(project)),
        "GET",
        &attach,
        None,
    );
    let frame = Frame::of(&ui, &within, "servers");
    let attach = format!("/api/v1/{attach}");
    Ok(render(200, &ConsolePage { frame, server: name.clone(), attach, recipe }))
}
