//! What an agent sends, from octets to values within the limits of [`protocol::limits`]. Whoever holds a nonce or a
//! session may send anything at all, so nothing behind this file sees a body that was not read here.

use protocol::agent::{AccountReport, Hello};
use protocol::inventory::Inventory;
use protocol::limits::{
    NICS_MAX, REPORTED_STRING_MAX, REPORTS_MAX, TPM_CERTIFICATE_MAX, TPM_LOG_MAX, TPM_STRUCTURE_MAX,
};
use protocol::report::{ReportBatch, ReportBody};
use protocol::tpm::{TpmKeys, TpmProof};
use serde::de::DeserializeOwned;

use crate::node::trust::PCRS_MAX;

mod bounds;

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not JSON, or not the JSON that it should be. The text is cut to [`REPORTED_STRING_MAX`] characters.
    #[error("the body is not what it should be: {0}")]
    Json(String),
    /// More reports than one batch may have.
    #[error("more than {REPORTS_MAX} reports in one batch")]
    TooManyReports,
    /// A part of what a TPM says is longer than any can be.
    #[error("a part of what the TPM says is longer than it can be")]
    TooLong,
    /// Sequence numbers that do not rise.
    #[error("the reports are not in order of their sequence numbers")]
    ReportOrder,
}

/// A hello; lists and texts are cut.
///
/// # Errors
/// [`BodyError::Json`].
pub fn hello(bytes: &[u8]) -> Result<Hello, BodyError> {
    let mut hello: Hello = json(bytes)?;
    hello.macs.truncate(NICS_MAX);
    bounds::cut(&mut hello.agent_version);
    bounds::cut(&mut hello.kernel);
    hello.serial.as_mut().map(bounds::cut);
    Ok(hello)
}

/// An inventory, and what of it was lost because it was too long, in words.
///
/// # Errors
/// [`BodyError::Json`].
pub fn inventory(bytes: &[u8]) -> Result<(Inventory, Option<String>), BodyError> {
    let mut inventory: Inventory = json(bytes)?;
    let lost = bounds::limit(&mut inventory);
    Ok((inventory, lost))
}

/// A batch of reports in order; texts are cut.
///
/// # Errors
/// [`BodyError`].
pub fn reports(bytes: &[u8]) -> Result<ReportBatch, BodyError> {
    let mut batch: ReportBatch = json(bytes)?;
    if batch.reports.len() > REPORTS_MAX {
        return Err(BodyError::TooManyReports);
    }
    if !batch.reports.windows(2).all(|pair| pair[0].seq < pair[1].seq) {
        return Err(BodyError::ReportOrder);
    }
    for report in &mut batch.reports {
        match &mut report.body {
            ReportBody::Note { message } => bounds::cut(message),
            ReportBody::Failed { fault } => {
                bounds::cut(&mut fault.message);
                bounds::cut(&mut fault.hint);
            }
            ReportBody::Disk { record } => bounds::limit_record(record),
            ReportBody::Machine { record } => bounds::limit_machine(record),
            ReportBody::Stage { .. } | ReportBody::Progress(_) | ReportBody::Finished { .. } => {}
        }
    }
    Ok(batch)
}

/// Keys of a TPM.
///
/// # Errors
/// [`BodyError::Json`], [`BodyError::TooLong`].
pub fn tpm_keys(bytes: &[u8]) -> Result<TpmKeys, BodyError> {
    let keys: TpmKeys = json(bytes)?;
    let certificate = keys.certificate.as_ref().map_or(0, |der| der.0.len());
    let fits = [&keys.ek, &keys.ak].into_iter().all(|area| area.0.len() <= TPM_STRUCTURE_MAX);
    if fits && certificate <= TPM_CERTIFICATE_MAX { Ok(keys) } else { Err(BodyError::TooLong) }
}

/// What a TPM answers to a challenge.
///
/// # Errors
/// [`BodyError::Json`], [`BodyError::TooLong`].
pub fn tpm_proof(bytes: &[u8]) -> Result<TpmProof, BodyError> {
    let proof: TpmProof = json(bytes)?;
    let parts = [&proof.opened, &proof.quote, &proof.signature];
    let fits = parts.into_iter().all(|part| part.0.len() <= TPM_STRUCTURE_MAX)
        && proof.pcrs.len() <= usize::from(PCRS_MAX)
        && proof.log.as_ref().is_none_or(|log| log.0.len() <= TPM_LOG_MAX);
    if fits { Ok(proof) } else { Err(BodyError::TooLong) }
}

/// What became of an account on the management controller; the reason of a failure is cut.
///
/// # Errors
/// [`BodyError::Json`].
pub fn account(bytes: &[u8]) -> Result<AccountReport, BodyError> {
    let mut report = json(bytes)?;
    if let AccountReport::Failed { why } = &mut report {
        bounds::cut(why);
    }
    Ok(report)
}

/// Unknown fields are let through: the agent may be newer.
fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BodyError> {
    serde_json::from_slice(bytes)
        .map_err(|error| BodyError::Json(error.to_string().chars().take(REPORTED_STRING_MAX).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(seqs: &[u64]) -> String {
        let report =
            |seq: &u64| format!(r#"{{"seq":{seq},"at":0,"body":{{"kind":"note","message":"a\u0007b"}}}}"#);
        let reports: Vec<_> = seqs.iter().map(report).collect();
        format!(r#"{{"job":"0198c0de-0000-7000-8000-000000000001","reports":[{}]}}"#, reports.join(","))
    }

    #[test]
    fn batches_are_in_order_and_bounded() {
        let good = reports(batch(&[1, 2, 9]).as_bytes()).unwrap();
        assert_eq!(good.reports[0].body, ReportBody::Note { message: "a b".into() });
        assert_eq!(reports(batch(&[2, 2]).as_bytes()), Err(BodyError::ReportOrder));
        let many: Vec<u64> = (1..=REPORTS_MAX as u64 + 1).collect();
        assert_eq!(reports(batch(&many).as_bytes()), Err(BodyError::TooManyReports));
        assert!(matches!(reports(b"{}"), Err(BodyError::Json(_))));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let deep = "[".repeat(1 << 20);
        assert!(matches!(inventory(deep.as_bytes()), Err(BodyError::Json(_))));
    }
}
