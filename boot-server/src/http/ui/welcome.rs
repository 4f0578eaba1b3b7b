//! The first steps of a new site: administrator, network, image, machine. Shown above the list of machines until all is done, or
//! somebody says that they know.

use axum::extract::State;
use axum::response::Response;
use boot_server_core::access::Role;
use boot_server_core::node::Severity;
use boot_server_core::plural::count;

use super::{Refusal, Ui, go, status};
use crate::http::auth::need;
use crate::store::queries;

/// Of the setting that ends it.
const SETTING: &str = "welcome";

/// One step.
pub(super) struct Step {
    pub done: bool,
    pub title: &'static str,
    pub text: String,
    pub href: &'static str,
    pub link: &'static str,
}

/// The steps, for administrators of the site; none where nothing is left to do.
pub(super) async fn steps(ui: &Ui, machines: usize) -> Result<Vec<Step>, Refusal> {
    if need(Role::Admin).is_err() {
        return Ok(Vec::new());
    }
    let over = ui.engine.store().read(|db| queries::setting(db, SETTING)).await;
    if over.map_err(crate::engine::EngineError::from)?.is_some() {
        return Ok(Vec::new());
    }
    let settings = ui.engine.settings();
    let images = ui.engine.image_rows().await?.len();
    let users = ui.known.tenancy().users();
    let admins = users.iter().filter(|u| u.site_role == Some(Role::Admin) && u.disabled.is_none()).count();
    let strangers = ui.engine.dhcp_servers().len();
    let network = match (&settings.dhcp, strangers) {
        (Some(_), 0) => format!("DHCP serves on {}, and no other server was heard.", settings.interface),
        (Some(_), n) => {
            format!("DHCP serves on {}; {} heard beside it.", settings.interface, count(n, "other server"))
        }
        (None, _) => "DHCP is off: machines are told what to boot by somebody else.".to_owned(),
    };
    // Whoever plugs a machine in before its boot files are there waits for nothing.
    let missing = status::boot(ui).warning;
    let ready = settings.dhcp.is_some() && missing.is_none();
    let steps = vec![
        Step {
            done: admins > 0,
            title: "Make the first administrator",
            text: "The site's token opens everything and says nobody's name. Give yourself a name and a password."
                .to_owned(),
            href: "/users",
            link: "Add a user",
        },
        Step {
            done: ready,
            title: "Look at the network",
            text: missing.unwrap_or(network),
            href: "/status",
            link: "See what is served",
        },
        Step {
            done: images > 0,
            title: "Add an image",
            text: "An operating system to put on machines: a file, an upload, or an address.".to_owned(),
            href: "/images",
            link: "Add an image",
        },
        Step {
            done: machines > 0,
            title: "Start the first machine",
            text: "Plug it into the provisioning network and let it boot from there; it appears here by itself."
                .to_owned(),
            href: "/",
            link: "Watch the list",
        },
    ];
    Ok(if steps.iter().all(|step| step.done) { Vec::new() } else { steps })
}

/// Takes them away for good.
pub(super) async fn dismiss(State(ui): State<Ui>) -> Result<Response, Refusal> {
    let by = need(Role::Admin).map_err(Refusal)?;
    let stored = ui.engine.store().write(|db| queries::set_setting(db, SETTING, "dismissed")).await;
    stored.map_err(crate::engine::EngineError::from)?;
    let message = "the first steps are not shown any more";
    ui.engine.note(by.actor(), None, "welcome.dismissed", Severity::Info, message).await?;
    Ok(go("/"))
}
