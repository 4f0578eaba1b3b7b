//! Layers of instant volumes that are to go: only those that the state names, and only once nobody serves them. A layer that no
//! state names stays where it is: what a row of the server's that is lost could cost is disk space, never data.

use protocol::dpu::Discard;

use crate::check::State;
use crate::exporter::{Exporters, claims};

/// What of the state's layers may be removed now, and what is in the way of the others.
pub fn due<'a>(state: &'a State, exporters: &Exporters) -> (Vec<&'a Discard>, Vec<String>) {
    let is_served = |one: &&Discard| {
        exporters
            .iter()
            .any(|(name, started)| *name == one.name || claims(&started.volume).contains(&one.layer))
    };
    let (served, free): (Vec<_>, Vec<_>) = state.desired().discard.iter().partition(is_served);
    let words = |one: &Discard| format!("the layer of volume {} is removed once nobody has it", one.name);
    (free, served.into_iter().map(words).collect())
}

#[cfg(test)]
mod tests {
    use protocol::dpu::{Desired, Volume};

    use super::*;
    use crate::exporter::{Held, Life, Started};

    #[test]
    fn a_layer_that_is_served_by_whatever_name_stays() {
        let golden = include_str!("../../../protocol/src/dpu-discard.v1.json");
        let desired: Desired = serde_json::from_str(golden).unwrap();
        let state = State::check(desired).unwrap();
        assert_eq!(due(&state, &Exporters::new()).0.len(), 1);
        let all: Desired = serde_json::from_str(include_str!("../../../protocol/src/dpu.v1.json")).unwrap();
        let boot = all.volumes[0].clone();
        for name in ["boot", "other"] {
            let volume = Volume { name: name.parse().unwrap(), ..boot.clone() };
            for life in [Life::Runs { pid: None, held: Held::Free }, Life::Dead { due: true, lived: true }] {
                let started = Started { volume: volume.clone(), life };
                let exporters = Exporters::from([(volume.name.clone(), started)]);
                let (free, problems) = due(&state, &exporters);
                assert!(free.is_empty() && problems[0].contains("volume boot"), "{name}: {problems:?}");
            }
        }
    }
}
