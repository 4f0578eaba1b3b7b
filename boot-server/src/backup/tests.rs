//! A site is packed while it is written to, and stands again elsewhere.

use std::net::Ipv4Addr;

use boot_server_core::dhcp::{ClientKey, Lease, LeaseState};
use protocol::MacAddr;

use super::*;
use crate::store::journal::Journal;
use crate::store::queries;
use crate::store::tests::Scratch as Dir;

const PASSPHRASE: &str = "correct horse battery staple";
const NOW: Timestamp = Timestamp(1_795_737_600_000);

fn lease(n: u8, expires: u64) -> Lease {
    Lease {
        ip: Ipv4Addr::new(10, 0, 0, n),
        client: ClientKey::Mac(MacAddr([2, 0, 0, 0, 0, n])),
        state: LeaseState::Bound,
        expires: Timestamp(expires),
        placement: None,
    }
}

/// A site with keys and an empty database.
fn site(dir: &Dir) -> Site {
    fs::create_dir_all(dir.0.join("tls")).unwrap();
    for (name, text) in [("secrets.key", "secret"), ("site.key", "site"), ("tls/site-ca.key", "ca")] {
        fs::write(dir.0.join(name), text).unwrap();
    }
    let volumes = dir.0.join("volumes/fast");
    for (name, text) in [("taken/1.json", "unit"), ("grants/1.json", "dpu"), ("volumes/1", "content")] {
        fs::create_dir_all(volumes.join(name).parent().unwrap()).unwrap();
        fs::write(volumes.join(name), text).unwrap();
    }
    let volumes = BTreeMap::from([("fast".to_owned(), volumes)]);
    Site { store: Location::from(&dir.database()), state_dir: dir.0.clone(), volumes }
}

fn nowhere(dir: &Dir) -> Site {
    // PostgreSQL's empty database has its name of the path too.
    let state_dir = dir.0.join("state");
    let volumes = BTreeMap::from([("fast".to_owned(), dir.0.join("other-disk"))]);
    Site { store: Location::from(&state_dir.join(DATABASE)), state_dir, volumes }
}

