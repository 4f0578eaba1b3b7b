//! Reading nodes, and announcing them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use boot_server_core::node::{Claim, Node, StateName};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::openapi::schema::AnyOfBuilder;
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::extract::{Input, Named, Params, bad_query, limit};
use super::requests::{EnrollRequest, NodeQuery};
use super::verbs::{operator, place_of};
use super::versions::Version;
use super::{Answer, Api, PREFIX};
use crate::engine::{Engine, Enrolment, NodePage};
use crate::http::auth::need_places;
use crate::view::{NodeDetail, NodeView, Page, Problem};

/// Fields that can be asked for at once; a node has fewer.
const FIELDS_MAX: usize = 64;

/// Longest serial number, in octets; SMBIOS strings are shorter.
const SERIAL_MAX: usize = 256;

/// A page of nodes: whole ones, or the fields that were asked for.
pub(super) struct NodeList;

/// A page of nodes with the fields that were asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeFields {
    /// The items.
    #[schema(value_type = Vec<Object>)]
    items: Vec<BTreeMap<String, Box<RawValue>>>,
    /// Give this as `cursor` for the next page.
    next: Option<String>,
}

impl PartialSchema for NodeList {
    fn schema() -> RefOr<Schema> {
        let pages = ["Page_NodeView", "NodeFields"].map(Ref::from_schema_name);
        pages.into_iter().fold(AnyOfBuilder::new(), AnyOfBuilder::item).into()
    }
}

impl ToSchema for NodeList {
    fn name() -> Cow<'static, str> {
        "Page_of_nodes".into()
    }
}

/// All nodes, by name.
#[utoipa::path(get, path = "/nodes", tag = "nodes", operation_id = "list_nodes", params(NodeQuery),
    responses((status = 200, body = NodeList), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<NodeQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let limit = limit(query.limit)?;
    let fields = query.fields.as_deref().map(fields).transpose()?;
    // Read before the nodes are: what changes meanwhile makes another tag.
    let tag = tag(&api);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let wanted = Wanted::of(&query)?;
    if wanted.text.is_some() {
        api.engine.know_all_hardware().await?;
    }
    let engine = &api.engine;
    let NodePage { nodes, more } =
        engine.node_page(query.cursor.as_deref(), limit, |node| wanted.is(node, engine));
    let next = nodes.last().filter(|_| more).map(|last| last.name.clone());
    let mut items = Vec::with_capacity(nodes.len());
    for node in &nodes {
        items.push(engine.view(node).await);
    }
    let tag = [(header::ETAG, tag)];
    match fields {
        None => Ok((tag, Json(Page { items, next })).into_response()),
        Some(fields) => {
            let items: Vec<_> = items.iter().map(|view| chosen(view, &fields)).collect();
            Ok((tag, Json(NodeFields { items, next })).into_response())
        }
    }
}

/// Names what the list of nodes shows now; another start of the server counts anew.
fn tag(api: &Api) -> HeaderValue {
    let text = format!("\"{:x}.{:x}\"", api.engine.opened().0, api.engine.nodes_generation());
    // Hexadecimal digits and a dot can be in a header.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("\"\""))
}

fn fields(text: &str) -> Result<BTreeSet<String>, Problem> {
    let fields: BTreeSet<String> = text.split(',').map(|f| f.trim().to_owned()).collect();
    if fields.len() > FIELDS_MAX {
        return Err(bad_query(format!("these are more than {FIELDS_MAX} fields")));
    }
    match fields.iter().find(|field| !NodeView::FIELDS.contains(&field.as_str())) {
        None => Ok(fields),
        Some(unknown) => {
            let short: String = unknown.chars().take(40).collect();
            let message = format!("a node has no field `{short}`; there are {}", NodeView::FIELDS.join(", "));
            Err(bad_query(message))
        }
    }
}

/// Some fields of a view, each as it reads in the whole.
fn chosen(view: &NodeView, fields: &BTreeSet<String>) -> BTreeMap<String, Box<RawValue>> {
    // A view is plain data, which JSON can always hold.
    let text = serde_json::to_string(view).unwrap_or_default();
    let all: BTreeMap<&str, &RawValue> = serde_json::from_str(&text).unwrap_or_default();
    let wanted = all.into_iter().filter(|(field, _)| fields.contains(*field));
    wanted.map(|(field, value)| (field.to_owned(), value.to_owned())).collect()
}

