//! iPXE scripts. Everything that varies comes in as a type that cannot hold what iPXE would take for syntax, or as text
//! that [`Script::render`] makes harmless: there is one escaping place, and it is in this file.
//!
//! The flow: DHCP names the start script, the same for all machines, which asks for the script of *this* machine and
//! runs it. A machine script ends by booting, or by `set leave` and `exit`, which makes the start script leave iPXE
//! with that status, or by a plain `exit`, which makes it ask again. No path ends in iPXE's shell.
//!
//! Only commands of iPXE of January 2019 (what Debian 12 ships) are used.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::words::{ChapText, FileName, Host, Iqn, text_serde};

/// Longest kernel command line, in octets: the x86 kernel's `COMMAND_LINE_SIZE` less its terminating zero.
pub const COMMAND_LINE_MAX: usize = 2047;
/// Longest URL, in octets.
pub const URL_MAX: usize = 512;
/// Longest text shown on the console, in characters: one line of a VGA text screen beside our name.
pub const TEXT_MAX: usize = 70;
/// Pause before a machine asks again, in seconds: a thousand waiting machines ask 100 times a second.
pub const PAUSE_SECONDS: u32 = 10;
/// Initial RAM disks of one boot: installers have one or two, wimboot up to six files.
pub const INITRDS_MAX: usize = 8;

/// BIOS drive number under which a disk on the network appears: the first hard disk.
const SAN_DRIVE: u8 = 0x80;

/// A URL that can stand in a script as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(String);

/// One argument of the kernel command line: `key=value`, `key`, or a separator (`--`, `---`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelArg {
    key: String,
    value: Option<String>,
}

/// A kernel with all that it needs, checked: what the scripts of every boot loader are written from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Kernel, or another program that boots like one (wimboot, memdisk).
    pub kernel: Url,
    /// Initial RAM disks, in order; at most [`INITRDS_MAX`].
    pub initrds: Vec<Initrd>,
    /// Kernel arguments; `initrd=` is added by the script.
    pub args: CommandLine,
}

/// A file that is loaded beside a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initrd {
    /// Where it is.
    pub url: Url,
    /// The name under which the kernel finds it, where it looks for one (wimboot). Such a file is no initial RAM disk
    /// of Linux, so no `initrd=` names it.
    pub name: Option<FileName>,
}

/// A disk on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum San {
    /// A disk image or ISO by HTTP; read as the machine asks for it.
    Http(Url),
    /// A logical unit of an iSCSI target.
    Iscsi(Box<Iscsi>),
}

/// A logical unit and how to log in to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iscsi {
    /// The target's portal.
    pub server: Host,
    /// Its TCP port.
    pub port: u16,
    /// Logical unit.
    pub lun: u16,
    /// The target.
    pub target: Iqn,
    /// What the machine calls itself.
    pub initiator: Iqn,
    /// CHAP name and secret (RFC 1994).
    pub chap: Option<(ChapText, ChapText)>,
}

/// What is not allowed in a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// Not http, https or tftp, or with characters that a URL or a script cannot have.
    #[error("`{0}` cannot be used as a URL in a boot script")]
    Url(String),
    /// A key that is not of letters, digits and `. _ - / :`, or `initrd`, which scripts add themselves.
    #[error("`{0}` is not the name of a kernel argument")]
    Key(String),
    /// A value with white space, quotes, `$`, `\` or anything that is not ASCII.
    #[error("the value of kernel argument `{0}` has characters that it cannot have")]
    Value(String),
    /// Too many initial RAM disks.
    #[error("{0} initial RAM disks are more than {INITRDS_MAX}")]
    Initrds(usize),
    /// Too many arguments.
    #[error("a kernel command line of {0} octets is longer than {COMMAND_LINE_MAX}")]
    Long(usize),
}

/// The arguments of one boot, together no longer than [`COMMAND_LINE_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine(Vec<KernelArg>);

