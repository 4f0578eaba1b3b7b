//! Which functions of a DPU's plan the disks and the ports of its host take.
//!
//! ```text
//!  plan, as far as it is in force ─▶ functions that no volume has ─▶ one for each volume, until its DPU has let go of it
//!  NICs that the DPU told of, as far as the plan has them ─────────▶ one for each port (`network::seats`)
//! ```
//!
//! What takes a function keeps it: a plan that does not have it any more is refused ([`vanishing`]).

use protocol::dpu::{Function, InterfaceName};
use protocol::functions::{DisksBy, FunctionPlan, FunctionsSeen, Model, Representor};
use protocol::{DpuId, MacAddr, VolumeId};
use serde::{Deserialize, Serialize};

use crate::volume::Volume;

/// The function that a volume is, and who serves it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskFunction {
    /// Who serves it.
    pub by: DisksBy,
    /// Which function.
    #[serde(default)]
    pub function: Function,
}

/// What a host does with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// It boots from it.
    Boot,
    /// Anything else.
    Data,
}

/// What volumes get of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allotted {
    /// Those that wait for their DPU; none where no function is left.
    pub waiting: Vec<(VolumeId, Option<Function>)>,
    /// Functions are left for all that are to come beside them.
    pub fits: bool,
}

/// Functions of a DPU for volumes that wait for it, in this order, and for some that are to come beside them. `volumes` are those that it
/// has, and those of its host's server. A disk to boot from takes the place of the one before, which goes first.
pub fn allot(plan: &FunctionPlan, dpu: DpuId, volumes: &[Volume], to_come: &[Disk]) -> Allotted {
    let (has, others): (Vec<&Volume>, Vec<&Volume>) =
        volumes.iter().filter(|volume| volume.attachment.is_some()).partition(|v| v.holder() == Some(dpu));
    let boots = has.iter().any(|volume| volume.disk() == Disk::Boot);
    let counts = |disk: Disk| disk == Disk::Data || !boots;
    let waiting: Vec<&Volume> =
        others.into_iter().filter(|volume| volume.holder().is_none() && counts(volume.disk())).collect();
    let to_come = to_come.iter().copied().filter(|disk| counts(*disk));
    let taken: Vec<Function> = has.iter().map(|volume| volume.function().function).collect();
    let wanted: Vec<Disk> = waiting.iter().map(|volume| volume.disk()).chain(to_come).collect();
    let mut found = assign(plan, &taken, &wanted);
    let fits = found.split_off(waiting.len()).iter().all(Option::is_some);
    Allotted { waiting: waiting.iter().map(|volume| volume.id).zip(found).collect(), fits }
}

/// Functions for disks that have none yet, beside those that are `taken`; `None` where none is left. Disks to boot from come first: fewer
/// functions are good for them.
pub fn assign(plan: &FunctionPlan, taken: &[Function], wanted: &[Disk]) -> Vec<Option<Function>> {
    let mut taken = taken.to_vec();
    let mut found = vec![None; wanted.len()];
    for disk in [Disk::Boot, Disk::Data] {
        for (found, _) in found.iter_mut().zip(wanted).filter(|(_, wanted)| **wanted == disk) {
            *found = free(plan, &taken, disk);
            taken.extend(*found);
        }
    }
    found
}

/// A disk to boot from is a physical function, which is there before anything is plugged in, or a plugged-in one; a virtual one is made by
/// an OS that runs. Another disk is a plugged-in function where one is left: only that can be taken from a host that runs. A virtual
/// function comes last, as its host must have enabled it by the physical one.
fn free(plan: &FunctionPlan, taken: &[Function], disk: Disk) -> Option<Function> {
    let plugged = taken.iter().filter(|function| **function == Function::Hotplug).count();
    let hotplug = (plugged < usize::from(plan.hotplug)).then_some(Function::Hotplug);
    if plan.disks == DisksBy::Qsd {
        // What vhost-user serves is plugged in.
        return hotplug;
    }
    let is_free = |function: &Function| !taken.contains(function);
    let physical = (0..plan.blk.pfs).map(|pf| Function::Pf { pf }).find(is_free);
    let mut all = (0..plan.blk.pfs).flat_map(|pf| (0..plan.blk.vfs).map(move |vf| Function::Vf { pf, vf }));
    match disk {
        Disk::Boot => physical.or(hotplug),
        Disk::Data => hotplug.or(physical).or_else(|| all.find(is_free)),
    }
}

