//! One machine from its power button to work for its agent, as a state machine: frames and the time in, frames out.
//!
//! ```text
//!  off ─▶ firmware: DHCP ─▶ loader by TFTP or HTTP ─▶ iPXE: DHCP ─▶ start script ─▶ machine script ─▶ kernel, RAM disk
//!                     (iPXE in ROM begins here) ───────▲                 │ exit: disk
//!  up ◀─ work ◀─ inventory ◀─ hello ◀─ agent: DHCP ◀──────────────────────┘ boot
//!  any ─▶ lost: its firmware gave up, as a real one would
//! ```
//!
//! What POST, the loader's and the kernel's own start take is left out: all machines press on the server at once.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use protocol::MacAddr;
use uuid::Uuid;

use super::agent::Agent;
use super::call::{Call, Kept};
use super::dhcp::{self, Lease, Profile, Took};
use super::frame::{self, BROADCAST, Content, Path};
use super::http::{Request, Response, Url};
use super::net::Net;
use super::personality::{AGENT, Firmware, IPXE, Personality};
use super::rng::Rng;
use super::script::{Interpreter, Op};
use super::tftp;

/// Silence after which firmware and iPXE give an HTTP request up (EDK2: 5 s for an answer; iPXE waits on TCP).
const HTTP_SILENCE: Duration = Duration::from_secs(15);
/// Tries of HTTP boot by firmware, and the pause before the boot manager comes round to the entry again.
const HTTP_TRIES: u32 = 3;
const HTTP_PAUSE: Duration = Duration::from_secs(2);
/// Tries of one TFTP download by firmware, which begins anew then.
const TFTP_TRIES: u32 = 2;
/// Before iPXE begins anew whose start script could not be fetched.
const IPXE_PAUSE: Duration = Duration::from_secs(5);
/// Wait for a boot server's answer (PXE 2.1 section 2.2.3 begins with 1 s), and how often it is asked.
const BOOT_SERVER_WAIT: (Duration, u32) = (Duration::from_secs(1), 2);
/// Port of boot servers.
const BOOT_SERVER_PORT: u16 = 4011;
/// Restarts of one machine that make it count as lost.
const RESTARTS_MAX: u32 = 5;

/// What is the same for all machines of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// Kernel and RAM disks are fetched up to this length (by an HTTP range); `None`: whole.
    pub body_bytes: Option<u64>,
    /// The agent comes up without script and HTTP: for a server that has none.
    pub skip_http: bool,
}

/// Who a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its address.
    pub mac: MacAddr,
    /// SMBIOS UUID.
    pub uuid: Uuid,
    /// Serial number.
    pub serial: String,
}

/// Milestones, as times of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Switched on.
    pub on: Option<Duration>,
    /// The loader was fetched.
    pub loader: Option<Duration>,
    /// The machine's script was fetched.
    pub script: Option<Duration>,
    /// Kernel and RAM disks were fetched.
    pub kernel: Option<Duration>,
    /// The server welcomed the agent.
    pub hello: Option<Duration>,
    /// The server took the inventory.
    pub inventory: Option<Duration>,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Time of each DHCP exchange.
    pub dhcp: Vec<Took>,
    /// TFTP messages sent again, and downloads begun anew.
    pub tftp_retries: u32,
    /// HTTP requests made again.
    pub http_retries: u32,
    /// Why, the last time.
    pub last_trouble: Option<String>,
    /// Octets of loaders, kernels and RAM disks.
    pub bytes: u64,
    /// Boots begun anew after the firmware had succeeded.
    pub restarts: u32,
    /// Jobs that were done.
    pub jobs: u32,
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    identity: Identity,
    personality: Personality,
    firmware: Firmware,
    habits: Habits,
    rng: Rng,
    program: Program,
    doing: Doing,
    net: Option<Net>,
    kept: Kept,
    lease: Lease,
    out: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
    marks: Marks,
    counts: Counts,
}

/// What runs on it.
#[derive(Debug)]
enum Program {
    Firmware,
    Ipxe(Option<Box<Interpreter>>),
    Agent(Box<Agent>),
}

