//! A replica of chosen tables that is kept over any number of connections.
//!
//! ```text
//!   connect ─▶ schema ─▶ lock ─▶ monitor ─▶ online: updates in order, a sign of life asked for now and then
//!      ▲                                       │ cut, silence, an update that cannot be taken
//!      └────────────── pause, longer each time ◀┘
//! ```
//!
//! Offline, the replica is what it was; `monitor_cond_since` then brings what changed meanwhile, `monitor` all of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jsonrpc::{Address, CallError};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::{Client, Error, Heard, Version};
use crate::operation::{Operation, Outcome};
use crate::replica::{Replica, Update};
use crate::schema::{Schema, Wanted};

/// First pause after a connection was lost.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_LAST: Duration = Duration::from_secs(8);

/// What to follow, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server.
    pub address: Address,
    /// The database, such as `OVN_Northbound`.
    pub database: String,
    /// Tables and columns of the replica.
    pub wanted: Wanted,
    /// What is used where the server has it; else [`Version::Plain`].
    pub version: Version,
    /// A lock without which nothing is changed: several clients with one name of a lock take turns.
    pub lock: Option<String>,
    /// After so long a sign of life is asked for, and awaited for as long again.
    pub probe: Duration,
}

/// Follows until it is dropped.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    _run: DropGuard,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    state: Mutex<State>,
    /// Counts changes of the state.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    replica: Replica,
    /// The last transaction in the replica, where the server counts them.
    last: Option<String>,
    link: Link,
    /// What the server last said of the lock on this connection.
    locked: Option<bool>,
}

#[derive(Debug)]
enum Link {
    Offline(String),
    /// Updates that came before the first answer to the monitor was taken.
    Begins(Vec<(Update, Option<String>, serde_json::Value)>),
    Online(Client, Arc<Schema>),
}

impl Follower {
    /// Begins, in a task of its own (so within a tokio runtime).
    pub fn start(settings: Settings) -> Self {
        let link = Link::Offline("no connection was tried yet".to_owned());
        let state = State { replica: Replica::default(), last: None, link, locked: None };
        let shared = Arc::new(Shared { settings, state: Mutex::new(state), changes: watch::Sender::new(0) });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(run(shared.clone())));
        Self { shared, _run: stop.drop_guard() }
    }

    /// Looks at the replica. `look` must not wait: updates wait for it.
    ///
    /// # Errors
    /// [`Error::Offline`] where there is no connection: the rows may be old.
    pub fn read<T>(&self, look: impl FnOnce(&Replica) -> T) -> Result<T, Error> {
        let state = self.shared.state();
        self.shared.client(&state)?;
        Ok(look(&state.replica))
    }

    /// True where the lock of the settings is this client's.
    pub fn holds_lock(&self) -> bool {
        self.shared.state().locked == Some(true)
    }

    /// Waits until `is_so` says so of the replica, looking again at each change.
    pub async fn wait_for(&self, mut is_so: impl FnMut(&Replica) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        while !self.read(&mut is_so).unwrap_or(false) {
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    /// Does all operations, or none. When this returns, the replica holds what they changed. With a lock in the settings
    /// nothing is done by a client that does not have it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn transact(&self, mut operations: Vec<Operation>) -> Result<Vec<Outcome>, Error> {
        let client = self.shared.client(&self.shared.state())?;
        operations.extend(self.shared.settings.lock.clone().map(Operation::Assert));
        client.transact(&self.shared.settings.database, &operations).await
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self, state: &State) -> Result<Client, Error> {
        let why = match &state.link {
            Link::Online(client, _) => return Ok(client.clone()),
            Link::Begins(_) => "the rows are being read",
            Link::Offline(why) => why,
        };
        Err(Error::Offline { address: self.settings.address.clone(), why: why.to_owned() })
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    /// Takes what the server said; false where the connection is of no use any more.
    fn handle(&self, heard: Heard) -> bool {
        let mut state = self.state();
        match heard {
            Heard::Lock { lock, held } if self.settings.lock.as_ref() == Some(&lock) => {
                state.locked = Some(held)
            }
            Heard::Lock { .. } => {}
            Heard::Update { form, last, updates } => match &mut state.link {
                Link::Begins(early) => early.push((form, last, updates)),
                Link::Online(_, schema) => {
                    let schema = schema.clone();
                    if let Err(e) = state.take(&schema, form, last, &updates) {
                        tracing::warn!(error = %e, "an update of the database cannot be taken; its rows are read anew");
                        return false;
                    }
                }
                Link::Offline(_) => {}
            },
        }
        drop(state);
        self.changed();
        true
    }
}

impl State {
    fn take(
        &mut self,
        schema: &Schema,
        form: Update,
        last: Option<String>,
        updates: &serde_json::Value,
    ) -> Result<(), Error> {
        if let Err(e) = self.replica.apply(schema, form, updates) {
            // Whatever was taken of it: the next connection reads everything.
            self.last = None;
            return Err(e.into());
        }
        self.last = last;
        Ok(())
    }
}

async fn run(shared: Arc<Shared>) {
    let mut pause = PAUSE_FIRST;
    loop {
        let Err(why) = session(&shared, &mut pause).await;
        tracing::warn!(address = %shared.settings.address, error = %why, "the connection to the database is lost");
        {
            let mut state = shared.state();
            state.link = Link::Offline(words(&why));
            state.locked = None;
        }
        shared.changed();
        // Between half and all of it, so that many clients do not come back at once.
        let share = getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX));
        tokio::time::sleep(pause.mul_f64(0.5 + share / 2.0)).await;
        pause = (pause * 2).min(PAUSE_LAST);
    }
}

