//! Servicing jobs: what the core says is asked of the controller, and what comes of it is told to the node.
//!
//! ```text
//! Effect::Service ─▶ resumed ─▶ what the stage asks for ─▶ Event::Service{news} ─▶ the next stage …
//! ```
//!
//! One task for each node. Nothing of a job is kept here: a stop of the server leaves the effect open, and at the next
//! start the stage says what must be found out before anything is asked for again.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use bmc::{BiosAttributes, ErrorKind, ResetKeys, TaskState, Update};
use boot_server_core::bmc::Restart;
use boot_server_core::bmc::restart::{Answer, End, Step};
use boot_server_core::node::event::Verb;
use boot_server_core::node::{
    Context, Event, Node, PowerNews, Service, ServiceNews, ServiceOrder, ServiceStage, State,
    state::Fallback, step,
};
use boot_server_core::servicing::{
    Facts, FirmwareFact, FirmwareStep, KeyReset, RestartPolicy, ServiceStep, Transfer, Verdict, check_steps,
    component, judge,
};
use boot_server_core::words::{Location, MediaPath};
use protocol::{JobId, NodeId, Sha256};
use sha2::Digest as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::restarts::ended;
use super::{Actor, Engine, EngineError, now};
use crate::media;
use crate::power::{Change, Clock, PowerError, Read, Reply, chance};
use crate::view::ServiceView;

/// The first pause between two looks; each is longer.
const LOOK: Duration = Duration::from_secs(1);
/// The longest one.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Octets that are hashed at once.
const PIECE: usize = 1 << 20;

fn bad(what: impl Into<String>, hint: impl Into<String>) -> EngineError {
    EngineError::BadService { what: what.into(), hint: hint.into() }
}

impl Engine {
    /// Begins a servicing job. All that can be known to be wrong is refused before: files, versions and attributes are
    /// looked at, on this server and at the controller.
    ///
    /// # Errors
    /// [`EngineError::BadService`], what the state machine says, or the controller.
    pub async fn service(
        &self,
        node: &Node,
        actor: Actor,
        steps: Vec<ServiceStep>,
        restart: RestartPolicy,
    ) -> Result<Node, EngineError> {
        check_steps(&steps).map_err(|error| bad(error.what, error.hint))?;
        let order = Box::new(ServiceOrder { steps: steps.clone(), restart });
        let event = Event::Verb(Verb::Service(order));
        // Whether it fits is known at once; controllers are asked only then.
        let context =
            Context { now: now(), fresh_job: JobId(Uuid::now_v7()), policy: self.settings().policy_of(node) };
        step(node, event.clone(), &context)?;
        for step in &steps {
            if let ServiceStep::Firmware(firmware) = step {
                self.check_image(firmware).await?;
            }
            let facts = self.facts(node.id, step).await?;
            if let Verdict::Wrong { what, hint } = judge(step, &facts) {
                return Err(bad(what, hint));
            }
        }
        self.apply(node.id, actor, event).await
    }

    /// Carries out the servicing job of a node. Returns once that is over, whichever way; `false` where the server stops
    /// before.
    ///
    /// # Errors
    /// Where the store fails; then it is to be taken up again.
    pub(super) async fn serve(&self, id: NodeId, stop: &CancellationToken) -> Result<bool, EngineError> {
        let Some(job) = self.0.nodes.get(id).and_then(|node| Some(node.state.service()?.id)) else {
            return Ok(true);
        };
        self.tell_service(id, job, ServiceNews::Resumed).await?;
        let mut pause = LOOK;
        while let Some(service) = self.serviced(id, job) {
            let news = tokio::select! {
                () = stop.cancelled() => return Ok(false),
                news = self.next_news(id, &service) => news,
            };
            // Workers end with the server: that they are gone is no news of the controller.
            if stop.is_cancelled() {
                return Ok(false);
            }
            for news in news {
                self.tell_service(id, job, news).await?;
            }
            let stage = |service: &Service| (service.at, service.stage.clone());
            if self.serviced(id, job).is_none_or(|now| stage(&now) != stage(&service)) {
                pause = LOOK;
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                () = tokio::time::sleep(chance().jitter(pause)) => {}
            }
            pause = (pause * 2).min(LOOK_MAX);
        }
        Ok(true)
    }