/// What it waits for.
#[derive(Debug)]
enum Doing {
    Off {
        on: Duration,
    },
    Address(Box<dhcp::Client>),
    BootServer {
        xid: u32,
        tries: u32,
        timer: Duration,
    },
    Tftp {
        client: Box<tftp::Client>,
        tries: u32,
    },
    Http {
        call: Box<Call>,
        tries: u32,
    },
    /// Before the loader is asked for again.
    Again {
        tries: u32,
        until: Duration,
    },
    Pause {
        until: Duration,
    },
    Disk,
    Lost(String),
}

impl Machine {
    /// A machine that is switched on at `on`.
    pub fn new(identity: Identity, personality: Personality, habits: Habits, rng: Rng, on: Duration) -> Self {
        Self {
            identity,
            personality,
            firmware: personality.firmware(),
            habits,
            rng,
            program: Program::Firmware,
            doing: Doing::Off { on },
            net: None,
            kept: None,
            lease: Lease::default(),
            out: VecDeque::new(),
            buffer: Vec::new(),
            marks: Marks::default(),
            counts: Counts::default(),
        }
    }

    /// Puts its power button off by `pause`, if it was not pressed yet.
    pub fn switch_on_after(&mut self, pause: Duration) {
        if let Doing::Off { on } = &mut self.doing {
            *on += pause;
        }
    }

    /// Takes a frame that came for it or for all.
    pub fn handle_frame(&mut self, now: Duration, frame: Vec<u8>) {
        match frame::read(&frame) {
            Content::Udp(path, payload) if path.to.1 == 68 => {
                if let Doing::Address(client) = &mut self.doing {
                    client.handle_packet(now, payload);
                }
            }
            // A probe (RFC 5227) comes from 0.0.0.0, which smoltcp does not answer.
            Content::WhoHas { from, target } if from.1.is_unspecified() => {
                if self.address() == Some(target) {
                    self.out.push_back(frame::is_at(self.identity.mac, target, from));
                }
            }
            _ => {
                if let Some(net) = &mut self.net {
                    net.handle_frame(frame);
                }
            }
        }
    }

    /// Does what is due; frames are then to be had from [`poll_transmit`](Self::poll_transmit).
    pub fn poll(&mut self, now: Duration) {
        loop {
            if let Some(net) = &mut self.net {
                net.poll(now);
            }
            let more = self.advance(now);
            if let Some(net) = &mut self.net {
                net.poll(now);
                self.out.extend(std::iter::from_fn(|| net.poll_transmit()));
            }
            if !more {
                return;
            }
        }
    }

    /// A frame to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// When [`poll`](Self::poll) has something to do next, if no frame comes before.
    pub fn poll_timeout(&mut self, now: Duration) -> Option<Duration> {
        let own = match &self.doing {
            Doing::Off { on } => Some(*on),
            Doing::Address(client) => client.poll_timeout(),
            Doing::BootServer { timer, .. } => Some(*timer),
            Doing::Tftp { client, .. } => client.poll_timeout(),
            Doing::Http { call, .. } => Some(call.poll_timeout()),
            Doing::Pause { until } | Doing::Again { until, .. } => Some(*until),
            Doing::Disk | Doing::Lost(_) => None,
        };
        let net = self.net.as_mut().and_then(|net| net.poll_timeout(now));
        own.into_iter().chain(net).min()
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its firmware.
    pub fn personality(&self) -> Personality {
        self.personality
    }

    /// Its address now.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.net.as_ref().map(Net::address)
    }

    /// Its milestones.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// What was counted.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Why it was lost, if it was.
    pub fn lost(&self) -> Option<&str> {
        match &self.doing {
            Doing::Lost(why) => Some(why),
            _ => None,
        }
    }

    /// True where its agent has handed in the inventory.
    pub fn is_up(&self) -> bool {
        self.marks.inventory.is_some()
    }

    /// True where nothing more will become of it: it is up, lost, or started from its disk.
    pub fn is_settled(&self) -> bool {
        self.is_up() || matches!(self.doing, Doing::Lost(_) | Doing::Disk)
    }