/// An error with its causes.
fn words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// One connection, to its end.
async fn session(shared: &Arc<Shared>, pause: &mut Duration) -> Result<std::convert::Infallible, Error> {
    let settings = &shared.settings;
    let useless = CancellationToken::new();
    shared.state().link = Link::Begins(Vec::new());
    let heard = {
        // Weak: the connection lives in `shared`, and this in the connection.
        let (shared, useless) = (Arc::downgrade(shared), useless.clone());
        move |heard| {
            let taken = shared.upgrade().is_some_and(|shared| useless.is_cancelled() || shared.handle(heard));
            if !taken {
                useless.cancel();
            }
        }
    };
    let client = Client::listening(&settings.address, heard).await?;
    let schema = Arc::new(client.get_schema(&settings.database).await?);
    schema.check(&settings.wanted)?;
    if let Some(lock) = &settings.lock {
        let granted = client.lock(lock).await?;
        // Where it was stolen or passed on since, that was said by itself and is newer.
        shared.state().locked.get_or_insert(granted);
    }
    begin(shared, &client, schema).await?;
    *pause = PAUSE_FIRST;
    loop {
        tokio::select! {
            why = client.closed() => return Err(why.into()),
            () = useless.cancelled() => return Err(jsonrpc::Closed::End.into()),
            () = tokio::time::sleep(settings.probe) => client.echo(settings.probe).await?,
        }
    }
}

/// Reads the rows, or what changed of them, and then what came meanwhile.
async fn begin(shared: &Shared, client: &Client, schema: Arc<Schema>) -> Result<(), Error> {
    let Settings { database, wanted, version, .. } = &shared.settings;
    let after = shared.state().last.clone();
    let first = match client.monitor(database, wanted, *version, after.as_deref()).await {
        Err(Error::Call(CallError::Refused { .. })) if *version == Version::Since => {
            client.monitor(database, wanted, Version::Plain, None).await?
        }
        first => first?,
    };
    {
        let mut state = shared.state();
        if !first.goes_on {
            state.replica = Replica::default();
        }
        let form = if first.last.is_some() { Update::Difference } else { Update::Whole };
        state.take(&schema, form, first.last, &first.updates)?;
        let online = Link::Online(client.clone(), schema.clone());
        if let Link::Begins(early) = std::mem::replace(&mut state.link, online) {
            for (form, last, updates) in early {
                state.take(&schema, form, last, &updates)?;
            }
        }
    }
    shared.changed();
    Ok(())
}
