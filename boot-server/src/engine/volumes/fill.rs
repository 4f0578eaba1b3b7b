//! Images that DPUs write. That one is to be written is in the node's run, as is that it was; so a DPU is told as long as it has to be, and
//! what its OS is told is nowhere else.
//!
//! ```text
//!  empty volume granted ─▶ DPU told of the image ─▶ writes ─▶ says that it has ─▶ noted with the run ─▶ DPU told of none ─▶ switched on
//! ```

use boot_server_core::dpu;
use boot_server_core::node::{Node, Run};
use boot_server_core::volume::{Imaging, Source, Volume};
use protocol::dpu::Fill;

use super::bad;
use crate::engine::dpus::Known;
use crate::engine::{Engine, EngineError};

impl Engine {
    /// What a DPU is to write on this volume before the machine has it.
    pub(in crate::engine) fn fill(&self, node: &Node, volume: &Volume, known: &Known) -> Option<Fill> {
        node.state.run()?.fills().filter(|id| *id == volume.id)?;
        let Source::Os { image, .. } = &volume.source else { return None };
        let (config, grow_root) = super::drive::target_spec(node, volume.id)?;
        Some(Fill { image: *image, store: self.store_url(known), config, grow_root })
    }

    /// Whether a DPU is to write an image on a volume, or is at it.
    ///
    /// # Errors
    /// Where the store fails.
    pub(in crate::engine) async fn is_unwritten(&self, volume: &Volume) -> Result<bool, EngineError> {
        let node = self.node_of(volume).await?;
        Ok(node.is_some_and(|node| node.state.run().and_then(Run::fills) == Some(volume.id)))
    }

    /// Whether its DPU has written it, as it says of the newest state.
    pub(super) fn is_filled(&self, volume: &Volume) -> bool {
        let known = volume.filler().and_then(|dpu| self.known_dpu(dpu));
        known.is_some_and(|known| {
            known.desired.is_some_and(|state| dpu::filled(known.observed.as_ref(), &state, volume))
        })
    }

    /// Refuses who cannot write an image on volumes of a type.
    pub(super) fn check_imaging(&self, kind: &str, imaging: Imaging) -> Result<(), EngineError> {
        let backend = self.backend(kind)?;
        let refused =
            |what: String, hint: &'static str| -> Result<(), EngineError> { Err(bad(what, hint).into()) };
        match imaging {
            Imaging::Agent | Imaging::Dpu if backend.instant().is_some() => refused(
                format!("nothing writes the image to a volume of type {kind}: its DPU serves it as it is"),
                "leave out `imaging`, or take another type (`billet volume types`)",
            ),
            // What serves it on a DPU is SPDK or SNAP, and neither lets anybody but the host write.
            Imaging::Dpu if backend.kind() == ::volume::Kind::NvmeTcp => refused(
                format!(
                    "a DPU cannot write an image to a volume of type {kind}, which it reaches by NVMe/TCP"
                ),
                "take `imaging: server` or `imaging: agent`, or another type (`billet volume types`)",
            ),
            Imaging::Server | Imaging::Agent | Imaging::Dpu => Ok(()),
        }
    }
}
