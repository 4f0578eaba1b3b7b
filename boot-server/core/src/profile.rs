//! What an installer is told: a preseed of Debian's installer that we write, or a text of the site's own (kickstart,
//! autoinstall, AutoYaST, another preseed) in which a few words are filled in. All escaping of a preseed is in this file:
//! a value either cannot hold what would be syntax, or is quoted for the shell by `quoted`.

use std::fmt::Write as _;

use protocol::DiskId;
use serde::{Deserialize, Serialize};

use crate::cloud_config::{Login, is_hostname};
use crate::deploy::DeployRefused;
use crate::ipxe::{KernelArg, ScriptError, Url};

/// Longest text of a profile, in octets: kickstart files of a few hundred lines stay far below, and each is kept with
/// its node.
pub const PROFILE_MAX: usize = 64 << 10;
/// Most packages beside the standard ones.
pub const PACKAGES_MAX: usize = 256;

/// What an installer is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Profile {
    /// Debian's installer, on one disk, unattended.
    Preseed(Box<Preseed>),
    /// The site's own text.
    Text(TextProfile),
}

/// An unattended installation of Debian on one disk, which it erases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Preseed {
    /// The disk, by serial number or WWN. Where not exactly one disk answers to it, the installer stops.
    pub disk: DiskId,
    /// Base URL of the packages.
    pub mirror: Url,
    /// Release, such as `bookworm`; the installer's own where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// Host name; the node's name where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Who may log in, with sudo; `root` for root itself.
    #[serde(default = "default_user")]
    pub user: String,
    /// Password as a crypt(5) hash. Never in an answer of the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
    /// SSH public keys.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// Packages beside the standard system and an SSH server.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Such as `Europe/Vienna`.
    #[serde(default = "default_timezone")]
    pub timezone: String,
}

/// A text with `@BILLET_HOSTNAME@`, `@BILLET_SERVER@` and `@BILLET_PHONE_HOME@` in it, which become the node's name, the
/// base URL of this server, and the URL that says that the installation is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TextProfile {
    /// The text, at most 64 KiB. Never in an answer of the API.
    #[serde(default)]
    pub text: String,
}

fn default_user() -> String {
    "debian".to_owned()
}

fn default_timezone() -> String {
    "Etc/UTC".to_owned()
}

/// What a profile does not say itself.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Base URL by which the machine reaches this server.
    pub server: &'a str,
    /// Asked for when the installation is done.
    pub phone_home: &'a Url,
}

impl Profile {
    /// Checks every value before it goes near a file. `node` is the node's name.
    ///
    /// # Errors
    /// Names the value that cannot be used and says what it should look like.
    pub fn check(&self, node: &str) -> Result<(), DeployRefused> {
        match self {
            Self::Preseed(preseed) => preseed.check(node),
            Self::Text(text) if text.text.is_empty() || text.text.len() > PROFILE_MAX => {
                refuse("profile", format!("a profile has 1 to {PROFILE_MAX} octets"), "send the text itself")
            }
            Self::Text(_) => Ok(()),
        }
    }

    /// The text that the installer gets.
    pub fn render(&self, around: &Around<'_>) -> String {
        match self {
            Self::Preseed(preseed) => preseed.render(around),
            Self::Text(text) => text
                .text
                .replace("@BILLET_HOSTNAME@", around.node)
                .replace("@BILLET_SERVER@", around.server)
                .replace("@BILLET_PHONE_HOME@", &around.phone_home.to_string()),
        }
    }

    /// Kernel arguments that make the installer fetch this from `url`; a text of the site's own is named by the site's
    /// own arguments.
    ///
    /// # Errors
    /// Where a value cannot be an argument.
    pub fn arguments(&self, node: &str, url: &Url) -> Result<Vec<KernelArg>, ScriptError> {
        let Self::Preseed(preseed) = self else { return Ok(Vec::new()) };
        let (host, domain) = preseed.names(node);
        // `auto` puts questions off until the preseed is there, but the network's come before.
        Ok(vec![
            KernelArg::new("auto", "true")?,
            KernelArg::new("priority", "critical")?,
            KernelArg::new("interface", "auto")?,
            KernelArg::new("hostname", host)?,
            KernelArg::new("domain", domain)?,
            KernelArg::new("url", &url.to_string())?,
        ])
    }

