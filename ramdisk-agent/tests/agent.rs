//! The agent's loop against a server in a few lines: hello, inventory, a job, its reports, and leaving.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use protocol::agent::{Hello, ReportReply, Welcome, Work};
use protocol::inventory::Inventory;
use protocol::job::{Job, Task};
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
    match request.split(' ').nth(1).unwrap() {
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
    Command::new(env!("CARGO_BIN_EXE_billet-agent"))
        .args(["run", "--server", url, "--nonce", "abc"])
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
    let task = Task::Clean { disks: vec![protocol::job::DiskTarget { id, size_bytes: 1 << 30 }] };
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
