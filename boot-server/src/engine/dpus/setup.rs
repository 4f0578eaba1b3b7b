//! Jobs that set DPUs up: what the core says is asked of the controller, and what comes of it is told to the job.
//!
//! ```text
//! begun (stored) ─▶ run: what the stage asks for ─▶ news ─▶ Job::step, stored ─▶ the next stage …
//!                          ▲                                    │ an image is fetched by its ticket: image behind bf.cfg
//! a start of the server ───┘ Resumed                            ▼ the DPU comes in with its token: the same DPU
//! ```
//!
//! Nothing of a job is kept here. What is asked for is stored before; whether a lost one was begun is read from the controller's tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bmc::{
    CardChange, CardMode, ErrorKind, HostPrivilege, PowerAction, PowerState, Secret, TaskState, Update,
};
use boot_server_core::node::{Severity, State};
use boot_server_core::setup::{
    Handed, JOBS_MAX, Job, Mode, News, OS_ITEM, Order, Privilege, Stage, before_last, config,
};
use boot_server_core::words::MediaPath;
use protocol::{DpuId, JobId, Sha256};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::controller::worker;
use super::{Dpu, DpuError, line};
use crate::engine::servicing::hash;
use crate::engine::{Actor, Engine, EngineError, lock, now};
use crate::power::{Change, PowerError, Read, Reply, chance};
use crate::secret;
use crate::store::dpu_setup::{self as rows, JobRow};
use crate::store::dpus::update as update_dpu;
use crate::store::queries::insert_event;
use crate::vault::Place;

/// The first pause between two looks; each is longer.
const LOOK: Duration = Duration::from_secs(1);
/// The longest one.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Before a job is taken up again that the store could not take.
const RETRY: Duration = Duration::from_secs(5);
/// Where images of DPUs are served, before the ticket.
pub const DPU_IMAGE_PATH: &str = "/dpu/image";

fn place(id: JobId) -> Place {
    Place { row: id.0, column: "dpu_jobs.secret" }
}

/// What a DPU's controller fetches.
#[derive(Debug, Clone)]
pub struct DpuImage {
    /// The media directory.
    pub dir: PathBuf,
    /// The image in it.
    pub path: MediaPath,
    /// What comes behind it.
    pub config: String,
}

impl Engine {
    /// Jobs of a DPU, the newest first.
    ///
    /// # Errors
    /// [`DpuError::NotFound`].
    pub fn dpu_jobs(&self, reference: &str) -> Result<Vec<Job>, EngineError> {
        let id = self.dpu(reference)?.dpu.id;
        Ok(self.jobs_of_dpu(id))
    }

    /// A job of a DPU.
    ///
    /// # Errors
    /// [`DpuError`].
    pub fn dpu_job(&self, reference: &str, job: &str) -> Result<Job, EngineError> {
        let id = job.parse::<JobId>().ok();
        let found = self.dpu_jobs(reference)?.into_iter().find(|one| Some(one.id) == id);
        found.ok_or_else(|| DpuError::NoJob(job.chars().take(80).collect()).into())
    }

    /// Jobs of a DPU, the newest first.
    pub(crate) fn jobs_of_dpu(&self, id: DpuId) -> Vec<Job> {
        let jobs = lock(&self.0.dpus.jobs);
        jobs.values().rev().filter(|row| row.job.dpu == id).map(|row| row.job.clone()).collect()
    }

    /// Refuses while a job of the DPU goes on.
    pub(super) fn check_no_job(&self, id: DpuId) -> Result<(), EngineError> {
        let jobs = lock(&self.0.dpus.jobs);
        let open = jobs.values().find(|row| row.job.dpu == id && !row.job.stage.is_over());
        open.map_or(Ok(()), |row| Err(DpuError::Busy(row.job.order.words()).into()))
    }

    /// What a rollback of this DPU would install.
    ///
    /// # Errors
    /// [`DpuError`].
    pub fn dpu_rollback(&self, reference: &str) -> Result<Order, EngineError> {
        let id = self.dpu(reference)?.dpu.id;
        let jobs = lock(&self.0.dpus.jobs);
        let mut of_it = jobs.values().filter(|row| row.job.dpu == id).map(|row| &row.job);
        let (image, sha256) = before_last(of_it.by_ref()).ok_or(DpuError::NoImageBefore)?;
        Ok(Order::Install { image: image.to_owned(), sha256, agent: true, rollback: true })
    }

