//! Processors from the text of `/proc/cpuinfo` and the topology of each processor.

use std::collections::{BTreeMap, BTreeSet};

use protocol::inventory::Cpu;

use crate::content::cut;

/// Where one hardware thread sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thread {
    /// Number of the logical processor.
    pub processor: u32,
    /// Physical package; -1 where the kernel does not know.
    pub package: i32,
    /// Core within the package.
    pub core: i32,
}

/// One entry per package. `cpuinfo` may be of any architecture; what it lacks stays empty.
pub fn packages(cpuinfo: &str, threads: &[Thread], max_khz: Option<u64>, architecture: &str) -> Vec<Cpu> {
    let field = |names: &[&str]| {
        let value = cpuinfo.lines().find_map(|l| {
            let (key, value) = l.split_once(':')?;
            names.contains(&key.trim()).then(|| value.trim())
        });
        cut(value.unwrap_or_default())
    };
    let mut packages: BTreeMap<i32, (u32, BTreeSet<i32>)> = BTreeMap::new();
    for t in threads {
        let (count, cores) = packages.entry(t.package.max(0)).or_default();
        *count += 1;
        cores.insert(t.core);
    }
    packages
        .into_iter()
        .map(|(package, (threads, cores))| Cpu {
            socket: package.unsigned_abs(),
            model: field(&["model name", "Processor", "cpu model", "CPU part"]),
            vendor: field(&["vendor_id", "CPU implementer"]),
            cores: u32::try_from(cores.len()).unwrap_or(u32::MAX),
            threads,
            max_mhz: max_khz.and_then(|k| u32::try_from(k / 1000).ok()),
            architecture: architecture.to_owned(),
        })
        .collect()
}

/// Bytes of `MemTotal` in `/proc/meminfo`.
pub fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_sockets_cores_and_threads() {
        let threads: Vec<_> = (0..8)
            .map(|processor| Thread {
                processor,
                package: (processor / 4) as i32,
                core: (processor % 2) as i32,
            })
            .collect();
        let info = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: A CPU: fast\n";
        let cpus = packages(info, &threads, Some(3_500_000), "x86_64");
        assert_eq!(cpus.len(), 2);
        assert_eq!((cpus[1].socket, cpus[1].cores, cpus[1].threads, cpus[1].max_mhz), (1, 2, 4, Some(3500)));
        assert_eq!(cpus[0].model, "A CPU: fast");
        assert_eq!(memory_bytes("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(memory_bytes("MemTotal: many"), None);
    }
}
