//! What the packet filter drops, read from `nft list ruleset`. It is a reading, not a simulation: only chains at the input
//! hook count, only the plain forms of rules are understood, and where a rule is not understood nothing is claimed of it.

use super::Port;

/// Ports that a chain at the input hook drops, by its policy or by a plain rule.
pub fn blocked(rules: &str, interface: &str, ports: &[Port]) -> Vec<Port> {
    let chains: Vec<Vec<&str>> = input_chains(rules);
    ports.iter().copied().filter(|port| chains.iter().any(|chain| drops(chain, interface, *port))).collect()
}

/// The lines of each chain at the input hook.
fn input_chains(rules: &str) -> Vec<Vec<&str>> {
    let mut chains = Vec::new();
    let mut chain: Option<Vec<&str>> = None;
    for line in rules.lines().map(str::trim) {
        if line.starts_with("chain ") {
            chain = Some(Vec::new());
        } else if line == "}" {
            chains.extend(chain.take().filter(|c| c.first().is_some_and(|l| l.contains("hook input"))));
        } else if let Some(chain) = &mut chain {
            chain.push(line);
        }
    }
    chains
}

/// True where the chain drops a new packet to `port` from `interface`. A rule that jumps elsewhere, or that has conditions
/// that are not known here, may accept it: then nothing is said.
fn drops(chain: &[&str], interface: &str, port: Port) -> bool {
    let [head, rules @ ..] = chain else { return false };
    for rule in rules {
        let words: Vec<&str> = rule.split(['{', '}', ',', '"', ' ']).filter(|w| !w.is_empty()).collect();
        if words.iter().any(|w| ["jump", "goto", "vmap"].contains(w)) {
            return false;
        }
        let accepts = words.contains(&"accept");
        if !accepts && !words.contains(&"drop") && !words.contains(&"reject") {
            continue;
        }
        match matches(&words, interface, port) {
            Some(false) => {}
            Some(true) => return !accepts,
            None if accepts => return false,
            None => {}
        }
    }
    head.contains("policy drop")
}

/// Whether a rule is for this port; `None` where it depends on something else too.
fn matches(words: &[&str], interface: &str, port: Port) -> Option<bool> {
    let verdict = words.iter().position(|w| ["accept", "drop", "reject", "counter"].contains(w))?;
    let mut rest = &words[..verdict];
    while let [key, ..] = rest {
        let conditions = |from: usize| {
            let known = ["iif", "iifname", "udp", "tcp", "ct", "ip", "ip6", "meta", "th"];
            let end = rest[from..].iter().position(|w| known.contains(w)).map_or(rest.len(), |n| from + n);
            (&rest[from..end], &rest[end..])
        };
        let (is, after) = match (*key, rest.get(1).copied()) {
            ("iif" | "iifname", Some(_)) => {
                let (names, after) = conditions(1);
                (names.contains(&interface), after)
            }
            ("udp" | "tcp", Some("dport")) => {
                let (numbers, after) = conditions(2);
                (*key == port.protocol && numbers.iter().any(|n| holds(n, port.number)), after)
            }
            // New packets are in question.
            ("ct", Some("state")) => {
                let (states, after) = conditions(2);
                (states.contains(&"new"), after)
            }
            _ => return None,
        };
        if !is {
            return Some(false);
        }
        rest = after;
    }
    Some(true)
}

fn holds(number: &str, port: u16) -> bool {
    let one = |text: &str| match text {
        "bootps" => Some(67),
        "tftp" => Some(69),
        "http-alt" => Some(8080),
        text => text.parse::<u16>().ok(),
    };
    match number.split_once('-') {
        Some((first, last)) => {
            matches!((one(first), one(last)), (Some(first), Some(last)) if (first..=last).contains(&port))
        }
        None => one(number) == Some(port),
    }
}
