//! A virtqueue at work: a thread takes requests and carries out those whose bytes are here; the others wait for their
//! chunk and are answered by whoever brings it, so one that waits holds up no other. Dropping a [`Ring`] stops the queue;
//! what waited then is still marked as under way, and is taken up when the queue is started again, by us or a successor.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use crate::chain::Table;
use crate::config::QUEUE_SIZE_MAX;
use crate::device::{Device, Done, Outcome};
use crate::event::{Event, say};
use crate::inflight::Inflight;
use crate::remote::Request;

/// Between two looks at requests of a queue before this one.
const SETTLE: Duration = Duration::from_millis(5);
/// Longest wait for limits before they are looked at again: they may be others by then.
const LIMITED: Duration = Duration::from_millis(200);

/// The guest's memory.
pub type Memory = GuestMemoryMmap<()>;
/// The guest's memory, which the frontend may change under us.
pub type SharedMemory = GuestMemoryAtomic<Memory>;

/// Why a queue cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The rings are not where the frontend said, or say nonsense.
    #[error("the rings cannot be used")]
    Queue(#[from] virtio_queue::Error),
    /// A request cannot be answered.
    #[error(transparent)]
    Chain(#[from] crate::chain::ChainError),
    /// A file of ours.
    #[error("the queue's own files")]
    Io(#[from] std::io::Error),
    /// The lock of a thread that panicked.
    #[error("the queue was stopped")]
    Stopped,
}

impl From<nix::errno::Errno> for RingError {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Where a queue lies in the guest's memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// Descriptors.
    pub size: u16,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
    /// Where the available ring is read from.
    pub base: u16,
    /// The driver knows `VIRTIO_RING_F_EVENT_IDX`.
    pub event_idx: bool,
}

/// A queue at work.
pub struct Ring {
    shared: Arc<Shared>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    index: u16,
    device: Device,
    memory: SharedMemory,
    table: Table,
    /// Held for reading by whoever touches the guest's memory; true where nobody may any more.
    stopped: RwLock<bool>,
    state: Mutex<State>,
}

struct State {
    queue: Queue,
    inflight: Inflight,
    call: Option<File>,
    /// When each descriptor's request was taken.
    begun: Vec<Option<Instant>>,
}

impl Ring {
    /// Starts queue `index` at `place`, with what a predecessor left unanswered first.
    ///
    /// # Errors
    /// Where the rings do not lie in the guest's memory.
    pub fn start(
        index: u16,
        device: Device,
        memory: SharedMemory,
        place: Place,
        mut inflight: Inflight,
        kick: File,
        call: Option<File>,
    ) -> Result<Self, RingError> {
        let mut queue = Queue::new(QUEUE_SIZE_MAX)?;
        queue.try_set_size(place.size)?;
        queue.try_set_desc_table_address(GuestAddress(place.descriptors))?;
        queue.try_set_avail_ring_address(GuestAddress(place.available))?;
        queue.try_set_used_ring_address(GuestAddress(place.used))?;
        queue.set_event_idx(place.event_idx);
        queue.set_ready(true);
        let guest = memory.memory();
        if !queue.is_valid(&*guest) {
            return Err(virtio_queue::Error::QueueNotReady.into());
        }
        let used = queue.used_idx(&*guest, Ordering::Acquire)?.0;
        let left = inflight.begin(used, place.base)?;
        queue.set_next_used(used);
        queue.set_next_avail(left.next_available);
        if !left.heads.is_empty() {
            say(&Event::Replayed { queue: index, requests: left.heads.len() });
        }
        let table = Table { at: GuestAddress(place.descriptors), len: place.size };
        let begun = vec![None; usize::from(place.size)];
        let state = Mutex::new(State { queue, inflight, call, begun });
        let shared = Arc::new(Shared { index, device, memory, table, stopped: RwLock::new(false), state });
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let worker = Worker { shared: shared.clone(), stop: stop.clone(), kick, buffer: Vec::new() };
        let thread = std::thread::Builder::new()
            .name(format!("queue-{index}"))
            .spawn(move || worker.run(&left.heads))?;
        Ok(Self { shared, stop, thread: Some(thread) })
    }

    /// Gives the file that interrupts the guest.
    pub fn set_call(&self, call: Option<File>) {
        self.shared.lock().call = call;
    }

    /// Stops the queue: afterwards the guest's memory is not touched. The index from which the available ring would be
    /// read next.
    pub fn stop(mut self) -> u16 {
        self.end();
        self.shared.lock().queue.next_avail()
    }

    fn end(&mut self) {
        *self.shared.stopped.write().unwrap_or_else(PoisonError::into_inner) = true;
        if let Some(thread) = self.thread.take() {
            let _ = self.stop.write(1);
            let _ = thread.join();
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.end();
    }
}

struct Worker {
    shared: Arc<Shared>,
    stop: Arc<EventFd>,
    kick: File,
    buffer: Vec<u8>,
}

impl Worker {
    fn run(mut self, left: &[u16]) {
        let done = self.work(left);
        match done {
            Ok(()) | Err(RingError::Stopped) => {}
            Err(error) => self.shared.broken(&error),
        }
    }

    fn work(&mut self, left: &[u16]) -> Result<(), RingError> {
        // What a queue before this one submitted may still be under way: the same once more could overtake newer writes.
        let newest = self.shared.device.newest();
        while !left.is_empty() && !self.shared.device.is_settled(newest) {
            drop(self.shared.running()?);
            std::thread::sleep(SETTLE);
        }
        for head in left {
            self.shared.lock().begin(*head);
            self.begin(*head)?;
        }
        // Whoever took the last kick may have died with it, so the ring is looked at before the first.
        loop {
            self.drain()?;
            if self.wait()? {
                return Ok(());
            }
        }
    }

    fn drain(&mut self) -> Result<(), RingError> {
        loop {
            self.shared.quiet(true)?;
            while let Some(head) = self.shared.take()? {
                self.begin(head)?;
            }
            if !self.shared.quiet(false)? {
                return Ok(());
            }
        }
    }

    /// Carries out a request once the limits let it. Those behind it wait with it.
    fn begin(&mut self, head: u16) -> Result<(), RingError> {
        while let Some(wait) = self.shared.wait(head)? {
            let timeout = PollTimeout::try_from(wait.clamp(Duration::from_millis(1), LIMITED));
            let mut stop = [PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
            match poll(&mut stop, timeout.unwrap_or(PollTimeout::ZERO)) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return Err(RingError::Stopped),
                Err(errno) => return Err(errno.into()),
            }
        }
        self.shared.carry_out(head, &mut self.buffer)
    }

    /// Waits for a kick; true where the queue is to stop.
    fn wait(&mut self) -> Result<bool, RingError> {
        let mut files = [
            PollFd::new(self.kick.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut files, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if files[1].any().unwrap_or(true) {
            return Ok(true);
        }
        if files[0].any().unwrap_or(true) {
            match self.kick.read(&mut [0; 8]) {
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(false)
    }
}

/// A request that a remote backend carries out. What comes for it after the queue was stopped is dropped: it is still marked as
/// under way.
struct Submitted {
    shared: Arc<Shared>,
    head: u16,
}

impl Submitted {
    fn with<T>(
        &self,
        copy: impl FnOnce(&Device, &Memory, (Table, u16)) -> Result<T, crate::chain::ChainError>,
    ) -> Option<T> {
        let done = self.shared.running().and_then(|_running| {
            let memory = self.shared.memory.memory();
            Ok(copy(&self.shared.device, &memory, (self.shared.table, self.head))?)
        });
        done.map_err(|error| self.end(&error)).ok()
    }

    fn end(&self, error: &RingError) {
        if !matches!(error, RingError::Stopped) {
            self.shared.broken(error);
        }
    }
}

impl Request for Submitted {
    fn gather(&self, skip: u64, into: &mut [u8]) -> bool {
        self.with(|device, memory, chain| device.gather(memory, chain, skip, into)).is_some()
    }

    fn scatter(&self, skip: u64, from: &[u8]) {
        self.with(|device, memory, chain| device.scatter(memory, chain, skip, from));
    }

    fn done(&self, is_done: bool) {
        let done = if is_done { self.shared.succeed(self.head) } else { self.shared.fail(self.head) };
        if let Err(error) = done {
            self.end(&error);
        }
    }
}

impl State {
    fn begin(&mut self, head: u16) {
        if let Some(begun) = self.begun.get_mut(usize::from(head)) {
            *begun = Some(Instant::now());
        }
    }
}

impl Shared {
    /// Turns kicks off, or on; then true where requests came meanwhile.
    fn quiet(&self, quiet: bool) -> Result<bool, RingError> {
        let _running = self.running()?;
        let (memory, mut state) = (self.memory.memory(), self.lock());
        if quiet {
            state.queue.disable_notification(&*memory)?;
            return Ok(false);
        }
        Ok(state.queue.enable_notification(&*memory)?)
    }

    fn take(&self) -> Result<Option<u16>, RingError> {
        let _running = self.running()?;
        let (memory, mut state) = (self.memory.memory(), self.lock());
        let Some(chain) = state.queue.pop_descriptor_chain(&*memory) else { return Ok(None) };
        let head = chain.head_index();
        state.inflight.taken(head)?;
        state.begin(head);
        Ok(Some(head))
    }

    /// How long a request has to wait for limits.
    fn wait(&self, head: u16) -> Result<Option<Duration>, RingError> {
        let _running = self.running()?;
        Ok(self.device.wait(&self.memory.memory(), self.table, head)?)
    }

    fn carry_out(self: &Arc<Self>, head: u16, buffer: &mut Vec<u8>) -> Result<(), RingError> {
        let running = self.running()?;
        let memory = self.memory.memory();
        match self.device.carry_out(&memory, self.table, head, buffer)? {
            Outcome::Done(done) => self.answer(&memory, head, done),
            Outcome::Wait(missing) => {
                // `then` may be called at once, and takes the lock itself.
                drop(running);
                let shared = self.clone();
                self.device.when_here(missing, Box::new(move |here| shared.go_on(head, here)));
                Ok(())
            }
            Outcome::Submit(steps) => {
                drop(running);
                let request = Submitted { shared: self.clone(), head };
                self.device.submit(steps, Arc::new(request));
                Ok(())
            }
        }
    }

    /// The part that request `head` waited for is here, or cannot be had.
    fn go_on(self: &Arc<Self>, head: u16, here: bool) {
        let done = if here { self.carry_out(head, &mut Vec::new()) } else { self.fail(head) };
        match done {
            Ok(()) | Err(RingError::Stopped) => {}
            Err(error) => self.broken(&error),
        }
    }

    fn fail(&self, head: u16) -> Result<(), RingError> {
        let _running = self.running()?;
        let memory = self.memory.memory();
        let outcome = self.device.fail(&memory, self.table, head)?;
        self.answered(&memory, head, &outcome)
    }

    fn succeed(&self, head: u16) -> Result<(), RingError> {
        let _running = self.running()?;
        let memory = self.memory.memory();
        let outcome = self.device.succeed(&memory, self.table, head)?;
        self.answered(&memory, head, &outcome)
    }

    fn answered(&self, memory: &Memory, head: u16, outcome: &Outcome) -> Result<(), RingError> {
        match outcome {
            Outcome::Done(done) => self.answer(memory, head, *done),
            Outcome::Wait(_) | Outcome::Submit(_) => Ok(()),
        }
    }

    fn answer(&self, memory: &Memory, head: u16, done: Done) -> Result<(), RingError> {
        let mut state = self.lock();
        let State { queue, inflight, call, begun } = &mut *state;
        // Before the guest knows, and may take the descriptor for something else.
        let began = begun.get_mut(usize::from(head)).and_then(Option::take);
        if let Some(tally) = done.tally {
            self.device.count(tally, began.map_or(Duration::ZERO, |began| began.elapsed()));
        }
        inflight.answering(head)?;
        queue.add_used(memory, head, done.written)?;
        inflight.answered(head, queue.next_used())?;
        if queue.needs_notification(memory)?
            && let Some(call) = call
        {
            call.write_all(&1_u64.to_ne_bytes())?;
        }
        Ok(())
    }

    /// Nothing is taken any more: what is under way cannot be answered in a way that the driver understands.
    fn broken(&self, error: &RingError) {
        *self.stopped.write().unwrap_or_else(PoisonError::into_inner) = true;
        let mut reason = error.to_string();
        if let Some(cause) = std::error::Error::source(error) {
            reason = format!("{reason}: {cause}");
        }
        say(&Event::QueueBroken { queue: self.index, reason });
    }

    fn running(&self) -> Result<RwLockReadGuard<'_, bool>, RingError> {
        let stopped = self.stopped.read().map_err(|_| RingError::Stopped)?;
        if *stopped { Err(RingError::Stopped) } else { Ok(stopped) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
