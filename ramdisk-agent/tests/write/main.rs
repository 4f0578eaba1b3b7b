//! The whole write path of the real program against files and a loop device: order, resume, corruption, cuts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod bench;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bench::*;
use failpoint::Point;
use images::Manifest;

const FOREVER: usize = usize::MAX;

/// Bytes of the image between the ends and outside what was adapted must be on the disk.
fn body_is_equal(image: &Image, target: &Path) {
    let disk = std::fs::read(target).unwrap();
    // The image's own backup table (its last 33 sectors) is overwritten only where the disk is not larger.
    let end = image.raw.len();
    assert!(disk[MIB as usize..end] == image.raw[MIB as usize..end], "body differs");
}

#[test]
fn first_write_then_nothing_to_do() {
    let folder = Folder::new("first");
    let image = image(&folder, 64);
    let target = folder.file("disk", 100 * MIB + 512);
    let other = folder.file("other", 10 * MIB);
    // Old content where the image has holes and beyond: stale tables must not survive.
    std::fs::write(&target, noise(7, (100 * MIB + 512) as usize)).unwrap();
    std::fs::write(&other, noise(8, (10 * MIB) as usize)).unwrap();
    let server = serve(image.frames.clone(), FOREVER);
    let config = folder.0.join("config.json");
    std::fs::write(&config, r##"{"meta_data":"instance-id: x\n","user_data":"#cloud-config\n"}"##).unwrap();

    let first = summary(&write(&image, &target, &server, Some(&config)));
    let data = image.manifest.chunks.iter().flatten().count() as u64;
    assert_eq!((first.chunks_fetched, first.chunks_kept), (data, 0));
    assert!(first.bytes_zeroed > 0);
    body_is_equal(&image, &target);
    let text = run("sgdisk", &["-v", target.to_str().unwrap()]);
    assert!(text.contains("No problems found"), "{text}");
    let table = run("sgdisk", &["-p", target.to_str().unwrap()]);
    assert!(table.contains("cidata"), "{table}");

    // The config partition begins 9 MiB before the end, rounded down to a MiB.
    let disk = std::fs::read(&target).unwrap();
    let volume = folder.0.join("cidata");
    std::fs::write(&volume, &disk[(91 * MIB) as usize..(99 * MIB) as usize]).unwrap();
    run("fsck.vfat", &["-n", volume.to_str().unwrap()]);
    assert!(run("blkid", &["-p", volume.to_str().unwrap()]).contains("LABEL=\"CIDATA\""));
    let text = run("mcopy", &["-i", volume.to_str().unwrap(), "::user-data", "-"]);
    assert_eq!(text, "#cloud-config\n");
    assert_eq!(std::fs::read(&other).unwrap(), noise(8, (10 * MIB) as usize), "other disk changed");

    let asked = server.asked.load(Ordering::SeqCst);
    let again = summary(&write(&image, &target, &server, Some(&config)));
    // Only what reaches into the ends is fetched again.
    assert_eq!((again.chunks_fetched, again.chunks_kept), (1, data - 1));
    assert_eq!(server.asked.load(Ordering::SeqCst) - asked, 1);
    body_is_equal(&image, &target);
}

#[test]
fn disk_as_small_as_the_image() {
    let folder = Folder::new("exact");
    let image = image(&folder, 64);
    let target = folder.file("disk", 64 * MIB);
    let server = serve(image.frames.clone(), FOREVER);
    summary(&write(&image, &target, &server, None));
    let text = run("sgdisk", &["-v", target.to_str().unwrap()]);
    assert!(text.contains("No problems found"), "{text}");
    let disk = std::fs::read(&target).unwrap();
    assert!(disk[MIB as usize..(63 * MIB) as usize] == image.raw[MIB as usize..(63 * MIB) as usize]);
}

#[test]
fn corrupt_chunk_never_reaches_the_disk() {
    let folder = Folder::new("corrupt");
    let image = image(&folder, 64);
    let target = folder.file("disk", 80 * MIB);
    let (index, bad) =
        image.manifest.chunks.iter().enumerate().filter_map(|(i, c)| Some((i, (*c)?))).nth(5).unwrap();
    let mut frames = image.frames.clone();
    let offset = image.manifest.chunk_offset(index) as usize;
    let mut raw = image.raw[offset..offset + image.manifest.chunk_len(index)].to_vec();
    raw[12345] ^= 1;
    frames.insert(bad.id, zstd::bulk::compress(&raw, 1).unwrap());
    let server = serve(frames, FOREVER);
    let output = write(&image, &target, &server, None);
    assert!(!output.status.success());
    let fault: protocol::fault::Fault = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(fault.code, protocol::fault::FaultCode::ChunkCorrupt);
    assert!(
        fault.message.contains(&bad.id.to_string()) && fault.message.contains(&format!("chunk {index} "))
    );
    assert!(ends_are_zero(&target), "the disk must not boot");
    let disk = std::fs::read(&target).unwrap();
    assert!(images::chunk::is_zero(&disk[offset..offset + raw.len()]), "nothing of the chunk was written");
}

#[test]
fn cut_then_resume() {
    let folder = Folder::new("cut");
    let image = image(&folder, 128);
    let target = folder.file("disk", 160 * MIB);
    std::fs::write(&target, noise(9, (160 * MIB) as usize)).unwrap();
    let data = image.manifest.chunks.iter().flatten().count();
    for done in [2, data / 3, data / 3] {
        let stuck = serve(image.frames.clone(), done);
        let mut agent = start(&image, &target, &stuck);
        let since = Instant::now();
        while stuck.asked.load(Ordering::SeqCst) <= done {
            assert!(since.elapsed() < Duration::from_secs(30), "the agent asks for nothing");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(300));
        agent.kill().unwrap();
        agent.wait().unwrap();
        assert!(ends_are_zero(&target), "cut after {done} chunks: the disk must not boot");
    }
    let server = serve(image.frames.clone(), FOREVER);
    let resumed = summary(&write(&image, &target, &server, None));
    assert!(resumed.chunks_fetched < data as u64 / 2, "{resumed:?}");
    body_is_equal(&image, &target);
    run("sgdisk", &["-v", target.to_str().unwrap()]);
}

#[test]
fn server_that_goes_away_and_comes_back() {
    let folder = Folder::new("outage");
    let image = image(&folder, 32);
    let target = folder.file("disk", 48 * MIB);
    // A port that nobody listens on yet.
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = probe.local_addr().unwrap();
    drop(probe);
    let server = Server { url: format!("http://{address}"), asked: Default::default() };
    let mut agent = start(&image, &target, &server);
    std::thread::sleep(Duration::from_millis(700));
    let inner = serve(image.frames.clone(), FOREVER);
    let listener = std::net::TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let inner = inner.url.trim_start_matches("http://").to_owned();
        for client in listener.incoming().map_while(Result::ok) {
            let upstream = std::net::TcpStream::connect(&inner).unwrap();
            let (mut a, mut b) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut a, &mut b));
            let (mut a, mut b) = (upstream, client);
            std::thread::spawn(move || std::io::copy(&mut a, &mut b));
        }
    });
    assert!(agent.wait().unwrap().success());
    body_is_equal(&image, &target);
}

