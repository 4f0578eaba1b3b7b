//! A server with some machines and no network but loopback.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::middleware::from_fn_with_state;
use boot_server_core::node::{Claim, Installed, Node, State, identity::Identity};
use protocol::inventory::{Cpu, Disk, DiskContent, Inventory, Transport};
use protocol::{DiskId, ImageId, MacAddr, NodeId, Sha256, Timestamp};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use ureq::http::Method;
use uuid::Uuid;

use crate::config::{Config, Interface, Network, Overlay, Settings};
use crate::console::Consoles;
use crate::engine::Engine;
use crate::http::auth::Operators;
use crate::http::{self, BootFiles};
use crate::ingest::{Ingests, Rules, Vetting};
use crate::store::{Store, queries};
use crate::tokens::Tokens;

pub(super) const TOKEN: &str = "a-token-that-is-long-enough-to-be-one-of-ours";

/// Method, path and status of what was asked for.
pub(super) type Asked = Arc<Mutex<Vec<(String, String, u16)>>>;

pub(super) struct Lab {
    pub address: SocketAddr,
    pub dir: PathBuf,
    pub engine: Engine,
    pub consoles: Consoles,
    pub known: Arc<Operators>,
    pub asked: Asked,
    stop: CancellationToken,
}

/// What the server answered.
#[derive(Debug)]
pub(super) struct Got {
    pub status: u16,
    pub body: Value,
    pub kind: String,
    pub headers: ureq::http::HeaderMap,
}

impl Got {
    pub fn code(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }
}

impl Lab {
    pub async fn new() -> Self {
        Self::with_config(|_| {}).await
    }

