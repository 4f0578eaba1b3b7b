//! All that serves volumes to the host, and the busses that it has them by.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dpu_agent_core::bus::{Buses, Found};
use dpu_agent_core::exporter::{Exporters, Held, Life, Started, Then, leads_alike};
use jsonrpc::Address;
use protocol::Timestamp;
use protocol::counters::VolumeCounters;
use protocol::dpu::{Desired, Exporter, Name, Volume, VolumeSeen};

use crate::bus::{BusError, HostBus, Qmp};
use crate::exporters::{ExporterError, Processes, Programs, Serve};
use crate::files::FileError;
use crate::service::{Kind, Service};

/// What serves volumes.
#[derive(Debug, Clone, clap::Args)]
pub struct Servers {
    /// Programs that are run.
    #[command(flatten)]
    pub programs: Programs,
    /// JSON-RPC of an SPDK target that runs: it serves volumes with the exporter `spdk`. Their sockets lie in its directory (`-S`).
    #[arg(long, value_name = "ADDRESS")]
    spdk: Option<Address>,
    /// JSON-RPC of NVIDIA's SNAP-4, such as unix:/var/tmp/spdk.sock: it serves volumes with the exporter `snap`.
    #[arg(long, value_name = "ADDRESS")]
    snap: Option<Address>,
    /// QEMU's monitor (QMP) of a host that is a virtual machine: volumes are plugged into it and out of it while it runs.
    /// It needs a free pcie-root-port for each.
    #[arg(long, value_name = "SOCKET")]
    host_qmp: Option<PathBuf>,
}

/// All that serves, and what the busses have.
#[derive(Debug)]
pub struct Disks {
    processes: Processes,
    spdk: Service,
    snap: Service,
    host: Option<Qmp>,
    buses: Buses,
}

