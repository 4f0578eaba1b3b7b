//! What a controller does when it is told to: power, media, logs, updates, and the tasks that come of it.

use bmc::{PowerAction, PowerState};
use serde_json::{Value, json};

use super::faults::Fault;
use super::state::{Pushed, Question, Reply, State};
use super::tree::{self, ROOT};

impl State {
    pub(super) fn post(&mut self, question: &Question<'_>) -> Reply {
        let (path, body) = (question.path, &question.json);
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
            "SecureBoot.ResetKeys" => Reply::done(),
            "DellManager.ClearPending" => {
                self.set(
                    path.trim_end_matches("/Actions/Oem/DellManager.ClearPending"),
                    &json!({ "Attributes": {} }),
                );
                Reply::done()
            }
            "UpdateService.SimpleUpdate" if body["ImageURI"].is_string() => self.new_task(),
            "push" if self.profile.update.multipart => {
                self.pushed.push(Pushed { octets: question.octets });
                self.new_task()
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
        match self.machine.power(action) {
            Ok(()) => Reply::done(),
            Err(e) => Reply::error(409, "ResourceInStandby", &e.to_string()),
        }
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
        if media.task { self.new_task() } else { Reply::done() }
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

    pub(super) fn new_task(&mut self) -> Reply {
        let id = self.number().to_string();
        let path = format!("{ROOT}/TaskService/Tasks/{id}");
        self.tasks.insert(id.clone(), self.profile.update.task_looks);
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
        let looks = self.tasks.get_mut(id)?;
        let running = *looks > 0;
        *looks = looks.saturating_sub(1);
        let state = if running { "Running" } else { "Completed" };
        let task = json!({ "@odata.id": format!("{ROOT}/TaskService/Tasks/{id}"), "Id": id, "Name": "Task",
            "TaskState": state, "TaskStatus": "OK", "PercentComplete": if running { 50 } else { 100 },
            "Messages": [{ "MessageId": "Update.1.0.Progress", "Message": state }] });
        Some(match (kind, running) {
            ("TaskMonitors", true) => Reply::new(202, None),
            ("TaskMonitors", false) => Reply::new(200, Some(json!({}))),
            _ => Reply::new(200, Some(task)),
        })
    }
}
