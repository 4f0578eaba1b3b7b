//! What a project can ask for: kinds of machines with how many are free, and operating systems.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::super::format as f;
use super::super::recipe::Recipe;
use super::{Frame, Refusal, Ui, Within, images, render};
use crate::view::place::{OfferView, OfferedImage};

#[derive(Template)]
#[template(path = "my/catalogue.html")]
struct CataloguePage {
    frame: Frame,
    offers: Vec<OfferView>,
    images: Vec<OfferedImage>,
    recipe: Recipe,
}

pub(super) async fn show(State(ui): State<Ui>, Within(within): Within) -> Result<Response, Refusal> {
    let name = &within.project.name;
    let offers = ui.engine.catalogue(within.project.id).await?;
    let recipe = Recipe::default().and(
        "# the catalogue of a project has no command of its own: ask the API",
        "GET",
        &format!("projects/{name}/catalogue"),
        None,
    );
    let frame = Frame::of(&ui, &within, "catalogue");
    Ok(render(200, &CataloguePage { frame, offers, images: images(&ui).await?, recipe }))
}
