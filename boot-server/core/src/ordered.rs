//! From what somebody ordered to what a boot loader is told: every file gets the URL by which this machine reaches it, and
//! an installer's arguments are completed.

use crate::ipxe::{INITRDS_MAX, Initrd, Iscsi, Kernel, San, Script, ScriptError, Url};
use crate::node::Boot;
use crate::node::boot::{IscsiBoot, KernelBoot};
use crate::words::Iqn;

/// Files of the media directory, by path.
pub const MEDIA_PATH: &str = "/boot/media";
/// Asked for with its ticket when everything of a boot is loaded.
pub const BEGUN_PATH: &str = "/boot/begun";
/// The profile of a boot, by its ticket.
pub const PROFILE_PATH: &str = "/boot/profile";
/// Asked for with its ticket when an installer is done.
pub const PHONE_HOME_PATH: &str = "/phone-home";

/// In kernel arguments: the URL of the profile.
const PROFILE: &str = "{profile}";
/// In kernel arguments: the base URL of this server.
const SERVER: &str = "{server}";
/// What a machine calls itself towards iSCSI targets: as iPXE does by itself where it knows a host name.
const INITIATOR: &str = "iqn.2010-04.org.ipxe:";

/// For whom a script is written.
#[derive(Debug, Clone, Copy)]
pub struct For<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Base URL by which the machine reaches this server.
    pub base: &'a str,
    /// Names this one boot.
    pub ticket: &'a str,
}

impl For<'_> {
    /// URL of the profile of this boot.
    ///
    /// # Errors
    /// Where it is too long for a script.
    pub fn profile_url(&self) -> Result<Url, ScriptError> {
        Url::new(format!("{}{PROFILE_PATH}/{}", self.base, self.ticket))
    }

    /// URL that says that the installer is done.
    ///
    /// # Errors
    /// Where it is too long for a script.
    pub fn phone_home_url(&self) -> Result<Url, ScriptError> {
        Url::new(format!("{}{PHONE_HOME_PATH}/{}", self.base, self.ticket))
    }

    /// URL that says that everything is loaded.
    ///
    /// # Errors
    /// Where it is too long for a script.
    pub fn begun_url(&self) -> Result<Url, ScriptError> {
        Url::new(format!("{}{BEGUN_PATH}/{}", self.base, self.ticket))
    }
}

/// The script of an order; `None` for the agent and the disk, whose scripts are the usual ones.
///
/// # Errors
/// Where a URL becomes too long, or an argument impossible.
pub fn script(boot: &Boot, to: &For<'_>) -> Result<Option<Script>, ScriptError> {
    let message = format!("{} boots {}", to.node, boot.kind().words());
    Ok(match boot {
        Boot::Agent | Boot::LocalDisk => None,
        Boot::Kernel(order) => {
            Some(Script::Kernel { message, boot: kernel(order, to)?, begun: to.begun_url()? })
        }
        Boot::Iso(iso) => {
            let disk = San::Http(iso.file.url(to.base)?);
            Some(Script::San { message, disk, begun: to.begun_url()? })
        }
        Boot::Iscsi(order) => {
            let disk = San::Iscsi(Box::new(iscsi(order, to)?));
            Some(Script::San { message, disk, begun: to.begun_url()? })
        }
    })
}

/// A kernel with its files and arguments; the same for every boot loader.
///
/// # Errors
/// As [`script`].
pub fn kernel(order: &KernelBoot, to: &For<'_>) -> Result<Kernel, ScriptError> {
    if order.initrds.len() > INITRDS_MAX {
        return Err(ScriptError::Initrds(order.initrds.len()));
    }
    let url = to.profile_url()?;
    let mut args = order.arguments.filled(PROFILE, &url.to_string())?.filled(SERVER, to.base)?;
    if let Some(profile) = &order.profile {
        // What the site gives itself goes before what we would add.
        let more = profile.arguments(to.node, &url)?;
        args = args.with(more.into_iter().filter(|arg| !args.has(arg.key())).collect())?;
    }
    let initrd =
        |i: &crate::node::boot::InitrdFile| Ok(Initrd { url: i.file.url(to.base)?, name: i.name.clone() });
    Ok(Kernel {
        kernel: order.kernel.url(to.base)?,
        initrds: order.initrds.iter().map(initrd).collect::<Result<_, ScriptError>>()?,
        args,
    })
}

fn iscsi(order: &IscsiBoot, to: &For<'_>) -> Result<Iscsi, ScriptError> {
    let initiator = match &order.initiator {
        Some(name) => name.clone(),
        None => {
            let name = format!("{INITIATOR}{}", to.node);
            name.parse::<Iqn>().map_err(|_| ScriptError::Value("initiator".to_owned()))?
        }
    };
    let chap = order.chap.as_ref().and_then(|chap| Some((chap.user.clone(), chap.password.clone()?)));
    Ok(Iscsi {
        server: order.server.clone(),
        port: order.port,
        lun: order.lun,
        target: order.target.clone(),
        initiator,
        chap,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(json: serde_json::Value) -> Boot {
        serde_json::from_value(json).unwrap()
    }

    const TO: For<'_> = For { node: "rack1-07", base: "http://10.77.0.1:8080", ticket: "0123" };

    #[test]
    fn orders_become_scripts() {
        let preseed = serde_json::json!({
            "kind": "preseed", "disk": "serial:A", "mirror": "http://deb.example/debian", "ssh_keys": ["k"],
        });
        let orders = [
            serde_json::json!({
                "kind": "kernel", "kernel": "debian/linux", "initrds": [{ "file": "debian/initrd.gz" }],
                "arguments": "console=ttyS0 priority=high --- quiet", "profile": preseed,
            }),
            serde_json::json!({
                "kind": "kernel", "kernel": "https://mirror.example/vmlinuz",
                "arguments": "inst.ks={profile} x={server}/y",
            }),
            serde_json::json!({ "kind": "iso", "file": "live.iso" }),
            serde_json::json!({
                "kind": "iscsi", "server": "fd77::9", "lun": 1, "target": "iqn.2026-01.rack:v",
                "chap": { "user": "u", "password": "p" },
            }),
        ];
        let mut text = String::new();
        for order in orders {
            let order = boot(order);
            text.push_str(&script(&order, &TO).unwrap().unwrap().render());
            text.push('\n');
            let back: Boot = serde_json::from_value(serde_json::to_value(&order).unwrap()).unwrap();
            assert_eq!(back, order);
        }
        insta::assert_snapshot!(text);
        assert_eq!(script(&Boot::Agent, &TO).unwrap(), None);
    }

    #[test]
    fn what_people_send_is_read_strictly() {
        let refused = [
            serde_json::json!({ "kind": "kernel" }),
            serde_json::json!({ "kind": "kernel", "kernel": "../x" }),
            serde_json::json!({ "kind": "kernel", "kernel": "x", "initrd": "y" }),
            serde_json::json!({ "kind": "kernel", "kernel": "x", "arguments": "a || shell" }),
            serde_json::json!({ "kind": "iso", "file": "http://x/${net0/mac}" }),
            serde_json::json!({ "kind": "iscsi", "server": "a b", "target": "iqn.2026-01.rack:v" }),
            serde_json::json!({ "kind": "shell" }),
        ];
        for json in refused {
            assert!(serde_json::from_value::<Boot>(json.clone()).is_err(), "{json}");
        }
    }
}
