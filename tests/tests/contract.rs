//! The contract of netboot: every name and every URL that a DHCP reply or a script can hold is served. Real packets go to
//! the real server, for every kind of client and every way to set it up; what the answers name is fetched by curl (TFTP,
//! HTTP, HTTPS), and what is named in there too, to the end.
//!
//! A new kind of client is a line in [`KINDS`]; a new way to set the server up is a test that calls [`walk`]; a new
//! form of script is a function that [`named_in`] calls.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use tests::rack::{BRIDGE, Namespace, Rack, SERVER_ADDRESS};

/// Where the client's own address is: outside of what is lent.
const CLIENT_ADDRESS: &str = "10.77.0.2/24";
/// Its interface.
const PORT: &str = "c0";
/// Time for one DHCP answer, with two repetitions.
const ANSWER: Duration = Duration::from_secs(4);
/// Files that one walk may fetch: more is a loop.
const FETCHES_MAX: usize = 200;

/// A kind of client, by what its packets say.
struct Kind {
    name: &'static str,
    /// Option 60.
    vendor_class: &'static str,
    /// Option 93.
    architecture: Option<u16>,
    /// Option 77, and with it iPXE's option 175.
    user_class: Option<&'static str>,
    /// Where a loader must be named; arm64 loaders are not in every release of Debian.
    must_boot: bool,
}

const fn firmware(
    name: &'static str,
    vendor_class: &'static str,
    architecture: u16,
    must_boot: bool,
) -> Kind {
    Kind { name, vendor_class, architecture: Some(architecture), user_class: None, must_boot }
}

const fn ipxe(name: &'static str, vendor_class: &'static str, architecture: u16) -> Kind {
    let user_class = Some("iPXE");
    Kind { name, vendor_class, architecture: Some(architecture), user_class, must_boot: true }
}

const KINDS: &[Kind] = &[
    Kind {
        name: "BIOS of before RFC 4578",
        vendor_class: "PXEClient",
        architecture: None,
        user_class: None,
        must_boot: true,
    },
    firmware("BIOS", "PXEClient:Arch:00000:UNDI:002001", 0, true),
    firmware("x64 UEFI", "PXEClient:Arch:00007:UNDI:003000", 7, true),
    firmware("x64 UEFI that says 9", "PXEClient:Arch:00009:UNDI:003000", 9, true),
    firmware("32-bit UEFI", "PXEClient:Arch:00006:UNDI:003000", 6, false),
    firmware("arm64 UEFI", "PXEClient:Arch:00011:UNDI:003000", 11, false),
    firmware("32-bit UEFI HTTP boot", "HTTPClient:Arch:00015:UNDI:003000", 15, false),
    firmware("x64 UEFI HTTP boot", "HTTPClient:Arch:00016:UNDI:003000", 16, true),
    firmware("arm64 UEFI HTTP boot", "HTTPClient:Arch:00019:UNDI:003000", 19, false),
    ipxe("iPXE on BIOS", "PXEClient:Arch:00000:UNDI:002001", 0),
    ipxe("iPXE on x64 UEFI", "PXEClient:Arch:00007:UNDI:003010", 7),
    ipxe("iPXE on arm64 UEFI", "PXEClient:Arch:00011:UNDI:003010", 11),
];

#[test]
fn as_installed() -> Result<()> {
    let mut lab = Lab::new("contract", |config| config)?;
    let fetched = lab.walk()?;
    for part in ["undionly.kpxe", "snponly.efi", "/boot/start.ipxe", "/boot/ipxe?", "vmlinuz", "initramfs"] {
        ensure!(fetched.iter().any(|url| url.contains(part)), "{part} was not fetched: {fetched:#?}");
    }
    ensure!(fetched.iter().any(|url| url.starts_with("tftp://")), "nothing was fetched by TFTP");

    // The guard of the guard: a file that is advertised and gone is found.
    let loader = lab.loaders.join("snponly.efi");
    fs::rename(&loader, lab.loaders.join("away"))?;
    let missed = lab.walk().err().context("a missing loader was not noticed")?;
    ensure!(format!("{missed:#}").contains("snponly.efi"), "{missed:#}");
    lab.rack.passed();
    Ok(())
}

