//! A server on volumes leaves its machine for another one, where somebody types the machine's name.

use axum::extract::{Form, Path, State};
use axum::response::Response;

use super::form::{self, Fields};
use super::{Refusal, Ui, go, node, operator};

pub(super) async fn act(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let (node, fields) = (ui.engine.node(&reference).await?, Fields(fields));
    let typed = fields.get("confirm");
    if typed != node.name {
        return node::page(&ui, &node, Some(form::not_the_name("machine", typed, &node.name))).await;
    }
    match ui.engine.evacuate(&node, operator(), fields.trimmed("to").as_deref()).await {
        Ok(server) => {
            let machine = ui.engine.node(&server.node.to_string()).await?;
            Ok(go(&node::address(&machine)))
        }
        Err(error) => node::page(&ui, &node, Some(error.problem())).await,
    }
}
