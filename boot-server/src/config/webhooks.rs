//! `[[webhooks]]`: who is told of events.

use std::path::PathBuf;

use bmc::Secret;
use boot_server_core::node::Severity;
use boot_server_core::webhook::Filter;
use serde::{Deserialize, Serialize};
use ureq::http::Uri;

use super::ConfigError;

/// Shortest secret, in octets: 128 bits of randomness in hexadecimal.
const SECRET_MIN: usize = 32;
/// Webhooks of one site; each has a task and a connection of its own.
const WEBHOOKS_MAX: usize = 16;

/// `[[webhooks]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Webhook {
    pub url: String,
    pub secret_file: PathBuf,
    #[serde(default)]
    pub kinds: Vec<String>,
    #[serde(default = "warning")]
    pub least: Severity,
}

fn warning() -> Severity {
    Severity::Warning
}

/// Who is told of which events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Where it listens.
    pub url: String,
    /// Signs what is sent.
    pub secret: Secret,
    /// What it is told.
    pub filter: Filter,
}

/// Checks them and reads their secrets.
///
/// # Errors
/// [`ConfigError::Webhook`].
pub(super) fn hooks(webhooks: &[Webhook]) -> Result<Vec<Hook>, ConfigError> {
    if webhooks.len() > WEBHOOKS_MAX {
        return Err(ConfigError::Webhook(format!("there are more than {WEBHOOKS_MAX} of them")));
    }
    webhooks.iter().map(hook).collect()
}

fn hook(Webhook { url, secret_file, kinds, least }: &Webhook) -> Result<Hook, ConfigError> {
    let refuse = |why: String| ConfigError::Webhook(format!("{url}: {why}"));
    let uri: Uri = url.parse().map_err(|_| refuse("this is no URL".to_owned()))?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let account = uri.authority().is_some_and(|a| a.as_str().contains('@'));
    if !known || account || uri.host().is_none_or(str::is_empty) {
        return Err(refuse("use http://host/… or https://host/…, without user and password".to_owned()));
    }
    let shown = secret_file.display();
    let text = std::fs::read_to_string(secret_file)
        .map_err(|error| refuse(format!("cannot read secret_file {shown}: {error}")))?;
    let secret = text.trim();
    if secret.len() < SECRET_MIN {
        let make = "`openssl rand -hex 32` makes one";
        return Err(refuse(format!("{shown} holds no secret of at least {SECRET_MIN} characters; {make}")));
    }
    let filter = Filter::new(kinds, *least).map_err(|error| refuse(error.to_string()))?;
    Ok(Hook { url: url.clone(), secret: Secret(secret.to_owned()), filter })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_told_is_refused_with_what_to_do() {
        let dir = std::env::temp_dir().join(format!("billet-hooks-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&dir).unwrap();
        let (good, short) = (dir.join("good"), dir.join("short"));
        std::fs::write(&good, format!("{}\n", "s".repeat(SECRET_MIN))).unwrap();
        std::fs::write(&short, "secret\n").unwrap();
        let webhook = |url: &str, secret_file: &PathBuf, kinds: &[&str]| Webhook {
            url: url.to_owned(),
            secret_file: secret_file.clone(),
            kinds: kinds.iter().map(|k| (*k).to_owned()).collect(),
            least: Severity::Warning,
        };
        let fine = hooks(&[webhook("https://ops.example/billet", &good, &["power.*"])]).unwrap();
        assert_eq!(fine[0].secret.0.len(), SECRET_MIN, "the end of the line is no part of it");
        for (bad, wanted) in [
            (webhook("ops.example", &good, &[]), "use http://host"),
            (webhook("ftp://ops.example/", &good, &[]), "use http://host"),
            (webhook("https://user:pass@ops.example/", &good, &[]), "without user and password"),
            (webhook("https://ops.example/", &dir.join("none"), &[]), "cannot read secret_file"),
            (webhook("https://ops.example/", &short, &[]), "openssl rand"),
            (webhook("https://ops.example/", &good, &["Power"]), "no kind of event"),
        ] {
            let said = hook(&bad).unwrap_err().to_string();
            assert!(said.contains(wanted), "{said}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
