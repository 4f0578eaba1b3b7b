//! The fleet in virtual time, against the server's cores: DHCP and TFTP as they decide, with no socket, no store and no
//! clock between. The same seed gives the same run, frame by frame; hours pass in a second.
//!
//! ```text
//!  fleet ──frames──▶ faulty cable ──▶ appliance: dhcp::Server, Transfers
//!    ▲                                   │ leases ─▶ durable after a commit ─▶ then the ACK
//!    └────────────── faulty cable ◀──────┘ crash: all but the durable rows is gone
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boot_server_core::dhcp::{Config, Destination, Lease, Port, Reply, Server};
use protocol::{MacAddr, Timestamp};
use tftp_server::packet::{self, ErrorCode, Packet};
use tftp_server::{File, Transfer, normalise};

use super::dhcp::acknowledged;
use super::fleet::Fleet;
use super::frame::{self, BROADCAST, Content, Path};
use super::link::{Faults, Link};
use super::rng::Rng;

/// The server's station.
const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
/// Time from the decision to the commit of its lease: an fsync.
const COMMIT: Duration = Duration::from_millis(2);
/// How long an address is probed before it is offered (RFC 5227 would wait for seconds; servers do not).
const PROBE: Duration = Duration::from_millis(300);
/// Moment of the run's beginning, for what counts from 1970.
const EPOCH: u64 = 1_700_000_000_000;
/// First port for transfers.
const TRANSFER_PORT: u16 = 20_000;

/// Fleet, cable and appliance.
pub struct World {
    /// The machines.
    pub fleet: Fleet,
    appliance: Appliance,
    up: Link,
    down: Link,
    now: Duration,
    trace: Trace,
}

/// What the run was, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Over every frame with its time and direction, word by word.
    pub hash: u64,
    /// Frames.
    pub frames: u64,
}

/// The server without its sockets.
struct Appliance {
    config: Config,
    core: Server,
    durable: BTreeMap<Ipv4Addr, Lease>,
    waiting: (Vec<Lease>, Vec<Reply>),
    storing: Option<(Duration, Vec<Lease>, Vec<Reply>)>,
    /// Offers whose address is being probed.
    probes: VecDeque<Probe>,
    files: BTreeMap<String, Arc<[u8]>>,
    transfers: BTreeMap<(Ipv4Addr, u16), Session>,
    next_port: u16,
    neighbours: BTreeMap<Ipv4Addr, MacAddr>,
    out: VecDeque<Vec<u8>>,
    /// Who was told by an ACK that an address is his, and until when.
    told: BTreeMap<MacAddr, (Ipv4Addr, Duration)>,
    /// Addresses that two machines were told.
    twice: Vec<String>,
    base: Instant,
}

/// A transfer, from which port, and when it wants to be polled.
struct Session {
    port: u16,
    transfer: Transfer,
    due: Duration,
}

struct Probe {
    due: Duration,
    ip: Ipv4Addr,
    used_by: Option<MacAddr>,
    request: Vec<u8>,
    reply: Reply,
}

impl World {
    /// A world whose server has these settings and files of these names and lengths.
    ///
    /// # Panics
    /// Where the settings cannot be: they are the test's own.
    pub fn new(config: Config, files: &[(&str, usize)], fleet: Fleet, faults: Faults, seed: u64) -> Self {
        let rng = Rng::new(seed);
        let file = |(name, len): &(&str, usize)| ((*name).to_owned(), vec![0x5a; *len].into());
        Self {
            appliance: Appliance::new(config, files.iter().map(file).collect()),
            fleet,
            up: Link::new(faults, rng.fork(1)),
            down: Link::new(faults, rng.fork(2)),
            now: Duration::ZERO,
            trace: Trace { hash: 0xcbf2_9ce4_8422_2325, frames: 0 },
        }
    }

    /// Runs until the fleet is settled, or the time is `limit`.
    pub fn run_until(&mut self, limit: Duration) {
        while !self.fleet.is_settled() && self.now < limit {
            self.exchange();
            let next = [
                self.fleet.poll_timeout(),
                self.appliance.poll_timeout(),
                self.up.poll_timeout(),
                self.down.poll_timeout(),
            ];
            let Some(next) = next.into_iter().flatten().min() else { return };
            self.now = next.max(self.now).min(limit);
        }
    }

    /// The server ends without warning and starts again with what is durable.
    pub fn crash(&mut self) {
        self.appliance.crash();
    }

    /// Other machines in place of these, on the same wire and the same server, from the same moment on.
    pub fn replace(&mut self, fleet: Fleet) {
        self.fleet = fleet;
    }

    /// The time.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// What the run was.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// Addresses that two machines were told at once; there must be none.
    pub fn told_twice(&self) -> &[String] {
        &self.appliance.twice
    }

