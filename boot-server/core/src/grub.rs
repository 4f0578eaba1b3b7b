//! The same [scripts](crate::ipxe) for GRUB, which boots machines with Secure Boot: shim starts it, and it starts
//! only a kernel that the distribution signed.
//!
//! GRUB asks for `grub/grub.cfg` by the way that it came itself, TFTP or HTTP: the start script, the same for all
//! machines. That asks for the configuration of *this* machine and runs it, again and again until something boots.
//!
//! All that varies stands in single quotes, in which GRUB's script language knows no syntax at all; what could end
//! them cannot be in a [`Url`] or [`KernelArg`](crate::ipxe::KernelArg), and becomes `_` in text.

use std::fmt;
use std::fmt::Write as _;

use crate::ipxe::{CommandLine, Kernel, PAUSE_SECONDS, Script, TEXT_MAX, Url};

/// What signed GRUB images ask for first (their built-in prefix), below the root of TFTP or HTTP.
pub const START_PATH: &str = "grub/grub.cfg";
/// What the start script asks for begins like this; then follow MAC address, `_`, SMBIOS UUID and [`NODE_END`].
pub const NODE_PATH: &str = "grub/node/";
/// See [`NODE_PATH`].
pub const NODE_END: &str = ".cfg";

/// Where firmware looks on a disk without being told (UEFI 2.10 section 3.5.1.1).
const DISK_LOADER: &str = "/EFI/BOOT/BOOTX64.EFI";

/// The script's text as GRUB's configuration. `base` is the server's own base URL: what lies there is fetched by the way
/// that GRUB came itself, because GRUB before 2.12 knows no HTTP.
pub fn render(script: &Script, base: &Url) -> String {
    let mut out = String::new();
    match script {
        Script::Start { .. } => start(&mut out),
        Script::Agent { message, boot } => linux(&mut out, message, boot, base),
        // It must say that it begins before it starts, which GRUB cannot by TFTP; and a kernel that Secure Boot takes is
        // signed by the distribution or the site, with what it boots. The machine asks again until the order is cleared.
        Script::Kernel { .. } | Script::San { .. } => {
            say(&mut out, "what was ordered can be booted by iPXE only, not with Secure Boot");
        }
        Script::LocalDisk { message, .. } => {
            say(&mut out, message);
            local_disk(&mut out);
        }
        Script::Refuse { message } => say(&mut out, message),
    }
    out
}

/// The configuration on a boot image: starts the agent from the files of these paths on the same volume. The machine has no
/// network here, so nothing is asked again; where it does not start, firmware goes on with what comes next.
pub fn from_image(message: &str, kernel: &str, initrds: &[&str], args: &CommandLine) -> String {
    let mut out = String::new();
    line(&mut out, format_args!("set pager=0"));
    say(&mut out, message);
    boot(&mut out, kernel, initrds, args);
    line(&mut out, format_args!("sleep {PAUSE_SECONDS}"));
    line(&mut out, format_args!("exit 1"));
    out
}

/// What a machine tells in the name that it asks for: MAC address and SMBIOS UUID, as they came. `None` where the name
/// is another one.
pub fn asked(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix(NODE_PATH)?.strip_suffix(NODE_END)?.split_once('_')
}

fn start(out: &mut String) {
    line(out, format_args!("set pager=0"));
    // SMBIOS structure 1, offset 8 (SMBIOS 3.6 section 7.2); without the command the MAC address says enough.
    line(out, format_args!("smbios --type 1 --get-uuid 8 --set billet_uuid"));
    line(out, format_args!("while true; do"));
    line(out, format_args!("source \"$prefix/node/${{net_default_mac}}_${{billet_uuid}}{NODE_END}\""));
    say(out, "asking again");
    line(out, format_args!("sleep {PAUSE_SECONDS}"));
    line(out, format_args!("done"));
}

/// GRUB before 2.12 leaves with success, whatever is asked for, and then firmware stops at its menu (UEFI 2.10 section
/// 3.1.1). So the disk's loader is started from here, the one that the agent's own boot entry names; firmware and shim
/// check it like any other. Only where no disk has one, GRUB leaves.
fn local_disk(out: &mut String) {
    // What is started is told that it came from $root.
    line(out, format_args!("if search --no-floppy --file --set=root {DISK_LOADER}; then"));
    line(out, format_args!("if chainloader {DISK_LOADER}; then boot; fi"));
    line(out, format_args!("fi"));
    line(out, format_args!("exit 1"));
}

fn linux(out: &mut String, message: &str, kernel_boot: &Kernel, base: &Url) {
    let Kernel { kernel, initrds, args } = kernel_boot;
    say(out, message);
    let initrds: Vec<_> = initrds.iter().map(|initrd| path(base, &initrd.url)).collect();
    let initrds: Vec<_> = initrds.iter().map(String::as_str).collect();
    boot(out, &path(base, kernel), &initrds, args);
}

/// The paths have no quote in them: they are of a [`Url`], or names of ours.
fn boot(out: &mut String, kernel: &str, initrds: &[&str], args: &CommandLine) {
    let args: String = args.words().map(|word| format!(" '{word}'")).collect();
    let initrds: String = initrds.iter().map(|path| format!(" '{path}'")).collect();
    line(out, format_args!("if linux '{kernel}'{args}; then"));
    if initrds.is_empty() {
        line(out, format_args!("boot"));
    } else {
        line(out, format_args!("if initrd{initrds}; then boot; fi"));
    }
    line(out, format_args!("fi"));
    say(out, "could not start the kernel");
}

