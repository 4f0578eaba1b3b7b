//! Deploy and Reinstall: the form, the diff of what it will erase, and the act. Nothing that was typed is lost.

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse, Response};
use boot_server_core::bmc::health::Level;
use boot_server_core::deploy::{
    DeployRequest, DiskChoice, DiskFate, DiskRule, describe, is_candidate, title,
};
use boot_server_core::node::{Node, State as NodeState};
use protocol::inventory::{Disk, Inventory, Transport};
use protocol::job::Task;
use serde_json::json;
use uuid::Uuid;

use super::form::{self, Errors, Fields};
use super::format::shell;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, node, operator, render};
use crate::engine::ImageRow;
use crate::view::{NodeView, Problem};

/// The problem of a server whose health is critical.
const CRITICAL: &str = "node-critical";

/// What was typed, or what the form begins with.
#[derive(Debug, Clone, Default)]
struct Typed {
    key: String,
    image: String,
    disk: String,
    hostname: String,
    user: String,
    ssh_keys: String,
    password_hash: String,
    user_data: String,
    network_config: String,
    datasource: String,
    confirm: String,
    allow_critical: bool,
}

#[derive(Template)]
#[template(path = "deploy.html")]
struct DeployPage {
    nav: &'static str,
    title: &'static str,
    rebuild: bool,
    node: NodeView,
    images: Vec<ImageOption>,
    disks: Vec<DiskOption>,
    default_user: String,
    form: Typed,
    errors: Errors,
    problem: Option<Problem>,
    fates: Vec<DiskFate>,
    refused: Option<Problem>,
    /// Why its health is critical; empty where it is not.
    critical: Vec<String>,
    recipe: Recipe,
}

#[derive(Template)]
#[template(path = "preview.html")]
struct Preview {
    fates: Vec<DiskFate>,
    refused: Option<Problem>,
}

struct ImageOption {
    id: String,
    label: String,
    chosen: bool,
}

/// A disk to choose.
pub(super) struct DiskOption {
    pub value: String,
    pub title: String,
    pub holds: String,
    pub chosen: bool,
    pub unusable: Option<&'static str>,
}

pub(super) async fn deploy_form(ui: State<Ui>, id: Path<String>) -> Result<Response, Refusal> {
    empty_form(ui, id, false).await
}

pub(super) async fn rebuild_form(ui: State<Ui>, id: Path<String>) -> Result<Response, Refusal> {
    empty_form(ui, id, true).await
}

pub(super) async fn deploy(
    ui: State<Ui>,
    id: Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    submit(ui, id, Fields(fields), false).await
}

pub(super) async fn rebuild(
    ui: State<Ui>,
    id: Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    submit(ui, id, Fields(fields), true).await
}

/// The diff alone, for a form whose image or disk was changed.
pub(super) async fn preview(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    let typed = Typed::of(&Fields(fields));
    let (fates, refused) = diff(&ui, &node, &typed).await?;
    Ok(render(200, &Preview { fates, refused }))
}

async fn empty_form(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    rebuild: bool,
) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    let inventory = ui.engine.inventory(node.id).await?;
    let images = ui.engine.image_rows().await?;
    let typed = Typed::begin(&node, inventory.as_deref(), &images);
    page(&ui, &node, typed, rebuild, Errors::default(), None).await
}

async fn submit(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    fields: Fields,
    rebuild: bool,
) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    let typed = Typed::of(&fields);
    let mut errors = typed.check(&node);
    if errors.is_empty() {
        let key = Some(typed.key.clone()).filter(|k| !k.is_empty());
        return match ui.engine.deploy(&node, operator(), typed.request(), rebuild, key).await {
            Ok(node) => Ok(go(&node::address(&node))),
            Err(error) => {
                let rest = errors.place(Refusal::from(error).0);
                page(&ui, &node, typed, rebuild, errors, rest).await
            }
        };
    }
    // What else is wrong is said in the same answer, so that nobody corrects one field at a time.
    let rest = if errors.disk.is_none() && errors.image.is_none() {
        ui.engine.preview(&node, &typed.request()).await?.refused.and_then(|p| errors.place(p))
    } else {
        None
    };
    page(&ui, &node, typed, rebuild, errors, rest).await
}