/// What a query asks of a node.
pub(super) struct Wanted {
    state: Option<StateName>,
    rack: Option<String>,
    pool: Option<String>,
    tag: Option<String>,
    maintenance: Option<bool>,
    /// In lower case.
    text: Option<String>,
}

impl Wanted {
    pub(super) fn of(query: &NodeQuery) -> Result<Self, Problem> {
        let text = query.q.as_deref().map(str::to_lowercase).filter(|text| !text.is_empty());
        let state = query.state.as_deref().map(state_name).transpose()?;
        let NodeQuery { rack, pool, tag, maintenance, .. } = query.clone();
        Ok(Self { state, rack, pool, tag, maintenance, text })
    }

    pub(super) fn is(&self, node: &Node, engine: &Engine) -> bool {
        let rack = node.place.as_ref().map(|place| place.rack.as_str());
        self.state.is_none_or(|state| node.state.name() == state)
            && self.rack.as_deref().is_none_or(|wanted| rack == Some(wanted))
            && self.pool.as_deref().is_none_or(|wanted| node.pool().as_str() == wanted)
            && self.tag.as_deref().is_none_or(|wanted| node.tags.iter().any(|tag| tag.as_str() == wanted))
            && self.maintenance.is_none_or(|wanted| node.maintenance.is_some() == wanted)
            && self.text.as_deref().is_none_or(|text| has(node, engine, text))
    }
}

fn state_name(text: &str) -> Result<StateName, Problem> {
    let quoted = Value::String(text.to_owned());
    serde_json::from_value(quoted).map_err(|_| {
        bad_query(format!("`{}` is no state of a node", text.chars().take(40).collect::<String>()))
    })
}

/// True where the node has this (in lower case) in something that people search for.
fn has(node: &Node, engine: &Engine, wanted: &str) -> bool {
    let within = |text: &str| text.to_lowercase().contains(wanted);
    within(&node.name)
        || node.identity.serial.as_deref().is_some_and(within)
        || node.identity.uuid.is_some_and(|uuid| within(&uuid.to_string()))
        || node.identity.macs.iter().any(|mac| within(&mac.to_string()))
        || within(&node.id.to_string())
        || node.installed.as_ref().is_some_and(|i| within(&i.hostname) || within(&i.image_name))
        || engine.known_hardware(node.id).is_some_and(|hardware| within(&hardware.product))
}

/// One node with its inventory.
#[utoipa::path(get, path = "/nodes/{node}", tag = "nodes", operation_id = "show_node",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = NodeDetail), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(api): State<Api>,
    Named(reference): Named,
) -> Answer<(Extension<Version>, Json<NodeDetail>)> {
    // Before the node: what changes in between is a newer version than the one that is named.
    let version = api.engine.node_version(&reference).map_or(0, |(_, version)| version);
    let node: Node = api.engine.node(&reference).await?;
    Ok((Extension(Version(version)), Json(api.engine.detail(&node).await)))
}

/// Announces a machine that nobody has seen yet. It is known by its addresses, or by its UUID, when it boots. A management
/// controller only the site's own token may name: the server connects to it.
#[utoipa::path(post, path = "/nodes", tag = "nodes", operation_id = "enroll_node", request_body = EnrollRequest,
    responses((status = 201, body = NodeView), (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn enroll(State(api): State<Api>, Input(request): Input<EnrollRequest>) -> Answer<Response> {
    let EnrollRequest { name, macs, uuid, serial, place, bmc } = request;
    if bmc.is_some() {
        need_places()?;
    }
    if macs.len() > protocol::limits::NICS_MAX {
        return Err(bad_query(format!("a node has at most {} addresses", protocol::limits::NICS_MAX)).into());
    }
    if serial.as_deref().is_some_and(|s| s.len() > SERIAL_MAX || s.chars().any(char::is_control)) {
        return Err(
            bad_query(format!("a serial number has at most {SERIAL_MAX} printable characters")).into()
        );
    }
    let place = place.map(place_of).transpose()?.flatten();
    let claim = Claim { uuid, serial, macs };
    let wanted = Enrolment { name, claim, place, bmc: bmc.map(Into::into) };
    let node = api.engine.enroll(operator(), wanted).await?;
    let location = format!("{PREFIX}/nodes/{}", node.id);
    let view = api.engine.view(&node).await;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}
