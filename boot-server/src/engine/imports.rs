//! Many controllers at once: from a list, and from what answers in a network.

use std::str::FromStr;

use bmc::{DriverKind, Secret};
use boot_server_core::bmc::import::Line;
use boot_server_core::node::event::Verb;
use boot_server_core::node::place::Typed;
use boot_server_core::node::{Claim, Event, Node, Place, StaticNetwork};
use protocol::{MacAddr, NodeId};
use uuid::Uuid;

use super::{Actor, BmcChange, Engine, EngineError, Enrolment, lock};
use crate::view::{ImportView, ImportedLine, ScanFound};

/// What a line says.
struct Wanted {
    node: Option<String>,
    claim: Claim,
    change: BmcChange,
    /// `None`: it stays as it is.
    place: Option<Place>,
    network: Option<StaticNetwork>,
}

fn bad(what: impl Into<String>, hint: &'static str) -> EngineError {
    EngineError::BadBmc { what: what.into(), hint }
}

fn parsed<T: FromStr>(line: &Line, column: &'static str) -> Result<Option<T>, EngineError> {
    let Some(text) = line.field(column) else { return Ok(None) };
    let short: String = text.chars().take(60).collect();
    text.parse().map(Some).map_err(|_| bad(format!("`{short}` is no {column}"), "correct it in the list"))
}

impl Wanted {
    fn of(line: &Line) -> Result<Self, EngineError> {
        let driver = match line.field("driver").map(str::to_lowercase).as_deref() {
            None => None,
            Some("redfish") => Some(DriverKind::Redfish),
            Some("ipmi") => Some(DriverKind::Ipmi),
            Some("wol") => Some(DriverKind::Wol),
            Some("manual") => Some(DriverKind::Manual),
            Some(_) => return Err(bad("the driver is unknown", "there are redfish, ipmi, wol and manual")),
        };
        let text = |column| line.field(column).map(str::to_owned);
        let mac: Option<MacAddr> = parsed(line, "mac")?;
        let claim = Claim {
            uuid: parsed::<Uuid>(line, "uuid")?,
            serial: text("serial"),
            macs: mac.into_iter().collect(),
        };
        let (address, gateway) = (parsed(line, "network")?, parsed(line, "gateway")?);
        let network = match (address, gateway) {
            (Some(address), gateway) => Some(StaticNetwork { address, gateway, mac, dns: Vec::new() }),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(bad("a gateway without an address", "give `network`, such as 10.77.0.50/24"));
            }
        };
        let change = BmcChange {
            driver,
            address: text("address"),
            port: parsed::<u16>(line, "port")?.map(Some),
            user: text("user"),
            password: text("password").map(Secret),
            ..BmcChange::default()
        };
        let (rack, unit) = (text("rack").unwrap_or_default(), text("unit").unwrap_or_default());
        let place = Place::typed(Typed { rack: &rack, unit: &unit, ..Typed::default() })?;
        Ok(Self { node: text("node"), claim, change, place, network })
    }
}

impl Engine {
    /// Takes in a list of controllers. Each line stands for itself: one that is refused says why, the others are done.
    ///
    /// # Errors
    /// None at present; a later store may fail as a whole.
    pub async fn import_bmcs(
        &self,
        actor: &Actor,
        lines: &[Line],
        dry_run: bool,
    ) -> Result<ImportView, EngineError> {
        let mut done = Vec::with_capacity(lines.len());
        for line in lines {
            let mut shown = ImportedLine {
                line: line.number,
                node: line.field("node").map(str::to_owned),
                new_node: false,
                replaces: false,
                refused: None,
            };
            if let Err(error) = self.import_line(actor, line, dry_run, &mut shown).await {
                shown.refused = Some(error.problem());
            }
            done.push(shown);
        }
        Ok(ImportView { dry_run, lines: done })
    }

    async fn import_line(
        &self,
        actor: &Actor,
        line: &Line,
        dry_run: bool,
        shown: &mut ImportedLine,
    ) -> Result<(), EngineError> {
        let wanted = Wanted::of(line)?;
        let known = self.named_by(&wanted)?;
        shown.new_node = known.is_none();
        if let Some(network) = &wanted.network {
            self.check_network(known.as_ref(), network)?;
        }
        let before = known.as_ref().map(|node| lock(&self.0.bmcs).get(&node.id).cloned());
        shown.replaces = before.as_ref().is_some_and(Option::is_some);
        let node = match known {
            Some(node) => node.id,
            None if dry_run => {
                let nobody = NodeId(Uuid::nil());
                self.changed_row(nobody, None, wanted.change).and_then(|row| self.check_target(&row))?;
                return Ok(());
            }
            None => {
                // What the controller is must be right before a node is made for it.
                let nobody = NodeId(Uuid::nil());
                self.changed_row(nobody, None, wanted.change.clone())?;
                let (name, claim) = (wanted.node.clone(), wanted.claim.clone());
                let announced = Enrolment { name, claim, ..Enrolment::default() };
                self.enroll(actor.clone(), announced).await?.id
            }
        };
        shown.node = self.0.nodes.get(node).map(|node| node.name.clone());
        if dry_run {
            let row = self.changed_row(node, before.flatten().as_ref(), wanted.change)?;
            return self.check_target(&row);
        }
        self.set_bmc(node, actor.clone(), wanted.change).await?;
        if let Some(place) = wanted.place {
            let verb = Verb::Place { place: Some(place) };
            self.apply(node, actor.clone(), Event::Verb(verb)).await?;
        }
        if let Some(network) = wanted.network {
            let node = self.node(&node.to_string()).await?;
            self.set_network(&node, actor.clone(), Some(network)).await?;
        }
        Ok(())
    }

    /// The node that a line speaks of: by its name, else by what it answers to. `None`: a new one.
    fn named_by(&self, wanted: &Wanted) -> Result<Option<Node>, EngineError> {
        let by_name = wanted.node.as_deref().and_then(|name| match name.parse::<NodeId>() {
            Ok(id) => self.0.nodes.get(id),
            Err(_) => self.0.nodes.with_name(name),
        });
        if let Some(node) = by_name {
            return Ok(Some(Node::clone(&node)));
        }
        let claim = &wanted.claim;
        let mut like = self.0.nodes.like(claim);
        if let Some(serial) = &claim.serial
            && like.is_empty()
        {
            like.extend(self.0.nodes.find(|node| node.identity.serial.as_ref() == Some(serial)));
        }
        match like.as_slice() {
            [one] => Ok(Some(Node::clone(one))),
            [] if claim.macs.is_empty() && claim.uuid.is_none() => Err(bad(
                "no such node is known",
                "give its name, or `mac` (the port that it boots from) or `uuid`, by which it is known when it boots",
            )),
            [] => Ok(None),
            _ => Err(bad("several nodes answer to this", "name one of them")),
        }
    }

    /// Says whose controllers those are that a scan found.
    pub async fn whose_bmcs(&self, found: &mut [ScanFound]) {
        let mut known: std::collections::BTreeMap<String, NodeId> =
            lock(&self.0.bmcs).values().map(|row| (row.address.clone(), row.node)).collect();
        for node in self.0.nodes.all() {
            if let Ok(Some(inventory)) = self.inventory(node.id).await
                && let Some(address) = inventory.bmc.as_ref().and_then(|bmc| bmc.address)
            {
                known.entry(address.to_string()).or_insert(node.id);
            }
        }
        for one in found {
            let node = known.get(&one.address.to_string()).and_then(|id| self.0.nodes.get(*id));
            one.node = node.map(|node| node.name.clone());
        }
    }
}
