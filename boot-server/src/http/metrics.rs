//! `GET /metrics` on the operators' listener, behind their token: few numbers, in Prometheus's text format (version 0.0.4). No
//! label names a node: a site has thousands. Ports and volumes of projects have series of their own ([`traffic`]), up to a number.

mod traffic;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::ProblemResponse;
use crate::engine::{Alarm, Engine, EngineError};
use crate::view::dpus::DpuView;

/// The one route.
pub fn router(engine: Engine) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(engine)
}

async fn metrics(State(engine): State<Engine>) -> Result<impl IntoResponse, ProblemResponse> {
    let kind = (CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    Ok(([kind], metrics_text(&engine).await?))
}

/// The numbers as they are now.
///
/// # Errors
/// Where the store fails.
pub async fn metrics_text(engine: &Engine) -> Result<String, EngineError> {
    let (mut states, mut powers, mut healths) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for node in engine.nodes().await? {
        *states.entry(node.state.name().as_str()).or_insert(0_u64) += 1;
        if let Some(health) = engine.health(node.id) {
            *healths.entry(health.level.as_str()).or_insert(0_u64) += 1;
        }
    }
    let mut bmcs = BTreeMap::from([("answers", 0_u64), ("silent", 0), ("refuses", 0), ("new", 0)]);
    for bmc in engine.bmcs() {
        let power = match bmc.power {
            Some(bmc::PowerState::On) => "on",
            Some(bmc::PowerState::Off) => "off",
            _ => "unknown",
        };
        *powers.entry(power).or_insert(0_u64) += 1;
        let state = match (&bmc.trouble, bmc.wait_until, bmc.last_seen) {
            (_, Some(_), _) => "silent",
            (Some(_), ..) => "refuses",
            (None, None, Some(_)) => "answers",
            (None, None, None) => "new",
        };
        *bmcs.entry(state).or_insert(0) += 1;
    }
    let (mut dpus, mut volumes) = (BTreeMap::new(), BTreeMap::new());
    let (known_dpus, all_volumes) = (engine.dpus(), engine.all_volumes().await?);
    for known in known_dpus.clone() {
        let silent = engine.dpu_is_silent(&known);
        *dpus.entry(DpuView::of(known, None, silent).status.as_str()).or_insert(0_u64) += 1;
    }
    for volume in &all_volumes {
        *volumes.entry(volume.status().as_str()).or_insert(0_u64) += 1;
    }
    let mut text = String::new();
    gauge(&mut text, "billet_dpus", "DPUs by how they are.", "status", &dpus);
    gauge(&mut text, "billet_volumes", "Volumes by status.", "status", &volumes);
    gauge(&mut text, "billet_nodes", "Nodes by state.", "state", &states);
    gauge(&mut text, "billet_bmcs", "Management controllers by how they are.", "state", &bmcs);
    gauge(&mut text, "billet_power", "Nodes with a management controller by power.", "power", &powers);
    gauge(&mut text, "billet_health", "Nodes by health.", "health", &healths);
    text.push_str("# HELP billet_identity_alarms_total Proofs of identity that failed.\n# TYPE billet_identity_alarms_total counter\n");
    for alarm in Alarm::ALL {
        let (kind, count) = (alarm.as_str(), engine.alarms(alarm));
        let _ = writeln!(text, "billet_identity_alarms_total{{kind=\"{kind}\"}} {count}");
    }
    traffic::write(&mut text, engine, &known_dpus, &all_volumes);
    Ok(text)
}

fn gauge(text: &mut String, name: &str, help: &str, label: &str, values: &BTreeMap<&str, u64>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    for (value, count) in values {
        let _ = writeln!(text, "{name}{{{label}=\"{value}\"}} {count}");
    }
}
