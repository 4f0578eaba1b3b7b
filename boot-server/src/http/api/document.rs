//! Makes the document of the API whole: what every operation may answer beside what its handler says, how refusals look, and
//! which headers all of them understand. Each operation says what is its own; what follows from its shape is added here, so
//! that no new one can forget it.

use std::collections::BTreeMap;

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems};
use utoipa::openapi::{
    Components, Content, HttpMethod, Object, OpenApi, PathItem, Ref, RefOr, Required, Response,
    ResponseBuilder, Schema, Type,
};

/// Media type of refusals (RFC 9457).
const PROBLEM: &str = "application/problem+json";
/// The schema of a refusal.
const SCHEMA: &str = "Problem";
/// Tags of operations that speak with a management controller.
const CONTROLLER_TAGS: [&str; 3] = ["power", "bmcs", "baselines"];

/// A refusal that operations share: status, name, what it says.
struct Shared(u16, &'static str, &'static str);

/// Everything that more than one kind of operation may answer.
const SHARED: [Shared; 15] = [
    Shared(400, "BadRequest", "Path, query or body are not what the operation takes"),
    Shared(401, "Unauthenticated", "No token or session, or a wrong one"),
    Shared(403, "Forbidden", "Whoever asks may not do this"),
    Shared(404, "NotFound", "What the path names does not exist, or not for whoever asks"),
    Shared(408, "BodyTooSlow", "The body did not arrive in time"),
    Shared(409, "Conflict", "It does not fit what is there now"),
    Shared(412, "PreconditionFailed", "`If-Match` names another version than the present one"),
    Shared(413, "BodyTooLarge", "The body is larger than the operation takes"),
    Shared(415, "NotJson", "The body is not `application/json`"),
    Shared(422, "Unprocessable", "Understood, and refused: the code says why"),
    Shared(429, "TooManyRequests", "Too many requests; `Retry-After` says for how many seconds to wait"),
    Shared(500, "Internal", "A mistake of the server; its log says more"),
    Shared(502, "ControllerRefused", "The management controller refused, or did something else"),
    Shared(503, "Unavailable", "The server cannot do this at the moment; ask again later"),
    Shared(504, "ControllerLate", "The management controller did not answer in time"),
];

/// Adds to the document what follows from the shape of its operations.
pub(super) fn complete(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    share(components);
    close_variants(components);
    for (path, item) in &mut document.paths.paths {
        let has_path_parameters = path.contains('{');
        for (method, operation) in operations(item) {
            as_problems(operation);
            let changes = !matches!(method, HttpMethod::Get | HttpMethod::Head);
            for status in statuses(operation, has_path_parameters, changes) {
                add(operation, status);
            }
            headers(operation, &method);
        }
    }
}

/// The operations of a path with their methods.
pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    let all = [
        (HttpMethod::Get, &mut item.get),
        (HttpMethod::Put, &mut item.put),
        (HttpMethod::Post, &mut item.post),
        (HttpMethod::Delete, &mut item.delete),
        (HttpMethod::Patch, &mut item.patch),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// The forms of a tagged enum take no other fields than those of the form: the tag stands among those of a struct that is
/// closed (in JSON Schema, one that is closed inside of `allOf` would refuse the tag).
fn close_variants(components: &mut Components) {
    let known = components.schemas.clone();
    for schema in components.schemas.values_mut() {
        open_views(schema, &known);
        let RefOr::T(Schema::OneOf(one_of)) = schema else { continue };
        for form in &mut one_of.items {
            match form {
                RefOr::T(Schema::AllOf(parts)) => {
                    if let Some(object) = merged(&parts.items, &known) {
                        *form = object.into();
                    }
                }
                RefOr::T(Schema::Object(object)) if !object.properties.is_empty() => close(object),
                _ => {}
            }
        }
    }
}

/// What is shown of something that is also sent, and more: the part is closed, the whole is not. It stands by itself, or
/// among the items of a page.
fn open_views(schema: &mut RefOr<Schema>, known: &BTreeMap<String, RefOr<Schema>>) {
    match schema {
        RefOr::T(Schema::AllOf(parts)) => {
            let Some(mut whole) = merged(&parts.items, known) else { return };
            whole.additional_properties = None;
            whole.description = parts.description.clone();
            *schema = whole.into();
        }
        RefOr::T(Schema::Object(object)) => {
            object.properties.values_mut().for_each(|property| open_views(property, known));
        }
        RefOr::T(Schema::Array(array)) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                open_views(items, known);
            }
        }
        _ => {}
    }
}

fn close(object: &mut Object) {
    let nothing = AdditionalProperties::FreeForm(false);
    object.additional_properties.get_or_insert_with(|| Box::new(nothing));
}

