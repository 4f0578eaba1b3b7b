//! All management controllers: listed, imported, looked for.

use axum::Json;
use axum::extract::State;
use boot_server_core::bmc::import::{self, Line};
use serde_json::{Map, Value};

use super::bmc_requests::{ImportRequest, ScanRequest};
use super::extract::{Input, Params, limit, page};
use super::requests::PageQuery;
use super::verbs::operator;
use super::{Answer, Api};
use crate::http::auth::need_places;
use crate::power::scan::{ScanRange, scan};
use crate::view::{BmcView, ImportView, Page, Problem, ScanFound};

fn refuse(code: &str, message: String, hint: &str) -> Problem {
    Problem { status: 422, code: code.to_owned(), message, hint: hint.to_owned() }
}

/// All management controllers, by the name of their node.
#[utoipa::path(get, path = "/bmcs", tag = "bmcs", operation_id = "list_bmcs",
    params(PageQuery), responses((status = 200, body = Page<BmcView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<BmcView>>> {
    let limit = limit(query.limit)?;
    let all = api.engine.bmcs().into_iter();
    Ok(Json(page(all, |bmc| bmc.node_name.clone(), query.cursor.as_deref(), limit)))
}

/// Takes in a list of management controllers. A line that is refused says why; the others are done. A line with the MAC
/// address or UUID of a machine that nobody has seen makes a node for it. For the site's own token.
#[utoipa::path(post, path = "/bmcs/import", tag = "bmcs", operation_id = "import_bmcs", request_body = ImportRequest,
    responses((status = 200, body = ImportView), (status = 403, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn import(
    State(api): State<Api>,
    Input(request): Input<ImportRequest>,
) -> Answer<Json<ImportView>> {
    need_places()?;
    let hint = "send `csv` (a text with headings) or `bmcs` (a list of objects)";
    let lines = match (&request.csv, &request.bmcs) {
        (Some(csv), None) => import::read(csv).map_err(|error| error.to_string()),
        (None, Some(bmcs)) => listed(bmcs),
        _ => Err("there is no list, or there are two".to_owned()),
    };
    let lines = lines.map_err(|message| refuse("bmc-list", message, hint))?;
    Ok(Json(api.engine.import_bmcs(&operator(), &lines, request.dry_run).await?))
}

/// Objects, each as a line.
fn listed(bmcs: &[Map<String, Value>]) -> Result<Vec<Line>, String> {
    if bmcs.len() > import::LINES_MAX {
        return Err(format!("a list has at most {} entries: split it", import::LINES_MAX));
    }
    let line = |(at, object): (usize, &Map<String, Value>)| {
        let mut line = Line::new(at + 1);
        for (column, value) in object {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Err(format!("entry {}: `{column}` is no text", at + 1)),
            };
            if !line.set(column, text) {
                return Err(format!(
                    "entry {}: `{column}` is unknown; there are {}",
                    at + 1,
                    import::COLUMNS.join(", ")
                ));
            }
        }
        Ok(line)
    };
    bmcs.iter().enumerate().map(line).collect()
}

/// Looks for management controllers in a network, without any account. Takes up to a minute; one look at a time. For the
/// site's own token.
#[utoipa::path(post, path = "/bmcs/scan", tag = "bmcs", operation_id = "scan_bmcs", request_body = ScanRequest,
    responses((status = 200, body = Page<ScanFound>), (status = 403, body = Problem), (status = 422, body = Problem),
        (status = 503, body = Problem)))]
pub(super) async fn look(
    State(api): State<Api>,
    Input(request): Input<ScanRequest>,
) -> Answer<Json<Page<ScanFound>>> {
    need_places()?;
    let range = ScanRange::parse(&request.network)
        .map_err(|message| refuse("bmc-network", message, "name a network of at most 1,024 addresses"))?;
    let _turn = api.scans.try_acquire().map_err(|_| Problem {
        status: 503,
        code: "bmc-scan-busy".to_owned(),
        message: "another scan is on its way".to_owned(),
        hint: "wait a minute".to_owned(),
    })?;
    let mut items = scan(range).await;
    api.engine.whose_bmcs(&mut items).await;
    Ok(Json(Page { items, next: None }))
}