    /// The address that the machine was told last, if it still may use it.
    pub fn told(&self, mac: MacAddr) -> Option<Ipv4Addr> {
        self.appliance.told.get(&mac).filter(|(_, until)| *until > self.now).map(|(ip, _)| *ip)
    }

    /// Leases that the server has now.
    pub fn leases(&self) -> usize {
        self.appliance.core.leases().iter().count()
    }

    /// All that happens at this moment.
    fn exchange(&mut self) {
        loop {
            let mut quiet = true;
            self.fleet.poll(self.now);
            while let Some(frame) = self.fleet.poll_transmit() {
                self.up.handle_frame(self.now, frame);
            }
            while let Some(frame) = self.up.poll_frame(self.now) {
                quiet = false;
                self.trace.add(self.now, 0, &frame);
                self.appliance.handle_frame(self.now, &frame);
            }
            self.appliance.poll(self.now);
            while let Some(frame) = self.appliance.out.pop_front() {
                self.down.handle_frame(self.now, frame);
            }
            while let Some(frame) = self.down.poll_frame(self.now) {
                quiet = false;
                self.trace.add(self.now, 1, &frame);
                self.fleet.handle_frame(self.now, frame);
            }
            if quiet {
                return;
            }
        }
    }
}

impl Trace {
    fn add(&mut self, now: Duration, direction: u64, frame: &[u8]) {
        self.frames += 1;
        self.mix(u64::try_from(now.as_micros()).unwrap_or(u64::MAX) << 1 | direction);
        let (words, rest) = frame.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.mix(u64::from(*byte)));
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }
}

impl Appliance {
    fn new(config: Config, files: BTreeMap<String, Arc<[u8]>>) -> Self {
        let core = started(&config, Vec::new());
        Self {
            config,
            core,
            durable: BTreeMap::new(),
            waiting: Default::default(),
            storing: None,
            probes: VecDeque::new(),
            files,
            transfers: BTreeMap::new(),
            next_port: TRANSFER_PORT,
            neighbours: BTreeMap::new(),
            out: VecDeque::new(),
            told: BTreeMap::new(),
            twice: Vec::new(),
            base: Instant::now(),
        }
    }

    fn crash(&mut self) {
        self.core = started(&self.config, self.durable.values().cloned().collect());
        self.waiting = Default::default();
        self.storing = None;
        self.probes.clear();
        self.transfers.clear();
        self.neighbours.clear();
        self.out.clear();
    }