    fn serviced(&self, id: NodeId, job: JobId) -> Option<Service> {
        self.0.nodes.get(id)?.state.service().filter(|service| service.id == job).cloned()
    }

    async fn tell_service(&self, id: NodeId, job: JobId, news: ServiceNews) -> Result<(), EngineError> {
        self.apply(id, Actor::Server, Event::Service { job, news }).await.map(drop)
    }

    /// Does what the stage asks for.
    async fn next_news(&self, id: NodeId, service: &Service) -> Vec<ServiceNews> {
        let Some(step) = service.step() else { return Vec::new() };
        match &service.stage {
            ServiceStage::Check => vec![self.check(id, service.at, step).await],
            ServiceStage::Apply { .. } => vec![self.ask_for(id, step).await],
            ServiceStage::Doubt { .. } => self.resolve(id, service.at, step).await,
            ServiceStage::Task { id: task, .. } => vec![self.follow(id, task).await],
            ServiceStage::Settle { .. } => vec![self.look(id, service.at, step).await],
            ServiceStage::Restart => vec![self.restart_for(id, service).await],
            ServiceStage::Recheck | ServiceStage::Verify => {
                let mut news = Vec::new();
                for (at, step) in service.staged() {
                    news.push(self.look(id, at, step).await);
                }
                news
            }
        }
    }

    /// The first look: what the controller refuses now it refuses for good.
    async fn check(&self, id: NodeId, at: usize, step: &ServiceStep) -> ServiceNews {
        let tasks = match step {
            ServiceStep::Firmware(_) => match self.tasks(id).await {
                Ok(tasks) => tasks.unwrap_or_default(),
                Err(error) => return first(&error),
            },
            _ => Vec::new(),
        };
        match self.facts(id, step).await {
            Ok(facts) => ServiceNews::Looked { at, facts, tasks },
            Err(error) => first(&error),
        }
    }

    /// A look at a controller that may be starting, or whose machine is.
    async fn look(&self, id: NodeId, at: usize, step: &ServiceStep) -> ServiceNews {
        match self.facts(id, step).await {
            Ok(facts) => ServiceNews::Looked { at, facts, tasks: Vec::new() },
            Err(error) => later(&error),
        }
    }

    async fn resolve(&self, id: NodeId, at: usize, step: &ServiceStep) -> Vec<ServiceNews> {
        let looked = self.look(id, at, step).await;
        if !matches!(looked, ServiceNews::Looked { .. }) || !matches!(step, ServiceStep::Firmware(_)) {
            return vec![looked];
        }
        // A version that is as wanted ends the doubt before the tasks are looked at.
        let tasks = match self.tasks(id).await {
            Ok(tasks) => ServiceNews::Tasks(tasks),
            Err(error) => later(&error),
        };
        vec![looked, tasks]
    }

    async fn follow(&self, id: NodeId, task: &str) -> ServiceNews {
        match self.0.power.read(id, Read::Task(task.to_owned())).await {
            Ok(Reply::Task(task)) => match task.state {
                TaskState::Running => {
                    ServiceNews::Progress { id: task.id, percent: task.percent, words: task.message }
                }
                TaskState::Completed => ServiceNews::TaskDone,
                TaskState::Failed => ServiceNews::TaskFailed {
                    why: task.message.unwrap_or_else(|| "it does not say why".to_owned()),
                },
            },
            Ok(_) => ServiceNews::Trouble { what: "the BMC's answer makes no sense".to_owned() },
            Err(error) => match error.kind() {
                Some(ErrorKind::Gone) => ServiceNews::TaskGone,
                // An image that is refused when it has been sent.
                Some(ErrorKind::Refused) => ServiceNews::TaskFailed { why: error.to_string() },
                _ => later(&error),
            },
        }
    }

