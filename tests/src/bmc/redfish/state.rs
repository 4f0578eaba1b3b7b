//! What a controller remembers, and its answers: logins, reads, changes. Works on plain values; actions are in
//! `actions`, the sockets in `service`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bmc::{BootDevice, BootMode, BootOverride, PowerState, Repeat};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::card::Card;
use super::faults::Fault;
use super::profile::Profile;
use super::tree::{self, Paths, ROOT, Tree};
use crate::bmc::Machine;

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
}

impl Reply {
    pub(super) fn new(status: u16, body: Option<Value>) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    pub(super) fn done() -> Self {
        Self::new(204, None)
    }

    /// An error with extended information (DSP0266, section 8.6).
    pub(super) fn error(status: u16, id: &str, message: &str) -> Self {
        let id = if id.contains('.') { id.to_owned() } else { format!("Base.1.8.{id}") };
        let info = json!([{ "MessageId": id, "Message": message, "MessageArgs": [], "Severity": "Warning" }]);
        let error = json!({ "error": { "code": "Base.1.8.GeneralError", "message": "See the extended information.",
            "@Message.ExtendedInfo": info } });
        Self::new(status, Some(error))
    }

    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// A request, read.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) method: &'a str,
    /// Without the query and without `/` at its end.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) if_match: Option<&'a str>,
    pub(super) token: Option<&'a str>,
    /// User name and password of Basic authentication.
    pub(super) basic: Option<(String, String)>,
    pub(super) json: Value,
    /// Length of a body that is no JSON.
    pub(super) octets: usize,
}

/// A firmware image that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Octets of the whole body.
    pub octets: usize,
}

/// A firmware that an update brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Id of the item of the firmware inventory.
    pub item: String,
    /// Its version afterwards.
    pub version: String,
    /// How that goes.
    pub way: Way,
}

/// How an update goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In force when its task is over.
    AtOnce,
    /// In force after the next start of the machine.
    AfterRestart,
    /// The controller restarts itself at the end of it: task and sessions are gone.
    RestartsBmc,
    /// The task fails with these words.
    Fails(&'static str),
}

/// A task.
#[derive(Debug, Clone, Default)]
pub(super) struct Task {
    /// Looks at which it still says `Running`.
    pub(super) looks: u32,
    /// What it brings.
    pub(super) offer: Option<Offer>,
}

/// A controller.
pub(super) struct State {
    pub(super) profile: Profile,
    pub(super) machine: Arc<dyn Machine>,
    pub(super) paths: Paths,
    pub(super) tree: Tree,
    pub(super) sessions: BTreeMap<String, String>,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) must_change: bool,
    pub(super) fault: Fault,
    pub(super) in_post: bool,
    /// Tasks by id.
    pub(super) tasks: BTreeMap<String, Task>,
    /// What updates bring.
    pub(super) offers: Vec<Offer>,
    /// Firmware that waits for a restart of the machine.
    pub(super) staged: Vec<Offer>,
    /// URLs that images were fetched from.
    pub(super) pulled: Vec<String>,
    /// Looks at the BIOS that still show it as it was before the restart: the machine is in POST.
    pub(super) post_looks: u32,
    pub(super) pushed: Vec<Pushed>,
    pub(super) logins_refused: u32,
    pub(super) bmc_resets: u32,
    next: u64,
    /// Where images are fetched to.
    pub(super) images: PathBuf,
    pub(super) ran: bool,
    /// It is the controller of a DPU.
    pub(super) card: Option<Card>,
}

impl State {
    pub(super) fn new(
        profile: Profile,
        machine: Arc<dyn Machine>,
        user: &str,
        password: &str,
        images: PathBuf,
    ) -> Self {
        let tree = tree::build(&profile, &machine.identity());
        let paths = Paths::of(&profile);
        let must_change = profile.password_change;
        Self {
            profile,
            machine,
            paths,
            tree,
            sessions: BTreeMap::new(),
            user: user.to_owned(),
            password: password.to_owned(),
            must_change,
            fault: Fault::None,
            in_post: false,
            tasks: BTreeMap::new(),
            offers: Vec::new(),
            staged: Vec::new(),
            pulled: Vec::new(),
            post_looks: 0,
            pushed: Vec::new(),
            logins_refused: 0,
            bmc_resets: 0,
            next: 1,
            images,
            ran: false,
            card: None,
        }
    }