    fn handle_frame(&mut self, now: Duration, frame: &[u8]) {
        match frame::read(frame) {
            Content::WhoHas { from, target } if target == self.config.server_ip => {
                self.neighbours.insert(from.1, from.0);
                self.out.push_back(frame::is_at(MAC, target, from));
            }
            Content::IsAt { mac, address } => {
                let probe = self.probes.iter_mut().find(|p| p.ip == address);
                probe.into_iter().for_each(|p| p.used_by = Some(mac));
            }
            Content::Udp(path, payload) => {
                if !path.from.0.is_unspecified() {
                    self.neighbours.insert(path.from.0, path.from_mac);
                }
                match path.to.1 {
                    67 => self.handle_dhcp(now, payload),
                    69 => self.handle_tftp_request(now, path, payload),
                    port => {
                        let session = self.transfers.get_mut(&path.from).filter(|s| s.port == port);
                        if let Some(session) = session {
                            session.transfer.handle_packet(self.base + now, payload);
                            session.due = now;
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn handle_dhcp(&mut self, now: Duration, payload: &[u8]) {
        let Ok(answer) = self.core.handle_packet(moment(now), Port::Server67, payload) else { return };
        match (answer.reply, answer.probe) {
            (Ok(reply), Some(ip)) => {
                self.out.push_back(frame::who_has((MAC, Ipv4Addr::UNSPECIFIED), ip));
                let request = payload.to_vec();
                self.probes.push_back(Probe { due: now + PROBE, ip, used_by: None, request, reply });
            }
            (Ok(reply), None) if answer.leases.is_empty() => self.send(now, &reply),
            (Ok(reply), None) => self.waiting.1.push(reply),
            (Err(_), _) => {}
        }
        self.waiting.0.extend(answer.leases);
    }

    /// Probes that have lasted long enough.
    fn end_probes(&mut self, now: Duration) {
        while let Some(probe) = self.probes.pop_front_if(|probe| probe.due <= now) {
            self.waiting.0.extend(self.core.handle_probe(moment(now), probe.ip, probe.used_by));
            match probe.used_by {
                None => self.send(now, &probe.reply),
                Some(_) => self.handle_dhcp(now, &probe.request),
            }
        }
    }

    fn handle_tftp_request(&mut self, now: Duration, path: Path, payload: &[u8]) {
        let Ok(Packet::Rrq(request)) = Packet::parse(payload) else { return };
        let name = normalise(&request.name).ok();
        let file = name.and_then(|name| self.files.get(&name).cloned());
        let Some(file) = file else {
            let mut out = Vec::new();
            packet::emit_error(&mut out, ErrorCode::NOT_FOUND, "file not found");
            return self.send_from(69, path.from, &out);
        };
        // The same request again, because our answer was lost: the transfer that there is goes on.
        if !self.transfers.contains_key(&path.from) {
            let transfer = Transfer::new(self.base + now, &request, File::Memory(file));
            self.transfers.insert(path.from, Session { port: self.next_port, transfer, due: now });
            self.next_port = self.next_port.checked_add(1).unwrap_or(TRANSFER_PORT);
        }
    }

    fn poll(&mut self, now: Duration) {
        self.end_probes(now);
        if let Some((_, leases, replies)) = self.storing.take_if(|(due, _, _)| *due <= now) {
            self.durable.extend(leases.into_iter().map(|lease| (lease.ip, lease)));
            replies.iter().for_each(|reply| self.send(now, reply));
        }
        if self.storing.is_none() && !self.waiting.0.is_empty() {
            let (leases, replies) = std::mem::take(&mut self.waiting);
            self.storing = Some((now + COMMIT, leases, replies));
        }
        let mut out = Vec::new();
        let mut sent = Vec::new();
        self.transfers.retain(|client, session| {
            if session.due > now {
                return true;
            }
            session.transfer.handle_timeout(self.base + now);
            while session.transfer.poll_transmit(&mut out) {
                sent.push((session.port, *client, out.clone()));
            }
            let next = session.transfer.poll_timeout().map(|at| at.saturating_duration_since(self.base));
            session.due = next.unwrap_or(now);
            next.is_some()
        });
        for (port, client, bytes) in sent {
            self.send_from(port, client, &bytes);
        }
    }

    fn poll_timeout(&self) -> Option<Duration> {
        let transfer = self.transfers.values().map(|session| session.due).min();
        let commit = self.storing.as_ref().map(|(due, _, _)| *due);
        let probe = self.probes.front().map(|probe| probe.due);
        [transfer, commit, probe].into_iter().flatten().min()
    }

    fn send(&mut self, now: Duration, reply: &Reply) {
        if let Some((mac, ip, seconds)) = acknowledged(&reply.bytes) {
            self.tell(now, mac, ip, seconds);
        }
        let (to, to_mac) = match reply.destination {
            Destination::Broadcast => ((Ipv4Addr::BROADCAST, 68), BROADCAST),
            Destination::UnicastRaw { mac, ip } => ((ip, 68), mac),
            Destination::Unicast(ip) => ((ip, 68), self.neighbour(ip)),
            Destination::Relay(ip) => ((ip, 67), self.neighbour(ip)),
            // Answers of port 4011 alone, which is not asked here.
            Destination::Sender => return,
        };
        let path = Path { from_mac: MAC, to_mac, from: (self.config.server_ip, 67), to };
        self.out.push_back(frame::udp(path, &reply.bytes));
    }

    fn tell(&mut self, now: Duration, mac: MacAddr, ip: Ipv4Addr, seconds: u32) {
        let other =
            self.told.iter().find(|(other, (its, until))| *its == ip && *until > now && **other != mac);
        if let Some((other, _)) = other {
            self.twice.push(format!("{ip} is told to {mac} and is {other}'s"));
        }
        self.told.insert(mac, (ip, now + Duration::from_secs(seconds.into())));
    }

    fn send_from(&mut self, port: u16, to: (Ipv4Addr, u16), bytes: &[u8]) {
        let path =
            Path { from_mac: MAC, to_mac: self.neighbour(to.0), from: (self.config.server_ip, port), to };
        self.out.push_back(frame::udp(path, bytes));
    }

    fn neighbour(&self, ip: Ipv4Addr) -> MacAddr {
        self.neighbours.get(&ip).copied().unwrap_or(BROADCAST)
    }
}

fn moment(now: Duration) -> Timestamp {
    Timestamp(EPOCH + u64::try_from(now.as_millis()).unwrap_or(0))
}

fn started(config: &Config, leases: Vec<Lease>) -> Server {
    #[expect(clippy::expect_used, reason = "settings of a test: a fault in them is a fault of the test")]
    Server::new(config.clone(), leases).expect("the settings of the test")
}

#[cfg(test)]
mod tests {
    use boot_server_core::dhcp::{BootFiles, Ipv4Net, Range, Subnet};

    use super::*;
    use crate::fleet::fleet::Crew;
    use crate::fleet::machine::Habits;
    use crate::fleet::personality::Mix;

    const FILES: [(&str, usize); 2] = [("undionly.kpxe", 30_000), ("snponly.efi", 60_000)];
    const HOUR: Duration = Duration::from_secs(3600);

    fn config(pool: &str) -> Config {
        Config {
            server_ip: Ipv4Addr::new(10, 77, 0, 1),
            next_server: Ipv4Addr::new(10, 77, 0, 1),
            http_base: "http://10.77.0.1:8080".into(),
            firmware_base: None,
            boot: BootFiles::default(),
            subnets: vec![Subnet::new(
                Ipv4Net::new(Ipv4Addr::new(10, 77, 0, 0), 16).unwrap(),
                vec![pool.parse::<Range>().unwrap()],
                HOUR,
            )],
            probe: true,
        }
    }

    /// Firmware that boots by TFTP; there is no HTTP here, so the agent comes up with its address alone.
    fn crew(count: u32, seed: u64) -> Crew {
        let mix = "ovmf-pxe:4,legacy-rom:4,ipxe-rom,bad-name,bad-last-ack,bad-no-43,bad-no-arch,bad-broadcast,bad-fast";
        let habits = Habits { body_bytes: None, skip_http: true };
        let mix: Mix = mix.parse().unwrap();
        Crew { first: 0, count, seed, mix, over: Duration::from_secs(10), habits }
    }

    fn world(count: u32, seed: u64, pool: &str, faults: Faults) -> World {
        World::new(config(pool), &FILES, Fleet::new(crew(count, seed).machines()), faults, seed)
    }

    fn bad_cable() -> Faults {
        let delay = Duration::from_micros(200);
        Faults { loss: 0.01, duplicate: 0.01, corrupt: 0.002, reorder: 0.02, delay }
    }

    fn assert_up(world: &World) {
        let down: Vec<_> =
            world.fleet.machines().iter().filter(|m| !m.is_up()).map(|m| m.stands_at()).collect();
        assert!(down.is_empty(), "{} are down: {:?}", down.len(), &down[..down.len().min(5)]);
        assert!(world.told_twice().is_empty(), "{:?}", world.told_twice());
    }

    #[test]
    fn a_hall_boots_over_a_bad_cable() {
        for seed in [7, 8, 9] {
            let mut world = world(300, seed, "10.77.1.0-10.77.3.255", bad_cable());
            world.run_until(HOUR);
            assert_up(&world);
            for machine in world.fleet.machines() {
                let told = world.told(machine.identity().mac);
                assert!(told.is_some(), "{:?} has an address", machine.identity());
            }
        }
    }

    #[test]
    fn the_same_seed_is_the_same_run() {
        let trace = |seed| {
            let mut world = world(60, seed, "10.77.1.0-10.77.1.255", bad_cable());
            world.run_until(HOUR);
            world.trace()
        };
        assert_eq!(trace(7), trace(7));
        assert_ne!(trace(7), trace(8));
    }

    #[test]
    fn no_lease_is_lost_and_none_is_given_twice_when_the_server_crashes() {
        let mut world = world(300, 7, "10.77.1.0-10.77.2.255", bad_cable());
        for crash in 1..=12u64 {
            world.run_until(Duration::from_millis(crash * 900));
            let told = world.appliance.told.clone();
            world.crash();
            for (mac, (ip, until)) in told {
                let durable = world.appliance.core.leases().iter().find(|l| l.ip == ip);
                let client = durable.map(|l| l.client.to_string());
                assert_eq!(client, Some(format!("mac:{mac}")), "{ip} until {until:?}");
            }
        }
        world.run_until(HOUR);
        assert_up(&world);
    }

    #[test]
    fn a_machine_keeps_its_address_from_boot_to_boot() {
        let mut world = world(200, 7, "10.77.1.0-10.77.1.255", Faults::default());
        world.run_until(HOUR);
        assert_up(&world);
        let told = world.appliance.told.clone();
        let mut again = crew(200, 7).machines();
        let now = world.now();
        again.iter_mut().for_each(|m| m.switch_on_after(now));
        world.replace(Fleet::new(again));
        world.run_until(now + HOUR);
        assert_up(&world);
        for (mac, (ip, _)) in told {
            assert_eq!(world.told(mac), Some(ip));
        }
    }

    #[test]
    fn a_pool_as_large_as_the_hall_serves_the_hall() {
        let mut world = world(256, 7, "10.77.1.0-10.77.1.255", bad_cable());
        world.run_until(HOUR);
        assert_up(&world);
        assert_eq!(world.leases(), 256);
    }
}
