//! One connection: calls of ours, which may be many at once, and what the peer says by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::address::Io;
use crate::limits::Limits;
use crate::message::{Dialect, Message, MessageError, Refusal};
use crate::splitter::{SplitError, Splitter};

/// Messages that wait to be sent; more make the sender wait.
const QUEUE: usize = 16;
/// Octets that are read at once.
const READ: usize = 64 << 10;

/// How to talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The version.
    pub dialect: Dialect,
    /// Bounds of what is sent and received.
    pub limits: Limits,
    /// How long a call waits for its answer, unless it says so itself.
    pub patience: Duration,
}

/// Why a connection is no more. All calls that waited get the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Closed {
    /// The peer ended it, or this side did.
    #[error("the connection was closed")]
    End,
    /// The system's words.
    #[error("the connection broke")]
    Io(#[source] Arc<std::io::Error>),
    /// The peer sent what is no stream of messages.
    #[error("the peer sent what cannot be read")]
    Split(#[from] SplitError),
    /// The peer sent an object that is no message.
    #[error("the peer sent what cannot be read")]
    Message(#[source] Arc<MessageError>),
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The peer refused it.
    #[error("`{method}` was refused: {refusal}")]
    Refused {
        /// Of the call.
        method: String,
        /// The peer's words.
        refusal: Refusal,
    },
    /// No answer in time. Whether the peer did it is not known.
    #[error("`{method}` was not answered within {after:?}")]
    TimeOut {
        /// Of the call.
        method: String,
        /// So long it was waited.
        after: Duration,
    },
    /// The connection is gone. Whether the peer did it is not known where the call was sent before.
    #[error("`{method}` has no answer")]
    Closed {
        /// Of the call.
        method: String,
        /// Why.
        #[source]
        why: Closed,
    },
    /// Too many calls at once; nothing was sent.
    #[error("`{method}` was not sent: {limit} calls wait for their answers")]
    Busy {
        /// Of the call.
        method: String,
        /// At most so many.
        limit: usize,
    },
    /// The request is larger than the limit; nothing was sent.
    #[error("`{method}` was not sent: {size} octets are more than the {limit} of one message")]
    TooLarge {
        /// Of the call.
        method: String,
        /// Of the request.
        size: usize,
        /// At most so many.
        limit: usize,
    },
}

/// One end of a connection. Clones share it; with the last one it is closed.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    _open: Arc<DropGuard>,
    options: Options,
}

type Waiting = oneshot::Sender<Result<Value, Refusal>>;

#[derive(Debug)]
struct Shared {
    calls: Mutex<Calls>,
    outgoing: mpsc::Sender<Vec<u8>>,
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct Calls {
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
    closed: Option<Closed>,
}

/// Takes its call off the list when the caller stops waiting, whatever made it.
struct Listed<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.shared.calls().waiting.remove(&self.id);
    }
}

impl Client {
    /// Takes a connection over, in a task of its own (so within a tokio runtime). `heard` gets the requests and
    /// notifications of the peer, in order, and before the answers that came after them; what it returns answers a request,
    /// `None` refuses it. It must not wait.
    pub fn start(
        stream: Box<dyn Io>,
        options: Options,
        heard: impl FnMut(Message) -> Option<Value> + Send + 'static,
    ) -> Self {
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared { calls: Mutex::default(), outgoing, ended: CancellationToken::new() });
        let (read, write) = tokio::io::split(stream);
        tokio::spawn({
            let (shared, stop) = (shared.clone(), stop.clone());
            async move {
                let why = tokio::select! {
                    () = stop.cancelled() => Closed::End,
                    why = listen(read, &shared, options, heard) => why,
                    why = speak(write, queue) => why,
                };
                shared.close(why);
            }
        });
        Self { shared, _open: Arc::new(stop.drop_guard()), options }
    }

    /// Calls a method and waits for its result, as long as [`Options::patience`] says.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, CallError> {
        self.call_within(method, params, self.options.patience).await
    }

    /// As [`Client::call`], with a time of its own.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call_within(
        &self,
        method: &str,
        params: Value,
        after: Duration,
    ) -> Result<Value, CallError> {
        let asked = tokio::time::timeout(after, self.ask(method, params)).await;
        asked.unwrap_or_else(|_| Err(CallError::TimeOut { method: method.to_owned(), after }))
    }

    async fn ask(&self, method: &str, params: Value) -> Result<Value, CallError> {
        let named = || method.to_owned();
        let gone = |why| CallError::Closed { method: named(), why };
        let (listed, answer) = {
            let mut calls = self.shared.calls();
            if let Some(why) = calls.closed.clone() {
                return Err(gone(why));
            }
            let limit = self.options.limits.calls;
            if calls.waiting.len() >= limit {
                return Err(CallError::Busy { method: named(), limit });
            }
            calls.last += 1;
            let id = calls.last;
            let (sender, answer) = oneshot::channel();
            calls.waiting.insert(id, sender);
            (Listed { shared: &self.shared, id }, answer)
        };
        let request = self.options.dialect.request(Some(listed.id), method, params).to_string().into_bytes();
        let (size, limit) = (request.len(), self.options.limits.message);
        if size > limit {
            return Err(CallError::TooLarge { method: named(), size, limit });
        }
        if self.shared.outgoing.send(request).await.is_err() {
            return Err(gone(self.shared.why()));
        }
        match answer.await {
            Ok(outcome) => outcome.map_err(|refusal| CallError::Refused { method: named(), refusal }),
            Err(_) => Err(gone(self.shared.why())),
        }
    }

    /// Waits until the connection is gone.
    pub async fn closed(&self) -> Closed {
        self.shared.ended.cancelled().await;
        self.shared.why()
    }
}