async fn page(
    ui: &Ui,
    node: &Node,
    typed: Typed,
    rebuild: bool,
    errors: Errors,
    problem: Option<Problem>,
) -> Result<Response, Refusal> {
    let inventory = ui.engine.inventory(node.id).await?;
    let rows = ui.engine.image_rows().await?;
    let (fates, refused) = diff(ui, node, &typed).await?;
    let default_user = match ui.engine.resolve_image(&typed.image).await {
        Ok((_, manifest)) => manifest.default_user.clone().unwrap_or_else(|| "root".to_owned()),
        Err(_) => String::new(),
    };
    let disks = inventory.as_deref().map(|i| options(i, &[typed.disk.as_str()])).unwrap_or_default();
    let page = DeployPage {
        nav: "servers",
        title: if rebuild { "Reinstall" } else { "Deploy" },
        rebuild,
        images: rows.iter().map(|row| ImageOption::of(row, &typed.image)).collect(),
        disks,
        default_user,
        recipe: typed.recipe(node, &rows, rebuild),
        // At a field the same thing is not said twice.
        refused: refused.filter(|_| errors.image.is_none() && errors.disk.is_none()),
        critical: critical(ui, node),
        problem: problem.map(|problem| match problem.code.as_str() {
            CRITICAL => {
                Problem { hint: "repair it, or allow it at the end of this form".to_owned(), ..problem }
            }
            _ => problem,
        }),
        form: typed,
        errors,
        fates,
        node: NodeView::of(node, inventory.as_deref()),
    };
    let status = match &page.problem {
        Some(problem) => problem.status,
        None if page.errors.is_empty() => 200,
        None => 422,
    };
    Ok(render(status, &page).into_response())
}

fn critical(ui: &Ui, node: &Node) -> Vec<String> {
    let health = ui.engine.health(node.id).filter(|health| health.level == Level::Critical);
    health.map(|health| health.reasons).unwrap_or_default()
}

/// What would be erased and what stays. While image or disk are not chosen there is nothing to refuse yet.
async fn diff(ui: &Ui, node: &Node, typed: &Typed) -> Result<(Vec<DiskFate>, Option<Problem>), Refusal> {
    let preview = ui.engine.preview(node, &typed.request()).await?;
    let chosen = !typed.image.is_empty() && !typed.disk.is_empty();
    let concerns_disks = |p: &Problem| {
        let mut errors = Errors::default();
        errors.place(p.clone()).is_some() || errors.disk.is_some() || errors.image.is_some()
    };
    // Health has a box of its own in the form.
    let shown = |p: &Problem| chosen && p.code != CRITICAL && concerns_disks(p);
    Ok((preview.disks, preview.refused.filter(shown)))
}

/// Every disk as a choice; those that can never be written say why.
pub(super) fn options(inventory: &Inventory, chosen: &[&str]) -> Vec<DiskOption> {
    let option = |disk: &Disk| {
        let value = disk.id.as_ref().map(ToString::to_string).unwrap_or_default();
        let unusable = unusable(disk);
        DiskOption {
            chosen: unusable.is_none() && chosen.contains(&value.as_str()),
            title: title(disk),
            holds: describe(&disk.content),
            value,
            unusable,
        }
    };
    inventory.disks.iter().map(option).collect()
}

fn unusable(disk: &Disk) -> Option<&'static str> {
    if is_candidate(disk) {
        return None;
    }
    Some(match disk {
        Disk { id: None, .. } => "it reports nothing that could name it",
        Disk { read_only: true, .. } => "it is write protected",
        Disk { transport: Transport::Usb, .. } => "it is on USB",
        Disk { removable: true, .. } => "it is removable",
        _ => "it has no size",
    })
}

