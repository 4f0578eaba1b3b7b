//! The refresh plan: which machines grow old, and when.

use boot_server_core::dates::Date;
use boot_server_core::expected;
use boot_server_core::refresh::{Aged, QUARTERS_MAX, RefreshPlan, plan};

use super::{Engine, EngineError, now};

impl Engine {
    /// Which machines reach which age or leave warranty, in this quarter and those after it.
    ///
    /// # Errors
    /// A number of quarters that makes no sense, or what the store says.
    pub async fn refresh_plan(&self, quarters: u32) -> Result<RefreshPlan, EngineError> {
        if !(1..=QUARTERS_MAX).contains(&quarters) {
            return Err(EngineError::BadQuery {
                what: format!("{quarters} quarters cannot be planned"),
                hint: "ask for 1 to 20",
            });
        }
        let models = self.models().await?;
        let mut machines = Vec::new();
        for node in self.nodes().await? {
            let inventory = self.inventory(node.id).await?;
            let model = inventory
                .as_deref()
                .and_then(|i| expected::model_of(&models, node.model.as_deref(), i))
                .map(|model| model.name.clone())
                .or_else(|| node.model.clone());
            let product = inventory.as_deref().map(|i| {
                let words = [&i.system.manufacturer, &i.system.product].into_iter().flatten();
                words.cloned().collect::<Vec<_>>().join(" ")
            });
            let model = model.or(product).filter(|m| !m.is_empty()).unwrap_or_else(|| "unknown".to_owned());
            let pool = Some(node.pool().to_string());
            machines.push(Aged { name: node.name.clone(), model, pool, papers: node.papers.clone() });
        }
        Ok(plan(&machines, Date::of(now()), quarters))
    }
}