/// How a BIOS machine goes on to its disk. UEFI has one way: leave with an error, so that the firmware tries the next
/// boot option (with success it would stop at its menu, UEFI 2.10 section 3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BiosDisk {
    /// Leave; the BIOS tries the next boot device of its own order.
    NextDevice,
    /// Start the boot record of this drive, counting from 0x80; for a BIOS that does not go on by itself.
    Drive(u8),
}

/// A script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// The first one, the same for all machines: tells the server who this is and runs what it answers.
    Start {
        /// Base of the boot URLs, without a trailing slash.
        base: Url,
    },
    /// Starts the agent.
    Agent {
        /// What this is, for the one who looks at the screen.
        message: String,
        /// Kernel and ramdisk.
        boot: Kernel,
    },
    /// Starts what somebody ordered. The server is told when all of it has arrived; only then it is started.
    Kernel {
        /// What this is, for the one who looks at the screen.
        message: String,
        /// What to start.
        boot: Kernel,
        /// Fetched right before the start.
        begun: Url,
    },
    /// Boots from a disk on the network. The server is told when the disk answers; only then it is booted.
    San {
        /// What this is, for the one who looks at the screen.
        message: String,
        /// The disk.
        disk: San,
        /// Fetched right before the start.
        begun: Url,
    },
    /// Boots what is on the disk.
    LocalDisk {
        /// Why, for the one who looks at the screen.
        message: String,
        /// How on BIOS.
        bios: BiosDisk,
    },
    /// Shows a message; the start script asks again after a pause.
    Refuse {
        /// The message.
        message: String,
    },
}

impl Script {
    /// The script's text.
    pub fn render(&self) -> String {
        let mut out = String::from("#!ipxe\n");
        match self {
            Self::Start { base } => start(&mut out, base),
            Self::Agent { message, boot } => kernel(&mut out, message, boot, None),
            Self::Kernel { message, boot, begun } => kernel(&mut out, message, boot, Some(begun)),
            Self::San { message, disk, begun } => san(&mut out, message, disk, begun),
            Self::LocalDisk { message, bios } => local_disk(&mut out, message, *bios),
            Self::Refuse { message } => {
                say(&mut out, message);
                line(&mut out, format_args!("exit 0"));
            }
        }
        out
    }
}

/// The query tells who asks; the server must not believe it. `:uristring` escapes what a machine's maker wrote there.
fn start(out: &mut String, base: &Url) {
    let query = "mac=${netX/mac:hexhyp}&uuid=${uuid}&serial=${serial:uristring}\
                 &manufacturer=${manufacturer:uristring}&product=${product:uristring}\
                 &platform=${platform}&buildarch=${buildarch}";
    line(out, format_args!(":ask"));
    line(out, format_args!("imgfree"));
    line(out, format_args!("set leave never"));
    line(out, format_args!("imgfetch --name billet {base}/boot/ipxe?{query} || goto again"));
    line(out, format_args!("imgexec billet ||"));
    line(out, format_args!("iseq ${{leave}} 0 && exit 0 ||"));
    line(out, format_args!("iseq ${{leave}} 1 && exit 1 ||"));
    line(out, format_args!(":again"));
    say(out, "asking again");
    line(out, format_args!("sleep {PAUSE_SECONDS}"));
    line(out, format_args!("goto ask"));
}

fn kernel(out: &mut String, message: &str, boot: &Kernel, begun: Option<&Url>) {
    let Kernel { kernel, initrds, args } = boot;
    say(out, message);
    line(out, format_args!("imgfree"));
    // The kernel's EFI stub finds its initial RAM disks by these names; BIOS needs no argument and ignores it.
    let numbered =
        |(i, initrd): (usize, &Initrd)| initrd.name.is_none().then(|| format!(" initrd=initrd{i}"));
    let names: String = initrds.iter().enumerate().filter_map(numbered).collect();
    line(out, format_args!("kernel --name kernel {kernel}{names}{args} || goto failed"));
    for (i, Initrd { url, name }) in initrds.iter().enumerate() {
        match name {
            // wimboot looks for the name in the command line (BIOS) and in the file's own name (UEFI).
            Some(name) => line(out, format_args!("initrd --name {name} {url} {name} || goto failed")),
            None => line(out, format_args!("initrd --name initrd{i} {url} || goto failed")),
        }
    }
    if let Some(url) = begun {
        tell(out, url);
    }
    line(out, format_args!("boot ||"));
    line(out, format_args!(":failed"));
    say(out, if begun.is_none() { "could not start the agent" } else { "could not start what was ordered" });
    line(out, format_args!("exit 0"));
}

