//! Secure Boot of the system (DSP0268, SecureBoot).

use serde_json::json;

use super::call::Call;
use super::json::Resource;
use crate::{BmcError, ResetKeys, SecureBoot};

const WHAT: &str = "Secure Boot";

impl Call<'_> {
    pub(super) async fn secure_boot(&self) -> Result<SecureBoot, BmcError> {
        let resource = self.secure_boot_resource().await?;
        let view = resource.view(self.origin());
        let current = view.text("SecureBootCurrentBoot")? == Some("Enabled");
        let setup_mode = match view.text("SecureBootMode")? {
            Some("SetupMode" | "AuditMode") => Some(true),
            Some("UserMode" | "DeployedMode") => Some(false),
            _ => None,
        };
        let enabled = view.boolean("SecureBootEnable")?.unwrap_or(current);
        Ok(SecureBoot { current, enabled, setup_mode })
    }

    pub(super) async fn set_secure_boot(&self, on: bool) -> Result<(), BmcError> {
        let resource = self.secure_boot_resource().await?;
        self.patch(&resource, &json!({ "SecureBootEnable": on })).await.map(|_| ())
    }

    pub(super) async fn reset_secure_boot_keys(&self, to: ResetKeys) -> Result<(), BmcError> {
        let resource = self.secure_boot_resource().await?;
        let action =
            self.action(&resource.view(self.origin()), "#SecureBoot.ResetKeys", "ResetKeysType").await?;
        let action = action.ok_or_else(|| self.unsupported("Secure Boot keys"))?;
        let wanted = match to {
            ResetKeys::Default => "ResetAllKeysToDefault",
            ResetKeys::DeleteAll => "DeleteAllKeys",
            ResetKeys::DeletePk => "DeletePK",
        };
        self.act(&action, "ResetKeysType", &[wanted], "this reset of Secure Boot keys").await.map(|_| ())
    }

    async fn secure_boot_resource(&self) -> Result<Resource, BmcError> {
        let (_, system) = self.system().await?;
        let resource = self.get_linked(&system.view(self.origin()), "SecureBoot").await?;
        resource.ok_or_else(|| self.unsupported(WHAT))
    }
}