/// One object of a closed struct and a tag; `None` where these are others.
fn merged(parts: &[RefOr<Schema>], known: &BTreeMap<String, RefOr<Schema>>) -> Option<Object> {
    let mut all = Object::with_type(Type::Object);
    let mut closed = false;
    for part in parts {
        let part = match part {
            RefOr::Ref(place) => known.get(place.ref_location.rsplit('/').next()?)?,
            own => own,
        };
        let RefOr::T(Schema::Object(part)) = part else { return None };
        closed |= part.additional_properties.is_some();
        all.properties.extend(part.properties.clone());
        all.required.extend(part.required.iter().cloned());
    }
    close(&mut all);
    closed.then_some(all)
}

fn share(components: &mut Components) {
    for Shared(status, name, description) in SHARED {
        let content = Content::new(Some(Ref::from_schema_name(SCHEMA)));
        let mut response = ResponseBuilder::new().description(description).content(PROBLEM, content);
        if status == 429 {
            let seconds = HeaderBuilder::new()
                .schema(Some(Object::with_type(Type::Integer)))
                .description(Some("Seconds to wait"));
            response = response.header("Retry-After", seconds.build());
        }
        if status == 401 {
            let scheme = HeaderBuilder::new().description(Some("How to authenticate: `Bearer`"));
            response = response.header("WWW-Authenticate", scheme.build());
        }
        components.responses.insert(name.to_owned(), response.build().into());
    }
}

/// Refusals that a handler documents are problems too.
fn as_problems(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(Response { content, description, .. }) = response else { continue };
        if !status.starts_with(['4', '5']) {
            continue;
        }
        if let Some(body) = content.shift_remove("application/json") {
            content.insert(PROBLEM.to_owned(), body);
        }
        if description.is_empty()
            && let Some(shared) = SHARED.iter().find(|shared| shared.0.to_string() == *status)
        {
            description.push_str(shared.2);
        }
    }
}

fn statuses(operation: &Operation, has_path_parameters: bool, changes: bool) -> Vec<u16> {
    let has_body = operation.request_body.is_some();
    let has_parameters = has_path_parameters || operation.parameters.as_ref().is_some_and(|p| !p.is_empty());
    let tags = operation.tags.as_deref().unwrap_or_default();
    let controller = tags.iter().any(|tag| CONTROLLER_TAGS.contains(&tag.as_str()));
    let mut statuses = vec![401, 403, 429, 500, 503];
    if has_parameters || has_body || changes {
        statuses.push(400);
    }
    if has_path_parameters {
        statuses.push(404);
    }
    if has_body {
        statuses.extend([408, 413, 415, 422]);
    }
    if changes {
        statuses.extend([409, 412, 422]);
    }
    if controller && has_path_parameters {
        statuses.extend([409, 422, 502, 504]);
    }
    statuses
}

fn add(operation: &mut Operation, status: u16) {
    let Some(shared) = SHARED.iter().find(|shared| shared.0 == status) else { return };
    let response = || RefOr::Ref(Ref::from_response_name(shared.1));
    operation.responses.responses.entry(status.to_string()).or_insert_with(response);
}

/// `If-Match` wherever something can be changed, `If-None-Match` and `ETag` wherever something is shown.
fn headers(operation: &mut Operation, method: &HttpMethod) {
    let (name, description) = match method {
        HttpMethod::Get => ("If-None-Match", "An `ETag` that is known: the same again is answered by 304"),
        _ => ("If-Match", "The `ETag` that the change is meant for: another one is answered by 412"),
    };
    let shows = operation.responses.responses.get_mut("200").and_then(|response| match response {
        RefOr::T(response) if response.content.contains_key("application/json") => Some(response),
        _ => None,
    });
    match (method, shows) {
        (HttpMethod::Get, Some(response)) => {
            let tag = HeaderBuilder::new().description(Some("Names this state of what is shown"));
            response.headers.insert("ETag".to_owned(), tag.build().into());
            let same = Response::new("It is what `If-None-Match` names");
            operation.responses.responses.insert("304".to_owned(), same.into());
        }
        (HttpMethod::Get, None) => return,
        _ => {}
    }
    let header = header(name, description);
    operation.parameters.get_or_insert_default().push(header.into());
}

