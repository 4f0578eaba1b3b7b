//! Certificates of erased disks: on a server's page, and each as a page to print.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use boot_server_core::certificate::Certificate;
use protocol::erase::{EraseResult, Expected, Sampled};
use uuid::Uuid;

use super::recipe::Recipe;
use super::{Refusal, Ui, format as f, render};
use crate::store::certificates::CertificateFilter;
use crate::view::{CertificateView, Problem};

/// Newest certificates on a server's page; the command line has all.
const SHOWN: usize = 24;

#[derive(Template)]
#[template(path = "certificate.html")]
struct CertificatePage {
    nav: &'static str,
    view: CertificateView,
    certificate: Certificate,
    result: String,
    sampled: String,
    recipe: Recipe,
}

/// The newest of a machine.
pub(super) async fn of_node(ui: &Ui, node: protocol::NodeId) -> Result<Vec<CertificateView>, Refusal> {
    let filter =
        CertificateFilter { node: Some(node.to_string()), limit: SHOWN, ..CertificateFilter::default() };
    Ok(ui.engine.certificates(filter).await?.into_iter().map(CertificateView::from).collect())
}

pub(super) async fn show(State(ui): State<Ui>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let missing = || {
        Refusal(Problem {
            status: 404,
            code: "not-found".to_owned(),
            message: "no certificate has this id".to_owned(),
            hint: "they are on the page of their server".to_owned(),
        })
    };
    let id: Uuid = id.parse().map_err(|_| missing())?;
    let view = CertificateView::from(ui.engine.certificate(id).await?.ok_or_else(missing)?);
    let certificate = view.certificate().ok_or_else(missing)?;
    let recipe = Recipe::default()
        .and(&format!("billet certificate save {id}"), "GET", &format!("certificates/{id}"), None)
        .and(&format!("billet certificate verify {id}.json --key KEY"), "GET", "usage/key", None);
    let page = CertificatePage {
        nav: "servers",
        result: result(&certificate),
        sampled: certificate.disk.sampled.as_ref().map_or_else(|| "nothing".to_owned(), sampled),
        certificate,
        view,
        recipe,
    };
    Ok(render(200, &page))
}

fn result(certificate: &Certificate) -> String {
    match &certificate.disk.result {
        EraseResult::Erased => "Erased, and read back".to_owned(),
        EraseResult::Failed { why } => format!("Not erased: {why}"),
        EraseResult::Skipped { why } => format!("Not touched: {why}"),
    }
}

fn sampled(sampled: &Sampled) -> String {
    let expected = match sampled.expected {
        Expected::Changed => "none was as before",
        Expected::Zeros => "all were zeros",
        Expected::Pattern => "all were the pattern that was written",
    };
    format!(
        "{} blocks of {} bytes at random places, the first {} and the last {}: {expected}. {} blocks of known content, written \
         before at random places, were gone. Had {} of a million blocks or more been left, the random ones would have missed them \
         with a probability of at most 1 %.",
        sampled.random, sampled.block_bytes, sampled.start, sampled.end, sampled.sentinels, sampled.bound_ppm
    )
}
