//! The same act as a command line and as a request, for whoever wants to script it.

use serde_json::Value;

use super::format::shell;

/// One act in two forms.
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    /// Lines for a shell.
    pub cli: String,
    /// Requests, as `curl` sends them.
    pub api: String,
}

impl Recipe {
    /// Adds an act.
    pub fn and(mut self, cli: &str, method: &str, path: &str, body: Option<&Value>) -> Self {
        for text in [&mut self.cli, &mut self.api] {
            if !text.is_empty() {
                text.push('\n');
            }
        }
        self.cli.push_str(cli);
        self.api.push_str("curl -H \"Authorization: Bearer $BILLET_TOKEN\"");
        if method != "GET" {
            self.api.push_str(&format!(" -X {method}"));
        }
        if let Some(body) = body {
            self.api.push_str(" -H 'Content-Type: application/json' -d ");
            self.api.push_str(&shell(body));
        }
        self.api.push_str(&format!(" \"$BILLET_SERVER\"{}", shell(format!("/api/v1/{path}"))));
        self
    }
}