/// How many disks a plan has functions for.
pub fn disks(plan: &FunctionPlan) -> u32 {
    let own = match plan.disks {
        DisksBy::Qsd => 0,
        DisksBy::Snap => u32::from(plan.blk.pfs) * (1 + u32::from(plan.blk.vfs)),
    };
    own + u32::from(plan.hotplug)
}

/// Of the NICs that a DPU told of, those that its plan has: physical ones before virtual ones. Without a plan it is as it was told.
pub fn planned(
    mut told: Vec<(InterfaceName, MacAddr)>,
    plan: Option<&FunctionPlan>,
) -> Vec<(InterfaceName, MacAddr)> {
    let Some(plan) = plan else { return told };
    let virtual_one = |interface: &InterfaceName| match Representor::named(interface.as_str()) {
        Some(Representor::Virtual { pf, vf }) => Some((pf, vf)),
        // Those that were named by hand are there as long as somebody names them.
        Some(Representor::Physical { .. }) | None => None,
    };
    told.retain(|(interface, _)| virtual_one(interface).is_none_or(|(_, vf)| vf < plan.vfs));
    told.sort_by_key(|(interface, _)| virtual_one(interface));
    told
}

/// What is in use and would be gone with another plan, in words.
pub fn vanishing(
    after: &FunctionPlan,
    volumes: &[(String, Function)],
    ports: &[(String, InterfaceName)],
) -> Vec<String> {
    let stays = |function: &Function| match *function {
        Function::Hotplug => true,
        Function::Pf { pf } => pf < after.blk.pfs,
        Function::Vf { pf, vf } => pf < after.blk.pfs && vf < after.blk.vfs,
    };
    let gone = volumes.iter().filter(|(_, function)| !stays(function));
    let mut lost: Vec<String> = gone.map(|(name, function)| format!("volume {name} is {function}")).collect();
    let plugged = volumes.iter().filter(|(_, function)| *function == Function::Hotplug).count();
    if plugged > usize::from(after.hotplug) {
        lost.push(format!("{plugged} volumes are plugged-in functions, and {} are planned", after.hotplug));
    }
    for (name, interface) in ports {
        if let Some(Representor::Virtual { vf, .. }) = Representor::named(interface.as_str())
            && vf >= after.vfs
        {
            lost.push(format!("port {name} is {interface}, virtual function {vf}"));
        }
    }
    lost
}

