//! People and programs that use the API: each asks until there is an answer, under one idempotency key for one wish, and only what
//! was answered is in the model.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use ureq::SendBody;
use ureq::http::Method;

use super::{History, Model};
use crate::fleet::rng::Rng;
use crate::rack::{Api, ApiError};
use crate::site::disk_with_gpt;

/// An answer takes no longer, whatever happens.
const ANSWER: Duration = Duration::from_secs(60);
/// The code of a key whose request has no answer yet, or never will.
const UNDER_WAY: &str = "idempotency-under-way";
/// A request that is under way for so long never will be done: whoever did it died.
const SETTLED: Duration = Duration::from_secs(5);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(80);
/// Wishes of one person in one round.
const WISHES: usize = 4;
/// Kinds of wishes.
const KINDS: u64 = 11;
/// Images that are kept.
const IMAGES_MAX: usize = 4;
const ALPHA: &str = "/api/v1/projects/alpha";

/// What was said.
#[derive(Debug)]
enum Said {
    Done(Value),
    Refused(u16, String),
}

/// One person.
pub struct Person<'a> {
    /// Their number.
    pub number: usize,
    /// The round.
    pub round: u32,
    /// How they reach the server.
    pub api: &'a Api,
    /// What is known.
    pub model: &'a Mutex<Model>,
    /// What happened.
    pub history: &'a History,
    /// Their chance.
    pub rng: Rng,
    /// Where they keep files.
    pub dir: PathBuf,
    /// They do everything once, in order, instead of some things.
    pub everything: bool,
}

