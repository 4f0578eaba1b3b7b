//! Erases of drives in memory, honest ones and ones that lie.

use protocol::inventory::{DiskContent, Transport};
use protocol::{DiskId, JobId};
use ramdisk_agent_core::erase::nvme;

use super::model::{Lie, Model};
use super::*;

const SIZE: usize = 12 << 20;

fn disk(transport: Transport) -> Disk {
    Disk {
        id: DiskId::of(None, Some("S1"), None),
        name: "model0".into(),
        bus_path: None,
        model: Some("Model".into()),
        serial: Some("S1".into()),
        wwn: None,
        firmware: None,
        size_bytes: SIZE as u64,
        logical_sector: 512,
        physical_sector: 512,
        rotational: false,
        transport,
        removable: false,
        read_only: false,
        content: DiskContent::Unknown,
    }
}

fn feed() -> Feed {
    Feed::new("67e55044-10b1-426f-9247-bb680e5fe0c8".parse::<JobId>().unwrap())
}

fn erased(model: &Model, transport: Transport, abilities: Abilities) -> EraseRecord {
    let record = erase_drive(model, &disk(transport), &abilities, 42, &feed()).unwrap();
    if record.result == EraseResult::Erased {
        let (before, data) = (Model::new(SIZE, Lie::None).data(), model.data());
        let stays = before.chunks(512).zip(data.chunks(512)).position(|(was, is)| was == is);
        assert_eq!(stays, None, "a sector that is as it was");
    }
    record
}

fn why(record: &EraseRecord) -> &str {
    match &record.result {
        EraseResult::Failed { why } => why,
        other => panic!("{other:?} by {:?}", record.method),
    }
}

fn full_nvme() -> Abilities {
    let nvme = nvme::Abilities {
        sanitize_block: true,
        sanitize_crypto: true,
        format: true,
        namespaces: 1,
        ..nvme::Abilities::default()
    };
    Abilities { nvme: Some(nvme), discard_zeroes: true, ..Abilities::default() }
}

#[test]
fn an_honest_drive_is_erased_by_its_strongest_way() {
    let model = Model::new(SIZE, Lie::None);
    let record = erased(&model, Transport::Nvme, full_nvme());
    assert_eq!((record.method, record.grade), (Some(EraseMethod::NvmeSanitizeBlock), Grade::Purge));
    let sampled = record.sampled.unwrap();
    assert_eq!((sampled.random, sampled.sentinels, sampled.expected), (1024, 64, Expected::Changed));
    assert_eq!(*model.log.lock().unwrap(), ["nvme 0x84 0xa"]);
    assert!(model.data()[..1 << 20].iter().all(|octet| *octet == 0), "it looks blank");
    assert_eq!(record.not_used[0].method, EraseMethod::NvmeSanitizeOverwrite);
}

#[test]
fn what_is_refused_falls_to_the_next_and_says_why() {
    let model = Model { nvme_refuses: vec![0x84], ..Model::new(SIZE, Lie::None) };
    let record = erased(&model, Transport::Nvme, full_nvme());
    assert_eq!((record.method, record.grade), (Some(EraseMethod::NvmeFormatErase), Grade::Clear));
    let refused: Vec<_> = record.not_used.iter().filter(|not| not.why.contains("status 0x0002")).collect();
    assert_eq!(refused.len(), 2, "{:?}", record.not_used);

    let model = Model { nvme_refuses: vec![0x84, 0x80], ..Model::new(SIZE, Lie::None) };
    let record = erased(&model, Transport::Nvme, full_nvme());
    assert_eq!(record.method, Some(EraseMethod::Discard));
    assert_eq!(record.sampled.unwrap().expected, Expected::Zeros);
    let record = erased(&Model::new(SIZE, Lie::None), Transport::Scsi, Abilities::default());
    assert_eq!((record.method, record.grade), (Some(EraseMethod::Overwrite), Grade::Clear));
    assert_eq!(record.sampled.unwrap().expected, Expected::Pattern);
}

#[test]
fn a_drive_that_lies_is_caught_in_every_way() {
    for lie in [Lie::Ignores, Lie::Half] {
        let model = Model::new(SIZE, lie);
        let record = erased(&model, Transport::Nvme, full_nvme());
        assert!(why(&record).starts_with("it says that it is erased, and what was"), "{lie:?}: {record:?}");
        assert_eq!((record.grade, record.sampled), (Grade::None, None));
        assert_eq!(model.log.lock().unwrap().len(), 1, "a liar is not asked again");
    }
    let discards = Abilities { discard_zeroes: true, ..Abilities::default() };
    let record = erased(&Model::new(SIZE, Lie::Ignores), Transport::Virtio, discards);
    assert!(why(&record).contains("still at byte"), "{record:?}");
    let record = erased(&Model::new(SIZE, Lie::DropsWrites), Transport::Virtio, Abilities::default());
    assert!(why(&record).contains("does not keep what is written"), "{record:?}");
    let record = erased(&Model::new(SIZE, Lie::Wraps), Transport::Usb, Abilities::default());
    assert!(why(&record).contains("byte"), "{record:?}");
    let ata = Abilities { ata: Some(ata_of(&[(59, 0xf000)])), ..Abilities::default() };
    let model = Model { ata: Some(identify(&[(59, 0xf000)])), ..Model::new(SIZE, Lie::Ignores) };
    assert!(why(&erased(&model, Transport::Sata, ata)).contains("still at byte"));
}