    /// Takes out what nobody may read again.
    pub fn hide_secrets(&mut self) {
        match self {
            Self::Preseed(preseed) => preseed.password_hash = None,
            Self::Text(text) => text.text.clear(),
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        match self {
            Self::Preseed(preseed) => format!("a preseed that erases disk {}", preseed.disk),
            Self::Text(_) => "a profile".to_owned(),
        }
    }
}

fn refuse(code: &'static str, message: String, hint: &str) -> Result<(), DeployRefused> {
    Err(DeployRefused { code, message, hint: hint.to_owned() })
}

impl Preseed {
    fn check(&self, node: &str) -> Result<(), DeployRefused> {
        let hostname = self.hostname.as_deref().unwrap_or(node);
        let password_hash = self.password_hash.as_deref();
        Login { hostname, user: &self.user, ssh_keys: &self.ssh_keys, password_hash }.check()?;
        if self.password_hash.is_none() && self.ssh_keys.is_empty() {
            return refuse("ssh-key", "nobody could log in".to_owned(), "give an SSH key or a password hash");
        }
        if self.disk.is_weak() || self.disk.label().chars().any(char::is_control) {
            let message = format!("disk {} is not named by a serial number or WWN", self.disk);
            return refuse("disk-refused", message, "name it by what is printed on it");
        }
        let mirror = self.mirror.to_string();
        if !mirror.starts_with("http://") && !mirror.starts_with("https://") {
            return refuse("mirror", format!("`{mirror}` is not a mirror"), "give an http or https URL");
        }
        let word = |text: &str, more: &[u8]| {
            (1..=64).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
                && !text.starts_with('-')
        };
        if self.suite.as_deref().is_some_and(|suite| !word(suite, b"-._")) {
            return refuse("suite", "that is not a release of Debian".to_owned(), "such as bookworm");
        }
        if !word(&self.timezone, b"/_+-") {
            return refuse("timezone", "that is not a time zone".to_owned(), "such as Europe/Vienna");
        }
        let bad = self.packages.iter().find(|name| !word(name, b"+-."));
        match bad {
            Some(name) => refuse("package", format!("`{name}` is not a package"), "give names of packages"),
            None if self.packages.len() > PACKAGES_MAX => {
                refuse("package", format!("more than {PACKAGES_MAX} packages"), "use a metapackage")
            }
            None => Ok(()),
        }
    }

    /// Host name and domain.
    fn names<'a>(&'a self, node: &'a str) -> (&'a str, &'a str) {
        let name = self.hostname.as_deref().filter(|name| is_hostname(name)).unwrap_or(node);
        name.split_once('.').unwrap_or((name, ""))
    }

    fn render(&self, around: &Around<'_>) -> String {
        let mut out = String::from("# Written by Billet for one installation.\n");
        let (host, domain) = self.names(around.node);
        set(&mut out, "debian-installer/locale", "string", "en_US.UTF-8");
        set(&mut out, "keyboard-configuration/xkb-keymap", "select", "us");
        set(&mut out, "netcfg/choose_interface", "select", "auto");
        set(&mut out, "netcfg/get_hostname", "string", host);
        set(&mut out, "netcfg/hostname", "string", host);
        set(&mut out, "netcfg/get_domain", "string", domain);
        self.mirror(&mut out);
        self.account(&mut out);
        set(&mut out, "clock-setup/utc", "boolean", "true");
        set(&mut out, "time/zone", "string", &self.timezone);
        self.disk(&mut out);
        set(&mut out, "popularity-contest/participate", "boolean", "false");
        line(&mut out, "tasksel", "tasksel/first", "multiselect", "standard");
        set(&mut out, "pkgsel/include", "string", &self.included());
        set(&mut out, "pkgsel/upgrade", "select", "full-upgrade");
        set(&mut out, "grub-installer/only_debian", "boolean", "true");
        set(&mut out, "grub-installer/with_other_os", "boolean", "false");
        set(&mut out, "finish-install/reboot_in_progress", "note", "");
        set(&mut out, "preseed/late_command", "string", &self.late_command(around.phone_home));
        out
    }

    fn mirror(&self, out: &mut String) {
        let url = self.mirror.to_string();
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", &url));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        set(out, "mirror/protocol", "select", scheme);
        set(out, "mirror/country", "string", "manual");
        set(out, &format!("mirror/{scheme}/hostname"), "string", host);
        set(
            out,
            &format!("mirror/{scheme}/directory"),
            "string",
            &format!("/{}", path.trim_end_matches('/')),
        );
        set(out, &format!("mirror/{scheme}/proxy"), "string", "");
        if let Some(suite) = &self.suite {
            set(out, "mirror/suite", "string", suite);
        }
    }

