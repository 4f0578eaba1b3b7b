//! The version of a node that a change is meant for. It goes with the task of a request (`If-Match`), and holds for the first
//! change of that node that the request makes.

use std::cell::Cell;
use std::future::Future;

use protocol::NodeId;

/// A node and the version of its row.
pub type Expected = (NodeId, i64);

tokio::task_local! {
    static EXPECTED: Cell<Option<Expected>>;
}

/// Does `work`, which is meant for this version.
pub async fn expecting<F: Future>(expected: Option<Expected>, work: F) -> F::Output {
    EXPECTED.scope(Cell::new(expected), work).await
}

/// The version that a change of this node is meant for. It is asked for once: what a request changes after that, it knows.
pub(super) fn take(node: NodeId) -> Option<i64> {
    let of = |expected: &Cell<Option<Expected>>| match expected.get() {
        Some((of, version)) if of == node => {
            expected.set(None);
            Some(version)
        }
        _ => None,
    };
    EXPECTED.try_with(of).ok().flatten()
}
