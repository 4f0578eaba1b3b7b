//! What is wrong with machines, for whoever goes there with a spare part.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use boot_server_core::bmc::health::Level;

use super::format as f;
use super::recipe::Recipe;
use super::{Ui, render};
use crate::view::FaultReport;

#[derive(Template)]
#[template(path = "faults.html")]
struct FaultsPage {
    nav: &'static str,
    reports: Vec<FaultReport>,
    recipe: Recipe,
}

pub(super) async fn list(State(ui): State<Ui>) -> Response {
    let recipe = Recipe::default().and("billet node faults", "GET", "faults", None);
    render(200, &FaultsPage { nav: "faults", reports: ui.engine.all_faults().await, recipe })
}

/// Tone and icon of a level.
fn look(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::Critical => ("bad", "bad"),
        Level::Warning => ("ask", "warning"),
        Level::Ok => ("good", "check"),
    }
}