/// Tells the server that the boot begins, and does not go on where it cannot: a machine that is to boot this once must
/// not boot it twice. The answer is an image like any other, and must not reach the kernel as a RAM disk.
fn tell(out: &mut String, begun: &Url) {
    line(out, format_args!("imgfetch --name begun {begun} || goto failed"));
    line(out, format_args!("imgfree begun ||"));
}

/// The disk is attached before the server is told, so that a target that does not answer uses up no order.
fn san(out: &mut String, message: &str, disk: &San, begun: &Url) {
    say(out, message);
    line(out, format_args!("imgfree"));
    match disk {
        // A table that described this disk would be of no use to what boots from it.
        San::Http(url) => {
            line(out, format_args!("sanhook --no-describe --drive {SAN_DRIVE:#04x} {url} || goto failed"));
        }
        San::Iscsi(iscsi) => {
            let Iscsi { server, port, lun, target, initiator, chap } = &**iscsi;
            line(out, format_args!("set initiator-iqn {initiator}"));
            if let Some((user, secret)) = chap {
                line(out, format_args!("set username:hex {}", user.hex()));
                line(out, format_args!("set password:hex {}", secret.hex()));
            }
            let root = format!("iscsi:{server}::{port}:{lun:x}:{target}");
            line(out, format_args!("sanhook --drive {SAN_DRIVE:#04x} {root} || goto failed"));
        }
    }
    tell(out, begun);
    line(out, format_args!("sanboot --no-describe --keep --drive {SAN_DRIVE:#04x} ||"));
    line(out, format_args!("sanunhook --drive {SAN_DRIVE:#04x} ||"));
    line(out, format_args!(":failed"));
    if matches!(disk, San::Iscsi(_)) {
        line(out, format_args!("clear username ||"));
        line(out, format_args!("clear password ||"));
    }
    say(out, "could not boot from the network disk that was ordered");
    line(out, format_args!("exit 0"));
}

fn local_disk(out: &mut String, message: &str, bios: BiosDisk) {
    say(out, message);
    line(out, format_args!("iseq ${{platform}} efi && goto efi ||"));
    if let BiosDisk::Drive(drive) = bios {
        line(out, format_args!("sanboot --no-describe --drive {drive:#04x} ||"));
    }
    line(out, format_args!("set leave 0"));
    line(out, format_args!("exit 0"));
    line(out, format_args!(":efi"));
    line(out, format_args!("set leave 1"));
    line(out, format_args!("exit 1"));
}

fn line(out: &mut String, words: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{words}");
}

/// Shows text. iPXE expands `${}`, and takes the words `||`, `&&` and `#` for syntax: every character that could be part
/// of those, or that a console may not have, becomes `_`.
fn say(out: &mut String, text: &str) {
    let harmless = |c: char| c.is_ascii_alphanumeric() || " .,:;/()+-_@=%!?*'[]<>".contains(c);
    let text: String = text.chars().take(TEXT_MAX).map(|c| if harmless(c) { c } else { '_' }).collect();
    line(out, format_args!("echo Billet: {}", text.trim()));
}