/// The URL as GRUB writes it: `(protocol,server)/path`, or the path alone on the server that it came from, which is its
/// `$root`.
fn path(base: &Url, url: &Url) -> String {
    let (scheme, server, path) = url.parts();
    let (own_scheme, own_server, _) = base.parts();
    if (scheme, server) == (own_scheme, own_server) {
        path.to_owned()
    } else {
        format!("({scheme},{server}){path}")
    }
}

fn line(out: &mut String, words: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{words}");
}

/// Shows text. Only `'` could end the quotes, and control characters could move the cursor.
fn say(out: &mut String, text: &str) {
    let harmless = |c: char| c == ' ' || (c.is_ascii_graphic() && c != '\'' && c != '\\');
    let text: String = text.chars().take(TEXT_MAX).map(|c| if harmless(c) { c } else { '_' }).collect();
    line(out, format_args!("echo 'Billet: {}'", text.trim()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ipxe::{BiosDisk, Initrd, KernelArg};

    fn url(text: &str) -> Url {
        Url::new(text).unwrap()
    }

    fn base() -> Url {
        url("http://10.77.0.1:8080")
    }

    fn agent(args: Vec<KernelArg>) -> Script {
        Script::Agent {
            message: "rack1-07 starts the agent".into(),
            boot: Kernel {
                kernel: url("http://10.77.0.1:8080/boot/files/vmlinuz"),
                initrds: ["http://10.77.0.1:8080/boot/files/initramfs", "http://10.88.0.1/boot/fw"]
                    .map(|text| Initrd { url: url(text), name: None })
                    .into(),
                args: CommandLine::new(args).unwrap(),
            },
        }
    }

    #[test]
    fn scripts() {
        let args = vec![
            KernelArg::new("console", "ttyS0,115200").unwrap(),
            KernelArg::new("billet.server", "http://10.77.0.1:8080").unwrap(),
            KernelArg::flag("quiet").unwrap(),
        ];
        let disk = Script::LocalDisk { message: "its disk".into(), bios: BiosDisk::NextDevice };
        let mut text = String::new();
        for script in [
            Script::Start { base: base() },
            agent(args),
            disk,
            Script::Refuse { message: "it's not 'known'".into() },
        ] {
            text.push_str(&render(&script, &base()));
            text.push('\n');
        }
        let image = CommandLine::new(vec![KernelArg::flag("quiet").unwrap()]).unwrap();
        text.push_str(&from_image(
            "rack1-07 starts the agent",
            "/vmlinuz",
            &["/initramfs", "/firmware"],
            &image,
        ));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn who_asks_stands_in_the_name() {
        let name = "grub/node/52:54:00:77:00:01_b111e700-0000-4000-8000-000000000001.cfg";
        assert_eq!(asked(name), Some(("52:54:00:77:00:01", "b111e700-0000-4000-8000-000000000001")));
        assert_eq!(asked("grub/node/_.cfg"), Some(("", "")));
        for other in ["grub/grub.cfg", "grub/node/52:54.cfg", "grub/node/a_b", "node/a_b.cfg", ""] {
            assert_eq!(asked(other), None, "{other}");
        }
    }

    /// Words of a line as GRUB's shell splits it: quotes are single ones only, and hold everything.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (i, part) in line.split('\'').enumerate() {
            if i % 2 == 1 {
                words.push(part.to_owned());
            } else {
                words.extend(part.split_whitespace().map(str::to_owned));
            }
        }
        words
    }

    proptest! {
        #[test]
        fn no_text_becomes_syntax(message in any::<String>()) {
            let text = render(&Script::Refuse { message }, &base());
            prop_assert_eq!(text.lines().count(), 1);
            let inside = text.trim_end().strip_prefix("echo '").and_then(|t| t.strip_suffix('\'')).unwrap_or("'");
            prop_assert!(!inside.contains('\''), "{}", text);
            prop_assert!(inside.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{}", text);
        }

        #[test]
        fn no_argument_becomes_syntax(key in "[a-z.]{0,8}", value in any::<String>(), plain in "[ -~]{0,20}") {
            for value in [value, plain] {
                let Ok(arg) = KernelArg::new(&key, &value) else { continue };
                let text = render(&agent(vec![arg]), &base());
                let line = text.lines().nth(1).unwrap_or_default();
                let expected = ["if", "linux", "/boot/files/vmlinuz", &format!("{key}={value}"), ";", "then"];
                prop_assert_eq!(words(line), expected);
            }
        }

        #[test]
        fn no_url_becomes_syntax(path in "[ -~]{0,20}") {
            let Ok(kernel) = Url::new(format!("http://10.77.0.1:8080/{path}")) else { return Ok(()) };
            let boot = Kernel { kernel, initrds: Vec::new(), args: CommandLine::default() };
            let script = Script::Agent { message: String::new(), boot };
            let text = render(&script, &base());
            let expected = ["if", "linux", &format!("/{path}"), ";", "then"];
            prop_assert_eq!(words(text.lines().nth(1).unwrap_or_default()), expected);
        }
    }
}
