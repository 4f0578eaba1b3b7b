//! What a controller's error means: HTTP status and extended information (DSP0266, section 8.6), put into our kinds.

use hyper::StatusCode;
use serde_json::Value;

use super::json::{self, cut};
use super::quirks::Profile;
use super::wire::Answer;
use crate::BmcError;

/// Message ids of the standard registries that mean "later" (DSP8011, DSP8014).
const BUSY: [&str; 6] = [
    "ServiceTemporarilyUnavailable",
    "ServiceInUnknownState",
    "ServiceShuttingDown",
    "ResourceInUse",
    "SessionLimitExceeded",
    "UpdateInProgress",
];
/// … that mean a missing right.
const FORBIDDEN: [&str; 3] = ["InsufficientPrivilege", "PasswordChangeRequired", "AccessDenied"];

/// The error of an answer that is none of success.
pub(super) fn of(what: &str, answer: &Answer, profile: &Profile) -> BmcError {
    let (ids, words) = (ids(answer), words(answer));
    let what = what.to_owned();
    let why = format!("{} {}", answer.status.as_u16(), words).trim_end().to_owned();
    let any = |names: &[&str]| ids.iter().any(|id| names.contains(&id.as_str()));
    if any(&BUSY) || ids.iter().any(|id| profile.errors.busy.contains(id)) {
        return BmcError::Busy { what: format!("{what}: {why}") };
    }
    if any(&FORBIDDEN) {
        return BmcError::Forbidden { what: format!("{what}: {why}") };
    }
    match answer.status {
        StatusCode::UNAUTHORIZED => BmcError::Login,
        StatusCode::FORBIDDEN => BmcError::Forbidden { what: format!("{what}: {why}") },
        StatusCode::CONFLICT
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::LOCKED => BmcError::Busy { what: format!("{what}: {why}") },
        _ => BmcError::Refused { what, why },
    }
}

/// The last parts of the message ids, such as `ResourceInUse` of `Base.1.8.ResourceInUse`.
fn ids(answer: &Answer) -> Vec<String> {
    let body: Value = json::parse("", &answer.body).unwrap_or_default();
    let ids = infos(&body).into_iter().filter_map(|info| info.get("MessageId")?.as_str());
    let code = body.pointer("/error/code").and_then(Value::as_str);
    ids.chain(code).filter_map(|id| id.rsplit('.').next()).map(str::to_owned).collect()
}

/// Arguments of the message with this id.
pub(super) fn arguments(answer: &Answer, id: &str) -> Vec<String> {
    let body: Value = json::parse("", &answer.body).unwrap_or_default();
    let of_id = |info: &&Value| {
        info.get("MessageId").and_then(Value::as_str).is_some_and(|i| i.rsplit('.').next() == Some(id))
    };
    let arguments =
        infos(&body).into_iter().find(of_id).and_then(|info| info.get("MessageArgs")?.as_array().cloned());
    arguments.unwrap_or_default().iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn words(answer: &Answer) -> String {
    let body: Value = json::parse("", &answer.body).unwrap_or_default();
    let said: Vec<_> =
        infos(&body).into_iter().filter_map(|info| info.get("Message")?.as_str()).map(cut).collect();
    match body.pointer("/error/message").and_then(Value::as_str) {
        _ if !said.is_empty() => cut(&said.join(" ")),
        Some(message) => cut(message),
        None => String::new(),
    }
}

/// Extended information stands in `error`, in some services at the top.
fn infos(body: &Value) -> Vec<&Value> {
    ["/error/@Message.ExtendedInfo", "/@Message.ExtendedInfo"]
        .iter()
        .filter_map(|at| body.pointer(at))
        .flat_map(|infos| match infos {
            Value::Array(infos) => infos.iter().take(16).collect(),
            // Early services have one object in place of the list.
            one => vec![one],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::quirks;
    use super::*;
    use crate::ErrorKind;

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers: hyper::HeaderMap::new(), body: body.to_owned().into() }
    }

    #[test]
    fn what_refusals_mean() {
        let info = |id: &str| {
            format!(
                r#"{{"error":{{"@Message.ExtendedInfo":[{{"MessageId":"Base.1.8.{id}","Message":"it says so"}}]}}}}"#
            )
        };
        for (status, body, kind) in [
            (400, info("ResourceInUse"), ErrorKind::Busy),
            (400, info("InsufficientPrivilege"), ErrorKind::Forbidden),
            (403, String::new(), ErrorKind::Forbidden),
            (409, "no JSON".to_owned(), ErrorKind::Busy),
            (503, info("GeneralError"), ErrorKind::Busy),
            (400, info("PropertyValueNotInList"), ErrorKind::Refused),
            (500, "{}".to_owned(), ErrorKind::Refused),
        ] {
            assert_eq!(
                of("PATCH /x", &answer(status, &body), quirks::standard()).kind(),
                kind,
                "{status} {body}"
            );
        }
        let text = of("PATCH /x", &answer(400, &info("Other")), quirks::standard()).to_string();
        assert_eq!(text, "the BMC refuses PATCH /x: 400 it says so");
    }
}
