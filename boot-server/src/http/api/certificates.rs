//! Certificates of erased disks.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use uuid::Uuid;

use super::extract::{self, Named, Params, bad_query};
use super::requests::CertificateQuery;
use super::{Answer, Api, ProblemResponse};
use crate::store::certificates::CertificateFilter;
use crate::view::{CertificateView, Page, Problem};

/// What is certified of disks that were to be erased, newest first. It is kept for ever, also of nodes that were forgotten.
#[utoipa::path(get, path = "/certificates", tag = "certificates", operation_id = "list_certificates",
    params(CertificateQuery), responses((status = 200, body = Page<CertificateView>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<CertificateQuery>,
) -> Answer<Json<Page<CertificateView>>> {
    let limit = extract::limit(query.limit)?;
    let wrong = |_| bad_query("the cursor is not one that this server gave".to_owned());
    let before = query.cursor.as_deref().map(str::parse::<Uuid>).transpose().map_err(wrong)?;
    // Nodes change their names, and certificates do not.
    let node = query.node.map(|node| api.engine.node_id(&node).map_or(node, |id| id.to_string()));
    let filter = CertificateFilter { node, serial: query.serial, before, limit: limit + 1 };
    let mut items: Vec<CertificateView> =
        api.engine.certificates(filter).await?.into_iter().map(CertificateView::from).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Json(Page { items, next }))
}

/// One certificate: the text that was signed, and its signature.
#[utoipa::path(get, path = "/certificates/{certificate}", tag = "certificates", operation_id = "show_certificate",
    params(("certificate" = String, Path, description = "Id")),
    responses((status = 200, body = CertificateView), (status = 404, body = Problem)))]
pub(super) async fn show(State(api): State<Api>, Named(id): Named) -> Answer<Json<CertificateView>> {
    let missing = || {
        let hint = "list them with `billet certificate list`";
        ProblemResponse::new(
            StatusCode::NOT_FOUND,
            "certificate-not-found",
            "no certificate has this id",
            hint,
        )
    };
    let id: Uuid = id.parse().map_err(|_| missing())?;
    let found = api.engine.certificate(id).await?.ok_or_else(missing)?;
    Ok(Json(found.into()))
}
