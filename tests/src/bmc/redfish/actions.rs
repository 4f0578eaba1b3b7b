//! What a controller does when it is told to: power, media, logs, updates, and the tasks that come of it.

use bmc::{PowerAction, PowerState};
use serde_json::{Value, json};

use super::faults::Fault;
use super::state::{Offer, Pushed, Question, Reply, State, Task, Way};
use super::tree::{self, ROOT};

impl State {
    pub(super) fn post(&mut self, question: &Question<'_>) -> Reply {
        let (path, body) = (question.path, &question.json);
        if let Some(reply) = self.card_post(path, body) {
            return reply;
        }
        let action = path.rsplit('/').next().unwrap_or_default();
        match action {
            "ComputerSystem.Reset" => self.reset(body["ResetType"].as_str().unwrap_or_default()),
            "Manager.Reset" => {
                match self.profile.manager_reset.iter().any(|v| body["ResetType"] == v.as_str()) {
                    true => self.restart(),
                    false => Reply::error(400, "ActionParameterNotSupported", "ResetType has no such value."),
                }
            }
            "LogService.ClearLog" => {
                let service = path.trim_end_matches("/Actions/LogService.ClearLog");
                let entries = format!("{service}/Entries");
                self.tree.retain(|p, _| !p.starts_with(&format!("{entries}/")));
                self.set(&entries, &json!({ "Members": [] }));
                Reply::done()
            }
            "VirtualMedia.InsertMedia" => {
                self.insert(path.trim_end_matches("/Actions/VirtualMedia.InsertMedia"), body)
            }
            "VirtualMedia.EjectMedia" => {
                self.eject(path.trim_end_matches("/Actions/VirtualMedia.EjectMedia"))
            }
            "SecureBoot.ResetKeys" => {
                let default = body["ResetKeysType"] == "ResetAllKeysToDefault";
                let mode = if default { "UserMode" } else { "SetupMode" };
                self.set(&format!("{}/SecureBoot", self.paths.system), &json!({ "NextMode": mode }));
                Reply::done()
            }
            "DellManager.ClearPending" => {
                self.set(
                    path.trim_end_matches("/Actions/Oem/DellManager.ClearPending"),
                    &json!({ "Attributes": {} }),
                );
                Reply::done()
            }
            "UpdateService.SimpleUpdate" if body["ImageURI"].is_string() => self.pull(body),
            "push" if self.profile.update.multipart => {
                self.pushed.push(Pushed { octets: question.octets });
                let offer = self.next_offer();
                self.new_task(offer)
            }
            "Subscriptions" => self.subscribe(path, body),
            _ => Reply::error(404, "ResourceMissingAtURI", "There is no such resource."),
        }
    }

    fn reset(&mut self, kind: &str) -> Reply {
        if !self.profile.reset.values.iter().any(|v| v == kind) {
            return Reply::error(400, "ActionParameterNotSupported", "ResetType has no such value.");
        }
        let on = self.machine.power_state() == PowerState::On;
        let action = match kind {
            "On" | "ForceOn" => PowerAction::On,
            "GracefulShutdown" => PowerAction::SoftOff,
            "PushPowerButton" if on => PowerAction::SoftOff,
            "PushPowerButton" => PowerAction::On,
            "ForceOff" => PowerAction::ForceOff,
            "Nmi" => PowerAction::Nmi,
            "PowerCycle" => PowerAction::Cycle,
            _ => PowerAction::Reset,
        };
        let starts = match action {
            PowerAction::On => !on,
            PowerAction::Cycle | PowerAction::Reset => true,
            PowerAction::SoftOff | PowerAction::ForceOff | PowerAction::Nmi => false,
        };
        match self.machine.power(action) {
            Ok(()) => {
                if starts && self.machine.power_state() == PowerState::On {
                    self.started();
                }
                Reply::done()
            }
            Err(e) => Reply::error(409, "ResourceInStandby", &e.to_string()),
        }
    }

