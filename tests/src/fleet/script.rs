//! iPXE's script language, as far as boot scripts use it: labels, `goto`, `||`, `&&`, settings, images. Pure: what needs
//! the network or time is returned and answered later. Follows iPXE's `core/exec.c` and `image/script.c`: a command that
//! fails ends its script unless `||` follows; an empty command succeeds.

use std::collections::BTreeMap;
use std::time::Duration;

/// Commands in one script without a wait: more is a loop.
const COMMANDS_MAX: u32 = 1000;
/// Scripts that run each other.
const DEPTH_MAX: usize = 8;

/// A machine's script interpreter.
#[derive(Debug)]
pub struct Interpreter {
    settings: BTreeMap<String, String>,
    images: BTreeMap<String, Image>,
    order: Vec<String>,
    selected: Option<(String, String)>,
    stack: Vec<Frame>,
    waits_for: Option<(String, Kind)>,
    commands: u32,
}

#[derive(Debug)]
struct Frame {
    lines: Vec<String>,
    next: usize,
    /// Rest of the line that is being executed.
    tokens: Vec<String>,
    status: i32,
}

#[derive(Debug, Clone)]
struct Image {
    url: String,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    Kernel,
}

/// What is to be done for the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Fetch this and call [`Interpreter::fetched`]. `script` where its text may be wanted.
    Fetch {
        /// Where.
        url: String,
        /// False for kernels and RAM disks.
        script: bool,
    },
    /// Wait, then go on.
    Sleep(Duration),
    /// The kernel starts, with these arguments.
    Boot {
        /// Its command line, without the image name.
        arguments: String,
    },
    /// Start from a disk.
    Disk,
    /// iPXE ends with this status.
    Exit(i32),
    /// The script cannot go on.
    Failed(String),
}

/// What a command led to.
enum Done {
    Status(i32),
    Wait(Op),
}

impl Interpreter {
    /// Starts to run `text`; `settings` as iPXE names them, without `${}`.
    pub fn new(text: &str, settings: BTreeMap<String, String>) -> Self {
        let mut new = Self {
            settings,
            images: BTreeMap::new(),
            order: Vec::new(),
            selected: None,
            stack: Vec::new(),
            waits_for: None,
            commands: 0,
        };
        new.call(text);
        new
    }

    /// The answer to [`Op::Fetch`]: the text, or `None` where it failed.
    pub fn fetched(&mut self, answer: Option<String>) {
        let Some((name, kind)) = self.waits_for.take() else { return };
        let status = i32::from(answer.is_none());
        match (answer, kind) {
            (Some(text), Kind::Image) => {
                if let Some(image) = self.images.get_mut(&name) {
                    image.text = text;
                }
            }
            (Some(_), Kind::Kernel) => {}
            (None, _) => {
                self.images.remove(&name);
            }
        }
        if let Some(frame) = self.stack.last_mut() {
            frame.status = status;
        }
    }

    /// Goes on until something is to be done.
    pub fn run(&mut self) -> Op {
        self.commands = 0;
        loop {
            let Some(frame) = self.stack.last_mut() else { return Op::Exit(0) };
            if let Some(command) = frame.next_command() {
                self.commands += 1;
                if self.commands > COMMANDS_MAX {
                    return Op::Failed("the script runs in a circle".to_owned());
                }
                let words: Vec<String> = command.iter().map(|word| self.expand(word)).collect();
                match self.execute(&words) {
                    Ok(Done::Status(status)) => {
                        if let Some(frame) = self.stack.last_mut() {
                            frame.status = status;
                        }
                    }
                    Ok(Done::Wait(op)) => return op,
                    Err(why) => return Op::Failed(why),
                }
            } else if frame.status != 0 {
                let status = frame.status;
                if let Some(exit) = self.leave(status) {
                    return exit;
                }
            } else if let Some(line) = frame.lines.get(frame.next) {
                frame.tokens = line.split_whitespace().map(str::to_owned).collect();
                frame.next += 1;
            } else if let Some(exit) = self.leave(0) {
                return exit;
            }
        }
    }

    /// Ends the running script; the status of the command that ran it. `Some` where it was the first script.
    fn leave(&mut self, status: i32) -> Option<Op> {
        self.stack.pop();
        match self.stack.last_mut() {
            Some(frame) => {
                frame.status = status;
                None
            }
            None => Some(Op::Exit(status)),
        }
    }

    fn call(&mut self, text: &str) {
        let lines = text.lines().map(|l| l.trim().to_owned()).collect();
        self.stack.push(Frame { lines, next: 0, tokens: Vec::new(), status: 0 });
    }