/// At each of its failpoints the agent dies, and the device fails: unless all was done, the first sector is zero. Then it is written.
#[test]
fn dies_at_every_point_and_goes_on() {
    let folder = Folder::new("points");
    let image = image(&folder, 24);
    let server = serve(image.frames.clone(), FOREVER);
    // Reports go to a server; here there is none.
    let points: Vec<_> = Point::ALL
        .iter()
        .filter(|p| p.name().starts_with("agent.") && !p.name().contains("report"))
        .collect();
    assert!(points.len() > 10, "{points:?}");
    for point in points {
        let target = folder.file("disk", 40 * MIB);
        std::fs::write(&target, noise(5, (40 * MIB) as usize)).unwrap();
        for action in ["kill", "eio"] {
            let ended = write_with(&image, &target, &server, &format!("{}={action}@1", point.name()));
            let what = format!("{} {action}: {}", point.name(), String::from_utf8_lossy(&ended.stderr));
            assert_eq!(ended.status.signal(), (action == "kill").then_some(6), "{what}");
            assert!(!ended.status.success(), "{what}");
            let first = &std::fs::read(&target).unwrap()[..512];
            match point {
                // Nothing was written, or all of it.
                Point::AgentOpened => assert_eq!(first, &noise(5, 512)[..], "{what}"),
                // The flush behind the first sector's zeros: they are there, or not.
                Point::AgentFlush => {}
                Point::AgentDone => body_is_equal(&image, &target),
                _ => assert_eq!(first, &[0; 512], "{what}"),
            }
        }
        summary(&write(&image, &target, &server, None));
        body_is_equal(&image, &target);
    }
}

