//! Where everything is kept: moving it. Works on the databases themselves; asks no server, and none may run on them.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::table;
use super::{Failure, Format, Show};
use crate::config;
use crate::store::{Location, copy};

/// About the database.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy everything from one database to another, which is empty: a site moves to PostgreSQL, or back
    ///
    /// Stop the server first. The source stays as it is; the target is filled in one transaction, or not at all. Images,
    /// keys and recordings stay in the state directory. See docs/guide/postgresql.md.
    Copy(CopyArgs),
}

/// Arguments of `billet store copy`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// File of SQLite, or address such as postgresql://billet@db.example/billet
    #[arg(long, value_name = "PLACE")]
    from: String,
    /// File of SQLite, or address
    #[arg(long, value_name = "PLACE")]
    to: String,
    /// File with the password for PostgreSQL
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Certificates of authorities that PostgreSQL's certificate is checked against, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// What was copied.
#[derive(Serialize)]
struct Copied {
    items: Vec<Rows>,
}

/// Rows of one table.
#[derive(Serialize)]
struct Rows {
    table: String,
    rows: i64,
}

impl Show for Copied {
    fn table(&self) -> String {
        table(&["table", "rows"], self.items.iter().map(|t| vec![t.table.clone(), t.rows.to_string()]))
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|t| t.table.clone()).collect()
    }
}

pub(super) fn run(format: Format, command: StoreCommand) -> Result<(), Failure> {
    let StoreCommand::Copy(args) = command;
    let (from, to) = (location(&args.from, &args)?, location(&args.to, &args)?);
    let counts = copy::copy(&from, &to).map_err(|error| Failure::Hinted {
        message: chain(&error),
        hint: "both must be without a server: stop it, then copy into an empty database".to_owned(),
    })?;
    let items = counts.into_iter().map(|(table, rows)| Rows { table, rows }).collect();
    format.print(&Copied { items })
}

fn location(place: &str, args: &CopyArgs) -> Result<Location, Failure> {
    if !place.contains("://") {
        return Ok(Location::from(Path::new(place)));
    }
    config::store_server(place, args.password_file.as_deref(), args.ca.clone())
        .map(Location::Server)
        .map_err(Failure::Usage)
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
