//! One connection of a frontend: the vhost-user protocol as far as a virtio-blk disk needs it. The frontend hands over the
//! guest's memory and the places of the queues; we start and stop `ring`s. Everything it sends is checked, but it is trusted
//! as far as the memory goes that it shares.
//!
//! `vhost-user-backend` would do this too, but cannot track requests under way (decision 34).

use std::fs::File;
use std::io;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vm_memory::{GuestAddress, GuestRegionMmap};

use crate::config::{self, QUEUE_SIZE_MAX, QUEUES_MAX, feature};
use crate::device::Device;
use crate::inflight::Region;
use crate::ring::{Memory, Place, Ring, SharedMemory};

/// A frontend's state.
pub struct Session {
    device: Device,
    memory: SharedMemory,
    mappings: Vec<Mapping>,
    features: u64,
    queues: Vec<QueueState>,
    region: Option<Region>,
}

/// A piece of the guest's memory, as the frontend sees it and as the guest does.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    frontend: u64,
    guest: u64,
    size: u64,
}

#[derive(Default)]
struct QueueState {
    place: Option<Place>,
    size: u16,
    base: u16,
    kick: Option<File>,
    call: Option<File>,
    enabled: bool,
    ring: Option<Ring>,
}

impl Session {
    /// A new connection.
    pub fn new(device: Device) -> Self {
        let queues = (0..QUEUES_MAX).map(|_| QueueState::default()).collect();
        let memory = SharedMemory::new(Memory::new());
        Self { device, memory, mappings: Vec::new(), features: 0, queues, region: None }
    }

    fn queue(&mut self, index: u32) -> Result<&mut QueueState> {
        self.queues.get_mut(index as usize).ok_or(Error::InvalidParam)
    }

    fn guest_address(&self, frontend: u64) -> Result<u64> {
        let inside = |m: &&Mapping| frontend.checked_sub(m.frontend).is_some_and(|offset| offset < m.size);
        let mapping = self.mappings.iter().find(inside).ok_or(Error::InvalidParam)?;
        mapping.guest.checked_add(frontend - mapping.frontend).ok_or(Error::InvalidParam)
    }

    /// Starts the queue where everything that it needs is known.
    fn start(&mut self, index: u32) -> Result<()> {
        let region = self.region()?;
        let (device, memory) = (self.device.clone(), self.memory.clone());
        let event_idx = self.features & feature::EVENT_IDX != 0;
        let queue = self.queue(index)?;
        let (Some(place), Some(kick), true, None) =
            (queue.place, &queue.kick, queue.enabled, queue.ring.as_ref())
        else {
            return Ok(());
        };
        let index = u16::try_from(index).map_err(|_| Error::InvalidParam)?;
        let inflight = region.queue(index).ok_or(Error::InvalidParam)?;
        let (kick, call) = (kick.try_clone().map_err(failed)?, clone(queue.call.as_ref())?);
        let place = Place { size: queue.size, base: queue.base, event_idx, ..place };
        let ring = Ring::start(index, device, memory, place, inflight, kick, call);
        queue.ring = Some(ring.map_err(|e| failed(io::Error::other(e)))?);
        Ok(())
    }

    fn stop(&mut self, index: u32) -> Result<u16> {
        let queue = self.queue(index)?;
        if let Some(ring) = queue.ring.take() {
            queue.base = ring.stop();
        }
        Ok(queue.base)
    }

    fn stop_all(&mut self) {
        for queue in &mut self.queues {
            if let Some(ring) = queue.ring.take() {
                queue.base = ring.stop();
            }
        }
    }