#[test]
fn firmware_by_https() -> Result<()> {
    let mut lab = Lab::new("contract-https", |config| {
        config.replace("[provisioning]\n", "[provisioning]\ntls_port = 8443\nfirmware_by_https = true\n")
    })?;
    let fetched = lab.walk()?;
    let loader = format!("https://{SERVER_ADDRESS}:8443/boot/files/snponly.efi");
    ensure!(fetched.contains(&loader), "{fetched:#?}");
    ensure!(!fetched.iter().any(|u| u.starts_with("https://") && u.contains("ipxe")), "{fetched:#?}");
    lab.rack.passed();
    Ok(())
}

#[test]
fn secure_boot_by_shim() -> Result<()> {
    let mut lab =
        Lab::new("contract-shim", |config| config.replace("[boot]\n", "[boot]\nsecure_boot = \"shim\"\n"))?;
    let fetched = lab.walk()?;
    for scheme in ["tftp://", "http://"] {
        for part in ["shimx64.efi", "grubx64.efi", "/grub/grub.cfg", "/grub/node/", "vmlinuz", "initramfs"] {
            let found = fetched.iter().any(|url| url.starts_with(scheme) && url.contains(part));
            ensure!(found, "{part} was not fetched by {scheme}: {fetched:#?}");
        }
    }
    lab.rack.passed();
    Ok(())
}

/// A server with loaders of its own, and a client beside it.
struct Lab {
    rack: Rack,
    client: Namespace,
    loaders: PathBuf,
}

impl Lab {
    fn new(name: &str, change: impl FnOnce(String) -> String) -> Result<Self> {
        let mut rack = Rack::new(name)?;
        let loaders = rack.dir().join("loaders");
        fs::create_dir_all(&loaders)?;
        for name in ["undionly.kpxe", "snponly.efi", "ipxe.efi"] {
            fs::copy(format!("/usr/lib/ipxe/{name}"), loaders.join(name)).context("package ipxe")?;
        }
        let client = Namespace::new()?;
        let inside = rack.namespace();
        inside.ip(&["link", "add", "c1", "type", "veth", "peer", "name", PORT, "netns", client.name()])?;
        inside.ip(&["link", "set", "c1", "master", BRIDGE, "up"])?;
        client.ip(&["addr", "add", CLIENT_ADDRESS, "dev", PORT])?;
        client.ip(&["link", "set", PORT, "up"])?;
        let line = format!(
            "[boot]\nloaders = [{loaders:?}, \"/usr/lib/shim\", \"/usr/lib/grub/x86_64-efi-signed\"]\n"
        );
        rack.start_server_with(|config| change(config.replace("[boot]\n", &line)))?;
        Ok(Self { rack, client, loaders })
    }

    /// Asks as every kind of client, and fetches whatever is named, to the end.
    fn walk(&mut self) -> Result<BTreeSet<String>> {
        let mut fetched = BTreeSet::new();
        for (n, kind) in KINDS.iter().enumerate() {
            let mac = [0x52, 0x54, 0, 0xc0, 0, n.to_le_bytes()[0]];
            let (address, named) = self.ask(kind, mac).with_context(|| format!("asking as {}", kind.name))?;
            // Whoever was lent an address asks from it: the server may insist.
            let address = address.to_string();
            let _ = self.client.ip(&["addr", "add", &format!("{address}/24"), "dev", PORT]); // there from before, maybe
            ensure!(!named.is_empty() || !kind.must_boot, "{} is told nothing to boot", kind.name);
            let mut left = Vec::from_iter(named);
            while let Some(url) = left.pop() {
                if !fetched.insert(url.clone()) {
                    continue;
                }
                ensure!(fetched.len() < FETCHES_MAX, "no end of files: {fetched:#?}");
                let content = self.fetch(&url, &address).with_context(|| format!("for {}", kind.name))?;
                left.extend(named_in(&url, &content, mac));
            }
        }
        Ok(fetched)
    }