/// What is asked after a restore.
async fn leases(site: &Site) -> BTreeMap<Ipv4Addr, Lease> {
    let store = Store::open(&site.store).unwrap();
    let leases = store.read(queries::leases).await.unwrap();
    store.close();
    leases.into_iter().map(|lease| (lease.ip, lease)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_before_a_backup_is_in_it() {
    let (old, new) = (Dir::new(), Dir::new());
    let (from, to) = (site(&old), nowhere(&new));
    let store = Store::open(&from.store).unwrap();
    let journal = Journal::open(&old.0, store.clone()).await.unwrap();
    let file = old.0.with_extension("backup");
    // Leases are answered all the time; some of them are in the journal alone when the backup begins.
    for n in 0..200 {
        journal.put(vec![lease(n, u64::from(n)), lease(200, u64::from(n))]).await.unwrap();
    }
    let (of, out) = (from.clone(), file.clone());
    let making = tokio::task::spawn_blocking(move || create(&of, &out, PASSPHRASE, true, NOW));
    let mut later = 1000;
    while !making.is_finished() {
        journal.put(vec![lease(200, later)]).await.unwrap();
        later += 1;
    }
    let made = making.await.unwrap().unwrap();
    journal.close();
    store.close();
    assert_eq!((made.created, made.files), (NOW, 6), "keys, with the one that signs, and books");
    let restored = restore(&file, PASSPHRASE, None, &to, true).unwrap();
    assert_eq!(Summary { size: made.size, ..restored }, made);
    let found = leases(&to).await;
    assert_eq!(found.len(), 201);
    assert!((0..200).all(|n| found[&lease(n, 0).ip] == lease(n, u64::from(n))));
    assert!(found[&lease(200, 0).ip].expires >= Timestamp(199), "never older than what was answered before");
    assert_eq!(fs::read_to_string(to.state_dir.join("tls/site-ca.key")).unwrap(), "ca");
    let book = |name: &str| fs::read_to_string(to.volumes["fast"].join(name)).unwrap();
    assert_eq!((book("taken/1.json"), book("grants/1.json")), ("unit".into(), "dpu".into()));
    assert!(!to.volumes["fast"].join("volumes").exists(), "the content of volumes is not in it");
    assert_eq!(super::restored(&to.state_dir).unwrap(), Some(Restored { of: NOW, unfinished: false }));
    release(&to.state_dir).unwrap();
    assert_eq!(super::restored(&to.state_dir).unwrap(), None);
    fs::remove_file(file).unwrap();
}

#[test]
fn nothing_is_made_or_restored_where_something_is_wrong() {
    let (old, new) = (Dir::new(), Dir::new());
    let from = site(&old);
    Store::open(&from.store).unwrap().close();
    let mut to = nowhere(&new);
    to.volumes.insert("fast".to_owned(), to.state_dir.join("volumes/fast"));
    let file = old.0.with_extension("backup");
    let made = create(&from, &file, PASSPHRASE, false, NOW).unwrap();
    let again = create(&from, &file, PASSPHRASE, false, NOW).unwrap_err();
    assert!(matches!(again, BackupError::File { action: "make", .. }), "{again}");
    let none = create(&to, &new.0.with_extension("backup"), PASSPHRASE, false, NOW).unwrap_err();
    assert!(matches!(none, BackupError::NoSite(_)), "{none}");
    let alone = Flock::lock(File::open(&old.0).unwrap(), FlockArg::LockExclusive).unwrap();
    let busy = create(&from, &new.0.with_extension("backup"), PASSPHRASE, false, NOW).unwrap_err();
    assert!(matches!(busy, BackupError::Busy), "{busy}");
    drop(alone);

    let key = Signer::open(&old.0.join("signing.key")).unwrap().public();
    assert_eq!(verify(&file, PASSPHRASE, Some(&key)).unwrap(), made);
    let other = Signer::open(&old.0.join("other.key")).unwrap().public();
    let said = restore(&file, PASSPHRASE, Some(&other), &to, true).unwrap_err();
    assert!(
        matches!(
            said,
            BackupError::Signature(SignError::Minisign(images::minisign::MinisignError::OtherKey))
        ),
        "{said}"
    );
    let said = restore(&file, "wrong", None, &to, true).unwrap_err();
    assert!(said.to_string().contains("passphrase is wrong"), "{said}");
    assert!(!to.state_dir.exists(), "nothing is at its place");

    let good = fs::read(&file).unwrap();
    for at in [0, 20, 200, good.len() / 2, good.len() - 200, good.len() - 20, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, bad).unwrap();
        assert!(verify(&file, PASSPHRASE, Some(&key)).is_err(), "octet {at}");
        assert!(restore(&file, PASSPHRASE, Some(&key), &to, true).is_err(), "octet {at}");
        assert!(!to.state_dir.exists());
    }
    for length in [0, 10, 300, good.len() - 1] {
        fs::write(&file, &good[..length]).unwrap();
        assert!(verify(&file, PASSPHRASE, None).is_err(), "{length} octets");
    }
    fs::write(&file, &good).unwrap();
    // What a kill left is no hindrance.
    fs::create_dir_all(staging(&to.state_dir).join("state")).unwrap();
    restore(&file, PASSPHRASE, Some(&key), &to, false).unwrap();
    assert_eq!(super::restored(&to.state_dir).unwrap(), None, "it goes on as it was");
    assert!(to.volumes["fast"].join("taken/1.json").exists(), "books below the state directory come with it");
    let full = restore(&file, PASSPHRASE, None, &to, false).unwrap_err();
    assert!(matches!(full, BackupError::NotEmpty(_)), "{full}");
    fs::remove_file(file).unwrap();
}

#[test]
fn a_part_that_does_not_belong_there_is_refused() {
    let dir = Dir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let entry = |name: &str, kind| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        // As somebody writes it who means harm: the library's own calls refuse such names.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        let mut tar = tar::Builder::new(Vec::new());
        tar.append(&header, io::empty()).unwrap();
        tar.into_inner().unwrap()
    };
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    for (name, kind) in [
        ("/etc/passwd", Regular),
        ("../up", Regular),
        ("state/../../up", Regular),
        ("state", Regular),
        ("else", Regular),
        ("state/link", Symlink),
        ("state/link", Link),
        ("state/dir", Directory),
        ("volumes/fast/volumes/1", Regular),
        ("volumes/fast/taken", Regular),
    ] {
        let said = parts::unpack(&entry(name, kind)[..], &dir.0).unwrap_err();
        assert!(matches!(said, BackupError::Part(_)), "{name}: {said}");
    }
    let two = [&entry("state/one", Regular)[..512], &entry("state/one", Regular)].concat();
    assert!(parts::unpack(&two[..], &dir.0).is_err(), "twice the same");
    let said = parts::unpack(&entry("state/two", Regular)[..], &dir.0).unwrap_err();
    assert!(matches!(said, BackupError::Missing("database")), "{said}");
}

/// A backup of a former version has the tables of that version.
#[test]
fn a_database_of_any_version_is_counted() {
    let dir = Dir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let path = dir.0.join("old.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(
        "CREATE TABLE old (a TEXT); INSERT INTO old VALUES ('x'), ('y'); PRAGMA user_version = 3",
    )
    .unwrap();
    drop(old);
    assert_eq!(copy::rows(&path).unwrap(), 2);
    assert!(matches!(whole(&path, 3), Err(BackupError::Rows { rows: 3, found: 2 })));
}
