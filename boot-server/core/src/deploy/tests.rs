//! Requests against machines: what is chosen, what is refused and with which words.

use std::collections::BTreeSet;

use images::manifest::{Architecture, CHUNK_SIZE, FORMAT};
use protocol::Sha256;
use protocol::inventory::{Cpu, Firmware as MachineFirmware};
use uuid::Uuid;

use super::*;

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT.to_owned(),
        name: "debian-12".to_owned(),
        version: "1".to_owned(),
        architecture: Architecture::X86_64,
        firmware: BTreeSet::from([Firmware::Bios, Firmware::Uefi]),
        partition_table: PartitionTable::Gpt,
        raw_size: 1 << 30,
        sha256: Sha256([0; 32]),
        minimum_disk: 2_000_000_000,
        default_user: Some("debian".to_owned()),
        datasource: None,
        chunk_size: CHUNK_SIZE,
        chunks: vec![None; 256],
    }
}

fn disk(serial: &str, gb: u64) -> Disk {
    Disk {
        id: DiskId::of(None, Some(serial), None),
        name: "vda".to_owned(),
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
        content: DiskContent::Blank,
    }
}

fn machine(disks: Vec<Disk>) -> Inventory {
    Inventory {
        cpus: vec![Cpu { architecture: "x86_64".to_owned(), ..Cpu::default() }],
        firmware: MachineFirmware { mode: FirmwareMode::Uefi, ..MachineFirmware::default() },
        disks,
        ..Inventory::default()
    }
}

fn request(disk: DiskChoice) -> DeployRequest {
    DeployRequest {
        image: "debian-12".to_owned(),
        disk,
        confirm: Some("n1".to_owned()),
        ..DeployRequest::default()
    }
}

const URLS: Urls<'_> =
    Urls { phone_home: "http://10.77.0.1:8080/phone-home/T", metadata: "http://10.77.0.1:8080/metadata/T/" };

fn try_plan(request: &DeployRequest, disks: Vec<Disk>) -> Result<(DeploySpec, String), DeployRefused> {
    let given = Given {
        node_name: "n1",
        instance: JobId(Uuid::from_u128(1)),
        urls: URLS,
        now: Timestamp(1),
        network: None,
        ports: &[],
        volume: None,
    };
    plan(request, &machine(disks), &manifest(), &given).map(|plan| (plan.spec, plan.instance.hostname))
}

fn code(request: &DeployRequest, disks: Vec<Disk>) -> &'static str {
    try_plan(request, disks).map_or_else(|e| e.code, |_| "accepted")
}

#[test]
fn the_disk_is_named_or_refused() {
    let by_id = |s: &str| request(DiskChoice::Id(format!("serial:{s}").parse().unwrap()));
    let rule = |r| request(DiskChoice::Rule(r));
    assert_eq!(code(&by_id("A"), vec![disk("A", 4), disk("B", 4)]), "accepted");
    assert_eq!(code(&by_id("Z"), vec![disk("A", 4)]), "disk-not-found");
    assert_eq!(code(&by_id("A"), vec![disk("A", 4), disk("A", 8)]), "disk-ambiguous");
    assert_eq!(code(&by_id("A"), vec![disk("A", 1)]), "disk-too-small");
    assert_eq!(code(&rule(DiskRule::Only), vec![disk("A", 4)]), "accepted");
    assert_eq!(code(&rule(DiskRule::Only), vec![disk("A", 4), disk("B", 8)]), "disk-ambiguous");
    assert_eq!(code(&rule(DiskRule::Only), vec![]), "disk-not-found");
    assert_eq!(code(&rule(DiskRule::Smallest), vec![disk("A", 4), disk("B", 4)]), "disk-ambiguous");
    let chosen = |r, disks| try_plan(&rule(r), disks).unwrap().0.target.id.label().to_owned();
    assert_eq!(
        chosen(DiskRule::Smallest, vec![disk("T", 1), disk("A", 4), disk("B", 8)]),
        "A",
        "too small is no candidate"
    );
    assert_eq!(chosen(DiskRule::Largest, vec![disk("A", 4), disk("B", 8)]), "B");
    let spinning = Disk { rotational: true, ..disk("A", 4) };
    assert_eq!(chosen(DiskRule::SmallestSsd, vec![spinning, disk("B", 8)]), "B");
    for bad in [
        Disk { removable: true, ..disk("A", 4) },
        Disk { read_only: true, ..disk("A", 4) },
        Disk { transport: Transport::Usb, ..disk("A", 4) },
    ] {
        assert_eq!(code(&by_id("A"), vec![bad]), "disk-refused");
    }
    assert_eq!(code(&by_id("A"), vec![Disk { logical_sector: 4096, ..disk("A", 4) }]), "sector-size");
}

#[test]
fn the_image_says_how_its_os_is_told_unless_the_request_does() {
    let told = |request, image| {
        datasource_of(
            &DeployRequest { datasource: request, ..DeployRequest::default() },
            &Manifest { datasource: image, ..manifest() },
        )
    };
    assert_eq!(told(None, None), Datasource::Nocloud);
    assert_eq!(told(None, Some(Datasource::Ignition)), Datasource::Ignition);
    assert_eq!(told(Some(Datasource::None), Some(Datasource::Ignition)), Datasource::None);
}

#[test]
fn values_are_checked_before_they_go_near_a_file() {
    let ok = request(DiskChoice::default());
    let with = |f: fn(&mut DeployRequest)| {
        let mut r = ok.clone();
        f(&mut r);
        code(&r, vec![disk("A", 4)])
    };
    assert_eq!(with(|_| ()), "accepted");
    assert_eq!(with(|r| r.confirm = Some("n2".into())), "confirm-missing");
    assert_eq!(with(|r| r.confirm = None), "confirm-missing");
    assert_eq!(with(|r| r.hostname = Some("a b".into())), "hostname");
    assert_eq!(with(|r| r.hostname = Some("-x".into())), "hostname");
    assert_eq!(with(|r| r.user = Some("a:b".into())), "user");
    assert_eq!(with(|r| r.ssh_keys = vec!["hello".into()]), "ssh-key");
    assert_eq!(with(|r| r.ssh_keys = vec![format!("ssh-ed25519 {} a\nb", "A".repeat(68))]), "ssh-key");
    assert_eq!(with(|r| r.ssh_keys = vec![format!("ssh-ed25519 {} me@here", "A".repeat(68))]), "accepted");
    assert_eq!(with(|r| r.password_hash = Some("secret".into())), "password-hash");
    assert_eq!(with(|r| r.password_hash = Some("$6$salt$hash".into())), "accepted");
    assert_eq!(with(|r| r.user_data = Some("x".repeat(USER_DATA_MAX + 1))), "too-large");
}

#[test]
fn the_files_are_what_cloud_init_reads() {
    let mut r = request(DiskChoice::default());
    r.ssh_keys = vec![format!("ssh-ed25519 {} \"quoted\" # name", "A".repeat(68))];
    r.user_data = Some("#!/bin/sh\necho hi\n".to_owned());
    let (spec, hostname) = try_plan(&r, vec![disk("A", 4)]).unwrap();
    assert_eq!(hostname, "n1");
    insta::assert_json_snapshot!(spec);
}

#[test]
fn sizes_for_people() {
    for (n, text) in [
        (0, "0 B"),
        (999, "999 B"),
        (4_000_000_000, "4 GB"),
        (4_294_967_296, "4.2 GB"),
        (960_197_124_096, "960 GB"),
    ] {
        assert_eq!(bytes(n), text);
    }
}
