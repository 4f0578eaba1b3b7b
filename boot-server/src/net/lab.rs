//! A wire to test on: the test's own thread in a fresh network namespace, and a client's namespace at the other end
//! of a veth pair. All of it vanishes with the thread and the child process.

use std::process::{Child, Command, Stdio};

/// The two ends. The server's is `v0` with 10.77.0.1/24 in the calling thread's namespace, the client's is `v1`.
pub struct Lab {
    holder: Child,
}

impl Lab {
    /// `None`, with the reason on standard error, where the right to make namespaces is missing.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root to make network namespaces");
            return None;
        }
        if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: no network namespace: {error}");
            return None;
        }
        let holder =
            Command::new("unshare").args(["--net", "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
        let lab = Self { holder };
        // The child has its namespace once it runs `sleep`.
        for _ in 0..500 {
            let comm = std::fs::read_to_string(format!("/proc/{}/comm", lab.holder.id())).unwrap_or_default();
            if comm.trim() == "sleep" {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        run("ip link set lo up");
        run(&format!("ip link add v0 type veth peer name v1 netns {}", lab.holder.id()));
        run("ip addr add 10.77.0.1/24 dev v0");
        run("ip link set v0 up");
        lab.client("ip link set v1 address 52:54:00:77:00:01 up");
        Some(lab)
    }

    /// Runs a shell command in the client's namespace and returns what it printed.
    pub fn client(&self, command: &str) -> String {
        let (ok, out) = self.client_try(command);
        assert!(ok, "{command}: {out}");
        out
    }

    /// Runs code on a thread in the client's namespace; sockets made there stay there.
    pub fn enter<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        let inside = move || {
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            code()
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).unwrap()
    }

    /// Whether a shell command in the client's namespace succeeded, and what it printed.
    pub fn client_try(&self, command: &str) -> (bool, String) {
        let pid = self.holder.id().to_string();
        let out = Command::new("nsenter").args(["-t", &pid, "-n", "sh", "-c", command]).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (out.status.success(), text)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs a command in the calling thread's namespace.
pub fn run(command: &str) {
    let out = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
}
