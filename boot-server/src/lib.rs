//! The Billet server and its command line. What it decides lies in `boot-server-core`; here are the sockets, files,
//! clocks and the database around it.

pub mod accounts;
pub mod asking;
pub mod audit;
pub mod backup;
pub mod boot_image;
pub mod bundle;
pub mod check;
pub mod cli;
pub mod config;
pub mod console;
pub mod engine;
pub mod export;
mod grub;
pub mod http;
pub mod ingest;
pub mod loaders;
pub mod media;
pub mod minisign;
pub mod net;
pub mod oidc;
pub mod power;
pub mod principal;
pub mod ramdisks;
mod scripts;
pub mod secret;
pub mod serve;
pub mod store;
mod sys;
pub mod tenancy;
pub mod tls;
pub mod tokens;
pub mod vault;
pub mod view;
pub mod webhooks;
