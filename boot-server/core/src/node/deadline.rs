//! What happens when waiting takes too long: first the machine is sent round again, then a person is told.

use protocol::fault::{Fault, FaultCode};

use super::event::Effect;
use super::machine::{self, RESTARTS_MAX};
use super::state::{PowerStage, RunStage, State};
use super::step::Step;
use super::{care, service};

pub(super) fn tick(s: &mut Step<'_>) {
    care::tick(s);
    service::tick(s);
    let now = s.now();
    let Some(run) = s.node.state.run_mut() else { return };
    if now < run.deadline {
        return;
    }
    // It may have gone to its disk without asking us, and then nothing more is heard of it.
    let silent = (run.phone_home.is_none() || run.resumed)
        && (run.stage == RunStage::FirstBoot || (run.stage == RunStage::Restart && !run.boots_volume()));
    if silent && machine::runs(s, Vec::new(), "was written and verified; it does not phone home") {
        return;
    }
    let Some(run) = s.node.state.run_mut() else { return };
    match run.stage {
        RunStage::Volume => s.fail(timeout(
            "its disk or its networks were not ready in time",
            "look at the node's DPU (`billet dpu show`) and at its volume (`billet volume show`), then retry",
        )),
        RunStage::Cross => s.fail(timeout(
            "the OS was written and verified, but no switch put the machine on its networks in time",
            "look at the switches (`billet switch list`), then retry: what is on the disk is kept",
        )),
        RunStage::Boot => {
            let told = run.power.as_ref().filter(|power| power.stage == PowerStage::On);
            let message = match told {
                Some(power) => format!(
                    "the BMC {} says that the machine runs, but it did not boot from the network",
                    power.bmc
                ),
                None => "the machine did not boot from the network".to_owned(),
            };
            s.fail(timeout(&message, "check power, cable and boot order (network first), then retry"));
        }
        RunStage::Kernel if s.node.medium.is_some() => s.fail(timeout(
            "the machine was switched on with the boot image in its drive, but the agent never said hello",
            "look at its console: does it boot the image (UEFI mode, virtual media enabled), has the agent a driver for its NIC, and does its address reach this server? Then retry",
        )),
        RunStage::Kernel => s.fail(timeout(
            "the boot script was served, but the agent never said hello",
            "look at the machine's console; its NIC or firmware may need a driver that the ramdisk lacks; then retry",
        )),
        RunStage::Assign if s.node.lacks.is_some() => s.fail(timeout(
            "nobody approved its boot, nor did its TPM prove it, in time",
            "look at what its job needs (`billet node show`), then retry, and approve the boot",
        )),
        RunStage::Assign | RunStage::Agent(_) => {
            // The agent is gone without a restart of the machine: it needs one.
            run.restarts = run.restarts.saturating_add(1);
            let restarts = run.restarts;
            run.enter(RunStage::Boot, now);
            s.node.link.session = None;
            if restarts > RESTARTS_MAX {
                return s.fail(Fault::new(
                    FaultCode::Agent,
                    format!("the agent was lost {restarts} times during this job"),
                    "look at the machine's console, its network port and its power supply, then retry",
                ));
            }
            s.effects.push(Effect::PowerCycle);
            s.warn("agent.lost", "the agent stopped answering: the machine must be restarted");
        }
        RunStage::Restart => s.fail(timeout(
            "the OS was written and verified, but the machine did not restart",
            "restart it by hand: the OS is complete and the deploy ends when it phones home",
        )),
        RunStage::FirstBoot => s.fail(timeout(
            "the OS was written and verified, but it did not phone home",
            "look at its console: does it boot, and does it get an address on this network? The deploy ends when it phones home",
        )),
    }
}

fn timeout(message: &str, hint: &str) -> Fault {
    Fault::new(FaultCode::Timeout, message, hint)
}

/// Nobody could be heard while the server was down, so every clock starts anew.
pub(super) fn server_started(s: &mut Step<'_>) {
    care::server_started(s);
    let now = s.now();
    if let Some(run) = s.node.state.run_mut() {
        run.deadline = now.after(run.stage.patience());
    }
    if let State::Servicing(service) = &mut s.node.state {
        service.wait_anew(now);
    }
}