    /// With another configuration.
    pub async fn with_config(change: impl FnOnce(&mut Config)) -> Self {
        let dir = std::env::temp_dir().join(format!("billet-api-{}", Uuid::new_v4()));
        fs::create_dir_all(dir.join("import")).unwrap();
        let mut config = Config { state_dir: dir.clone(), ..Config::default() };
        config.provisioning.interface = Some("lab0".to_owned());
        // Nobody is there: what is asked of networks is stored all the same.
        config.overlay = Some(Overlay {
            northbound: Some("unix:/nowhere/ovnnb_db.sock".to_owned()),
            southbound: None,
            encap: Default::default(),
            mtu: 1500,
            gateways: vec!["gw".to_owned()],
            mirror_to: vec!["198.51.100.0/24".to_owned()],
            tls: None,
        });
        change(&mut config);
        let ipv4 = Some(Network { address: [10, 77, 0, 1].into(), prefix: 24 });
        let interface = Interface { name: "lab0".to_owned(), ipv4, ipv6: Vec::new() };
        let settings = Settings::new(&config, &[interface]).unwrap();
        let store = Store::open(&dir.join("billet.db")).unwrap();
        for (node, inventory) in machines() {
            store
                .write(move |db| {
                    queries::insert_node(db, &node)?;
                    match &inventory {
                        Some(inventory) => queries::put_inventory(db, node.id, Timestamp(1), inventory),
                        None => Ok(()),
                    }
                })
                .await
                .unwrap();
        }
        let images = images::Store::open(settings.images_dir()).unwrap();
        let engine = Engine::open(settings.clone(), store, images).await.unwrap();
        let stop = CancellationToken::new();
        let rules = Rules {
            import_dirs: settings.import_dirs.clone(),
            vetting: Vetting {
                trusted_hosts: vec!["localhost".to_owned()],
                own: settings.addresses().collect(),
            },
        };
        let ingests = Ingests::new(engine.clone(), rules, stop.clone());
        let files = Arc::new(BootFiles::new(&settings));
        let named = Tokens::open(engine.store().clone()).await.unwrap();
        let known = Arc::new(Operators::new(TOKEN, named));
        let consoles = Consoles::open(engine.clone(), None, stop.clone()).await.unwrap();
        tokio::spawn(consoles.clone().run());
        let router =
            http::operators(engine.clone(), files, ingests, consoles.clone(), known.clone(), stop.clone());
        let asked = Asked::default();
        let router = router.layer(from_fn_with_state(asked.clone(), super::commands::note));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(http::run(listener, router, stop.clone()));
        Self { address, dir, engine, consoles, known, asked, stop }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> Got {
        self.send(Method::GET, path, &[], Vec::new()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Got {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.to_string().into_bytes())
            .await
    }

    /// As an operator.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Got {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [headers, &[("authorization", bearer.as_str())]].concat();
        self.send_as(method, path, &headers, body).await
    }

    /// With these headers alone.
    pub async fn send_as(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Got {
        let mut request = ureq::http::Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .allow_non_standard_methods(true)
            .proxy(None)
            .build()
            .new_agent();
        let mut response = tokio::task::spawn_blocking(move || agent.run(request)).await.unwrap().unwrap();
        let text = response.body_mut().read_to_vec().unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        let kind = response.headers().get("content-type").map(|h| h.to_str().unwrap().to_owned());
        Got {
            status: response.status().as_u16(),
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
            kind: kind.unwrap_or_default(),
            headers: response.headers().clone(),
        }
    }

    pub async fn upload(&self, query: &str, body: Vec<u8>) -> Got {
        let path = format!("/api/v1/images/upload?{query}");
        self.send(Method::POST, &path, &[("content-type", "application/octet-stream")], body).await
    }

    /// Files in the image store, which a refused image must leave as they were.
    pub fn stored_files(&self) -> usize {
        fn count(dir: &Path) -> usize {
            let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
            entries.map(|p| if p.is_dir() { count(&p) } else { 1 }).sum()
        }
        ["chunks", "manifests", "tmp"].iter().map(|d| count(&self.dir.join("images").join(d))).sum()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn machines() -> [(Node, Option<Inventory>); 3] {
    let node = |n: u8, name: &str, state: State| {
        let claim = Claim {
            uuid: None,
            serial: Some(format!("SN-{name}")),
            macs: vec![MacAddr([0x52, 0x54, 0, 0, 0, n])],
        };
        let id = NodeId(Uuid::from_u128(u128::from(n)));
        let identity: Identity = claim.into_identity();
        Node { state, ..Node::discovered(id, name.to_owned(), identity, Timestamp(1)) }
    };
    let inventory = Inventory {
        cpus: vec![Cpu { architecture: "x86_64".to_owned(), cores: 4, ..Cpu::default() }],
        disks: vec![disk("S1", 10), disk("S2", 20), Disk { removable: true, ..disk("STICK", 8) }],
        ..Inventory::default()
    };
    let mut active = node(2, "beta", State::Active);
    active.installed = Some(Installed {
        image: ImageId(Sha256([0; 32])),
        image_name: "debian-12 1".to_owned(),
        hostname: "beta".to_owned(),
        disk: "serial:S1".parse::<DiskId>().unwrap(),
        since: Timestamp(1),
        phone_home: None,
        host_keys: Vec::new(),
    });
    [
        (node(1, "alpha", State::Available), Some(inventory.clone())),
        (active, Some(inventory)),
        (node(3, "gamma", State::Enroll), None),
    ]
}

fn disk(serial: &str, gb: u64) -> Disk {
    Disk {
        id: DiskId::of(None, Some(serial), None),
        name: format!("vd{}", serial.to_lowercase()),
        bus_path: None,
        model: Some("QEMU".to_owned()),
        serial: Some(serial.to_owned()),
        wwn: None,
        firmware: None,
        size_bytes: gb * 1_000_000_000,
        logical_sector: 512,
        physical_sector: 512,
        rotational: false,
        transport: Transport::Virtio,
        removable: false,
        read_only: false,
        content: DiskContent::Unknown,
    }
}

/// A raw disk of 1 MiB with a GPT without partitions, boot code, and `seed` in its data.
pub(super) fn raw_disk(seed: u8) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[0] = 0xfa;
    disk[450] = 0xee;
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut header = [0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x10000_u32.to_le_bytes());
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&128_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    let crc = crc32(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    disk[512..512 + 92].copy_from_slice(&header);
    disk[700_000..700_100].fill(seed);
    disk
}

/// CRC-32 (IEEE 802.3), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
