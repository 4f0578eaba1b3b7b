//! The conversation with a server that is played here.

use super::*;

fn observed(generation: u64) -> Observed {
    Observed {
        version: VERSION,
        generation: Some(generation),
        settled: true,
        problems: Vec::new(),
        ports: Vec::new(),
        mirrors: Vec::new(),
        functions: None,
        volumes: Vec::new(),
        discarded: Vec::new(),
    }
}

fn line(shared: &Arc<Shared>) -> Line {
    Line { offers: mpsc::channel(1).1, shared: shared.clone() }
}

#[test]
fn what_changed_is_news_and_so_is_a_new_welcome() {
    let shared = Arc::new(Shared::default());
    let line = line(&shared);
    let late = Instant::now() + Duration::from_secs(3600);
    line.observe(&observed(1));
    shared.accept(true);
    let now = shared.news((None, 0), late);
    let sent = (now.accepted, now.count);
    // Nothing new, but the heartbeat is due.
    assert_eq!(shared.news(sent, Instant::now()).count, now.count);
    line.observe(&observed(2));
    assert_eq!(shared.news(sent, late).observed, Some(observed(2)));
    let sent = (now.accepted, now.count + 1);
    shared.accept(false);
    shared.accept(true);
    assert_ne!(shared.news(sent, late).accepted, now.accepted);
}

#[test]
fn how_far_a_volume_is_is_told_later_and_with_whatever_is_told_before() {
    let at = |percent, adapted| {
        let instant = protocol::dpu::InstantSeen { percent, adapted, ..Default::default() };
        let name = "v".parse().unwrap();
        let volume = protocol::dpu::VolumeSeen {
            name,
            pid: Some(1),
            in_use: true,
            restarts: 0,
            plugged: None,
            instant: Some(Box::new(instant)),
        };
        Observed { volumes: vec![volume], ..observed(1) }
    };
    let shared = Arc::new(Shared::default());
    let (line, late) = (line(&shared), Instant::now() + Duration::from_secs(3600));
    shared.accept(true);
    line.observe(&at(1, false));
    let now = shared.news((None, 0), late);
    let sent = (now.accepted, now.count);
    let begun = Instant::now();
    line.observe(&at(2, false));
    line.observe(&at(3, false));
    let now = shared.news(sent, late);
    assert!(begun.elapsed() >= TOGETHER);
    assert_eq!((now.observed, now.count), (Some(at(3, false)), sent.1));
    line.observe(&at(4, false));
    line.observe(&at(4, true));
    let now = shared.news(sent, late);
    assert_eq!((now.observed, now.count), (Some(at(4, true)), sent.1 + 1));
    assert_eq!(shared.lock().told_by, None, "it was told");
}

#[test]
fn nobody_reports_to_a_server_that_does_not_know_them() {
    let shared = Arc::new(Shared::default());
    line(&shared).observe(&observed(1));
    let waiting = shared.clone();
    let news = std::thread::spawn(move || waiting.news((None, 0), Instant::now()));
    std::thread::sleep(Duration::from_millis(200));
    assert!(!news.is_finished());
    shared.accept(true);
    assert_eq!(news.join().unwrap().accepted, Some(1));
}
