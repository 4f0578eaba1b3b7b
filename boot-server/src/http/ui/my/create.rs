//! New servers: the form, a check of quota and placement while it is filled in, and the order.

use askama::Template;
use axum::extract::{Form, Query, State};
use axum::response::Response;
use boot_server_core::access::Role;
use boot_server_core::amounts::Amounts;
use boot_server_core::names::GroupName;
use boot_server_core::placement::{Domain, Policy};
use boot_server_core::quota;
use boot_server_core::server::BootVolume;
use boot_server_core::volume::Imaging;
use boot_server_core::volume::parse_size;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::form::{self, Fields};
use super::super::format as f;
use super::super::recipe::Recipe;
use super::attached::networks_of;
use super::{Frame, Refusal, Ui, Within, go, images, refuse, render};
use crate::engine::EngineError;
use crate::engine::servers::NewServers;
use crate::http::api::projects::InProject;
use crate::store::desk::KeyRow;
use crate::store::groups::GroupRow;
use crate::view::Problem;
use crate::view::place::{OfferView, OfferedImage};

#[derive(Template)]
#[template(path = "my/create.html")]
struct CreatePage {
    frame: Frame,
    offers: Vec<OfferView>,
    images: Vec<OfferedImage>,
    keys: Vec<KeyRow>,
    groups: Vec<GroupRow>,
    /// Types of volumes that a server can boot from.
    types: Vec<String>,
    /// Networks of the project: id and name.
    networks: Vec<(String, String)>,
    /// Whoever asks runs the site, so that a machine can be named.
    site: bool,
    form: Typed,
    check: Check,
    problem: Option<Problem>,
    recipe: Recipe,
}

/// What pressing the button would do, as things stand.
#[derive(Template, Default)]
#[template(path = "my/check.html")]
struct Check {
    /// It would be done.
    fits: bool,
    /// Sentences about quota and machines.
    lines: Vec<String>,
}

/// A template of its own, which escapes what it holds: it stands in the form as it is.
impl askama::filters::HtmlSafe for Check {}

/// The form as it was typed.
#[derive(Debug, Clone, Default)]
struct Typed {
    /// Makes a form that is sent twice one order.
    key: String,
    name: String,
    count: String,
    flavor: String,
    node: String,
    image: String,
    user: String,
    keys: Vec<String>,
    ssh_keys: String,
    user_data: String,
    group: String,
    new_group: String,
    policy: String,
    domain: String,
    /// `volume` where the OS is to be on one.
    boot: String,
    boot_type: String,
    boot_size: String,
    boot_keep: bool,
    boot_encrypted: bool,
    /// Who writes the image on the volume ([`Imaging`]); empty is who does it unless told otherwise.
    boot_imaging: String,
    /// Each server gets a port on each.
    networks: Vec<String>,
}

impl Typed {
    fn of(fields: &Fields) -> Self {
        let plain = |name| fields.trimmed(name).unwrap_or_default();
        Self {
            key: plain("key"),
            name: plain("name"),
            count: plain("count"),
            flavor: plain("flavor"),
            node: plain("node"),
            image: plain("image"),
            user: plain("user"),
            keys: fields.all("keys").map(str::to_owned).collect(),
            ssh_keys: fields.text("ssh_keys"),
            user_data: fields.text("user_data"),
            group: plain("group"),
            new_group: plain("new_group"),
            policy: plain("policy"),
            domain: plain("domain"),
            boot: plain("boot"),
            boot_type: plain("boot_type"),
            boot_size: plain("boot_size"),
            boot_keep: fields.get("boot_keep") == "1",
            boot_encrypted: fields.get("boot_encrypted") == "1",
            boot_imaging: plain("boot_imaging"),
            networks: fields.all("networks").map(str::to_owned).collect(),
        }
    }

    fn count(&self) -> usize {
        self.count.parse().unwrap_or(1)
    }

