//! What was acknowledged, and what therefore must be there.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::rack::Api;

/// Most rows that are asked for at once.
const LIMIT: usize = 500;

/// The model.
#[derive(Debug, Default)]
pub struct Model {
    /// Keys of the project that are there.
    pub keys: BTreeSet<String>,
    /// Tokens of the site that are good.
    pub tokens: BTreeSet<String>,
    /// Servers that are there, by name, with their id.
    pub servers: BTreeMap<String, String>,
    /// Images that are there, by name.
    pub images: BTreeSet<String>,
    /// Requests that put an OS on a disk, acknowledged or perhaps done.
    pub deploys: usize,
    /// Requests that were acknowledged.
    pub acknowledged: u64,
    /// The number of the audit's newest entry.
    pub audited: u64,
}

/// What is wrong: what is lost, and what is there twice.
#[derive(Debug, Default)]
pub struct Wrong {
    /// Acknowledged, and not so.
    pub lost: Vec<String>,
    /// Done twice.
    pub twice: Vec<String>,
}

impl Model {
    /// Asks the server for everything, and compares.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn check(&mut self, api: &Api) -> Result<Wrong> {
        let mut wrong = Wrong::default();
        let keys = names(api, "/api/v1/projects/alpha/keys?", "name")?;
        compare("key", &self.keys, &keys, &mut wrong);
        let tokens: BTreeSet<_> = tokens(api)?;
        compare("token", &self.tokens, &tokens, &mut wrong);
        let images = names(api, "/api/v1/images?", "name")?.into_iter();
        compare("image", &self.images, &images.filter(|name| name.starts_with("up-")).collect(), &mut wrong);
        self.check_servers(api, &mut wrong)?;
        let verdict = api.get("/api/v1/audit/verify")?;
        if verdict["intact"] != true {
            wrong.lost.push(format!("the audit: {}", verdict["message"]));
        }
        let head = verdict["head"]["number"].as_u64().unwrap_or_default();
        if head < self.audited {
            wrong.lost.push(format!("entries of the audit: {head} is behind {}", self.audited));
        }
        self.audited = head;
        Ok(wrong)
    }

    fn check_servers(&self, api: &Api, wrong: &mut Wrong) -> Result<()> {
        let rows = items(api, "/api/v1/projects/alpha/servers?")?;
        let mut machines = BTreeMap::new();
        let mut found = BTreeMap::new();
        for row in &rows {
            let text = |member: &str| row[member].as_str().unwrap_or_default().to_owned();
            if let Some(other) = found.insert(text("name"), text("id")) {
                wrong.twice.push(format!("server {} is there twice, the other is {other}", text("name")));
            }
            if let Some(other) = machines.insert(text("node"), text("name")) {
                wrong.twice.push(format!(
                    "machine {} is lent to {other} and to {}",
                    text("node"),
                    text("name")
                ));
            }
        }
        for (name, id) in &self.servers {
            if found.get(name) != Some(id) {
                wrong.lost.push(format!("server {name} {id}: there is {:?}", found.get(name)));
            }
        }
        for row in &rows {
            let name = row["name"].as_str().unwrap_or_default();
            if !self.servers.contains_key(name) && row["phase"] != "deleting" {
                wrong.lost.push(format!("the end of server {name}: it is {}", row["phase"]));
            }
        }
        Ok(())
    }
}

/// All rows of a list, page by page.
///
/// # Errors
/// Where the server does not answer, or with something else.
pub fn items(api: &Api, path: &str) -> Result<Vec<Value>> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("{path}limit={LIMIT}{cursor}"))?;
        rows.extend(page["items"].as_array().with_context(|| format!("no list at {path}"))?.iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(rows),
        }
    }
}

fn names(api: &Api, path: &str, member: &str) -> Result<BTreeSet<String>> {
    Ok(items(api, path)?.iter().filter_map(|row| row[member].as_str().map(str::to_owned)).collect())
}

fn tokens(api: &Api) -> Result<BTreeSet<String>> {
    let rows = items(api, "/api/v1/tokens?")?.into_iter();
    let good = rows.filter(|row| row["holds"] == true);
    Ok(good.filter_map(|row| row["name"].as_str().map(str::to_owned)).collect())
}

fn compare(what: &str, wanted: &BTreeSet<String>, found: &BTreeSet<String>, wrong: &mut Wrong) {
    wrong.lost.extend(wanted.difference(found).map(|name| format!("{what} {name} is not there")));
    wrong.lost.extend(found.difference(wanted).map(|name| format!("the end of {what} {name}: it is there")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_is_left_are_both_lost() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let mut wrong = Wrong::default();
        compare("key", &set(&["a", "b"]), &set(&["b", "c"]), &mut wrong);
        assert_eq!(wrong.lost, ["key a is not there", "the end of key c: it is there"]);
    }
}