    /// In words, for the one who wonders.
    pub fn stands_at(&self) -> String {
        let program = match &self.program {
            Program::Firmware => "firmware",
            Program::Ipxe(_) => "ipxe",
            Program::Agent(_) => "agent",
        };
        let doing = match &self.doing {
            Doing::Off { .. } => "off".to_owned(),
            Doing::Address(_) => "waits for DHCP".to_owned(),
            Doing::BootServer { .. } => "asks a boot server".to_owned(),
            Doing::Tftp { client, .. } => format!("fetches {}", String::from_utf8_lossy(client.name())),
            Doing::Http { call, .. } => format!("{} {}", call.request.method, call.request.url.path),
            Doing::Pause { .. } | Doing::Again { .. } => "pauses".to_owned(),
            Doing::Disk => "started from its disk".to_owned(),
            Doing::Lost(why) => return format!("lost: {why}"),
        };
        format!("{program} {doing}")
    }

    /// Takes one step; true where another may follow at once.
    fn advance(&mut self, now: Duration) -> bool {
        match &mut self.doing {
            Doing::Off { on } if now >= *on => {
                self.marks.on = Some(now);
                let program = match self.personality {
                    Personality::IpxeRom => Program::Ipxe(None),
                    _ => Program::Firmware,
                };
                self.begin(now, program);
                true
            }
            Doing::Address(_) => self.advance_dhcp(now),
            Doing::BootServer { .. } => self.advance_boot_server(now),
            Doing::Tftp { .. } => self.advance_tftp(now),
            Doing::Http { .. } => self.advance_http(now),
            Doing::Pause { until } if now >= *until => {
                self.resume(now);
                true
            }
            Doing::Again { tries, until } if now >= *until => {
                let tries = *tries;
                self.fetch_loader(now, tries);
                true
            }
            Doing::Off { .. } | Doing::Pause { .. } | Doing::Again { .. } | Doing::Disk | Doing::Lost(_) => {
                false
            }
        }
    }

    /// Starts a program: it has no address yet, and nothing of the one before.
    fn begin(&mut self, now: Duration, program: Program) {
        if let Some(mut net) = self.net.take() {
            net.abort(now);
            self.out.extend(std::iter::from_fn(|| net.poll_transmit()));
        }
        self.kept = None;
        self.program = program;
        let client = dhcp::Client::new(now, self.profile(), self.rng.fork(now.as_micros() as u64));
        self.doing = Doing::Address(Box::new(client));
    }

    fn profile(&self) -> Profile {
        let firmware = Profile {
            mac: self.identity.mac,
            uuid: Some(self.identity.uuid),
            vendor_class: self.firmware.vendor_class,
            architecture: self.firmware.architecture,
            ipxe: false,
            broadcast: self.firmware.broadcast,
            wants_file: true,
            patience: self.firmware.patience,
        };
        match self.program {
            Program::Firmware => firmware,
            Program::Ipxe(_) => {
                let arm = self.personality.is_arm();
                let (vendor_class, architecture) = match (self.personality.is_efi(), arm) {
                    (true, true) => ("PXEClient:Arch:00011:UNDI:003010", 11),
                    (true, false) => ("PXEClient:Arch:00007:UNDI:003010", 7),
                    (false, _) => ("PXEClient:Arch:00000:UNDI:002001", 0),
                };
                let architecture = Some(architecture);
                let patience = IPXE;
                Profile { vendor_class, architecture, ipxe: true, broadcast: false, patience, ..firmware }
            }
            Program::Agent(_) => Profile {
                uuid: None,
                vendor_class: "",
                architecture: None,
                broadcast: false,
                wants_file: false,
                patience: AGENT,
                ..firmware
            },
        }
    }

