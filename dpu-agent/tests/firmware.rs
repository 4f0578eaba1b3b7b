//! The plan of functions by the program itself: it asks and tells a tool that keeps what it was told, as `mlxconfig` does (MFT 4.31, Examples of
//! mlxconfig Usage), and is none of a card.

#![expect(clippy::unwrap_used, reason = "what goes wrong here fails a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use protocol::dpu::Observed;
use serde_json::{Value, json};

/// Whatever a machine under load needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The tool.
const TOOL: &str = include_str!("mlxconfig.sh");

const KEYS: [&str; 10] = [
    "SRIOV_EN",
    "NUM_OF_VFS",
    "PCI_SWITCH_EMULATION_ENABLE",
    "PCI_SWITCH_EMULATION_NUM_PORT",
    "VIRTIO_BLK_EMULATION_ENABLE",
    "VIRTIO_BLK_EMULATION_NUM_PF",
    "VIRTIO_BLK_EMULATION_NUM_VF",
    "VIRTIO_NET_EMULATION_ENABLE",
    "VIRTIO_NET_EMULATION_NUM_PF",
    "VIRTIO_NET_EMULATION_NUM_VF",
];

struct Card {
    dir: PathBuf,
    agent: Child,
    generation: u64,
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn agent(dir: &Path) -> Child {
    let file = |name: &str| dir.join(name);
    Command::new(env!("CARGO_BIN_EXE_billet-dpu"))
        .args(["run", "--state"])
        .arg(file("state.json"))
        .arg("--status")
        .arg(file("status.json"))
        .arg("--dir")
        .arg(file("agent"))
        .arg("--database")
        .arg(format!("unix:{}", file("no-switch.sock").display()))
        .arg("--mlxconfig")
        .arg(file("mlxconfig"))
        .args(["--mlx-device", "/dev/mst/mt41692_pciconf0"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

impl Card {
    fn start(plan: &Value) -> Self {
        let dir = std::env::temp_dir().join(format!("billet-dpu-firmware-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("mlxconfig"), TOOL).unwrap();
        fs::set_permissions(dir.join("mlxconfig"), fs::Permissions::from_mode(0o755)).unwrap();
        let none: String = KEYS.iter().map(|key| format!("{key} 0\n")).collect();
        for name in ["current", "next"] {
            fs::write(dir.join(name), &none).unwrap();
        }
        let mut card = Self { agent: Command::new("true").spawn().unwrap(), dir, generation: 0 };
        card.wish(plan);
        card.agent.wait().unwrap();
        card.agent = agent(&card.dir);
        card
    }

    fn wish(&mut self, plan: &Value) {
        self.generation += 1;
        let state = json!({
            "version": 1, "generation": self.generation, "functions": plan,
            "chassis": { "system_id": "dpu-1", "ovn_remote": "tcp:127.0.0.1:6642", "encap": { "kind": "geneve", "address": "192.0.2.1" } },
        });
        fs::write(self.dir.join("new.json"), state.to_string()).unwrap();
        fs::rename(self.dir.join("new.json"), self.dir.join("state.json")).unwrap();
    }

    /// The host was power-cycled, and the agent starts again.
    fn reset(&mut self) {
        let _ = self.agent.kill();
        self.agent.wait().unwrap();
        fs::copy(self.dir.join("next"), self.dir.join("current")).unwrap();
        self.agent = agent(&self.dir);
    }

    fn until(&self, what: &str, is: impl Fn(&Observed) -> bool) -> Observed {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = fs::read(self.dir.join("status.json")).unwrap_or_default();
            let seen = serde_json::from_slice::<Observed>(&text).ok();
            match seen {
                Some(seen) if seen.generation == Some(self.generation) && is(&seen) => return seen,
                seen => assert!(Instant::now() < end, "{what}: {seen:#?}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn calls(&self, word: &str) -> usize {
        fs::read_to_string(self.dir.join("calls"))
            .unwrap_or_default()
            .lines()
            .filter(|line| line.contains(word))
            .count()
    }

    fn next(&self, key: &str) -> String {
        let text = fs::read_to_string(self.dir.join("next")).unwrap();
        text.lines().find_map(|line| line.strip_prefix(&format!("{key} "))).unwrap().to_owned()
    }
}

fn says(seen: &Observed, word: &str) -> bool {
    seen.problems.iter().any(|line| line.contains(word))
}

#[test]
fn a_plan_is_written_once_and_in_force_after_a_reset() {
    let plan = json!({ "model": "bluefield3", "vfs": 16, "blk": { "pfs": 1 }, "hotplug": 8 });
    let mut card = Card::start(&plan);
    let seen = card.until("it is written", |seen| {
        seen.functions.as_ref().is_some_and(|functions| functions.needs_reset)
    });
    assert!(says(&seen, "power cycle of the host"), "{seen:#?}");
    let of = |seen: &Observed, key: &str| {
        let settings = seen.functions.clone().unwrap().settings;
        let one = settings.into_iter().find(|one| one.key == key).unwrap();
        (one.wanted, one.current, one.next)
    };
    assert_eq!(of(&seen, "NUM_OF_VFS"), (16, Some(0), Some(16)));
    assert_eq!(of(&seen, "PCI_SWITCH_EMULATION_NUM_PORT"), (9, Some(0), Some(9)));
    assert_eq!((card.next("SRIOV_EN"), card.next("VIRTIO_BLK_EMULATION_NUM_PF")), ("1".into(), "1".into()));
    assert_eq!(card.calls("-y set"), 1);

    card.reset();
    let seen = card.until("it is in force", |seen| {
        seen.functions
            .as_ref()
            .is_some_and(|functions| !functions.needs_reset && !functions.settings.is_empty())
    });
    assert!(!says(&seen, "power cycle"), "{seen:#?}");
    assert_eq!(card.calls("-y set"), 1, "what is as planned is not written");

    // What the tool refuses is a problem in its words; a plan that the model cannot have is no state.
    card.wish(&json!({ "model": "bluefield3", "vfs": 120 }));
    let seen = card.until("it is refused", |seen| says(seen, "value is out of range"));
    assert_eq!(of(&seen, "NUM_OF_VFS"), (120, Some(16), Some(16)));
    let before = card.generation;
    card.wish(&json!({ "model": "bluefield3", "vfs": 128 }));
    card.generation = before;
    card.until("it is no state", |seen| {
        says(seen, "128 virtual functions of a NIC function are more than the 127")
    });

    // Without a plan the firmware stays as it is.
    card.generation += 1;
    card.wish(&Value::Null);
    card.until("it is left alone", |seen| seen.functions.is_none());
    assert_eq!(card.next("NUM_OF_VFS"), "16");
}