impl ImageOption {
    fn of(row: &ImageRow, chosen: &str) -> Self {
        let id = row.id.to_string();
        Self { chosen: id == chosen, label: format!("{} {}", row.name, row.version), id }
    }
}

impl Typed {
    /// What the form begins with: what runs now, or what was tried last; the only disk where there is only one.
    fn begin(node: &Node, inventory: Option<&Inventory>, images: &[ImageRow]) -> Self {
        let mut typed = Self { key: Uuid::new_v4().to_string(), ..Self::default() };
        if let Some(os) = &node.installed {
            typed.image = os.image.to_string();
            typed.disk = os.disk.to_string();
            typed.hostname.clone_from(&os.hostname);
        }
        if let NodeState::Failed(failure) = &node.state
            && let Some(run) = &failure.run
            && let Task::Deploy(spec) = &run.job.task
        {
            typed.image = spec.image.to_string();
            typed.disk = spec.target.id.to_string();
            typed.hostname = run.hostname.clone().unwrap_or_default();
        }
        if !images.iter().any(|row| row.id.to_string() == typed.image) {
            typed.image = images.first().map(|row| row.id.to_string()).unwrap_or_default();
        }
        if typed.disk.is_empty() {
            let mut usable = inventory.iter().flat_map(|i| &i.disks).filter(|d| is_candidate(d));
            if let (Some(Disk { id: Some(id), .. }), None) = (usable.next(), usable.next()) {
                typed.disk = id.to_string();
            }
        }
        typed
    }

    fn of(fields: &Fields) -> Self {
        let plain = |name| fields.trimmed(name).unwrap_or_default();
        Self {
            key: plain("key"),
            image: plain("image"),
            disk: plain("disk"),
            hostname: plain("hostname"),
            user: plain("user"),
            ssh_keys: fields.text("ssh_keys"),
            password_hash: plain("password_hash"),
            user_data: fields.text("user_data"),
            network_config: fields.text("network_config"),
            datasource: plain("datasource"),
            confirm: plain("confirm"),
            allow_critical: fields.get("allow_critical") == "yes",
        }
    }

    /// Something in the fold was filled in.
    fn advanced(&self) -> bool {
        [&self.password_hash, &self.user_data, &self.network_config].iter().any(|t| !t.is_empty())
            || !self.datasource.is_empty()
    }

    /// What the form itself can tell.
    fn check(&self, node: &Node) -> Errors {
        let mut errors = Errors::default();
        if self.image.is_empty() {
            errors.image = Some(form::problem("image-missing", "Choose an image", ""));
        }
        if self.disk.is_empty() {
            errors.disk = Some(form::problem("disk-missing", "Choose the disk to write", ""));
        } else if self.disk.parse::<protocol::DiskId>().is_err() {
            errors.disk =
                Some(form::problem("disk-missing", "This is not the name of a disk", "choose one above"));
        }
        if self.confirm != node.name {
            errors.confirm = Some(form::not_confirmed(&self.confirm, &node.name));
        }
        errors
    }

    fn request(&self) -> DeployRequest {
        let given = |text: &String| Some(text.clone()).filter(|t| !t.trim().is_empty());
        DeployRequest {
            image: self.image.clone(),
            disk: match self.disk.parse() {
                Ok(id) => DiskChoice::Id(id),
                Err(_) => DiskChoice::Rule(DiskRule::Only),
            },
            hostname: given(&self.hostname),
            user: given(&self.user),
            ssh_keys: self
                .ssh_keys
                .lines()
                .map(str::trim)
                .filter(|l| !l.is_empty())
                .map(str::to_owned)
                .collect(),
            password_hash: given(&self.password_hash),
            user_data: given(&self.user_data),
            network_config: given(&self.network_config),
            datasource: serde_json::from_value(self.datasource.as_str().into()).ok(),
            confirm: given(&self.confirm),
            allow_critical: self.allow_critical,
        }
    }

