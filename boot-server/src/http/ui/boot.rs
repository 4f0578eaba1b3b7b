//! The form that says what a server boots next instead of the usual, and the two buttons beside it.

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::node::event::Verb;
use boot_server_core::node::{Boot, Event, Node, Repeat};
use serde_json::{Value, json};

use super::form::{self, Fields};
use super::format::shell;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, node, operator, render};
use crate::view::{NodeView, Problem};

/// What was typed.
#[derive(Debug, Clone, Default)]
struct Typed {
    kind: String,
    kernel: String,
    initrds: String,
    arguments: String,
    profile: String,
    iso: String,
    server: String,
    target: String,
    lun: String,
    chap_user: String,
    always: bool,
    confirm: String,
}

#[derive(Template)]
#[template(path = "boot.html")]
struct BootPage {
    nav: &'static str,
    node: NodeView,
    media: String,
    form: Typed,
    problem: Option<Problem>,
    recipe: Recipe,
}

pub(super) async fn form(State(ui): State<Ui>, Path(reference): Path<String>) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    let form = Typed { kind: "kernel".to_owned(), lun: "0".to_owned(), ..Typed::default() };
    Ok(page(&ui, &node, form, None).await)
}

pub(super) async fn order(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    let fields = Fields(fields);
    let typed = Typed::of(&fields);
    let repeat = if typed.always { Repeat::Always } else { Repeat::Once };
    let boot: Boot = match serde_json::from_value(typed.boot(fields.get("chap_secret"))) {
        Ok(boot) => boot,
        Err(error) => {
            let problem =
                form::problem("boot-order", error.to_string(), "correct it, and send the form again");
            return Ok(page(&ui, &node, typed, Some(problem)).await);
        }
    };
    let confirm = Some(typed.confirm.as_str()).filter(|c| !c.is_empty());
    match ui.engine.order_boot(&node, operator(), boot, repeat, confirm).await {
        Ok(node) => Ok(go(&node::address(&node))),
        Err(error) => Ok(page(&ui, &node, typed, Some(Refusal::from(error).0)).await),
    }
}

pub(super) async fn clear(State(ui): State<Ui>, Path(reference): Path<String>) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    match ui.engine.apply(node.id, operator(), Event::Verb(Verb::ClearBoot)).await {
        Ok(node) => Ok(go(&node::address(&node))),
        Err(error) => node::page(&ui, &node, Some(Refusal::from(error).0)).await,
    }
}

pub(super) async fn forget(State(ui): State<Ui>, Path(reference): Path<String>) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    match ui.engine.forget(&node, operator()).await {
        Ok(_) => Ok(go("/")),
        Err(error) => node::page(&ui, &node, Some(Refusal::from(error).0)).await,
    }
}

impl Typed {
    fn of(fields: &Fields) -> Self {
        let text = |name: &str| fields.trimmed(name).unwrap_or_default();
        Self {
            kind: text("kind"),
            kernel: text("kernel"),
            initrds: fields.text("initrds"),
            arguments: text("arguments"),
            profile: fields.text("profile"),
            iso: text("iso"),
            server: text("server"),
            target: text("target"),
            lun: text("lun"),
            chap_user: text("chap_user"),
            always: fields.get("repeat") == "always",
            confirm: text("confirm"),
        }
    }

    /// As the API takes it: what is wrong with it is found there.
    fn boot(&self, secret: &str) -> Value {
        match self.kind.as_str() {
            "kernel" => {
                let lines = self.initrds.lines().map(str::trim).filter(|line| !line.is_empty());
                let mut boot = json!({
                    "kind": "kernel",
                    "kernel": self.kernel,
                    "initrds": lines.map(|line| json!({ "file": line })).collect::<Vec<_>>(),
                    "arguments": self.arguments,
                });
                if !self.profile.trim().is_empty() {
                    boot["profile"] = json!({ "kind": "text", "text": self.profile });
                }
                boot
            }
            "iso" => json!({ "kind": "iso", "file": self.iso }),
            "iscsi" => {
                let lun = self.lun.parse::<u16>().map_or_else(|_| json!(self.lun), |lun| json!(lun));
                let mut boot =
                    json!({ "kind": "iscsi", "server": self.server, "target": self.target, "lun": lun });
                if !self.chap_user.is_empty() {
                    boot["chap"] = json!({ "user": self.chap_user, "password": secret });
                }
                boot
            }
            other => json!({ "kind": other }),
        }
    }

    fn advanced(&self) -> bool {
        !self.profile.trim().is_empty()
    }
}

async fn page(ui: &Ui, node: &Node, form: Typed, problem: Option<Problem>) -> Response {
    let status = problem.as_ref().map_or(200, |p| p.status);
    let recipe = recipe(node);
    let media = ui.engine.media_dir().display().to_string();
    let node = ui.engine.view(node).await;
    render(status, &BootPage { nav: "servers", node, media, form, problem, recipe })
}

fn recipe(node: &Node) -> Recipe {
    let name = shell(&node.name);
    let path = format!("nodes/{}/boot", node.name);
    let kernel = json!({ "boot": { "kind": "kernel", "kernel": "debian/linux",
        "initrds": [{ "file": "debian/initrd.gz" }], "arguments": "console=ttyS0 --- quiet" } });
    Recipe::default()
        .and(
            &format!(
                "billet node boot {name} kernel debian/linux --initrd debian/initrd.gz --args 'console=ttyS0 --- quiet'"
            ),
            "POST",
            &path,
            Some(&kernel),
        )
        .and(&format!("billet node boot {name} clear"), "DELETE", &path, None)
}
