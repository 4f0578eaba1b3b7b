//! A machine behind a DPU: its NICs are taps that the DPU's switch has, its disks are vhost-user sockets of the DPU, and the DPU
//! has a control socket of its own to plug disks while the machine runs. Which disks there are is asked at each power-on.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use super::machine::text;

/// Places for disks on the machine's bus, those of its start included.
const PLACES: usize = 8;

/// A disk by vhost-user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketDisk {
    /// Names it on the machine's bus; begins with a letter.
    pub id: String,
    /// Where its exporter listens.
    pub socket: PathBuf,
    /// The machine boots from it.
    pub boot: bool,
}

/// Says which disks there are.
pub type Disks = Arc<dyn Fn() -> Result<Vec<SocketDisk>> + Send + Sync>;

/// The DPU's side of a machine.
#[derive(Clone)]
pub struct Behind {
    /// Taps in the machine's namespace, one for each NIC.
    pub representors: Vec<String>,
    /// What QEMU is started by: a program and arguments, before its own.
    pub prefix: Vec<String>,
    /// QEMU's control socket for the DPU.
    pub monitor: PathBuf,
    /// Disks at power-on.
    pub disks: Disks,
}

impl std::fmt::Debug for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behind").field("representors", &self.representors).finish_non_exhaustive()
    }
}

impl Behind {
    /// QEMU's arguments for a machine with `memory` MiB and these disks, each with its place in the boot order.
    ///
    /// # Errors
    /// Where a path is not UTF-8, or the machine has more disks than places.
    pub(super) fn arguments(
        &self,
        memory: u32,
        disks: &[(SocketDisk, Option<usize>)],
    ) -> Result<Vec<String>> {
        let mut words: Vec<String> = Vec::new();
        let mut add = |more: [String; 2]| words.extend(more);
        // Exporters map the guest's memory.
        add(["-object".into(), format!("memory-backend-memfd,id=m0,size={memory}M,share=on")]);
        add(["-machine".into(), "memory-backend=m0".into()]);
        add(["-qmp".into(), format!("unix:{},server=on,wait=off", text(&self.monitor)?)]);
        for place in 1..=PLACES {
            add(["-device".into(), format!("pcie-root-port,id=rp{place},chassis={place},slot={place}")]);
        }
        anyhow::ensure!(disks.len() <= PLACES, "{} disks for {PLACES} places", disks.len());
        for (place, (disk, index)) in disks.iter().enumerate() {
            let (id, socket) = (&disk.id, text(&disk.socket)?);
            // The exporter may be away for a moment.
            add(["-chardev".into(), format!("socket,id={id}-chardev,path={socket},reconnect=1")]);
            let boot = index.map_or_else(String::new, |index| format!(",bootindex={index}"));
            let device = format!("vhost-user-blk-pci,id={id},chardev={id}-chardev,bus=rp{}{boot}", place + 1);
            add(["-device".into(), device]);
        }
        Ok(words)
    }
}
