//! The conversation with the server (`protocol::agent`): one method per request, no retries, no decisions.

use protocol::agent::{AccountOrder, AccountReport, Hello, Introduction, ReportReply, Welcome, Work};
use protocol::inventory::Inventory;
use protocol::limits::JSON_BODY_MAX;
use protocol::report::ReportBatch;
use protocol::tpm::{TpmChallenge, TpmKeys, TpmProof};
use protocol_http::{HttpError, body_of, check};
use serde::de::DeserializeOwned;

use crate::fetch::http_agent;

/// Seconds that the server may hold a request for work.
const WORK_WAIT: u32 = 25;

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
    pub fn introduction(&self, hello: &Hello) -> Result<Introduction, HttpError> {
        let url = self.url("introduction");
        let body = body_of(&url, hello)?;
        self.answer(&url, self.http.post(&url).header("content-type", "application/json").send(&body[..]))
    }

    /// Introduces this machine.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub fn hello(&self, hello: &Hello) -> Result<Welcome, HttpError> {
        let url = self.url("hello");
        let body = body_of(&url, hello)?;
        self.answer(&url, self.http.post(&url).header("content-type", "application/json").send(&body[..]))
    }

    /// Sends the inventory.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub fn inventory(&self, session: &str, inventory: &Inventory) -> Result<(), HttpError> {
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
    pub fn account_order(&self, session: &str) -> Result<Option<AccountOrder>, HttpError> {
        let url = self.url("bmc-account");
        match self.answer(&url, self.http.post(&url).header("authorization", bearer(session)).send_empty()) {
            Err(e) if matches!(e.status(), Some(404 | 405)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Says what became of the account.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub fn account_report(&self, session: &str, report: &AccountReport) -> Result<(), HttpError> {
        let url = self.url("bmc-account");
        let body = body_of(&url, report)?;
        let request = self.http.put(&url).header("content-type", "application/json");
        check(&url, request.header("authorization", bearer(session)).send(&body[..]))?;
        Ok(())
    }

    /// Shows the keys of the machine's TPM. `None` where the server knows no such thing.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub fn tpm_challenge(&self, session: &str, keys: &TpmKeys) -> Result<Option<TpmChallenge>, HttpError> {
        let url = self.url("tpm");
        let body = body_of(&url, keys)?;
        let request = self.http.post(&url).header("content-type", "application/json");
        match self.answer(&url, request.header("authorization", bearer(session)).send(&body[..])) {
            Err(e) if matches!(e.status(), Some(404 | 405)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Answers the challenge.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub fn tpm_proof(&self, session: &str, proof: &TpmProof) -> Result<(), HttpError> {
        let url = self.url("tpm");
        let body = body_of(&url, proof)?;
        let request = self.http.put(&url).header("content-type", "application/json");
        check(&url, request.header("authorization", bearer(session)).send(&body[..]))?;
        Ok(())
    }

    /// Asks for work; the server holds the request while there is none.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub fn work(&self, session: &str) -> Result<Work, HttpError> {
        let url = format!("{}?wait={WORK_WAIT}", self.url("work"));
        self.answer(&url, self.http.get(&url).header("authorization", bearer(session)).call())
    }

    /// Delivers reports.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub fn report(&self, session: &str, batch: &ReportBatch) -> Result<ReportReply, HttpError> {
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
    ) -> Result<T, HttpError> {
        protocol_http::json(url, response, JSON_BODY_MAX)
    }
}

fn bearer(session: &str) -> String {
    format!("Bearer {session}")
}