/// Whether a plan is in force, by what the DPU says of its firmware; `None` where it could not look.
pub fn in_force(plan: &FunctionPlan, seen: Option<&FunctionsSeen>) -> Option<bool> {
    let seen = seen?;
    match plan.model {
        // It has no firmware to set.
        Model::Generic => Some(true),
        // A BlueField has settings, whatever is planned.
        Model::BlueField2 | Model::BlueField3 if seen.settings.is_empty() => None,
        Model::BlueField2 | Model::BlueField3 => {
            Some(seen.settings.iter().all(|setting| setting.current == Some(setting.wanted)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::ServerId;
    use protocol::functions::{SettingSeen, Virtio};
    use uuid::Uuid;

    use super::*;
    use crate::volume::{Attachment, Phase};

    fn plan(pfs: u16, vfs: u16, hotplug: u16) -> FunctionPlan {
        FunctionPlan {
            blk: Virtio { pfs, vfs },
            hotplug,
            disks: DisksBy::Snap,
            ..FunctionPlan::new(Model::BlueField3)
        }
    }

    const PF0: Function = Function::Pf { pf: 0 };

    #[test]
    fn a_disk_gets_what_is_good_for_it() {
        let both = [Disk::Data, Disk::Boot];
        assert_eq!(assign(&plan(1, 1, 1), &[], &both), [Some(Function::Hotplug), Some(PF0)]);
        assert_eq!(assign(&plan(1, 0, 0), &[], &both), [None, Some(PF0)], "it boots first");
        let three = [Disk::Data; 3];
        let last = Function::Vf { pf: 0, vf: 0 };
        assert_eq!(assign(&plan(1, 1, 1), &[], &three), [Some(Function::Hotplug), Some(PF0), Some(last)]);
        assert_eq!(assign(&plan(1, 1, 0), &[PF0], &[Disk::Boot]), [None], "no OS boots from a virtual one");
        let qsd = FunctionPlan { disks: DisksBy::Qsd, ..plan(1, 1, 1) };
        assert_eq!(assign(&qsd, &[], &both), [None, Some(Function::Hotplug)]);
        assert_eq!((disks(&qsd), disks(&plan(2, 3, 4))), (1, 12));
    }

    /// A volume of server 9 with DPU `dpu`, as `function`.
    fn volume(id: u128, disk: Disk, dpu: Option<u128>, function: Function) -> Volume {
        let at = Attachment {
            dpu: dpu.map(|dpu| DpuId(Uuid::from_u128(dpu))),
            function: dpu.map(|_| DiskFunction { by: DisksBy::Snap, function }),
            ..Attachment::wanted(ServerId(Uuid::from_u128(9)), disk == Disk::Boot)
        };
        let id = VolumeId(Uuid::from_u128(id));
        Volume { id, attachment: Some(at), ..crate::volume::tests::volume(Phase::Available, None) }
    }

    #[test]
    fn volumes_that_wait_are_counted_before_those_to_come() {
        let (dpu, some) = (DpuId(Uuid::from_u128(1)), Function::Hotplug);
        let waits = [volume(5, Disk::Data, None, some), volume(6, Disk::Boot, None, some)];
        let found = allot(&plan(1, 0, 1), dpu, &waits, &[]);
        let ids: Vec<_> = waits.iter().map(|volume| volume.id).collect();
        assert_eq!(found.waiting, [(ids[0], Some(some)), (ids[1], Some(PF0))]);
        assert!(found.fits && !allot(&plan(1, 0, 1), dpu, &waits, &[Disk::Data]).fits);
        // Installed anew: the one before goes first, and a data volume does not get its place.
        let again = [volume(5, Disk::Boot, Some(1), PF0), volume(6, Disk::Boot, None, some)];
        assert_eq!(
            allot(&plan(1, 0, 0), dpu, &again, &[Disk::Boot]),
            Allotted { waiting: Vec::new(), fits: true }
        );
        assert!(!allot(&plan(1, 0, 0), dpu, &again, &[Disk::Data]).fits);
        // What another DPU has takes nothing of this one's.
        let moves = [volume(5, Disk::Boot, Some(2), PF0)];
        assert!(allot(&plan(1, 0, 0), dpu, &moves, &[Disk::Boot]).fits);
    }

    #[test]
    fn nics_are_those_of_the_plan() {
        let told = ["pf0vf10", "pf0vf2", "tap0", "pf1hpf", "pf0hpf", "pf1vf0"];
        let told: Vec<_> = (0_u8..)
            .zip(told)
            .map(|(n, name)| (name.parse().unwrap(), MacAddr([2, 0, 0, 0, 0, n])))
            .collect();
        let names = |vfs: Option<u16>| -> Vec<String> {
            let plan = vfs.map(|vfs| FunctionPlan { vfs, ..FunctionPlan::new(Model::BlueField3) });
            planned(told.clone(), plan.as_ref()).into_iter().map(|(name, _)| name.to_string()).collect()
        };
        assert_eq!(names(None), ["pf0vf10", "pf0vf2", "tap0", "pf1hpf", "pf0hpf", "pf1vf0"]);
        assert_eq!(names(Some(4)), ["tap0", "pf1hpf", "pf0hpf", "pf0vf2", "pf1vf0"]);
        assert_eq!(names(Some(0)), ["tap0", "pf1hpf", "pf0hpf"]);
    }

    #[test]
    fn what_would_vanish_is_said() {
        let volumes = [("root".to_owned(), PF0), ("data".to_owned(), Function::Hotplug)];
        let ports =
            [("web".to_owned(), "pf0vf3".parse().unwrap()), ("ssh".to_owned(), "pf0hpf".parse().unwrap())];
        let enough = FunctionPlan { vfs: 4, ..plan(1, 0, 1) };
        assert_eq!(vanishing(&enough, &volumes, &ports), [] as [String; 0]);
        assert_eq!(
            vanishing(&plan(0, 0, 0), &volumes, &ports),
            [
                "volume root is virtio-blk function 0",
                "1 volumes are plugged-in functions, and 0 are planned",
                "port web is pf0vf3, virtual function 3"
            ]
        );
    }

    #[test]
    fn in_force_is_what_the_firmware_shows() {
        let seen = |current| {
            let one = SettingSeen { key: "NUM_OF_VFS".into(), wanted: 8, current, next: Some(8) };
            FunctionsSeen { settings: vec![one], needs_reset: true }
        };
        let plan = plan(0, 0, 0);
        assert_eq!(in_force(&plan, None), None, "it said nothing");
        assert_eq!(in_force(&plan, Some(&FunctionsSeen::default())), None, "its tool did not answer");
        assert_eq!(in_force(&plan, Some(&seen(Some(0)))), Some(false));
        assert_eq!(in_force(&plan, Some(&seen(None))), Some(false));
        assert_eq!(in_force(&plan, Some(&seen(Some(8)))), Some(true));
        let generic = FunctionPlan::new(Model::Generic);
        assert_eq!(in_force(&generic, Some(&FunctionsSeen::default())), Some(true));
    }

    /// One thing that happens to a DPU.
    #[derive(Debug, Clone)]
    enum Step {
        Attach(Disk),
        Detach(usize),
        Plan(FunctionPlan),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let plans = (0_u16..4, 0_u16..3, 0_u16..4, any::<bool>()).prop_map(|(pfs, vfs, hotplug, snap)| {
            let disks = if snap { DisksBy::Snap } else { DisksBy::Qsd };
            Step::Plan(FunctionPlan { disks, ..plan(pfs, vfs, hotplug) })
        });
        let disk = prop_oneof![Just(Disk::Boot), Just(Disk::Data)];
        let step = prop_oneof![4 => disk.prop_map(Step::Attach), 2 => (0_usize..16).prop_map(Step::Detach), 1 => plans];
        proptest::collection::vec(step, 1..60)
    }

    proptest! {
        /// Whatever comes and goes: no two disks have one function, none changes while its disk lives, and none is beyond the plan.
        #[test]
        fn a_function_is_one_disks_while_it_lives(steps in steps()) {
            let (mut now, mut all, mut next) = (plan(2, 2, 2), Vec::<(usize, Function)>::new(), 0);
            for step in steps {
                let before = all.clone();
                match step {
                    Step::Attach(disk) => {
                        let taken: Vec<Function> = all.iter().map(|(_, function)| *function).collect();
                        if let [Some(function)] = assign(&now, &taken, &[disk]).as_slice() {
                            all.push((next, *function));
                            next += 1;
                        }
                        prop_assert_eq!(&all[..before.len()], before.as_slice());
                    }
                    Step::Detach(at) if !all.is_empty() => drop(all.remove(at % all.len())),
                    Step::Detach(_) => {}
                    Step::Plan(other) => {
                        let named: Vec<_> = all.iter().map(|(id, function)| (id.to_string(), *function)).collect();
                        if vanishing(&other, &named, &[]).is_empty() {
                            now = other;
                        }
                    }
                }
                let named: Vec<_> = all.iter().map(|(id, function)| (id.to_string(), *function)).collect();
                prop_assert!(vanishing(&now, &named, &[]).is_empty(), "{:?} of {:?}", all, now);
                let fixed: Vec<_> = all.iter().map(|(_, f)| *f).filter(|f| *f != Function::Hotplug).collect();
                prop_assert!(fixed.iter().enumerate().all(|(n, f)| !fixed[..n].contains(f)), "{:?}", all);
            }
        }
    }
}
