//! What comes of restarting a machine through its management controller. Only a job that still waits for its machine to boot
//! hears of it: a packet of the machine is better proof than anything that a controller says.

use protocol::JobId;
use protocol::fault::{Fault, FaultCode};

use super::event::PowerNews;
use super::state::{PowerStage, PowerStory, RunStage};
use super::step::Step;
use super::{machine, medium};

/// No agent runs on a machine that is off, so the next job has to boot it. A job on its way has its own deadline, and a
/// restart that somebody asked for looks like this for a moment.
pub(super) fn off(s: &mut Step<'_>) {
    if s.node.state.run().is_none() {
        s.drop_agent();
    }
}

/// An OS that phoned home before does not do so again.
fn resumed(s: &mut Step<'_>) {
    let Some(run) = s.node.state.run().filter(|run| run.stage == RunStage::FirstBoot) else { return };
    if run.resumed {
        machine::runs(s, Vec::new(), "was started from its volume");
    } else if run.crosses && run.phone_home.is_none() {
        machine::runs(s, Vec::new(), "was started; it does not phone home");
    }
}

pub(super) fn power(s: &mut Step<'_>, job: JobId, bmc: String, news: PowerNews) {
    let Some(run) = s.node.state.run_mut().filter(|r| r.job.id == job && r.waits_for_restart()) else {
        return;
    };
    let stage = match &news {
        PowerNews::Begun { .. } | PowerNews::Inserted | PowerNews::NoWay { .. } => PowerStage::Begun,
        PowerNews::On => PowerStage::On,
        PowerNews::Taken => PowerStage::Taken,
        PowerNews::NoEffect { wanted } => {
            PowerStage::Trouble(format!("it accepted to switch the machine {wanted}, and nothing happened"))
        }
        PowerNews::Trouble { what } => PowerStage::Trouble(what.clone()),
        PowerNews::Failed { .. } => PowerStage::Begun,
    };
    let first = run.power.as_ref().is_none_or(|power| power.stage != stage);
    run.power = Some(PowerStory { bmc: bmc.clone(), stage });
    match news {
        PowerNews::Begun { what } => {
            s.info("power.restart", format!("the BMC {bmc} restarts the machine: {what}"));
        }
        PowerNews::Inserted => {
            s.info("media.inserted", format!("the BMC {bmc} has the boot image in its drive (read back)"));
        }
        PowerNews::On => {
            s.info("power.on", format!("the BMC {bmc} has switched the machine on (read back)"));
            medium::started(s);
            resumed(s);
        }
        PowerNews::Taken => {
            s.info(
                "power.taken",
                format!("the BMC {bmc} was told to restart the machine; it cannot tell more"),
            );
            medium::started(s);
            resumed(s);
        }
        PowerNews::NoWay { what, hint } => s.fail(Fault::new(FaultCode::Power, what, hint)),
        PowerNews::NoEffect { wanted } if first => s.warn(
            "power.no_effect",
            format!(
                "the BMC {bmc} accepted to switch the machine {wanted}, and nothing happened: tried again"
            ),
        ),
        PowerNews::Trouble { what } if first => {
            s.warn("power.trouble", format!("the BMC {bmc}: {what}: tried again"));
        }
        PowerNews::NoEffect { .. } | PowerNews::Trouble { .. } => {}
        PowerNews::Failed { what, hint } => {
            s.fail(Fault::new(
                FaultCode::Power,
                format!("the BMC {bmc} did not restart the machine: {what}"),
                hint,
            ));
        }
    }
}
