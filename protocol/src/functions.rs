//! Which functions of a DPU its host gets, and what each model has at most.
//!
//! Sources: NVIDIA, DOCA 3.2, *SNAP-4 Service Appendixes* (`PCI_SWITCH_EMULATION_NUM_PORT` is 0 or 2 to 32, one port is that of all static functions,
//! so 31 are left; storage emulation needs the DPU mode); NVIDIA, BlueField DPU BSP 4.2, *VirtIO-net Emulated Devices* (31 hot-plugged, 504 virtual virtio-net
//! functions); NVIDIA virtio-net-controller, README (more than 127 virtual functions need the hot-plug switched off; 504 is the product of physical functions and
//! virtual ones of each); NVIDIA, BlueField BSP 3.9.6 (16 hot-plugged on BlueField-2). Where none is published, which is so for static virtio functions, the limit is
//! ours, and what the firmware takes is the DPU's tools to say.

use serde::{Deserialize, Serialize};

/// A model of DPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = DpuModel))]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// NVIDIA BlueField-2.
    #[serde(rename = "bluefield2")]
    BlueField2,
    /// NVIDIA BlueField-3.
    #[serde(rename = "bluefield3")]
    BlueField3,
    /// Open vSwitch on a plain Linux, as in the virtual rack: it has no firmware to set.
    Generic,
}

impl Model {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::BlueField2, Self::BlueField3, Self::Generic];

    /// The model of this name in the API.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|model| model.as_str() == name)
    }

    /// The BlueField that these words of a DPU name; none where they name another machine.
    pub fn of(words: &str) -> Option<Self> {
        let plain: String =
            words.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        [Self::BlueField2, Self::BlueField3].into_iter().find(|model| plain.contains(model.as_str()))
    }

    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlueField2 => "bluefield2",
            Self::BlueField3 => "bluefield3",
            Self::Generic => "generic",
        }
    }

    /// What it has at most.
    pub fn limits(self) -> Limits {
        match self {
            Self::BlueField2 => {
                Limits { vfs: 127, virtio_pfs: 2, virtio_vfs: 504, hotplug: 16, vfs_with_hotplug: 127 }
            }
            Self::BlueField3 => {
                Limits { vfs: 127, virtio_pfs: 4, virtio_vfs: 504, hotplug: 31, vfs_with_hotplug: 127 }
            }
            Self::Generic => {
                Limits { vfs: 0, virtio_pfs: 0, virtio_vfs: 0, hotplug: 31, vfs_with_hotplug: 0 }
            }
        }
    }
}

/// What a model has at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = DpuLimits))]
pub struct Limits {
    /// Virtual functions of each physical NIC function.
    pub vfs: u16,
    /// Physical virtio functions of a kind that are always there.
    pub virtio_pfs: u16,
    /// Virtual virtio functions in all.
    pub virtio_vfs: u16,
    /// Functions that are plugged in while the host runs.
    pub hotplug: u16,
    /// Virtual virtio functions in all, where functions are plugged in while the host runs.
    pub vfs_with_hotplug: u16,
}

/// Which functions a host gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = DpuFunctionPlan))]
#[serde(deny_unknown_fields)]
pub struct FunctionPlan {
    /// Of which model.
    pub model: Model,
    /// Virtual functions of each physical NIC function.
    #[serde(default)]
    pub vfs: u16,
    /// Virtio disks.
    #[serde(default)]
    pub blk: Virtio,
    /// Virtio NICs.
    #[serde(default)]
    pub net: Virtio,
    /// Functions that are plugged in while the host runs.
    #[serde(default)]
    pub hotplug: u16,
    /// Who is to serve the host's volumes. It is for whoever makes the state, whose volumes name their exporter themselves.
    #[serde(default)]
    pub disks: DisksBy,
}

/// Virtio functions of a kind that are always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = DpuVirtio))]
#[serde(default, deny_unknown_fields)]
pub struct Virtio {
    /// Physical functions.
    pub pfs: u16,
    /// Virtual functions of each.
    pub vfs: u16,
}

/// Who serves a host's volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = DpuDisksBy))]
#[serde(rename_all = "snake_case")]
pub enum DisksBy {
    /// `billet-blk` with `qemu-storage-daemon`, by vhost-user.
    #[default]
    Qsd,
    /// NVIDIA's SNAP-4, as virtio-blk functions of this plan.
    Snap,
}

/// What is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// More than the model has.
    #[error("{wanted} {what} are more than the {most} of a {}", model.as_str())]
    Many {
        /// What.
        what: &'static str,
        /// As planned.
        wanted: u32,
        /// At most.
        most: u16,
        /// Of this model.
        model: Model,
    },
    /// Too many beside those that are plugged in.
    #[error("{wanted} virtual virtio functions are more than the {most} of a {} that plugs functions in: set `hotplug` to 0, or plan fewer", model.as_str())]
    BesideHotplug {
        /// As planned.
        wanted: u32,
        /// At most.
        most: u16,
        /// Of this model.
        model: Model,
    },
    /// Virtual functions of nothing.
    #[error("virtual virtio-{0} functions need a physical one: set `{0}.pfs`")]
    NoPhysical(&'static str),
    /// SNAP without a function.
    #[error("volumes by SNAP need a virtio-blk function: set `blk.pfs` or `hotplug`")]
    NoDisk,
    /// SNAP on what it does not run on.
    #[error("SNAP runs on a BlueField, not on the model `generic`")]
    NoSnap,
}

