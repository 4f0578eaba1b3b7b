//! What a DPU says of itself: files of its kernel, and what its programs say of their version. What the texts mean is decided
//! in `dpu_agent_core::facts`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dpu_agent_core::facts::{function_file, function_mac, label, version};
use protocol::MacAddr;
use protocol::dial::{Facts, HostFunction, Program};
use protocol::functions::Representor;

/// Octets that are read of a file or of what a program says.
const READ_MAX: u64 = 4096;
/// Addresses and functions of a hello: with them it is about half of `HELLO_MAX`.
const MACS_MAX: usize = 64;
/// See [`MACS_MAX`]: two physical functions with 127 virtual ones each, the most that a plan has.
const FUNCTIONS_MAX: usize = 256;
/// How long a program may take to say its version.
const SAY: Duration = Duration::from_secs(5);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(20);
/// Whose versions are told, beside those of exporters.
const PROGRAMS: [&str; 2] = ["ovs-vswitchd", "ovn-controller"];
/// Where a serial number stands: of the board as SMBIOS has it, or of the device tree.
const SERIAL: [&str; 3] =
    ["sys/class/dmi/id/product_serial", "sys/class/dmi/id/board_serial", "proc/device-tree/serial-number"];
/// Where a model stands.
const MODEL: [&str; 2] = ["sys/class/dmi/id/product_name", "proc/device-tree/model"];

/// What is not found out but given.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Serial number.
    pub serial: Option<String>,
    /// Functions; what is found out is told beside them.
    pub functions: Vec<HostFunction>,
}

/// Looks at everything. `root` is `/`.
pub fn gather<'a>(root: &Path, given: &Given, exporters: impl Iterator<Item = &'a Path>) -> Facts {
    let text = |path: &str| read(&root.join(path)).unwrap_or_default();
    let first = |paths: &[&str]| paths.iter().find_map(|path| label(&text(path)));
    let interfaces = interfaces(root);
    let mut functions = given.functions.clone();
    // Physical ones first: of what is cut off the host can do without the virtual ones.
    let mut named: Vec<&String> = interfaces.iter().collect();
    named.sort_by_key(|name| Representor::named(name));
    for name in named {
        let mac = function_file(name).and_then(|file| function_mac(&text(&format!("sys/class/net/{file}"))));
        let known = |mac: &MacAddr| !functions.iter().any(|f| f.interface == *name || f.mac == *mac);
        if let Some(mac) = mac.filter(known) {
            functions.push(HostFunction { interface: name.clone(), mac });
        }
    }
    functions.truncate(FUNCTIONS_MAX);
    let own = interfaces.iter().filter(|name| !functions.iter().any(|f| f.interface == **name));
    let address = |name: &String| text(&format!("sys/class/net/{name}/address")).trim().parse().ok();
    let macs: BTreeSet<MacAddr> = own.filter_map(address).filter(MacAddr::is_station).collect();
    let programs = PROGRAMS.iter().map(Path::new).chain(exporters);
    Facts {
        hostname: label(&text("proc/sys/kernel/hostname")).unwrap_or_default(),
        serial: given.serial.clone().or_else(|| first(&SERIAL)),
        model: first(&MODEL),
        kernel: label(&text("proc/sys/kernel/osrelease")).unwrap_or_default(),
        programs: programs.filter_map(program).collect(),
        macs: macs.into_iter().take(MACS_MAX).collect(),
        functions,
    }
}

/// Names of network interfaces, in order.
fn interfaces(root: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(root.join("sys/class/net")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(READ_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A program's version; `None` where it is not installed, or says nothing in time.
fn program(path: &Path) -> Option<Program> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let end = Instant::now() + SAY;
    let ended = loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < end => std::thread::sleep(LOOK),
            Ok(None) | Err(_) => break false,
            Ok(Some(status)) => break status.success(),
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    let mut said = Vec::new();
    child.stdout.take()?.take(READ_MAX).read_to_end(&mut said).ok()?;
    let version = version(&String::from_utf8_lossy(&said)).filter(|_| ended)?;
    Some(Program { name: path.file_name()?.to_str()?.to_owned(), version })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BlueField's files, as NVIDIA's documentation shows them.
    #[test]
    fn a_bluefield() {
        let root = std::env::temp_dir().join(format!("billet-dpu-facts-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/sys/kernel/hostname", "dpu-17\n");
        put("proc/sys/kernel/osrelease", "5.15.0-1042-bluefield\n");
        put("sys/class/dmi/id/product_serial", "Not Specified\n");
        put("proc/device-tree/serial-number", "MT2242X12345\0");
        put("sys/class/dmi/id/product_name", "BlueField-3 P-Series\n");
        for (name, mac) in
            [("lo", "00:00:00:00:00:00"), ("p0", "e4:8b:01:a5:79:50"), ("pf0hpf", "02:00:00:00:00:01")]
        {
            put(&format!("sys/class/net/{name}/address"), &format!("{mac}\n"));
        }
        put("sys/class/net/p0/smart_nic/pf/config", "MAC        : e4:8b:01:a5:79:5e\nMaxTxRate  : 0\n");
        let function = |interface: &str, mac: &str| HostFunction {
            interface: interface.into(),
            mac: mac.parse().unwrap(),
        };
        let given = Given { serial: None, functions: vec![function("tap0", "52:54:00:00:00:01")] };
        let facts = gather(&root, &given, [Path::new("/no/such/program")].into_iter());
        assert_eq!((facts.hostname.as_str(), facts.kernel.as_str()), ("dpu-17", "5.15.0-1042-bluefield"));
        assert_eq!(facts.serial.as_deref(), Some("MT2242X12345"));
        assert_eq!(facts.model.as_deref(), Some("BlueField-3 P-Series"));
        assert_eq!(facts.macs, ["e4:8b:01:a5:79:50".parse().unwrap()]);
        let known = [function("tap0", "52:54:00:00:00:01"), function("pf0hpf", "e4:8b:01:a5:79:5e")];
        assert_eq!(facts.functions, known);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_program_that_hangs_or_is_not_there_has_no_version() {
        assert_eq!(program(Path::new("/no/such/program")), None);
        assert_eq!(program(Path::new("false")), None);
    }
}
