//! The identify light: `LocationIndicatorActive`, in older services `IndicatorLED`; of the system, else of its chassis.

use serde_json::json;

use super::call::Call;
use super::json::Resource;
use crate::BmcError;

impl Call<'_> {
    pub(super) async fn identify(&self, on: bool) -> Result<(), BmcError> {
        let (tree, system) = self.system().await?;
        if self.light(&system, on, &tree.profile.led.on).await? {
            return Ok(());
        }
        for chassis in self.get_all(&tree.chassis).await? {
            if self.light(&chassis, on, &tree.profile.led.on).await? {
                return Ok(());
            }
        }
        Err(self.unsupported("the identify light"))
    }

    /// False where this resource has none.
    async fn light(&self, resource: &Resource, on: bool, word: &str) -> Result<bool, BmcError> {
        let view = resource.view(self.origin());
        let body = if view.boolean("LocationIndicatorActive")?.is_some() {
            json!({ "LocationIndicatorActive": on })
        } else if view.text("IndicatorLED")?.is_some() {
            json!({ "IndicatorLED": if on { self.word(resource, word)? } else { "Off".to_owned() } })
        } else {
            return Ok(false);
        };
        self.patch(resource, &body).await.map(|_| true)
    }

    /// The word for "on" that the service takes: the maker's, unless it names others.
    fn word(&self, resource: &Resource, word: &str) -> Result<String, BmcError> {
        let allowed = resource.view(self.origin()).texts("IndicatorLED@Redfish.AllowableValues")?;
        let taken = |w: &str| allowed.as_ref().is_none_or(|a| a.contains(&w));
        Ok([word, "Blinking", "Lit"].into_iter().find(|w| taken(w)).unwrap_or(word).to_owned())
    }
}
