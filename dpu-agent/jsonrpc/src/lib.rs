//! JSON-RPC over a byte stream: JSON objects one after another, with nothing between them that could be relied on. OVSDB
//! (RFC 7047) speaks version 1.0 in this way, SPDK and NVIDIA SNAP version 2.0.
//!
//! [`Splitter`] finds where an object ends, [`Message`] says what it is, [`Client`] has the socket. What the methods mean is
//! left to the callers.

mod address;
mod client;
mod limits;
mod message;
mod splitter;
#[cfg(feature = "tls")]
mod tls;

pub use address::{Address, AddressError, ConnectError, Io, Tls, TlsError};
pub use client::{CallError, Client, Closed, Options};
pub use limits::Limits;
pub use message::{Dialect, Message, MessageError, Refusal};
pub use splitter::{SplitError, Splitter};