impl Shared {
    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn why(&self) -> Closed {
        self.calls().closed.clone().unwrap_or(Closed::End)
    }

    fn close(&self, why: Closed) {
        let mut calls = self.calls();
        calls.closed.get_or_insert(why);
        calls.waiting.clear();
        drop(calls);
        self.ended.cancel();
    }
}

async fn speak(mut write: WriteHalf<Box<dyn Io>>, mut queue: mpsc::Receiver<Vec<u8>>) -> Closed {
    while let Some(message) = queue.recv().await {
        if let Err(e) = write.write_all(&message).await {
            return Closed::Io(Arc::new(e));
        }
    }
    Closed::End
}

async fn listen(
    mut read: ReadHalf<Box<dyn Io>>,
    shared: &Shared,
    options: Options,
    mut heard: impl FnMut(Message) -> Option<Value>,
) -> Closed {
    let mut splitter = Splitter::new(options.limits);
    let mut buffer = vec![0; READ];
    loop {
        match read.read(&mut buffer).await {
            Ok(0) => return Closed::End,
            Ok(n) => splitter.handle_input(&buffer[..n]),
            Err(e) => return Closed::Io(Arc::new(e)),
        }
        loop {
            let octets = match splitter.poll_message() {
                Ok(Some(octets)) => octets,
                Ok(None) => break,
                Err(e) => return e.into(),
            };
            let message = match Message::parse(&octets) {
                Ok(message) => message,
                Err(e) => return Closed::Message(Arc::new(e)),
            };
            let Some(reply) = take(message, shared, options.dialect, &mut heard) else { continue };
            if shared.outgoing.send(reply.to_string().into_bytes()).await.is_err() {
                return Closed::End;
            }
        }
    }
}

