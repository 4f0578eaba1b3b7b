//! Pools, flavors with how many machines there are of each, and what a request for machines would get.

use std::str::FromStr;

use askama::Template;
use axum::extract::{Form, Path, Query, State};
use axum::response::Response;
use boot_server_core::flavor::{Billed, Bounds, Flavor};
use boot_server_core::names::Tag;
use boot_server_core::placement::By;
use boot_server_core::pool::{Idle, Offer, Pool};
use protocol::inventory::FirmwareMode;
use serde::Deserialize;
use serde_json::json;

use super::form::{Fields, problem};
use super::format as f;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, operator, render};
use crate::engine::EngineError;
use crate::http::api::place_requests::PlacementRequest;
use crate::tenancy::{Tenancy, TenancyError};
use crate::view::Problem;
use crate::view::place::{FlavorView, PlacementView, PoolView};

/// What can be chosen in forms, with how it is called.
const ARCHITECTURES: [(&str, &str); 3] = [("", "any"), ("x86_64", "x86_64"), ("aarch64", "aarch64")];
const FIRMWARES: [(&str, &str); 3] = [("", "any"), ("uefi", "UEFI"), ("bios", "BIOS")];
const POLICIES: [&str; 4] = ["anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity"];
const DOMAINS: [(&str, &str); 4] =
    [("rack", "rack"), ("power_feed", "power feed"), ("room", "room"), ("node", "machine")];

#[derive(Template)]
#[template(path = "pools.html")]
struct PoolsPage {
    nav: &'static str,
    pools: Vec<PoolView>,
    form: Fields,
    edit: bool,
    problem: Option<Problem>,
    recipe: Recipe,
}

#[derive(Template)]
#[template(path = "flavors.html")]
struct FlavorsPage {
    nav: &'static str,
    flavors: Vec<FlavorView>,
    pools: Vec<String>,
    form: Fields,
    edit: bool,
    problem: Option<Problem>,
    recipe: Recipe,
}

#[derive(Template)]
#[template(path = "placement.html")]
struct PlacementPage {
    nav: &'static str,
    flavors: Vec<String>,
    pools: Vec<String>,
    projects: Vec<String>,
    form: Fields,
    answer: Option<PlacementView>,
    problem: Option<Problem>,
    recipe: Recipe,
}

/// Which one is changed.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Edit {
    edit: Option<String>,
}