impl Url {
    /// Checks a URL.
    ///
    /// # Errors
    /// [`ScriptError::Url`].
    pub fn new(text: impl Into<String>) -> Result<Self, ScriptError> {
        let text = text.into();
        let scheme =
            ["http://", "https://", "tftp://"].iter().any(|s| text.starts_with(s) && text.len() > s.len());
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"$\\\"'`{}#<>|^".contains(&b));
        if scheme && plain && text.len() <= URL_MAX { Ok(Self(text)) } else { Err(ScriptError::Url(text)) }
    }

    /// Scheme, server with port, and the rest from its first slash on.
    pub(crate) fn parts(&self) -> (&str, &str, &str) {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let (server, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        (scheme, server, path)
    }
}

impl FromStr for Url {
    type Err = ScriptError;
    fn from_str(s: &str) -> Result<Self, ScriptError> {
        Self::new(s)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl KernelArg {
    /// `key=value`.
    ///
    /// # Errors
    /// [`ScriptError::Key`], [`ScriptError::Value`].
    pub fn new(key: &str, value: &str) -> Result<Self, ScriptError> {
        let plain = value.bytes().all(|b| b.is_ascii_graphic() && !b"$\\\"'`".contains(&b));
        if !plain {
            return Err(ScriptError::Value(key.into()));
        }
        Ok(Self { value: Some(value.into()), ..Self::flag(key)? })
    }

    /// `key` alone.
    ///
    /// # Errors
    /// [`ScriptError::Key`].
    pub fn flag(key: &str) -> Result<Self, ScriptError> {
        let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:".contains(&b));
        // `--` alone would end the kernel's own arguments, and scripts name the initial RAM disks themselves.
        if plain && key.starts_with(|c: char| c.is_ascii_alphanumeric()) && key != "initrd" {
            Ok(Self { key: key.into(), value: None })
        } else {
            Err(ScriptError::Key(key.into()))
        }
    }

    /// One word as a person types it: also `--`, after which arguments are for init, and `---`, after which Debian's
    /// installer takes them over into the installed system.
    ///
    /// # Errors
    /// [`ScriptError::Key`], [`ScriptError::Value`].
    pub fn parse(word: &str) -> Result<Self, ScriptError> {
        match word.split_once('=') {
            Some((key, value)) => Self::new(key, value),
            None if ["--", "---"].contains(&word) => Ok(Self { key: word.into(), value: None }),
            None => Self::flag(word),
        }
    }

    /// Its name.
    pub fn key(&self) -> &str {
        &self.key
    }

    fn is_separator(&self) -> bool {
        self.key.starts_with('-')
    }

    /// With every `placeholder` in its value replaced.
    ///
    /// # Errors
    /// [`ScriptError::Value`] where `by` cannot be part of a value.
    pub fn filled(self, placeholder: &str, by: &str) -> Result<Self, ScriptError> {
        match &self.value {
            Some(value) if value.contains(placeholder) => {
                Self::new(&self.key, &value.replace(placeholder, by))
            }
            _ => Ok(self),
        }
    }
}

impl fmt::Display for KernelArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        self.value.iter().try_for_each(|v| write!(f, "={v}"))
    }
}

impl CommandLine {
    /// Checks the length.
    ///
    /// # Errors
    /// [`ScriptError::Long`].
    pub fn new(args: Vec<KernelArg>) -> Result<Self, ScriptError> {
        let all = Self(args);
        let len = all.to_string().len();
        if len + INITRDS_MAX * " initrd=initrd0".len() > COMMAND_LINE_MAX {
            Err(ScriptError::Long(len))
        } else {
            Ok(all)
        }
    }

    /// Each argument as one word.
    pub(crate) fn words(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(KernelArg::to_string)
    }

    /// With `more` before the first separator, so that the kernel and the installer itself see them.
    ///
    /// # Errors
    /// [`ScriptError::Long`].
    pub fn with(&self, more: Vec<KernelArg>) -> Result<Self, ScriptError> {
        let end = self.0.iter().position(KernelArg::is_separator).unwrap_or(self.0.len());
        let (first, last) = self.0.split_at(end);
        Self::new(first.iter().cloned().chain(more).chain(last.iter().cloned()).collect())
    }