    /// What DHCP lends and names to such a client: in the offer and in the acknowledgement.
    fn ask(&self, kind: &Kind, mac: [u8; 6]) -> Result<(Ipv4Addr, BTreeSet<String>)> {
        let handle = self.client.clone_handle()?;
        let talk = || -> Result<(Ipv4Addr, BTreeSet<String>)> {
            handle.enter()?;
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68))?;
            setsockopt(&socket, sockopt::BindToDevice, &PORT.into())?;
            socket.set_broadcast(true)?;
            let offer = exchange(&socket, &packet(kind, mac, 1, None), mac, 2)?;
            let ack = exchange(&socket, &packet(kind, mac, 3, Some(&offer)), mac, 5)?;
            Ok((ack.address.into(), offer.named()?.into_iter().chain(ack.named()?).collect()))
        };
        // A thread stays in the namespace that it entered.
        std::thread::scope(|scope| scope.spawn(talk).join())
            .map_err(|_| anyhow::anyhow!("the client broke"))?
    }

    /// The file behind a URL, asked for from `address`.
    fn fetch(&mut self, url: &str, address: &str) -> Result<Vec<u8>> {
        let ca = self.rack.server()?.state_dir().join("tls/site-ca.crt");
        let mut curl = self.client.command("curl");
        curl.args(["--silent", "--show-error", "--fail", "--globoff", "--max-time", "60", "--noproxy", "*"]);
        curl.args(["--interface", address]);
        if url.starts_with("https://") {
            curl.arg("--cacert").arg(ca);
        }
        let output = curl.arg(url).output().context("starting curl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{url} is named and not served: {}", said.trim());
        ensure!(!output.stdout.is_empty(), "{url} is named and empty");
        Ok(output.stdout)
    }
}

/// Sends until the answer of this type is there.
fn exchange(socket: &UdpSocket, packet: &[u8], mac: [u8; 6], wanted: u8) -> Result<Reply> {
    let end = Instant::now() + ANSWER * 3;
    while Instant::now() < end {
        socket.send_to(packet, (Ipv4Addr::BROADCAST, 67))?;
        let again = Instant::now() + ANSWER;
        while let Some(left) = again.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            let mut buffer = [0; 2048];
            let Ok(n) = socket.recv(&mut buffer) else { break };
            let Some(reply) = Reply::parse(&buffer[..n]).filter(|r| r.mac == mac) else { continue };
            ensure!(reply.kind() != 6, "the server says NAK");
            if reply.kind() == wanted {
                return Ok(reply);
            }
        }
    }
    bail!("no DHCP answer of type {wanted}")
}

/// DISCOVER (1) or REQUEST (3), with the broadcast flag (RFC 2131 section 2).
fn packet(kind: &Kind, mac: [u8; 6], message: u8, offer: Option<&Reply>) -> Vec<u8> {
    let mut out = vec![1, 1, 6, 0];
    out.extend([0xc0, message, mac[4], mac[5], 0, 4, 0x80, 0]);
    out.extend([0; 16]);
    out.extend(mac);
    out.extend([0; 10 + 64 + 128]);
    out.extend([99, 130, 83, 99, 53, 1, message]);
    let mut option = |code: u8, value: &[u8]| {
        out.extend([code, value.len().to_le_bytes()[0]]);
        out.extend(value);
    };
    option(55, &[1, 3, 6, 13, 15, 43, 54, 60, 66, 67, 97, 150, 175]);
    option(57, &1472_u16.to_be_bytes());
    option(60, kind.vendor_class.as_bytes());
    if let Some(architecture) = kind.architecture {
        option(93, &architecture.to_be_bytes());
        option(94, &[1, 3, 0]);
    }
    let mut guid = [0; 17];
    guid[11..].copy_from_slice(&mac);
    option(97, &guid);
    if let Some(class) = kind.user_class {
        option(77, class.as_bytes());
        // Features: HTTP (19), HTTPS (20), menu (39), EFI or PXE as it may be.
        option(175, &[19, 1, 1, 20, 1, 1, 39, 1, 1]);
    }
    if let Some(offer) = offer {
        option(50, &offer.address);
        option(54, offer.option(54).unwrap_or_default());
    }
    out.push(255);
    out.resize(out.len().max(548), 0);
    out
}

