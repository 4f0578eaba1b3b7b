//! Accounts of Billet's own on management controllers, made in-band by the agent where the site wants it.
//!
//! ```text
//! agent asks ─▶ password made, sealed, stored ─▶ agent makes the account ─▶ it says where ─▶ login from here ─▶ controller registered
//! ```
//!
//! A crash anywhere in between loses nothing: the password is stored before the agent hears of it, the same one is given
//! again, and what was made and not registered is registered at the next start.

use std::time::Duration;

use bmc::redfish::{Transport, probe};
use bmc::{Credentials, DriverKind, ErrorKind, PowerState};
use boot_server_core::node::Severity;
use protocol::NodeId;
use protocol::agent::{AccountOrder, AccountReport, Password};

use super::bmcs::random_password;
use super::{Actor, BmcChange, Engine, EngineError, lock, now};
use crate::power::{PowerError, Target};
use crate::store::bmc_accounts::{self, AccountRow};
use crate::vault::Place;

/// How long a controller may take to show that it speaks Redfish.
const PROBE: Duration = Duration::from_secs(5);
/// Pauses before a login by IPMI where the controller does not answer: some restart their LAN side for a new account.
const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(5), Duration::from_secs(15)];

fn place(node: NodeId) -> Place {
    Place { row: node.0, column: "bmc_accounts.password" }
}

impl Engine {
    /// What the agent with this session is to do about an account on its controller.
    ///
    /// # Errors
    /// [`EngineError::NoSession`], or what the store or the vault says.
    pub async fn account_order(&self, token: &str) -> Result<AccountOrder, EngineError> {
        let node = self.session(token)?;
        let Some(wanted) = &self.0.settings.bmc.account else { return Ok(AccountOrder::None) };
        if !node.may_have_account(self.settings().policy_of(&node).identity) {
            tracing::info!(node = %node.name, "no account on its controller: its agent has not proven enough");
            return Ok(AccountOrder::None);
        }
        let node = node.id;
        let address = self.inventory(node).await?.and_then(|i| i.bmc.as_ref()?.address);
        let _turn = self.0.bmc_turn.lock().await;
        // Whoever has a controller here has an account there; one without an address can be reached by nobody.
        if lock(&self.0.bmcs).contains_key(&node) || !address.is_some_and(|a| wanted.is_for(a)) {
            return Ok(AccountOrder::None);
        }
        let known = self.0.store.read(move |db| bmc_accounts::account(db, node)).await?;
        let password = match known.filter(|row| row.user == wanted.user) {
            Some(row) => self.0.vault.unseal(place(node), &row.password)?,
            None => {
                let password = random_password()?;
                let row = AccountRow {
                    node,
                    user: wanted.user.clone(),
                    password: self.0.vault.seal(place(node), &password)?,
                    address: None,
                    ordered: now(),
                };
                self.0.store.write(move |db| bmc_accounts::put(db, &row)).await?;
                password
            }
        };
        Ok(AccountOrder::Make {
            user: wanted.user.clone(),
            password: Password(password.0),
            open_channel: wanted.opens_lan,
        })
    }

    /// The agent says what became of it. An account that was made is tried and registered, behind this call.
    ///
    /// # Errors
    /// [`EngineError::NoSession`], [`EngineError::BadBmc`] where none was ordered, or what the store says.
    pub async fn account_report(&self, token: &str, report: AccountReport) -> Result<(), EngineError> {
        let node = self.session(token)?.id;
        let (slot, address) = match report {
            AccountReport::Made { slot, address, .. } => (slot, address),
            AccountReport::Failed { why } => {
                let message = format!("no account was made on the BMC: {why}");
                return self
                    .note(Actor::Agent, Some(node), "bmc.account_failed", Severity::Warning, message)
                    .await;
            }
        };
        let address = match address {
            Some(address) => Some(address),
            None => self.inventory(node).await?.and_then(|i| i.bmc.as_ref()?.address),
        };
        let known = self.0.store.read(move |db| bmc_accounts::account(db, node)).await?;
        let (Some(row), Some(address)) = (known, address) else {
            return Err(EngineError::BadBmc {
                what: "no account was ordered for this BMC, or it has no address".to_owned(),
                hint: "boot the machine's agent again",
            });
        };
        let row = AccountRow { address: Some(address.to_string()), ..row };
        tracing::info!(%node, slot, %address, "an account was made on a BMC");
        self.0.store.write(move |db| bmc_accounts::put(db, &row)).await?;
        let engine = self.clone();
        tokio::spawn(async move { engine.settle_account(node).await });
        Ok(())
    }

