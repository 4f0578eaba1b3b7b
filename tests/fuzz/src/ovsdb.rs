//! A stream of an OVSDB server: messages, a schema, rows and their changes, answers.

use jsonrpc::{Limits, Message, Splitter};
use ovsdb::{Datum, Operation, Replica, Schema, Update, outcomes};
use serde_json::Value;

/// Small, so that inputs reach them.
const LIMITS: Limits = Limits { message: 4096, depth: 24, calls: 1 };

/// Messages are within the limits; a value that is taken is what it is written as; what cannot be taken is an error.
pub fn run(data: &[u8]) {
    let mut splitter = Splitter::new(LIMITS);
    splitter.handle_input(data);
    let mut schema = Schema::parse(&Value::Null).ok();
    let mut replica = Replica::default();
    while let Ok(Some(octets)) = splitter.poll_message() {
        assert!(octets.len() <= LIMITS.message, "a message of {} octets", octets.len());
        let Ok(message) = Message::parse(&octets) else { continue };
        match message {
            Message::Answer { outcome: Ok(result), .. } => {
                schema = Schema::parse(&result).ok().or(schema);
                answer(&result);
            }
            Message::Answer { outcome: Err(refusal), .. } => {
                assert!(!refusal.to_string().is_empty() || refusal.0 == "")
            }
            Message::Notification { params, .. } | Message::Request { params, .. } => {
                let Some(schema) = &schema else { continue };
                for (form, place) in [(Update::Whole, 1), (Update::Difference, 2)] {
                    let _ = replica.apply(schema, form, &params[place]);
                }
            }
        }
    }
}

fn answer(result: &Value) {
    if let Ok(datum) = Datum::parse(result) {
        assert_eq!(Datum::parse(&datum.to_json()).as_ref(), Ok(&datum));
    }
    let select = Operation::Select { table: "T".to_owned(), which: Vec::new(), columns: None };
    let insert = Operation::Insert { table: "T".to_owned(), row: ovsdb::Row::new(), name: None };
    for operations in [vec![select.clone()], vec![insert, select]] {
        if let Ok(outcomes) = outcomes(&operations, result) {
            assert_eq!(outcomes.len(), operations.len(), "one for each");
        }
    }
}
