//! The whole server on a real PostgreSQL: it is killed, PostgreSQL is killed, and a site moves there and back.

use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::rack::Server;
use tests::site::Site;
use tests_postgres::Postgres;

/// For the server to find PostgreSQL again.
const BACK_MAX: Duration = Duration::from_secs(20);

fn cli(server: &Server, words: &[&str]) -> Result<Output> {
    Ok(server.command_line()?.args(words).output()?)
}

/// The names of the tokens that there are, sorted.
fn tokens(server: &Server) -> Result<Vec<String>> {
    let output = cli(server, &["token", "list", "-o", "name"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut names: Vec<_> = String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

#[test]
fn whoever_is_killed_nothing_acknowledged_is_lost() -> Result<()> {
    let Some(database) = Postgres::start(&[])? else { return Ok(()) };
    let mut site = Site::on("postgres-killed", database)?;
    ensure!(cli(&site.server, &["token", "create", "alice"])?.status.success());
    site.server.kill()?;
    site.server.start_again()?;
    ensure!(tokens(&site.server)? == ["alice"], "{:?}", tokens(&site.server)?);

    site.server.database().context("a database")?.kill()?;
    let refused = cli(&site.server, &["token", "create", "bob"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("nothing was done"), "{said}");
    site.server.database().context("a database")?.run()?;
    let begun = Instant::now();
    while !cli(&site.server, &["token", "create", "bob"])?.status.success() {
        ensure!(begun.elapsed() < BACK_MAX, "the server does not find PostgreSQL again");
        std::thread::sleep(Duration::from_millis(200));
    }
    site.server.stop()?;
    site.server.start_again()?;
    ensure!(tokens(&site.server)? == ["alice", "bob"], "{:?}", tokens(&site.server)?);
    Ok(())
}

#[test]
fn a_site_moves_to_postgresql_and_back() -> Result<()> {
    let Some(database) = Postgres::start(&[])? else { return Ok(()) };
    let url = database.make("moved")?;
    let mut site = Site::new("postgres-moved")?;
    ensure!(cli(&site.server, &["token", "create", "alice"])?.status.success());
    let (old, new) = (site.server.state_dir().join("billet.db"), site.dir.join("new.db"));
    let (old, new) = (old.to_string_lossy().into_owned(), new.to_string_lossy().into_owned());
    site.server.stop()?;
    let copied = cli(&site.server, &["store", "copy", "--from", &old, "--to", &url])?;
    let table = String::from_utf8_lossy(&copied.stdout).into_owned();
    ensure!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let tokens_row = table.lines().find(|line| line.starts_with("tokens ")).context("a row of tokens")?;
    ensure!(tokens_row.split_whitespace().last() == Some("1"), "{table}");

    let config = site.dir.join("billet.toml");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, format!("{text}\n[store]\nurl = {url:?}\n"))?;
    site.server.start_again()?;
    ensure!(tokens(&site.server)? == ["alice"]);
    // While it serves from there, nobody copies.
    let busy = cli(&site.server, &["store", "copy", "--from", &url, "--to", &new])?;
    let said = String::from_utf8_lossy(&busy.stderr).into_owned();
    ensure!(!busy.status.success() && said.contains("another billet serves from"), "{said}");
    ensure!(cli(&site.server, &["token", "create", "bob"])?.status.success());
    site.server.stop()?;
    let back = cli(&site.server, &["store", "copy", "--from", &url, "--to", &new])?;
    ensure!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
    let full = cli(&site.server, &["store", "copy", "--from", &url, "--to", &old])?;
    ensure!(String::from_utf8_lossy(&full.stderr).contains("is not empty"), "a site was written over");
    std::fs::rename(&new, &old)?;
    std::fs::write(&config, text)?;
    site.server.start_again()?;
    ensure!(tokens(&site.server)? == ["alice", "bob"]);
    Ok(())
}
