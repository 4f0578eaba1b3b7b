//! Firmware and settings of machines: what can be asked for, how that is compared with what a controller shows, and named
//! baselines. How a job goes is in `node::service`; who asks controllers is the shell's business.

mod baseline;
mod judge;
mod steps;

pub use baseline::{Baseline, BaselineError, Difference, FirmwareWanted, Plan, Standing};
pub use judge::{Facts, FirmwareFact, Verdict, component, judge, nearest};
pub use steps::{
    Attributes, BiosStep, FirmwareStep, KeyReset, KeysStep, RestartPolicy, STEPS_MAX, SecureBootStep,
    ServiceStep, StepError, Transfer, check_attributes, check_steps,
};