/// A DHCP answer, as far as it names files.
struct Reply {
    mac: [u8; 6],
    address: [u8; 4],
    next_server: Ipv4Addr,
    /// The fields `sname` and `file`, where they hold text.
    fields: Vec<String>,
    options: Vec<(u8, Vec<u8>)>,
}

impl Reply {
    fn parse(packet: &[u8]) -> Option<Self> {
        let mac = packet.get(28..34)?.try_into().ok()?;
        let address = packet.get(16..20)?.try_into().ok()?;
        let next: [u8; 4] = packet.get(20..24)?.try_into().ok()?;
        let text = |at: std::ops::Range<usize>| Some(until_zero(packet.get(at)?));
        let fields = vec![text(44..108)?, text(108..236)?];
        let (mut rest, mut options) = (packet.get(240..)?, Vec::new());
        while let [code, after @ ..] = rest {
            match code {
                0 => rest = after,
                255 => break,
                _ => {
                    let len = usize::from(*after.first()?);
                    options.push((*code, after.get(1..=len)?.to_vec()));
                    rest = &after[1 + len..];
                }
            }
        }
        Some(Self { mac, address, next_server: next.into(), fields, options })
    }

    fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(c, _)| *c == code).map(|(_, v)| v.as_slice())
    }

    fn kind(&self) -> u8 {
        self.option(53).and_then(|v| v.first()).copied().unwrap_or(0)
    }

    /// Everything that is named, as URLs.
    fn named(&self) -> Result<BTreeSet<String>> {
        // Option overload (52) would put options where names are looked for.
        ensure!(self.option(52).is_none(), "an answer with overloaded fields");
        let server = match self.option(66).map(until_zero) {
            Some(server) => server,
            None if self.next_server.is_unspecified() => SERVER_ADDRESS.to_owned(),
            None => self.next_server.to_string(),
        };
        let files = [self.fields.get(1).cloned(), self.option(67).map(until_zero)];
        let mut named: BTreeSet<String> = files
            .into_iter()
            .flatten()
            .filter(|file| !file.is_empty())
            .map(|file| if file.contains("://") { file } else { format!("tftp://{server}/{file}") })
            .collect();
        // Whatever else holds a URL: 43 (menus), 114, 175 (iPXE's own).
        for (_, value) in &self.options {
            named.extend(urls_of(&String::from_utf8_lossy(value)));
        }
        Ok(named)
    }
}