    /// With every `placeholder` in the values replaced.
    ///
    /// # Errors
    /// [`ScriptError::Value`], [`ScriptError::Long`].
    pub fn filled(&self, placeholder: &str, by: &str) -> Result<Self, ScriptError> {
        let args = self.0.iter().cloned().map(|arg| arg.filled(placeholder, by));
        Self::new(args.collect::<Result<_, _>>()?)
    }

    /// True where an argument of this name is given.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|arg| arg.key == key)
    }
}

impl FromStr for CommandLine {
    type Err = ScriptError;
    fn from_str(s: &str) -> Result<Self, ScriptError> {
        Self::new(s.split_whitespace().map(KernelArg::parse).collect::<Result<_, _>>()?)
    }
}

text_serde!(Url, ToString::to_string);
text_serde!(CommandLine, |line| line.to_string().trim().to_owned());

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> Url {
        Url::new(text).unwrap()
    }

    #[test]
    fn scripts() {
        let args = CommandLine::new(vec![
            KernelArg::new("console", "ttyS0,115200").unwrap(),
            KernelArg::new("billet.server", "http://10.77.0.1:8080").unwrap(),
            KernelArg::flag("quiet").unwrap(),
        ]);
        let plain = |text| Initrd { url: url(text), name: None };
        let boot = Kernel {
            kernel: url("http://10.77.0.1:8080/boot/files/vmlinuz"),
            initrds: vec![
                plain("http://10.77.0.1:8080/boot/files/ramdisk"),
                plain("http://10.77.0.1:8080/boot/files/fw"),
            ],
            args: args.unwrap(),
        };
        let agent = Script::Agent { message: "rack1-07 starts the agent".into(), boot };
        let mut text = String::new();
        for script in [
            Script::Start { base: url("http://10.77.0.1:8080") },
            agent,
            Script::LocalDisk { message: "rack1-07 boots its disk".into(), bios: BiosDisk::NextDevice },
            Script::LocalDisk { message: "rack1-07 boots its disk".into(), bios: BiosDisk::Drive(0x80) },
            Script::Refuse { message: "this machine waits for approval".into() },
        ] {
            text.push_str(&script.render());
            text.push('\n');
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn scripts_of_orders() {
        let begun = url("http://10.77.0.1:8080/boot/begun/0123");
        let args =
            "auto=true url=http://10.77.0.1:8080/boot/profile/0123 netcfg/choose_interface=auto --- quiet";
        let installer = Kernel {
            kernel: url("http://10.77.0.1:8080/boot/media/debian/linux"),
            initrds: vec![Initrd { url: url("http://deb.example/initrd.gz"), name: None }],
            args: args.parse().unwrap(),
        };
        let named = |name: &str| Initrd {
            url: url(&format!("http://10.77.0.1:8080/boot/media/win/{name}")),
            name: Some(name.parse().unwrap()),
        };
        let pe = Kernel {
            kernel: url("http://10.77.0.1:8080/boot/media/win/wimboot"),
            initrds: vec![named("BCD"), named("boot.sdi"), named("boot.wim")],
            args: CommandLine::default(),
        };
        let iscsi = Iscsi {
            server: "10.77.0.9".parse().unwrap(),
            port: 3260,
            lun: 17,
            target: "iqn.2026-01.rack:vol1".parse().unwrap(),
            initiator: "iqn.2010-04.org.ipxe:rack1-07".parse().unwrap(),
            chap: Some(("dpu1".parse().unwrap(), "se$cret || x".parse().unwrap())),
        };
        let message = || "rack1-07 boots what was ordered".to_owned();
        let iso = San::Http(url("http://10.77.0.1:8080/boot/media/live.iso"));
        let mut text = String::new();
        for script in [
            Script::Kernel { message: message(), boot: installer, begun: begun.clone() },
            Script::Kernel { message: message(), boot: pe, begun: begun.clone() },
            Script::San { message: message(), disk: iso, begun: begun.clone() },
            Script::San { message: message(), disk: San::Iscsi(Box::new(iscsi)), begun },
        ] {
            text.push_str(&script.render());
            text.push('\n');
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn arguments_of_installers() {
        let line: CommandLine = "auto=true priority=critical a/b=c --- quiet".parse().unwrap();
        let more = vec![KernelArg::new("url", "http://x/{p}").unwrap()];
        let line = line.with(more).unwrap().filled("{p}", "0123").unwrap();
        assert_eq!(line.to_string(), " auto=true priority=critical a/b=c url=http://x/0123 --- quiet");
        assert!(line.has("url") && !line.has("initrd"));
        assert!(line.filled("0123", "a b").is_err());
        for bad in ["initrd=x", "initrd", "----", "-x", "||", "&&", "a || b", "#x", "a=${b}", "\"a", "a;b"] {
            assert!(bad.parse::<CommandLine>().is_err(), "{bad}");
        }
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<CommandLine>(&json).unwrap(), line);
    }

    #[test]
    fn what_a_script_cannot_hold_is_refused() {
        for bad in
            ["", "http://", "file:///etc/passwd", "http://a b", "http://a\nshell", "http://a/${net0/mac}"]
        {
            assert!(Url::new(bad).is_err(), "{bad:?}");
        }
        assert!(Url::new("http://10.0.0.1:8080/boot/ipxe?mac=52-54&uuid=1%20").is_ok());
        for bad in ["a b", "a\nb", "\"a\"", "${x}", "a\\", "ä"] {
            assert_eq!(KernelArg::new("k", bad), Err(ScriptError::Value("k".into())), "{bad:?}");
        }
        for bad in ["", "--", "a b", "a=b", "||", "-x"] {
            assert_eq!(KernelArg::flag(bad), Err(ScriptError::Key(bad.into())), "{bad:?}");
        }
        let long = KernelArg::new("k", &"x".repeat(COMMAND_LINE_MAX)).unwrap();
        assert!(matches!(CommandLine::new(vec![long]), Err(ScriptError::Long(_))));
    }

    proptest! {
        /// Whatever is taken as arguments stays one line of plain words, none of which iPXE takes for syntax.
        #[test]
        fn no_argument_becomes_syntax(text in "([ -~]{0,30} ?){0,4}|(a=|--|[a-z/]+=).*|.*") {
            if let Ok(args) = text.parse::<CommandLine>() {
                let script = Script::Agent {
                    message: String::new(),
                    boot: Kernel { kernel: url("http://x/k"), initrds: vec![], args: args.clone() },
                };
                let text = script.render();
                let kernel: Vec<&str> = text.lines().filter(|l| l.starts_with("kernel ")).collect();
                prop_assert_eq!(text.lines().count(), 8);
                let words: Vec<&str> = kernel[0].split(' ').collect();
                prop_assert_eq!(words.iter().filter(|w| **w == "||").count(), 1);
                let own = &words[4..words.len() - 3];
                prop_assert!(own.iter().all(|w| !w.contains("${") && !["&&", ""].contains(w)), "{:?}", own);
                prop_assert_eq!(text.parse::<CommandLine>().is_err(), true);
                prop_assert_eq!(args.to_string().parse::<CommandLine>().unwrap(), args);
            }
        }

        #[test]
        fn no_text_becomes_syntax(message in any::<String>()) {
            let plain = Script::Refuse { message: "x".into() }.render();
            let text = Script::Refuse { message }.render();
            prop_assert_eq!(text.lines().count(), plain.lines().count());
            let shown = text.lines().nth(1).unwrap_or_default();
            prop_assert!(shown.starts_with("echo Billet: ") || shown == "echo Billet:");
            let syntax = shown.contains(['$', '|', '&', '#', '{', '\\', '"']);
            prop_assert!(!syntax, "{}", shown);
        }
    }
}
