//! HTTP/1.1 with one controller: connections, and one exchange of a request for an answer, bounded in time and size.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::address::{Link, Origin};
use super::json::cut;
use super::limits;
use super::tls::Trust;
use crate::BmcError;

/// A body that is sent.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// When a call of the trait must be over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    until: Instant,
    whole: Duration,
}

impl Deadline {
    pub(super) fn after(whole: Duration) -> Self {
        Self { until: Instant::now() + whole, whole }
    }

    /// The same one, or an earlier one.
    pub(super) fn at_most(self, part: Duration) -> Self {
        let until = Instant::now() + part;
        if until < self.until { Self { until, whole: part } } else { self }
    }

    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    async fn wait<T>(&self, what: &str, work: impl Future<Output = T>) -> Result<T, BmcError> {
        tokio::time::timeout_at(self.until, work).await.map_err(|_| self.over(what))
    }

    pub(super) fn over(&self, what: &str) -> BmcError {
        BmcError::TimedOut { what: what.to_owned(), after: self.whole }
    }
}

/// What is sent.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) link: &'a Link,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

impl Ask<'_> {
    /// For errors.
    pub(super) fn what(&self) -> String {
        format!("{} {}", self.method, self.link)
    }
}

/// What came.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim).filter(|v| !v.is_empty())
    }
}

/// Connections to one controller.
pub(super) struct Wire {
    pub(super) origin: Origin,
    trust: Arc<Trust>,
    tls: Option<TlsConnector>,
    /// Connections that nobody uses now. Taken out before use, so the lock is never held while waiting.
    idle: Mutex<Vec<SendRequest<Body>>>,
}

impl Wire {
    pub(super) fn new(origin: Origin, trust: Arc<Trust>) -> Result<Self, BmcError> {
        let config = trust.config().map_err(|e| BmcError::Tls { what: e.to_string() })?;
        let tls = origin.tls.then(|| TlsConnector::from(Arc::new(config)));
        Ok(Self { origin, trust, tls, idle: Mutex::default() })
    }