fn until_zero(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// URLs of our kinds in a text, where a word or a value begins with one.
fn urls_of(text: &str) -> Vec<String> {
    text.split(|c: char| c.is_whitespace() || c.is_control() || "'\"".contains(c))
        .map(|word| match word.split_once('=') {
            // The agent takes it as a base, not as a file.
            Some(("billet.server", _)) => "",
            Some((key, value)) if !key.contains("://") => value,
            _ => word,
        })
        .filter(|word| ["http://", "https://", "tftp://"].iter().any(|scheme| word.starts_with(scheme)))
        .map(str::to_owned)
        .collect()
}

/// What a fetched file makes its reader fetch.
fn named_in(url: &str, content: &[u8], mac: [u8; 6]) -> Vec<String> {
    let root: String = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    let path = url.get(root.len()..).unwrap_or_default();
    let beside = |name: &str| format!("{}/{name}", url.rsplit_once('/').map_or(url, |(dir, _)| dir));
    if content.starts_with(b"#!ipxe") {
        return urls_of(&as_ipxe(&String::from_utf8_lossy(content), mac));
    }
    if path.ends_with("/shimx64.efi") {
        return vec![beside("grubx64.efi")];
    }
    if path.ends_with("/grubx64.efi") {
        // Its own settings, as built by Debian: `prefix` is /grub of where it came from.
        return vec![format!("{root}/grub/grub.cfg")];
    }
    if path.ends_with(".cfg") {
        return grub_files(&String::from_utf8_lossy(content), &root, mac);
    }
    Vec::new()
}

/// The variables that a script asks iPXE for, as a machine would fill them in.
fn as_ipxe(script: &str, mac: [u8; 6]) -> String {
    let uuid = format!("00000000-0000-0000-0000-{}", hex(mac, ""));
    let values = [
        ("${netX/mac:hexhyp}", hex(mac, "-")),
        ("${net0/mac:hexhyp}", hex(mac, "-")),
        ("${uuid}", uuid),
        ("${serial:uristring}", "CONTRACT-1".to_owned()),
        ("${manufacturer:uristring}", "QEMU".to_owned()),
        ("${product:uristring}", "Standard%20PC".to_owned()),
        ("${platform}", "efi".to_owned()),
        ("${buildarch}", "x86_64".to_owned()),
    ];
    values.iter().fold(script.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// The files of a GRUB script: what its commands take, on the server that it came from or on another.
fn grub_files(script: &str, root: &str, mac: [u8; 6]) -> Vec<String> {
    let uuid = format!("00000000-0000-0000-0000-{}", hex(mac, ""));
    let script = script
        .replace("${net_default_mac}", &hex(mac, ":"))
        .replace("${billet_uuid}", &uuid)
        .replace("$prefix", "/grub");
    let mut files = Vec::new();
    for line in script.lines() {
        let mut words =
            line.split(|c: char| c.is_whitespace() || "'\";".contains(c)).filter(|w| !w.is_empty());
        let command = words.find(|w| ["linux", "initrd", "source", "configfile", "chainloader"].contains(w));
        for word in words.filter(|_| command.is_some()) {
            if word.starts_with('/') {
                files.push(format!("{root}{word}"));
            } else if let Some((device, path)) = word.strip_prefix('(').and_then(|w| w.split_once(')'))
                && let Some((protocol @ ("http" | "tftp"), host)) = device.split_once(',')
            {
                files.push(format!("{protocol}://{host}{path}"));
            }
        }
    }
    files
}

fn hex(mac: [u8; 6], between: &str) -> String {
    mac.map(|b| format!("{b:02x}")).join(between)
}

#[test]
fn scripts_are_read_as_their_readers_do() {
    let mac = [0x52, 0x54, 0, 0xc0, 0, 1];
    let script = b"#!ipxe\nimgfetch --name billet http://h:1/boot/ipxe?mac=${netX/mac:hexhyp}&uuid=${uuid} || goto x\n\
        kernel --name kernel http://h:1/k initrd=initrd0 billet.server=http://h:1 preseed/url=http://h:1/p || goto x\n";
    let uuid = "00000000-0000-0000-0000-525400c00001";
    assert_eq!(
        named_in("http://h:1/boot/start.ipxe", script, mac),
        [
            format!("http://h:1/boot/ipxe?mac=52-54-00-c0-00-01&uuid={uuid}"),
            "http://h:1/k".to_owned(),
            "http://h:1/p".to_owned()
        ]
    );
    assert_eq!(named_in("tftp://h/shimx64.efi", b"MZ", mac), ["tftp://h/grubx64.efi"]);
    assert_eq!(named_in("http://h:1/boot/grubx64.efi", b"MZ", mac), ["http://h:1/grub/grub.cfg"]);
    let script = b"source \"$prefix/node/${net_default_mac}_${billet_uuid}.cfg\"\n\
        if linux '/boot/k' 'quiet'; then\nif initrd '/boot/i' '(http,10.88.0.1)/fw'; then boot; fi\nfi\n";
    assert_eq!(
        named_in("http://h:1/grub/grub.cfg", script, mac),
        [
            format!("http://h:1/grub/node/52:54:00:c0:00:01_{uuid}.cfg"),
            "http://h:1/boot/k".to_owned(),
            "http://h:1/boot/i".to_owned(),
            "http://10.88.0.1/fw".to_owned()
        ]
    );
}
