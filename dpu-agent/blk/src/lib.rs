//! Crate `dpu-agent-blk`: a volume as a virtio-blk disk by vhost-user, for a host that is a virtual machine or sits behind
//! a DPU. A volume is a file, a block device, an image under a copy-on-write layer (instant volume), or what a daemon behind us
//! reaches.
//!
//! ```text
//! guest ──virtqueue──▶ ring ─▶ device ─▶ volume::Volume ─▶ volume::FileVolume ─▶ file or block device
//!           vhost-user ▲  │ inflight      │              └▶ hydrate::InstantVolume ─▶ instant::Layer ─▶ layer, journal
//!              session ┘  ▼                                      ▲ chunks
//!                   survives us: shared with the frontend      source ─▶ image store
//!                                       └▶ remote ─▶ daemon: qemu-storage-daemon ─▶ iSCSI, Ceph, NBD
//! ```
//!
//! Before a host has an instant volume for the first time, `adapt` makes of its image what a deploy would. Into a file or what a daemon
//! reaches, `fill` writes an image before anybody can connect.
//!
//! `books` writes what `counters` counted and reads what `limit` keeps requests to.
//!
//! What is decided (`request`, `config`, `layer`, `limit`) is apart from what waits (`session`, `ring`, `hydrate`, `source`).

pub mod adapt;
pub mod books;
pub mod chain;
pub mod config;
pub mod counters;
pub mod daemon;
pub mod device;
pub mod event;
pub mod fill;
pub mod hydrate;
pub mod inflight;
pub mod instant;
pub mod layer;
pub mod limit;
pub mod nbd;
pub mod open;
pub mod remote;
pub mod request;
pub mod ring;
pub mod serve;
pub mod session;
pub mod source;
mod sys;
pub mod volume;
