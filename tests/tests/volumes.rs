//! Backends of volumes against their real services: one list of scenarios for all, and for each what only it does. What is in a
//! volume is read by QEMU, which is given nothing but what a DPU is told.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use protocol::agent::Password;
use protocol::dpu::{Backend as Told, LUKS_HEADER};
use protocol::job::CloudConfig;
use protocol::{SnapshotId, VolumeId};
use tests::volumes::ceph::{Ceph, POOL};
use tests::volumes::failing::{Failing, How};
use tests::volumes::target::ExternalTarget;
use tests::volumes::{ADDRESS, Disk, Place, SomeImage, grantee, new_volume, some_image};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use volume::{
    Backend, BackendError, ExternalBackend, FileBackend, ImageSource, ImageWritten, IscsiBackend,
    IscsiSettings, Kind, Origin, Progress, RbdBackend, RbdSettings, Step,
};

const MIB: u64 = 1 << 20;
/// Ceph lists a client that does not answer for 30 s (`osd_client_watch_timeout`).
const AWAY: Duration = Duration::from_secs(90);
/// A host that was cut off gets no answer within this.
const CUT: Duration = Duration::from_secs(6);
/// I/O goes on within this after a service died.
const RESUME: Duration = Duration::from_secs(40);

#[test]
fn files() -> Result<()> {
    let mut place = Place::new("file")?;
    let backend = Arc::new(FileBackend::open(&place.dir().join("volumes"))?);
    let begun = Begun::new(&place, backend)?;
    begun.all()?;
    begun.a_file_in_use_is_not_taken_away()?;
    drop(begun);
    place.passed();
    Ok(())
}

#[test]
fn a_target_of_our_own() -> Result<()> {
    let mut place = Place::new("iscsi")?;
    let backend = iscsi(&place)?;
    let begun = Begun::new(&place, backend.clone())?;
    begun.all()?;
    begun.strangers_are_refused()?;
    begun.who_was_cut_off_gets_no_answer()?;
    begun.io_goes_on_when_tgtd_dies(&backend)?;
    begun.a_server_that_starts_again_takes_tgtd_over(&backend)?;
    drop((begun, backend));
    place.passed();
    Ok(())
}

#[test]
fn ceph() -> Result<()> {
    let mut place = Place::new("rbd")?;
    let began = Instant::now();
    let ceph = Ceph::start(&place.namespace, place.dir())?;
    println!("Ceph is up after {:.1} s", began.elapsed().as_secs_f64());
    let begun = Begun::new(&place, Arc::new(RbdBackend::open(rbd(&place, &ceph)?)?))?;
    begun.all()?;
    begun.who_was_cut_off_gets_no_answer()?;
    begun.a_key_opens_its_own_volume_alone()?;
    begun.who_was_away_when_it_was_cut_off_stays_so()?;
    ensure!(ceph.census()?.values().all(|count| *count == 0), "left: {:?}", ceph.census()?);
    drop(begun);
    place.passed();
    Ok(())
}

/// A target that was there before, with an account of its own: Billet only knows what it was told of it.
#[test]
fn a_target_of_somebody_else() -> Result<()> {
    let mut place = Place::new("external")?;
    let target = ExternalTarget::start(&mut place)?;
    let backend = Arc::new(ExternalBackend::open(Kind::IscsiExternal, target.settings(&place)?)?);
    let begun = Begun::new(&place, backend)?;
    begun.units_are_taken_and_given_back()?;
    drop(begun);
    place.passed();
    Ok(())
}

/// Says to a test that it is the one with programs that fail, and where they are.
const FAILING: &str = "BILLET_FAILING_PROGRAMS";

/// Runs the test of this name once more, as a process whose programs fail; true in that process.
fn with_failing_programs(test: &str, programs: &[&str]) -> Result<Option<Failing>> {
    if let Some(dir) = std::env::var_os(FAILING) {
        return Ok(Some(Failing::at(Path::new(&dir))));
    }
    let dir = tests::rack::target().join("rack").join(format!("failing-{test}-{}", std::process::id()));
    let failing = Failing::of(&dir, programs)?;
    let mut again = Command::new(std::env::current_exe()?);
    again.args(["--exact", test, "--nocapture"]).env("PATH", failing.path()).env(FAILING, &dir);
    let out = again.output()?;
    let said = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    ensure!(out.status.success() && said.contains("1 passed"), "{said}");
    said.lines().filter(|line| line.contains("calls")).for_each(|line| println!("{line}"));
    fs::remove_dir_all(dir)?;
    Ok(None)
}

