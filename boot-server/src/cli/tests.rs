//! What the commands print, and how they end.

use std::collections::BTreeMap;

use boot_server_core::deploy::DiskFate;
use boot_server_core::node::{BootKind, Severity, StateName};
use clap::{CommandFactory, Parser};
use images::Datasource;
use protocol::fault::{Fault, FaultCode};
use protocol::report::Progress;
use protocol::{DiskId, ImageId, JobId, MacAddr, NodeId, Sha256, Timestamp};
use uuid::Uuid;

use super::output::{Format, Show};
use super::watch::{Goal, Verdict, status_line, verdict};
use super::{Cli, Failure};
use crate::view::*;

const START: Timestamp = Timestamp(1_795_305_600_000);

fn node(name: &str, state: StateName) -> NodeView {
    NodeView {
        id: NodeId(Uuid::from_u128(7)),
        name: name.to_owned(),
        state,
        waits_for: None,
        deadline: None,
        fault: None,
        maintenance: None,
        maintenance_until: None,
        maintenance_by: None,
        model: None,
        dirty: None,
        quarantine: None,
        retired: None,
        papers: Default::default(),
        agent: false,
        trust: crate::view::TrustView { why: "no agent".into(), boot: 3, ..Default::default() },
        boots: BootKind::LocalDisk,
        boot: None,
        job: None,
        power: None,
        health: None,
        installed: None,
        uuid: None,
        serial: Some("S\u{1b}[31mN-1".to_owned()),
        macs: vec![MacAddr([0x52, 0x54, 0, 0, 0, 1])],
        place: None,
        pool: boot_server_core::names::PoolName::default_pool(),
        tags: Default::default(),
        network: None,
        created: START,
        hardware: None,
        timeline: TimelineView { title: String::new(), phases: Vec::new() },
    }
}

fn deploying(done: u64) -> NodeView {
    let disk: DiskId = "serial:S1".parse().unwrap();
    NodeView {
        waits_for: Some("chunk 3 of 9 (writing)".to_owned()),
        deadline: Some(START),
        job: Some(JobView {
            id: JobId(Uuid::from_u128(9)),
            verb: "deploy".to_owned(),
            stage: "write".to_owned(),
            since: START,
            progress: Some(Progress {
                bytes_done: done,
                bytes_total: 4_000_000_000,
                bytes_per_second: 500_000_000,
                ..Progress::default()
            }),
            seconds_left: Some(6),
            image: Some("debian-12 1".to_owned()),
            disk: Some(disk),
            abort: false,
        }),
        ..node("beta", StateName::Deploying)
    }
}

fn failed() -> NodeView {
    let fault = Fault::new(FaultCode::DiskIo, "disk serial:S1 failed\u{9b}2J", "replace it");
    NodeView { fault: Some(fault), ..node("gamma", StateName::Failed) }
}

fn nodes() -> Page<NodeView> {
    let hardware = Hardware {
        product: "Dell Inc. PowerEdge R760".to_owned(),
        cpu: "Xeon".to_owned(),
        cores: 64,
        memory_bytes: 512 << 30,
        disks: 2,
        disk_bytes: 3_840_000_000_000,
        nics: 4,
        firmware: "uefi".to_owned(),
    };
    let installed = InstalledView {
        image: ImageId(Sha256([1; 32])),
        image_name: "debian-12 20261122".to_owned(),
        hostname: "alpha".to_owned(),
        disk: "serial:S1".parse().unwrap(),
        since: START,
        host_keys: Vec::new(),
    };
    let alpha = NodeView {
        hardware: Some(hardware),
        installed: Some(installed),
        maintenance: Some("fan".to_owned()),
        ..node("alpha", StateName::Active)
    };
    Page { items: vec![alpha, deploying(1_000_000_000), failed()], next: None }
}

#[test]
fn nodes_in_every_form() {
    insta::assert_snapshot!("nodes_table", Format::Table.render(&nodes()).unwrap());
    insta::assert_snapshot!("node_table", nodes().items[1].table());
    assert_eq!(Format::Name.render(&nodes()).unwrap(), "alpha\nbeta\ngamma\n");
    insta::assert_snapshot!(
        "nodes_empty",
        Format::Table.render(&Page::<NodeView> { items: vec![], next: None }).unwrap()
    );
    let json: serde_json::Value = serde_json::from_str(&Format::Json.render(&failed()).unwrap()).unwrap();
    assert_eq!(json["fault"]["message"], "disk serial:S1 failed\u{9b}2J", "JSON keeps the value");
    insta::assert_snapshot!("node_yaml", Format::Yaml.render(&failed()).unwrap());
}