    fn has_key(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key == name)
    }

    fn has_network(&self, id: &str) -> bool {
        self.networks.iter().any(|network| network == id)
    }

    /// Who can write the image on a volume, with words for people.
    fn imagings(&self) -> [(&'static str, &'static str); 3] {
        Imaging::ALL.map(|who| {
            let words = match who {
                Imaging::Server => "the server, straight into the store",
                Imaging::Agent => "the machine itself, which boots the ramdisk for it",
                Imaging::Dpu => "the machine's DPU, before the machine is on",
            };
            (who.as_str(), words)
        })
    }

    /// Volumes and networks are presented by a DPU.
    fn needs_dpu(&self) -> bool {
        self.boot == "volume" || !self.networks.is_empty()
    }

    fn policy(&self) -> Policy {
        if self.policy == "affinity" { Policy::Affinity } else { Policy::AntiAffinity }
    }

    fn domain(&self) -> Domain {
        serde_json::from_value(Value::from(self.domain.as_str())).unwrap_or_default()
    }

    /// The volume to boot from, where one is asked for.
    fn boot_volume(&self) -> Result<Option<BootVolume>, Problem> {
        if self.boot != "volume" {
            return Ok(None);
        }
        let size = match self.boot_size.as_str() {
            "" => None,
            text => Some(parse_size(text).ok_or_else(|| {
                form::problem("size", format!("“{text}” is no size for a volume"), "write 512M, 20G or 1T")
            })?),
        };
        let kind = Some(self.boot_type.clone()).filter(|kind| !kind.is_empty());
        let imaging = match self.boot_imaging.as_str() {
            "" => Imaging::default(),
            text => text.parse().map_err(|known: String| {
                form::problem("imaging", format!("“{text}” does not write images"), format!("it is {known}"))
            })?,
        };
        let (keep, encrypted) = (self.boot_keep, self.boot_encrypted);
        Ok(Some(BootVolume { kind, size, keep, encrypted, imaging }))
    }

    fn wish(&self) -> Result<NewServers, Problem> {
        let given = |text: &String| Some(text.clone()).filter(|text| !text.trim().is_empty());
        let lines = self.ssh_keys.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(NewServers {
            name: self.name.clone(),
            count: self.count(),
            flavor: given(&self.flavor).filter(|_| self.node.is_empty()),
            node: given(&self.node),
            pool: None,
            image: self.image.clone(),
            user: given(&self.user),
            keys: self.keys.clone(),
            ssh_keys: lines.map(str::to_owned).collect(),
            user_data: given(&self.user_data),
            group: match self.group.as_str() {
                "" => None,
                "new" => Some(self.new_group.clone()),
                name => Some(name.to_owned()),
            },
            boot_volume: self.boot_volume()?,
            networks: self.networks.clone(),
        })
    }

    /// The form as a command and as a request.
    fn recipe(&self, project: &str) -> Recipe {
        let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
        let (name, flavor) = (or(&self.name, "web"), or(&self.flavor, "FLAVOR"));
        let (image, count) = (or(&self.image, "debian-12"), self.count());
        let mut cli = format!(
            "billet server create {} --project {} --flavor {} --image {} --count {count}",
            f::shell(&name),
            f::shell(project),
            f::shell(&flavor),
            f::shell(&image),
        );
        let mut body = json!({ "name": name, "flavor": flavor, "image": image, "count": count });
        for key in &self.keys {
            cli.push_str(&format!(" --key {}", f::shell(key)));
        }
        if !self.keys.is_empty() {
            body["keys"] = json!(self.keys);
        }
        if let Ok(Some(boot)) = self.boot_volume() {
            cli.push_str(" --boot-volume");
            if let Some(kind) = &boot.kind {
                cli.push_str(&format!(" --volume-type {}", f::shell(kind)));
            }
            if !self.boot_size.is_empty() {
                cli.push_str(&format!(" --volume-size {}", f::shell(&self.boot_size)));
            }
            if boot.keep {
                cli.push_str(" --keep-volume");
            }
            if boot.encrypted {
                cli.push_str(" --encrypted-volume");
            }
            if !boot.imaging.is_default() {
                cli.push_str(&format!(" --imaging {}", boot.imaging.as_str()));
            }
            body["boot_volume"] = json!(boot);
        }
        for network in &self.networks {
            cli.push_str(&format!(" --network {}", f::shell(network)));
        }
        if !self.networks.is_empty() {
            body["networks"] = json!(self.networks);
        }
        if let Some(group) = self.wish().ok().and_then(|wish| wish.group) {
            cli.push_str(&format!(" --group {}", f::shell(&group)));
            body["group"] = Value::from(group);
        }
        Recipe::default().and(&cli, "POST", &format!("projects/{project}/servers"), Some(&body))
    }
}

pub(super) async fn form(
    State(ui): State<Ui>,
    Within(within): Within,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let mut typed = Typed::of(&Fields(query));
    typed.key = Uuid::new_v4().to_string();
    if typed.count.is_empty() {
        "1".clone_into(&mut typed.count);
    }
    page(&ui, &within, typed, None).await
}

async fn page(
    ui: &Ui,
    within: &InProject,
    mut typed: Typed,
    problem: Option<Problem>,
) -> Result<Response, Refusal> {
    let project = within.project.id;
    let (offers, images) = (ui.engine.catalogue(project).await?, images(ui).await?);
    if typed.flavor.is_empty()
        && let Some(offer) = offers.iter().find(|offer| offer.capacity.free > 0)
    {
        typed.flavor = offer.name.to_string();
    }
    if typed.image.is_empty()
        && let Some(image) = images.first()
    {
        typed.image = image.id.to_string();
    }
    let check = looked(ui, within, &typed).await?;
    let page = CreatePage {
        frame: Frame::of(ui, within, "create"),
        keys: ui.engine.keys(project).await?,
        groups: ui.engine.server_groups(project).await?,
        types: ui.engine.volume_types().into_iter().map(|(name, _)| name).collect(),
        networks: networks_of(ui, project),
        site: within.who.may_change(),
        recipe: typed.recipe(&within.project.name),
        offers,
        images,
        check,
        problem,
        form: typed,
    };
    Ok(render(if page.problem.is_some() { 422 } else { 200 }, &page))
}