    fn execute(&mut self, words: &[String]) -> Result<Done, String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Some((command, args)) = words.split_first() else { return Ok(Done::Status(0)) };
        let ok = Ok(Done::Status(0));
        match (*command, args) {
            ("echo" | "isset" | "ifopen" | "ifclose" | "ifstat" | "imgstat" | "sync" | "prompt", _) => ok,
            ("imgfree", _) => {
                self.images.clear();
                self.order.clear();
                self.selected = None;
                ok
            }
            ("set", [name, value @ ..]) => {
                self.settings.insert((*name).to_owned(), value.join(" "));
                ok
            }
            ("iseq", [a, b]) => Ok(Done::Status(i32::from(a != b))),
            ("iseq", _) => Ok(Done::Status(1)),
            ("goto", [label]) => self.goto(label).map(Done::Status),
            ("sleep", [seconds]) => {
                Ok(Done::Wait(Op::Sleep(Duration::from_secs(seconds.parse().unwrap_or(1)))))
            }
            ("exit", args) => {
                let status = args.first().and_then(|s| s.parse().ok()).unwrap_or(0);
                Ok(self.leave(status).map_or(Done::Status(status), Done::Wait))
            }
            ("imgfetch" | "imgselect" | "kernel" | "initrd" | "module", args) => self.fetch(command, args),
            ("imgexec" | "chain" | "boot", args) => self.run_image(args),
            ("sanboot", _) => Ok(Done::Wait(Op::Disk)),
            (other, _) => Err(format!("a command that the fleet does not know: {other}")),
        }
    }

    fn goto(&mut self, label: &str) -> Result<i32, String> {
        let frame = self.stack.last_mut().ok_or("no script runs")?;
        let mark = format!(":{label}");
        let at = frame.lines.iter().position(|l| l.split_whitespace().next() == Some(mark.as_str()));
        frame.next = at.ok_or_else(|| format!("no label {label}"))? + 1;
        frame.tokens.clear();
        Ok(0)
    }

    /// `imgfetch [--name N] URL [arguments…]` and its relatives.
    fn fetch(&mut self, command: &str, args: &[&str]) -> Result<Done, String> {
        let (name, args) = named(args);
        let (url, arguments) = args.split_first().ok_or("an image without a URL")?;
        let name = name.unwrap_or_else(|| url.rsplit('/').next().unwrap_or(url)).to_owned();
        let kind = if command == "imgfetch" { Kind::Image } else { Kind::Kernel };
        if command == "kernel" {
            self.selected = Some((name.clone(), arguments.join(" ")));
        }
        self.images.insert(name.clone(), Image { url: (*url).to_owned(), text: String::new() });
        self.order.push(name.clone());
        self.waits_for = Some((name, kind));
        Ok(Done::Wait(Op::Fetch { url: (*url).to_owned(), script: kind == Kind::Image }))
    }

    /// `boot` starts the selected kernel, `imgexec NAME` a script that was fetched.
    fn run_image(&mut self, args: &[&str]) -> Result<Done, String> {
        let (_, args) = named(args);
        let Some(name) = args.first().filter(|a| !a.starts_with("--")) else {
            let Some((kernel, arguments)) = self.selected.clone() else { return Ok(Done::Status(1)) };
            return Ok(match self.images.contains_key(&kernel) {
                true => Done::Wait(Op::Boot { arguments }),
                false => Done::Status(1),
            });
        };
        let Some(image) = self.images.get(*name).cloned() else { return Ok(Done::Status(1)) };
        if !image.text.starts_with("#!ipxe") {
            return Err(format!("{} is no script", image.url));
        }
        if self.stack.len() >= DEPTH_MAX {
            return Err("scripts run each other without an end".to_owned());
        }
        self.call(&image.text);
        Ok(Done::Status(0))
    }

    /// Replaces every `${name}` and `${name:type}`.
    fn expand(&self, word: &str) -> String {
        let mut out = String::new();
        let mut rest = word;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, after)) = after.split_once('}') else { break };
            out.push_str(before);
            let (name, kind) = name.split_once(':').unwrap_or((name, ""));
            let value = self.settings.get(name).map(String::as_str).unwrap_or_default();
            match kind {
                "hexhyp" => out.push_str(&value.replace(':', "-")),
                "uristring" => value.bytes().for_each(|b| match b {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(b.into()),
                    other => out.push_str(&format!("%{other:02X}")),
                }),
                _ => out.push_str(value),
            }
            rest = after;
        }
        out + rest
    }
}