    /// The machine starts: what waited for that is in force.
    fn started(&mut self) {
        let system = self.paths.system.clone();
        if let Some(bios) = self.profile.bios.clone() {
            let (path, settings) = (format!("{system}/Bios"), format!("{system}/Bios/{}", bios.settings));
            let pending = self.tree.get(&settings).map(|s| s["Attributes"].clone()).unwrap_or_default();
            let before = self.tree.get(&path).map(|b| b["Attributes"].clone()).unwrap_or_default();
            let mut now = before.clone();
            for (name, value) in pending.as_object().into_iter().flatten() {
                now[name.as_str()] = value.clone();
            }
            self.set(&path, &json!({ "Attributes": now, "Before": before }));
            self.set(&settings, &json!({ "Attributes": {} }));
            self.post_looks = bios.post_looks;
        }
        let path = format!("{system}/SecureBoot");
        let Some(secure) = self.tree.get(&path).cloned() else { return };
        let current = if secure["SecureBootEnable"] == true { "Enabled" } else { "Disabled" };
        self.set(&path, &json!({ "SecureBootCurrentBoot": current }));
        if secure["NextMode"].is_string() {
            self.set(&path, &json!({ "SecureBootMode": secure["NextMode"], "NextMode": null }));
        }
        for offer in std::mem::take(&mut self.staged) {
            self.install(&offer);
        }
    }

    fn install(&mut self, offer: &Offer) {
        let path = format!("{ROOT}/UpdateService/FirmwareInventory/{}", offer.item);
        self.set(&path, &json!({ "Version": offer.version }));
    }

    pub(super) fn next_offer(&mut self) -> Option<Offer> {
        (!self.offers.is_empty()).then(|| self.offers.remove(0))
    }

    /// Fetches the image, where a test says what it brings; else nobody looks at it.
    fn pull(&mut self, body: &Value) -> Reply {
        let mut url = body["ImageURI"].as_str().unwrap_or_default().to_owned();
        if let Some(protocol) = body["TransferProtocol"].as_str() {
            url = format!("{}://{url}", protocol.to_lowercase());
        }
        let offer = self.next_offer();
        if offer.is_some() {
            let number = self.number();
            let file = self.images.join(format!("firmware-{number}.bin"));
            if let Err(e) = super::fetch(&url, &file) {
                return Reply::error(400, "ResourceAtUriUnauthorized", &format!("{e:#}"));
            }
        }
        self.pulled.push(url);
        self.new_task(offer)
    }

    /// The controller starts anew: sessions are gone, what was set stays.
    pub(super) fn restart(&mut self) -> Reply {
        self.sessions.clear();
        self.bmc_resets += 1;
        Reply::done()
    }

    pub(super) fn insert(&mut self, drive: &str, body: &Value) -> Reply {
        let Some(media) = self.profile.media.clone() else {
            return Reply::error(404, "ResourceMissingAtURI", "No.");
        };
        if !drive.ends_with(&format!("/{}", media.id)) {
            return Reply::error(405, "OperationNotAllowed", "This drive takes no image by URL.");
        }
        if let Some(name) = media.refuse.iter().find(|n| body.get(n.as_str()).is_some()) {
            return Reply::error(400, "ActionParameterUnknown", &format!("{name} is unknown."));
        }
        if let Some(name) = media.require.iter().find(|n| body.get(n.as_str()).is_none()) {
            return Reply::error(400, "ActionParameterMissing", &format!("{name} is missing."));
        }
        if self.tree.get(drive).is_some_and(|d| d["Inserted"] == true) {
            return Reply::error(500, "ResourceInUse", "There is an image in the drive.");
        }
        let url = body["Image"].as_str().unwrap_or_default().to_owned();
        let number = self.number();
        let file = self.images.join(format!("image-{number}.iso"));
        if let Err(e) = super::fetch(&url, &file).and_then(|()| self.machine.set_media(Some(&file))) {
            return Reply::error(400, "ResourceAtUriUnauthorized", &format!("{e:#}"));
        }
        self.set(drive, &json!({ "Image": url, "Inserted": true, "ConnectedVia": "URI" }));
        if media.task { self.new_task(None) } else { Reply::done() }
    }

