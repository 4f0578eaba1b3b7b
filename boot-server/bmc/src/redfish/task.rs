//! Tasks: what a service answers with 202 and does by itself (DSP0266, section 9.2).

use hyper::{Method, StatusCode};
use serde_json::Value;

use super::address::Link;
use super::call::Call;
use super::json::{self, View, cut};
use super::limits;
use super::refusal;
use super::wire::{Answer, Ask};
use crate::{BmcError, Task, TaskState};

/// Id of a task that was over at once.
const DONE: &str = "done";

impl Call<'_> {
    /// The task that an answer speaks of: none where the service was done when it answered.
    pub(super) fn task_of(&self, what: &str, answer: &Answer) -> Result<Option<Task>, BmcError> {
        let location = answer.header("location").map(|l| self.origin().link(what, l)).transpose()?;
        let body = json::parse(what, &answer.body).ok().filter(Value::is_object);
        let Some(body) = body.filter(is_task) else {
            let accepted = answer.status == StatusCode::ACCEPTED;
            return Ok(location.filter(|_| accepted).map(|monitor| running(&monitor)));
        };
        let view = View::new(self.origin(), what.to_owned(), &body);
        // The task itself tells more than its monitor, and is there after its end.
        let id = view.id()?.or(location);
        id.map(|id| task(&id, &view)).transpose()
    }

    /// As [`Call::task_of`], for an update, whose caller wants a task in any case.
    pub(super) fn task_or_done(&self, what: &str, answer: &Answer) -> Result<Task, BmcError> {
        let done =
            || Task { id: DONE.to_owned(), state: TaskState::Completed, percent: Some(100), message: None };
        Ok(self.task_of(what, answer)?.unwrap_or_else(done))
    }

    /// Reads a task or a task monitor.
    pub(super) async fn task(&self, id: &str) -> Result<Task, BmcError> {
        if id == DONE {
            return Ok(Task {
                id: id.to_owned(),
                state: TaskState::Completed,
                percent: Some(100),
                message: None,
            });
        }
        let link = self.origin().link("a task's id", id)?;
        let ask =
            Ask { method: Method::GET, link: &link, headers: Vec::new(), body: hyper::body::Bytes::new() };
        let what = ask.what();
        let answer = self.ask(ask).await?;
        let body = json::parse(&what, &answer.body).ok().filter(is_task);
        match (answer.status, body) {
            (status, Some(body)) if status.is_success() => {
                let mut task = task(&link, &View::new(self.origin(), link.to_string(), &body))?;
                if status == StatusCode::ACCEPTED {
                    task.state = TaskState::Running;
                }
                Ok(task)
            }
            (StatusCode::ACCEPTED, None) => Ok(running(&link)),
            (status, None) if status.is_success() => Ok(Task {
                id: link.to_string(),
                state: TaskState::Completed,
                percent: Some(100),
                message: None,
            }),
            (StatusCode::NOT_FOUND | StatusCode::GONE, _) => Err(BmcError::Gone { what }),
            _ => Err(refusal::of(&what, &answer, self.tree().await?.profile)),
        }
    }

    /// Ids of all tasks, without reading them.
    pub(super) async fn tasks(&self) -> Result<Vec<String>, BmcError> {
        let root = self.root().await?;
        let service = root.tasks.as_ref().ok_or_else(|| self.unsupported("a list of tasks"))?;
        let service = self.get(service).await?;
        let view = service.view(self.origin());
        let collection = view.link("Tasks")?.ok_or_else(|| self.unsupported("a list of tasks"))?;
        let (whole, links) = self.pages(&collection, limits::MEMBERS).await?;
        Ok(whole
            .iter()
            .map(|task| task.link.to_string())
            .chain(links.iter().map(ToString::to_string))
            .collect())
    }

    /// Follows a task to its end, within the call's time.
    pub(super) async fn wait_for(&self, what: &str, mut task: Task) -> Result<(), BmcError> {
        loop {
            match task.state {
                TaskState::Completed => return Ok(()),
                TaskState::Failed => {
                    let why = task.message.unwrap_or_else(|| "its task failed".to_owned());
                    return Err(BmcError::Refused { what: what.to_owned(), why });
                }
                TaskState::Running if self.deadline.left() < limits::TASK_POLL => {
                    return Err(self.deadline.over(what));
                }
                TaskState::Running => tokio::time::sleep(limits::TASK_POLL).await,
            }
            task = self.task(&task.id).await?;
        }
    }
}

/// A Task has `TaskState`; Dell's Job, which a monitor may lead to, `JobState`.
fn is_task(body: &Value) -> bool {
    body.get("TaskState").is_some() || body.get("JobState").is_some()
}

fn running(link: &Link) -> Task {
    Task { id: link.to_string(), state: TaskState::Running, percent: None, message: None }
}

pub(super) fn task(id: &Link, view: &View<'_>) -> Result<Task, BmcError> {
    let percent = view.number("PercentComplete")?.map(|p| p.clamp(0.0, 100.0) as u8);
    let mut words: Vec<_> = Vec::new();
    for message in view.list("Messages")? {
        words.extend(message.string("Message")?);
    }
    // Jobs have one message.
    words.extend(view.string("Message")?);
    let state = view.text("TaskState")?.or(view.text("JobState")?);
    let state = state_of(state, view.text("TaskStatus")?);
    Ok(Task { id: id.to_string(), state, percent, message: words.pop().map(|m| cut(&m)) })
}

/// Words that no schema has are still running: the caller has a deadline.
fn state_of(state: Option<&str>, status: Option<&str>) -> TaskState {
    match (state, status) {
        (Some("Completed"), Some("Critical")) => TaskState::Failed,
        (Some("Completed"), _) => TaskState::Completed,
        (Some("Exception" | "Killed" | "Cancelled" | "Interrupted"), _) => TaskState::Failed,
        // Dell's job states.
        (Some("CompletedWithErrors" | "Failed" | "RebootFailed"), _) => TaskState::Failed,
        _ => TaskState::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states() {
        for (state, status, wanted) in [
            (Some("New"), None, TaskState::Running),
            (Some("Running"), Some("OK"), TaskState::Running),
            (Some("Completed"), Some("OK"), TaskState::Completed),
            (Some("Completed"), Some("Warning"), TaskState::Completed),
            (Some("Completed"), Some("Critical"), TaskState::Failed),
            (Some("Exception"), Some("Critical"), TaskState::Failed),
            (Some("CompletedWithErrors"), None, TaskState::Failed),
            (Some("Meditating"), None, TaskState::Running),
            (None, None, TaskState::Running),
        ] {
            assert_eq!(state_of(state, status), wanted, "{state:?} {status:?}");
        }
    }
}
