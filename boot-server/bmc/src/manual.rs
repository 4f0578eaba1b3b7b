//! A machine whose button is pressed by a person. The driver asks nobody: it says that it cannot, and the server, which sees
//! its kind, asks the operator and takes the confirmation.

use async_trait::async_trait;

use crate::{Bmc, BmcError, DriverKind, PowerAction, PowerState};

/// A person at the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Driver;

#[async_trait]
impl Bmc for Driver {
    fn kind(&self) -> DriverKind {
        DriverKind::Manual
    }

    async fn power_state(&self) -> Result<PowerState, BmcError> {
        Ok(PowerState::Unknown)
    }

    async fn power(&self, _action: PowerAction) -> Result<(), BmcError> {
        Err(self.unsupported("a change of power without a person who makes it and confirms"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_person_is_needed() {
        assert_eq!(Driver.power_state().await.unwrap(), PowerState::Unknown);
        let error = Driver.power(PowerAction::On).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "a change of power without a person who makes it and confirms cannot be had by manual"
        );
    }
}
