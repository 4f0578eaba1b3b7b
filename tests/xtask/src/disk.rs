//! A bootable raw disk from a root tree, without loop devices or mounts: GPT with a BIOS boot partition (GRUB core),
//! an EFI system partition (shim and signed GRUB) and an ext4 root, which is last so that it can grow.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::tool;

/// Bytes of a MiB, to which everything is aligned.
const MIB: u64 = 1 << 20;
/// Logical sectors of 512 bytes per MiB.
const SECTORS: u64 = MIB / 512;
/// Smallest partition that mformat formats as FAT32 when told to, in MiB.
const FAT32_MIN: u64 = 34;

/// What the disk is to be.
pub struct Layout<'a> {
    /// Label of the file systems and name in GRUB's messages.
    pub name: &'a str,
    /// UUID of the root file system, by which loader and kernel find it.
    pub root_uuid: &'a str,
    /// Size of the EFI system partition in MiB.
    pub esp: u64,
    /// Size of the root partition in MiB.
    pub root: u64,
    /// Path of the kernel on the root file system.
    pub kernel: &'a str,
    /// Path of its initrd.
    pub initrd: &'a str,
    /// Further kernel arguments.
    pub append: &'a str,
}

impl Layout<'_> {
    /// Size of the raw image in MiB: 1 before the partitions, 1 of BIOS boot, 1 for the GPT at the end.
    pub fn size(&self) -> u64 {
        1 + 1 + self.esp + self.root + 1
    }

    fn grub_config(&self) -> String {
        let Self { name, root_uuid, kernel, initrd, append, .. } = self;
        format!(
            "set timeout=0\nserial --unit=0 --speed=115200\nterminal_output serial console\n\
             search --no-floppy --fs-uuid --set=root {root_uuid}\n\
             echo \"GRUB {name} platform=$grub_platform root=$root\"\n\
             linux {kernel} root=UUID={root_uuid} ro console=tty0 console=ttyS0,115200 {append}\n\
             initrd {initrd}\nboot\n"
        )
    }
}

/// Makes the raw disk `out` from the tree `root`, using `work` for pieces.
pub fn make(layout: &Layout<'_>, root: &Path, work: &Path, out: &Path) -> Result<()> {
    File::create(out)?.set_len(layout.size() * MIB)?;
    let (bios, esp) = (1, 2);
    let root_at = esp + layout.esp;
    partition(layout, out, [(bios, 1), (esp, layout.esp), (root_at, layout.root)])?;
    let config = layout.grub_config();
    let esp_image = work.join("esp.img");
    make_esp(layout, &config, work, &esp_image)?;
    copy_sparse(&esp_image, out, esp * MIB)?;
    let root_image = work.join("root.img");
    make_root(layout, &config, root, &root_image)?;
    copy_sparse(&root_image, out, root_at * MIB)?;
    install_bios_loader(&config, work, out, bios * SECTORS)
}

/// Partitions as (start, size) in MiB.
fn partition(layout: &Layout<'_>, out: &Path, [bios, esp, root]: [(u64, u64); 3]) -> Result<()> {
    let mut command = tool::command("sgdisk", &["--clear"]);
    for (number, ((start, size), kind, name)) in
        [(bios, "ef02", "bios"), (esp, "ef00", "esp"), (root, "8300", layout.name)].into_iter().enumerate()
    {
        let (number, first) = (number + 1, start * SECTORS);
        command.arg(format!("--new={number}:{first}:{}", first + size * SECTORS - 1));
        command.arg(format!("--typecode={number}:{kind}")).arg(format!("--change-name={number}:{name}"));
    }
    tool::quiet(command.arg(out))
}

