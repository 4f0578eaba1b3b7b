//! What this server is, what it listens on, and what it can boot.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::format as f;
use super::recipe::Recipe;
use super::{Refusal, Ui, render};
use crate::config::Settings;
use crate::loaders::Loaders;

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage {
    nav: &'static str,
    sections: Vec<Section>,
    recipe: Recipe,
}

pub(super) struct Section {
    title: &'static str,
    pub(super) warning: Option<String>,
    facts: Vec<(&'static str, String)>,
}

pub(super) async fn show(State(ui): State<Ui>) -> Result<Response, Refusal> {
    let recipe = Recipe::default().and("billet status", "GET", "status", None);
    let mut sections = vec![server(&ui), network(&ui), boot(&ui), nodes(&ui).await?];
    sections.splice(0..0, others(&ui));
    Ok(render(200, &StatusPage { nav: "status", sections, recipe }))
}

fn server(ui: &Ui) -> Section {
    let settings = ui.engine.settings();
    let facts = vec![
        ("Billet", format!("version {}", env!("CARGO_PKG_VERSION"))),
        ("Operators", format!("http://{}", settings.operators)),
        ("State", settings.state_dir.display().to_string()),
    ];
    Section { title: "Server", warning: None, facts }
}

fn network(ui: &Ui) -> Section {
    let settings = ui.engine.settings();
    let mut facts = vec![
        ("Interface", settings.interface.clone()),
        ("Address", addresses(settings).join(", ")),
        ("HTTP", settings.provisioning_urls().collect::<Vec<_>>().join(", ")),
        ("TFTP", if settings.tftp { "port 69".to_owned() } else { "off".to_owned() }),
    ];
    match &settings.dhcp {
        Some(lending) => {
            facts.extend(lending.lines().into_iter().map(|line| ("DHCP", line)));
            if let Some(own) = lending.own().filter(|s| !s.pools.is_empty()) {
                facts.push(("Lease", f::seconds(own.lease_time.as_secs())));
                facts.push(("Router", own.router.map_or_else(|| "none".to_owned(), |r| r.to_string())));
            }
        }
        None => facts.push(("DHCP", "off".to_owned())),
    }
    let dhcp6 = settings.ipv6.as_ref().and_then(|ipv6| ipv6.dhcp.as_ref());
    facts.push(("DHCPv6", dhcp6.map_or_else(|| "off".to_owned(), |p| format!("{} to {}", p.start, p.end))));
    Section { title: "Provisioning network", warning: None, facts }
}

/// Other DHCP servers, where there are any.
fn others(ui: &Ui) -> Option<Section> {
    let servers = ui.engine.dhcp_servers();
    let warning = servers.iter().any(|s| !s.expected).then(|| {
        "Another DHCP server answers on the provisioning network: machines that boot may follow it instead of this \
         one. Stop it, or let this server work beside it."
            .to_owned()
    });
    let facts: Vec<_> = servers.iter().map(|s| ("Seen", s.sentence())).collect();
    (!facts.is_empty()).then_some(Section { title: "Other DHCP servers", warning, facts })
}

fn addresses(settings: &Settings) -> Vec<String> {
    let ipv4 = settings.ipv4.map(|n| n.to_string());
    ipv4.into_iter().chain(settings.ipv6.as_ref().map(|n| n.network.to_string())).collect()
}

pub(super) fn boot(ui: &Ui) -> Section {
    let settings = ui.engine.settings();
    let size = |name: &str| {
        let found = settings.boot.iter().find_map(|dir| std::fs::metadata(dir.join(name)).ok());
        found.map(|m| f::bytes(m.len()))
    };
    let (kernel, ramdisk) = (size("vmlinuz"), size("initramfs").or_else(|| size("initramfs.zst")));
    let warning = (kernel.is_none() || ramdisk.is_none()).then(|| {
        let dirs = settings.boot.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(" or ");
        format!("Machines cannot boot the agent: vmlinuz or initramfs is missing in {dirs}.")
    });
    let missing = || "missing".to_owned();
    let facts = vec![
        ("Kernel", kernel.unwrap_or_else(missing)),
        ("Ramdisk", ramdisk.unwrap_or_else(missing)),
        ("Boot loaders", loaders(settings)),
    ];
    Section { title: "What machines boot", warning, facts }
}

fn loaders(settings: &Settings) -> String {
    let found: Vec<_> = Loaders::new(settings).present().map(|(name, _)| name).collect();
    if found.is_empty() { "missing".to_owned() } else { found.join(", ") }
}

async fn nodes(ui: &Ui) -> Result<Section, Refusal> {
    let nodes = ui.engine.nodes().await?;
    let mut facts = vec![("All", nodes.len().to_string())];
    for state in f::STATES {
        let count = nodes.iter().filter(|n| n.state.name() == state).count();
        if count > 0 {
            facts.push((f::look(state).label, count.to_string()));
        }
    }
    Ok(Section { title: "Servers", warning: None, facts })
}