/// Hands a message to whom it is for; what is to be sent back.
fn take(
    message: Message,
    shared: &Shared,
    dialect: Dialect,
    heard: &mut impl FnMut(Message) -> Option<Value>,
) -> Option<Value> {
    match message {
        Message::Answer { id, outcome } => {
            // An answer that nobody waits for any more came after its time.
            let waiting = id.as_u64().and_then(|id| shared.calls().waiting.remove(&id));
            if let Some(waiting) = waiting {
                let _ = waiting.send(outcome);
            }
            None
        }
        Message::Request { ref id, .. } => {
            let id = id.clone();
            Some(match heard(message) {
                Some(result) => dialect.answer(&id, result),
                None => dialect.unknown(&id),
            })
        }
        Message::Notification { .. } => {
            heard(message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const OPTIONS: Options = Options {
        dialect: Dialect::V1,
        limits: Limits { message: 4096, depth: 8, calls: 2 },
        patience: Duration::from_secs(5),
    };

    /// A peer whose messages the test reads and writes.
    struct Peer {
        stream: DuplexStream,
        splitter: Splitter,
    }

    impl Peer {
        async fn read(&mut self) -> Value {
            loop {
                if let Some(message) = self.splitter.poll_message().unwrap() {
                    return serde_json::from_slice(&message).unwrap();
                }
                let mut buffer = [0; 100];
                let n = self.stream.read(&mut buffer).await.unwrap();
                assert!(n > 0, "the client closed the connection");
                self.splitter.handle_input(&buffer[..n]);
            }
        }

        async fn write(&mut self, value: &Value) {
            self.stream.write_all(value.to_string().as_bytes()).await.unwrap();
        }
    }

    fn pair(heard: impl FnMut(Message) -> Option<Value> + Send + 'static) -> (Client, Peer) {
        let (here, there) = duplex(64);
        let client = Client::start(Box::new(here), OPTIONS, heard);
        (client, Peer { stream: there, splitter: Splitter::new(OPTIONS.limits) })
    }

    #[tokio::test]
    async fn answers_find_their_calls_in_any_order() {
        let (client, mut peer) = pair(|_| None);
        let peer = async {
            let (a, b) = (peer.read().await, peer.read().await);
            peer.write(&json!({ "id": b["id"], "result": b["params"], "error": null })).await;
            peer.write(&json!({ "id": a["id"], "result": null, "error": "no" })).await;
            peer.write(&json!({ "id": 99, "result": "nobody asked", "error": null })).await;
        };
        let (a, b, third, ()) = tokio::join!(
            client.call("a", json!([1])),
            client.call("b", json!([2])),
            client.call("c", json!([3])),
            peer
        );
        assert_eq!(a.unwrap_err().to_string(), "`a` was refused: no");
        assert_eq!(b.unwrap(), json!([2]));
        assert!(matches!(third, Err(CallError::Busy { limit: 2, .. })));
    }

    #[tokio::test]
    async fn what_the_peer_says_comes_before_the_answer_that_follows_it() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = {
            let said = said.clone();
            move |message| match message {
                Message::Notification { params, .. } => {
                    said.lock().unwrap().push(params);
                    None
                }
                Message::Request { method, params, .. } => (method == "echo").then_some(params),
                Message::Answer { .. } => unreachable!("answers are the client's own"),
            }
        };
        let (client, mut peer) = pair(heard);
        let peer = async {
            let call = peer.read().await;
            peer.write(&json!({ "id": null, "method": "update", "params": ["row"] })).await;
            peer.write(&json!({ "id": call["id"], "result": {}, "error": null })).await;
            peer.write(&json!({ "id": "echo", "method": "echo", "params": [5] })).await;
            assert_eq!(peer.read().await, json!({ "id": "echo", "result": [5], "error": null }));
            peer.write(&json!({ "id": 1, "method": "steal", "params": [] })).await;
            assert_eq!(peer.read().await, json!({ "id": 1, "result": null, "error": "unknown method" }));
        };
        let call = async {
            client.call("transact", json!([])).await.unwrap();
            assert_eq!(*said.lock().unwrap(), [json!(["row"])], "the update was taken first");
        };
        tokio::join!(call, peer);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_in_time_and_frees_its_place() {
        let (client, mut peer) = pair(|_| None);
        for _ in 0..3 {
            let (call, _) = tokio::join!(client.call("slow", json!([])), peer.read());
            assert!(matches!(call, Err(CallError::TimeOut { .. })));
        }
        let huge = client.call("big", json!(["x".repeat(5000)])).await;
        assert!(matches!(huge, Err(CallError::TooLarge { limit: 4096, .. })));
        assert!(client.shared.calls().waiting.is_empty());
    }

    #[tokio::test]
    async fn the_end_of_a_connection_ends_its_calls() {
        let (client, mut peer) = pair(|_| None);
        let peer = async {
            peer.read().await;
            peer.stream.write_all(b"HTTP/1.1 400").await.unwrap();
        };
        let (call, ()) = tokio::join!(client.call("a", json!([])), peer);
        assert!(matches!(call, Err(CallError::Closed { why: Closed::Split(SplitError::Start(b'H')), .. })));
        assert!(matches!(client.closed().await, Closed::Split(_)));
        assert!(matches!(client.call("b", json!([])).await, Err(CallError::Closed { .. })));

        let (client, mut peer) = pair(|_| None);
        drop(client);
        assert_eq!(peer.stream.read(&mut [0; 9]).await.unwrap(), 0, "the last client closes it");
    }
}
