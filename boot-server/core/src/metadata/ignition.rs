//! Ignition (CoreOS, Flatcar): the user's config is checked and merged, unchanged, over a small one of ours. Ignition
//! lets the child win, so that what Billet adds stays beneath the user's own, as vendor data does for cloud-init.

use serde_json::{Map, Value, json};

use super::pretty;
use crate::cloud_config::Login;
use crate::deploy::DeployRefused;

/// Newest minor version of the specification 3 that is taken.
const MINOR_MAX: u32 = 6;
/// What a config of the specification 3 has at its top.
const TOP: [&str; 5] = ["ignition", "kernelArguments", "passwd", "storage", "systemd"];

/// Checks user data that is to be an Ignition config.
///
/// # Errors
/// Says what is wrong first.
pub fn check(text: &str) -> Result<(), DeployRefused> {
    let refuse = |message: String| {
        let hint =
            "make it of Butane with `butane --strict`; specification 3.0.0 to 3.6.0 is taken".to_owned();
        Err(DeployRefused { code: "ignition", message, hint })
    };
    let config: Map<String, Value> = match serde_json::from_str(text) {
        Ok(config) => config,
        Err(error) => return refuse(format!("user data is no Ignition config: {error}")),
    };
    if let Some(unknown) = config.keys().find(|key| !TOP.contains(&key.as_str())) {
        let short: String = unknown.chars().take(40).collect();
        return refuse(format!("an Ignition config has no `{short}` at its top"));
    }
    let version = config.get("ignition").and_then(|i| i.get("version")).and_then(Value::as_str);
    match version {
        None => refuse("the Ignition config names no `ignition.version`".to_owned()),
        Some(version) if is_known(version) => Ok(()),
        Some(version) => {
            let short: String = version.chars().take(40).collect();
            refuse(format!("version `{short}` of Ignition configs is not known"))
        }
    }
}

fn is_known(version: &str) -> bool {
    let minor = version.strip_prefix("3.").and_then(|rest| rest.strip_suffix(".0"));
    minor.is_some_and(|minor| (0..=MINOR_MAX).any(|known| known.to_string() == minor))
}

/// The config that the OS gets: user, keys, host name, the call that says that it is up, and the user's own over it.
pub fn config(login: &Login<'_>, phone_home_url: &str, own: Option<&str>) -> String {
    let mut user = json!({ "name": login.user, "sshAuthorizedKeys": login.ssh_keys });
    if let Some(hash) = login.password_hash {
        user["passwordHash"] = Value::from(hash);
    }
    if login.user != "root" {
        user["groups"] = json!(["sudo", "wheel"]);
    }
    let mut ignition = json!({ "version": "3.0.0" });
    if let Some(own) = own {
        ignition["config"] = json!({ "merge": [{ "source": data_url(own) }] });
    }
    pretty(&json!({
        "ignition": ignition,
        "passwd": { "users": [user] },
        "storage": { "files": [{
            "path": "/etc/hostname",
            "mode": 0o644,
            "overwrite": true,
            "contents": { "source": data_url(&format!("{}\n", login.hostname)) },
        }] },
        "systemd": { "units": [{
            "name": "billet-phone-home.service",
            "enabled": true,
            "contents": unit(phone_home_url),
        }] },
    }))
}

/// The URL is ours: letters, digits and `:/._-[]` alone, so that nothing in it is syntax of a unit.
fn unit(url: &str) -> String {
    const UNIT: &str = "[Unit]\nDescription=Tell Billet that this system is up\nWants=network-online.target\n\
         After=network-online.target sshd-keygen.target\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\nRestart=on-failure\nRestartSec=5\n\
         ExecStart=/bin/sh -c 'set --; for f in /etc/ssh/ssh_host_*_key.pub; do \
         n=$${f#/etc/ssh/ssh_host_}; set -- \"$$@\" --data-urlencode \"pub_key_$${n%%_key.pub}@$$f\"; done; \
         exec curl -fsS --retry 60 --retry-connrefused \"$$@\" -d up=1 @URL@'\n\n\
         [Install]\nWantedBy=multi-user.target\n";
    UNIT.replace("@URL@", url)
}

/// RFC 2397, every octet but letters and digits escaped.
fn data_url(text: &str) -> String {
    let mut url = String::from("data:,");
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => url.push(char::from(byte)),
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ignition_is_refused() {
        for good in [
            r#"{"ignition":{"version":"3.0.0"}}"#,
            r#"{"ignition":{"version":"3.4.0"},"systemd":{},"storage":{},"passwd":{},"kernelArguments":{}}"#,
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("#cloud-config\n{}", "no Ignition config"),
            ("[]", "no Ignition config"),
            ("{}", "names no"),
            (r#"{"ignition":{"version":3}}"#, "names no"),
            (r#"{"ignition":{"version":"2.2.0"}}"#, "`2.2.0`"),
            (r#"{"ignition":{"version":"3.7.0"}}"#, "`3.7.0`"),
            (r#"{"ignition":{"version":"3.01.0"}}"#, "`3.01.0`"),
            (r#"{"ignition":{"version":"3.1.0-experimental"}}"#, "experimental"),
            (r#"{"ignition":{"version":"3.1.0"},"runcmd":[]}"#, "`runcmd`"),
        ] {
            let refused = check(bad).unwrap_err();
            assert!(refused.message.contains(why), "{bad}: {refused}");
        }
    }

    #[test]
    fn the_users_own_lies_over_ours_unchanged() {
        let keys = ["ssh-ed25519 AAAA me".to_owned()];
        let login = Login { hostname: "web-1", user: "core", ssh_keys: &keys, password_hash: None };
        let own = "{\"ignition\":{\"version\":\"3.4.0\"},\"x\":\"ü%\\n\"}";
        let config: Value =
            serde_json::from_str(&config(&login, "http://10.77.0.1:8080/phone-home/T", Some(own))).unwrap();
        let url = config["ignition"]["config"]["merge"][0]["source"].as_str().unwrap();
        let escaped = url.strip_prefix("data:,").unwrap();
        let mut bytes = Vec::new();
        let mut rest = escaped.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'%' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                byte => byte,
            });
        }
        assert_eq!(String::from_utf8(bytes).unwrap(), own);
        let unit = config["systemd"]["units"][0]["contents"].as_str().unwrap();
        assert!(unit.contains("http://10.77.0.1:8080/phone-home/T") && !unit.contains("%A"), "{unit}");
        assert_eq!(config["passwd"]["users"][0]["sshAuthorizedKeys"][0], keys[0].as_str());
    }
}