impl FunctionPlan {
    /// One that gives a host of this model nothing but its physical NIC functions.
    pub fn new(model: Model) -> Self {
        let none = Virtio::default();
        Self { model, vfs: 0, blk: none, net: none, hotplug: 0, disks: DisksBy::default() }
    }

    /// The functions that `other` has as well.
    #[must_use]
    pub fn within(self, other: &Self) -> Self {
        let both =
            |own: Virtio, other: Virtio| Virtio { pfs: own.pfs.min(other.pfs), vfs: own.vfs.min(other.vfs) };
        Self {
            vfs: self.vfs.min(other.vfs),
            blk: both(self.blk, other.blk),
            net: both(self.net, other.net),
            hotplug: self.hotplug.min(other.hotplug),
            ..self
        }
    }

    /// Whether the model can have it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), PlanError> {
        let (model, limits) = (self.model, self.model.limits());
        let of = |virtio: &Virtio| u32::from(virtio.pfs) * u32::from(virtio.vfs);
        let virtual_ones = of(&self.blk) + of(&self.net);
        let counts = [
            ("virtual functions of a NIC function", u32::from(self.vfs), limits.vfs),
            ("physical virtio-blk functions", u32::from(self.blk.pfs), limits.virtio_pfs),
            ("physical virtio-net functions", u32::from(self.net.pfs), limits.virtio_pfs),
            ("virtual virtio functions", virtual_ones, limits.virtio_vfs),
            ("functions that are plugged in", u32::from(self.hotplug), limits.hotplug),
        ];
        if let Some((what, wanted, most)) =
            counts.into_iter().find(|(_, wanted, most)| *wanted > u32::from(*most))
        {
            return Err(PlanError::Many { what, wanted, most, model });
        }
        for (kind, virtio) in [("blk", &self.blk), ("net", &self.net)] {
            if virtio.vfs > 0 && virtio.pfs == 0 {
                return Err(PlanError::NoPhysical(kind));
            }
        }
        if self.hotplug > 0 && virtual_ones > u32::from(limits.vfs_with_hotplug) {
            return Err(PlanError::BesideHotplug {
                wanted: virtual_ones,
                most: limits.vfs_with_hotplug,
                model,
            });
        }
        match self.disks {
            DisksBy::Qsd => Ok(()),
            DisksBy::Snap if model == Model::Generic => Err(PlanError::NoSnap),
            DisksBy::Snap if self.blk.pfs == 0 && self.hotplug == 0 => Err(PlanError::NoDisk),
            DisksBy::Snap => Ok(()),
        }
    }
}

/// The representor of a function of a BlueField's host: `pfNhpf` of the physical one N, `pfNvfM` of its virtual one M (NVIDIA DOCA, *vSwitch and
/// Representors Model*).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Representor {
    /// Of a physical function.
    Physical {
        /// Its number.
        pf: u16,
    },
    /// Of a virtual function.
    Virtual {
        /// Number of the physical function.
        pf: u16,
        /// Its number there.
        vf: u16,
    },
}

impl Representor {
    /// What an interface of this name is, if it is one.
    pub fn named(interface: &str) -> Option<Self> {
        let rest = interface.strip_prefix("pf")?;
        let number = |text: &str| {
            let found = text.parse::<u16>().ok()?;
            (found.to_string() == text).then_some(found)
        };
        if let Some(pf) = rest.strip_suffix("hpf") {
            return Some(Self::Physical { pf: number(pf)? });
        }
        let (pf, vf) = rest.split_once("vf")?;
        Some(Self::Virtual { pf: number(pf)?, vf: number(vf)? })
    }
}

/// Functions as the firmware of a DPU has them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = DpuFunctionsSeen))]
#[serde(deny_unknown_fields)]
pub struct FunctionsSeen {
    /// Settings that the plan asks for.
    pub settings: Vec<SettingSeen>,
    /// All is written, and some of it is in force after a power cycle of the host only.
    pub needs_reset: bool,
}

/// A setting of the firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = DpuSettingSeen))]
#[serde(deny_unknown_fields)]
pub struct SettingSeen {
    /// Its key, such as `NUM_OF_VFS`.
    pub key: String,
    /// As planned.
    pub wanted: u64,
    /// In force.
    pub current: Option<u64>,
    /// In force after the next reset.
    pub next: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(model: Model) -> FunctionPlan {
        FunctionPlan::new(model)
    }

    #[test]
    fn models_by_name_and_by_what_a_dpu_says() {
        for model in Model::ALL {
            assert_eq!(Model::named(model.as_str()), Some(model));
        }
        assert_eq!(Model::of("BlueField-3 P-Series"), Some(Model::BlueField3));
        assert_eq!(Model::of("NVIDIA BlueField-2 DPU 25GbE"), Some(Model::BlueField2));
        assert_eq!((Model::of("KVM"), Model::of(""), Model::named("bluefield9")), (None, None, None));
    }

