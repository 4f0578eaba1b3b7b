//! Subscriptions to events (DSP0268, EventService): the controller sends them by itself, so that nobody has to poll.

use serde_json::json;

use super::address::Link;
use super::call::Call;
use crate::BmcError;

impl Call<'_> {
    pub(super) async fn subscribe(&self, destination: &str, context: &str) -> Result<String, BmcError> {
        let root = self.root().await?;
        let service = root.events.as_ref().ok_or_else(|| self.unsupported("subscriptions to events"))?;
        let service = self.get(service).await?;
        let view = service.view(self.origin());
        if view.boolean("ServiceEnabled")? == Some(false) {
            return Err(BmcError::Refused {
                what: "subscriptions".into(),
                why: "its event service is off".into(),
            });
        }
        let collection =
            view.link("Subscriptions")?.ok_or_else(|| self.unsupported("subscriptions to events"))?;
        let mut there = None;
        for present in self.members(&collection).await? {
            let view = present.view(self.origin());
            match (view.text("Destination")?, view.text("Context")?) {
                (Some(to), Some(of)) if to == destination && of == context && there.is_none() => {
                    there = Some(present.link.to_string());
                }
                // Ours, to where we were before, or a second one: controllers have room for few.
                (_, Some(of)) if of == context => drop(self.delete(&present.link).await?),
                _ => {}
            }
        }
        if let Some(there) = there {
            return Ok(there);
        }
        let mut body = json!({ "Destination": destination, "Context": context, "Protocol": "Redfish" });
        // Before EventService 1.3 the types of events were named, and had to be.
        match view.texts("EventFormatTypes")? {
            Some(formats) if formats.contains(&"Event") => body["EventFormatType"] = "Event".into(),
            _ => body["EventTypes"] = json!(["Alert"]),
        }
        let answer = self.post(&collection, &body).await?;
        let location =
            answer.header("location").map(|l| self.origin().link("a subscription", l)).transpose()?;
        let malformed = || BmcError::Malformed {
            what: format!("POST {collection}"),
            why: "a subscription without Location".to_owned(),
        };
        location.map(|l| l.to_string()).ok_or_else(malformed)
    }

    /// A subscription that is gone is no error.
    pub(super) async fn unsubscribe(&self, path: &str) -> Result<(), BmcError> {
        let link: Link = self.origin().link("a subscription", path)?;
        self.delete(&link).await.map(|_| ())
    }
}
