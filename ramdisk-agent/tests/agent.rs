//! The agent's loop against a server in a few lines: hello, inventory, a job, its reports, and leaving.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use images::minisign::SecretKey;
use images::trust::{self, Anchor, TrustedKey};
use images::{Architecture, Manifest, PartitionTable};
use protocol::agent::{Hello, ReportReply, Welcome, Work};
use protocol::fault::FaultCode;
use protocol::inventory::Inventory;
use protocol::job::{DeploySpec, DiskTarget, Job, Task};
use protocol::report::{Report, ReportBatch, ReportBody, Stage};
use protocol::{DiskId, NodeId, Timestamp};

/// What the server saw, and how often it fails a request before it answers.
#[derive(Default)]
struct Seen {
    hello: Option<Hello>,
    inventories: Vec<Inventory>,
    reports: Vec<Report>,
    fail_next: u32,
    known: bool,
    /// What lies at other paths.
    files: Vec<(String, String)>,
}

fn serve(task: Task, seen: Arc<Mutex<Seen>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let job = Job { id: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap(), task };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (seen, job) = (seen.clone(), job.clone());
            std::thread::spawn(move || connection(stream, &job, &seen));
        }
    });
    url
}

fn connection(mut stream: TcpStream, job: &Job, seen: &Mutex<Seen>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let (mut request, mut length) = (String::new(), 0);
        reader.read_line(&mut request).ok().filter(|n| *n > 0)?;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (status, answer) = answer(&request, &body, job, &mut seen.lock().unwrap());
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len()).ok()?;
    }
}

fn answer(request: &str, body: &[u8], job: &Job, seen: &mut Seen) -> (&'static str, String) {
    if seen.fail_next > 0 {
        seen.fail_next -= 1;
        return ("503 Busy", String::new());
    }
    if !seen.known {
        return ("401 Unauthorized", String::new());
    }
    let json = |v: serde_json::Value| ("200 OK", v.to_string());
    let path = request.split(' ').nth(1).unwrap();
    if let Some((_, content)) = seen.files.iter().find(|(name, _)| name == path) {
        return ("200 OK", content.clone());
    }
    match path {
        path if path.starts_with("/images/") => ("404 Not Found", String::new()),
        "/agent/v1/hello" => {
            seen.hello = Some(serde_json::from_slice(body).unwrap());
            let node: NodeId = "67e55044-10b1-426f-9247-bb680e5fe0c9".parse().unwrap();
            let now = Timestamp(1);
            json(serde_json::to_value(Welcome { node, name: "n1".into(), session: "s".into(), now }).unwrap())
        }
        "/agent/v1/inventory" => {
            seen.inventories.push(serde_json::from_slice(body).unwrap());
            ("204 No Content", String::new())
        }
        "/agent/v1/report" => {
            let batch: ReportBatch = serde_json::from_slice(body).unwrap();
            let next = seen.reports.len() as u64 + 1;
            seen.reports.extend(batch.reports.into_iter().filter(|r| r.seq >= next));
            json(
                serde_json::to_value(ReportReply { acked: seen.reports.len() as u64, abort: false }).unwrap(),
            )
        }
        _ => {
            let over = seen
                .reports
                .iter()
                .any(|r| matches!(r.body, ReportBody::Finished { .. } | ReportBody::Failed { .. }));
            let work = if over { Work::Reboot } else { Work::Job { job: Box::new(job.clone()) } };
            json(serde_json::to_value(work).unwrap())
        }
    }
}

fn run(url: &str) -> Output {
    run_with(url, &[])
}