    /// Answers.
    pub(super) fn answer(&mut self, question: &Question<'_>) -> Reply {
        if question.path == ROOT && question.method == "GET" {
            return self.read(question);
        }
        let sessions = format!("{ROOT}/SessionService/Sessions");
        if question.path == sessions && question.method == "POST" {
            return self.log_in(&question.json);
        }
        if !self.knows(question) {
            return Reply::error(401, "NoValidSession", "There is no valid session established.");
        }
        if self.must_change
            && !question.path.contains("/AccountService/Accounts/2")
            && question.method != "DELETE"
        {
            return Reply::error(403, "PasswordChangeRequired", "The password must be changed.");
        }
        let changes = question.method != "GET";
        if changes && self.fault == Fault::Lies && !question.path.starts_with(&sessions) {
            return Reply::done();
        }
        match question.method {
            "GET" => self.read(question),
            "PATCH" => self.patch(question),
            "POST" => self.post(question),
            "DELETE" => self.delete(question.path),
            _ => Reply::error(405, "OperationNotAllowed", "Not here."),
        }
    }

    fn knows(&self, question: &Question<'_>) -> bool {
        let by_token = question.token.is_some_and(|t| self.sessions.contains_key(t));
        by_token || question.basic.as_ref().is_some_and(|(u, p)| *u == self.user && *p == self.password)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn log_in(&mut self, body: &Value) -> Reply {
        if body["UserName"] != self.user.as_str() || body["Password"] != self.password.as_str() {
            self.logins_refused += 1;
            return Reply::error(401, "NoValidSession", "The user name or password is wrong.");
        }
        if self.sessions.len() >= 8 {
            return Reply::error(503, "SessionLimitExceeded", "There are too many sessions.");
        }
        let id = self.number();
        let token = format!("token-{id}-{:x}", Sha256::digest(id.to_le_bytes())[0]);
        let path = format!("{ROOT}/SessionService/Sessions/{id}");
        self.sessions.insert(token.clone(), path.clone());
        let mut session =
            json!({ "@odata.id": path, "Id": id.to_string(), "Name": "Session", "UserName": self.user });
        if self.must_change {
            let account = format!("{ROOT}/AccountService/Accounts/2");
            session["@Message.ExtendedInfo"] = json!([{ "MessageId": "Base.1.8.PasswordChangeRequired",
                "Message": "The password must be changed.", "MessageArgs": [account] }]);
        }
        let location = match &self.fault {
            Fault::SessionAt(elsewhere) => elsewhere.clone(),
            _ => path,
        };
        Reply::new(201, Some(session)).header("x-auth-token", token).header("location", location)
    }

    fn read(&mut self, question: &Question<'_>) -> Reply {
        let path = question.path;
        if let Some(reply) = self.read_task(path) {
            return reply;
        }
        self.ran |= self.machine.power_state() == PowerState::On;
        let is_late = |name: &String| path.contains(&format!("/{name}"));
        if path == format!("{}/Bios", self.paths.system) {
            self.post_looks = self.post_looks.saturating_sub(1);
        }
        let body = match self.profile.late.iter().any(is_late) && !self.ran {
            true => None,
            false => self.live(path),
        };
        let Some(mut body) = body else {
            return Reply::error(404, "ResourceMissingAtURI", "There is no such resource.");
        };
        let etag = self.etag(&body);
        self.query(&mut body, question.query);
        Reply::new(200, Some(body)).header("etag", etag)
    }

    /// A resource as it is now: with what the machine does.
    fn live(&self, path: &str) -> Option<Value> {
        if path == format!("{}/ResetActionInfo", self.paths.system) && self.profile.reset.info {
            let parameter = json!({ "Name": "ResetType", "Required": true, "AllowableValues": self.profile.reset.values });
            return Some(json!({ "@odata.id": path, "Name": "Reset", "Parameters": [parameter] }));
        }
        let mut body = self.tree.get(path)?.clone();
        if self.post_looks > 0 && path == format!("{}/Bios", self.paths.system) {
            body["Attributes"] = body["Before"].clone();
        }
        if let Some(map) = body.as_object_mut() {
            map.remove("Before");
        }
        if path == self.paths.system {
            let on = self.machine.power_state() == PowerState::On;
            body["PowerState"] = if on { "On" } else { "Off" }.into();
            self.show_boot(&mut body["Boot"]);
        }
        Some(body)
    }

    fn show_boot(&self, boot: &mut Value) {
        let ordered = self.machine.boot_override();
        let cd = if self.profile.boot.targets.iter().any(|t| t == "UsbCd") { "UsbCd" } else { "Cd" };
        let (target, enabled) = match (ordered.device, ordered.repeat) {
            (BootDevice::None, _) => ("None", "Disabled"),
            (device, repeat) => {
                let target = match device {
                    BootDevice::Pxe => "Pxe",
                    BootDevice::Http => "UefiHttp",
                    BootDevice::Disk => "Hdd",
                    BootDevice::Cdrom => cd,
                    BootDevice::Bios => "BiosSetup",
                    BootDevice::None => "None",
                };
                (target, if repeat == Repeat::Once { "Once" } else { "Continuous" })
            }
        };
        boot["BootSourceOverrideTarget"] = target.into();
        boot["BootSourceOverrideEnabled"] = enabled.into();
        if let Some(mode) = ordered.mode {
            boot["BootSourceOverrideMode"] = if mode == BootMode::Legacy { "Legacy" } else { "UEFI" }.into();
        }
        if self.profile.boot.http_uri {
            boot["HttpBootUri"] = ordered.http_uri.into();
        }
    }

    fn etag(&self, body: &Value) -> String {
        let digest = Sha256::digest(body.to_string());
        let strong = format!("\"{:02x}{:02x}{:02x}{:02x}\"", digest[0], digest[1], digest[2], digest[3]);
        if self.profile.etag.weak { format!("W/{strong}") } else { strong }
    }

    /// Expansion and pages.
    fn query(&self, body: &mut Value, query: &str) {
        let Some(members) = body.get("Members").and_then(Value::as_array).cloned() else { return };
        let path = body["@odata.id"].as_str().unwrap_or_default().to_owned();
        let is_log = path.ends_with("/Entries");
        let whole = self.profile.expand && query.contains("$expand");
        let expand = |member: &Value| match member["@odata.id"].as_str() {
            Some(link) if whole && !is_log => self.live(link).unwrap_or_else(|| member.clone()),
            Some(link) if is_log && !self.profile.log.inline => json!({ "@odata.id": link }),
            _ => member.clone(),
        };
        let mut members: Vec<Value> = members.iter().map(expand).collect();
        if let Some(page) = self.profile.log.page.filter(|_| is_log) {
            let skip = query.split("$skip=").nth(1).and_then(|s| s.parse().ok()).unwrap_or(0_usize);
            let left: Vec<Value> = members.into_iter().skip(skip).collect();
            if left.len() > page {
                body["Members@odata.nextLink"] = format!("{path}?$skip={}", skip + page).into();
            }
            members = left.into_iter().take(page).collect();
        }
        body["Members"] = members.into();
    }

    fn patch(&mut self, question: &Question<'_>) -> Reply {
        let Some(body) = self.live(question.path) else {
            return Reply::error(404, "ResourceMissingAtURI", "There is no such resource.");
        };
        if self.fault == Fault::ChangedBetween {
            self.fault = Fault::None;
            return Reply::error(412, "PreconditionFailed", "The ETag does not match.");
        }
        if let Some(reply) = self.precondition(question, &body) {
            return reply;
        }
        let (path, wanted) = (question.path, &question.json);
        if path == self.paths.system && wanted.get("Boot").is_some() {
            return self.patch_boot(&wanted["Boot"]);
        }
        if path.contains("/Bios/") {
            return self.patch_bios(path, wanted);
        }
        if path.contains("/AccountService/Accounts/2") {
            return self.patch_account(wanted);
        }
        if path.contains("/VirtualMedia/") {
            return match wanted["Image"].as_str() {
                Some(_) => self.insert(path, wanted),
                None => self.eject(path),
            };
        }
        if let Some(value) = wanted.get("IndicatorLED").and_then(Value::as_str)
            && !self.profile.led_values.iter().any(|v| v == value)
        {
            return Reply::error(400, "PropertyValueNotInList", "IndicatorLED has no such value.");
        }
        self.set(path, wanted);
        Reply::done()
    }

    fn precondition(&self, question: &Question<'_>, body: &Value) -> Option<Reply> {
        let now = self.etag(body);
        let strong = now.trim_start_matches("W/");
        match question.if_match {
            None if self.profile.etag.required => {
                Some(Reply::error(428, "PreconditionRequired", "If-Match is missing."))
            }
            None | Some("*") => None,
            Some(given) if self.profile.etag.strong_wanted && given != strong => {
                Some(Reply::error(412, "PreconditionFailed", "The ETag does not match."))
            }
            Some(given) if given.trim_start_matches("W/") != strong => {
                Some(Reply::error(412, "PreconditionFailed", "The ETag does not match."))
            }
            Some(_) => None,
        }
    }

    pub(super) fn set(&mut self, path: &str, wanted: &Value) {
        if let (Some(resource), Some(wanted)) = (self.tree.get_mut(path), wanted.as_object()) {
            for (name, value) in wanted {
                resource[name.as_str()] = value.clone();
            }
        }
    }

    fn patch_boot(&mut self, wanted: &Value) -> Reply {
        let quirks = &self.profile.boot;
        if let Some(id) = quirks.closed_in_post.as_ref().filter(|_| self.in_post) {
            return Reply::error(400, id, "The property cannot be changed while the system is in POST.");
        }
        if wanted.get("HttpBootUri").is_some() && !quirks.http_uri {
            return Reply::error(400, "PropertyUnknown", "HttpBootUri is unknown.");
        }
        let target = wanted["BootSourceOverrideTarget"].as_str();
        let listed = |t: &str| quirks.targets.iter().chain(&quirks.unlisted).any(|x| x == t);
        if target.is_some_and(|t| !listed(t)) {
            return Reply::error(
                400,
                "PropertyValueNotInList",
                "BootSourceOverrideTarget has no such value.",
            );
        }
        let mode = match wanted["BootSourceOverrideMode"].as_str() {
            Some("Legacy") if quirks.uefi_only => {
                return Reply::error(400, "PropertyValueNotInList", "BootSourceOverrideMode is UEFI only.");
            }
            Some("Legacy") => Some(BootMode::Legacy),
            None if quirks.legacy_without_mode => Some(BootMode::Legacy),
            _ => Some(BootMode::Uefi),
        };
        let device = match (target, wanted["BootSourceOverrideEnabled"].as_str()) {
            (_, Some("Disabled")) => BootDevice::None,
            (Some("Pxe"), _) => BootDevice::Pxe,
            (Some("UefiHttp"), _) => BootDevice::Http,
            (Some("Hdd"), _) => BootDevice::Disk,
            (Some("Cd" | "UsbCd"), _) => BootDevice::Cdrom,
            (Some("BiosSetup"), _) => BootDevice::Bios,
            _ => BootDevice::None,
        };
        let once = wanted["BootSourceOverrideEnabled"] != "Continuous";
        let repeat = if once { Repeat::Once } else { Repeat::Always };
        let http_uri = wanted["HttpBootUri"].as_str().map(str::to_owned);
        match self.machine.set_boot_override(&BootOverride { device, repeat, mode, http_uri }) {
            Ok(()) => Reply::done(),
            Err(e) => Reply::error(400, "PropertyValueNotInList", &e.to_string()),
        }
    }

    fn patch_bios(&mut self, path: &str, wanted: &Value) -> Reply {
        let Some(bios) = self.profile.bios.clone() else {
            return Reply::error(404, "ResourceMissingAtURI", "No.");
        };
        if bios.apply_time && wanted.get("@Redfish.SettingsApplyTime").is_none() {
            return Reply::error(400, "PropertyMissing", "@Redfish.SettingsApplyTime is missing.");
        }
        let pending = &mut self.tree.entry(path.to_owned()).or_default()["Attributes"];
        if bios.one_pending && pending.as_object().is_some_and(|p| !p.is_empty()) {
            return Reply::error(
                400,
                "IDRAC.2.8.SYS011",
                "Pending configuration values are already committed.",
            );
        }
        *pending = wanted["Attributes"].clone();
        match bios.apply_time {
            true => self.new_task(None),
            false => Reply::new(200, Some(json!({}))),
        }
    }

    fn patch_account(&mut self, wanted: &Value) -> Reply {
        match wanted["Password"].as_str() {
            Some(password) if password.len() >= 8 => {
                self.password = password.to_owned();
                self.must_change = false;
                Reply::done()
            }
            _ => Reply::error(400, "PropertyValueFormatError", "The password has at least 8 characters."),
        }
    }

    fn delete(&mut self, path: &str) -> Reply {
        let before = self.sessions.len();
        self.sessions.retain(|_, p| p != path);
        let gone = self.tree.remove(path).is_some() || self.sessions.len() < before;
        let parent = path.rsplit_once('/').map_or("", |(p, _)| p);
        if let Some(Value::Array(members)) = self.tree.get_mut(parent).and_then(|c| c.get_mut("Members")) {
            members.retain(|m| m["@odata.id"] != path);
        }
        if gone {
            Reply::done()
        } else {
            Reply::error(404, "ResourceMissingAtURI", "There is no such resource.")
        }
    }

    /// Writes a line of the event log.
    /// Destination and context of each subscription to events.
    pub(super) fn subscriptions(&self) -> Vec<(String, String)> {
        let all = self.tree.iter().filter(|(path, _)| path.contains("/EventService/Subscriptions/"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        all.map(|(_, s)| (text(&s["Destination"]), text(&s["Context"]))).collect()
    }

    pub(super) fn write_log(&mut self, at: &str, severity: &str, message: &str) {
        let entries = format!("{}/Entries", self.paths.log);
        let id = self.number();
        let link = format!("{entries}/{id}");
        let entry = json!({ "@odata.id": link, "Id": id.to_string(), "Name": "Log entry", "EntryType": "SEL",
            "Created": at, "Severity": severity, "Message": message, "SensorType": "Memory" });
        self.tree.insert(link, entry.clone());
        let newest_first = self.profile.log.newest_first;
        if let Some(Value::Array(members)) = self.tree.get_mut(&entries).and_then(|c| c.get_mut("Members")) {
            let place = if newest_first { 0 } else { members.len() };
            members.insert(place, entry);
        }
    }
}
