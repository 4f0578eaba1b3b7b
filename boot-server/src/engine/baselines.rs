//! Named baselines: kept in the store, compared with machines, and applied to them as servicing jobs.

use boot_server_core::node::{Node, Severity};
use boot_server_core::servicing::{Baseline, BaselineError, RestartPolicy, Standing};

use super::servicing::firmware_facts;
use super::{Actor, Engine, EngineError, now};
use crate::power::{PowerError, Read, Reply};
use crate::store::baselines;
use crate::view::BaselineDiff;

/// Baselines that are kept.
const BASELINES_MAX: usize = 1000;

impl From<BaselineError> for EngineError {
    fn from(error: BaselineError) -> Self {
        Self::BadService { what: error.what, hint: error.hint }
    }
}

impl Engine {
    /// All baselines, by name.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn baselines(&self) -> Result<Vec<Baseline>, EngineError> {
        Ok(self.0.store.read(baselines::baselines).await?)
    }

    /// The baseline of this name.
    ///
    /// # Errors
    /// [`EngineError::BaselineNotFound`], or what the store says.
    pub async fn baseline(&self, name: &str) -> Result<Baseline, EngineError> {
        let found = self.baselines().await?.into_iter().find(|b| b.name == name);
        found.ok_or_else(|| EngineError::BaselineNotFound(name.chars().take(80).collect()))
    }

    /// Keeps a baseline; `replace`: in place of the one of its name.
    ///
    /// # Errors
    /// Where it cannot be one, or its name is taken.
    pub async fn put_baseline(
        &self,
        actor: Actor,
        baseline: Baseline,
        replace: bool,
    ) -> Result<Baseline, EngineError> {
        let baseline = Baseline { changed: now(), ..baseline };
        baseline.check()?;
        let others = self.baselines().await?.iter().filter(|other| other.name != baseline.name).count();
        if others >= BASELINES_MAX {
            return Err(EngineError::Full("it has 1,000 baselines"));
        }
        let stored = baseline.clone();
        self.0.store.write(move |db| baselines::put(db, &stored, replace)).await?;
        let message = format!("baseline {} was {}", baseline.name, if replace { "replaced" } else { "made" });
        self.note(actor, None, "baseline.changed", Severity::Info, message).await?;
        Ok(baseline)
    }

    /// Removes a baseline.
    ///
    /// # Errors
    /// [`EngineError::BaselineNotFound`], or what the store says.
    pub async fn remove_baseline(&self, actor: Actor, name: &str) -> Result<(), EngineError> {
        let gone = name.to_owned();
        if !self.0.store.write(move |db| baselines::remove(db, &gone)).await? {
            return Err(EngineError::BaselineNotFound(name.chars().take(80).collect()));
        }
        self.note(actor, None, "baseline.removed", Severity::Info, format!("baseline {name} was removed"))
            .await
    }

    /// How a node stands against a baseline, read now.
    ///
    /// # Errors
    /// What the controller says.
    pub async fn compare(&self, node: &Node, name: &str) -> Result<BaselineDiff, EngineError> {
        let baseline = self.baseline(name).await?;
        let standing = self.standing(node, &baseline).await?;
        let differences = baseline.differences(&standing);
        let misfit = baseline.fits(&standing).err().map(|error| error.what);
        Ok(BaselineDiff {
            node: node.name.clone(),
            baseline: baseline.name,
            same: misfit.is_none() && differences.iter().all(|line| line.same),
            misfit,
            differences,
        })
    }

    /// Makes a node as a baseline says, by a servicing job.
    ///
    /// # Errors
    /// Where the baseline is not for it or cannot be carried out, nothing differs, or as [`Engine::service`].
    pub async fn apply_baseline(
        &self,
        node: &Node,
        actor: Actor,
        name: &str,
        (firmware, restart): (bool, RestartPolicy),
    ) -> Result<Node, EngineError> {
        let baseline = self.baseline(name).await?;
        let standing = self.standing(node, &baseline).await?;
        let plan = baseline.plan(&standing, firmware)?;
        if plan.steps.is_empty() {
            return Err(EngineError::BadService {
                what: format!("{} is as baseline {name} says: there is nothing to do", node.name),
                hint: "see `billet baseline diff`".to_owned(),
            });
        }
        self.service(node, actor, plan.steps, restart).await
    }

    /// What the baseline speaks of, read now.
    async fn standing(&self, node: &Node, baseline: &Baseline) -> Result<Standing, EngineError> {
        let mut standing = Standing::default();
        let wrong = |reply: &Reply| EngineError::from(PowerError::wrong_reply(reply));
        if baseline.manufacturer.is_some() || baseline.model.is_some() {
            match self.bmc_read(node.id, Read::Identity).await? {
                Reply::Identity(identity) => {
                    standing.manufacturer.clone_from(&identity.manufacturer);
                    standing.model.clone_from(&identity.model);
                }
                other => return Err(wrong(&other)),
            }
        }
        if !baseline.bios.is_empty() {
            match self.bmc_read(node.id, Read::Bios).await? {
                Reply::Bios(attributes) => standing.bios = Some(attributes.0.clone()),
                other => return Err(wrong(&other)),
            }
        }
        if baseline.secure_boot.is_some() {
            match self.bmc_read(node.id, Read::SecureBoot).await? {
                Reply::SecureBoot(found) => standing.secure_boot = Some(found.current),
                other => return Err(wrong(&other)),
            }
        }
        if !baseline.firmware.is_empty() {
            match self.bmc_read(node.id, Read::Firmware).await? {
                Reply::Firmware(items) => standing.firmware = Some(firmware_facts(&items)),
                other => return Err(wrong(&other)),
            }
        }
        Ok(standing)
    }
}
