//! Expected hardware: models, and what of a machine is not as its model says.

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::expected::Model;
use boot_server_core::node::Node;
use serde_json::json;

use super::form::{self, Fields};
use super::format as f;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, node, operator, render};
use crate::cli::parse_model;
use crate::engine::EngineError;
use crate::view::{NodeView, Problem};

#[derive(Template)]
#[template(path = "models.html")]
struct ModelsPage {
    nav: &'static str,
    models: Vec<Row>,
    /// Machines that are kept out now.
    quarantined: Vec<NodeView>,
    text: String,
    problem: Option<Problem>,
    recipe: Recipe,
}

/// A model in the list.
struct Row {
    model: Model,
    machines: String,
    dimms: u32,
    disks: u32,
    cables: usize,
}

#[derive(Template)]
#[template(path = "model.html")]
struct ModelPage {
    nav: &'static str,
    name: String,
    text: String,
    problem: Option<Problem>,
    recipe: Recipe,
}

/// What a new model begins with.
const EXAMPLE: &str = r#"name = "r760"
manufacturer = "Dell Inc."
product = "PowerEdge R760"

[expected.cpus]
sockets = 2
model = "Xeon"

[[expected.dimms]]
slot = "A1"
size_bytes = 17179869184

[[expected.disks]]
kind = "nvme"
size_bytes = 960000000000
count = 2

[[expected.nics]]
slot = "pci-0000:3b:00.0"
speed_mbps = 25000
neighbour = { switch = "sw-{rack}-1", port = "Ethernet{unit}" }
"#;

pub(super) async fn list(State(ui): State<Ui>) -> Result<Response, Refusal> {
    page(&ui, EXAMPLE.to_owned(), None).await
}

async fn page(ui: &Ui, text: String, problem: Option<Problem>) -> Result<Response, Refusal> {
    let models = ui.engine.models().await?.into_iter().map(Row::of).collect();
    let mut quarantined = Vec::new();
    for node in ui.engine.nodes().await?.into_iter().filter(|node| node.quarantine.is_some()) {
        quarantined.push(NodeView::of(&node, None));
    }
    let learned = json!({ "name": "r760" });
    let recipe = Recipe::default()
        .and("billet model list", "GET", "models", None)
        .and("billet model learn node-1 --name r760", "POST", "nodes/node-1/learn", Some(&learned))
        .and("billet node expected node-1", "GET", "nodes/node-1/expected", None);
    let status = problem.as_ref().map_or(200, |p| p.status);
    Ok(render(status, &ModelsPage { nav: "models", models, quarantined, text, problem, recipe }))
}

impl Row {
    fn of(model: Model) -> Self {
        let e = &model.expected;
        let words = [&model.manufacturer, &model.product].into_iter().flatten().cloned();
        Self {
            machines: words.collect::<Vec<_>>().join(" "),
            dimms: e.dimms.iter().map(|d| d.count).sum(),
            disks: e.disks.iter().map(|d| d.count).sum(),
            cables: e.nics.iter().filter(|nic| nic.neighbour.is_some()).count(),
            model,
        }
    }
}

pub(super) async fn create(
    State(ui): State<Ui>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let text = Fields(fields).text("model");
    let model = match parse_model(&text) {
        Ok(model) => model,
        Err(why) => {
            let problem = form::problem(
                "bad-model",
                format!("this is no model: {why}"),
                "correct it, and send it again",
            );
            return page(&ui, text, Some(problem)).await;
        }
    };
    match ui.engine.put_model(operator(), model, false).await {
        Ok(model) => Ok(go(&address(&model.name))),
        Err(error) => page(&ui, text, Some(Refusal::from(error).0)).await,
    }
}

fn address(name: &str) -> String {
    format!("/models/{}", crate::http::encode(name))
}

fn toml_of(model: &Model) -> String {
    toml::to_string_pretty(model).unwrap_or_else(|error| {
        tracing::error!(%error, "a model cannot be written as TOML");
        String::new()
    })
}

pub(super) async fn show(State(ui): State<Ui>, Path(name): Path<String>) -> Result<Response, Refusal> {
    let model = ui.engine.model(&name).await?;
    Ok(model_page(&model.name, toml_of(&model), None))
}

fn model_page(name: &str, text: String, problem: Option<Problem>) -> Response {
    let word = f::shell(name);
    let recipe = Recipe::default()
        .and(&format!("billet model show {word} --toml"), "GET", &format!("models/{name}"), None)
        .and(&format!("billet model delete {word}"), "DELETE", &format!("models/{name}"), None);
    let status = problem.as_ref().map_or(200, |p| p.status);
    render(status, &ModelPage { nav: "models", name: name.to_owned(), text, problem, recipe })
}

pub(super) async fn change(
    State(ui): State<Ui>,
    Path(name): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let text = Fields(fields).text("model");
    let parsed = parse_model(&text).and_then(|model| match model.name == name {
        true => Ok(model),
        false => Err(format!("it calls itself `{}`; make a new model for another name", model.name)),
    });
    match parsed {
        Ok(model) => match ui.engine.put_model(operator(), model, true).await {
            Ok(model) => Ok(go(&address(&model.name))),
            Err(error) => Ok(model_page(&name, text, Some(Refusal::from(error).0))),
        },
        Err(why) => {
            let what = format!("this is no model: {why}");
            Ok(model_page(
                &name,
                text,
                Some(form::problem("bad-model", &what, "correct it, and send it again")),
            ))
        }
    }
}

pub(super) async fn remove(State(ui): State<Ui>, Path(name): Path<String>) -> Result<Response, Refusal> {
    ui.engine.remove_model(operator(), &name).await?;
    Ok(go("/models"))
}

pub(super) async fn accept(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let found = ui.engine.node(&reference).await?;
    let done = ui.engine.accept(&found, operator(), Fields(fields).get("reason")).await;
    back(&ui, &reference, done).await
}

pub(super) async fn assign(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let found = ui.engine.node(&reference).await?;
    let done = ui.engine.assign_model(&found, operator(), Fields(fields).trimmed("model")).await;
    back(&ui, &reference, done).await
}

pub(super) async fn learn(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let found = ui.engine.node(&reference).await?;
    let name = Fields(fields).trimmed("name").unwrap_or_default();
    match ui.engine.learn_model(operator(), &found, &name, false).await {
        Ok(model) => Ok(go(&address(&model.name))),
        Err(error) => back(&ui, &reference, Err(error)).await,
    }
}

/// The node's page; where something was refused, with the reason.
pub(super) async fn back(
    ui: &Ui,
    reference: &str,
    done: Result<Node, EngineError>,
) -> Result<Response, Refusal> {
    match done {
        Ok(node) => Ok(go(&node::address(&node))),
        Err(error) => {
            let problem = Refusal::from(error).0;
            let node = ui.engine.node(reference).await?;
            node::page(ui, &node, Some(problem)).await
        }
    }
}
