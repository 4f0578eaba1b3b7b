//! The audit: who did what, page by page, and whether the chain is as it was written.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use boot_server_core::audit::Kind;
use protocol::Timestamp;
use serde::Deserialize;

use super::format as f;
use super::recipe::Recipe;
use super::servers::address;
use super::{Refusal, Ui, render};
use crate::http::api::audit::need_auditor;
use crate::store::audit::AuditFilter;
use crate::view::{AuditHead, AuditVerdict, AuditView, Problem};

/// Entries on one page.
const PAGE: usize = 100;

/// What the address asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    actor: String,
    node: String,
    kind: String,
    since: String,
    until: String,
    request: String,
    before: Option<u64>,
    verify: Option<String>,
}

impl Filter {
    fn active(&self) -> bool {
        !self.typed().is_empty() || self.before.is_some()
    }

    /// What was chosen, by the names of the fields.
    fn typed(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("actor", &self.actor),
            ("node", &self.node),
            ("kind", &self.kind),
            ("since", &self.since),
            ("until", &self.until),
            ("request", &self.request),
        ];
        all.into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name, value.as_str()))
            .collect()
    }
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    nav: &'static str,
    filter: Filter,
    nodes: Vec<String>,
    entries: Vec<AuditView>,
    older: Option<String>,
    head: AuditHead,
    verdict: Option<AuditVerdict>,
    problem: Option<Problem>,
    recipe: Recipe,
}

/// How an entry looks: tone of its kind, and what came of it.
fn tone(entry: &AuditView) -> &'static str {
    match (entry.fact.status, entry.fact.kind) {
        (Some(status), _) if status >= 500 => "tone-bad",
        (Some(status), _) if status >= 400 => "tone-ask",
        (_, Kind::Asked | Kind::Approval) => "tone-ready",
        _ => "",
    }
}

pub(super) async fn list(State(ui): State<Ui>, Query(filter): Query<Filter>) -> Result<Response, Refusal> {
    need_auditor().map_err(Refusal)?;
    let nodes = ui.engine.nodes().await?.into_iter().map(|n| n.name.clone()).collect();
    let verdict = match &filter.verify {
        Some(_) => Some(ui.engine.verify_audit().await?),
        None => None,
    };
    let (wanted, problem) = match wanted(&ui, &filter).await {
        Ok(wanted) => (Some(wanted), None),
        Err(problem) => (None, Some(problem)),
    };
    let mut entries = match wanted {
        Some(wanted) => ui.engine.audit_entries(wanted).await?,
        None => Vec::new(),
    };
    let more = entries.len() > PAGE;
    entries.truncate(PAGE);
    let older = entries.last().filter(|_| more).map(|last| {
        let before = last.number.to_string();
        address(
            "/audit",
            &[
                ("actor", &filter.actor),
                ("node", &filter.node),
                ("kind", &filter.kind),
                ("since", &filter.since),
                ("until", &filter.until),
                ("request", &filter.request),
                ("before", &before),
            ],
        )
    });
    let head = ui.engine.audit_head().await?;
    let recipe = Recipe::default()
        .and("billet audit list --kind asked", "GET", "audit?kind=asked", None)
        .and("billet audit verify", "GET", "audit/verify", None)
        .and("billet audit export --file audit.ndjson", "GET", "audit/export", None);
    let page = AuditPage { nav: "audit", filter, nodes, entries, older, head, verdict, problem, recipe };
    Ok(render(page.problem.as_ref().map_or(200, |p| p.status), &page))
}

async fn wanted(ui: &Ui, filter: &Filter) -> Result<AuditFilter, Problem> {
    let text = |text: &String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let bad = |message: &str| Problem {
        status: 400,
        code: "query".to_owned(),
        message: message.to_owned(),
        hint: "correct the filter".to_owned(),
    };
    let node = match text(&filter.node) {
        Some(name) => match name.parse() {
            Ok(id) => Some(id),
            Err(_) => Some(ui.engine.node(&name).await.map_err(|e| Refusal::from(e).0)?.id),
        },
        None => None,
    };
    let kind = match text(&filter.kind) {
        Some(word) => Some(Kind::of(&word).ok_or_else(|| bad("there is no such kind of entry"))?),
        None => None,
    };
    let request = match text(&filter.request) {
        Some(id) => Some(id.parse().map_err(|_| bad("a request is named by a UUID"))?),
        None => None,
    };
    let day = |text: Option<String>, days: i64| match text {
        Some(text) => day(&text, days).map(Some).ok_or_else(|| bad("a day is written as 2026-11-27")),
        None => Ok(None),
    };
    Ok(AuditFilter {
        actor: text(&filter.actor),
        node,
        kind,
        request,
        since: day(text(&filter.since), 0)?,
        until: day(text(&filter.until), 1)?,
        before: filter.before,
        limit: PAGE + 1,
        ..AuditFilter::default()
    })
}

/// The beginning of a day (UTC), or of one so many days later.
fn day(text: &str, later: i64) -> Option<Timestamp> {
    let date: jiff::civil::Date = text.parse().ok()?;
    let at = date.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    u64::try_from(at.as_millisecond() + later * 86_400_000).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_where_the_next_begins() {
        assert_eq!(day("1970-01-02", 0), Some(Timestamp(86_400_000)));
        assert_eq!(day("1970-01-01", 1), day("1970-01-02", 0));
        assert_eq!((day("1969-01-01", 0), day("x", 0)), (None, None));
    }
}