#[test]
fn loop_device() {
    let folder = Folder::new("loop");
    let image = image(&folder, 64);
    let file = folder.file("disk", 96 * MIB);
    std::fs::write(&file, noise(3, (96 * MIB) as usize)).unwrap();
    let device = run("losetup", &["-f", "--show", "--direct-io=on", file.to_str().unwrap()]);
    let device = device.trim();
    let server = serve(image.frames.clone(), FOREVER);
    let output = write(&image, Path::new(device), &server, None);
    let table = std::process::Command::new("sgdisk").args(["-v", device]).output().unwrap();
    run("losetup", &["-d", device]);
    summary(&output);
    let text = String::from_utf8_lossy(&table.stdout);
    assert!(text.contains("No problems found"), "{text}");
    body_is_equal(&image, &file);
}

#[test]
fn refuses_without_the_right_confirmation() {
    let folder = Folder::new("confirm");
    let image = image(&folder, 16);
    let target = folder.file("disk", 32 * MIB);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_billet-agent"))
        .args([
            "write",
            "--server",
            "http://127.0.0.1:1",
            "--yes-erase",
            "other",
            "--accept-unsigned",
            "--image",
        ])
        .arg(&image.path)
        .arg("--target")
        .arg(&target)
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--yes-erase"));
}

/// What the agent says of this image, and that it neither wrote nor asked for anything of the image.
fn refusal(folder: &Folder, image: &Image, name: &str) -> String {
    let target = folder.file(name, 32 * MIB);
    std::fs::write(&target, noise(3, (32 * MIB) as usize)).unwrap();
    let server = serve(image.frames.clone(), FOREVER);
    let output = write(image, &target, &server, None);
    assert!(!output.status.success(), "{name} was written");
    assert_eq!(server.asked.load(Ordering::SeqCst), 0, "{name}: something was fetched");
    assert!(std::fs::read(&target).unwrap() == noise(3, (32 * MIB) as usize), "{name}: the disk changed");
    let fault: protocol::fault::Fault = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(fault.code, protocol::fault::FaultCode::Untrusted, "{name}: {fault}");
    fault.message
}

#[test]
fn an_image_that_nobody_vouches_for_is_refused_and_nothing_is_written() {
    let folder = Folder::new("trust");
    let image = image(&folder, 16);
    let signature = image.path.with_added_extension("minisig");
    let good = std::fs::read(&signature).unwrap();

    std::fs::remove_file(&signature).unwrap();
    assert!(refusal(&folder, &image, "unsigned").contains("is not signed"));

    sign(&image.path, &image.manifest, 2, NUMBER);
    assert!(refusal(&folder, &image, "foreign").contains("which is not trusted here"));

    sign(&image.path, &image.manifest, 1, NUMBER - 1);
    assert!(refusal(&folder, &image, "older").contains("none below 7 is taken"));

    std::fs::write(&signature, &good).unwrap();
    let altered = Manifest { version: "2".into(), ..image.manifest.clone() };
    std::fs::write(&image.path, altered.canonical()).unwrap();
    assert!(refusal(&folder, &image, "altered").contains("does not hold"));
    std::fs::write(&image.path, image.manifest.canonical()).unwrap();

    // Without keys nothing is written, whoever signed it.
    std::fs::write(folder.0.join("trust.json"), "{}").unwrap();
    let target = folder.file("no-keys", 32 * MIB);
    let server = serve(image.frames.clone(), FOREVER);
    let output = write(&image, &target, &server, None);
    assert!(!output.status.success());
    assert_eq!(server.asked.load(Ordering::SeqCst), 0);
    assert!(ends_are_zero(&target) && std::fs::metadata(&target).unwrap().len() == 32 * MIB);
}
