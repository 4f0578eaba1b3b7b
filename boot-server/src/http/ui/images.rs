//! Images: what there is, what is on its way in, adding and removing.

use std::path::PathBuf;

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use images::{Architecture, IngestOptions};
use serde_json::json;

use super::form::{self, Fields};
use super::format as f;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, operator, render};
use crate::http::api::image_view;
use crate::ingest::{From, Order};
use crate::view::{ImageView, IngestView, Problem};

/// What was typed into the form for an address.
#[derive(Debug, Clone, Default)]
struct Typed {
    source: String,
    name: String,
    version: String,
    architecture: String,
    sha256: String,
}

#[derive(Template)]
#[template(path = "images.html")]
struct ImagesPage {
    nav: &'static str,
    images: Vec<ImageView>,
    ingests: Vec<IngestView>,
    add: Typed,
    problem: Option<Problem>,
    recipe: Recipe,
}

#[derive(Template)]
#[template(path = "image.html")]
struct ImagePage {
    nav: &'static str,
    image: ImageView,
    verified: Option<String>,
    problem: Option<Problem>,
    confirm: String,
    confirm_error: Option<Problem>,
    recipe: Recipe,
}

pub(super) async fn list(State(ui): State<Ui>) -> Result<Response, Refusal> {
    list_page(&ui, Typed::default(), None).await
}

async fn list_page(ui: &Ui, add: Typed, problem: Option<Problem>) -> Result<Response, Refusal> {
    let mut images = Vec::new();
    for row in ui.engine.image_rows().await? {
        images.push(image_view(&ui.engine, &row).await?);
    }
    // One that is finished stands in the list of images.
    let ingests = ui.ingests.list().into_iter().filter(|i| i.finished.is_none()).collect();
    let body = json!({ "name": "debian-12", "version": "20261122", "url": "https://…/debian-12.qcow2" });
    let recipe = Recipe::default().and("billet image list", "GET", "images", None).and(
        "billet image add ./debian-12.qcow2 --name debian-12 --version 20261122",
        "POST",
        "images",
        Some(&body),
    );
    let status = problem.as_ref().map_or(200, |p| p.status);
    Ok(render(status, &ImagesPage { nav: "images", images, ingests, add, problem, recipe }))
}

pub(super) async fn add(
    State(ui): State<Ui>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let fields = Fields(fields);
    let text = |name| fields.trimmed(name).unwrap_or_default();
    let typed = Typed {
        source: text("source"),
        name: text("name"),
        version: text("version"),
        architecture: text("architecture"),
        sha256: text("sha256"),
    };
    match typed.order().and_then(|(order, from)| ui.ingests.start(order, from)) {
        Ok(_) => Ok(go("/images")),
        Err(problem) => list_page(&ui, typed, Some(problem)).await,
    }
}

impl Typed {
    fn order(&self) -> Result<(Order, From), Problem> {
        if self.source.is_empty() {
            return Err(form::problem(
                "source-missing",
                "Say where the image is",
                "a URL, or a path on the server",
            ));
        }
        let architecture = match self.architecture.as_str() {
            "aarch64" => Architecture::Aarch64,
            _ => Architecture::X86_64,
        };
        let mut options = IngestOptions::new(&self.name, &self.version, architecture);
        if !self.sha256.is_empty() {
            let sum = self.sha256.to_lowercase().parse();
            options.expected_sha256 =
                Some(sum.map_err(|_| {
                    form::problem("sha256", "This is not a SHA-256", "64 hexadecimal digits")
                })?);
        }
        let from = if self.source.contains("://") {
            From::Url(self.source.clone())
        } else {
            From::Path(PathBuf::from(&self.source))
        };
        Ok((Order { options, origin: self.source.clone(), actor: operator(), remember: None }, from))
    }
}

pub(super) async fn show(State(ui): State<Ui>, Path(reference): Path<String>) -> Result<Response, Refusal> {
    ImagePage::of(&ui, &reference).await.map(|page| page.render())
}

pub(super) async fn verify(State(ui): State<Ui>, Path(reference): Path<String>) -> Result<Response, Refusal> {
    let mut page = ImagePage::of(&ui, &reference).await?;
    let (store, id) = (ui.engine.images().clone(), page.image.id);
    let report = tokio::task::spawn_blocking(move || store.verify(id))
        .await
        .map_err(crate::engine::EngineError::from)?
        .map_err(crate::engine::EngineError::from)?;
    if report.is_good() {
        page.verified =
            Some(format!("All {} chunks were read back and have the right hash.", report.checked));
    } else {
        page.problem = Some(form::problem(
            "image-damaged",
            format!("{} of {} chunks are missing or wrong", report.bad.len(), report.checked),
            "check the server's disk, then remove the image and add it again",
        ));
    }
    Ok(page.render())
}

pub(super) async fn remove(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let mut page = ImagePage::of(&ui, &reference).await?;
    page.confirm = Fields(fields).trimmed("confirm").unwrap_or_default();
    if page.confirm != page.image.name {
        page.confirm_error = Some(form::problem(
            "confirm-missing",
            "This is not the name of the image",
            format!("type {}", page.image.name),
        ));
        return Ok(page.render());
    }
    match ui.engine.remove_image(&page.image.id.to_string()).await {
        Ok(_) => Ok(go("/images")),
        Err(error) => {
            page.problem = Some(Refusal::from(error).0);
            Ok(page.render())
        }
    }
}

impl ImagePage {
    async fn of(ui: &Ui, reference: &str) -> Result<Self, Refusal> {
        let row = ui.engine.image_row(reference).await?;
        let image = image_view(&ui.engine, &row).await?;
        let name = format!("{}:{}", image.name, image.version);
        let path = format!("images/{name}");
        let recipe = Recipe::default()
            .and(&format!("billet image show {name}"), "GET", &path, None)
            .and(&format!("billet image verify {name}"), "POST", &format!("{path}/verify"), None)
            .and(&format!("billet image remove {name}"), "DELETE", &path, None);
        Ok(Self {
            nav: "images",
            image,
            verified: None,
            problem: None,
            confirm: String::new(),
            confirm_error: None,
            recipe,
        })
    }

    fn render(&self) -> Response {
        let status =
            [&self.problem, &self.confirm_error].into_iter().flatten().next().map_or(200, |p| p.status);
        render(status, self)
    }
}