    fn advance_dhcp(&mut self, now: Duration) -> bool {
        let Doing::Address(client) = &mut self.doing else { return false };
        client.handle_timeout(now);
        while let Some(message) = client.poll_transmit(now) {
            let path = Path {
                from_mac: self.identity.mac,
                to_mac: BROADCAST,
                from: (Ipv4Addr::UNSPECIFIED, 68),
                to: (Ipv4Addr::BROADCAST, 67),
            };
            self.out.push_back(frame::udp(path, &message));
        }
        let (lease, took) = match client.outcome() {
            None => return false,
            Some(Err(why)) => {
                self.lose(why);
                return false;
            }
            Some(Ok((lease, took))) => (lease.clone(), took),
        };
        self.counts.dhcp.push(took);
        let Some(address) = lease.address else { return false };
        let seed = self.rng.next();
        self.net = Some(Net::new(now, self.identity.mac, seed, (address, lease.prefix), lease.router));
        self.lease = lease;
        self.resume(now);
        true
    }

    /// Goes on with the program once there is an address, or after a pause.
    fn resume(&mut self, now: Duration) {
        if self.net.is_none() {
            let program = std::mem::replace(&mut self.program, Program::Firmware);
            return self.begin(now, program);
        }
        match &mut self.program {
            Program::Firmware if self.firmware.asks_4011 => {
                let (_, tries) = BOOT_SERVER_WAIT;
                let xid = self.rng.next() as u32;
                if let Some(net) = &mut self.net {
                    net.open_udp(BOOT_SERVER_PORT);
                }
                self.doing = Doing::BootServer { xid, tries, timer: now };
            }
            Program::Firmware => self.fetch_loader(now, 0),
            Program::Ipxe(_) if self.habits.skip_http => self.begin_agent(now, ""),
            Program::Ipxe(None) => {
                let file = self.lease.file();
                match Url::parse(&file) {
                    Some(url) => self.http(now, Request::get(url), 0),
                    None => self.lose(&format!("iPXE was told to boot `{file}`")),
                }
            }
            Program::Ipxe(Some(_)) => self.run_script(now),
            Program::Agent(agent) => match agent.request(&self.identity, self.net.as_ref().map(Net::address))
            {
                Some((request, silence)) => {
                    self.doing = Doing::Http { call: Box::new(Call::new(now, request, silence)), tries: 0 };
                }
                None => {
                    // Nobody answers HTTP here: the address was all it wanted.
                    self.marks.hello.get_or_insert(now);
                    self.marks.inventory.get_or_insert(now);
                    self.doing = Doing::Disk;
                }
            },
        }
    }

    fn advance_boot_server(&mut self, now: Duration) -> bool {
        let Doing::BootServer { xid, tries, timer } = &mut self.doing else { return false };
        let (Some(net), Some(server)) = (&mut self.net, self.lease.server) else { return false };
        while net.receive_udp(&mut self.buffer).is_some() {
            if let Some(answer) = Lease::read(&self.buffer, *xid, self.identity.mac)
                && !answer.file().is_empty()
            {
                self.lease.file_field.clone_from(&answer.file_field);
                self.lease.file_option.clone_from(&answer.file_option);
                self.lease.next_server = answer.next_server.or(self.lease.next_server);
                self.fetch_loader(now, 0);
                return true;
            }
        }
        if now < *timer {
            return false;
        }
        let Some(left) = tries.checked_sub(1) else {
            // It goes on with what DHCP said.
            self.fetch_loader(now, 0);
            return true;
        };
        (*tries, *timer) = (left, now + BOOT_SERVER_WAIT.0);
        let (xid, address) = (*xid, net.address());
        let message = self.profile().boot_server_request(xid, address);
        if let Some(net) = &mut self.net {
            net.send_udp((server, BOOT_SERVER_PORT), &message);
        }
        false
    }

    fn fetch_loader(&mut self, now: Duration, tries: u32) {
        let file = self.lease.file();
        if let Some(url) = Url::parse(&file) {
            return self.http(now, Request::head(url), tries);
        }
        let name = match self.firmware.reads_past_name {
            true => self.lease.file_as_c_string(),
            false => file.into_bytes(),
        };
        self.open_port();
        let client = Box::new(tftp::Client::new(now, name, self.firmware.tftp));
        self.doing = Doing::Tftp { client, tries };
    }

