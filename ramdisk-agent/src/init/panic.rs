//! When the agent breaks: say so on the console and to the server, wait so that somebody can read it, boot again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::fault::{Fault, FaultCode};

use crate::agent::Leave;
use crate::client::Client;
use crate::feed::Feed;

/// How long the console shows it.
const SHOW: Duration = Duration::from_secs(30);

/// What a panic has to know of the rest of the program.
#[derive(Default)]
pub struct Current {
    session: Mutex<Option<(String, String)>>,
    job: Mutex<Option<Arc<Feed>>>,
}

impl Current {
    /// The agent has a session with this server.
    pub fn set_session(&self, server: &str, session: &str) {
        let session = Some((server.to_owned(), session.to_owned()));
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// A job runs, or none.
    pub fn set_job(&self, feed: Option<Arc<Feed>>) {
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = feed;
    }
}

/// From now on a panic of any thread ends in a reboot.
pub fn install(current: Arc<Current>) {
    std::panic::set_hook(Box::new(move |info| {
        eprintln!("billet: THE AGENT BROKE: {info}");
        report(&current, &info.to_string());
        eprintln!("billet: booting again in {} s", SHOW.as_secs());
        std::thread::sleep(SHOW);
        super::leave(Leave::Reboot);
    }));
}

/// Best effort; locks are only tried, for the thread that broke may hold them.
fn report(current: &Current, what: &str) {
    let (Ok(session), Ok(job)) = (current.session.try_lock(), current.job.try_lock()) else { return };
    let (Some((server, session)), Some(feed)) = (session.as_ref(), job.as_ref()) else { return };
    feed.failed(Fault::new(
        FaultCode::Agent,
        format!("the agent broke: {what}"),
        "report the fault with this message; the machine boots again by itself",
    ));
    if let Some(batch) = feed.wait_batch(Duration::ZERO)
        && let Err(e) = Client::new(server).report(session, &batch)
    {
        eprintln!("billet: the report did not reach the server: {e}");
    }
}