    /// What the controller shows of a step.
    async fn facts(&self, id: NodeId, step: &ServiceStep) -> Result<Facts, PowerError> {
        let power = &self.0.power;
        let read = match step {
            ServiceStep::Firmware(_) => Read::Firmware,
            ServiceStep::Bios(_) => Read::Bios,
            ServiceStep::SecureBoot(_) | ServiceStep::SecureBootKeys(_) => Read::SecureBoot,
        };
        match power.read(id, read).await? {
            Reply::Firmware(items) => Ok(Facts::Firmware(firmware_facts(&items))),
            Reply::Bios(attributes) => Ok(Facts::Bios(attributes.0.clone())),
            Reply::SecureBoot(found) => Ok(Facts::SecureBoot {
                current: found.current,
                enabled: found.enabled,
                setup_mode: found.setup_mode,
            }),
            other => Err(PowerError::wrong_reply(&other)),
        }
    }

    /// Ids of the controller's tasks; `None` where it has no list of them.
    async fn tasks(&self, id: NodeId) -> Result<Option<Vec<String>>, PowerError> {
        match self.0.power.read(id, Read::Tasks).await {
            Ok(Reply::Tasks(tasks)) => Ok(Some(tasks.to_vec())),
            Ok(other) => Err(PowerError::wrong_reply(&other)),
            Err(error) if error.kind() == Some(ErrorKind::Unsupported) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks the controller for the change.
    async fn ask_for(&self, id: NodeId, step: &ServiceStep) -> ServiceNews {
        let change = match step {
            ServiceStep::Firmware(step) => match self.update(id, step).await {
                Ok(update) => Change::Update(update),
                Err(news) => return news,
            },
            ServiceStep::Bios(step) => Change::Bios(BiosAttributes(step.attributes.clone())),
            ServiceStep::SecureBoot(step) => Change::SecureBoot(step.on),
            ServiceStep::SecureBootKeys(step) => Change::ResetKeys(match step.to {
                KeyReset::Default => ResetKeys::Default,
                KeyReset::DeleteAll => ResetKeys::DeleteAll,
                KeyReset::DeletePk => ResetKeys::DeletePk,
            }),
        };
        match self.0.power.change(id, change).await {
            Ok(Reply::Task(task)) if task.state == TaskState::Failed => {
                ServiceNews::TaskFailed { why: task.message.unwrap_or_default() }
            }
            Ok(Reply::Task(task)) => ServiceNews::Taken { task: Some(task.id) },
            Ok(_) => ServiceNews::Taken { task: None },
            Err(error) => match &error {
                // It was not sent, or the controller said "later": nothing was done.
                PowerError::Waits { .. } | PowerError::Full => {
                    ServiceNews::Trouble { what: error.to_string() }
                }
                _ if error.kind() == Some(ErrorKind::Busy) => {
                    ServiceNews::Trouble { what: error.to_string() }
                }
                _ if error.is_transient() => ServiceNews::Lost { what: error.to_string() },
                _ => failed(&error),
            },
        }
    }

    /// The update as the driver takes it. The file is hashed again: it may lie there for long.
    async fn update(&self, id: NodeId, step: &FirmwareStep) -> Result<Update, ServiceNews> {
        self.check_image(step).await.map_err(|error| {
            let problem = error.problem();
            ServiceNews::Failed { what: problem.message, hint: problem.hint }
        })?;
        let mut targets = Vec::new();
        if step.target {
            let whole = ServiceStep::Firmware(step.clone());
            match self.facts(id, &whole).await {
                Ok(Facts::Firmware(items)) => match component(&step.component, &items) {
                    Ok(item) => targets.push(item.id.clone()),
                    Err(Verdict::Wrong { what, hint }) => return Err(ServiceNews::Failed { what, hint }),
                    Err(_) => {}
                },
                Ok(_) => {}
                Err(error) => return Err(first(&error)),
            }
        }
        match (&step.image, step.by) {
            (Location::Media(path), Transfer::Push) => {
                let name = path.as_str().rsplit('/').next().unwrap_or_default().to_owned();
                Ok(Update::Push { name, path: self.media_path(path), targets })
            }
            (image, _) => {
                let base = self.settings().provisioning_urls().next().unwrap_or_default();
                let url = image.url(&base).map_err(|error| ServiceNews::Failed {
                    what: error.to_string(),
                    hint: "give a shorter path".to_owned(),
                })?;
                Ok(Update::Pull { url: url.to_string(), targets })
            }
        }
    }

    fn media_path(&self, path: &MediaPath) -> PathBuf {
        self.media_dir().join(path.as_str())
    }

    /// The image is there, and is what was asked for.
    async fn check_image(&self, step: &FirmwareStep) -> Result<(), EngineError> {
        let (Location::Media(path), Some(wanted)) = (&step.image, step.sha256) else { return Ok(()) };
        let (dir, name) = (self.media_dir(), path.clone());
        let hashed = tokio::task::spawn_blocking(move || hash(&dir, &name)).await?;
        let found = hashed.map_err(|error| {
            bad(
                format!("`{path}` cannot be read in {}: {error}", self.media_dir().display()),
                "put the file there (boot.media names the directory)",
            )
        })?;
        if found == wanted {
            return Ok(());
        }
        Err(bad(
            format!("`{path}` has the SHA-256 {found}, and not {wanted}"),
            "fetch the file again, and compare with what its maker publishes",
        ))
    }

    /// Restarts the machine, so that what the controller has taken comes into force.
    async fn restart_for(&self, id: NodeId, service: &Service) -> ServiceNews {
        let (mut restart, clock) = (Restart::plain(service.back == Fallback::Active), Clock::new());
        let mut last: Option<PowerError> = None;
        loop {
            if self.serviced(id, service.id).is_none() {
                restart.call_off();
            }
            let answer = match restart.step() {
                Step::End(End::On | End::Unproven) => return ServiceNews::Restarted,
                Step::End(end) => {
                    return match ended(end, last.as_ref()) {
                        PowerNews::Failed { what, hint } => ServiceNews::Failed {
                            what: format!("the machine was not restarted: {what}"),
                            hint,
                        },
                        _ => ServiceNews::Restarted,
                    };
                }
                Step::Pause(pause) => {
                    tokio::time::sleep(pause).await;
                    Answer::Done
                }
                step => match self.do_step(id, step, None).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        // The only error of it is the store's, and then the job is taken up again.
                        let answer = self.trouble(id, step, false, &error).await.unwrap_or(Answer::Silence);
                        last = Some(error);
                        answer
                    }
                },
            };
            restart.handle_answer(clock.now(), answer, chance());
        }
    }
}