/// Whatever call of tgtadm fails, and however: what was begun can be finished by asking again, or be undone, and nothing is left.
#[test]
fn a_failure_at_each_step_leaves_nothing_in_tgt() -> Result<()> {
    let Some(failing) = with_failing_programs("a_failure_at_each_step_leaves_nothing_in_tgt", &["tgtadm"])?
    else {
        return Ok(());
    };
    let mut place = Place::new("failing-iscsi")?;
    let backend = iscsi(&place)?;
    let begun = Begun::new(&place, backend)?;
    begun.settled()?;
    begun.fails_at_each_step(&failing, 1)?;
    drop(begun);
    place.passed();
    Ok(())
}

/// The same of `rbd` and `ceph`; of some calls, as each takes half a second.
#[test]
fn a_failure_at_each_step_leaves_nothing_in_ceph() -> Result<()> {
    let Some(failing) =
        with_failing_programs("a_failure_at_each_step_leaves_nothing_in_ceph", &["rbd", "ceph"])?
    else {
        return Ok(());
    };
    let mut place = Place::new("failing-rbd")?;
    let ceph = Ceph::start(&place.namespace, place.dir())?;
    let begun = Begun::new(&place, Arc::new(RbdBackend::open(rbd(&place, &ceph)?)?))?;
    begun.fails_at_each_step(&failing, 13)?;
    failing.never()?;
    ensure!(ceph.census()?.values().all(|count| *count == 0), "left: {:?}", ceph.census()?);
    drop(begun);
    place.passed();
    Ok(())
}

fn rbd(place: &Place, ceph: &Ceph) -> Result<RbdSettings> {
    Ok(RbdSettings {
        directory: place.dir().join("billet"),
        configuration: ceph.configuration(),
        user: "billet".into(),
        keyring: Some(ceph.billet()?),
        pool: POOL.into(),
        monitors: vec![format!("{ADDRESS}:6789")],
    })
}

/// The backend, in its place, with its portal on the place's address.
fn iscsi(place: &Place) -> Result<Arc<IscsiBackend>> {
    let settings = IscsiSettings {
        directory: place.dir().join("volumes"),
        portal: format!("{ADDRESS}:3260").parse()?,
        target_prefix: "iqn.2026-11.org.billet".into(),
    };
    let backend = place.run(async move { Ok(IscsiBackend::open(settings)?) })?;
    Ok(Arc::new(backend))
}

/// A backend that scenarios are played on.
struct Begun<'a> {
    place: &'a Place,
    backend: Arc<dyn Backend>,
    image: SomeImage,
}

impl<'a> Begun<'a> {
    fn new(place: &'a Place, backend: Arc<dyn Backend>) -> Result<Self> {
        Ok(Self { place, backend, image: some_image(place.dir())? })
    }

