//! What is tried on which disk, what drives answer, and what a sample is worth.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn row(table: &mut String, name: &str, abilities: Abilities) {
    let ways = methods(&abilities);
    let tried: Vec<_> = ways.methods.iter().map(|m| m.as_str()).collect();
    writeln!(table, "{name}\n  tries {}", tried.join(", ")).unwrap();
    for not in ways.not_used.iter().filter(|not| not.why != "the drive does not have it") {
        writeln!(table, "  not {}: {}", not.method, not.why).unwrap();
    }
}

#[test]
fn what_is_tried_on_which_disk() {
    let mut table = String::new();
    let nvme = nvme::Abilities {
        sanitize_block: true,
        sanitize_crypto: true,
        sanitize_overwrite: true,
        format: true,
        format_crypto: true,
        namespaces: 1,
        ..nvme::Abilities::default()
    };
    let with = |nvme| Abilities { nvme: Some(nvme), discard_zeroes: true, ..Abilities::default() };
    row(&mut table, "nvme that can all", with(nvme));
    row(&mut table, "nvme with two namespaces", with(nvme::Abilities { namespaces: 2, ..nvme }));
    let all = nvme::Abilities { namespaces: 2, format_is_for_all: true, ..nvme };
    row(&mut table, "nvme with two namespaces that formats both", with(all));
    let old = nvme::Abilities { format: true, namespaces: 1, ..nvme::Abilities::default() };
    row(&mut table, "nvme that only formats", with(old));
    let ata = ata::Abilities {
        sanitize_block: true,
        sanitize_crypto: true,
        security: ata::Security { supported: true, enhanced: true, ..ata::Security::default() },
        ..ata::Abilities::default()
    };
    let with = |ata| Abilities { ata: Some(ata), ..Abilities::default() };
    row(&mut table, "sata ssd", with(ata));
    row(&mut table, "sata ssd, sanitize frozen", with(ata::Abilities { sanitize_frozen: true, ..ata }));
    let security = ata::Security { supported: true, ..ata::Security::default() };
    let disk = ata::Abilities { security, ..ata::Abilities::default() };
    row(&mut table, "sata disk", with(disk));
    let change = |change: fn(&mut ata::Security)| {
        let mut security = security;
        change(&mut security);
        with(ata::Abilities { security, ..disk })
    };
    row(&mut table, "sata disk, frozen", change(|s| s.frozen = true));
    row(&mut table, "sata disk, locked", change(|s| (s.enabled, s.locked) = (true, true)));
    row(&mut table, "sata disk, password", change(|s| s.enabled = true));
    row(&mut table, "sata disk, exhausted", change(|s| s.exhausted = true));
    let scsi = scsi::Abilities { block: true, crypto: true, overwrite: true };
    row(&mut table, "sas ssd", Abilities { scsi: Some(scsi), ..Abilities::default() });
    row(&mut table, "virtio", Abilities { discard_zeroes: true, ..Abilities::default() });
    row(&mut table, "logical disk", Abilities::default());
    insta::assert_snapshot!(table);
}

#[test]
fn grades_are_no_more_than_is_earned() {
    let mut disk = crate::plan::tests::disk("vda", "A", 1 << 30);
    disk.transport = Transport::Nvme;
    assert_eq!(grade(EraseMethod::NvmeSanitizeBlock, &disk), Grade::Purge);
    assert_eq!(grade(EraseMethod::NvmeFormatCrypto, &disk), Grade::Clear);
    disk.transport = Transport::Virtio;
    assert_eq!(grade(EraseMethod::ScsiSanitizeCrypto, &disk), Grade::Clear);
    assert_eq!(skipped(&disk), None);
    disk.transport = Transport::Usb;
    assert_eq!(skipped(&disk), Some("it is on USB"));
    disk.transport = Transport::Sata;
    disk.read_only = true;
    assert_eq!(skipped(&disk), Some("it is write protected"));
}