impl Frame {
    /// The next command of the line that is due, by the status of the one before it.
    fn next_command(&mut self) -> Option<Vec<String>> {
        while !self.tokens.is_empty() {
            let end = self.tokens.iter().position(|t| t == "||" || t == "&&" || t.starts_with('#'));
            let end = end.unwrap_or(self.tokens.len());
            let due = match self.tokens[0].as_str() {
                "||" if self.status != 0 => {
                    self.tokens.remove(0);
                    self.status = 0;
                    true
                }
                "&&" if self.status == 0 => {
                    self.tokens.remove(0);
                    true
                }
                "||" | "&&" => {
                    self.tokens.remove(0);
                    false
                }
                word if word.starts_with('#') || word.starts_with(':') => {
                    self.tokens.clear();
                    return None;
                }
                _ => {
                    return Some(self.tokens.drain(..end).collect());
                }
            };
            if !due {
                // Skipped up to the next operator, which looks at the same status.
                let end = self.tokens.iter().position(|t| t == "||" || t == "&&");
                self.tokens.drain(..end.unwrap_or(self.tokens.len()));
            }
        }
        None
    }
}

fn named<'a, 'b>(args: &'b [&'a str]) -> (Option<&'a str>, &'b [&'a str]) {
    match args {
        ["--name" | "-n", name, rest @ ..] => (Some(*name), rest),
        rest => (None, rest),
    }
}

#[cfg(test)]
mod tests {
    use boot_server_core::ipxe::{BiosDisk, CommandLine, Initrd, Kernel, KernelArg, Script, Url};

    use super::*;

    fn machine(text: &str) -> Interpreter {
        let settings = [("netX/mac", "52:54:00:00:00:09"), ("serial", "A B"), ("platform", "efi")];
        Interpreter::new(text, settings.map(|(k, v)| (k.to_owned(), v.to_owned())).into())
    }

    fn start() -> Interpreter {
        machine(&Script::Start { base: Url::new("http://10.77.0.1:8080").unwrap() }.render())
    }

    fn fetch(interpreter: &mut Interpreter) -> String {
        match interpreter.run() {
            Op::Fetch { url, .. } => url,
            other => panic!("not a fetch: {other:?}"),
        }
    }

    #[test]
    fn the_agent_is_booted() {
        let mut run = start();
        let url = fetch(&mut run);
        assert!(
            url.starts_with("http://10.77.0.1:8080/boot/ipxe?mac=52-54-00-00-00-09&uuid=&serial=A%20B&"),
            "{url}"
        );
        let agent = Script::Agent {
            message: "node starts the agent".into(),
            boot: Kernel {
                kernel: Url::new("http://10.77.0.1:8080/k").unwrap(),
                initrds: vec![Initrd { url: Url::new("http://10.77.0.1:8080/i").unwrap(), name: None }],
                args: CommandLine::new(vec![KernelArg::new("billet.nonce", "abc").unwrap()]).unwrap(),
            },
        };
        run.fetched(Some(agent.render()));
        assert_eq!(fetch(&mut run), "http://10.77.0.1:8080/k");
        run.fetched(Some(String::new()));
        assert_eq!(fetch(&mut run), "http://10.77.0.1:8080/i");
        run.fetched(Some(String::new()));
        assert_eq!(run.run(), Op::Boot { arguments: "initrd=initrd0 billet.nonce=abc".into() });
        // A RAM disk that cannot be fetched: asks again after a pause.
        let mut run = start();
        fetch(&mut run);
        run.fetched(Some(agent.render()));
        fetch(&mut run);
        run.fetched(None);
        assert_eq!(run.run(), Op::Sleep(Duration::from_secs(10)));
        assert!(fetch(&mut run).contains("/boot/ipxe?"));
    }

    #[test]
    fn the_disk_and_the_refusal() {
        let mut run = start();
        fetch(&mut run);
        let disk = Script::LocalDisk { message: "disk".into(), bios: BiosDisk::NextDevice };
        run.fetched(Some(disk.render()));
        assert_eq!(run.run(), Op::Exit(1), "UEFI goes on by an error");
        let mut run = start();
        fetch(&mut run);
        run.fetched(Some(Script::Refuse { message: "no".into() }.render()));
        assert_eq!(run.run(), Op::Sleep(Duration::from_secs(10)));
        assert!(fetch(&mut run).contains("/boot/ipxe?"));
        run.fetched(None);
        assert_eq!(run.run(), Op::Sleep(Duration::from_secs(10)), "a server that is away is asked again");
    }

    #[test]
    fn operators() {
        assert_eq!(machine("#!ipxe\niseq a b && exit 3 ||\nexit 4").run(), Op::Exit(4));
        assert_eq!(machine("#!ipxe\niseq a a && exit 3 ||\nexit 4").run(), Op::Exit(3));
        assert_eq!(machine("#!ipxe\niseq a b\nexit 4").run(), Op::Exit(1), "a failure ends the script");
        assert_eq!(machine("#!ipxe\niseq a b || exit 5\nexit 4").run(), Op::Exit(5));
        assert_eq!(machine("#!ipxe\niseq a a || exit 5\nexit 4").run(), Op::Exit(4));
        assert!(matches!(machine("#!ipxe\n:a\ngoto a").run(), Op::Failed(_)));
        assert!(matches!(machine("#!ipxe\nfly").run(), Op::Failed(_)));
    }
}
