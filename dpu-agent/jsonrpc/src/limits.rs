//! What a peer may send and what may be under way.

/// Bounds of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest message, in octets, in either direction.
    pub message: usize,
    /// Deepest nesting of arrays and objects. At most 127: `serde_json` stops there itself.
    pub depth: usize,
    /// Most calls that wait for their answers.
    pub calls: usize,
}

impl Limits {
    /// For a service that answers one question at a time with little, such as SPDK: its own largest reply is a list of
    /// devices.
    pub const SMALL: Self = Self { message: 4 << 20, depth: 32, calls: 64 };
    /// For a database that sends the whole of its contents in one message: 100,000 rows are some 40 MiB.
    pub const DATABASE: Self = Self { message: 256 << 20, depth: 32, calls: 256 };
}
