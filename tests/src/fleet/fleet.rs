//! Many machines on one switch. The switch has learned where everybody is, also by address: a broadcast that only one
//! machine would not drop is handed to that one alone, because ten thousand looks at every ARP request would measure
//! the fleet and not the server.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use protocol::MacAddr;
use uuid::Uuid;

use super::frame::{self, BROADCAST, Content};
use super::machine::{Habits, Identity, Machine};
use super::personality::Mix;
use super::rng::Rng;

/// Which machines there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Crew {
    /// Number of the first machine; two crews whose numbers overlap share machines.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Names all machines together with their numbers.
    pub seed: u64,
    /// What firmware they have.
    pub mix: Mix,
    /// Each is switched on at some time below this.
    pub over: Duration,
    /// How they behave.
    pub habits: Habits,
}

/// Machines and their switch.
#[derive(Debug)]
pub struct Fleet {
    machines: Vec<Machine>,
    by_mac: HashMap<MacAddr, usize>,
    by_address: HashMap<Ipv4Addr, usize>,
    /// When each machine wants to be polled; older entries of the heap do not count.
    due: Vec<Option<Duration>>,
    timers: BinaryHeap<Reverse<(Duration, usize)>>,
    touched: Vec<usize>,
    out: VecDeque<Vec<u8>>,
    settled: usize,
}

impl Crew {
    /// The machines.
    pub fn machines(&self) -> Vec<Machine> {
        (self.first..self.first.saturating_add(self.count)).map(|n| self.machine(n)).collect()
    }

    fn machine(&self, number: u32) -> Machine {
        let mut rng = Rng::new(self.seed).fork(number.into());
        let [a, b, c, d] = number.to_be_bytes();
        // Locally administered, so that no card has it; the seed's own octet tells the fleets of two runs apart.
        let mac = MacAddr([0x52, self.seed as u8, a, b, c, d]);
        let uuid = Uuid::from_u64_pair(rng.next(), rng.next());
        let identity = Identity { mac, uuid, serial: format!("FLEET{number:06}") };
        let personality = self.mix.pick(&mut rng);
        let on = rng.time(self.over);
        Machine::new(identity, personality, self.habits, rng, on)
    }
}

impl Fleet {
    /// A fleet of these machines.
    pub fn new(machines: Vec<Machine>) -> Self {
        let by_mac = machines.iter().enumerate().map(|(n, m)| (m.identity().mac, n)).collect();
        let touched = (0..machines.len()).collect();
        let due = vec![None; machines.len()];
        Self {
            by_mac,
            by_address: HashMap::new(),
            due,
            timers: BinaryHeap::new(),
            touched,
            out: VecDeque::new(),
            settled: 0,
            machines,
        }
    }

    /// The machines.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// True where nothing more will become of any machine.
    pub fn is_settled(&self) -> bool {
        self.settled == self.machines.len()
    }

    /// Takes a frame that came down the cable.
    pub fn handle_frame(&mut self, now: Duration, frame: Vec<u8>) {
        let Some((to, _)) = frame::stations(&frame) else { return };
        let receiver = if to == BROADCAST { self.wanted_by(&frame) } else { self.by_mac.get(&to).copied() };
        // What is for nobody here (multicast of IPv6, a flood from the server) is dropped as a switch does.
        let Some(receiver) = receiver else { return };
        self.machines[receiver].handle_frame(now, frame);
        self.touched.push(receiver);
    }

    /// The one machine that a broadcast is for.
    fn wanted_by(&self, frame: &[u8]) -> Option<usize> {
        match frame::read(frame) {
            Content::WhoHas { target, .. } => self.by_address.get(&target).copied(),
            // A DHCP reply: the client's address is in `chaddr` (RFC 2131 figure 1).
            Content::Udp(path, payload) if path.to.1 == 68 => {
                let mac = MacAddr(*payload.get(28..34)?.first_chunk()?);
                self.by_mac.get(&mac).copied()
            }
            _ => None,
        }
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Duration) {
        while let Some(Reverse((at, n))) = self.timers.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.timers.pop();
            if self.due[n] == Some(at) {
                self.due[n] = None;
                self.touched.push(n);
            }
        }
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for n in touched.drain(..) {
            self.poll_machine(now, n);
        }
        self.touched = touched;
    }

    fn poll_machine(&mut self, now: Duration, n: usize) {
        let machine = &mut self.machines[n];
        let (settled, address) = (machine.is_settled(), machine.address());
        machine.poll(now);
        self.out.extend(std::iter::from_fn(|| machine.poll_transmit()));
        if machine.is_settled() != settled {
            self.settled = if settled { self.settled - 1 } else { self.settled + 1 };
        }
        if machine.address() != address {
            if let Some(old) = address.filter(|old| self.by_address.get(old) == Some(&n)) {
                self.by_address.remove(&old);
            }
            if let Some(new) = machine.address() {
                self.by_address.insert(new, n);
            }
        }
        let at = machine.poll_timeout(now).map(|at| at.max(now + Duration::from_micros(1)));
        if at != self.due[n] {
            self.due[n] = at;
            self.timers.extend(at.map(|at| Reverse((at, n))));
        }
    }

    /// A frame to send up the cable.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// When [`poll`](Self::poll) has something to do next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }
}
