//! The password of the account that the driver logs in with (DSP0268, ManagerAccount).

use serde_json::json;

use super::call::Call;
use super::json::Resource;
use crate::{BmcError, Secret};

impl Call<'_> {
    /// Writes the new password, and logs in with it from now on.
    pub(super) async fn change_password(&self, new: &Secret) -> Result<(), BmcError> {
        let account = self.own_account().await?;
        self.patch(&account, &json!({ "Password": new.0 })).await?;
        self.redfish.client.set_password(new).await;
        Ok(())
    }

    async fn own_account(&self) -> Result<Resource, BmcError> {
        // A login that is good for this change only may read nothing but this account.
        if let Some(link) = self.account_to_change().await? {
            return self.get(&link).await;
        }
        let what = "the account";
        let root = self.root().await?;
        let service = root.accounts.as_ref().ok_or_else(|| self.unsupported("changing the password"))?;
        let service = self.get(service).await?;
        let user = self.redfish.client.credentials().user;
        for account in self.members_of(&service.view(self.origin()), "Accounts").await? {
            if account.view(self.origin()).text("UserName")? == Some(user.as_str()) {
                // Read by itself, because members that came with their collection often have no ETag.
                return self.get(&account.link).await;
            }
        }
        Err(BmcError::Refused {
            what: what.to_owned(),
            why: format!("there is no account of the name {user}"),
        })
    }
}