    pub(super) fn eject(&mut self, drive: &str) -> Reply {
        match self.machine.set_media(None) {
            Ok(()) => {
                self.set(drive, &json!({ "Image": null, "Inserted": false, "ConnectedVia": "NotConnected" }));
                Reply::done()
            }
            Err(e) => Reply::error(500, "InternalError", &format!("{e:#}")),
        }
    }

    fn subscribe(&mut self, path: &str, body: &Value) -> Reply {
        let id = self.number();
        let link = format!("{path}/{id}");
        let subscription = json!({ "@odata.id": link, "Id": id.to_string(), "Name": "Subscription",
            "Destination": body["Destination"], "Context": body["Context"], "Protocol": "Redfish" });
        self.tree.insert(link.clone(), subscription);
        self.member(path, &link);
        Reply::new(201, None).header("location", link)
    }

    fn member(&mut self, collection: &str, link: &str) {
        if let Some(Value::Array(members)) = self.tree.get_mut(collection).and_then(|c| c.get_mut("Members"))
        {
            members.push(tree::link(link));
        }
    }

    pub(super) fn new_task(&mut self, offer: Option<Offer>) -> Reply {
        let id = self.number().to_string();
        let path = format!("{ROOT}/TaskService/Tasks/{id}");
        self.tasks.insert(id.clone(), Task { looks: self.profile.update.task_looks, offer });
        self.member(&format!("{ROOT}/TaskService/Tasks"), &path);
        let location = match &self.fault {
            Fault::TasksAt(elsewhere) => return Reply::new(202, None).header("location", elsewhere.clone()),
            _ => format!("{ROOT}/TaskService/TaskMonitors/{id}"),
        };
        // Some services answer with the task, some with the monitor alone.
        let body = (!self.profile.trailing_slash)
            .then(|| json!({ "@odata.id": path, "Id": id, "TaskState": "New" }));
        Reply::new(202, body).header("location", location)
    }

    pub(super) fn read_task(&mut self, path: &str) -> Option<Reply> {
        let (kind, id) = path.strip_prefix(&format!("{ROOT}/TaskService/"))?.split_once('/')?;
        let task = self.tasks.get_mut(id)?;
        let running = task.looks > 0;
        task.looks = task.looks.saturating_sub(1);
        let offer = if running { None } else { task.offer.take() };
        let mut state = if running { "Running" } else { "Completed" };
        let mut words = state;
        match offer {
            Some(Offer { way: Way::Fails(why), .. }) => {
                (state, words) = ("Exception", why);
                task.offer = offer;
            }
            Some(offer) if offer.way == Way::RestartsBmc => {
                self.install(&offer);
                self.tasks.clear();
                self.set(&format!("{ROOT}/TaskService/Tasks"), &json!({ "Members": [] }));
                self.restart();
                return Some(Reply::error(401, "NoValidSession", "There is no valid session established."));
            }
            Some(offer) if offer.way == Way::AfterRestart => self.staged.push(offer),
            Some(offer) => self.install(&offer),
            None => {}
        }
        let failed = state == "Exception";
        let task = json!({ "@odata.id": format!("{ROOT}/TaskService/Tasks/{id}"), "Id": id, "Name": "Task",
            "TaskState": state, "TaskStatus": if failed { "Critical" } else { "OK" },
            "PercentComplete": if running { 50 } else { 100 },
            "Messages": [{ "MessageId": "Update.1.0.Progress", "Message": words }] });
        Some(match (kind, running) {
            ("TaskMonitors", true) => Reply::new(202, None),
            ("TaskMonitors", false) if failed => Reply::new(200, Some(task)),
            ("TaskMonitors", false) => Reply::new(200, Some(json!({}))),
            _ => Reply::new(200, Some(task)),
        })
    }
}
