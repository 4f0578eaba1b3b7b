//! A recorded machine: sysfs and procfs as files, the inventory as it was when this was last looked at.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files of a two-socket machine with an NVMe, a SATA and a USB disk, and a two-port NIC with a virtual function.
const FILES: &[(&str, &str)] = &[
    ("proc/meminfo", "MemTotal:       131072000 kB\n"),
    ("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon\n"),
    ("proc/sys/kernel/arch", "x86_64\n"),
    ("sys/devices/system/cpu/cpu0/topology/physical_package_id", "0\n"),
    ("sys/devices/system/cpu/cpu0/topology/core_id", "0\n"),
    ("sys/devices/system/cpu/cpu1/topology/physical_package_id", "1\n"),
    ("sys/devices/system/cpu/cpu1/topology/core_id", "0\n"),
    ("sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/size", "3907029168\n"),
    ("sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/wwid", "eui.0025385b71b0f2e3\n"),
    ("sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/nsid", "1\n"),
    ("sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/device/model", "FAST SSD    \n"),
    ("sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/device/serial", "S6  \n"),
    ("sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/device/firmware_rev", "GXA7\n"),
    ("sys/devices/pci0000:00/0000:02:00.0/ata7/host6/target6:0:0/6:0:0:0/block/sda/size", "1953525168\n"),
    ("sys/devices/pci0000:00/0000:02:00.0/ata7/host6/target6:0:0/6:0:0:0/block/sda/queue/rotational", "1\n"),
    (
        "sys/devices/pci0000:00/0000:02:00.0/ata7/host6/target6:0:0/6:0:0:0/block/sda/device/vendor",
        "ATA     \n",
    ),
    ("sys/devices/pci0000:00/0000:02:00.0/ata7/host6/target6:0:0/6:0:0:0/block/sda/device/model", "ST1000\n"),
    (
        "sys/devices/pci0000:00/0000:02:00.0/ata7/host6/target6:0:0/6:0:0:0/block/sda/device/vpd_pg80",
        "\0\u{80}",
    ),
    (
        "sys/devices/pci0000:00/0000:02:00.0/ata7/host6/target6:0:0/6:0:0:0/block/sda/device/wwid",
        "naa.5000c500a1\n",
    ),
    ("sys/class/ata_port/ata7/port_no", "3\n"),
    ("sys/devices/pci0000:00/0000:03:00.0/usb1/1-1/host7/target7:0:0/7:0:0:0/block/sdb/size", "100\n"),
    ("sys/devices/pci0000:00/0000:04:00.0/vendor", "0x15b3\n"),
    ("sys/devices/pci0000:00/0000:04:00.0/device", "0x1021\n"),
    ("sys/devices/pci0000:00/0000:04:00.0/class", "0x020000\n"),
    ("sys/class/net/eth0/type", "1\n"),
    ("sys/class/net/eth0/address", "b8:ce:f6:00:00:01\n"),
    ("sys/class/net/eth0/carrier", "1\n"),
    ("sys/class/net/eth0/speed", "25000\n"),
    ("sys/class/net/eth0/dev_port", "1\n"),
    ("sys/class/net/lo/type", "772\n"),
    ("sys/class/net/vf0/type", "1\n"),
    ("sys/class/net/vf0/device/physfn/x", ""),
    ("sys/class/tpm/tpm0/tpm_version_major", "2\n"),
    ("sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", "\u{6}\0\0\0\u{1}"),
];

const LINKS: &[(&str, &str)] = &[
    ("sys/block/nvme0n1", "../devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1"),
    ("sys/block/sda", "../devices/pci0000:00/0000:02:00.0/ata7/host6/target6:0:0/6:0:0:0/block/sda"),
    ("sys/block/sdb", "../devices/pci0000:00/0000:03:00.0/usb1/1-1/host7/target7:0:0/7:0:0:0/block/sdb"),
    ("sys/block/loop0", "../devices/none"),
    ("sys/bus/pci/devices/0000:04:00.0", "../../../devices/pci0000:00/0000:04:00.0"),
    ("sys/class/net/eth0/device", "../../../devices/pci0000:00/0000:04:00.0"),
    ("sys/devices/pci0000:00/0000:04:00.0/driver", "../../bus/pci/drivers/mlx5_core"),
];

fn tree() -> PathBuf {
    let root = std::env::temp_dir().join(format!("billet-inspect-{}", std::process::id()));
    let place = |path: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    for (path, text) in FILES {
        std::fs::write(place(path), text).unwrap();
    }
    for (path, to) in LINKS {
        symlink(to, place(path)).unwrap();
    }
    root
}

fn inspect(root: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_billet-agent"))
        .args(["inspect", "-o", "json", "--root"])
        .arg(root)
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().replace(root.to_str().unwrap(), "ROOT")
}

#[test]
fn recorded_machine() {
    let root = tree();
    let found = inspect(&root);
    std::fs::remove_dir_all(&root).unwrap();
    insta::assert_snapshot!(found);
}

#[test]
fn machine_that_tells_nothing_gives_warnings_and_no_failure() {
    let found = inspect(Path::new("/nonexistent-root"));
    let inventory: protocol::inventory::Inventory = serde_json::from_str(&found).unwrap();
    assert_eq!(inventory.warnings.len(), 3, "{:?}", inventory.warnings);
}