    fn account(&self, out: &mut String) {
        // A hash that no password has locks the account for passwords (shadow(5)).
        let hash = self.password_hash.as_deref().unwrap_or("!");
        let root = self.user == "root";
        set(out, "passwd/root-login", "boolean", if root { "true" } else { "false" });
        set(out, "passwd/make-user", "boolean", if root { "false" } else { "true" });
        if root {
            set(out, "passwd/root-password-crypted", "password", hash);
        } else {
            set(out, "passwd/username", "string", &self.user);
            set(out, "passwd/user-fullname", "string", &self.user);
            set(out, "passwd/user-password-crypted", "password", hash);
        }
    }

    fn disk(&self, out: &mut String) {
        set(out, "partman/early_command", "string", &self.find_disk());
        set(out, "partman-auto/method", "string", "regular");
        set(out, "partman-auto/choose_recipe", "select", "atomic");
        set(out, "partman-efi/non_efi_system", "boolean", "true");
        for question in [
            "partman-lvm/device_remove_lvm",
            "partman-md/device_remove_md",
            "partman-partitioning/confirm_write_new_label",
            "partman/confirm",
            "partman/confirm_nooverwrite",
        ] {
            set(out, question, "boolean", "true");
        }
        set(out, "partman/choose_partition", "select", "finish");
    }

    /// Finds the one disk of this name by what udev and sysfs say, as names in /dev change. Where it is not one, nothing
    /// is erased: the installer waits for ever, with the reason on its console.
    fn find_disk(&self) -> String {
        let wanted = quoted(self.disk.label());
        format!(
            "wanted={wanted}; found=; count=0; \
             names() {{ {{ udevadm info --query=property --name=\"$1\" | sed -n -e s/^ID_SERIAL_SHORT=//p \
             -e s/^ID_SERIAL=//p -e s/^ID_SCSI_SERIAL=//p; b=/sys/block/${{1##*/}}; \
             for f in $b/serial $b/device/serial $b/wwid $b/device/wwid; do cat $f; echo; done; }} 2>/dev/null; }}; \
             for d in $(list-devices disk); do if [ -n \"$(names $d | while read -r n; do \
             [ \"$n\" = \"$wanted\" ] && echo y; done)\" ]; then found=$d; count=$((count + 1)); fi; done; \
             while [ \"$count\" != 1 ]; do echo \"Billet: $count disks answer to $wanted, nothing is erased\" \
             >${{BILLET_CONSOLE:-/dev/console}}; sleep 60; done; \
             debconf-set partman-auto/disk \"$found\"; debconf-set grub-installer/bootdev \"$found\""
        )
    }

    fn included(&self) -> String {
        let mut names = vec!["openssh-server"];
        if self.user != "root" {
            names.push("sudo");
        }
        names.extend(self.packages.iter().map(String::as_str));
        names.join(" ")
    }

    /// Keys, sudo, and the call that says that the installation is done: tried for a minute, because a machine that
    /// installs itself well must not stay behind for one lost packet.
    fn late_command(&self, phone_home: &Url) -> String {
        let root = self.user == "root";
        let home = if root { "/root".to_owned() } else { format!("/home/{}", self.user) };
        let mut commands = vec!["set -e".to_owned()];
        if !self.ssh_keys.is_empty() {
            commands.push(format!("mkdir -p -m 700 /target{home}/.ssh"));
            for key in &self.ssh_keys {
                commands.push(format!("echo {} >>/target{home}/.ssh/authorized_keys", quoted(key)));
            }
            commands.push(format!("chmod 600 /target{home}/.ssh/authorized_keys"));
            commands.push(format!("in-target chown -R {user}:{user} {home}/.ssh", user = self.user));
        }
        if !root {
            let rule = quoted(&format!("{} ALL=(ALL) NOPASSWD:ALL", self.user));
            commands.push(format!("echo {rule} >/target/etc/sudoers.d/billet"));
            commands.push("chmod 440 /target/etc/sudoers.d/billet".to_owned());
        }
        let url = quoted(&phone_home.to_string());
        commands.push(format!(
            "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do if wget -q -O /dev/null {url}; then break; fi; sleep 5; done"
        ));
        commands.join("; ")
    }
}

