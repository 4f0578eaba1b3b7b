//! How much one client may ask of the API: so many requests per second, and so many at once. The site's own token, which is
//! on the machine itself, is not counted. Streams and consoles have limits of their own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use protocol::Timestamp;

use super::ProblemResponse;
use crate::config::Rates;
use crate::engine::{lock, now};
use crate::http::auth::who;

/// Clients that are counted; the one that was silent longest makes room.
const CLIENTS_MAX: usize = 4096;
/// Seconds' worth of requests that may come at once after a silence.
const BURST: f64 = 5.0;

/// Counts requests by client.
#[derive(Debug)]
pub(super) struct Counter {
    rates: Rates,
    clients: Mutex<BTreeMap<String, Client>>,
}

#[derive(Debug, Clone, Copy)]
struct Client {
    /// Requests that it may still make at once.
    left: f64,
    counted: Timestamp,
    open: u32,
}

/// A request that is being answered.
struct Open {
    counter: Arc<Counter>,
    name: String,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(client) = lock(&self.counter.clients).get_mut(&self.name) {
            client.open = client.open.saturating_sub(1);
        }
    }
}

impl Counter {
    pub fn new(rates: Rates) -> Arc<Self> {
        Arc::new(Self { rates, clients: Mutex::default() })
    }

    /// Takes a request in, or says for how long to wait.
    fn admit(&self, name: &str, now: Timestamp) -> Result<(), Duration> {
        let Rates { per_second, at_once } = self.rates;
        let (rate, most) = (f64::from(per_second), f64::from(per_second) * BURST);
        let mut clients = lock(&self.clients);
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(name) {
            let silent = clients.iter().filter(|(_, c)| c.open == 0).min_by_key(|(_, c)| c.counted);
            let silent = silent.map(|(name, _)| name.clone());
            silent.map(|name| clients.remove(&name));
        }
        let client = clients.entry(name.to_owned()).or_insert(Client { left: most, counted: now, open: 0 });
        client.left = (client.left + now.since(client.counted).as_secs_f64() * rate).min(most);
        client.counted = now;
        if at_once > 0 && client.open >= at_once {
            return Err(Duration::from_secs(1));
        }
        if per_second > 0 && client.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - client.left) / rate));
        }
        client.left -= 1.0;
        client.open += 1;
        Ok(())
    }
}

/// The layer.
pub(super) async fn check(State(counter): State<Arc<Counter>>, request: Request, next: Next) -> Response {
    let Some(name) = who().filter(|who| !who.is_site()).map(|who| who.key()) else {
        return next.run(request).await;
    };
    if let Err(wait) = counter.admit(&name, now()) {
        let mut response = ProblemResponse::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-requests",
            "this client asks more than the site allows",
            "wait as long as `Retry-After` says, and ask for larger pages, or follow `/api/v1/events/stream`",
        )
        .into_response();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        return response;
    }
    let _open = Open { counter, name };
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_slowed_down_and_others_are_not() {
        let counter = Counter::new(Rates { per_second: 2, at_once: 0 });
        let at = Timestamp(1_000_000);
        let admitted = (0..100).filter(|_| counter.admit("a", at).is_ok()).count();
        assert_eq!(admitted, 10);
        assert_eq!(counter.admit("a", at), Err(Duration::from_millis(500)));
        assert!(counter.admit("b", at).is_ok());
        assert!(counter.admit("a", at.after(Duration::from_millis(600))).is_ok(), "it comes back with time");
    }

    #[test]
    fn so_many_at_once() {
        let counter = Counter::new(Rates { per_second: 0, at_once: 2 });
        let at = Timestamp(1_000_000);
        assert!(counter.admit("a", at).is_ok() && counter.admit("a", at).is_ok());
        assert!(counter.admit("a", at).is_err());
        drop(Open { counter: counter.clone(), name: "a".to_owned() });
        assert!(counter.admit("a", at).is_ok());
    }
}