#[test]
fn no_form_lets_a_machine_write_to_the_terminal() {
    for format in [Format::Table, Format::Json, Format::Yaml, Format::Name] {
        for node in nodes().items {
            let text = format.render(&node).unwrap();
            assert!(text.chars().all(|c| c == '\n' || !super::text::is_unsafe(c)), "{format:?}: {text:?}");
        }
    }
    let problem =
        Problem { status: 409, code: "x".into(), message: "a\u{1b}]0;x\u{7}b".into(), hint: "c\r\nd".into() };
    insta::assert_snapshot!("problem", Failure::Problem(problem).text());
}

#[test]
fn a_preview_says_what_is_lost() {
    let preview = DeployPreview {
        target: Some("serial:S1".parse().unwrap()),
        disks: vec![
            DiskFate {
                id: Some("serial:S1".parse().unwrap()),
                title: "nvme0n1 · KIOXIA · 960 GB".to_owned(),
                holds: "GPT table, 1: vfat 536.8 MB".to_owned(),
                erased: true,
            },
            DiskFate {
                id: None,
                title: "sda · unknown model · 8 GB".to_owned(),
                holds: "blank".to_owned(),
                erased: false,
            },
        ],
        refused: None,
    };
    insta::assert_snapshot!("preview", preview.table());
}

#[test]
fn images_events_and_status() {
    let image = ImageView {
        id: ImageId(Sha256([0xab; 32])),
        name: "debian-12".to_owned(),
        version: "20261122".to_owned(),
        architecture: "x86_64".to_owned(),
        firmware: vec!["bios".to_owned(), "uefi".to_owned()],
        raw_bytes: 2_000_000_000,
        data_bytes: 900_000_000,
        minimum_disk: 2_000_000_000,
        sha256: Sha256([0xcd; 32]),
        default_user: Some("debian".to_owned()),
        datasource: Datasource::Nocloud,
        chunks: 240,
        added: START,
        origin: "upload".to_owned(),
        used_by: vec!["alpha".to_owned()],
        signed: Some(SignatureView {
            key: "EFB568065BCA8E5E".to_owned(),
            title: "this site".to_owned(),
            number: 1_764_288_000_000,
        }),
        unsigned: None,
    };
    insta::assert_snapshot!("image", image.table());
    insta::assert_snapshot!("images", Page { items: vec![image], next: None }.table());
    let event = EventView {
        id: 12,
        at: START,
        node: Some(NodeId(Uuid::from_u128(7))),
        node_name: Some("alpha".to_owned()),
        project: None,
        actor: "agent".to_owned(),
        source: None,
        kind: "deploy.finished".to_owned(),
        severity: Severity::Info,
        message: "up\u{1b}[0m".to_owned(),
    };
    insta::assert_snapshot!("events", Page { items: vec![event], next: None }.table());
    let status = StatusView {
        version: "0.1.0".to_owned(),
        started: START,
        interface: Some("eth1".to_owned()),
        address: Some([10, 77, 0, 1].into()),
        address6: None,
        dhcp: DhcpView { enabled: true, leases: 3 },
        nodes: BTreeMap::from([("active".to_owned(), 2), ("failed".to_owned(), 1)]),
        ramdisk: RamdiskView { present: true, kernel: Some("6.1.0-56-amd64".to_owned()), bytes: 30_000_000 },
        dhcp_servers: vec![DhcpServerView {
            address: [10, 77, 0, 9].into(),
            mac: Some(MacAddr([0x52, 0x54, 0, 1, 2, 3])),
            interface: "eth1".to_owned(),
            first_seen: START,
            last_seen: START,
            lends: true,
            boots: false,
            expected: false,
        }],
    };
    insta::assert_snapshot!("status", status.table());
}

#[test]
fn a_watch_ends_where_the_node_does() {
    let fault =
        Verdict::Failed { message: "disk serial:S1 failed\u{9b}2J".into(), hint: "replace it".into() };
    assert_eq!(verdict(Goal::Active, &failed()), Some(fault));
    assert_eq!(verdict(Goal::Active, &deploying(0)), None);
    assert_eq!(verdict(Goal::Active, &node("a", StateName::Active)), Some(Verdict::Done));
    let off = Some(Verdict::CalledOff(StateName::Available));
    assert_eq!(verdict(Goal::Active, &node("a", StateName::Available)), off);
    assert_eq!(verdict(Goal::Over, &node("a", StateName::Manageable)), Some(Verdict::Done));
    assert_eq!(status_line(&deploying(1_234_000_000)), "beta: deploy write 30 % of 4 GB");
    assert_eq!(status_line(&node("a", StateName::Active)), "a: active");
}

