//! Webhooks: tells others of events, in their order, each at least once.
//!
//! ```text
//! event list ─▶ after the last one delivered ─▶ POST, signed ─▶ 2xx: noted in the database ─▶ the next one
//!                                                 └─ else: again later, for a day
//! ```
//!
//! One task for each webhook, so that a dead receiver keeps nobody else waiting. What was delivered is noted behind the
//! delivery, so a receiver may get an event twice after a crash; its number says so.

use std::time::Duration;

use boot_server_core::node::Severity;
use boot_server_core::webhook::{retry_after, signed_text};
use protocol::{Sha256, Timestamp};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use ureq::Agent;

use crate::config::Hook;
use crate::engine::{Actor, Change, Engine, EngineError, EventFilter, now};
use crate::power::chance;
use crate::secret;
use crate::store::{db, queries};
use crate::view::EventView;

/// Events read at once.
const BATCH: usize = 100;
/// Longest that a delivery takes.
const DELIVERY: Duration = Duration::from_secs(15);
/// The list is read at least this often, whatever was announced.
const LOOK: Duration = Duration::from_mins(1);

/// Tells all of them, until `stop`.
pub async fn run(engine: Engine, hooks: Vec<Hook>, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    for hook in hooks {
        let (teller, stop) = (Teller::new(engine.clone(), hook), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = teller.run() => {}
            }
        });
    }
    stop.cancelled().await;
    while tasks.join_next().await.is_some() {}
}

/// Why an event was not delivered.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// The receiver refuses, or is none.
    #[error("it answered {0}")]
    Status(u16),
    /// It cannot be reached.
    #[error(transparent)]
    Transport(#[from] ureq::Error),
    /// The task that asked broke.
    #[error("the delivery broke")]
    Broken,
}

struct Teller {
    engine: Engine,
    hook: Hook,
    agent: Agent,
    /// The last event that was looked at, once it was read.
    last: Option<i64>,
    failures: u32,
}

