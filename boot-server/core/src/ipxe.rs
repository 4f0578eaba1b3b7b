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

/// Longest kernel command line, in octets: the x86 kernel's `COMMAND_LINE_SIZE` less its terminating zero.
pub const COMMAND_LINE_MAX: usize = 2047;
/// Longest URL, in octets.
pub const URL_MAX: usize = 512;
/// Longest text shown on the console, in characters: one line of a VGA text screen beside our name.
pub const TEXT_MAX: usize = 70;
/// Pause before a machine asks again, in seconds: a thousand waiting machines ask 100 times a second.
pub const PAUSE_SECONDS: u32 = 10;

/// A URL that can stand in a script as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(String);

/// One argument of the kernel command line, `key=value` or `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelArg {
    key: String,
    value: Option<String>,
}

/// What is not allowed in a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// Not http, https or tftp, or with characters that a URL or a script cannot have.
    #[error("`{0}` cannot be used as a URL in a boot script")]
    Url(String),
    /// A key that is not of letters, digits, `.`, `_` and `-`.
    #[error("`{0}` is not the name of a kernel argument")]
    Key(String),
    /// A value with white space, quotes, `$`, `\` or anything that is not ASCII.
    #[error("the value of kernel argument `{0}` has characters that it cannot have")]
    Value(String),
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
        /// Kernel.
        kernel: Url,
        /// Initial RAM disks, in order.
        initrds: Vec<Url>,
        /// Kernel arguments; `initrd=` is added here.
        args: CommandLine,
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
            Self::Agent { message, kernel, initrds, args } => agent(&mut out, message, kernel, initrds, args),
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

fn agent(out: &mut String, message: &str, kernel: &Url, initrds: &[Url], args: &CommandLine) {
    say(out, message);
    line(out, format_args!("imgfree"));
    // The kernel's EFI stub finds its initial RAM disks by these names; BIOS needs no argument and ignores it.
    let names: String = (0..initrds.len()).map(|i| format!(" initrd=initrd{i}")).collect();
    line(out, format_args!("kernel --name kernel {kernel}{names}{args} || goto failed"));
    for (i, initrd) in initrds.iter().enumerate() {
        line(out, format_args!("initrd --name initrd{i} {initrd} || goto failed"));
    }
    line(out, format_args!("boot ||"));
    line(out, format_args!(":failed"));
    say(out, "could not start the agent");
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
        // `--` alone would end the kernel's own arguments.
        let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if plain && key.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            Ok(Self { key: key.into(), value: None })
        } else {
            Err(ScriptError::Key(key.into()))
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
        // Room for 8 initial RAM disks.
        if len + 8 * " initrd=initrd0".len() > COMMAND_LINE_MAX {
            Err(ScriptError::Long(len))
        } else {
            Ok(all)
        }
    }

    /// Each argument as one word.
    pub(crate) fn words(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(KernelArg::to_string)
    }
}

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
        let agent = Script::Agent {
            message: "rack1-07 starts the agent".into(),
            kernel: url("http://10.77.0.1:8080/boot/files/vmlinuz"),
            initrds: vec![
                url("http://10.77.0.1:8080/boot/files/ramdisk"),
                url("http://10.77.0.1:8080/boot/files/fw"),
            ],
            args: args.unwrap(),
        };
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