/// What the form would do now, for the place beside its button.
pub(super) async fn check(
    State(ui): State<Ui>,
    Within(within): Within,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let typed = Typed::of(&Fields(fields));
    Ok(render(200, &looked(&ui, &within, &typed).await?))
}

async fn looked(ui: &Ui, within: &InProject, typed: &Typed) -> Result<Check, Refusal> {
    let project = within.project.id;
    let count = typed.count();
    let mut check = Check { fits: true, lines: Vec::new() };
    let offers = ui.engine.catalogue(project).await?;
    let offer = offers.iter().find(|offer| offer.name.as_str() == typed.flavor);
    if let Some(offer) = offer.filter(|_| typed.node.is_empty()) {
        let quota = ui.engine.quota(project).await?;
        let each = Amounts {
            servers: 1,
            cores: offer.counts.cores,
            memory_mib: offer.counts.memory_mib,
            disks: offer.counts.disks,
            ..Amounts::default()
        };
        let asked: Amounts = std::iter::repeat_n(each, count.min(1000)).sum();
        for exceeded in quota::check(&quota.limits, &quota.used, &asked) {
            check.fits = false;
            check.lines.push(format!("Quota: {exceeded}"));
        }
        if check.fits {
            check.lines.push("The quota allows it".to_owned());
        }
    }
    match placed(ui, within, typed).await {
        Ok((true, spare)) => {
            check.lines.push(match spare {
                0 => "Machines are free for it, and no others after them".to_owned(),
                more => format!("Machines are free for it, and {more} more would do as well"),
            });
        }
        Ok((false, free)) => {
            check.fits = false;
            check.lines.push(match free {
                0 if typed.needs_dpu() => "No machine with a DPU is free for it".to_owned(),
                0 => "No machine is free for it".to_owned(),
                free => format!("{free} machines of this kind are free, but not {count} that fit together"),
            });
        }
        Err(problem) => {
            check.fits = false;
            check.lines.push(f::capital(problem.message));
        }
    }
    Ok(check)
}

/// Whether machines would be found, and how many are left over (or free at all).
async fn placed(ui: &Ui, within: &InProject, typed: &Typed) -> Result<(bool, u64), Problem> {
    let told = |error: EngineError| error.problem();
    let group = match typed.group.as_str() {
        "" => None,
        "new" => Some((typed.policy(), typed.domain(), None)),
        name => {
            let group = ui.engine.server_group(within.project.id, name).await.map_err(told)?;
            Some((group.policy, group.domain, Some(group.id)))
        }
    };
    let wish = typed.wish()?;
    ui.engine.would_place(within.project.id, &wish, group).await.map_err(told)
}

pub(super) async fn create(
    State(ui): State<Ui>,
    Within(within): Within,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let typed = Typed::of(&Fields(fields));
    match order(&ui, &within, &typed).await {
        Ok(to) => Ok(go(&to)),
        Err(problem) => page(&ui, &within, typed, Some(problem)).await,
    }
}

async fn order(ui: &Ui, within: &InProject, typed: &Typed) -> Result<String, Problem> {
    let problem = |error: EngineError| error.problem();
    let (project, actor) = (within.project.id, within.who.actor());
    if typed.name.is_empty() {
        return Err(form::problem("name", "Give the servers a name", "a host name, such as web"));
    }
    if !typed.node.is_empty() && !within.who.may_change() {
        return Err(form::problem("role", "a machine is named by those who run the site", "choose a flavor"));
    }
    let wish = typed.wish()?;
    if typed.group == "new" {
        let name: GroupName = typed
            .new_group
            .parse()
            .map_err(|_| form::problem("group", "this is no name for a group", "use a-z, 0-9, ., _ and -"))?;
        let known = ui.engine.server_groups(project).await.map_err(problem)?;
        if !known.iter().any(|group| group.name == name) {
            let group = (name, typed.policy(), typed.domain());
            ui.engine.create_server_group(project, actor.clone(), group).await.map_err(problem)?;
        }
    }
    let key = Some(typed.key.clone()).filter(|key| !key.is_empty());
    let made = ui.engine.create_servers(project, actor, wish, key).await.map_err(problem)?;
    let at = super::address(&within.project.name);
    Ok(match made.as_slice() {
        [only] => format!("{at}/servers/{}", only.name),
        _ => format!("{at}/servers"),
    })
}