/// What was not erased and yet is not where the sentinels are: old data are compared too.
#[test]
fn old_data_that_stay_are_seen_without_sentinels() {
    let model = Model::new(SIZE, Lie::None);
    let plan = ramdisk_agent_core::erase::sample::plan(SIZE as u64, 9).unwrap();
    let before = check::before(&model, &plan).unwrap();
    // Only the newest writes are forgotten.
    for at in &plan.sentinels {
        model.zero(&(*at..at + 4096)).unwrap();
    }
    let seen = check::after(&model, &plan, &before, Expected::Changed).unwrap_err();
    assert!(seen.contains("what was there before is still at byte"), "{seen}");
}

fn identify(words: &[(usize, u16)]) -> Vec<u8> {
    let mut data = vec![0; 512];
    for (n, word) in [(0, 0x0040), (1, 0x3fff), (2, 0xc837)].iter().chain(words) {
        data[2 * n..2 * n + 2].copy_from_slice(&word.to_le_bytes());
    }
    data
}

fn ata_of(words: &[(usize, u16)]) -> ramdisk_agent_core::erase::ata::Abilities {
    ramdisk_agent_core::erase::ata::abilities(&identify(words)).unwrap()
}

#[test]
fn ata_drives_sanitize_or_erase_by_security() {
    let model = Model { ata: Some(identify(&[(59, 0xb000)])), ..Model::new(SIZE, Lie::None) };
    let found = ask::abilities(&model, &disk(Transport::Sata));
    let record = erased(&model, Transport::Sata, found);
    assert_eq!((record.method, record.grade), (Some(EraseMethod::AtaSanitizeBlock), Grade::Purge));
    assert_eq!(*model.log.lock().unwrap(), ["ata 0xb4 0x12"]);

    let model = Model { ata: Some(identify(&[(82, 2), (128, 0x21)])), ..Model::new(SIZE, Lie::None) };
    let found = ask::abilities(&model, &disk(Transport::Scsi));
    assert_eq!(found.scsi, None, "a SATA drive behind a SAS adapter");
    let record = erased(&model, Transport::Scsi, found);
    assert_eq!((record.method, record.grade), (Some(EraseMethod::AtaSecurityEnhanced), Grade::Clear));
    assert_eq!(*model.log.lock().unwrap(), ["ata 0xf1 0x00", "ata 0xf3 0x00", "ata 0xf4 0x00"]);

    let model = Model { ata: Some(identify(&[(82, 2), (128, 0x29)])), ..Model::new(SIZE, Lie::None) };
    let record = erased(&model, Transport::Sata, ask::abilities(&model, &disk(Transport::Sata)));
    assert_eq!(record.method, Some(EraseMethod::Overwrite));
    assert!(record.not_used.iter().any(|not| not.why.contains("frozen by the firmware")));
}

#[test]
fn scsi_drives_sanitize() {
    let model = Model { scsi: vec![1, 3], ..Model::new(SIZE, Lie::None) };
    let found = ask::abilities(&model, &disk(Transport::Scsi));
    let record = erased(&model, Transport::Scsi, found);
    assert_eq!((record.method, record.grade), (Some(EraseMethod::ScsiSanitizeCrypto), Grade::Purge));
    assert_eq!(*model.log.lock().unwrap(), ["scsi sanitize 0xa3"]);
    let model = Model { scsi: vec![1], ..Model::new(SIZE, Lie::Half) };
    let found = ask::abilities(&model, &disk(Transport::Scsi));
    assert!(why(&erased(&model, Transport::Scsi, found)).contains("still at byte"));
}

#[test]
fn no_disk_of_a_whole_machine_is_passed_over_in_silence() {
    let mut usb = disk(Transport::Usb);
    (usb.name, usb.id) = ("sdz".into(), None);
    let (mut named, mut other) = (disk(Transport::Sata), disk(Transport::Sata));
    (named.name, other.name) = ("sda".into(), "sdb".into());
    other.id = None;
    let order = EraseOrder { whole: true, done: vec![] };
    let machine = [named.clone(), usb.clone()];
    assert_eq!(rest(&[&named], &order, &machine).unwrap(), [(&usb, "it is on USB")]);
    let machine = [named.clone(), other.clone()];
    let fault = rest(&[&named], &order, &machine).unwrap_err();
    assert_eq!(fault.code, FaultCode::DiskRefused);
    other.id = DiskId::of(None, Some("S2"), None);
    let done = EraseOrder { whole: true, done: other.id.iter().cloned().collect() };
    let machine = [named.clone(), other];
    assert!(rest(&[&named], &done, &machine).unwrap().is_empty());
}

#[test]
fn an_abort_ends_the_job_and_leaves_no_record() {
    let feed = feed();
    feed.abort();
    let model = Model::new(SIZE, Lie::None);
    let fault = erase_drive(&model, &disk(Transport::Virtio), &Abilities::default(), 1, &feed).unwrap_err();
    assert_eq!(fault.code, FaultCode::Aborted);
}