fn make_esp(layout: &Layout<'_>, config: &str, work: &Path, image: &Path) -> Result<()> {
    File::create(image)?.set_len(layout.esp * MIB)?;
    let at = tool::text(image)?;
    let mut format = tool::command("mformat", &["-i", at, "-v", "ESP"]);
    if layout.esp >= FAT32_MIN {
        format.arg("-F");
    }
    tool::quiet(format.arg("::"))?;
    tool::quiet(&mut tool::command("mmd", &["-i", at, "::/EFI", "::/EFI/BOOT", "::/EFI/debian"]))?;
    let config_file = work.join("grub.cfg");
    fs::write(&config_file, config)?;
    let config_file = tool::text(&config_file)?;
    for (from, to) in [
        ("/usr/lib/shim/shimx64.efi.signed", "EFI/BOOT/BOOTX64.EFI"),
        ("/usr/lib/shim/mmx64.efi.signed", "EFI/BOOT/mmx64.efi"),
        ("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "EFI/BOOT/grubx64.efi"),
        (config_file, "EFI/debian/grub.cfg"),
    ] {
        tool::quiet(&mut tool::command("mcopy", &["-i", at, from, &format!("::/{to}")]))?;
    }
    Ok(())
}

fn make_root(layout: &Layout<'_>, config: &str, root: &Path, image: &Path) -> Result<()> {
    fs::create_dir_all(root.join("boot/grub"))?;
    fs::write(root.join("boot/grub/grub.cfg"), config)?;
    File::create(image)?.set_len(layout.root * MIB)?;
    let options = "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0";
    let args = [
        "-q",
        "-t",
        "ext4",
        "-L",
        layout.name,
        "-U",
        layout.root_uuid,
        "-E",
        options,
        "-d",
        tool::text(root)?,
    ];
    tool::quiet(tool::command("mke2fs", &args).arg(image))
}

/// GRUB for BIOS: its core goes into the BIOS boot partition, its first sector into LBA 0 around the partition table.
fn install_bios_loader(config: &str, work: &Path, out: &Path, at: u64) -> Result<()> {
    let (early, core) = (work.join("early.cfg"), work.join("core.img"));
    fs::write(&early, config)?;
    let mut grub = tool::command(
        "grub-mkimage",
        &["-O", "i386-pc", "-p", "/boot/grub", "-c", tool::text(&early)?, "-o"],
    );
    grub.arg(&core).args([
        "biosdisk",
        "part_gpt",
        "ext2",
        "search",
        "search_fs_uuid",
        "normal",
        "linux",
        "echo",
    ]);
    tool::quiet(grub.args(["serial", "terminal", "configfile", "boot", "minicmd"]))?;
    let mut core = fs::read(&core)?;
    let sectors = u16::try_from(core.len().div_ceil(512))?;
    ensure!(u64::from(sectors) <= SECTORS, "GRUB's core does not fit its partition");
    // The core's first sector ends with the list of blocks that hold the rest: start, length, segment to load it to
    // (GRUB 2.06, grub-core/boot/i386/pc/diskboot.S).
    put(&mut core, 0x1f4, &(at + 1).to_le_bytes())?;
    put(&mut core, 0x1fc, &(sectors - 1).to_le_bytes())?;
    put(&mut core, 0x1fe, &0x820_u16.to_le_bytes())?;
    let mut boot = fs::read("/usr/lib/grub/i386-pc/boot.img").context("reading GRUB's boot sector")?;
    boot.resize(512, 0);
    // Where the core is (GRUB_BOOT_MACHINE_KERNEL_SECTOR), and no jump over the drive check (boot.S).
    put(&mut boot, 0x5c, &at.to_le_bytes())?;
    put(&mut boot, 0x66, &[0x90, 0x90])?;
    let mut disk = OpenOptions::new().read(true).write(true).open(out)?;
    let mut first = [0; 512];
    disk.read_exact(&mut first)?;
    put(&mut boot, 0x1b8, &first[0x1b8..])?;
    put(&mut boot, 0x1fe, &[0x55, 0xaa])?;
    disk.rewind()?;
    disk.write_all(&boot)?;
    disk.seek(SeekFrom::Start(at * 512))?;
    disk.write_all(&core)?;
    Ok(())
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Result<()> {
    bytes.get_mut(at..at + value.len()).context("GRUB's image is too short")?.copy_from_slice(value);
    Ok(())
}

/// Copies `from` into `out` at `offset`, leaving holes where there are only zeros.
fn copy_sparse(from: &Path, out: &Path, offset: u64) -> Result<()> {
    let mut from = File::open(from)?;
    let out = OpenOptions::new().write(true).open(out)?;
    let mut piece = vec![0; 1 << 20];
    let mut at = offset;
    loop {
        let n = from.read(&mut piece)?;
        if n == 0 {
            return Ok(());
        }
        if piece[..n].iter().any(|b| *b != 0) {
            std::os::unix::fs::FileExt::write_all_at(&out, &piece[..n], at)?;
        }
        at += n as u64;
    }
}
