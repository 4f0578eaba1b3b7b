//! Billet's own account on the machine's management controller, where the server wants one: asked for once in each boot,
//! after the inventory and before any work, because work may end in a restart.

use std::io;
use std::time::Duration;

use protocol::agent::{AccountOrder, AccountReport};
use protocol_http::Backoff;
use ramdisk_agent_core::bmc_account::{self, AccountError, Made, Wanted};

use crate::client::Client;
use crate::fetch::random;
use crate::inspect;
use crate::sys;

/// Longest wait for one answer of the controller: setting a password takes some of them seconds.
const ANSWER: Duration = Duration::from_secs(10);
/// Tries to tell the server what became of it. Without it the next boot asks again, for the same account.
const TELL_MAX: u32 = 5;

/// Asks the server, and does what it says. Nothing of this keeps the machine from its work.
pub fn offer(client: &Client, session: &str) {
    let wanted = match client.account_order(session) {
        Ok(Some(AccountOrder::Make { user, password, open_channel })) => {
            Wanted { user, password: password.0, open_channel }
        }
        Ok(Some(AccountOrder::None) | None) => return,
        Err(e) => {
            eprintln!("billet: asking for the account on the management controller: {e}");
            return;
        }
    };
    let report = match make(&wanted) {
        Ok(Made { slot, channel, address }) => {
            eprintln!(
                "billet: account {} on the management controller (user {slot}, channel {channel})",
                wanted.user
            );
            AccountReport::Made { slot, channel, address }
        }
        Err(e) => {
            eprintln!("billet: no account on the management controller: {e}");
            AccountReport::Failed { why: e.to_string() }
        }
    };
    tell(client, session, &report);
}

fn make(wanted: &Wanted) -> Result<Made, AccountError<io::Error>> {
    let device = inspect::bmc::device().map_err(AccountError::Link)?;
    bmc_account::make(wanted, &mut |netfn, command, data| sys::ipmi(&device, netfn, command, data, ANSWER))
}

fn tell(client: &Client, session: &str, report: &AccountReport) {
    let mut backoff = Backoff::default();
    for _ in 0..TELL_MAX {
        match client.account_report(session, report) {
            Ok(()) => return,
            Err(e) if e.is_unknown_session() => return,
            Err(e) => eprintln!("billet: the account on the management controller: {e}"),
        }
        std::thread::sleep(backoff.wait(random()));
    }
}
