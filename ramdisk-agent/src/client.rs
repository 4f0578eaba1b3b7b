//! The conversation with the server (`protocol::agent`): one method per request, no retries, no decisions.

use protocol::agent::{AccountOrder, AccountReport, Hello, Introduction, ReportReply, Welcome, Work};
use protocol::inventory::Inventory;
use protocol::limits::JSON_BODY_MAX;
use protocol::report::ReportBatch;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fetch::{FetchError, http_agent};

/// Seconds that the server may hold a request for work.
const WORK_WAIT: u32 = 25;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The request itself failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The answer is not what it should be.
    #[error("{url}: the answer makes no sense: {cause}")]
    Answer {
        /// What was asked.
        url: String,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
}

impl ClientError {
    /// True where the server does not know this session or nonce (any more).
    pub fn is_unknown_session(&self) -> bool {
        matches!(self, Self::Fetch(e) if matches!(e.status(), Some(401 | 403)))
    }
}

/// A client of one server, with one kept connection.
pub struct Client {
    http: ureq::Agent,
    base: String,
}

impl Client {
    /// For the server at `base`.
    pub fn new(base: &str) -> Self {
        Self { http: http_agent(), base: base.trim_end_matches('/').to_owned() }
    }

    /// Asks what a boot script would have said; `hello` is without a nonce.
    ///
    /// # Errors
    /// Where the server cannot be reached.
    pub fn introduction(&self, hello: &Hello) -> Result<Introduction, ClientError> {
        let url = self.url("introduction");
        let body = body_of(&url, hello)?;
        self.answer(&url, self.http.post(&url).header("content-type", "application/json").send(&body[..]))
    }

    /// Introduces this machine.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub fn hello(&self, hello: &Hello) -> Result<Welcome, ClientError> {
        let url = self.url("hello");
        let body = body_of(&url, hello)?;
        self.answer(&url, self.http.post(&url).header("content-type", "application/json").send(&body[..]))
    }

    /// Sends the inventory.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub fn inventory(&self, session: &str, inventory: &Inventory) -> Result<(), ClientError> {
        let url = self.url("inventory");
        let body = body_of(&url, inventory)?;
        let request = self.http.put(&url).header("content-type", "application/json");
        let response = request.header("authorization", bearer(session)).send(&body[..]);
        check(&url, response)?;
        Ok(())
    }

    /// Asks whether an account is to be made on the management controller. `None` where the server knows no such thing.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub fn account_order(&self, session: &str) -> Result<Option<AccountOrder>, ClientError> {
        let url = self.url("bmc-account");
        match self.answer(&url, self.http.post(&url).header("authorization", bearer(session)).send_empty()) {
            Err(ClientError::Fetch(e)) if matches!(e.status(), Some(404 | 405)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Says what became of the account.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub fn account_report(&self, session: &str, report: &AccountReport) -> Result<(), ClientError> {
        let url = self.url("bmc-account");
        let body = body_of(&url, report)?;
        let request = self.http.put(&url).header("content-type", "application/json");
        check(&url, request.header("authorization", bearer(session)).send(&body[..]))?;
        Ok(())
    }

    /// Asks for work; the server holds the request while there is none.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub fn work(&self, session: &str) -> Result<Work, ClientError> {
        let url = format!("{}?wait={WORK_WAIT}", self.url("work"));
        self.answer(&url, self.http.get(&url).header("authorization", bearer(session)).call())
    }

    /// Delivers reports.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub fn report(&self, session: &str, batch: &ReportBatch) -> Result<ReportReply, ClientError> {
        let url = self.url("report");
        let body = body_of(&url, batch)?;
        let request = self.http.post(&url).header("content-type", "application/json");
        self.answer(&url, request.header("authorization", bearer(session)).send(&body[..]))
    }

    fn url(&self, what: &str) -> String {
        format!("{}/agent/v1/{what}", self.base)
    }

    fn answer<T: DeserializeOwned>(
        &self,
        url: &str,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        let body = check(url, response)?.into_body();
        let bytes = body
            .into_with_config()
            .limit(JSON_BODY_MAX as u64)
            .read_to_vec()
            .map_err(|e| FetchError::network(url, e))?;
        serde_json::from_slice(&bytes).map_err(|cause| ClientError::Answer { url: url.to_owned(), cause })
    }
}

fn body_of(url: &str, value: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(value).map_err(|cause| ClientError::Answer { url: url.to_owned(), cause })
}

fn bearer(session: &str) -> String {
    format!("Bearer {session}")
}

fn check(
    url: &str,
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<ureq::http::Response<ureq::Body>, FetchError> {
    let response = response.map_err(|e| FetchError::network(url, e))?;
    match response.status().as_u16() {
        200..=299 => Ok(response),
        status => Err(FetchError::Status { url: url.to_owned(), status }),
    }
}