    /// Each TFTP transfer has a port of its own.
    fn open_port(&mut self) {
        let port = 2048 + u16::try_from(self.rng.below(16_384)).unwrap_or(0);
        if let Some(net) = &mut self.net {
            net.open_udp(port);
        }
    }

    fn advance_tftp(&mut self, now: Duration) -> bool {
        let Doing::Tftp { client, tries } = &mut self.doing else { return false };
        let (Some(net), Some(server)) = (&mut self.net, self.lease.next_server) else {
            self.lose("no TFTP server was named");
            return false;
        };
        while let Some((_, port)) = net.receive_udp(&mut self.buffer) {
            client.handle_packet(now, port, &self.buffer);
            while let Some((port, bytes)) = client.poll_transmit() {
                net.send_udp((server, port), bytes);
            }
        }
        client.handle_timeout(now);
        while let Some((port, bytes)) = client.poll_transmit() {
            net.send_udp((server, port), bytes);
        }
        let Some(outcome) = client.outcome().cloned() else { return false };
        // The last word leaves before its port is closed.
        net.poll(now);
        self.counts.tftp_retries += client.sent_again();
        match outcome {
            tftp::Outcome::Size(_) => {
                let (name, tries) = (client.name().to_vec(), *tries);
                self.open_port();
                let client = Box::new(tftp::Client::download(now, name, self.firmware.tftp));
                self.doing = Doing::Tftp { client, tries };
            }
            tftp::Outcome::Complete(bytes) => {
                self.counts.bytes += bytes;
                self.loader_done(now);
            }
            tftp::Outcome::Failed(why) => {
                let (again, name) = (*tries + 1, String::from_utf8_lossy(client.name()).into_owned());
                let why = format!("TFTP {name}: {why}");
                self.counts.tftp_retries += 1;
                if again >= TFTP_TRIES {
                    self.lose(&why);
                } else {
                    self.counts.last_trouble = Some(why);
                    self.fetch_loader(now, again);
                }
            }
        }
        true
    }

    fn loader_done(&mut self, now: Duration) {
        self.marks.loader = Some(now);
        self.begin(now, Program::Ipxe(None));
    }

    fn http(&mut self, now: Duration, request: Request, tries: u32) {
        self.doing = Doing::Http { call: Box::new(Call::new(now, request, HTTP_SILENCE)), tries };
    }

    fn advance_http(&mut self, now: Duration) -> bool {
        let Doing::Http { call, tries } = &mut self.doing else { return false };
        let Some(net) = &mut self.net else { return false };
        let Some(answer) = call.poll(now, net, &mut self.kept, &mut self.rng) else { return false };
        let (request, tries) = (call.request.clone(), *tries);
        let answer = match answer {
            Ok(response) if response.is_success() || matches!(self.program, Program::Agent(_)) => {
                Ok(response)
            }
            Ok(response) => {
                Err(format!("{} {}: status {}", request.method, request.url.path, response.status))
            }
            Err(why) => Err(why),
        };
        if let Err(why) = &answer {
            self.counts.http_retries += 1;
            self.counts.last_trouble = Some(why.clone());
        }
        match self.program {
            Program::Firmware => self.firmware_http(now, request, answer, tries),
            Program::Ipxe(_) => self.ipxe_http(now, answer),
            Program::Agent(_) => self.agent_http(now, answer.ok()),
        }
        true
    }

    /// UEFI HTTP boot asks for the size by HEAD, then fetches.
    fn firmware_http(
        &mut self,
        now: Duration,
        request: Request,
        answer: Result<Response, String>,
        tries: u32,
    ) {
        match answer {
            Ok(_) if request.method == "HEAD" => self.http(now, Request::get(request.url), tries),
            Ok(response) => {
                self.counts.bytes += response.length;
                self.loader_done(now);
            }
            Err(_) if tries + 1 < HTTP_TRIES => {
                self.doing = Doing::Again { tries: tries + 1, until: now + HTTP_PAUSE };
            }
            Err(why) => self.lose(&why),
        }
    }

