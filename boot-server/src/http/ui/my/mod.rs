//! Pages of a project's people, below `/my`: what they can have, what they have, what it counts. Each page begins by asking
//! whether whoever looks may enter the project (`InProject`), and shows nothing of the site or of other projects: no node,
//! no rack, no address of a controller.

mod attached;
mod catalogue;
mod create;
mod keys;
mod networks;
mod server;
mod servers;
mod snapshots;
mod stream;
mod usage;
mod volume;
mod volumes;

use askama::Template;
use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{get, post};
use boot_server_core::access::Role;

use super::{Refusal, Ui, go, render};
use crate::http::ProblemResponse;
use crate::http::api::projects::{InProject, entered};
use crate::http::encode;
use crate::view::Problem;
use crate::view::place::OfferedImage;

/// Entries of a project's navigation: key, label, rest of the address, icon.
pub const NAVIGATION: &[(&str, &str, &str, &str)] = &[
    ("servers", "Servers", "/servers", "server"),
    ("catalogue", "Catalogue", "/catalogue", "image"),
    ("create", "New servers", "/create", "plus"),
    ("volumes", "Volumes", "/volumes", "disk"),
    ("snapshots", "Snapshots", "/snapshots", "snapshot"),
    ("networks", "Networks", "/networks", "network"),
    ("groups", "Security groups", "/security-groups", "keep"),
    ("mirrors", "Mirrors", "/mirrors", "network"),
    ("keys", "SSH keys", "/keys", "key"),
    ("usage", "Usage", "/usage", "status"),
    ("members", "Members", "/members", "keep"),
];

pub(super) fn routes() -> Router<Ui> {
    Router::new()
        .route("/my/{project}", get(home))
        .route("/my/{project}/catalogue", get(catalogue::show))
        .route("/my/{project}/create", get(create::form).post(create::create))
        .route("/my/{project}/create/check", post(create::check))
        .route("/my/{project}/servers", get(servers::list))
        .route("/my/{project}/servers/{server}", get(server::show))
        .route("/my/{project}/servers/{server}/console", get(server::console))
        .route("/my/{project}/servers/{server}/{verb}", post(server::act))
        .route("/my/{project}/volumes", get(volumes::list).post(volumes::create))
        .route("/my/{project}/volumes/{volume}", get(volume::show))
        .route("/my/{project}/volumes/{volume}/{verb}", post(volume::act))
        .route("/my/{project}/snapshots", get(snapshots::list))
        .route("/my/{project}/snapshots/{snapshot}/remove", post(snapshots::remove))
        .merge(network_routes())
        .route("/my/{project}/keys", get(keys::list).post(keys::add))
        .route("/my/{project}/keys/{key}/remove", post(keys::remove))
        .route("/my/{project}/usage", get(usage::show))
        .route("/my/{project}/stream", get(stream::serve))
}

fn network_routes() -> Router<Ui> {
    use networks::{groups, mirrors, network, routers};
    Router::new()
        .route("/my/{project}/networks", get(networks::list).post(networks::create))
        .route("/my/{project}/networks/{network}", get(network::show))
        .route("/my/{project}/networks/{network}/{verb}", post(network::act))
        .route("/my/{project}/subnets/{subnet}/remove", post(network::remove_subnet))
        .route("/my/{project}/ports/{port}/{verb}", post(network::act_on_port))
        .route("/my/{project}/routers", post(routers::create))
        .route("/my/{project}/routers/{router}/{verb}", post(routers::act))
        .route("/my/{project}/floating", post(routers::take))
        .route("/my/{project}/floating/{floating}/{verb}", post(routers::act_on_floating))
        .route("/my/{project}/mirrors", get(mirrors::list).post(mirrors::create))
        .route("/my/{project}/mirrors/{mirror}/remove", post(mirrors::remove))
        .route("/my/{project}/security-groups", get(groups::list).post(groups::create))
        .route("/my/{project}/security-groups/{group}/{verb}", post(groups::act))
}

/// What the frame of each page says.
struct Frame {
    /// Name of the project.
    project: String,
    /// Address of the project's pages.
    at: String,
    /// Whether whoever looks may change servers.
    may_use: bool,
    /// Role, in words.
    role: String,
    /// They may enter others too, or the site's pages.
    others: bool,
    /// The site keeps volumes.
    volumes: bool,
    /// The site has networks of projects.
    networks: bool,
    /// Entry of the navigation.
    nav: &'static str,
}

impl Frame {
    fn of(ui: &Ui, within: &InProject, nav: &'static str) -> Self {
        Self {
            at: address(&within.project.name),
            project: within.project.name.clone(),
            may_use: within.role.may_use(),
            role: within.role.to_string(),
            others: entered(ui.known.tenancy()).len() > 1,
            volumes: !ui.engine.volume_types().is_empty(),
            networks: ui.engine.overlay_settings().is_ok(),
            nav,
        }
    }

    /// Whether an entry of the navigation is for whoever looks, at this site.
    fn shows(&self, entry: &str) -> bool {
        match entry {
            "create" => self.may_use,
            "volumes" | "snapshots" => self.volumes,
            "networks" | "groups" | "mirrors" => self.networks,
            _ => true,
        }
    }
}

fn address(project: &str) -> String {
    format!("/my/{}", encode(project))
}

/// Somebody in a project that they may enter; who may not gets a page that says what is said of a project that there is not.
struct Within(InProject);

impl FromRequestParts<Ui> for Within {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, ui: &Ui) -> Result<Self, Response> {
        let within = InProject::from_request_parts(parts, ui).await;
        within.map(Self).map_err(|ProblemResponse(problem)| render(problem.status, &RefusedPage { problem }))
    }
}

/// The frame of the site is not for everybody, and of a project there is none.
#[derive(Template)]
#[template(path = "my/refused.html")]
struct RefusedPage {
    problem: Problem,
}

async fn home(Within(within): Within) -> Response {
    go(&format!("{}/servers", address(&within.project.name)))
}

/// A page says why something was not done, as the API would.
fn refuse(within: &InProject, role: Role) -> Result<(), Refusal> {
    within.need(role).map_err(Refusal)
}

/// Images that can be asked for. One that cannot be read does not hide the others; the log says which.
async fn images(ui: &Ui) -> Result<Vec<OfferedImage>, Refusal> {
    let mut images = Vec::new();
    for row in ui.engine.image_rows().await? {
        match crate::http::api::image_view(&ui.engine, &row).await {
            Ok(view) => images.push(OfferedImage::from(view)),
            Err(error) => tracing::error!(image = %row.id, %error, "image cannot be shown"),
        }
    }
    Ok(images)
}
