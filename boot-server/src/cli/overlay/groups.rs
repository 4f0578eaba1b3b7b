//! `billet security-group …`.

use clap::Subcommand;

use super::super::again::AgainArgs;
use super::{Collection, Failure, Verbs};
use crate::http::api::network_requests::{SecurityGroupChangeRequest, SecurityGroupRequest};
use crate::view::networks::{SecurityGroupView, SecurityRule, TrafficDirection};

/// How rules are written.
const RULE: &str = "DIRECTION[,PROTOCOL[,PORTS[,WHOM]]]";

/// What can be done with security groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Security groups of the project
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One security group with its rules
    Show {
        /// Name or id
        group: String,
    },
    /// Make a security group
    Create {
        /// Name
        group: String,
        /// What is allowed, such as ingress,tcp,22,10.0.0.0/8 or egress or ingress,any,-,web; again for more
        #[arg(long, value_parser = rule, value_name = RULE)]
        rule: Vec<SecurityRule>,
    },
    /// Change a security group: what is not given stays; it holds at once
    Set {
        /// Name or id
        group: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// What is allowed, in place of all rules that there are; again for more
        #[arg(long, value_parser = rule, value_name = RULE)]
        rule: Option<Vec<SecurityRule>>,
        /// Nothing is allowed any more
        #[arg(long, conflicts_with = "rule")]
        no_rules: bool,
    },
    /// Remove a security group that no port has
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        group: String,
    },
}

impl Verbs for GroupCommand {
    const COLLECTION: &'static str = "security-groups";

    fn run(self, of: &Collection<'_>) -> Result<(), Failure> {
        match self {
            Self::List(again) => of.list::<SecurityGroupView>(again, ""),
            Self::Show { group } => of.show::<SecurityGroupView>(&group),
            Self::Create { group, rule } => {
                of.create::<SecurityGroupView>(&SecurityGroupRequest { name: group, rules: rule })
            }
            Self::Set { group, name, rule, no_rules } => {
                let rules = if no_rules { Some(Vec::new()) } else { rule };
                of.change::<SecurityGroupView>(&group, &SecurityGroupChangeRequest { name, rules })
            }
            Self::Delete { group } => of.delete(&group),
        }
    }
}

/// `ingress,tcp,22,10.0.0.0/8`; what is `-` or left out is not given.
fn rule(text: &str) -> Result<SecurityRule, String> {
    let mut parts = text.split(',').map(|part| Some(part.to_owned()).filter(|p| !p.is_empty() && p != "-"));
    let direction = match parts.next().flatten().as_deref() {
        Some("ingress") => TrafficDirection::Ingress,
        Some("egress") => TrafficDirection::Egress,
        _ => return Err(format!("a rule begins with ingress or egress: {RULE}")),
    };
    let (protocol, ports, whom) = (parts.next().flatten(), parts.next().flatten(), parts.next().flatten());
    if parts.next().is_some() {
        return Err(format!("a rule has no more than four parts: {RULE}"));
    }
    let is_cidr = whom.as_ref().is_some_and(|whom| whom.contains('/'));
    let (cidr, group) = if is_cidr { (whom, None) } else { (None, whom) };
    Ok(SecurityRule { direction, family: None, protocol, ports, cidr, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_four_parts_of_which_three_may_be_left_out() {
        let ssh = rule("ingress,tcp,22,10.0.0.0/8").unwrap();
        assert_eq!(
            (ssh.protocol.as_deref(), ssh.ports.as_deref(), ssh.cidr.as_deref()),
            (Some("tcp"), Some("22"), Some("10.0.0.0/8"))
        );
        let web = rule("ingress,any,-,web").unwrap();
        assert_eq!((web.ports, web.group.as_deref(), web.cidr), (None, Some("web"), None));
        assert_eq!(rule("egress").unwrap().direction, TrafficDirection::Egress);
        assert!(rule("in").is_err() && rule("ingress,tcp,22,web,more").is_err());
    }
}
