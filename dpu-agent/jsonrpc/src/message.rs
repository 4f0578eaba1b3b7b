//! What an object is: a request, a notification or an answer, in JSON-RPC 1.0 and 2.0.

use serde_json::{Map, Value, json};

/// Which JSON-RPC a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// 1.0, as RFC 7047 section 4 has it: `params` is an array, an answer has both `result` and `error`.
    V1,
    /// 2.0: `jsonrpc` is `"2.0"`, an answer has one of `result` and `error`.
    V2,
}

/// What came from the peer.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The peer asks, and waits for an answer with this id.
    Request {
        /// Any JSON but null.
        id: Value,
        /// What is asked.
        method: String,
        /// Null where there are none.
        params: Value,
    },
    /// The peer tells.
    Notification {
        /// What is told.
        method: String,
        /// Null where there are none.
        params: Value,
    },
    /// The answer to a call.
    Answer {
        /// Of the call.
        id: Value,
        /// What became of it.
        outcome: Result<Value, Refusal>,
    },
}

/// A peer's "no", in its words.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", self.words())]
pub struct Refusal(
    /// Version 2.0: an object of `code`, `message` and perhaps `data`. Version 1.0: whatever the peer likes; OVSDB sends a
    /// text, or an object of `error` and `details`.
    pub Value,
);

/// An object that is no message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Not JSON.
    #[error("a message is not JSON")]
    Json(#[source] serde_json::Error),
    /// Neither a method nor an id.
    #[error("a message is neither a request nor an answer")]
    Shape,
}

impl Refusal {
    /// The code of version 2.0, such as -32601 for a method that the peer does not have.
    pub fn code(&self) -> Option<i64> {
        self.0.get("code")?.as_i64()
    }

    fn words(&self) -> String {
        let field = |name| self.0.get(name).and_then(Value::as_str);
        match (self.0.as_str(), field("error").or(field("message")), field("details")) {
            (Some(text), ..) => text.to_owned(),
            (_, Some(error), Some(details)) => format!("{error}: {details}"),
            (_, Some(error), None) => error.to_owned(),
            _ => self.0.to_string(),
        }
    }
}

impl Message {
    /// Reads one object.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(octets: &[u8]) -> Result<Self, MessageError> {
        let mut fields: Map<String, Value> = serde_json::from_slice(octets).map_err(MessageError::Json)?;
        let mut take = |name: &str| fields.remove(name).filter(|value| !value.is_null());
        match (take("method"), take("id")) {
            (Some(Value::String(method)), id) => {
                let params = take("params").unwrap_or_default();
                Ok(match id {
                    Some(id) => Self::Request { id, method, params },
                    None => Self::Notification { method, params },
                })
            }
            (None, Some(id)) => {
                let outcome = match take("error") {
                    Some(error) => Err(Refusal(error)),
                    None => Ok(take("result").unwrap_or_default()),
                };
                Ok(Self::Answer { id, outcome })
            }
            _ => Err(MessageError::Shape),
        }
    }
}

impl Dialect {
    /// A request, or a notification where `id` is `None`.
    pub(crate) fn request(self, id: Option<u64>, method: &str, params: Value) -> Value {
        let mut message = json!({ "method": method, "params": params });
        match (self, id) {
            (Self::V1, id) => message["id"] = json!(id),
            (Self::V2, Some(id)) => message["id"] = json!(id),
            (Self::V2, None) => {}
        }
        self.marked(message)
    }

    /// The answer to a request of the peer.
    pub(crate) fn answer(self, id: &Value, result: Value) -> Value {
        let mut message = json!({ "id": id, "result": result });
        if self == Self::V1 {
            message["error"] = Value::Null;
        }
        self.marked(message)
    }

    /// The answer to a request whose method is not known here.
    pub(crate) fn unknown(self, id: &Value) -> Value {
        self.marked(match self {
            Self::V1 => json!({ "id": id, "result": null, "error": "unknown method" }),
            // Section 5.1 of the specification of 2.0.
            Self::V2 => json!({ "id": id, "error": { "code": -32601, "message": "Method not found" } }),
        })
    }

    fn marked(self, mut message: Value) -> Value {
        if self == Self::V2 {
            message["jsonrpc"] = json!("2.0");
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Message {
        Message::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn both_versions_are_read() {
        let echo = Message::Request { id: json!("echo"), method: "echo".into(), params: json!([]) };
        assert_eq!(parse(r#"{"id":"echo","method":"echo","params":[]}"#), echo);
        let told = Message::Notification { method: "update3".into(), params: json!([1]) };
        assert_eq!(parse(r#"{"id":null,"method":"update3","params":[1]}"#), told);
        let done = Message::Answer { id: json!(7), outcome: Ok(Value::Null) };
        assert_eq!(parse(r#"{"id":7,"result":null,"error":null}"#), done);
        for (text, words) in [
            (r#"{"id":7,"result":null,"error":"unknown method"}"#, "unknown method"),
            (r#"{"id":7,"error":{"error":"unknown database","details":"no x"}}"#, "unknown database: no x"),
            (
                r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"Method not found"}}"#,
                "Method not found",
            ),
            (r#"{"id":7,"error":[1]}"#, "[1]"),
        ] {
            let Message::Answer { outcome: Err(refusal), .. } = parse(text) else { panic!("{text}") };
            assert_eq!(refusal.to_string(), words);
        }
        for bad in ["{}", r#"{"method":1,"id":2}"#, r#"{"result":1}"#, "{x}"] {
            assert!(Message::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn both_versions_are_written() {
        let v1 = Dialect::V1.request(None, "m", json!([]));
        assert_eq!(v1, json!({ "id": null, "method": "m", "params": [] }));
        let v2 = Dialect::V2.request(Some(3), "m", json!({}));
        assert_eq!(v2, json!({ "jsonrpc": "2.0", "id": 3, "method": "m", "params": {} }));
        assert_eq!(Dialect::V2.request(None, "m", json!({})).get("id"), None);
        let answer = Dialect::V1.answer(&json!("echo"), json!([]));
        assert_eq!(answer, json!({ "id": "echo", "result": [], "error": null }));
    }
}