impl Teller {
    fn new(engine: Engine, hook: Hook) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(DELIVERY))
            .user_agent(concat!("billet/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { engine, hook, agent: config.into(), last: None, failures: 0 }
    }

    async fn run(mut self) {
        let mut changes = self.engine.changes();
        loop {
            if let Err(error) = self.tell_all().await {
                tracing::error!(url = self.hook.url, %error, "events for a webhook cannot be read");
            }
            let news = async {
                while !matches!(changes.recv().await, Ok(Change::Event(_)) | Err(RecvError::Lagged(_))) {}
            };
            // What was announced meanwhile is waiting in `changes`, so nothing waits for the next look.
            drop(tokio::time::timeout(LOOK, news).await);
        }
    }

    /// Delivers what is there.
    async fn tell_all(&mut self) -> Result<(), EngineError> {
        let mut last = match self.last {
            Some(last) => last,
            None => self.stored_last().await?,
        };
        loop {
            self.last = Some(last);
            let filter = EventFilter { after: Some(last), limit: BATCH, ..EventFilter::default() };
            let events = self.engine.events(filter).await?;
            let full = events.len() == BATCH;
            for event in events {
                last = event.id;
                if self.hook.filter.takes(&event.kind, event.severity) {
                    self.tell(&event).await?;
                    self.note_last(last).await?;
                    self.last = Some(last);
                }
            }
            if !full {
                self.last = Some(last);
                return Ok(());
            }
            // What is passed over costs no commit each; after a restart it is passed over again.
            self.note_last(last).await?;
        }
    }

    /// Delivers one event, or leaves it out once it is too old.
    async fn tell(&mut self, event: &EventView) -> Result<(), EngineError> {
        loop {
            let error = match self.deliver(event).await {
                Ok(()) => return self.is_back().await,
                Err(error) => error,
            };
            self.failures = self.failures.saturating_add(1);
            if self.failures == 1 {
                let message = format!("the webhook {} fails: {error}; it is tried again", self.hook.url);
                self.engine.note(Actor::Server, None, "webhook.failing", Severity::Warning, message).await?;
            }
            let Some(pause) = retry_after(now(), event.at, self.failures, chance()) else {
                tracing::warn!(
                    url = self.hook.url,
                    event = event.id,
                    "an event was not delivered for a day: left out"
                );
                return Ok(());
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn is_back(&mut self) -> Result<(), EngineError> {
        if std::mem::take(&mut self.failures) == 0 {
            return Ok(());
        }
        let message = format!("the webhook {} takes events again", self.hook.url);
        self.engine.note(Actor::Server, None, "webhook.working", Severity::Info, message).await
    }

    async fn deliver(&self, event: &EventView) -> Result<(), Failed> {
        let body = serde_json::to_string(event).map_err(|_| Failed::Broken)?;
        let sent = now();
        let signature = signature(&self.hook.secret.0, sent, &body);
        let (agent, url) = (self.agent.clone(), self.hook.url.clone());
        let (kind, id) = (event.kind.clone(), event.id);
        let post = move || {
            let request = agent
                .post(&url)
                .header("Content-Type", "application/json")
                .header("Billet-Event", &kind)
                .header("Billet-Delivery", id.to_string())
                .header("Billet-Signature", &signature);
            request.send(&body).map(|response| response.status())
        };
        let status = tokio::task::spawn_blocking(post).await.map_err(|_| Failed::Broken)??;
        if status.is_success() { Ok(()) } else { Err(Failed::Status(status.as_u16())) }
    }

    /// The last event that it was told; for a new one the newest that there is, because it is told what happens from now on.
    async fn stored_last(&self) -> Result<i64, EngineError> {
        let name = self.setting();
        let known = self.engine.store().read(move |db| queries::setting(db, &name)).await?;
        if let Some(last) = known.and_then(|text| text.parse().ok()) {
            return Ok(last);
        }
        let newest = EventFilter { limit: 1, ..EventFilter::default() };
        let last = self.engine.events(newest).await?.first().map_or(0, |event| event.id);
        self.note_last(last).await?;
        Ok(last)
    }

    async fn note_last(&self, last: i64) -> Result<(), EngineError> {
        let name = self.setting();
        let write = move |db: &db::Connection| queries::set_setting(db, &name, &last.to_string());
        Ok(self.engine.store().write(write).await?)
    }

    fn setting(&self) -> String {
        format!("webhook {}", self.hook.url)
    }
}

/// `t=<seconds>,v1=<HMAC-SHA-256 over the seconds, a dot and the body, in hexadecimal>`.
fn signature(key: &str, sent: Timestamp, body: &str) -> String {
    let mac = secret::hmac(key.as_bytes(), signed_text(sent, body).as_bytes());
    format!("t={},v1={}", sent.0 / 1000, Sha256(mac))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use bmc::Secret;
    use boot_server_core::webhook::Filter;

    use super::*;
    use crate::engine::tests::engine;
    use crate::store::tests::Scratch;

    /// Headers (lower case) and body of a delivery.
    type Delivery = (Vec<String>, String);

    /// A receiver that answers with these statuses in turn, and 200 from then on.
    fn receiver(statuses: &'static [u16]) -> (String, mpsc::Receiver<Delivery>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (send, received) = mpsc::channel();
        let mut statuses = statuses.iter().copied();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = Vec::new();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    match line.trim_end() {
                        "" => break,
                        line => head.push(line.to_lowercase()),
                    }
                }
                let length = head.iter().find_map(|l| l.strip_prefix("content-length: ")).unwrap();
                let mut body = vec![0; length.parse().unwrap()];
                reader.read_exact(&mut body).unwrap();
                let status = statuses.next().unwrap_or(200);
                write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .unwrap();
                send.send((head, String::from_utf8(body).unwrap())).unwrap();
            }
        });
        (url, received)
    }

    async fn next(received: &mut mpsc::Receiver<Delivery>) -> Delivery {
        tokio::task::block_in_place(|| received.recv_timeout(Duration::from_secs(20)).unwrap())
    }

    /// Waits until the mark of `hook` is one that `suits`.
    async fn noted(engine: &Engine, hook: &Hook, suits: impl Fn(i64) -> bool) {
        let name = format!("webhook {}", hook.url);
        for _ in 0..2000 {
            let name = name.clone();
            let known = engine.store().read(move |db| queries::setting(db, &name)).await.unwrap();
            if known.is_some_and(|mark| suits(mark.parse().unwrap())) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the mark of {} does not come", hook.url);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn events_are_told_in_order_signed_and_again_after_a_failure() {
        let scratch = Scratch::new();
        let engine = engine(&scratch).await;
        let (url, mut received) = receiver(&[503]);
        let filter = Filter::new(&["power.*".to_owned()], Severity::Warning).unwrap();
        let hook = Hook { url, secret: Secret("k".repeat(32)), filter };
        engine.note(Actor::Server, None, "power.drift", Severity::Warning, "before").await.unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(engine.clone(), vec![hook.clone()], stop.clone()));
        // The first look sets the mark; what came before it is not told.
        noted(&engine, &hook, |_| true).await;
        for (kind, severity, text) in [
            ("power.drift", Severity::Warning, "one"),
            ("power.on", Severity::Info, "not bad enough"),
            ("deploy.failed", Severity::Error, "another family"),
            ("power.no_effect", Severity::Error, "two"),
        ] {
            engine.note(Actor::Server, None, kind, severity, text).await.unwrap();
        }
        let (_, refused) = next(&mut received).await;
        let (head, body) = next(&mut received).await;
        assert_eq!(refused, body, "the same again after a 503");
        let event: EventView = serde_json::from_str(&body).unwrap();
        assert_eq!((event.kind.as_str(), event.message.as_str()), ("power.drift", "one"));
        let line = |name: &str| head.iter().find_map(|l| l.strip_prefix(name)).unwrap();
        assert_eq!(line("billet-event: "), "power.drift");
        assert_eq!(line("billet-delivery: "), event.id.to_string());
        let signed = line("billet-signature: ");
        let seconds: u64 = signed.strip_prefix("t=").unwrap().split_once(',').unwrap().0.parse().unwrap();
        assert_eq!(signed, signature(&hook.secret.0, Timestamp(seconds * 1000), &body));
        assert_ne!(signed, signature("another", Timestamp(seconds * 1000), &body));
        let (_, body) = next(&mut received).await;
        assert!(body.contains("\"two\""), "{body}");
        // It is noted behind the delivery; a stop between the two would tell it again.
        let two: EventView = serde_json::from_str(&body).unwrap();
        noted(&engine, &hook, |last| last >= two.id).await;
        stop.cancel();
        running.await.unwrap();

        // A server that starts again goes on behind the last one.
        engine.note(Actor::Server, None, "power.drift", Severity::Warning, "three").await.unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(engine.clone(), vec![hook], stop.clone()));
        let (_, body) = next(&mut received).await;
        assert!(body.contains("\"three\""), "{body}");
        stop.cancel();
        running.await.unwrap();
        let kinds: Vec<String> = engine
            .events(EventFilter { after: Some(0), limit: 100, ..EventFilter::default() })
            .await
            .unwrap()
            .into_iter()
            .map(|event| event.kind)
            .filter(|kind| kind.starts_with("webhook."))
            .collect();
        assert_eq!(kinds, ["webhook.failing", "webhook.working"]);
    }
}
