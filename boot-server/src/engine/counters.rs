//! What ports and volumes carried, as their DPUs say: in memory alone, of those that were heard of lately.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::counters::{Counters, DiskCounters, PortCounters};
use protocol::dpu::Desired;
use protocol::{DpuId, PortId, Timestamp, VolumeId};

use boot_server_core::volume::Volume;

use super::dpus::Known;
use super::{Engine, lock, now};
use crate::store::overlay::{Plug, Row};

/// What a DPU said last of what it carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// When it said so.
    pub at: Timestamp,
    /// Of its ports.
    pub ports: BTreeMap<PortId, PortCounters>,
    /// Of its volumes.
    pub volumes: BTreeMap<VolumeId, DiskCounters>,
}

impl Counted {
    /// What a DPU says, of what it is to have: of the ports and volumes of others it can tell nothing.
    fn of(said: Counters, desired: &Desired, at: Timestamp) -> Self {
        let ports = said.ports.into_iter().filter(|of| desired.ports.iter().any(|port| port.port == of.port));
        let volumes = said
            .volumes
            .into_iter()
            .filter(|of| desired.volumes.iter().any(|volume| volume.name == of.name))
            .filter_map(|of| Some((of.name.as_str().parse().ok()?, of.disk)));
        Self { at, ports: ports.map(|of| (of.port, of)).collect(), volumes: volumes.collect() }
    }
}

impl Engine {
    /// Keeps what a DPU says of what it carried.
    pub(super) fn count_dpu(&self, id: DpuId, said: Counters) {
        if let Some(known) = lock(&self.0.dpus.all).get_mut(&id)
            && let Some(desired) = &known.desired
        {
            known.counted = Some(Arc::new(Counted::of(said, desired, now())));
        }
    }

    /// What a volume did since its exporter was started, and when that was said.
    pub fn volume_counters(&self, volume: &Volume) -> Option<(Timestamp, DiskCounters)> {
        let counted = self.counted(|known| Some(known.dpu.id) == volume.presenter())?;
        Some((counted.at, *counted.volumes.get(&volume.id)?))
    }

    /// What a port carried since its switch was started, and when that was said.
    pub fn port_counters(&self, port: &Row<Plug>) -> Option<(Timestamp, PortCounters)> {
        port.value.server?;
        let counted = self.counted(|known| Some(&known.dpu.name) == port.value.port.chassis.as_ref())?;
        Some((counted.at, counted.ports.get(&port.id)?.clone()))
    }

    /// What the one DPU said, unless nothing was heard of it for some time.
    fn counted(&self, is: impl Fn(&Known) -> bool) -> Option<Arc<Counted>> {
        let all = lock(&self.0.dpus.all);
        let known = all.values().find(|known| is(known))?;
        known.counted.clone().filter(|_| !self.dpu_is_silent(known))
    }
}

#[cfg(test)]
mod tests {
    use protocol::counters::VolumeCounters;

    use super::*;

    #[test]
    fn a_dpu_tells_nothing_of_what_is_not_its_own() {
        let desired: Desired =
            serde_json::from_str(include_str!("../../../protocol/src/dpu.v1.json")).unwrap();
        let mut desired = Desired { volumes: desired.volumes[..1].to_vec(), ..desired };
        let own = VolumeId(uuid::Uuid::from_u128(7));
        desired.volumes[0].name = own.to_string().parse().unwrap();
        let port = |port| PortCounters { port, from_host: Default::default(), to_host: Default::default() };
        let volume = |id: VolumeId| VolumeCounters {
            name: id.to_string().parse().unwrap(),
            disk: DiskCounters { errors: 3, ..DiskCounters::default() },
        };
        let said = Counters {
            ports: vec![port(desired.ports[0].port), port(PortId(uuid::Uuid::from_u128(99)))],
            volumes: vec![volume(own), volume(VolumeId(uuid::Uuid::from_u128(8)))],
        };
        let counted = Counted::of(said, &desired, Timestamp(5));
        assert_eq!(counted.ports.keys().collect::<Vec<_>>(), [&desired.ports[0].port]);
        assert_eq!(
            counted.volumes.into_iter().map(|(id, of)| (id, of.errors)).collect::<Vec<_>>(),
            [(own, 3)]
        );
    }
}
