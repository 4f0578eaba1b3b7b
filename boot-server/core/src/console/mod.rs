//! A node's serial console, as far as it can be decided without one: what is kept of what the machine printed, who
//! types, what a recording looks like.
//!
//! ```text
//!  source ─octets─▶ Ring ─▶ viewer, viewer, recording…   each reads at its own pace; who falls behind the ring skips
//!  source ◀─octets── the one viewer that has the Floor
//! ```

pub mod cast;
pub mod escape;
pub mod floor;
pub mod ring;
pub mod source;

pub use escape::{Escape, Typed};
pub use floor::{Floor, Refused};
pub use ring::{Piece, Ring};
pub use source::{ConsoleSource, Source};

/// Octets kept of each console: some thousand lines, all that a machine prints while it boots.
pub const RING_BYTES: usize = 256 << 10;
/// Most octets that a viewer may send at once; more than a person pastes.
pub const INPUT_MAX: usize = 4096;
