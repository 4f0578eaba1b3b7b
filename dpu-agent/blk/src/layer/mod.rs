//! The copy-on-write layer of an instant volume, as far as it is decided without a file: which bytes are here (`map`), how
//! that is written down so that a crash at any moment leaves the truth (`journal`), and what is fetched next (`plan`).

pub mod journal;
pub mod map;
pub mod plan;
