//! Where things are at one controller: the service root's links, the system, its manager and chassis. Read once.

use std::sync::Arc;

use super::address::Link;
use super::call::Call;
use super::client::{Client, resource};
use super::json::{Resource, View};
use super::limits;
use super::quirks::{self, Facts, Profile};
use super::refusal;
use super::wire::Deadline;
use crate::BmcError;

/// Path of the service root (DSP0266, section 6.3); all else is read from it.
pub(super) const ROOT: &str = "/redfish/v1/";

/// The service root.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) version: Option<String>,
    pub(super) vendor: Option<String>,
    pub(super) product: Option<String>,
    pub(super) uuid: Option<String>,
    /// Whether `$expand=.` with one level works (DSP0266, section 7.3.1).
    pub(super) expand: bool,
    pub(super) sessions: Option<Link>,
    pub(super) systems: Option<Link>,
    pub(super) managers: Option<Link>,
    pub(super) chassis: Option<Link>,
    pub(super) accounts: Option<Link>,
    pub(super) events: Option<Link>,
    pub(super) updates: Option<Link>,
    pub(super) tasks: Option<Link>,
    pub(super) profile: &'static Profile,
}

/// All that is remembered of a controller.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: Arc<Root>,
    pub(super) system: Link,
    pub(super) manager: Option<Link>,
    pub(super) chassis: Vec<Link>,
    /// Chosen again when the system is known, because some makers name themselves only there.
    pub(super) profile: &'static Profile,
}

impl Root {
    /// Reads the service root, without credentials: it is open by DSP0266, section 13.3.1.
    pub(super) async fn read(client: &Client, deadline: Deadline) -> Result<Self, BmcError> {
        let link = Link::known(ROOT);
        let what = format!("GET {link}");
        let answer = client.ask_openly(deadline, &link).await?;
        if !answer.status.is_success() {
            return Err(match refusal::of(&what, &answer, quirks::standard()) {
                BmcError::Login => BmcError::Forbidden { what },
                other => other,
            });
        }
        let resource = resource(&what, &link, &answer)?;
        Self::of(&resource, &resource.view(&client.wire.origin))
    }

    pub(super) fn of(resource: &Resource, root: &View<'_>) -> Result<Self, BmcError> {
        let version = root.string("RedfishVersion")?;
        let systems = root.link("Systems")?;
        if version.is_none() && systems.is_none() {
            let why = "no Redfish service root: RedfishVersion and Systems are missing".to_owned();
            return Err(BmcError::Malformed { what: resource.link.to_string(), why });
        }
        let oem = keys(&root.object("Oem")?);
        let (vendor, product) = (root.string("Vendor")?, root.string("Product")?);
        let facts =
            Facts { vendor: vendor.as_deref(), product: product.as_deref(), oem: &oem, ..Facts::default() };
        let profile = quirks::choose(&facts);
        let expand = profile.http.expand && can_expand(root)?;
        let told = root.object("Links")?.link("Sessions")?;
        let sessions = told.or_else(|| profile.session.path.as_deref().map(Link::known));
        Ok(Self {
            version,
            uuid: root.string("UUID")?,
            expand,
            sessions,
            systems,
            managers: root.link("Managers")?,
            chassis: root.link("Chassis")?,
            accounts: root.link("AccountService")?,
            events: root.link("EventService")?,
            updates: root.link("UpdateService")?,
            tasks: root.link("Tasks")?,
            vendor,
            product,
            profile,
        })
    }
}

impl Tree {
    /// Finds the system and what belongs to it.
    pub(super) async fn read(call: Call<'_>) -> Result<Self, BmcError> {
        let root = call.root().await?;
        let none = || call.unsupported("a computer system");
        let systems = call.member_links(root.systems.as_ref().ok_or_else(none)?).await?;
        let all_managers = match &root.managers {
            Some(all) => call.member_links(all).await?,
            None => Vec::new(),
        };
        let profile = by_manager(&call, &root, &all_managers).await?;
        let link = pick(&systems, call.redfish.system.as_deref(), profile).ok_or_else(none)?;
        let system = call.get(link).await?;
        let view = system.view(call.origin());
        let links = view.object("Links")?;
        let mut managers = links.links("ManagedBy")?;
        if managers.is_empty() {
            managers = all_managers;
        }
        let mut chassis = links.links("Chassis")?;
        if let (true, Some(all)) = (chassis.is_empty(), &root.chassis) {
            chassis = call.member_links(all).await?;
        }
        chassis.truncate(limits::CHASSIS);
        let manager = pick(&managers, None, profile).cloned();
        let profile = by_system(profile, &view)?;
        Ok(Self { system: link.clone(), manager, chassis, profile, root })
    }
}

/// Services before 1.6 were published with `ExpandQuery: false` in place of an object; it says the same.
fn can_expand(root: &View<'_>) -> Result<bool, BmcError> {
    let features = root.object("ProtocolFeaturesSupported")?.get("ExpandQuery")?;
    if !features.value().is_object() {
        return Ok(false);
    }
    Ok(features.boolean("NoLinks")?.unwrap_or_default() && features.boolean("Levels")?.unwrap_or_default())
}

/// The profile of the service root, else what its first manager says of itself: OpenBMC is known only by that.
async fn by_manager(call: &Call<'_>, root: &Root, managers: &[Link]) -> Result<&'static Profile, BmcError> {
    let (true, Some(link)) = (is_standard(root.profile), managers.first()) else { return Ok(root.profile) };
    let Some(manager) = call.get_optional(link).await? else { return Ok(root.profile) };
    let oem = manager.view(call.origin()).object("Oem")?;
    Ok(quirks::choose(&Facts { oem: &keys(&oem), ..Facts::default() }))
}

/// … else what the system says.
fn by_system(profile: &'static Profile, system: &View<'_>) -> Result<&'static Profile, BmcError> {
    if !is_standard(profile) {
        return Ok(profile);
    }
    let (manufacturer, model) = (system.text("Manufacturer")?, system.text("Model")?);
    Ok(quirks::choose(&Facts { manufacturer, model, ..Facts::default() }))
}

fn is_standard(profile: &Profile) -> bool {
    profile.name == quirks::standard().name
}

fn keys<'a>(object: &View<'a>) -> Vec<&'a str> {
    match object.value() {
        serde_json::Value::Object(map) => map.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The wanted one; else the profile's favourite; else the first that is not to be avoided.
fn pick<'a>(links: &'a [Link], wanted: Option<&str>, profile: &Profile) -> Option<&'a Link> {
    if let Some(wanted) = wanted {
        return links.iter().find(|l| l.last() == wanted);
    }
    let quirks = &profile.system;
    let favourite = quirks.prefer.iter().find_map(|id| links.iter().find(|l| l.last() == id));
    favourite
        .or_else(|| links.iter().find(|l| !quirks.avoid.iter().any(|id| l.last() == id)))
        .or(links.first())
}
