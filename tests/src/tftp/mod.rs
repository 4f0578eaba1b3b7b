//! A TFTP client to test and to load servers with: the protocol without sockets ([`Download`]), and many of them over
//! real sockets ([`load`]). Its packets are read and written by code of its own, so that server and client do not share
//! a mistake.

mod download;
pub mod load;

pub use download::{Download, Reply, Wishes};
