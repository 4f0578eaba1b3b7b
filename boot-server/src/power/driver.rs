//! Which driver speaks to a controller.

use std::sync::Arc;

use bmc::{Bmc, BmcError, DriverKind};

use super::Target;

/// A driver that was made.
#[derive(Clone)]
pub struct Made {
    /// The driver.
    pub bmc: Arc<dyn Bmc>,
    /// SHA-256 of the certificate that the controller showed, once it has; for drivers with TLS.
    pub certificate: Option<Arc<dyn Fn() -> Option<String> + Send + Sync>>,
}

impl Made {
    /// A driver without certificates.
    pub fn plain(bmc: impl Bmc + 'static) -> Self {
        Self { bmc: Arc::new(bmc), certificate: None }
    }
}

/// Makes drivers; tests give their own.
pub type Drivers = Arc<dyn Fn(&Target) -> Result<Made, BmcError> + Send + Sync>;

/// The drivers that this server has.
pub fn drivers() -> Drivers {
    Arc::new(|target| {
        let what = "this driver, which this build does not have";
        match target.driver {
            DriverKind::Redfish
            | DriverKind::Ipmi
            | DriverKind::Wol
            | DriverKind::Manual
            | DriverKind::Fake => Err(BmcError::Unsupported { driver: target.driver, what }),
        }
    })
}