/// The servicing job of a node as it is shown.
pub(crate) fn view(node: &Node) -> Option<ServiceView> {
    let failed = match &node.state {
        State::Failed(failure) => failure.service.as_deref(),
        _ => None,
    };
    node.state.service().or(failed).map(ServiceView::of)
}

/// A firmware list as the core compares it.
pub(super) fn firmware_facts(items: &[bmc::FirmwareItem]) -> Vec<FirmwareFact> {
    let fact = |item: &bmc::FirmwareItem| FirmwareFact {
        id: item.id.clone(),
        name: item.name.clone(),
        version: item.version.clone(),
    };
    items.iter().map(fact).collect()
}

pub(super) fn hash(dir: &std::path::Path, path: &MediaPath) -> std::io::Result<Sha256> {
    let mut file = media::open(dir, path)?;
    let (mut hash, mut piece) = (sha2::Sha256::new(), vec![0; PIECE]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Sha256(hash.finalize().into())),
            count => hash.update(&piece[..count]),
        }
    }
}

fn failed(error: &PowerError) -> ServiceNews {
    ServiceNews::Failed { what: error.to_string(), hint: error.hint().to_owned() }
}

/// An error before anything was changed.
fn first(error: &PowerError) -> ServiceNews {
    if error.is_transient() { ServiceNews::Trouble { what: error.to_string() } } else { failed(error) }
}

/// An error while a controller or a machine may be starting: most of them pass. Another certificate does not.
fn later(error: &PowerError) -> ServiceNews {
    match error {
        PowerError::NoBmc => failed(error),
        _ if error.kind() == Some(ErrorKind::Certificate) => failed(error),
        _ => ServiceNews::Trouble { what: error.to_string() },
    }
}
