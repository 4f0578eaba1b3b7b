//! What somebody orders a machine to boot, and how such a boot goes.
//!
//! ```text
//! ordered ──script asked for──▶ served{ticket} ──all is loaded──▶ begun ──an installer phones home──▶ active
//!    ▲                              │ asks again: a fresh ticket    │ once: used up, the next boot is the usual
//!    └──────────────────────────────┘                               └ always: stays
//! ```
//!
//! One for the agent or the disk begins with its first script, and answers the same for a while: firmware and loaders ask
//! more than once in one boot.

use protocol::Sha256;

use super::boot::{Boot, BootOrder, Repeat, pending_order, takes_orders};
use super::event::{Effect, Refused};
use super::state::{State, StateName};
use super::step::Step;
use super::trust::Level;
use crate::ipxe::INITRDS_MAX;

/// Somebody orders a boot. It changes nothing on the machine by itself, so maintenance does not forbid it.
pub(super) fn order(s: &mut Step<'_>, boot: Boot, repeat: Repeat) -> Result<(), Refused> {
    if !takes_orders(&s.node.state) {
        return Err(s.wrong_state(
            "order a boot of",
            "only a manageable, available or active node takes such an order; abort the job, or manage it, first",
        ));
    }
    if boot.profile().is_some() && s.context.policy.identity.user_data > Level::T1 {
        return Err(Refused::Order {
            why: "an installer's profile goes to whoever boots with this machine's address (T1), and the site gives user data to no less than `identity.user_data`",
            hint: "deploy an image instead, or lower identity.user_data for its pool",
        });
    }
    if let Some(refused) = cannot_be(&boot, repeat) {
        return Err(refused);
    }
    let often = if repeat == Repeat::Always { "at every network boot" } else { "at its next network boot" };
    s.info("boot.ordered", format!("boots {} {often}", boot.words()));
    let leaves_agent = boot != Boot::Agent && s.node.link.session.is_some();
    let asked = s.now();
    s.node.boot = Some(BootOrder { boot, repeat, asked, ticket: None, begun: None });
    if leaves_agent {
        // An agent that waits for work restarts the machine.
        s.effects.push(Effect::WakeAgent);
    }
    Ok(())
}

fn cannot_be(boot: &Boot, repeat: Repeat) -> Option<Refused> {
    let refuse = |why, hint| Some(Refused::Order { why, hint });
    match boot {
        Boot::Kernel(kernel) if kernel.initrds.len() > INITRDS_MAX => {
            refuse("a kernel takes at most 8 initial RAM disks", "put them into one file")
        }
        Boot::Kernel(kernel) if kernel.profile.is_some() && repeat == Repeat::Always => {
            refuse("an installer at every boot would install for ever", "order it once")
        }
        Boot::Iscsi(iscsi) if iscsi.chap.as_ref().is_some_and(|chap| chap.password.is_none()) => {
            refuse("CHAP needs a secret beside the name", "give chap.password")
        }
        _ => None,
    }
}

/// The order is taken back, also one that began: what runs goes on, but phones home to nobody.
pub(super) fn clear(s: &mut Step<'_>) -> Result<(), Refused> {
    match s.node.boot.take() {
        Some(order) if order.installs() => {
            s.info("boot.cleared", format!("{} is not waited for any more", order.boot.words()));
            Ok(())
        }
        Some(order) => {
            s.info("boot.cleared", format!("does not boot {} any more", order.boot.words()));
            Ok(())
        }
        None => Err(Refused::Order { why: "no boot is ordered", hint: "its next boot is the usual one" }),
    }
}

/// Work begins: whatever was ordered before must not come back after it.
pub(super) fn end(s: &mut Step<'_>) {
    if let Some(order) = s.node.boot.take()
        && order.pending()
    {
        s.info(
            "boot.cleared",
            format!("work on it begins: it does not boot {} any more", order.boot.words()),
        );
    }
}

/// A script is given out. One for the agent or the disk needs nothing more than the script; the others say when they
/// begin.
pub(super) fn served(s: &mut Step<'_>, boot: &Boot, ticket: Sha256) {
    let at = s.now();
    let pending = pending_order(&s.node).is_some();
    let Some(order) = &mut s.node.boot else { return };
    // Whatever the machine ran of this order before, it does not run it any more.
    let first = order.ticket.take().is_none();
    if !pending || order.boot != *boot {
        return;
    }
    let words = boot.words();
    match boot {
        Boot::Agent | Boot::LocalDisk => {
            order.begun = Some(at);
            s.info("boot.begun", format!("boots {words} as ordered"));
        }
        Boot::Kernel(_) | Boot::Iso(_) | Boot::Iscsi(_) => {
            order.ticket = Some(ticket);
            if first {
                s.info("boot.served", format!("was told to boot {words}"));
            }
        }
    }
}

/// The machine has loaded everything and is about to start it.
pub(super) fn begun(s: &mut Step<'_>, ticket: Sha256) -> Result<(), Refused> {
    let at = s.now();
    let order =
        s.node.boot.as_mut().filter(|order| order.ticket == Some(ticket)).ok_or(Refused::StaleBoot)?;
    if order.begun.is_some() && order.repeat == Repeat::Once {
        // Its answer was lost and the loader asks again.
        return Ok(());
    }
    order.begun = Some(at);
    if let (Boot::Iscsi(iscsi), Repeat::Once) = (&mut order.boot, order.repeat) {
        iscsi.chap.iter_mut().for_each(|chap| chap.password = None);
    }
    let words = order.boot.words();
    s.info("boot.begun", format!("boots {words}"));
    Ok(())
}

/// True where an installer that this node was ordered to boot phones home with this token.
pub(super) fn is_installer(s: &Step<'_>, token: Sha256) -> bool {
    s.node.boot.as_ref().is_some_and(|order| {
        order.ticket == Some(token) && order.begun.is_some() && order.boot.profile().is_some()
    })
}

/// An installer is done: what it installed is what the machine boots from now on.
pub(super) fn installed(s: &mut Step<'_>) {
    s.info("boot.finished", "the installer is done and phoned home: it boots its disk from now on");
    s.node.boot = None;
    if s.is(&[StateName::Manageable, StateName::Available, StateName::Active]) {
        // Billet did not write this OS, so it does not know what it is.
        s.node.installed = None;
        s.node.state = State::Active;
    }
}
