//! Security groups as port groups with ACLs. What no rule allows is dropped by the group of all guarded ports.

use std::fmt::Write as _;

use protocol::SecurityGroupId;

use super::{Desired, Table, Want};
use crate::network::{Direction, Family, Remote, Rule, Site, Traffic};

/// The group of all guarded ports.
const GUARDED: &str = "billet_guarded";
/// What is dropped, and what is allowed before that.
const DROP: i64 = 1001;
const ALLOW: i64 = 1002;

pub(super) fn rows(site: &Site, rows: &mut Desired) {
    rows.put(Table::PortGroup, GUARDED, Want::default().with("name", GUARDED));
    for (key, direction, priority, matches, action) in [
        ("drop-in", Direction::Ingress, DROP, format!("outport == @{GUARDED} && ip"), "drop"),
        ("drop-out", Direction::Egress, DROP, format!("inport == @{GUARDED} && ip"), "drop"),
        // OVN answers these itself; without rules they would not come so far (RFC 2131, RFC 8415). Answers pass by a
        // flow of OVN's own, as do neighbour discovery and router advertisements.
        (
            "dhcp4",
            Direction::Egress,
            ALLOW,
            format!("inport == @{GUARDED} && ip4 && udp.src == 68 && udp.dst == 67"),
            "allow",
        ),
        (
            "dhcp6",
            Direction::Egress,
            ALLOW,
            format!("inport == @{GUARDED} && ip6 && udp.src == 546 && udp.dst == 547"),
            "allow",
        ),
    ] {
        acl(GUARDED, key, direction, priority, &matches, action, rows);
    }
    for (id, group) in &site.groups {
        let name = name(*id);
        rows.put(Table::PortGroup, &*name, Want::default().with("name", &*name));
        for rule in &group.rules {
            let matches = matching(&name, rule);
            // The match is the rule: a rule that changed is another row.
            acl(&name, &matches, rule.direction, ALLOW, &matches, "allow-related", rows);
        }
    }
    for (id, port) in site.ports.iter().filter(|(_, port)| port.guarded) {
        let groups =
            port.groups.iter().filter(|group| site.groups.contains_key(group)).map(|group| name(*group));
        for group in groups.chain([GUARDED.to_owned()]) {
            rows.refer((Table::PortGroup, &group), "ports", (Table::SwitchPort, &id.to_string()));
        }
    }
}

/// A port group's name is an identifier of OVN's language of matches, so without `-`.
fn name(id: SecurityGroupId) -> String {
    format!("sg_{}", id.0.simple())
}

fn acl(
    group: &str,
    key: &str,
    direction: Direction,
    priority: i64,
    matches: &str,
    action: &str,
    rows: &mut Desired,
) {
    let direction = match direction {
        Direction::Ingress => "to-lport",
        Direction::Egress => "from-lport",
    };
    let key = format!("{group}/{key}");
    rows.put(
        Table::Acl,
        &*key,
        Want::default()
            .with("direction", direction)
            .with("priority", priority)
            .with("match", matches)
            .with("action", action),
    );
    rows.refer((Table::PortGroup, group), "acls", (Table::Acl, &key));
}

/// A rule in OVN's language of matches (`ovn-sb(5)`, table `Logical_Flow`).
fn matching(group: &str, rule: &Rule) -> String {
    let (port, end) = match rule.direction {
        Direction::Ingress => ("outport", "src"),
        Direction::Egress => ("inport", "dst"),
    };
    let (ip, icmp) = match rule.family {
        Family::V4 => ("ip4", "icmp4"),
        Family::V6 => ("ip6", "icmp6"),
    };
    let mut text = format!("{port} == @{group} && {ip}");
    // Writing to a text does not fail.
    let _ = match rule.remote {
        Remote::Any => Ok(()),
        Remote::Net(cidr) => write!(text, " && {ip}.{end} == {cidr}"),
        // OVN keeps a set of the addresses of each port group's ports, by family.
        Remote::Group(other) => write!(text, " && {ip}.{end} == ${}_{ip}", name(other)),
    };
    let _ = match rule.traffic {
        Traffic::Any => Ok(()),
        Traffic::Icmp => write!(text, " && {icmp}"),
        Traffic::Tcp(ports) => write!(text, " && tcp && {} <= tcp.dst <= {}", ports.first, ports.last),
        Traffic::Udp(ports) => write!(text, " && udp && {} <= udp.dst <= {}", ports.first, ports.last),
        Traffic::Number(number) => write!(text, " && ip.proto == {number}"),
    };
    text
}