    /// What every backend does. At the end it has what it had.
    fn all(&self) -> Result<()> {
        let before = self.kept()?;
        for (name, scenario) in [
            ("an image is written and read", Self::an_image as fn(&Self) -> Result<()>),
            ("what was there before is gone", Self::an_image_over_something),
            ("a write that is stopped or cannot be", Self::an_image_that_is_stopped),
            ("one DPU at a time", Self::one_at_a_time),
            ("an encrypted volume", Self::an_encrypted_one),
            ("copies", Self::copies),
            ("sizes", Self::sizes),
            ("nothing is done twice", Self::again),
        ] {
            let began = Instant::now();
            scenario(self).with_context(|| name.to_owned())?;
            ensure!(self.kept()? == before, "{name}: something is left");
            println!("{}: {name}: {:.1} s", self.backend.kind().as_str(), began.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// How many volumes, snapshots and leftovers there are.
    fn kept(&self) -> Result<(usize, Vec<volume::Leftover>)> {
        let backend = self.backend.clone();
        self.place.run(async move { Ok((backend.list().await?.len(), backend.leftovers().await?)) })
    }

    fn call<T, F>(&self, what: impl FnOnce(Arc<dyn Backend>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        let call = what(self.backend.clone());
        self.place.run(async move { Ok(call.await?) })
    }

    fn new_volume(&self, size: u64) -> Result<VolumeId> {
        let volume = new_volume();
        self.call(|b| async move { b.create(volume, size, Origin::Blank).await })?;
        Ok(volume)
    }

    fn let_in(&self, volume: VolumeId, name: &str) -> Result<(Told, Disk)> {
        let to = grantee(name);
        let told = self.call(|b| async move { b.grant(volume, &to).await })?;
        let disk = Disk::of(&self.place.namespace, &told)?;
        Ok((told, disk))
    }

    fn revoke(&self, volume: VolumeId) -> Result<()> {
        self.call(|b| async move { b.revoke(volume).await })
    }

    fn delete(&self, volume: VolumeId) -> Result<()> {
        self.call(|b| async move { b.delete(volume).await })
    }

    fn write_image(&self, volume: VolumeId, cancel: CancellationToken) -> Result<ImageWritten> {
        self.write_image_with(volume, None, cancel)
    }

    fn write_image_with(
        &self,
        volume: VolumeId,
        key: Option<Password>,
        cancel: CancellationToken,
    ) -> Result<ImageWritten> {
        let image = ImageSource {
            store: self.image.store.clone(),
            image: self.image.id,
            anchor: std::sync::Arc::new(tests::trust::anchor()),
            config: Some(CloudConfig {
                meta_data: "instance-id: i-1\nlocal-hostname: web-1\n".into(),
                user_data: "#cloud-config\n".into(),
                ..CloudConfig::default()
            }),
            grow_root: true,
            key,
        };
        let (progress, seen) = watch::channel(Progress::default());
        let written = self.call(|b| async move { b.write_image(volume, image, progress, cancel).await })?;
        ensure!(seen.borrow().step == Step::Customise, "{:?}", *seen.borrow());
        Ok(written)
    }

    fn an_image(&self) -> Result<()> {
        let volume = self.new_volume(64 * MIB)?;
        let written = self.write_image(volume, CancellationToken::new())?;
        ensure!(written.written > 9 * MIB && written.zeroed > 30 * MIB, "{written:?}");
        let (_, disk) = self.let_in(volume, "one")?;
        let bytes = disk.bytes(self.place.dir())?;
        self.holds_the_image(&bytes)?;
        self.revoke(volume)?;
        self.delete(volume)
    }

    /// What is on the disk, by tools that are not ours.
    fn holds_the_image(&self, bytes: &[u8]) -> Result<()> {
        ensure!(bytes.len() as u64 == 64 * MIB, "{} bytes", bytes.len());
        let raw = &self.image.raw;
        let (start, end) = (MIB as usize, raw.len() - MIB as usize);
        ensure!(bytes[start..end] == raw[start..end], "the image is not what was read");
        let config = (64 - 1 - 8) * MIB as usize;
        ensure!(bytes[raw.len()..config].iter().all(|b| *b == 0), "something is behind the image");
        let path = self.place.dir().join("read.raw");
        fs::File::create(&path)?.write_all(bytes)?;
        let checked = Command::new("sgdisk").arg("-v").arg(&path).output()?;
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        ensure!(said.contains("No problems found"), "sgdisk: {said}");
        let at = format!("{}@@{config}", path.display());
        let copied = Command::new("mtype").args(["-i", &at, "::meta-data"]).output()?;
        let said = String::from_utf8_lossy(&copied.stdout).into_owned();
        ensure!(said.contains("local-hostname: web-1"), "config partition: {said:?}");
        Ok(fs::remove_file(&path)?)
    }

    /// What is in the backend says nothing of the image; who has the key reads all of it, also of a copy, and nobody else does.
    fn an_encrypted_one(&self) -> Result<()> {
        let key = Password("0123456789abcdefghijklmnopqrstuvwxyzABCDEFG".into());
        let kept = 64 * MIB + LUKS_HEADER;
        let volume = self.new_volume(kept)?;
        let (own, began) = (key.clone(), Instant::now());
        self.call(|b| async move { b.encrypt(volume, &own).await })?;
        println!("{}: encrypted in {:.2} s", self.backend.kind().as_str(), began.elapsed().as_secs_f64());
        self.write_image_with(volume, Some(key.clone()), CancellationToken::new())?;
        let (_, below) = self.let_in(volume, "one")?;
        let hidden = below.bytes(self.place.dir())?;
        ensure!(hidden.starts_with(b"LUKS") && hidden.len() as u64 == kept, "{} bytes", hidden.len());
        let sample = &self.image.raw[4 * MIB as usize..][..64];
        for known in [sample, b"EFI PART"] {
            ensure!(
                !hidden.chunks(512).any(|sector| sector.starts_with(known)),
                "{known:?} is in the backend"
            );
        }
        let disk = below.opened(&key, self.place.dir())?;
        let plain = disk.bytes(self.place.dir())?;
        let (start, end) = (MIB as usize, self.image.raw.len() - MIB as usize);
        ensure!(
            plain.len() as u64 == 64 * MIB && plain[start..end] == self.image.raw[start..end],
            "another image"
        );
        ensure!(plain[512..].starts_with(b"EFI PART"), "it does not boot");
        let wrong = below
            .opened(&Password("another-key-of-43-characters-another-key-of".into()), self.place.dir())?;
        let refused = wrong.io(&["read 0 512"]);
        ensure!(
            refused.is_err_and(|e| e.to_string().contains("cannot unlock any keyslot")),
            "another key opens it"
        );
        self.revoke(volume)?;
        self.copy_of_encrypted(volume, &key)?;
        self.call(|b| async move { b.resize(volume, kept + 8 * MIB).await })?;
        let (_, below) = self.let_in(volume, "one")?;
        let disk = below.opened(&key, self.place.dir())?;
        ensure!(disk.size()? == 72 * MIB, "{}", disk.size()?);
        disk.io(&["write -P 6 71M 1M", "read -P 6 71M 1M"])?;
        self.revoke(volume)?;
        self.delete(volume)
    }

    fn copy_of_encrypted(&self, volume: VolumeId, key: &Password) -> Result<()> {
        let (snapshot, copy) = (SnapshotId(Uuid::new_v4()), new_volume());
        self.call(|b| async move { b.snapshot(volume, snapshot).await })?;
        let origin = Origin::Snapshot { volume, snapshot };
        self.call(|b| async move { b.create(copy, 80 * MIB + LUKS_HEADER, origin).await })?;
        let (_, below) = self.let_in(copy, "two")?;
        let disk = below.opened(key, self.place.dir())?;
        ensure!(disk.size()? == 80 * MIB, "{}", disk.size()?);
        ensure!(disk.bytes(self.place.dir())?[512..].starts_with(b"EFI PART"), "the copy is another");
        self.revoke(copy)?;
        self.delete(copy)?;
        self.call(|b| async move { b.delete_snapshot(volume, snapshot).await })
    }

    fn an_image_over_something(&self) -> Result<()> {
        let volume = self.new_volume(64 * MIB)?;
        let (_, disk) = self.let_in(volume, "one")?;
        disk.io(&["write -P 0x55 0 64M"])?;
        let refused = self.write_image(volume, CancellationToken::new());
        ensure!(is(&refused, |e| matches!(e, BackendError::Granted { .. })), "{refused:?}");
        self.revoke(volume)?;
        self.write_image(volume, CancellationToken::new())?;
        let (_, disk) = self.let_in(volume, "one")?;
        self.holds_the_image(&disk.bytes(self.place.dir())?)?;
        self.revoke(volume)?;
        self.delete(volume)
    }

    fn an_image_that_is_stopped(&self) -> Result<()> {
        let volume = self.new_volume(64 * MIB)?;
        let cancel = CancellationToken::new();
        cancel.cancel();
        let stopped = self.write_image(volume, cancel);
        ensure!(is(&stopped, |e| matches!(e, BackendError::Cancelled)), "{stopped:?}");
        let small = self.new_volume(24 * MIB)?;
        let refused = self.write_image(small, CancellationToken::new());
        ensure!(is(&refused, |e| matches!(e, BackendError::Image { .. })), "{refused:?}");
        self.damaged_chunk(volume)?;
        self.unsigned(volume)?;
        self.write_image(volume, CancellationToken::new())?;
        self.delete(small)?;
        self.delete(volume)
    }

    /// What nobody vouches for is never written, and the volume does not boot.
    fn unsigned(&self, volume: VolumeId) -> Result<()> {
        let (store, id) = (&self.image.store, self.image.id);
        let good = store.signature(id)?.context("an image without a signature")?;
        let foreign = images::trust::sign(&tests::trust::key(9), &store.manifest(id)?, 1);
        store.put_signature(id, &foreign)?;
        let refused = self.write_image(volume, CancellationToken::new());
        store.put_signature(id, &good)?;
        ensure!(is(&refused, |e| matches!(e, BackendError::Image { .. })), "{refused:?}");
        let (_, disk) = self.let_in(volume, "one")?;
        disk.io(&["read -P 0 0 1M", "read -P 0 63M 1M"])?;
        self.revoke(volume)
    }

    /// A chunk with one wrong bit is never written, and the volume does not boot.
    fn damaged_chunk(&self, volume: VolumeId) -> Result<()> {
        let manifest = self.image.store.manifest(self.image.id)?;
        let chunk = manifest.chunks.iter().flatten().last().context("no chunk")?;
        let path = self.image.store.chunk_path(chunk.id);
        let good = fs::read(&path)?;
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&path, bad)?;
        let refused = self.write_image(volume, CancellationToken::new());
        fs::write(&path, good)?;
        ensure!(is(&refused, |e| matches!(e, BackendError::Image { .. })), "{refused:?}");
        let (_, disk) = self.let_in(volume, "one")?;
        disk.io(&["read -P 0 0 1M", "read -P 0 63M 1M"])?;
        self.revoke(volume)
    }

    fn one_at_a_time(&self) -> Result<()> {
        let volume = self.new_volume(16 * MIB)?;
        let to = grantee("one");
        let same = to.clone();
        let told = self.call(|b| async move { b.grant(volume, &to).await })?;
        let again = self.call(|b| async move { b.grant(volume, &same).await })?;
        ensure!(told == again, "{told:?} and {again:?}");
        let other = grantee("two");
        let refused = self.call(|b| async move { b.grant(volume, &other).await });
        ensure!(is(&refused, |e| matches!(e, BackendError::Granted { .. })), "{refused:?}");
        self.revoke(volume)?;
        self.revoke(volume)?;
        let (told, disk) = self.let_in(volume, "two")?;
        ensure!(told != again || matches!(told, Told::File { .. }), "the account is the old one");
        disk.io(&["write -P 3 0 1M"])?;
        self.revoke(volume)?;
        self.delete(volume)?;
        let gone = self.call(|b| async move { b.grant(volume, &grantee("one")).await });
        ensure!(is(&gone, |e| matches!(e, BackendError::NoVolume(_))), "{gone:?}");
        Ok(())
    }

    fn copies(&self) -> Result<()> {
        let volume = self.new_volume(32 * MIB)?;
        let (_, disk) = self.let_in(volume, "one")?;
        disk.io(&["write -P 7 8M 4M"])?;
        self.revoke(volume)?;
        let snapshot = SnapshotId(Uuid::new_v4());
        self.call(|b| async move { b.snapshot(volume, snapshot).await })?;
        let (_, disk) = self.let_in(volume, "one")?;
        disk.io(&["write -P 8 8M 4M"])?;
        let copy = new_volume();
        let origin = Origin::Snapshot { volume, snapshot };
        let small = self.call(|b| async move { b.create(copy, 16 * MIB, origin).await });
        ensure!(is(&small, |e| matches!(e, BackendError::Refused(_))), "{small:?}");
        self.call(|b| async move { b.create(copy, 48 * MIB, origin).await })?;
        let (_, copied) = self.let_in(copy, "two")?;
        copied.io(&["read -P 7 8M 4M", "read -P 0 0 8M", "read -P 0 12M 36M", "write -P 9 0 1M"])?;
        disk.io(&["read -P 8 8M 4M", "read -P 0 0 1M"])?;
        self.revoke(volume)?;
        let refused = self.delete(volume);
        ensure!(is(&refused, |e| matches!(e, BackendError::HasSnapshots { .. })), "{refused:?}");
        self.call(|b| async move { b.delete_snapshot(volume, snapshot).await })?;
        self.delete(volume)?;
        // The copy stays whole without what it was made of.
        copied.io(&["read -P 7 8M 4M", "read -P 9 0 1M"])?;
        self.revoke(copy)?;
        self.delete(copy)?;
        let gone = self.call(|b| async move { b.create(copy, 48 * MIB, origin).await });
        ensure!(is(&gone, |e| matches!(e, BackendError::NoSnapshot { .. })), "{gone:?}");
        Ok(())
    }

    fn sizes(&self) -> Result<()> {
        let volume = self.new_volume(16 * MIB)?;
        let (_, disk) = self.let_in(volume, "one")?;
        ensure!(disk.size()? == 16 * MIB, "{}", disk.size()?);
        disk.io(&["write -P 5 15M 1M"])?;
        self.call(|b| async move { b.resize(volume, 40 * MIB).await })?;
        ensure!(disk.size()? == 40 * MIB, "{}", disk.size()?);
        disk.io(&["read -P 5 15M 1M", "read -P 0 16M 24M", "write -P 6 39M 1M"])?;
        let refused = self.call(|b| async move { b.resize(volume, 16 * MIB).await });
        ensure!(is(&refused, |e| matches!(e, BackendError::Refused(_))), "{refused:?}");
        let odd = self.call(|b| async move { b.create(new_volume(), 1000, Origin::Blank).await });
        ensure!(is(&odd, |e| matches!(e, BackendError::Refused(_))), "{odd:?}");
        self.revoke(volume)?;
        self.delete(volume)
    }

    fn again(&self) -> Result<()> {
        let volume = self.new_volume(16 * MIB)?;
        self.call(|b| async move { b.create(volume, 16 * MIB, Origin::Blank).await })?;
        let other = self.call(|b| async move { b.create(volume, 32 * MIB, Origin::Blank).await });
        ensure!(is(&other, |e| matches!(e, BackendError::Exists { .. })), "{other:?}");
        let snapshot = SnapshotId(Uuid::new_v4());
        for _ in 0..2 {
            self.call(|b| async move { b.snapshot(volume, snapshot).await })?;
        }
        let listed = self.call(|b| async move { b.list().await })?;
        let ours: Vec<_> = listed.iter().filter(|s| s.volume == volume).collect();
        ensure!(ours.len() == 2 && ours.iter().all(|s| s.size == 16 * MIB), "{ours:?}");
        for _ in 0..2 {
            self.call(|b| async move { b.delete_snapshot(volume, snapshot).await })?;
        }
        for _ in 0..2 {
            self.revoke(volume)?;
            self.delete(volume)?;
        }
        self.revoke(volume)
    }

    fn a_file_in_use_is_not_taken_away(&self) -> Result<()> {
        let volume = self.new_volume(16 * MIB)?;
        let (_, disk) = self.let_in(volume, "one")?;
        let mut kept = disk.keep_open(self.place.dir())?;
        for refused in [self.revoke(volume), self.delete(volume)] {
            ensure!(is(&refused, |e| matches!(e, BackendError::InUse { .. })), "{refused:?}");
        }
        kept.process.kill()?;
        self.revoke(volume)?;
        self.delete(volume)
    }

    fn strangers_are_refused(&self) -> Result<()> {
        let volume = self.new_volume(16 * MIB)?;
        let (told, disk) = self.let_in(volume, "one")?;
        disk.io(&["write -P 1 0 1M"])?;
        let mut changed = Vec::new();
        for change in 0..3 {
            let mut told = told.clone();
            let Told::Iscsi { initiator, chap, .. } = &mut told else { bail!("{told:?}") };
            match change {
                0 => *chap = None,
                1 => chap.as_mut().context("no account")?.password.0 = "0123456789abcdef".into(),
                _ => *initiator = Some("iqn.2026-11.org.billet.dpu:two".into()),
            }
            changed.push(told);
        }
        for told in changed {
            let disk = Disk::of(&self.place.namespace, &told)?;
            ensure!(disk.io(&["read 0 512"]).is_err(), "{told:?} was let in");
        }
        disk.io(&["read -P 1 0 1M"])?;
        self.revoke(volume)?;
        ensure!(disk.io(&["read 0 512"]).is_err(), "who was let in before still is");
        self.delete(volume)
    }

    /// A host that writes all the time is cut off; from then on the volume does not change, and another has it.
    fn who_was_cut_off_gets_no_answer(&self) -> Result<()> {
        let volume = self.new_volume(16 * MIB)?;
        let (_, disk) = self.let_in(volume, "one")?;
        let kept = disk.keep_open(self.place.dir())?;
        kept.io(&["write -P 1 0 1M"], RESUME)?;
        self.call(|b| async move { b.note_clients(volume).await })?;
        let stats = self.call(|b| async move { b.stats(volume).await })?;
        ensure!(stats.connected.as_ref().is_none_or(|c| !c.is_empty()), "{stats:?}");
        let refused = self.delete(volume);
        ensure!(is(&refused, |e| matches!(e, BackendError::InUse { .. })), "{refused:?}");
        let stop = Arc::new(AtomicBool::new(false));
        let began = std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && kept.io(&["write -P 2 0 8M"], CUT).is_ok() {}
            });
            std::thread::sleep(Duration::from_millis(500));
            let began = Instant::now();
            let revoked = self.revoke(volume);
            stop.store(true, Ordering::Relaxed);
            let took = began.elapsed();
            writing.join().map_err(|_| anyhow::anyhow!("the writer broke down"))?;
            revoked.map(|()| took)
        })?;
        let (_, disk) = self.let_in(volume, "two")?;
        disk.io(&["write -P 3 0 16M"])?;
        // librbd takes a write into memory; whether it is written, the flush says.
        let late = kept.io(&["write -P 4 0 1M", "flush"], CUT);
        ensure!(late.is_err(), "who was cut off still writes");
        disk.io(&["read -P 3 0 16M"])?;
        println!("{}: a writer is cut off in {:.2} s", self.backend.kind().as_str(), began.as_secs_f64());
        drop(kept);
        self.revoke(volume)?;
        self.delete(volume)
    }

    /// A host that did not reach the cluster for so long that it is listed no more is cut off as well, and does not write when it is back.
    fn who_was_away_when_it_was_cut_off_stays_so(&self) -> Result<()> {
        let volume = self.new_volume(16 * MIB)?;
        let (_, disk) = self.let_in(volume, "one")?;
        let kept = disk.keep_open(self.place.dir())?;
        kept.io(&["write -P 1 0 1M", "flush"], RESUME)?;
        self.call(|b| async move { b.note_clients(volume).await })?;
        kept.process.signal(Signal::SIGSTOP)?;
        let end = Instant::now() + AWAY;
        let connected = || {
            let stats = self.call(|b| async move { b.stats(volume).await })?;
            Ok::<_, anyhow::Error>(stats.connected.is_some_and(|all| !all.is_empty()))
        };
        while connected()? {
            ensure!(Instant::now() < end, "the cluster still lists who does not answer");
            std::thread::sleep(Duration::from_secs(1));
        }
        self.revoke(volume)?;
        let (_, disk) = self.let_in(volume, "two")?;
        disk.io(&["write -P 3 0 16M"])?;
        kept.process.signal(Signal::SIGCONT)?;
        let late = kept.io(&["write -P 4 0 1M", "flush"], CUT);
        ensure!(late.is_err(), "who was away still writes");
        disk.io(&["read -P 3 0 16M"])?;
        drop(kept);
        self.revoke(volume)?;
        self.delete(volume)
    }

    /// Waits until the backend's service is as it should be.
    fn settled(&self) -> Result<()> {
        let volume = self.new_volume(16 * MIB)?;
        let end = Instant::now() + RESUME;
        let (_, disk) = self.let_in(volume, "one")?;
        while disk.io(&["read 0 512"]).is_err() {
            ensure!(Instant::now() < end, "the service is not up");
            std::thread::sleep(Duration::from_millis(200));
        }
        self.revoke(volume)?;
        self.delete(volume)
    }

    /// A volume with a copy, given and taken, while one call of a program fails: each in turn, once refused and all undone, once
    /// carried out with its answer lost and asked again.
    fn fails_at_each_step(&self, failing: &Failing, step: usize) -> Result<()> {
        let before = self.kept()?;
        failing.never()?;
        self.steps(failing, false)?;
        let calls = failing.calls()?;
        let mut rounds = 0;
        for number in (1..=calls).step_by(step) {
            for (how, undo) in [(How::Refused, true), (How::AnswerLost, false)] {
                failing.fail(number, how)?;
                let failed = self.steps(failing, undo);
                failed.with_context(|| format!("call {number} {how:?}, undo: {undo}"))?;
                ensure!(self.kept()? == before, "call {number} {how:?}, undo: {undo}: something is left");
                rounds += 1;
            }
        }
        println!("{}: {calls} calls, {rounds} rounds", self.backend.kind().as_str());
        Ok(())
    }

    /// Goes through the life of a volume. A step that fails is done again, or all is undone; neither fails then.
    fn steps(&self, failing: &Failing, undo: bool) -> Result<()> {
        let (volume, copy, snapshot) = (new_volume(), new_volume(), SnapshotId(Uuid::new_v4()));
        let (to, size) = (grantee("one"), 16 * MIB);
        let undone = move |backend: Arc<dyn Backend>| async move {
            backend.revoke(copy).await?;
            backend.delete(copy).await?;
            backend.delete_snapshot(volume, snapshot).await?;
            backend.revoke(volume).await?;
            backend.delete(volume).await
        };
        for step in 0..5 {
            let one = || {
                let to = to.clone();
                self.call(|b| async move {
                    match step {
                        0 => b.create(volume, size, Origin::Blank).await,
                        1 => b.snapshot(volume, snapshot).await,
                        2 => b.create(copy, 2 * size, Origin::Snapshot { volume, snapshot }).await,
                        3 => b.grant(copy, &to).await.map(drop),
                        _ => undone(b).await,
                    }
                })
            };
            if one().is_err() {
                failing.never()?;
                if undo {
                    break;
                }
                one().with_context(|| format!("step {step} again"))?;
            }
        }
        // Undoing what is undone; the call that is to fail may be one of these.
        self.call(undone).or_else(|_| {
            failing.never()?;
            self.call(undone)
        })
    }

    /// What a DPU was told of one volume does not let it read another.
    fn a_key_opens_its_own_volume_alone(&self) -> Result<()> {
        let (own, other) = (self.new_volume(16 * MIB)?, self.new_volume(16 * MIB)?);
        let (told, disk) = self.let_in(own, "one")?;
        let (theirs, _) = self.let_in(other, "two")?;
        disk.io(&["write -P 1 0 1M"])?;
        let mut mixed = told;
        let (Told::Rbd { image, .. }, Told::Rbd { image: wanted, .. }) = (&mut mixed, &theirs) else {
            bail!("{mixed:?}")
        };
        image.clone_from(wanted);
        let stranger = Disk::of(&self.place.namespace, &mixed)?;
        ensure!(stranger.io(&["read 0 512"]).is_err(), "a key opens another's volume");
        for volume in [own, other] {
            self.revoke(volume)?;
            self.delete(volume)?;
        }
        ensure!(disk.io(&["read 0 512"]).is_err(), "a key that was taken away opens something");
        Ok(())
    }

    /// A small unit and a large one; what one volume left there is not read by the next.
    fn units_are_taken_and_given_back(&self) -> Result<()> {
        let before = self.kept()?;
        let (small, large) = (self.new_volume(16 * MIB)?, self.new_volume(20 * MIB)?);
        let none = self.call(|b| async move { b.create(new_volume(), 16 * MIB, Origin::Blank).await });
        ensure!(is(&none, |e| matches!(e, BackendError::NoRoom { .. })), "{none:?}");
        let space = self.call(|b| async move { b.capacity().await })?;
        ensure!(space.free == 0 && space.total == (32 + 64) * MIB, "{space:?}");
        let (_, disk) = self.let_in(small, "one")?;
        disk.io(&["read -P 0 0 32M", "write -P 9 0 32M"])?;
        let refused = self.delete(small);
        ensure!(is(&refused, |e| matches!(e, BackendError::Granted { .. })), "{refused:?}");
        self.revoke(small)?;
        self.delete(small)?;
        let next = self.new_volume(16 * MIB)?;
        let (_, disk) = self.let_in(next, "two")?;
        disk.io(&["read -P 0 0 32M"])?;
        self.revoke(next)?;
        self.delete(next)?;
        self.write_image(large, CancellationToken::new())?;
        let (_, disk) = self.let_in(large, "one")?;
        self.holds_the_image(&disk.bytes(self.place.dir())?)?;
        self.revoke(large)?;
        self.delete(large)?;
        ensure!(self.kept()? == before, "something is left");
        Ok(())
    }

    fn io_goes_on_when_tgtd_dies(&self, backend: &Arc<IscsiBackend>) -> Result<()> {
        let volume = self.new_volume(64 * MIB)?;
        let (_, disk) = self.let_in(volume, "one")?;
        let kept = disk.keep_open(self.place.dir())?;
        for round in 1..=3_u64 {
            let asked = backend.clone();
            let pid = self.place.run(async move { Ok(asked.tgtd_pid().await) })?.context("no tgtd")?;
            let began = Instant::now();
            std::thread::scope(|scope| {
                let load = scope.spawn(|| -> Result<()> {
                    for piece in 0..16 {
                        let command = format!("write -P {} {}M 4M", 16 * round + piece, 4 * piece);
                        kept.io(&[&command], RESUME)?;
                    }
                    Ok(())
                });
                std::thread::sleep(Duration::from_millis(100));
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
                load.join().map_err(|_| anyhow::anyhow!("the load broke down"))?
            })?;
            println!("iscsi: 64 MiB with tgtd killed: {:.1} s", began.elapsed().as_secs_f64());
            let reads: Vec<_> =
                (0..16).map(|p| format!("read -P {} {}M 4M", 16 * round + p, 4 * p)).collect();
            let reads: Vec<_> = reads.iter().map(String::as_str).collect();
            kept.io(&reads, RESUME)?;
        }
        drop(kept);
        self.revoke(volume)?;
        self.delete(volume)
    }

    /// Another server in the place of one that died: the same tgtd, the connection stays, and a revocation that was missed is made up.
    fn a_server_that_starts_again_takes_tgtd_over(&self, backend: &Arc<IscsiBackend>) -> Result<()> {
        let volume = self.new_volume(16 * MIB)?;
        let (_, disk) = self.let_in(volume, "one")?;
        let kept = disk.keep_open(self.place.dir())?;
        kept.io(&["write -P 1 0 1M"], RESUME)?;
        let asked = backend.clone();
        let pid = self.place.run(async move { Ok(asked.tgtd_pid().await) })?;
        let second = iscsi(self.place)?;
        let asked = second.clone();
        std::thread::sleep(Duration::from_secs(1));
        let same = self.place.run(async move { Ok(asked.tgtd_pid().await) })?;
        ensure!(pid == same && pid.is_some(), "{pid:?} and {same:?}");
        let stats = self.place.run(async move { Ok(second.stats(volume).await?) })?;
        ensure!(stats.connected.is_some_and(|c| c.len() == 1), "the connection was not kept");
        kept.io(&["read -P 1 0 1M"], CUT)?;
        drop(kept);
        self.revoke(volume)?;
        self.delete(volume)
    }
}

/// True where it failed with such an error of the backend.
fn is<T>(result: &Result<T>, what: impl Fn(&BackendError) -> bool) -> bool {
    result.as_ref().err().and_then(|e| e.downcast_ref::<BackendError>()).is_some_and(what)
}