    /// The memory of requests under way: the frontend's, or our own where it keeps none.
    fn region(&mut self) -> Result<Region> {
        if let Some(region) = &self.region {
            return Ok(region.clone());
        }
        let (region, _) = Region::create(QUEUES_MAX, QUEUE_SIZE_MAX).map_err(failed)?;
        Ok(self.region.insert(region).clone())
    }
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.stop_all();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.stop_all();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(config::features(self.device.disk().read_only))
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.get_features()? != 0 {
            return Err(Error::InvalidParam);
        }
        self.features = features;
        // Without the protocol's own features there is no message that enables queues.
        if features & feature::PROTOCOL == 0 {
            for index in 0..u32::from(QUEUES_MAX) {
                self.set_vring_enable(index, true)?;
            }
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        table: &[VhostUserMemoryRegion],
        files: Vec<File>,
        postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        if postcopy.is_some() {
            return unsupported();
        }
        let (mut regions, mut mappings) = (Vec::new(), Vec::new());
        for (region, file) in table.iter().zip(files) {
            let mapped =
                GuestRegionMmap::new(region.mmap_region(file)?, GuestAddress(region.guest_phys_addr));
            regions.push(mapped.ok_or(Error::InvalidParam)?);
            mappings.push(Mapping {
                frontend: region.user_addr,
                guest: region.guest_phys_addr,
                size: region.memory_size,
            });
        }
        let memory = Memory::from_regions(regions).map_err(|e| failed(io::Error::other(e)))?;
        self.memory.lock().map_err(|_| Error::BackendInternalError)?.replace(memory);
        self.mappings = mappings;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let size = u16::try_from(num).ok().filter(|n| n.is_power_of_two() && *n <= QUEUE_SIZE_MAX);
        self.queue(index)?.size = size.ok_or(Error::InvalidParam)?;
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> Result<()> {
        let place = Place {
            descriptors: self.guest_address(descriptor)?,
            used: self.guest_address(used)?,
            available: self.guest_address(available)?,
            ..Place::default()
        };
        self.queue(index)?.place = Some(place);
        self.start(index)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.queue(index)?.base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let base = self.stop(index)?;
        let queue = self.queue(index)?;
        (queue.kick, queue.call) = (None, None);
        Ok(VhostUserVringState::new(index, u32::from(base)))
    }

    fn set_vring_kick(&mut self, index: u8, kick: Option<File>) -> Result<()> {
        self.stop(u32::from(index))?;
        self.queue(u32::from(index))?.kick = kick;
        self.start(u32::from(index))
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> Result<()> {
        let queue = self.queue(u32::from(index))?;
        if let Some(ring) = &queue.ring {
            ring.set_call(clone(call.as_ref())?);
        }
        queue.call = call;
        Ok(())
    }

    fn set_vring_err(&mut self, _: u8, _: Option<File>) -> Result<()> {
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD)
    }

    fn set_protocol_features(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(u64::from(QUEUES_MAX))
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.queue(index)?.enabled = enable;
        if enable { self.start(index) } else { self.stop(index).map(drop) }
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        config::space(self.device.disk().size, offset, size).ok_or(Error::InvalidParam)
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        unsupported()
    }

    fn get_inflight_fd(&mut self, wanted: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let (queues, size) = (wanted.num_queues, wanted.queue_size);
        let (region, file) = Region::create(queues, size).map_err(failed)?;
        self.region = Some(region);
        let bytes = Region::size(queues, size) as u64;
        Ok((VhostUserInflight::new(bytes, 0, queues, size), file))
    }

    fn set_inflight_fd(&mut self, given: &VhostUserInflight, file: File) -> Result<()> {
        let region = Region::open(file, given.mmap_offset, given.num_queues, given.queue_size);
        self.region = Some(region.map_err(failed)?);
        Ok(())
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        unsupported()
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        unsupported()
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        unsupported()
    }

    fn add_mem_region(
        &mut self,
        _: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        unsupported()
    }

    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        unsupported()
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        unsupported()
    }

    fn check_device_state(&mut self) -> Result<()> {
        unsupported()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        unsupported()
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        unsupported()
    }
}

fn clone(file: Option<&File>) -> Result<Option<File>> {
    file.map(|f| f.try_clone().map_err(failed)).transpose()
}

fn failed(cause: io::Error) -> Error {
    Error::ReqHandlerError(cause)
}

fn unsupported<T>() -> Result<T> {
    Err(Error::InvalidOperation("not offered by this disk"))
}