#[test]
fn failures_have_their_codes() {
    let problem = Problem { status: 409, code: "x".into(), message: "m".into(), hint: String::new() };
    let codes = [
        Failure::Problem(problem).code(),
        Failure::Usage("u".into()).code(),
        Failure::Timeout("t".into()).code(),
        Failure::Unreachable { server: "s".into(), cause: "c".into() }.code(),
    ];
    assert_eq!(codes, [1, 2, 3, 1]);
}

/// Arguments of a command and all below it that take the id or the name of one that is global above them.
fn eclipsed(command: &clap::Command, path: &str, above: &[(String, Option<String>)]) -> Vec<String> {
    let name = |arg: &clap::Arg| (arg.get_id().to_string(), arg.get_long().map(str::to_owned));
    let path = format!("{path} {}", command.get_name());
    let of_above = |(id, long): &(String, Option<String>)| {
        above.iter().any(|(global, name)| global == id || (long.is_some() && name == long))
    };
    let mut found: Vec<String> =
        command.get_arguments().map(name).filter(of_above).map(|(id, _)| format!("{path}: {id}")).collect();
    let globals = command.get_arguments().filter(|arg| arg.is_global_set()).map(name);
    let above: Vec<_> = above.iter().cloned().chain(globals).collect();
    for below in command.get_subcommands() {
        found.extend(eclipsed(below, &path, &above));
    }
    found
}

#[test]
fn no_argument_takes_the_place_of_a_global_one() {
    assert_eq!(eclipsed(&Cli::command(), "", &[]), Vec::<String>::new());
    let clash = clap::Command::new("top")
        .arg(clap::Arg::new("server").long("server").global(true))
        .subcommand(clap::Command::new("show").arg(clap::Arg::new("server")));
    assert_eq!(eclipsed(&clash, "", &[]), [" top show: server"]);
}

#[test]
fn a_server_of_a_project_is_not_the_address_of_the_site() {
    for words in [
        "billet --server http://s server show web -p acme",
        "billet server show web -p acme --server http://s",
    ] {
        let cli = Cli::try_parse_from(words.split(' ')).unwrap_or_else(|error| panic!("{words}: {error}"));
        assert_eq!(cli.connection.server.as_deref(), Some("http://s"), "{words}");
    }
}

#[test]
fn the_command_line_fits_together() {
    Cli::command().debug_assert();
    for good in [
        "billet node list -o json",
        "billet nodes ls --state active",
        "billet node deploy n1 --image debian-12 --disk serial:S1 --ssh-key k --yes n1 --watch --timeout 60",
        "billet node rebuild n1 -i debian-12 --disk-rule smallest-ssd --confirm n1 -w",
        "billet node provide n1 --wipe serial:S1 --wipe wwn:eui.1 --confirm n1",
        "billet node maintenance n1 --off",
        "billet node events n1 -f",
        "billet node boot n1 agent",
        "billet node boot n1 disk --always",
        "billet node boot n1 kernel d/linux --initrd d/initrd.gz --args console=ttyS0",
        "billet node boot n1 kernel d/linux --install-on serial:S1 --mirror http://m/debian --ssh-key k --yes n1",
        "billet node boot n1 iscsi 10.0.0.9 iqn.2026-01.site:v --lun 1 --chap-user u --chap-secret-file f --once",
        "billet node boot n1 iso http://x/live.iso",
        "billet node boot n1 clear",
        "billet node forget n1",
        "billet image add debian.raw.zst --name debian-12 --version 1",
        "billet image verify debian-12:1 --server http://h:1 --token-file t",
        "billet event follow --node n1",
        "billet completion zsh",
        "billet status",
        "billet login",
    ] {
        assert!(Cli::try_parse_from(good.split(' ')).is_ok(), "{good}");
    }
    for bad in [
        "billet",
        "billet node deploy n1",
        "billet node deploy n1 --image x --disk /dev/sda",
        "billet node deploy n1 --image x --disk serial:S1 --disk-rule only",
        "billet node deploy n1 --image x --timeout 5",
        "billet node maintenance n1",
        "billet node boot n1",
        "billet node boot n1 iso live.iso --once --always",
        "billet node boot n1 kernel ../linux",
        "billet node boot n1 kernel d/linux --install-on serial:S1",
        "billet node boot n1 kernel d/linux --args initrd=x",
        "billet node boot n1 iscsi 10.0.0.9 vol1",
        "billet node list -o xml",
        "billet completion powershell",
    ] {
        let error = Cli::try_parse_from(bad.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{bad}");
    }
    for shell in [super::Shell::Bash, super::Shell::Zsh, super::Shell::Fish] {
        assert!(super::completion(shell).contains("rebuild"), "{shell:?}");
    }
}