/// An optional header of requests.
pub(super) fn header(name: &str, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(Object::with_type(Type::String)))
        .build()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::document;

    fn each(mut look: impl FnMut(&str, &str, &Value)) {
        let document = serde_json::to_value(document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.len() > 40, "{}", paths.len());
        for (path, item) in paths {
            for (method, operation) in item.as_object().unwrap() {
                look(path, method, operation);
            }
        }
    }

    /// Names under which a source file puts types into the document.
    fn schema_names(source: &str) -> Vec<String> {
        let word =
            |text: &str| text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
        let (mut names, mut shown, mut other) = (Vec::new(), false, None);
        for line in source.lines().map(str::trim) {
            if line.starts_with("#[") {
                shown |= line.contains("ToSchema");
                other = line.split_once("schema(as = ").map(|(_, rest)| word(rest)).or(other);
                continue;
            }
            let kinds = ["pub struct ", "pub enum ", "pub(super) struct ", "pub(super) enum "];
            if let Some(name) = kinds.iter().find_map(|kind| line.strip_prefix(kind)).filter(|_| shown) {
                names.push(other.take().unwrap_or_else(|| word(name)));
            }
            if !line.starts_with("///") {
                (shown, other) = (false, None);
            }
        }
        names
    }

    /// Of two types with one name the document would show one, for both.
    #[test]
    fn every_schema_has_a_name_of_its_own() {
        let mut waiting: Vec<std::path::PathBuf> =
            ["src", "core/src", "bmc/src", "../protocol/src", "../images/src"]
                .map(|dir| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(dir))
                .into();
        let mut names = std::collections::BTreeSet::new();
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                waiting.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                for name in schema_names(&std::fs::read_to_string(&path).unwrap()) {
                    assert!(names.insert(name.clone()), "{name} in {} stands elsewhere too", path.display());
                }
            }
        }
        assert!(names.len() > 150, "{}", names.len());
        assert_eq!(schema_names("#[derive(ToSchema)]\n/// A.\npub struct A;\npub struct B;"), ["A"]);
        assert_eq!(schema_names("#[derive(ToSchema)]\n#[x(schema(as = C))]\npub enum A {"), ["C"]);
    }

    fn schema<'a>(document: &'a Value, mut schema: &'a Value) -> &'a Value {
        while let Some(place) = schema["$ref"].as_str() {
            schema = document.pointer(place.trim_start_matches('#')).unwrap();
        }
        schema
    }

    /// Objects at any depth of a schema that is sent, which take fields that nobody knows. A map (`additionalProperties` is
    /// a schema of its own) takes any name on purpose.
    fn open_objects(
        document: &Value,
        at: &Value,
        name: &str,
        seen: &mut Vec<String>,
        open: &mut Vec<String>,
    ) {
        if let Some(place) = at["$ref"].as_str() {
            if seen.iter().any(|s| s == place) {
                return;
            }
            seen.push(place.to_owned());
            return open_objects(document, schema(document, at), place, seen, open);
        }
        if at["properties"].is_object() && at["additionalProperties"] != Value::Bool(false) {
            open.push(name.to_owned());
        }
        for list in ["oneOf", "anyOf", "allOf"] {
            for part in at[list].as_array().into_iter().flatten() {
                open_objects(document, part, &format!("{name} {list}"), seen, open);
            }
        }
        for (field, part) in at["properties"].as_object().into_iter().flatten() {
            open_objects(document, part, &format!("{name}.{field}"), seen, open);
        }
        open_objects_of_items(document, at, name, seen, open);
    }

    fn open_objects_of_items(
        document: &Value,
        at: &Value,
        name: &str,
        seen: &mut Vec<String>,
        open: &mut Vec<String>,
    ) {
        for inner in ["items", "additionalProperties"] {
            if at[inner].is_object() {
                open_objects(document, &at[inner], &format!("{name} {inner}"), seen, open);
            }
        }
    }

    #[test]
    fn bodies_with_unknown_fields_are_refused() {
        let document = serde_json::to_value(document()).unwrap();
        let (mut seen, mut open, mut bodies) = (Vec::new(), Vec::new(), 0);
        each(|path, method, operation| {
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            if body.is_object() {
                bodies += 1;
                open_objects(&document, body, &format!("{method} {path}"), &mut seen, &mut open);
            }
        });
        assert!(bodies > 20, "{bodies}");
        assert!(open.is_empty(), "these take fields that nobody knows: {open:#?}");
        // The guard of the guard: what is shown is open, as clients must be able to skip new fields.
        let view = serde_json::json!({"$ref": "#/components/schemas/NodeView"});
        open_objects(&document, &view, "NodeView", &mut Vec::new(), &mut open);
        assert!(open.contains(&"#/components/schemas/NodeView".to_owned()), "{open:#?}");
    }

    #[test]
    fn every_operation_documents_its_refusals_as_problems() {
        let document = serde_json::to_value(document()).unwrap();
        each(|path, method, operation| {
            let responses = operation["responses"].as_object().unwrap();
            for needed in ["401", "403", "429", "503"] {
                assert!(responses.contains_key(needed), "{method} {path} does not document {needed}");
            }
            for (status, response) in responses.iter().filter(|(s, _)| s.starts_with(['4', '5'])) {
                let response = schema(&document, response);
                let kinds: Vec<_> = response["content"].as_object().unwrap().keys().collect();
                assert_eq!(kinds, ["application/problem+json"], "{method} {path} {status}");
            }
        });
    }

    #[test]
    fn every_list_has_pages() {
        let mut lists = 0;
        each(|path, method, operation| {
            let shown = &operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
            if method != "get" || !shown.as_str().is_some_and(|s| s.contains("/Page_")) {
                return;
            }
            lists += 1;
            let names: Vec<_> = operation["parameters"].as_array().into_iter().flatten().collect();
            for needed in ["limit", "cursor"] {
                assert!(names.iter().any(|p| p["name"] == needed), "{path} has no `{needed}`");
            }
        });
        assert!(lists > 10, "{lists}");
    }
}