    /// The digest of an image in the media directory, which is `wanted` where that is given.
    ///
    /// # Errors
    /// [`DpuError::Image`].
    pub async fn dpu_image_digest(&self, image: &str, wanted: Option<Sha256>) -> Result<Sha256, EngineError> {
        let wrong = |why: String| DpuError::Image { image: image.chars().take(80).collect(), why };
        let path: MediaPath =
            image.parse().map_err(|_| wrong("it is no path in the media directory".into()))?;
        let dir = self.media_dir();
        let found = tokio::task::spawn_blocking(move || hash(&dir, &path)).await?;
        let found = found.map_err(|error| wrong(format!("it cannot be read: {error}")))?;
        match wanted.filter(|wanted| *wanted != found) {
            Some(wanted) => Err(wrong(format!("it has the SHA-256 {found}, and not {wanted}")).into()),
            None => Ok(found),
        }
    }

    /// Begins a job.
    ///
    /// # Errors
    /// [`DpuError`], or what the store says.
    pub async fn begin_dpu_job(
        &self,
        actor: Actor,
        reference: &str,
        order: Order,
    ) -> Result<Job, EngineError> {
        let _turn = self.0.dpus.turn.lock().await;
        let dpu = self.dpu(reference)?.dpu;
        if self.dpu_controller(dpu.id).is_none() {
            return Err(DpuError::NoController.into());
        }
        self.check_no_job(dpu.id)?;
        self.check_host_is_free(&dpu).await?;
        let job = Job::new(JobId(Uuid::now_v7()), dpu.id, order, actor.name().to_owned(), now());
        let (secret, next) = self.handed(&job, &dpu)?;
        let event = line(&actor, &dpu, "dpu.job", Severity::Info, &format!("begun: {}", job.order.words()));
        let row = JobRow { job: job.clone(), secret };
        let (stored, changed, noted) = (row.clone(), next.clone(), event.clone());
        let write = move |db: &_| {
            if !rows::add_job(db, &stored)? {
                return Ok(None);
            }
            if let Some(dpu) = &changed {
                update_dpu(db, dpu)?;
            }
            insert_event(db, &noted).map(Some)
        };
        let number = self.store().write(write).await?;
        let number = number.ok_or_else(|| DpuError::Busy("another server began one".to_owned()))?;
        if let (Some(next), Some(known)) = (next, lock(&self.0.dpus.all).get_mut(&dpu.id)) {
            known.dpu = next;
        }
        lock(&self.0.dpus.jobs).insert(job.id, row);
        self.announce_event(number, event);
        self.announce(crate::engine::Change::Dpu(dpu.id));
        self.0.dpus.begun.notify_one();
        Ok(job)
    }

    /// What the DPU is handed, sealed, and the DPU with the token that it then comes in with.
    fn handed(&self, job: &Job, dpu: &Dpu) -> Result<(Option<String>, Option<Dpu>), EngineError> {
        if !job.order.is_fetched() {
            return Ok((None, None));
        }
        let (token, ticket) = (secret::token()?, secret::token()?);
        let hash = secret::hash(&token);
        let sealed = self.0.vault.seal(place(job.id), &Secret(format!("{token} {ticket}")))?;
        let agent = matches!(job.order, Order::Install { agent: true, .. });
        let next = agent.then(|| Dpu { token: Some(hash), version: dpu.version + 1, ..dpu.clone() });
        Ok((Some(sealed), next))
    }

    fn open_handed(&self, row: &JobRow) -> Result<Option<(String, String)>, EngineError> {
        let Some(sealed) = &row.secret else { return Ok(None) };
        let text = self.0.vault.unseal(place(row.job.id), sealed)?;
        Ok(text.0.split_once(' ').map(|(token, ticket)| (token.to_owned(), ticket.to_owned())))
    }

