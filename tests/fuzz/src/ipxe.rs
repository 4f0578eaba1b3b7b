//! A boot loader's request for its script, and the script that it gets, for iPXE and for GRUB.

use boot_server_core::boot_request::{BootRequest, printable};
use boot_server_core::grub;
use boot_server_core::ipxe::{BiosDisk, CommandLine, Kernel, KernelArg, Script, Url};
use boot_server_core::node::Identity;
use boot_server_core::node::identity::{Match, identify};
use protocol::{MacAddr, NodeId};
use uuid::Uuid;

const BASE: &str = "http://10.77.0.1:8080";

/// The input is the query as it stands in the URL, and likewise the name that GRUB asks for.
pub fn run(data: &[u8]) {
    if let Ok(asked) = serde_urlencoded::from_bytes::<BootRequest>(data) {
        answer(&asked);
    }
    if let Some((mac, uuid)) = std::str::from_utf8(data).ok().and_then(grub::asked) {
        answer(&BootRequest { mac: mac.to_owned(), uuid: uuid.to_owned(), ..BootRequest::default() });
    }
}

fn answer(asked: &BootRequest) {
    let claim = asked.claim();
    let known =
        Identity { uuid: Some(Uuid::from_u128(7)), serial: None, macs: [MacAddr([2, 0, 0, 0, 0, 7])].into() };
    let node = NodeId(Uuid::from_u128(1));
    match identify(&claim, [(node, &known)]) {
        Match::Unknown => {}
        Match::Node(found) => assert_eq!(found, node),
        Match::Conflict { nodes, why } => panic!("{nodes:?} in conflict, where there is one: {why}"),
    }
    let clean = claim.cleaned();
    assert_eq!(clean, clean.cleaned(), "what is clean stays as it is");
    assert!(clean.macs.iter().all(MacAddr::is_station));
    // Whatever the machine says of itself may stand in a message.
    let message = format!("{} {} {}", printable(&asked.product), asked.serial, asked.manufacturer);
    let harmless = scripts("x", "", None);
    for (script, harmless) in scripts(&message, &asked.platform, claim.macs.first()).iter().zip(&harmless) {
        ipxe(script);
        assert_eq!(outside_quotes(script), outside_quotes(harmless), "{}", grub::render(script, &base()));
    }
}

fn base() -> Url {
    Url::new(BASE).expect("a URL")
}

fn scripts(message: &str, word: &str, mac: Option<&MacAddr>) -> [Script; 3] {
    [
        Script::Refuse { message: message.to_owned() },
        Script::LocalDisk { message: message.to_owned(), bios: BiosDisk::NextDevice },
        agent(message.to_owned(), word, mac),
    ]
}

/// Arguments come from typed values; a word of the machine's own is taken only where it cannot be syntax.
fn agent(message: String, word: &str, mac: Option<&MacAddr>) -> Script {
    let mut args: Vec<_> = KernelArg::parse(word).into_iter().collect();
    args.extend(mac.and_then(|mac| KernelArg::new("billet.mac", &mac.to_string()).ok()));
    let kernel = Url::new(format!("{BASE}/boot/files/vmlinuz")).expect("a URL");
    let args = CommandLine::new(args).unwrap_or_default();
    Script::Agent { message, boot: Kernel { kernel, initrds: Vec::new(), args } }
}

/// The lines are those that the same script with harmless words has, and nothing is expanded but what we wrote.
fn ipxe(script: &Script) {
    let text = script.render();
    let commands =
        ["#!ipxe", "echo", "exit", "iseq", "set", ":efi", ":failed", "imgfree", "kernel", "boot", "sanboot"];
    for line in text.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        assert!(commands.contains(&first), "{line:?} in {text}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
        let shown = first == "echo" || first == "kernel";
        assert!(!shown || !line.contains('$'), "{line:?} would be expanded");
    }
}

/// GRUB's commands: what stands outside quotes, each of which is closed on its line. The same whatever the words are.
fn outside_quotes(script: &Script) -> Vec<String> {
    let text = grub::render(script, &base());
    let outside = |line: &str| {
        assert_eq!(line.matches('\'').count() % 2, 0, "{line:?}");
        let all: String = line.split('\'').step_by(2).collect();
        all.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    text.lines().map(outside).collect()
}