#[test]
fn nvme_is_read_and_told() {
    let (mut controller, mut namespace, mut list) = (vec![0; 4096], vec![0; 4096], vec![0; 4096]);
    controller[256] = 2;
    controller[328] = 0b011;
    controller[524] = 0b100;
    namespace[26] = 0b0101_0011;
    namespace[29] = 0b1001;
    list[..8].copy_from_slice(&[1, 0, 0, 0, 7, 0, 0, 0]);
    let found = nvme::abilities(&controller, &namespace, &list);
    assert!(found.sanitize_block && found.sanitize_crypto && !found.sanitize_overwrite);
    assert!(found.format && found.format_crypto && !found.format_is_for_all && found.namespaces == 2);
    assert_eq!(found.layout, 3 | 1 << 4 | 1 << 5 | 1 << 8 | 2 << 12);
    assert_eq!(nvme::abilities(&[], &[], &[]), nvme::Abilities { namespaces: 1, ..Default::default() });
    let tell = |method| nvme::command(method, 7, &found).unwrap();
    let block = tell(EraseMethod::NvmeSanitizeBlock);
    assert_eq!((block.opcode, block.dword10), (0x84, 0b1010));
    assert_eq!(tell(EraseMethod::NvmeSanitizeOverwrite).dword10, 0b1_1011);
    let format = tell(EraseMethod::NvmeFormatCrypto);
    assert_eq!((format.opcode, format.namespace, format.dword10), (0x80, 7, found.layout | 2 << 9));
    assert_eq!(nvme::command(EraseMethod::Overwrite, 7, &found), None);
    assert_eq!(nvme::sanitize_status().dword10, 0x007f_0081);
    assert_eq!(nvme::status(&[0xff, 0x7f, 2, 0]), nvme::Status::Running(0x7fff));
    assert_eq!(nvme::status(&[0, 0, 1, 1]), nvme::Status::Done);
    assert_eq!(nvme::status(&[0, 0, 4, 0]), nvme::Status::Done);
    assert_eq!(nvme::status(&[0, 0, 0, 0]), nvme::Status::Never);
    for log in [&[0, 0, 3, 0][..], &[0, 0, 7, 0], &[0, 0]] {
        assert_eq!(nvme::status(log), nvme::Status::Failed);
    }
}

fn identify(words: &[(usize, u16)]) -> Vec<u8> {
    let mut data = vec![0; 512];
    for (n, word) in [(0, 0x0040), (1, 0x3fff), (2, 0xc837)].iter().chain(words) {
        data[2 * n..2 * n + 2].copy_from_slice(&word.to_le_bytes());
    }
    data
}

#[test]
fn ata_is_read_and_told() {
    let all = identify(&[(59, 0xf000), (82, 2), (89, 10), (90, 0x8000 | 300), (128, 0x21)]);
    let found = ata::abilities(&all).unwrap();
    assert!(found.sanitize_block && found.sanitize_crypto && found.sanitize_overwrite);
    assert!(found.security.supported && found.security.enhanced && !found.security.frozen);
    assert_eq!((found.erase_minutes, found.enhanced_minutes), (20, 600));
    let locked = ata::abilities(&identify(&[(82, 2), (128, 0x0f)])).unwrap().security;
    assert!(locked.enabled && locked.locked && locked.frozen && !locked.enhanced);
    let none = ata::abilities(&identify(&[(59, 0xe000), (128, 0x21)])).unwrap();
    assert!(!none.sanitize_block && !none.security.supported, "the feature sets are not there");
    assert_eq!(ata::abilities(&[0; 512]), None);
    assert_eq!(ata::abilities(&[0; 100]), None);

    let command = ata::sanitize(EraseMethod::AtaSanitizeOverwrite).unwrap();
    let cdb = ata::pass_through(&command);
    assert_eq!(cdb, [0x85, 7, 0x20, 0, 0x14, 0, 1, 0, 0, 0x57, 0, 0x4f, 0, 0x40, 0xb4, 0]);
    let cdb = ata::pass_through(&ata::sanitize(EraseMethod::AtaSanitizeBlock).unwrap());
    assert_eq!(cdb[7..13], [0x42, 0x72, 0, 0x45, 0, 0x6b]);
    let cdb = ata::pass_through(&ata::identify());
    assert_eq!(cdb, [0x85, 8, 0x2e, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x40, 0xec, 0]);
    let (command, sector) = ata::security(ata::SecurityStep::Erase(true));
    assert_eq!((command.command, sector[0], &sector[2..8]), (0xf4, 2, &b"billet"[..]));
    assert_eq!(ata::security(ata::SecurityStep::Prepare).0.data, ata::Data::None);

    let sense = [0x72, 1, 0, 0x1d, 0, 0, 0, 14, 9, 12, 1, 0, 0x40, 0, 0, 0x34, 0, 0x12, 0, 0, 0, 0x50];
    let registers = ata::registers(&sense).unwrap();
    assert_eq!(ata::status(&registers), ata::Status::Running(0x1234));
    let with = |count, status| ata::Registers { count, status, ..registers };
    assert_eq!(ata::status(&with(1 << 15, 0x50)), ata::Status::Idle(true));
    assert_eq!(ata::status(&with(1 << 15, 0x51)), ata::Status::Idle(false));
    assert_eq!(ata::status(&with(0, 0x50)), ata::Status::Idle(false));
    assert_eq!(ata::status(&with(1 << 13, 0x50)), ata::Status::Frozen);
    assert_eq!(ata::registers(&[0x70, 0, 5]), None);
}