    /// A host that works is not disturbed, unless it is under maintenance or off.
    async fn check_host_is_free(&self, dpu: &Dpu) -> Result<(), EngineError> {
        let Some(node) = dpu.node.and_then(|node| self.0.nodes.get(node)) else { return Ok(()) };
        if node.maintenance.is_some() || self.power_of(node.id) == Some(PowerState::Off) {
            return Ok(());
        }
        let server = self.server_of(node.id).await?;
        let idle =
            matches!(node.state, State::Enroll | State::Manageable | State::Available | State::Failed(_));
        match server {
            Some(server) => {
                Err(DpuError::HostWorks(format!("{} runs the server {}", node.name, server.name)).into())
            }
            None if !idle => {
                Err(DpuError::HostWorks(format!("{} is {}", node.name, node.state.name())).into())
            }
            None => Ok(()),
        }
    }

    /// Calls a job off: what can be taken back is.
    ///
    /// # Errors
    /// [`DpuError`], or what the store says.
    pub async fn call_off_dpu_job(
        &self,
        actor: Actor,
        reference: &str,
        job: &str,
    ) -> Result<Job, EngineError> {
        let found = self.dpu_job(reference, job)?;
        if found.stage.is_over() {
            return Err(DpuError::Over.into());
        }
        self.tell_setup(found.id, News::CalledOff(actor.name().to_owned())).await?;
        self.dpu_job(reference, job)
    }