impl Disks {
    /// With what the files know of.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn load(
        dir: &Path,
        servers: &Servers,
        quiet: Duration,
        now: Timestamp,
    ) -> Result<Self, ExporterError> {
        Ok(Self {
            processes: Processes::load(dir, &servers.programs, quiet, now)?,
            spdk: Service::load(Kind::Spdk, servers.spdk.clone(), dir, quiet, now)?,
            snap: Service::load(Kind::Snap, servers.snap.clone(), dir, quiet, now)?,
            host: servers.host_qmp.clone().map(Qmp::new),
            buses: Buses::default(),
        })
    }

    /// Looks at all.
    pub async fn look(&mut self, now: Timestamp) -> Exporters {
        // Busses first: an exporter that is seen free afterwards was not plugged in meanwhile by anybody but us.
        if let Some(host) = &mut self.host {
            self.buses.host = host.look(now).await;
        }
        let mut exporters = Serve::look(&mut self.processes, now).await;
        exporters.extend(Serve::look(&mut self.spdk, now).await);
        exporters.extend(Serve::look(&mut self.snap, now).await);
        self.buses.snap = HostBus::look(&mut self.snap, now).await;
        exporters
    }

    /// What the busses had at the last look.
    pub fn buses(&self) -> &Buses {
        &self.buses
    }

    /// Serves a volume.
    ///
    /// # Errors
    /// [`ExporterError`].
    pub async fn start(&mut self, volume: &Volume, now: Timestamp) -> Result<(), ExporterError> {
        match volume.exporter {
            Exporter::Spdk { .. } => self.spdk.start(volume, now).await,
            Exporter::Snap { .. } => self.snap.start(volume, now).await,
            Exporter::Blk { .. } | Exporter::Qsd { .. } => {
                Serve::start(&mut self.processes, volume, now).await
            }
        }
    }

    /// Ends what serves a volume, whoever it is.
    ///
    /// # Errors
    /// [`ExporterError`].
    pub async fn stop(&mut self, name: &Name, pid: Option<u32>, then: Then) -> Result<(), ExporterError> {
        Serve::stop(&mut self.processes, name, pid, then).await?;
        self.spdk.stop(name, pid, then).await?;
        self.snap.stop(name, pid, then).await
    }

    /// Forgets what is remembered of volumes that nobody wants and nobody serves.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn forget(&mut self, desired: &Desired, exporters: &Exporters) -> Result<(), FileError> {
        self.processes.forget(desired, exporters)
    }

    /// Sets the limits of a volume that is served.
    ///
    /// # Errors
    /// [`ExporterError`].
    pub async fn limit(&mut self, volume: &Volume) -> Result<(), ExporterError> {
        match volume.exporter {
            Exporter::Spdk { .. } => self.spdk.limit(volume).await,
            Exporter::Snap { .. } => self.snap.limit(volume).await,
            Exporter::Blk { .. } | Exporter::Qsd { .. } => Serve::limit(&mut self.processes, volume).await,
        }
    }

    /// What volumes did so far.
    pub async fn counters(&mut self) -> Vec<VolumeCounters> {
        let mut all = Serve::counters(&mut self.processes).await;
        all.extend(self.spdk.counters().await);
        all.extend(self.snap.counters().await);
        all.into_iter().map(|(name, disk)| VolumeCounters { name, disk }).collect()
    }

    /// Plugs a volume in.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn plug(&mut self, volume: &Volume, now: Timestamp) -> Result<(), BusError> {
        match (&volume.exporter, &mut self.host) {
            (Exporter::Snap { .. }, _) => self.snap.plug(volume, now).await,
            (_, Some(host)) => host.plug(volume, now).await,
            (_, None) => Ok(()),
        }
    }

    /// Asks the host to let go of a volume.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn unplug(&mut self, name: &Name, now: Timestamp) -> Result<(), BusError> {
        let is_snap = self.buses.snap.as_ref().is_some_and(|bus| bus.of(name).is_some());
        match &mut self.host {
            _ if is_snap => self.snap.unplug(name, now).await,
            Some(host) => host.unplug(name, now).await,
            None => Ok(()),
        }
    }

    /// Volumes that are not served yet, with what their exporters said last.
    pub fn waits(&self, exporters: &Exporters) -> Vec<String> {
        let opening = |started: &Started| {
            let waits = |held| matches!(held, Held::Opening | Held::Filling);
            matches!(started.life, Life::Runs { held, .. } if waits(held))
                || matches!(started.life, Life::Dead { .. })
        };
        let waits = exporters.iter().filter(|(_, started)| opening(started)).filter_map(|(name, _)| {
            Some(format!("volume {name} is not served yet: {}", self.processes.why_not(name)?))
        });
        waits.collect()
    }

    /// What is reported of each. One that gets at its bytes in a way that is not desired any more does not serve them.
    pub fn seen(&self, exporters: &Exporters, desired: Option<&Desired>) -> Vec<VolumeSeen> {
        let seen = exporters.iter().map(|(name, started)| {
            let want = desired.and_then(|state| state.volumes.iter().find(|volume| volume.name == *name));
            let serves = want.is_none_or(|want| leads_alike(want, &started.volume));
            let (pid, in_use) = match started.life {
                Life::Runs { held, .. } if !serves => (None, held.in_use()),
                Life::Runs { pid, held } => (pid, held.in_use()),
                Life::Dead { .. } => (None, false),
            };
            let bus = self.buses.of(&started.volume);
            let plugged = bus.map(|bus| bus.of(name) == Some(Found::Plugged));
            let restarts = match started.volume.exporter {
                Exporter::Spdk { .. } => self.spdk.restarts(name),
                Exporter::Snap { .. } => self.snap.restarts(name),
                Exporter::Blk { .. } | Exporter::Qsd { .. } => self.processes.restarts(name),
            };
            let instant = Serve::instant(&self.processes, name).cloned().map(Box::new);
            VolumeSeen { name: name.clone(), pid, in_use, restarts, plugged, instant }
        });
        seen.collect()
    }
}