    #[test]
    fn representors() {
        assert_eq!(Representor::named("pf0hpf"), Some(Representor::Physical { pf: 0 }));
        assert_eq!(Representor::named("pf1vf12"), Some(Representor::Virtual { pf: 1, vf: 12 }));
        for other in
            ["p0", "pf", "pfhpf", "pf0", "pf0vf", "pf0vfx", "pf00hpf", "en3f0pf0sf0", "br-int", "pf+1hpf"]
        {
            assert_eq!(Representor::named(other), None, "{other}");
        }
    }

    #[test]
    fn what_two_plans_have() {
        let wide =
            FunctionPlan { vfs: 16, blk: Virtio { pfs: 2, vfs: 0 }, hotplug: 4, ..plan(Model::BlueField3) };
        let deep = FunctionPlan {
            vfs: 8,
            blk: Virtio { pfs: 1, vfs: 9 },
            disks: DisksBy::Snap,
            ..plan(Model::BlueField3)
        };
        let both = FunctionPlan {
            vfs: 8,
            blk: Virtio { pfs: 1, vfs: 0 },
            disks: DisksBy::Snap,
            ..plan(Model::BlueField3)
        };
        assert_eq!(deep.within(&wide), both);
        assert_eq!(wide.within(&deep), FunctionPlan { disks: DisksBy::Qsd, ..both });
    }

    #[test]
    fn what_a_model_has_can_be_planned() {
        let all = FunctionPlan {
            vfs: 127,
            blk: Virtio { pfs: 2, vfs: 126 },
            net: Virtio { pfs: 2, vfs: 126 },
            ..plan(Model::BlueField3)
        };
        assert_eq!(all.check(), Ok(()));
        let hot = FunctionPlan {
            hotplug: 31,
            blk: Virtio { pfs: 1, vfs: 16 },
            disks: DisksBy::Snap,
            ..plan(Model::BlueField3)
        };
        assert_eq!(hot.check(), Ok(()));
        assert_eq!(FunctionPlan { hotplug: 31, ..plan(Model::Generic) }.check(), Ok(()));
    }

    #[test]
    fn what_it_has_not_is_said() {
        let bf3 = plan(Model::BlueField3);
        let said = |plan: FunctionPlan| plan.check().unwrap_err().to_string();
        let cases = [
            (
                FunctionPlan { vfs: 128, ..bf3 },
                "128 virtual functions of a NIC function are more than the 127 of a bluefield3",
            ),
            (
                FunctionPlan { hotplug: 32, ..bf3 },
                "32 functions that are plugged in are more than the 31 of a bluefield3",
            ),
            (
                FunctionPlan { hotplug: 17, ..plan(Model::BlueField2) },
                "17 functions that are plugged in are more than the 16 of a bluefield2",
            ),
            (
                FunctionPlan { blk: Virtio { pfs: 5, vfs: 0 }, ..bf3 },
                "5 physical virtio-blk functions are more than the 4 of a bluefield3",
            ),
            (
                FunctionPlan { net: Virtio { pfs: 4, vfs: 127 }, ..bf3 },
                "508 virtual virtio functions are more than the 504 of a bluefield3",
            ),
            (
                FunctionPlan { net: Virtio { pfs: 2, vfs: 64 }, hotplug: 1, ..bf3 },
                "128 virtual virtio functions are more than the 127 of a bluefield3 that plugs functions in: set `hotplug` to 0, or plan fewer",
            ),
            (
                FunctionPlan { blk: Virtio { pfs: 0, vfs: 1 }, ..bf3 },
                "virtual virtio-blk functions need a physical one: set `blk.pfs`",
            ),
            (
                FunctionPlan { disks: DisksBy::Snap, ..bf3 },
                "volumes by SNAP need a virtio-blk function: set `blk.pfs` or `hotplug`",
            ),
            (
                FunctionPlan { disks: DisksBy::Snap, hotplug: 1, ..plan(Model::Generic) },
                "SNAP runs on a BlueField, not on the model `generic`",
            ),
            (
                FunctionPlan { vfs: 1, ..plan(Model::Generic) },
                "1 virtual functions of a NIC function are more than the 0 of a generic",
            ),
        ];
        for (plan, wanted) in cases {
            assert_eq!(said(plan), wanted);
        }
    }

    /// If this test fails, do not change the test: DPUs and stores have this text.
    #[test]
    fn golden() {
        let text = r#"{"model":"bluefield3","vfs":16,"blk":{"pfs":1,"vfs":0},"net":{"pfs":0,"vfs":0},"hotplug":8,"disks":"snap"}"#;
        let plan: FunctionPlan = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&plan).unwrap(), text);
        assert_eq!(
            serde_json::from_str::<FunctionPlan>(r#"{"model":"generic"}"#).unwrap(),
            self::plan(Model::Generic)
        );
        assert!(serde_json::from_str::<FunctionPlan>(r#"{"model":"generic","novel":1}"#).is_err());
    }
}
