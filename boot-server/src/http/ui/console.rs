//! Pages of a node's console: the terminal, and recordings that are played back. What is shown in them comes by the API.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;

use super::format as f;
use super::recipe::Recipe;
use super::{Refusal, Ui, render};
use crate::console::ConsoleError;
use crate::http::auth;
use crate::view::{ConsoleView, RecordingView};

/// Newest recordings on the page; the API has all of them.
const RECORDINGS: usize = 50;

#[derive(Template)]
#[template(path = "console.html")]
struct ConsolePage {
    nav: &'static str,
    node: String,
    may_write: bool,
    console: ConsoleView,
    recordings: Vec<RecordingView>,
    recipe: Recipe,
}

#[derive(Template)]
#[template(path = "recording.html")]
struct RecordingPage {
    nav: &'static str,
    recording: RecordingView,
    shows_input: bool,
    recipe: Recipe,
}

pub(super) async fn show(State(ui): State<Ui>, Path(reference): Path<String>) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    let path = format!("nodes/{}/console", node.name);
    let recipe = Recipe::default()
        .and(&format!("billet node console {}", node.name), "GET", &format!("{path}/log"), None)
        .and(
            &format!("billet console recordings --node {}", node.name),
            "GET",
            &format!("console/recordings?node={}", node.name),
            None,
        );
    let mut recordings = ui.consoles.recordings().list(Some(node.id));
    recordings.truncate(RECORDINGS);
    Ok(render(
        200,
        &ConsolePage {
            nav: "servers",
            may_write: may_write(),
            console: ui.consoles.view(&node),
            node: node.name,
            recordings,
            recipe,
        },
    ))
}

pub(super) async fn play(State(ui): State<Ui>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let missing = || Refusal(ConsoleError::NoRecording(id.chars().take(80).collect()).problem());
    let wanted: uuid::Uuid = id.parse().map_err(|_| missing())?;
    let recording = ui.consoles.recordings().view(wanted).ok_or_else(missing)?;
    let recipe = Recipe::default().and(
        &format!("billet console play {wanted}"),
        "GET",
        &format!("console/recordings/{wanted}"),
        None,
    );
    Ok(render(200, &RecordingPage { nav: "servers", recording, shows_input: may_write(), recipe }))
}

fn may_write() -> bool {
    auth::who().is_some_and(|who| who.may_change())
}