fn fields(pairs: Vec<(&str, String)>) -> Fields {
    Fields(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A text of a form as what it says, or what is wrong with it.
fn read<T: FromStr>(text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.trim().parse().map_err(|error: T::Err| wrong(error.to_string()))
}

fn wrong(message: String) -> Problem {
    Problem { status: 422, ..problem("form", &message, "correct it, and send the form again") }
}

/// One of each line or word.
fn many<T: FromStr>(text: &str, between: impl Fn(char) -> bool) -> Result<Vec<T>, Problem>
where
    T::Err: std::fmt::Display,
{
    text.split(between).map(str::trim).filter(|part| !part.is_empty()).map(read).collect()
}

pub(super) async fn pools(State(ui): State<Ui>, Query(asked): Query<Edit>) -> Result<Response, Refusal> {
    let Some(name) = asked.edit else {
        return Ok(pools_page(&ui, fields(vec![("base", "0".to_owned())]), false, None));
    };
    let kept = ui.engine.pool(&name)?;
    let pool = kept.value;
    let projects = match &pool.offered {
        Offer::All => String::new(),
        Offer::Projects(ids) => {
            let name = |id| ui.known.tenancy().project_name(id);
            ids.iter().copied().map(name).collect::<Vec<_>>().join(" ")
        }
    };
    let idle = match pool.idle {
        Idle::Keep => String::new(),
        Idle::OffAfterMinutes(minutes) => minutes.to_string(),
    };
    let form = fields(vec![
        ("name", pool.name.to_string()),
        ("description", pool.description.clone()),
        ("offered", if pool.offered == Offer::All { "all" } else { "some" }.to_owned()),
        ("projects", projects),
        ("four_eyes", if pool.four_eyes { "1" } else { "" }.to_owned()),
        ("idle", idle),
        ("base", pool.weights.base.to_string()),
        ("seen", kept.version.to_string()),
    ]);
    Ok(pools_page(&ui, form, true, None))
}

fn pools_page(ui: &Ui, form: Fields, edit: bool, problem: Option<Problem>) -> Response {
    let status = problem.as_ref().map_or(200, |problem| problem.status);
    let body = json!({ "name": "gold", "four_eyes": true, "idle": { "off_after_minutes": 30 } });
    let recipe = Recipe::default()
        .and("billet pool create gold --four-eyes true --idle-off 30", "POST", "pools", Some(&body))
        .and("billet pool set gold --four-eyes true --idle-off 30", "PUT", "pools/gold", Some(&body))
        .and("billet pool put gold NODE", "PUT", "nodes/NODE/pool", Some(&json!({ "pool": "gold" })))
        .and("billet pool delete gold", "DELETE", "pools/gold", None);
    let pools = ui.engine.pool_views();
    render(status, &PoolsPage { nav: "pools", pools, form, edit, problem, recipe })
}

pub(super) async fn save_pool(State(ui): State<Ui>, Form(sent): Form<Vec<(String, String)>>) -> Response {
    let form = Fields(sent);
    let edit = form.get("edit") == "1";
    match store_pool(&ui, &form, edit).await {
        Ok(()) => go("/pools"),
        Err(problem) => pools_page(&ui, form, edit, Some(problem)),
    }
}

async fn store_pool(ui: &Ui, form: &Fields, edit: bool) -> Result<(), Problem> {
    let name = form.get("name").trim();
    let told = |error: EngineError| Refusal::from(error).0;
    // What the form does not show stays as it is.
    let mut pool = match edit {
        true => Pool::clone(&ui.engine.pool(name).map_err(told)?.value),
        false => Pool::new(read(name)?),
    };
    pool.description = form.get("description").trim().to_owned();
    pool.offered = match form.get("offered") {
        "some" => {
            let ids = form.get("projects").split([' ', ',']).filter(|name| !name.is_empty());
            Offer::Projects(ids.map(|name| project(ui.known.tenancy(), name)).collect::<Result<_, _>>()?)
        }
        _ => Offer::All,
    };
    pool.four_eyes = form.get("four_eyes") == "1";
    pool.idle = match form.trimmed("idle") {
        None => Idle::Keep,
        Some(minutes) => Idle::OffAfterMinutes(read(&minutes)?),
    };
    pool.weights.base = form.trimmed("base").map_or(Ok(0), |text| read(&text))?;
    let done = match edit {
        true => ui.engine.change_pool(operator(), name, pool, seen(form)).await,
        false => ui.engine.create_pool(operator(), pool).await,
    };
    done.map(drop).map_err(told)
}

/// The version that the form was filled with: a change by somebody else in between is not overwritten.
fn seen(form: &Fields) -> Option<i64> {
    form.get("seen").parse().ok()
}

fn project(tenancy: &Tenancy, name: &str) -> Result<protocol::ProjectId, Problem> {
    let found = tenancy.project(name).map(|project| project.id);
    found.ok_or_else(|| TenancyError::ProjectNotFound(name.chars().take(80).collect()).problem())
}

pub(super) async fn remove_pool(State(ui): State<Ui>, Path(name): Path<String>) -> Response {
    match ui.engine.remove_pool(operator(), &name).await {
        Ok(()) => go("/pools"),
        Err(error) => pools_page(&ui, Fields::default(), false, Some(Refusal::from(error).0)),
    }
}

pub(super) async fn flavors(State(ui): State<Ui>, Query(asked): Query<Edit>) -> Result<Response, Refusal> {
    match asked.edit {
        None => flavors_page(&ui, Fields::default(), false, None).await,
        Some(name) => {
            let kept = ui.engine.kept_flavor(&name)?;
            let mut form = of_flavor(&kept.value);
            form.0.push(("seen".to_owned(), kept.version.to_string()));
            flavors_page(&ui, form, true, None).await
        }
    }
}

fn of_flavor(flavor: &Flavor) -> Fields {
    let rules = &flavor.rules;
    let amount = |bounds: Bounds| if bounds.is_any() { String::new() } else { bounds.to_string() };
    fn all<T: ToString>(items: impl IntoIterator<Item = T>, between: &str) -> String {
        items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(between)
    }
    fields(vec![
        ("name", flavor.name.to_string()),
        ("description", flavor.description.clone()),
        ("cores", amount(rules.cores)),
        ("memory_gib", amount(rules.memory_gib)),
        ("sockets", amount(rules.sockets)),
        ("dpus", amount(rules.dpus)),
        ("disks", all(&rules.disks, "\n")),
        ("nics", all(&rules.nics, "\n")),
        ("gpus", all(&rules.gpus, "\n")),
        ("architecture", rules.architecture.clone().unwrap_or_default()),
        (
            "firmware",
            rules
                .firmware
                .map_or("", |mode| if mode == FirmwareMode::Uefi { "uefi" } else { "bios" })
                .to_owned(),
        ),
        ("vendor", rules.vendor.clone().unwrap_or_default()),
        ("model", rules.model.clone().unwrap_or_default()),
        ("required_tags", all(&rules.required_tags, " ")),
        ("forbidden_tags", all(&rules.forbidden_tags, " ")),
        ("pools", all(&flavor.pools, " ")),
        ("billed", flavor.billed.map(|billed| billed.to_string()).unwrap_or_default()),
        ("withdrawn", if flavor.withdrawn { "1" } else { "" }.to_owned()),
    ])
}

fn from_form(form: &Fields) -> Result<Flavor, Problem> {
    let amount = |name| form.trimmed(name).map_or(Ok(Bounds::default()), |text| read::<Bounds>(&text));
    let line = |c: char| c == '\n' || c == ';';
    let space = |c: char| c.is_whitespace() || c == ',';
    let mut flavor = Flavor::new(read(form.get("name"))?);
    flavor.description = form.get("description").trim().to_owned();
    flavor.pools = many(form.get("pools"), space)?;
    flavor.withdrawn = form.get("withdrawn") == "1";
    flavor.billed = form.trimmed("billed").map(|text| read::<Billed>(&text)).transpose()?;
    let rules = &mut flavor.rules;
    rules.cores = amount("cores")?;
    rules.memory_gib = amount("memory_gib")?;
    rules.sockets = amount("sockets")?;
    rules.dpus = amount("dpus")?;
    rules.disks = many(&form.text("disks"), line)?;
    rules.nics = many(&form.text("nics"), line)?;
    rules.gpus = many(&form.text("gpus"), line)?;
    rules.architecture = form.trimmed("architecture");
    rules.firmware = match form.get("firmware") {
        "uefi" => Some(FirmwareMode::Uefi),
        "bios" => Some(FirmwareMode::Bios),
        _ => None,
    };
    rules.vendor = form.trimmed("vendor");
    rules.model = form.trimmed("model");
    rules.required_tags = many::<Tag>(form.get("required_tags"), space)?.into_iter().collect();
    rules.forbidden_tags = many::<Tag>(form.get("forbidden_tags"), space)?.into_iter().collect();
    Ok(flavor)
}

async fn flavors_page(
    ui: &Ui,
    form: Fields,
    edit: bool,
    problem: Option<Problem>,
) -> Result<Response, Refusal> {
    let status = problem.as_ref().map_or(200, |problem| problem.status);
    let body = json!({ "name": "c16", "rules": { "cores": { "min": 16 }, "memory_gib": { "min": 64 } } });
    let recipe = Recipe::default()
        .and("billet flavor create c16 --cores 16.. --memory-gib 64..", "POST", "flavors", Some(&body))
        .and("billet flavor set c16 --cores 16.. --memory-gib 64..", "PUT", "flavors/c16", Some(&body))
        .and("billet flavor list", "GET", "flavors", None)
        .and("billet flavor delete c16", "DELETE", "flavors/c16", None);
    let flavors = ui.engine.flavor_views().await?;
    let pools = names(ui);
    Ok(render(status, &FlavorsPage { nav: "flavors", flavors, pools, form, edit, problem, recipe }))
}

/// Names of all pools.
pub(super) fn names(ui: &Ui) -> Vec<String> {
    ui.engine.pools().into_iter().map(|pool| pool.value.name.to_string()).collect()
}

pub(super) async fn save_flavor(
    State(ui): State<Ui>,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let form = Fields(sent);
    let edit = form.get("edit") == "1";
    let done = match from_form(&form) {
        Ok(flavor) if edit => {
            let name = flavor.name.to_string();
            let done = ui.engine.change_flavor(operator(), &name, flavor, seen(&form)).await;
            done.map_err(|error| Refusal::from(error).0)
        }
        Ok(flavor) => {
            ui.engine.create_flavor(operator(), flavor).await.map_err(|error| Refusal::from(error).0)
        }
        Err(problem) => Err(problem),
    };
    match done {
        Ok(_) => Ok(go("/flavors")),
        Err(problem) => flavors_page(&ui, form, edit, Some(problem)).await,
    }
}

pub(super) async fn remove_flavor(
    State(ui): State<Ui>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    match ui.engine.remove_flavor(operator(), &name).await {
        Ok(()) => Ok(go("/flavors")),
        Err(error) => flavors_page(&ui, Fields::default(), false, Some(Refusal::from(error).0)).await,
    }
}

/// The form, and the answer where something was asked: all of it is in the address.
pub(super) async fn placement(
    State(ui): State<Ui>,
    Query(sent): Query<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let form = Fields(sent);
    let asked = form.trimmed("flavor").is_some() || form.trimmed("node").is_some();
    let (mut answer, mut problem, mut request) = (None, None, None);
    if asked {
        match placement_request(&form) {
            Ok(made) => {
                match attempt(&ui, &made).await {
                    Ok(view) => answer = Some(view),
                    Err(why) => problem = Some(why),
                }
                request = Some(made);
            }
            Err(why) => problem = Some(why),
        }
    }
    let mut cli = "billet placement try".to_owned();
    for (name, option) in [
        ("flavor", "flavor"),
        ("node", "node"),
        ("project", "project"),
        ("count", "count"),
        ("pool", "pool"),
        ("policy", "policy"),
        ("domain", "domain"),
    ] {
        // A domain says nothing without a policy.
        let needless = name == "domain" && form.trimmed("policy").is_none();
        if let Some(value) = form.trimmed(name).filter(|_| !needless) {
            cli.push_str(&format!(" --{option} {}", f::shell(&value)));
        }
    }
    let body =
        request.and_then(|request| serde_json::to_value(request).ok()).unwrap_or(json!({ "flavor": "c16" }));
    let recipe = Recipe::default().and(&cli, "POST", "placements", Some(&body));
    let page = PlacementPage {
        nav: "placement",
        flavors: ui.engine.flavors().into_iter().map(|flavor| flavor.value.name.to_string()).collect(),
        pools: names(&ui),
        projects: ui.known.tenancy().projects().into_iter().map(|project| project.name).collect(),
        form,
        answer,
        problem,
        recipe,
    };
    Ok(render(200, &page))
}

fn placement_request(form: &Fields) -> Result<PlacementRequest, Problem> {
    fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Problem> {
        serde_json::from_value(json!(text)).map_err(|error| wrong(error.to_string()))
    }
    let policy = form.trimmed("policy").map(|text| word(&text)).transpose()?;
    Ok(PlacementRequest {
        project: form.trimmed("project"),
        flavor: form.trimmed("flavor").map(|text| read(&text)).transpose()?,
        node: form.trimmed("node"),
        count: form.trimmed("count").map_or(Ok(1), |text| read(&text))?,
        pool: form.trimmed("pool").map(|text| read(&text)).transpose()?,
        domain: policy.as_ref().and(form.trimmed("domain")).map(|text| word(&text)).transpose()?,
        policy,
        members: form
            .get("members")
            .split([' ', ','])
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

async fn attempt(ui: &Ui, request: &PlacementRequest) -> Result<PlacementView, Problem> {
    let by = match &request.project {
        Some(name) => By::Project(project(ui.known.tenancy(), name)?),
        None => By::Site,
    };
    ui.engine.try_placement(by, request).await.map_err(|error| Refusal::from(error).0)
}

/// To whom a pool is offered, in words.
fn offered(pool: &Pool) -> String {
    match &pool.offered {
        Offer::All => "all projects".to_owned(),
        Offer::Projects(projects) if projects.is_empty() => "nobody".to_owned(),
        Offer::Projects(projects) => format!("{} project{}", projects.len(), f::s(projects.len())),
    }
}

/// What becomes of idle machines, in words.
fn idle(pool: &Pool) -> String {
    match pool.idle {
        Idle::Keep => "stay on".to_owned(),
        Idle::OffAfterMinutes(minutes) => format!("off after {minutes} min"),
    }
}
