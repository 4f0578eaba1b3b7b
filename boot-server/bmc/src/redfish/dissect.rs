//! One answer of a controller, whatever octets it is, through all that reads answers: no socket, no clock. It is how the fuzz
//! target gets at what else only a call reaches.

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use serde_json::Value;

use super::address::{Link, Origin, Transport};
use super::client::resource;
use super::json::View;
use super::quirks::{self, Console, Facts};
use super::tree::Root;
use super::wire::Answer;
use super::{components, log, readings, refusal, serial, task};
use crate::{BmcError, ComponentKind, Unit};

/// The controller whose answer it is.
const ADDRESS: &str = "10.0.0.5";
/// Makers whose words mean more than their status says.
const VENDORS: [&str; 3] = ["Contoso", "Dell", "HPE"];
const KINDS: [ComponentKind; 3] = [ComponentKind::System, ComponentKind::Drive, ComponentKind::Fan];

/// What was made of it.
#[derive(Debug, Default)]
pub struct Dissected {
    /// Every text in it that would be followed as a link, as it would be asked for.
    pub links: Vec<String>,
    /// Texts that would be shown or stored.
    pub texts: Vec<String>,
    /// What a task says of its progress.
    pub percent: Option<u8>,
}

/// Reads it as each of the resources that the driver knows, and as a refusal. A reader that refuses it is no error.
///
/// # Errors
/// Where it is no JSON, or more than is taken.
pub fn dissect(octets: &[u8]) -> Result<Dissected, BmcError> {
    let mut out = Dissected::default();
    let (origin, link) = (Origin::parse(ADDRESS, Transport::Tls)?, Link::known("/redfish/v1/Systems/1"));
    let answer = |status| Answer { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(octets) };
    for vendor in VENDORS {
        let profile = quirks::choose(&Facts { vendor: Some(vendor), ..Facts::default() });
        for status in [StatusCode::BAD_REQUEST, StatusCode::SERVICE_UNAVAILABLE, StatusCode::UNAUTHORIZED] {
            out.texts.push(refusal::of("a change", &answer(status), profile).to_string());
        }
    }
    let resource = resource("a resource", &link, &answer(StatusCode::OK))?;
    let view = resource.view(&origin);
    // Only that it ends well counts; what it is for is tested beside it.
    drop(Root::of(&resource, &view));
    drop(serial::of_system(&view, &Console::default()));
    drop(serial::of_manager(&view, Some(&view), &Console::default()));
    if let Ok(task) = task::task(&link, &view) {
        out.percent = task.percent;
        out.texts.extend(task.message);
    }
    if let Ok(entry) = log::entry(&resource, &view) {
        out.texts.extend([entry.id, entry.message].into_iter().chain(entry.sensor));
    }
    for kind in KINDS {
        if let Ok(Some(part)) = components::component(kind, &view) {
            out.texts.extend([Some(part.name), part.location, part.model, part.serial].into_iter().flatten());
        }
    }
    let reading = readings::sensor_reading(&view, String::new(), Unit::Other);
    drop((reading, readings::reading(&view, "Reading", Unit::Other, "Name")));
    collection(&view, &mut out);
    texts(&resource.body, &mut |text| {
        out.links.extend(origin.link("a text", text).ok().map(|link| link.to_string()));
    });
    Ok(out)
}

/// Members, and the next page.
fn collection(view: &View<'_>, out: &mut Dissected) {
    let members = view.list("Members").unwrap_or_default();
    let links = members.iter().filter_map(|member| member.id().ok().flatten());
    let next = view.link_text("Members@odata.nextLink").ok().flatten();
    out.links.extend(links.chain(next).map(|link| link.to_string()));
    out.links.extend(view.links("Members").unwrap_or_default().iter().map(ToString::to_string));
}

/// All texts of a value; its nesting was counted before.
fn texts(value: &Value, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(parts) => parts.iter().for_each(|part| texts(part, visit)),
        Value::Object(parts) => parts.values().for_each(|part| texts(part, visit)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_and_a_collection_are_taken_apart() {
        let task =
            dissect(br#"{"TaskState":"Running","PercentComplete":250,"Message":"on its way"}"#).unwrap();
        assert_eq!(task.percent, Some(100));
        assert!(task.texts.iter().any(|t| t == "on its way"));
        let members =
            br#"{"Members":[{"@odata.id":"/redfish/v1/Systems/1"},{"@odata.id":"https://evil/x"}]}"#;
        assert!(dissect(members).unwrap().links.iter().all(|l| l == "/redfish/v1/Systems/1"));
        assert!(dissect(b"<html>").is_err());
    }
}