    fn ipxe_http(&mut self, now: Duration, answer: Result<Response, String>) {
        let Program::Ipxe(script) = &mut self.program else { return };
        let ok = answer.ok();
        match script {
            Some(script) => {
                if let Some(response) = &ok {
                    self.counts.bytes += response.length;
                }
                script.fetched(ok.map(|r| String::from_utf8_lossy(&r.body).into_owned()));
                self.run_script(now);
            }
            None => match ok {
                Some(response) => {
                    let text = String::from_utf8_lossy(&response.body).into_owned();
                    let settings = self.settings();
                    self.program = Program::Ipxe(Some(Box::new(Interpreter::new(&text, settings))));
                    self.run_script(now);
                }
                None => {
                    self.net = None;
                    self.kept = None;
                    self.doing = Doing::Pause { until: now + IPXE_PAUSE };
                }
            },
        }
    }

    fn settings(&self) -> std::collections::BTreeMap<String, String> {
        let mac = self.identity.mac.to_string();
        let (platform, arch) = match (self.personality.is_efi(), self.personality.is_arm()) {
            (true, true) => ("efi", "arm64"),
            (true, false) => ("efi", "x86_64"),
            (false, _) => ("pcbios", "i386"),
        };
        let known = [
            ("netX/mac", mac.as_str()),
            ("net0/mac", mac.as_str()),
            ("mac", mac.as_str()),
            ("uuid", &self.identity.uuid.to_string()),
            ("serial", &self.identity.serial),
            ("manufacturer", "Fleet & Sons"),
            ("product", self.personality.name()),
            ("platform", platform),
            ("buildarch", arch),
        ];
        known.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    fn run_script(&mut self, now: Duration) {
        let Program::Ipxe(Some(script)) = &mut self.program else { return };
        match script.run() {
            Op::Fetch { url: text, script } => {
                let Some(url) = Url::parse(&text) else {
                    return self.lose(&format!("a URL that is none: {text}"));
                };
                let mut request = Request::get(url);
                if !script {
                    self.marks.script.get_or_insert(now);
                    if let Some(bytes) = self.habits.body_bytes.filter(|n| *n > 0) {
                        request = request.with(format!("Range: bytes=0-{}", bytes - 1));
                    }
                }
                self.http(now, request, 0);
            }
            Op::Sleep(pause) => self.doing = Doing::Pause { until: now + pause },
            Op::Boot { arguments } => {
                self.marks.kernel = Some(now);
                self.begin_agent(now, &arguments);
            }
            Op::Disk | Op::Exit(_) => self.doing = Doing::Disk,
            Op::Failed(why) => self.lose(&format!("script: {why}")),
        }
    }

    fn begin_agent(&mut self, now: Duration, arguments: &str) {
        self.begin(now, Program::Agent(Box::new(Agent::new(arguments))));
    }

    /// `None`: no answer at all.
    fn agent_http(&mut self, now: Duration, answer: Option<Response>) {
        let Program::Agent(agent) = &mut self.program else { return };
        let next = agent.answered(answer.as_ref());
        self.marks.hello = self.marks.hello.or(agent.is_welcome().then_some(now));
        self.marks.inventory = self.marks.inventory.or(agent.is_inspected().then_some(now));
        self.counts.jobs = agent.jobs();
        match next {
            super::agent::Next::Ask => self.resume(now),
            super::agent::Next::AskAfter(pause) => {
                self.counts.http_retries += 1;
                if let Some(answer) = answer {
                    self.counts.last_trouble = Some(format!("agent: status {}", answer.status));
                }
                self.doing = Doing::Pause { until: now + pause };
            }
            super::agent::Next::Restart => {
                self.counts.restarts += 1;
                if self.counts.restarts > RESTARTS_MAX {
                    return self.lose("it restarts again and again");
                }
                self.begin(now, Program::Firmware);
            }
            super::agent::Next::Off => self.doing = Doing::Disk,
        }
    }

    fn lose(&mut self, why: &str) {
        let program = match &self.program {
            Program::Firmware => "firmware",
            Program::Ipxe(_) => "ipxe",
            Program::Agent(_) => "agent",
        };
        self.net = None;
        self.doing = Doing::Lost(format!("{program}: {why}"));
    }
}