    /// Carries jobs out, until `stop`.
    pub async fn run_setups(&self, stop: CancellationToken) {
        let (mut running, mut tasks) = (BTreeSet::new(), JoinSet::new());
        loop {
            let open: Vec<JobId> = {
                let jobs = lock(&self.0.dpus.jobs);
                jobs.values().filter(|row| !row.job.stage.is_over()).map(|row| row.job.id).collect()
            };
            for id in open {
                if running.insert(id) {
                    let (engine, stop) = (self.clone(), stop.clone());
                    tasks.spawn(async move {
                        if let Err(error) = engine.run_setup(id, &stop).await {
                            tracing::error!(job = %id, error = &error as &dyn std::error::Error, "a job of a DPU cannot go on now");
                            tokio::time::sleep(RETRY).await;
                        }
                        id
                    });
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.0.dpus.begun.notified() => {}
                Some(ended) = tasks.join_next() => {
                    if let Ok(id) = ended {
                        running.remove(&id);
                    }
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn run_setup(&self, id: JobId, stop: &CancellationToken) -> Result<(), EngineError> {
        self.tell_setup(id, News::Resumed).await?;
        let mut pause = LOOK;
        while let Some(row) = self.open_job(id) {
            let news = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                news = self.setup_news(&row) => news?,
            };
            // Workers end with the server: that they are gone is no news of the controller.
            if stop.is_cancelled() {
                return Ok(());
            }
            for news in news {
                self.tell_setup(id, news).await?;
            }
            if self.open_job(id).is_none_or(|now| now.job.stage != row.job.stage) {
                pause = LOOK;
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(chance().jitter(pause)) => {}
            }
            pause = (pause * 2).min(LOOK_MAX);
        }
        Ok(())
    }

    fn open_job(&self, id: JobId) -> Option<JobRow> {
        lock(&self.0.dpus.jobs).get(&id).filter(|row| !row.job.stage.is_over()).cloned()
    }

    /// Ends all jobs, without a look at what their controllers made of them.
    ///
    /// # Errors
    /// What the store says.
    pub(in crate::engine) async fn give_up_setups(&self, why: &str, hint: &str) -> Result<(), EngineError> {
        let jobs: Vec<JobId> = lock(&self.0.dpus.jobs).keys().copied().collect();
        for id in jobs {
            self.tell_setup(id, News::Failed { why: why.to_owned(), hint: hint.to_owned() }).await?;
        }
        Ok(())
    }

    /// Takes the news in. What is stored is what counts.
    async fn tell_setup(&self, id: JobId, news: News) -> Result<(), EngineError> {
        let Some(row) = self.open_job(id) else { return Ok(()) };
        let job = row.job.clone().step(news, now());
        if job == row.job {
            return Ok(());
        }
        let event = self.end_of(&job);
        let dpu = self.without_token(&job, &row)?;
        let (stored, changed, noted) = (job.clone(), dpu.clone(), event.clone());
        let write = move |db: &_| {
            rows::put_job(db, &stored)?;
            if let Some(dpu) = &changed {
                update_dpu(db, dpu)?;
            }
            noted.map(|event| insert_event(db, &event)).transpose()
        };
        let number = self.store().write(write).await?;
        if let (Some(dpu), Some(known)) = (dpu, lock(&self.0.dpus.all).get_mut(&job.dpu)) {
            known.dpu = dpu;
        }
        let secret = row.secret.filter(|_| !job.stage.is_over());
        let over = job.stage.is_over();
        lock(&self.0.dpus.jobs).insert(id, JobRow { job: job.clone(), secret });
        if let (Some(number), Some(event)) = (number, event) {
            self.announce_event(number, event);
        }
        self.announce(crate::engine::Change::Dpu(job.dpu));
        if over { self.forget_old_jobs(job.dpu).await } else { Ok(()) }
    }

    fn end_of(&self, job: &Job) -> Option<crate::store::queries::NewEvent> {
        let dpu = self.known_dpu(job.dpu)?.dpu;
        match &job.stage {
            Stage::Done => Some(line(&Actor::Server, &dpu, "dpu.job.done", Severity::Info, &job.words())),
            Stage::Failed { why, hint, undone } => {
                let back = if *undone { "; it is as it was before" } else { "" };
                let words = format!("{} failed: {why} ({hint}){back}", job.order.words());
                Some(line(&Actor::Server, &dpu, "dpu.job.failed", Severity::Error, &words))
            }
            _ => None,
        }
    }

    /// A token that nobody came in with is worth nothing once its job failed.
    fn without_token(&self, job: &Job, row: &JobRow) -> Result<Option<Dpu>, EngineError> {
        if !matches!(job.stage, Stage::Failed { .. }) {
            return Ok(None);
        }
        let Some((token, _)) = self.open_handed(row)? else { return Ok(None) };
        let hash = secret::hash(&token);
        let known = self.known_dpu(job.dpu).filter(|known| known.dpu.token == Some(hash));
        Ok(known.map(|known| Dpu { token: None, version: known.dpu.version + 1, ..known.dpu }))
    }

    /// What was installed is kept for rollbacks, of the rest the newest.
    async fn forget_old_jobs(&self, dpu: DpuId) -> Result<(), EngineError> {
        let old: Vec<JobId> = {
            let jobs = lock(&self.0.dpus.jobs);
            let plain = |row: &&JobRow| {
                row.job.dpu == dpu && row.job.stage.is_over() && row.job.installed().is_none()
            };
            jobs.values().rev().filter(plain).skip(JOBS_MAX).map(|row| row.job.id).collect()
        };
        if old.is_empty() {
            return Ok(());
        }
        let ids = old.clone();
        self.store().write(move |db| rows::forget_jobs(db, &ids)).await?;
        let mut jobs = lock(&self.0.dpus.jobs);
        old.iter().for_each(|id| drop(jobs.remove(id)));
        Ok(())
    }

    /// The image that somebody with this ticket fetches, while its job wants that.
    ///
    /// # Errors
    /// Where what is handed over cannot be opened.
    pub fn dpu_image(&self, ticket: &str) -> Result<Option<DpuImage>, EngineError> {
        let open: Vec<JobRow> =
            lock(&self.0.dpus.jobs).values().filter(|row| row.secret.is_some()).cloned().collect();
        for row in open {
            let fetches =
                matches!(row.job.stage, Stage::Ask { .. } | Stage::Doubt { .. } | Stage::Task { .. });
            let (true, Some((token, known))) = (fetches, self.open_handed(&row)?) else { continue };
            if !secret::same(&secret::hash(&known), &secret::hash(ticket)) {
                continue;
            }
            let Some((image, _)) = row.job.order.image() else { continue };
            let Ok(path) = image.parse() else { continue };
            let server = self.settings().provisioning_urls().next().unwrap_or_default();
            let config = match row.job.order {
                Order::Install { agent: true, .. } => {
                    config(Some(&Handed { server: &server, token: &token }))
                }
                _ => String::new(),
            };
            return Ok(Some(DpuImage { dir: self.media_dir(), path, config }));
        }
        Ok(None)
    }

    /// Does what the stage asks for.
    async fn setup_news(&self, row: &JobRow) -> Result<Vec<News>, EngineError> {
        let job = &row.job;
        let id = job.dpu;
        Ok(vec![match &job.stage {
            Stage::Check | Stage::Doubt { .. } | Stage::Settle => self.look_at_card(id).await,
            Stage::Ask { .. } => self.ask_card(row).await?,
            Stage::Task { id: task, .. } => self.follow_setup(id, task).await,
            Stage::Restart => {
                let change = match job.order {
                    Order::Firmware { .. } => Change::ResetBmc,
                    _ => Change::Card(CardChange::Restart(true)),
                };
                self.change_by(id, change).await
            }
            Stage::Cycle => self.cycle_host(id).await,
            Stage::Arrive => return self.arrived(row).await,
            Stage::Undo { .. } => match job.way_back().and_then(|order| change_of(&order)) {
                Some(change) => self.change_by(id, change).await,
                None => News::Failed { why: "there is no way back".into(), hint: "ask for it anew".into() },
            },
            Stage::Done | Stage::Failed { .. } => News::Clock,
        }])
    }

    async fn look_at_card(&self, id: DpuId) -> News {
        let card = match self.read_card(id).await {
            Ok(card) => Box::new(card),
            Err(EngineError::Power(error)) => return later(&error),
            Err(error) => return News::Trouble(error.to_string()),
        };
        match self.0.power.read(worker(id), Read::Tasks).await {
            Ok(Reply::Tasks(tasks)) => News::Looked { card, tasks: tasks.to_vec() },
            Ok(other) => later(&PowerError::wrong_reply(&other)),
            Err(error) if error.kind() == Some(ErrorKind::Unsupported) => {
                News::Looked { card, tasks: Vec::new() }
            }
            Err(error) => later(&error),
        }
    }

    async fn ask_card(&self, row: &JobRow) -> Result<News, EngineError> {
        let (id, order) = (row.job.dpu, &row.job.order);
        if let Some((image, sha256)) = order.image()
            && let Err(error) = self.dpu_image_digest(image, Some(sha256)).await
        {
            let problem = error.problem();
            return Ok(News::Failed { why: problem.message, hint: problem.hint });
        }
        let change = match order {
            order if order.is_fetched() => {
                // A BMC that cannot be told so takes the boot stream by itself where it can (NVIDIA, BFB update by HTTP).
                match self.0.power.change(worker(id), Change::Card(CardChange::TakeBootStream)).await {
                    Err(error) if error.is_transient() => return Ok(News::Trouble(error.to_string())),
                    Err(error) => {
                        tracing::info!(dpu = %id, %error, "the BMC was not told to take the boot stream")
                    }
                    Ok(_) => {}
                }
                Change::Update(self.fetched(row)?)
            }
            Order::Firmware { image, .. } => {
                let name = image.rsplit('/').next().unwrap_or_default().to_owned();
                Change::Update(Update::Push { name, path: self.media_dir().join(image), targets: Vec::new() })
            }
            order => match change_of(order) {
                Some(change) => change,
                None => return Ok(News::Failed { why: "nothing is to be done".into(), hint: String::new() }),
            },
        };
        Ok(self.change_by(id, change).await)
    }

    fn fetched(&self, row: &JobRow) -> Result<Update, EngineError> {
        let (_, ticket) = self.open_handed(row)?.unwrap_or_default();
        let base = self.settings().provisioning_urls().next().unwrap_or_default();
        let digest = row.job.order.image().map(|(_, sha256)| sha256.to_string()).unwrap_or_default();
        let url = format!("{base}{DPU_IMAGE_PATH}/{ticket}/{digest}.bfb");
        let target = format!("/redfish/v1/UpdateService/FirmwareInventory/{OS_ITEM}");
        Ok(Update::Pull { url, targets: vec![target] })
    }

    async fn change_by(&self, id: DpuId, change: Change) -> News {
        match self.0.power.change(worker(id), change).await {
            Ok(Reply::Task(task)) if task.state == TaskState::Failed => {
                News::Failed { why: task.message.unwrap_or_default(), hint: "see the BMC's own words".into() }
            }
            Ok(Reply::Task(task)) => News::Taken { task: Some(task.id) },
            Ok(_) => News::Taken { task: None },
            // It was not sent, or the controller said "later": nothing was done.
            Err(error @ (PowerError::Waits { .. } | PowerError::Full)) => News::Trouble(error.to_string()),
            Err(error) if error.kind() == Some(ErrorKind::Busy) => News::Trouble(error.to_string()),
            Err(error) if error.is_transient() => News::Lost(error.to_string()),
            Err(error) => failed(&error),
        }
    }

    async fn follow_setup(&self, id: DpuId, task: &str) -> News {
        match self.0.power.read(worker(id), Read::Task(task.to_owned())).await {
            Ok(Reply::Task(task)) => match task.state {
                TaskState::Running => {
                    News::Progress { id: task.id, percent: task.percent, words: task.message }
                }
                TaskState::Completed => News::TaskDone,
                TaskState::Failed => {
                    News::TaskFailed(task.message.unwrap_or_else(|| "it does not say why".to_owned()))
                }
            },
            Ok(other) => later(&PowerError::wrong_reply(&other)),
            Err(error) => match error.kind() {
                Some(ErrorKind::Gone) => News::TaskGone,
                Some(ErrorKind::Refused) => News::TaskFailed(error.to_string()),
                _ => later(&error),
            },
        }
    }

    /// A host that is off, or that nobody can switch, is left to people.
    async fn cycle_host(&self, id: DpuId) -> News {
        let Some(node) = self.known_dpu(id).and_then(|known| known.dpu.node) else {
            return News::Taken { task: None };
        };
        match self.0.power.power_state(node).await {
            Ok(PowerState::On) => match self.0.power.change(node, Change::Power(PowerAction::Cycle)).await {
                Err(error) if error.is_transient() => News::Trouble(error.to_string()),
                _ => News::Taken { task: None },
            },
            Err(error) if error.is_transient() => News::Trouble(error.to_string()),
            _ => News::Taken { task: None },
        }
    }

    async fn arrived(&self, row: &JobRow) -> Result<Vec<News>, EngineError> {
        let Some((token, _)) = self.open_handed(row)? else { return Ok(vec![News::Arrived]) };
        let hash = secret::hash(&token);
        let waits = self.known_dpu(row.job.dpu).is_some_and(|known| known.dpu.token == Some(hash));
        if waits {
            return Ok(vec![News::Clock]);
        }
        // The version for the history; without it the DPU is there all the same.
        Ok(vec![self.look_at_card(row.job.dpu).await, News::Arrived])
    }
}

/// The change of a DPU that an order asks for; none for one that writes an image.
fn change_of(order: &Order) -> Option<Change> {
    Some(Change::Card(match order {
        Order::Mode { mode: Mode::Dpu, .. } => CardChange::Mode(CardMode::Dpu),
        Order::Mode { mode: Mode::Nic, .. } => CardChange::Mode(CardMode::Nic),
        Order::Privilege { privilege: Privilege::Privileged } => {
            CardChange::Privilege(HostPrivilege::Privileged)
        }
        Order::Privilege { privilege: Privilege::Restricted } => {
            CardChange::Privilege(HostPrivilege::Restricted)
        }
        Order::Reset { graceful } => CardChange::Restart(*graceful),
        Order::Install { .. } | Order::Firmware { .. } => return None,
    }))
}

fn failed(error: &PowerError) -> News {
    News::Failed { why: error.to_string(), hint: error.hint().to_owned() }
}

/// Most errors of a controller that may be starting pass. Another certificate does not, nor does an account that it refuses.
fn later(error: &PowerError) -> News {
    match error {
        PowerError::NoBmc => failed(error),
        _ if matches!(
            error.kind(),
            Some(ErrorKind::Certificate | ErrorKind::Login | ErrorKind::Unsupported)
        ) =>
        {
            failed(error)
        }
        _ => News::Trouble(error.to_string()),
    }
}

/// Jobs by id, which is the order in which they were begun.
pub(super) fn by_id(rows: Vec<JobRow>) -> BTreeMap<JobId, JobRow> {
    rows.into_iter().map(|row| (row.job.id, row)).collect()
}