    /// Goes on with accounts that were made and not registered when the server stopped.
    pub(super) async fn settle_accounts(&self) {
        match self.0.store.read(bmc_accounts::accounts).await {
            Ok(rows) => {
                for row in rows.into_iter().filter(|row| row.address.is_some()) {
                    let engine = self.clone();
                    tokio::spawn(async move { engine.settle_account(row.node).await });
                }
            }
            Err(error) => tracing::error!(%error, "accounts of BMCs cannot be read"),
        }
    }

    async fn settle_account(&self, node: NodeId) {
        // The agent repeats a report whose answer was lost.
        if !lock(&self.0.accounts).insert(node) {
            return;
        }
        if let Err(error) = self.register_account(node).await {
            tracing::error!(%node, %error, "a BMC was not registered with the account that was made");
        }
        lock(&self.0.accounts).remove(&node);
    }

    async fn register_account(&self, node: NodeId) -> Result<(), EngineError> {
        let Some(row) = self.0.store.read(move |db| bmc_accounts::account(db, node)).await? else {
            return Ok(());
        };
        let Some(address) = row.address else { return Ok(()) };
        // A person was faster: that account counts.
        if !lock(&self.0.bmcs).contains_key(&node) {
            let password = self.0.vault.unseal(place(node), &row.password)?;
            let account = Credentials { user: row.user.clone(), password: password.clone() };
            let (driver, login) = self.first_login(node, &address, &account).await;
            let change = BmcChange {
                driver: Some(driver),
                address: Some(address.clone()),
                user: Some(row.user.clone()),
                password: Some(password),
                ..BmcChange::default()
            };
            self.set_bmc(node, Actor::Server, change).await?;
            let user = row.user;
            let (severity, message) = match login {
                Ok(power) => (
                    Severity::Info,
                    format!(
                        "account {user} was made on the BMC {address} in-band, and a login by {driver} works (power {})",
                        format!("{power:?}").to_lowercase()
                    ),
                ),
                Err(error) => (
                    Severity::Warning,
                    format!(
                        "account {user} was made on the BMC {address} in-band, but a login by {driver} fails: {error}"
                    ),
                ),
            };
            self.note(Actor::Server, Some(node), "bmc.account_made", severity, message).await?;
        }
        Ok(self.0.store.write(move |db| bmc_accounts::remove(db, node)).await?)
    }

    /// Which driver the account works with: Redfish where the controller has it and takes the account, else IPMI. Not more
    /// than two logins are refused by this, which locks nobody out.
    async fn first_login(
        &self,
        node: NodeId,
        address: &str,
        account: &Credentials,
    ) -> (DriverKind, Result<PowerState, PowerError>) {
        let target =
            |driver| Target { credentials: Some(account.clone()), ..Target::new(node, driver, address) };
        let speaks = tokio::time::timeout(PROBE, probe(address, Transport::Tls)).await;
        if matches!(speaks, Ok(Ok(_)))
            && let Ok(power) = self.0.power.log_in(&target(DriverKind::Redfish)).await
        {
            return (DriverKind::Redfish, Ok(power));
        }
        let mut login = Err(PowerError::NoBmc);
        for pause in PAUSES {
            tokio::time::sleep(pause).await;
            login = self.0.power.log_in(&target(DriverKind::Ipmi)).await.map_err(PowerError::from);
            if !matches!(&login, Err(error) if error.kind() != Some(ErrorKind::Login) && error.is_transient())
            {
                break;
            }
        }
        (DriverKind::Ipmi, login)
    }
}
