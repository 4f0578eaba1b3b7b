//! What would keep machines from booting.

use axum::Json;
use axum::extract::State;

use super::{Answer, Api};
use crate::check::{self, Known};
use crate::engine::{EngineError, now};
use crate::store::queries;
use crate::view::{NetworkView, Problem, StuckMachine};

/// Looks at the provisioning network: other DHCP servers, addresses in use, relays, link, packet filter, boot files.
/// Takes some seconds; one look at a time.
#[utoipa::path(get, path = "/network/findings", tag = "server", operation_id = "check_network",
    responses((status = 200, body = NetworkView), (status = 503, body = Problem)))]
pub(super) async fn check(State(api): State<Api>) -> Answer<Json<NetworkView>> {
    // Never closed, so this waits for its turn and cannot fail.
    let _turn = api.checks.acquire().await;
    let at = now();
    let leases = api.engine.store().read(queries::leases).await.map_err(EngineError::from)?;
    let lent = leases.into_iter().filter(|lease| lease.expires > at).map(|lease| lease.ip).collect();
    let known = Known { lent, relays: api.engine.relays() };
    let engine = api.engine.clone();
    let look = tokio::task::spawn_blocking(move || check::look(engine.settings(), Some(&known)));
    let findings = look.await.map_err(EngineError::from)?;
    let stuck = api.engine.stuck_strangers().into_iter();
    let machines = stuck.map(|(mac, last, finding)| StuckMachine { mac, last, finding }).collect();
    Ok(Json(NetworkView { serving: true, findings, machines }))
}
