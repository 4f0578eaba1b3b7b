//! Firmware versions: `FirmwareInventory` of the update service.

use super::call::Call;
use super::json::Resource;
use crate::{BmcError, FirmwareItem};

impl Call<'_> {
    pub(super) async fn firmware(&self) -> Result<Vec<FirmwareItem>, BmcError> {
        let service = self.update_service().await?;
        let mut items = Vec::new();
        for item in self.members_of(&service.view(self.origin()), "FirmwareInventory").await? {
            let view = item.view(self.origin());
            items.push(FirmwareItem {
                id: item.link.to_string(),
                name: view.string("Name")?.unwrap_or_else(|| item.link.last().to_owned()),
                version: view.string("Version")?,
                updateable: view.boolean("Updateable")?.unwrap_or_default(),
            });
        }
        Ok(items)
    }

    pub(super) async fn update_service(&self) -> Result<Resource, BmcError> {
        let root = self.root().await?;
        let link = root.updates.as_ref().ok_or_else(|| self.unsupported("firmware updates"))?;
        self.get(link).await
    }
}