    /// Another one to the same controller, with the same trust.
    pub(super) fn again(&self) -> Result<Self, BmcError> {
        Self::new(self.origin.clone(), self.trust.clone())
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Sends and receives once. What changes nothing may go over a connection that was used before, and is sent again
    /// where the controller had closed that one; a change gets a connection of its own, because after such an end
    /// nobody knows whether it was carried out.
    pub(super) async fn exchange(&self, deadline: Deadline, ask: &Ask<'_>) -> Result<Answer, BmcError> {
        let what = ask.what();
        if ask.method == Method::GET
            && let Some(mut connection) = self.take_idle()
            && deadline.wait(&what, connection.ready()).await?.is_ok()
            && let Ok(answer) = self.send(deadline, connection, ask, &what).await?
        {
            return Ok(answer);
        }
        let connection = self.open(deadline, &what).await?;
        self.send(deadline, connection, ask, &what).await?.map_err(|e| unreachable(&what, &e))
    }

    /// Sends a body that is not in memory, and waits as long as the deadline lets it.
    pub(super) async fn upload(
        &self,
        deadline: Deadline,
        ask: &Ask<'_>,
        body: Body,
        length: u64,
    ) -> Result<Answer, BmcError> {
        let what = ask.what();
        let connection = self.open(deadline, &what).await?;
        let mut request = self.request(ask, &what, body)?;
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        self.carry(deadline, connection, request, &what).await?.map_err(|e| unreachable(&what, &e))
    }

    async fn send(
        &self,
        deadline: Deadline,
        connection: SendRequest<Body>,
        ask: &Ask<'_>,
        what: &str,
    ) -> Result<Result<Answer, hyper::Error>, BmcError> {
        let body = Full::new(ask.body.clone()).map_err(|never| match never {}).boxed_unsync();
        let request = self.request(ask, what, body)?;
        self.carry(deadline, connection, request, what).await
    }

    fn request(&self, ask: &Ask<'_>, what: &str, body: Body) -> Result<Request<Body>, BmcError> {
        let wrong = |e: hyper::http::Error| BmcError::Malformed { what: what.to_owned(), why: e.to_string() };
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(ask.link.as_str())
            .header(header::HOST, self.origin.authority())
            .header(header::USER_AGENT, "Billet")
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity")
            .header("OData-Version", "4.0")
            .body(body)
            .map_err(wrong)?;
        for (name, value) in &ask.headers {
            request.headers_mut().insert(name, value.clone());
        }
        Ok(request)
    }

    /// The inner error is one of the connection before there was an answer.
    async fn carry(
        &self,
        deadline: Deadline,
        mut connection: SendRequest<Body>,
        request: Request<Body>,
        what: &str,
    ) -> Result<Result<Answer, hyper::Error>, BmcError> {
        let response = match deadline.wait(what, connection.send_request(request)).await? {
            Ok(response) => response,
            // A head that is no HTTP is the controller's fault, not the network's.
            Err(e) if e.is_parse() => {
                return Err(BmcError::Malformed { what: what.to_owned(), why: format!("no HTTP: {e}") });
            }
            Err(e) => return Ok(Err(e)),
        };
        let (head, body) = response.into_parts();
        let body = deadline.wait(what, collect(what, &head.headers, body)).await??;
        self.keep(connection, &head.headers);
        Ok(Ok(Answer { status: head.status, headers: head.headers, body }))
    }

    async fn open(&self, deadline: Deadline, what: &str) -> Result<SendRequest<Body>, BmcError> {
        let target = (self.origin.host.as_str(), self.origin.port);
        let connect = deadline.at_most(limits::CONNECT);
        let stream = connect
            .wait(what, TcpStream::connect(target))
            .await?
            .map_err(|e| BmcError::Unreachable { what: format!("{}: {e}", self.origin.authority()) })?;
        stream.set_nodelay(true).map_err(|e| BmcError::Unreachable { what: e.to_string() })?;
        match &self.tls {
            None => self.shake(deadline, stream, what).await,
            Some(tls) => {
                let stream = self.handshake(deadline.at_most(limits::HANDSHAKE), tls, stream, what).await?;
                self.shake(deadline, stream, what).await
            }
        }
    }

    async fn handshake(
        &self,
        deadline: Deadline,
        tls: &TlsConnector,
        stream: TcpStream,
        what: &str,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, BmcError> {
        let name = ServerName::try_from(self.origin.host.clone())
            .map_err(|e| BmcError::Unreachable { what: format!("{}: {e}", self.origin.host) })?;
        let result = deadline.wait(what, tls.connect(name, stream)).await?;
        result.map_err(|e| match self.trust.change() {
            Some((found, pinned)) => {
                BmcError::Certificate { found: found.to_string(), pinned: pinned.to_string() }
            }
            None if e.get_ref().is_some_and(|e| e.is::<rustls::Error>()) => {
                BmcError::Tls { what: cut(&e.to_string()) }
            }
            None => BmcError::Unreachable { what: format!("the TLS handshake: {e}") },
        })
    }

    async fn shake<I>(&self, deadline: Deadline, stream: I, what: &str) -> Result<SendRequest<Body>, BmcError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(limits::HEAD);
        let (sender, connection) = deadline
            .wait(what, builder.handshake(TokioIo::new(stream)))
            .await?
            .map_err(|e| unreachable(what, &e))?;
        // Ends when the sender is dropped. What ends it otherwise is told to the request that uses it.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a connection to a BMC ended");
            }
        });
        Ok(sender)
    }

    fn take_idle(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|c| !c.is_closed());
        idle.pop()
    }

    fn keep(&self, connection: SendRequest<Body>, headers: &HeaderMap) {
        let close =
            headers.get(header::CONNECTION).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"close"));
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !close && !connection.is_closed() && idle.len() < limits::CONNECTIONS {
            idle.push(connection);
        }
    }

    /// Closes all connections.
    pub(super) fn close(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Reads a body of at most [`limits::BODY`] octets.
async fn collect(what: &str, headers: &HeaderMap, mut body: Incoming) -> Result<Bytes, BmcError> {
    let too_large = || BmcError::TooLarge { what: what.to_owned(), limit: limits::BODY as u64 };
    if headers.get(header::CONTENT_ENCODING).is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        let why = "the body is compressed, which was not asked for".to_owned();
        return Err(BmcError::Malformed { what: what.to_owned(), why });
    }
    let told = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|length| length > limits::BODY) {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(told.unwrap_or_default().min(64 << 10));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| unreachable(what, &e))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limits::BODY {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

fn unreachable(what: &str, error: &dyn std::error::Error) -> BmcError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    BmcError::Unreachable { what: format!("{what}: {}", cut(&text)) }
}
