//! How a machine stands against its model.

use boot_server_core::expected::Difference;
use boot_server_core::node::{Accepted, Quarantine};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a machine stands against the model that is for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExpectedView {
    /// Name of the node.
    pub node: String,
    /// Name of the model; null where none is for it.
    pub model: Option<String>,
    /// Somebody said of which model it is; else its maker and product do.
    pub assigned: bool,
    /// It was inspected; else nothing is known of it.
    pub inspected: bool,
    /// What is not as the model says, by the last inventory; what was accepted too.
    pub differences: Vec<Difference>,
    /// Which of them somebody accepted, and why.
    pub accepted: Vec<Accepted>,
    /// Set while it is kept out because of them.
    pub quarantine: Option<Quarantine>,
}