fn run_with(url: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_billet-agent"))
        .args(["run", "--server", url, "--nonce", "abc"])
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn says_hello_inspects_reports_and_leaves() {
    let seen = Arc::new(Mutex::new(Seen { fail_next: 2, known: true, ..Seen::default() }));
    let output = run(&serve(Task::Inspect, seen.clone()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.hello.as_ref().unwrap().nonce, "abc");
    assert_eq!(seen.inventories.len(), 2);
    assert!(seen.inventories[0].memory_bytes > 0 && !seen.inventories[0].cpus.is_empty());
    assert_eq!(seen.reports[0].body, ReportBody::Stage { stage: Stage::Inspect });
    assert!(matches!(seen.reports.last().unwrap().body, ReportBody::Finished { .. }));
    assert!(seen.reports.iter().zip(1..).all(|(r, n)| r.seq == n));
}

/// It dies before it could report; booted again it does the job, and the server hears of its end once.
#[test]
fn dies_before_its_report_and_does_the_job_again() {
    let seen = Arc::new(Mutex::new(Seen { known: true, ..Seen::default() }));
    let url = serve(Task::Inspect, seen.clone());
    let died = Command::new(env!("CARGO_BIN_EXE_billet-agent"))
        .args(["run", "--server", &url, "--nonce", "abc"])
        .env(failpoint::VARIABLE, format!("{}=kill@1", failpoint::Point::AgentReport.name()))
        .output()
        .unwrap();
    assert_eq!(died.status.signal(), Some(6), "{}", String::from_utf8_lossy(&died.stderr));
    assert!(seen.lock().unwrap().reports.is_empty());
    assert!(run(&url).status.success());
    let ends =
        seen.lock().unwrap().reports.iter().filter(|r| matches!(r.body, ReportBody::Finished { .. })).count();
    assert_eq!(ends, 1);
}

#[test]
fn job_for_a_disk_that_is_not_there_fails_with_the_reason() {
    let seen = Arc::new(Mutex::new(Seen { known: true, ..Seen::default() }));
    let id = DiskId::of(None, Some("NO-SUCH-DISK"), None).unwrap();
    let task =
        Task::Clean { disks: vec![protocol::job::DiskTarget { id, size_bytes: 1 << 30 }], erase: None };
    assert!(run(&serve(task, seen.clone())).status.success());
    let seen = seen.lock().unwrap();
    let Some(ReportBody::Failed { fault }) = seen.reports.last().map(|r| &r.body) else {
        unreachable!("no fault reported")
    };
    assert_eq!(fault.code, protocol::fault::FaultCode::DiskNotFound);
    assert!(fault.message.contains("NO-SUCH-DISK"));
}

#[test]
fn unknown_session_ends_the_loop() {
    let output = run(&serve(Task::Inspect, Arc::default()));
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not know this session"));
}

fn image() -> Manifest {
    Manifest {
        format: images::manifest::FORMAT.into(),
        name: "test".into(),
        version: "1".into(),
        architecture: Architecture::X86_64,
        firmware: [].into(),
        partition_table: PartitionTable::None,
        raw_size: 65536,
        sha256: protocol::Sha256([1; 32]),
        minimum_disk: 65536,
        default_user: None,
        datasource: None,
        chunk_size: 65536,
        chunks: vec![None],
    }
}

fn key(seed: u8) -> SecretKey {
    SecretKey::of_seed(&[seed; 32])
}

/// How a deploy fails whose disk is not there, for an agent that trusts key 1: at the disk where the image is taken.
fn deploy(signature: Option<String>, succession: &[String], with_keys: bool) -> (FaultCode, String) {
    let image = image();
    let id = image.id();
    let mut files = vec![(format!("/images/{id}/manifest"), String::from_utf8(image.canonical()).unwrap())];
    files.extend(signature.map(|text| (format!("/images/{id}/signature"), text)));
    files.push(("/trust/succession".into(), serde_json::to_string(succession).unwrap()));
    let seen = Arc::new(Mutex::new(Seen { known: true, files, ..Seen::default() }));
    let disk = DiskId::of(None, Some("NO-SUCH-DISK"), None).unwrap();
    let task = Task::Deploy(Box::new(DeploySpec {
        image: id,
        image_name: "test 1".into(),
        target: DiskTarget { id: disk, size_bytes: 1 << 30 },
        config: None,
        grow_root: false,
        boot_entry: None,
    }));
    let trusted = TrustedKey {
        key: key(1).public(),
        title: "this site".into(),
        floors: [("test".to_owned(), 5)].into(),
    };
    let path = std::env::temp_dir().join(format!(
        "billet-trust-{}-{:?}.json",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&path, Anchor::new(vec![trusted]).to_json()).unwrap();
    let more: &[&str] = if with_keys { &["--trust", path.to_str().unwrap()] } else { &[] };
    let output = run_with(&serve(task, seen.clone()), more);
    std::fs::remove_file(&path).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen = seen.lock().unwrap();
    let Some(ReportBody::Failed { fault }) = seen.reports.last().map(|r| &r.body) else {
        unreachable!("no fault reported")
    };
    (fault.code, fault.message.clone())
}

#[test]
fn a_job_whose_image_nobody_vouches_for_fails_with_the_reason() {
    let signed = |seed, number| Some(trust::sign(&key(seed), &image(), number));
    assert_eq!(deploy(signed(1, 5), &[], true).0, FaultCode::DiskNotFound, "a good one goes on to the disk");
    for (signature, with_keys, why) in [
        (None, true, "is not signed"),
        (signed(2, 5), true, "which is not trusted here"),
        (signed(1, 4), true, "none below 5 is taken"),
        (Some(key(1).sign(b"other", &trust::Statement::of(&image(), 5).to_string())), true, "does not hold"),
        (signed(1, 5), false, "does not say whose images it may write"),
    ] {
        let (code, message) = deploy(signature, &[], with_keys);
        assert_eq!(code, FaultCode::Untrusted, "{message}");
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn a_key_that_the_old_one_named_is_taken_and_not_the_other_way_round() {
    let next = trust::succession(&key(1), &key(2).public());
    let signed = |seed| Some(trust::sign(&key(seed), &image(), 5));
    assert_eq!(deploy(signed(2), &[next], true).0, FaultCode::DiskNotFound);
    let forged = [trust::succession(&key(3), &key(3).public()), trust::succession(&key(3), &key(1).public())];
    assert_eq!(deploy(signed(3), &forged, true).0, FaultCode::Untrusted);
}