#[test]
fn scsi_is_read_and_told() {
    assert_eq!(scsi::ask_supported(3)[..6], [0xa3, 0x0c, 3, 0x48, 0, 3]);
    assert!(scsi::supported(&[0, 3]) && scsi::supported(&[0, 0x83]));
    assert!(!scsi::supported(&[0, 1]) && !scsi::supported(&[0, 5]) && !scsi::supported(&[]));
    let (cdb, parameters) = scsi::sanitize(scsi::service_action(EraseMethod::ScsiSanitizeOverwrite).unwrap());
    assert_eq!((cdb, parameters.len()), ([0x48, 0xa1, 0, 0, 0, 0, 0, 0, 8, 0], 8));
    assert_eq!(scsi::sanitize(2).0[1], 0xa2);
    let fixed = [0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x04, 0x1b];
    assert_eq!(scsi::status(scsi::sense(&fixed)), scsi::Status::Running);
    assert_eq!(scsi::status(scsi::sense(&[0x72, 3, 0x31, 0x03])), scsi::Status::Failed);
    assert_eq!(scsi::status(scsi::sense(&[])), scsi::Status::Done);
    assert_eq!(scsi::status(Some((6, 0x29, 0))), scsi::Status::Other(6, 0x29, 0));
}

#[test]
fn a_sample_says_what_it_is_worth() {
    let plan = sample::plan(64 << 30, 7).unwrap();
    let sampled = plan.sampled(protocol::erase::Expected::Pattern);
    assert_eq!((sampled.start, sampled.end, sampled.random, sampled.sentinels), (512, 512, 1024, 64));
    // 0.99551^1024 = 0.00998.
    assert_eq!(sampled.bound_ppm, 4488);
    assert!(sample::plan(4 * 4096, 7).is_none());
    let other = sample::plan(64 << 30, 8).unwrap();
    assert!(other.places != plan.places && other.sentinels != plan.sentinels);
}

#[test]
fn what_is_left_is_seen() {
    let plan = sample::plan(1 << 30, 3).unwrap();
    let was = plan.sentinel(plan.sentinels[0]);
    assert!(sample::left(&was, &was));
    let mut half = vec![0; 4096];
    half[512..1024].copy_from_slice(&was[512..1024]);
    assert!(sample::left(&was, &half), "one sector is enough");
    assert!(!sample::left(&was, &[0; 4096]));
    assert!(!sample::left(&[0; 4096], &[0; 4096]) && !sample::left(&[255; 4096], &[255; 4096]));
    assert!(!sample::left(&was, &plan.sentinel(plan.sentinels[1])));
    let (mut first, mut second) = ([0; 8192], [0; 4096]);
    plan.pattern(0, &mut first);
    plan.pattern(4096, &mut second);
    assert_eq!(first[4096..], second);
    assert!(!sample::left(&first[..4096], &second), "each block is another");
}

proptest! {
    #[test]
    fn places_lie_on_the_disk(blocks in 8u64..1 << 40, seed: u64) {
        let plan = sample::plan(blocks * sample::BLOCK, seed).unwrap();
        let end = blocks * sample::BLOCK;
        for at in plan.places.iter().chain(&plan.sentinels) {
            prop_assert!(at % sample::BLOCK == 0 && at + sample::BLOCK <= end);
        }
        prop_assert!(plan.places.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert_eq!(plan.places[0], 0);
        prop_assert_eq!(*plan.places.last().unwrap(), end - sample::BLOCK);
        let counts = plan.sampled(protocol::erase::Expected::Changed);
        prop_assert_eq!(u64::from(counts.start + counts.end + counts.random), plan.places.len() as u64);
    }

    #[test]
    fn no_answer_panics(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = nvme::abilities(&octets, &octets, &octets);
        let _ = nvme::status(&octets);
        let _ = ata::abilities(&octets);
        let _ = ata::registers(&octets).map(|r| ata::status(&r));
        let _ = scsi::status(scsi::sense(&octets));
        let _ = scsi::supported(&octets);
    }
}
