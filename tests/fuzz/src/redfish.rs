//! What a Redfish controller may answer: resources, collections, tasks, lines of a log, refusals; an input is one body.

use bmc::redfish::dissect;

/// Longest text that is shown or stored, in characters: what the driver cuts texts to, and some words of its own around it.
const TEXT_MAX: usize = 1000;

/// Whatever comes, nothing leads to another place, and nothing that is shown is long.
pub fn run(data: &[u8]) {
    let Ok(found) = dissect(data) else { return };
    for link in &found.links {
        assert!(link.starts_with('/') && !link.starts_with("//"), "a link leads elsewhere: {link}");
    }
    for text in &found.texts {
        assert!(text.chars().count() <= TEXT_MAX, "a text of {} characters", text.chars().count());
    }
    assert!(found.percent.is_none_or(|percent| percent <= 100));
}