impl Person<'_> {
    /// Does some things.
    ///
    /// # Errors
    /// Where an answer does not come in time, or is none that the API may give.
    pub fn run(mut self) -> Result<()> {
        let wishes = if self.everything { KINDS as usize } else { WISHES };
        for wish in 0..wishes {
            let name = format!("r{}-p{}-{wish}", self.round, self.number);
            // Everybody begins elsewhere.
            let kind =
                if self.everything { (wish + self.number) as u64 % KINDS } else { self.rng.below(KINDS) };
            match kind {
                0 | 1 => self.add_key(&name)?,
                2 => self.drop_key()?,
                3 => self.add_token(&name)?,
                4 => self.drop_token()?,
                5 | 6 => self.add_server(&name)?,
                7 | 8 => self.drop_server()?,
                9 => self.reinstall(&name)?,
                _ => self.add_image(&format!("up-{name}"))?,
            }
        }
        Ok(())
    }

    fn add_key(&mut self, name: &str) -> Result<()> {
        // Each another one: the last octets of an Ed25519 key are its own.
        let blob = format!("{:0>43}", self.rng.next());
        let body =
            json!({ "name": name, "public_key": format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{blob}") });
        if self.make(&format!("{ALPHA}/keys"), name, &body)? {
            self.model().keys.insert(name.to_owned());
        }
        Ok(())
    }

    fn drop_key(&mut self) -> Result<()> {
        let own = format!("-p{}-", self.number);
        let Some(name) = self.pick(|model| model.keys.iter().filter(|n| n.contains(&own)).cloned().collect())
        else {
            return Ok(());
        };
        self.end(&format!("{ALPHA}/keys/{name}"))?;
        self.model().keys.remove(&name);
        Ok(())
    }

    fn add_token(&mut self, name: &str) -> Result<()> {
        let body = json!({ "name": name, "role": "auditor" });
        if self.make("/api/v1/tokens", name, &body)? {
            self.model().tokens.insert(name.to_owned());
        }
        Ok(())
    }

    fn drop_token(&mut self) -> Result<()> {
        let own = format!("-p{}-", self.number);
        let Some(name) =
            self.pick(|model| model.tokens.iter().filter(|n| n.contains(&own)).cloned().collect())
        else {
            return Ok(());
        };
        self.end(&format!("/api/v1/tokens/{name}"))?;
        self.model().tokens.remove(&name);
        Ok(())
    }

    fn add_server(&mut self, name: &str) -> Result<()> {
        let body = json!({ "name": name, "flavor": "any", "image": "tiny" });
        let path = format!("{ALPHA}/servers");
        match self.ask(Method::POST, &path, Some(name), &body)? {
            Said::Done(made) => {
                let id = made["servers"][0]["id"].as_str().context("a server without an id")?.to_owned();
                self.made_server(name, id);
            }
            Said::Refused(409, code) if code == "no-capacity" => {}
            // The key, or the name, was taken by a try whose answer was lost.
            Said::Refused(409, code) if code == UNDER_WAY || code.contains("taken") => {
                match self.find_server(name)? {
                    Some(id) => self.made_server(name, id),
                    None if code.contains("taken") => bail!("name {name} is taken and nobody has it"),
                    None => self.history.say(&format!("{name} was cut off before it was done")),
                }
            }
            Said::Refused(status, code) => bail!("server {name}: {status} {code}"),
        }
        Ok(())
    }

    fn made_server(&self, name: &str, id: String) {
        let mut model = self.model();
        model.servers.insert(name.to_owned(), id);
        model.deploys += 1;
        model.acknowledged += 1;
    }

    fn find_server(&self, name: &str) -> Result<Option<String>> {
        let end = Instant::now() + ANSWER;
        loop {
            match super::model::items(self.api, &format!("{ALPHA}/servers?")) {
                Ok(rows) => {
                    let row = rows.iter().find(|row| row["name"] == name);
                    return Ok(row.and_then(|row| row["id"].as_str().map(str::to_owned)));
                }
                Err(error) if Instant::now() > end => return Err(error.context("servers are not listed")),
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }

    fn drop_server(&mut self) -> Result<()> {
        let Some(name) = self.own_server() else { return Ok(()) };
        match self.ask(Method::DELETE, &format!("{ALPHA}/servers/{name}"), None, &Value::Null)? {
            Said::Done(_) | Said::Refused(404, _) => {
                let mut model = self.model();
                model.servers.remove(&name);
                model.acknowledged += 1;
            }
            Said::Refused(409, code) => self.history.say(&format!("{name} is not given back now: {code}")),
            Said::Refused(status, code) => bail!("the end of server {name}: {status} {code}"),
        }
        Ok(())
    }

    fn reinstall(&mut self, key: &str) -> Result<()> {
        let Some(name) = self.own_server() else { return Ok(()) };
        let body = json!({});
        // Before it is asked: it may be done without an answer.
        self.model().deploys += 1;
        match self.ask(Method::POST, &format!("{ALPHA}/servers/{name}/reinstall"), Some(key), &body)? {
            Said::Done(_) => self.model().acknowledged += 1,
            Said::Refused(409, code) => self.history.say(&format!("{name} is not reinstalled now: {code}")),
            Said::Refused(status, code) => bail!("reinstall of {name}: {status} {code}"),
        }
        Ok(())
    }

    fn own_server(&mut self) -> Option<String> {
        let own = format!("-p{}-", self.number);
        self.pick(|model| model.servers.keys().filter(|name| name.contains(&own)).cloned().collect())
    }

    /// An image that nobody else has; the oldest of too many goes.
    fn add_image(&mut self, name: &str) -> Result<()> {
        let mut disk = disk_with_gpt();
        let mark = self.rng.next().to_le_bytes();
        disk[3 << 20..(3 << 20) + 8].copy_from_slice(&mark);
        let file = self.dir.join(format!("{name}.raw"));
        std::fs::write(&file, &disk)?;
        let path =
            format!("/api/v1/images/upload?name={name}&version=1&size={}&default_user=debian", disk.len());
        let end = Instant::now() + ANSWER;
        loop {
            match self.api.upload(&path, &file) {
                Ok(_) => break,
                Err(error) => {
                    let refused = error.downcast_ref::<ApiError>().map(|refused| refused.status);
                    if refused
                        .is_some_and(|status| (400..500).contains(&status) && status != 409 && status != 429)
                    {
                        return Err(error.context(format!("image {name}")));
                    }
                    if Instant::now() > end {
                        return Err(error.context(format!("image {name} is not taken for {ANSWER:?}")));
                    }
                    std::thread::sleep(AGAIN);
                }
            }
        }
        std::fs::remove_file(&file)?;
        self.history.say(&format!("image {name} is acknowledged"));
        let old = {
            let mut model = self.model();
            model.images.insert(name.to_owned());
            model.acknowledged += 1;
            let own = format!("-p{}-", self.number);
            let mine: Vec<_> = model.images.iter().filter(|n| n.contains(&own)).cloned().collect();
            if mine.len() > IMAGES_MAX { mine.into_iter().find(|other| other != name) } else { None }
        };
        if let Some(old) = old {
            self.end(&format!("/api/v1/images/{old}"))?;
            self.model().images.remove(&old);
        }
        Ok(())
    }

    /// Makes something that has this name; false where it was cut off before it was done.
    fn make(&mut self, path: &str, name: &str, body: &Value) -> Result<bool> {
        let made = match self.ask(Method::POST, path, Some(name), body)? {
            Said::Done(_) => true,
            // Done by a try whose answer was lost, or cut off: the list knows.
            Said::Refused(409, _) => self.is_listed(path, name)?,
            Said::Refused(status, code) => bail!("{path} {name}: {status} {code}"),
        };
        self.model().acknowledged += u64::from(made);
        Ok(made)
    }

    fn is_listed(&self, path: &str, name: &str) -> Result<bool> {
        let end = Instant::now() + ANSWER;
        loop {
            match super::model::items(self.api, &format!("{path}?")) {
                Ok(rows) => return Ok(rows.iter().any(|row| row["name"] == name && row["holds"] != false)),
                Err(error) if Instant::now() > end => {
                    return Err(error.context(format!("{path} is not listed")));
                }
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }

    /// Ends something; that it is gone already is the answer of a try that was lost.
    fn end(&mut self, path: &str) -> Result<()> {
        match self.ask(Method::DELETE, path, None, &Value::Null)? {
            Said::Done(_) | Said::Refused(404, _) => {
                self.model().acknowledged += 1;
                Ok(())
            }
            Said::Refused(status, code) => bail!("the end of {path}: {status} {code}"),
        }
    }

    /// Asks until there is an answer.
    fn ask(&self, method: Method, path: &str, key: Option<&str>, body: &Value) -> Result<Said> {
        let end = Instant::now() + ANSWER;
        let mut under_way = None;
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        loop {
            let length = bytes.len().to_string();
            let mut headers = vec![];
            if let Some(key) = key {
                headers.push(("idempotency-key", key));
            }
            let sent = if bytes.is_empty() {
                self.api.send(method.clone(), path, &headers, SendBody::none())
            } else {
                headers.extend([("content-type", "application/json"), ("content-length", length.as_str())]);
                self.api.send(
                    method.clone(),
                    path,
                    &headers,
                    SendBody::from_owned_reader(Cursor::new(bytes.clone())),
                )
            };
            let error = match sent {
                Ok(value) => {
                    self.history.say(&format!("{method} {path} {} is acknowledged", key.unwrap_or_default()));
                    return Ok(Said::Done(value));
                }
                Err(error) => error,
            };
            if let Some(refused) = error.downcast_ref::<ApiError>()
                && (400..500).contains(&refused.status)
                && refused.status != 429
            {
                let code = refused.body["code"].as_str().unwrap_or_default().to_owned();
                // Whose answer was lost may still be under way, and then the next answer is its own.
                if code == UNDER_WAY && *under_way.get_or_insert_with(Instant::now) + SETTLED > Instant::now()
                {
                    std::thread::sleep(AGAIN);
                    continue;
                }
                self.history.say(&format!("{method} {path} {} is refused: {code}", key.unwrap_or_default()));
                return Ok(Said::Refused(refused.status, code));
            }
            if Instant::now() > end {
                return Err(error.context(format!("{method} {path} has no answer for {ANSWER:?}")));
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn pick(&mut self, from: impl FnOnce(&Model) -> Vec<String>) -> Option<String> {
        let names = from(&self.model());
        let at = self.rng.below(names.len() as u64) as usize;
        names.into_iter().nth(at)
    }

    fn model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
