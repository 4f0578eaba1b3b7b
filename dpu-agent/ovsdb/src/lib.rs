//! The Open vSwitch Database Management Protocol (RFC 7047, with the additions of `ovsdb-server(7)`): OVN's northbound and
//! southbound databases, and the one of each Open vSwitch.
//!
//! [`Datum`], [`Operation`], [`Schema`] and [`Replica`] are free of sockets and clocks. [`Client`] is one connection;
//! [`Follower`] keeps a replica over as many connections as it takes.

mod datum;
mod operation;
mod replica;
mod schema;

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod follow;

pub use datum::{Atom, Datum, DatumError, Real};
pub use operation::{
    Comparison, Condition, Mutation, Mutator, Operation, Outcome, OutcomeError, Row, Until, outcomes,
};
pub use replica::{Replica, Update, UpdateError};
pub use schema::{Column, Schema, SchemaError, Wanted};

#[cfg(feature = "client")]
pub use client::{Client, Error, Monitored, Version};
#[cfg(feature = "client")]
pub use follow::{Follower, Settings};