    /// The form as a command and as a request, as far as it was filled in when the page was made.
    fn recipe(&self, node: &Node, images: &[ImageRow], rebuild: bool) -> Recipe {
        let verb = if rebuild { "rebuild" } else { "deploy" };
        let image = images
            .iter()
            .find(|row| row.id.to_string() == self.image)
            .map_or_else(|| "debian-12".to_owned(), |row| format!("{}:{}", row.name, row.version));
        let disk = if self.disk.is_empty() { "serial:…" } else { &self.disk };
        let mut cli = format!(
            "billet node {verb} {} --image {} --disk {}",
            shell(&node.name),
            shell(&image),
            shell(disk)
        );
        let mut body = json!({ "image": image, "disk": { "id": disk } });
        for (flag, key, value) in [("--hostname", "hostname", &self.hostname), ("--user", "user", &self.user)]
        {
            if !value.is_empty() {
                cli.push_str(&format!(" {flag} {}", shell(value)));
                body[key] = value.as_str().into();
            }
        }
        cli.push_str(" --ssh-key ~/.ssh/id_ed25519.pub");
        body["ssh_keys"] = json!(["ssh-ed25519 AAAA…"]);
        if !self.datasource.is_empty() {
            cli.push_str(&format!(" --datasource {}", shell(&self.datasource)));
            body["datasource"] = self.datasource.as_str().into();
        }
        if self.allow_critical {
            cli.push_str(" --allow-critical");
            body["allow_critical"] = true.into();
        }
        body["confirm"] = node.name.as_str().into();
        cli.push_str(&format!(" --confirm {} --watch", shell(&node.name)));
        Recipe::default().and(&cli, "POST", &format!("nodes/{}/{verb}", node.name), Some(&body))
    }
}

#[cfg(test)]
mod tests {
    use boot_server_core::node::Identity;
    use protocol::{NodeId, Timestamp};

    use super::*;

    fn node() -> Node {
        Node::discovered(NodeId(Uuid::nil()), "r1".to_owned(), Identity::default(), Timestamp(0))
    }

    fn typed(confirm: &str) -> Typed {
        Typed { image: "x".into(), disk: "serial:S1".into(), confirm: confirm.into(), ..Typed::default() }
    }

    #[test]
    fn only_the_name_of_the_node_confirms() {
        assert!(typed("r1").check(&node()).is_empty());
        for wrong in ["", "R1", "r2", "r1 r1"] {
            assert!(typed(wrong).check(&node()).confirm.is_some(), "{wrong}");
        }
    }

    #[test]
    fn a_form_becomes_a_request() {
        let fields = Fields(vec![
            ("image".into(), "debian-12".into()),
            ("disk".into(), "serial:S1".into()),
            ("ssh_keys".into(), "ssh-ed25519 AAAA a\r\n\r\n ssh-rsa BBBB b \r\n".into()),
            ("user_data".into(), "#cloud-config\r\na: 1\r\n".into()),
        ]);
        let request = Typed::of(&fields).request();
        assert_eq!(request.ssh_keys, ["ssh-ed25519 AAAA a", "ssh-rsa BBBB b"]);
        assert_eq!(request.user_data.as_deref(), Some("#cloud-config\na: 1\n"));
        assert_eq!(request.disk, DiskChoice::Id("serial:S1".parse().unwrap()));
        assert_eq!((request.hostname, request.allow_critical), (None, false));
        let allowed = Typed::of(&Fields(vec![("allow_critical".into(), "yes".into())]));
        assert!(allowed.request().allow_critical);
    }

    #[test]
    fn what_a_disk_says_of_itself_is_text() {
        let hostile = "<script>x</script>\"><img onerror=x>";
        let fate = DiskFate { id: None, title: hostile.into(), holds: hostile.into(), erased: true };
        let refused = Some(form::problem("x", hostile, hostile));
        let page = Preview { fates: vec![fate], refused }.render().unwrap();
        assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
        assert!(page.contains("&#60;script&#62;") || page.contains("&lt;script&gt;"), "{page}");
    }
}