/// One word for a POSIX shell, whatever it is.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn set(out: &mut String, question: &str, kind: &str, value: &str) {
    line(out, "d-i", question, kind, value);
}

/// An answer is the rest of its line; a backslash at its end would join the next one to it.
fn line(out: &mut String, owner: &str, question: &str, kind: &str, value: &str) {
    let value: String = value.chars().filter(|c| !c.is_control()).collect();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{owner} {question} {kind} {}", value.trim_end_matches('\\'));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5hbWVzIGFyZSB0ZXh0LCBuZXZlciBtYXJrdXAh o'ps@example";

    fn preseed() -> Preseed {
        serde_json::from_value(serde_json::json!({
            "disk": "serial:S4EV 1'2",
            "mirror": "http://deb.example:3142/debian/",
            "suite": "bookworm",
            "ssh_keys": [KEY],
            "password_hash": "$6$salt$hash",
            "packages": ["tmux", "g++"],
        }))
        .unwrap()
    }

    fn render(profile: &Profile) -> String {
        let phone_home = Url::new("http://10.77.0.1:8080/phone-home/0123").unwrap();
        profile.render(&Around { node: "rack1-07", server: "http://10.77.0.1:8080", phone_home: &phone_home })
    }

    #[test]
    fn a_preseed() {
        let profile = Profile::Preseed(Box::new(preseed()));
        profile.check("rack1-07").unwrap();
        let url = Url::new("http://10.77.0.1:8080/boot/profile/0123").unwrap();
        let args = profile.arguments("rack1-07.example.org", &url).unwrap();
        let args = args.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        insta::assert_snapshot!(format!("{args}\n\n{}", render(&profile)));
    }

    #[test]
    fn what_a_preseed_cannot_hold_is_refused() {
        let bad: [fn(&mut Preseed); 9] = [
            |p| p.disk = "path:pci-0000".parse().unwrap(),
            |p| p.disk = "serial:a\nd-i x".parse().unwrap(),
            |p| p.mirror = Url::new("tftp://x/debian").unwrap(),
            |p| p.suite = Some("a b".into()),
            |p| p.hostname = Some("a b".into()),
            |p| p.user = "Root; x".into(),
            |p| p.password_hash = Some("secret".into()),
            |p| p.timezone = "$(x)".into(),
            |p| p.packages = vec!["--x".into()],
        ];
        for (i, spoil) in bad.iter().enumerate() {
            let mut preseed = preseed();
            spoil(&mut preseed);
            assert!(preseed.check("n1").is_err(), "{i}");
        }
        let nobody = Preseed { password_hash: None, ssh_keys: vec![], ..preseed() };
        assert_eq!(nobody.check("n1").unwrap_err().code, "ssh-key");
    }

    #[test]
    fn texts_are_filled_in() {
        let text = "url --url=@BILLET_SERVER@/x\nnetwork --hostname=@BILLET_HOSTNAME@\n# @BILLET_PHONE_HOME@ @OTHER@\n";
        let profile = Profile::Text(TextProfile { text: text.into() });
        profile.check("n1").unwrap();
        insta::assert_snapshot!(render(&profile), @r"
        url --url=http://10.77.0.1:8080/x
        network --hostname=rack1-07
        # http://10.77.0.1:8080/phone-home/0123 @OTHER@
        ");
        let long = Profile::Text(TextProfile { text: "x".repeat(PROFILE_MAX + 1) });
        assert!(long.check("n1").is_err());
    }

    proptest! {
        /// Whatever is accepted, the answers stay as many as they are, each on its own line.
        #[test]
        fn no_value_becomes_an_answer(disk in "serial:.{1,20}", key in ".{0,40}", package in ".{0,10}") {
            let mut preseed = preseed();
            let lines = render(&Profile::Preseed(Box::new(preseed.clone()))).lines().count();
            preseed.disk = disk.parse().unwrap();
            preseed.ssh_keys.push(format!("{KEY} {key}"));
            preseed.packages.push(package);
            if preseed.check("n1").is_ok() {
                let text = render(&Profile::Preseed(Box::new(preseed)));
                prop_assert_eq!(text.lines().count(), lines);
                prop_assert!(text.lines().all(|l| l.starts_with("d-i ") || l.starts_with("tasksel ") || l.starts_with('#')));
                prop_assert!(text.lines().all(|l| !l.ends_with('\\')));
            }
        }
    }
}
