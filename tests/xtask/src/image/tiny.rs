//! The small test OS: Debian's kernel, busybox and dropbear on a real disk layout (BIOS and UEFI), configured from a
//! NoCloud partition. It is up within seconds, says so on the serial console, and phones home.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Variant;
use crate::archive::Archive;
use crate::cache::{self, Key};
use crate::disk::{self, Layout};
use crate::kernel::{self, Kernel, Selection};
use crate::{paths, tool};

/// The static busybox.
const BUSYBOX: &str = "/bin/busybox";
/// Programs taken with the libraries they are linked with.
const PROGRAMS: &[&str] = &["/usr/sbin/dropbear", "/usr/bin/dropbearkey"];
/// Files of the recipe: name there, place in the image, permissions.
const FILES: &[(&str, &str, u32)] =
    &[("inittab", "etc/inittab", 0o644), ("rc", "etc/rc", 0o755), ("udhcpc", "etc/udhcpc.script", 0o755)];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    kernel: kernel::Recipe,
    disk: Disk,
    modules: Modules,
    variants: BTreeMap<String, Motto>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disk {
    esp: u64,
    root: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Modules {
    boot: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Motto {
    motto: String,
}

/// Builds `tiny-a.raw` or `tiny-b.raw` and returns its path.
pub fn build(variant: Variant) -> Result<PathBuf> {
    let recipe: Recipe = super::recipe("tiny")?;
    let letter = match variant {
        Variant::A => "a",
        Variant::B => "b",
    };
    let name = format!("tiny-{letter}");
    let motto =
        &recipe.variants.get(letter).with_context(|| format!("recipe has no variant {letter}"))?.motto;
    let kernel = Kernel::of(&recipe.kernel)?;
    let mut key = Key::new("tiny", 2)
        .with_file(&paths::recipe("tiny"))?
        .with("name", &name)
        .with("kernel", &kernel.package.version)
        .with_file(Path::new(BUSYBOX))?
        .with_file(&super::recipe_file("tiny", "init"))?;
    for (file, _, _) in FILES {
        key = key.with_file(&super::recipe_file("tiny", file))?;
    }
    for program in PROGRAMS {
        key = key.with_file(Path::new(program))?;
    }
    let raw = format!("{name}.raw");
    cache::build(super::DIR, &[&raw, &format!("{name}.json")], &key, |work| {
        let selection = kernel.select(recipe.modules.boot.iter().map(String::as_str))?;
        let root = work.join("root");
        make_root(&root, &name, motto, &kernel)?;
        let initrd = initrd(&kernel, &selection)?.compressed(19)?;
        fs::write(root.join("boot/initrd"), initrd)?;
        let layout = Layout {
            name: &name,
            root_uuid: &super::uuid_of(&key),
            esp: recipe.disk.esp,
            root: recipe.disk.root,
            kernel: "/boot/vmlinuz",
            initrd: "/boot/initrd",
            append: "quiet",
        };
        disk::make(&layout, &root, work, &work.join(&raw))?;
        super::write_facts(
            work,
            &raw,
            &name,
            key.hex()[..12].to_owned(),
            Some("root"),
            kernel.release.clone(),
        )
    })?;
    Ok(cache::at(super::DIR, &raw))
}

fn make_root(root: &Path, name: &str, motto: &str, kernel: &Kernel) -> Result<()> {
    for dir in [
        "bin",
        "boot",
        "dev",
        "etc/dropbear",
        "home",
        "proc",
        "root",
        "run",
        "sbin",
        "sys",
        "tmp",
        "usr/bin",
        "usr/sbin",
        "var",
    ] {
        fs::create_dir_all(root.join(dir))?;
    }
    install_busybox(&root.join("bin"))?;
    symlink("../bin/busybox", root.join("sbin/init"))?;
    fs::copy(kernel.image(), root.join("boot/vmlinuz"))?;
    for program in PROGRAMS {
        install_program(root, program)?;
    }
    for (from, to, permissions) in FILES {
        let to = root.join(to);
        fs::copy(super::recipe_file("tiny", from), &to)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(*permissions))?;
    }
    for (file, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/shadow", "root:*:19000:0:99999:7:::\n"),
        ("etc/shells", "/bin/sh\n"),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\n"),
        ("etc/hostname", "tiny\n"),
        ("etc/image", &format!("{name}\n")),
        ("etc/motto", &format!("{motto}\n")),
        ("etc/os-release", &format!("ID=tiny\nPRETTY_NAME=\"Billet test OS {name}\"\n")),
    ] {
        fs::write(root.join(file), text)?;
    }
    Ok(())
}

fn install_busybox(bin: &Path) -> Result<()> {
    fs::copy(BUSYBOX, bin.join("busybox")).context("copying busybox")?;
    for applet in tool::output(&mut tool::command(BUSYBOX, &["--list"]))?.lines().filter(|a| *a != "busybox")
    {
        symlink("busybox", bin.join(applet))?;
    }
    Ok(())
}

/// A program and its libraries, at the paths they have here.
fn install_program(root: &Path, program: &str) -> Result<()> {
    let text = tool::output(&mut tool::command("ldd", &[program]))?;
    let libraries = text.lines().filter_map(|l| {
        let path = l.rsplit_once("=> ").map_or(l, |(_, rest)| rest).trim();
        path.starts_with('/').then(|| path.split(' ').next().unwrap_or(path))
    });
    for file in libraries.chain([program]) {
        let to = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a library in the root directory")?)?;
        fs::copy(file, &to).with_context(|| format!("copying {file}"))?;
    }
    Ok(())
}

fn initrd(kernel: &Kernel, selection: &Selection) -> Result<Archive> {
    let mut archive = Archive::default();
    for dir in ["dev", "proc", "root", "sys"] {
        archive.directory(dir);
    }
    archive.console();
    archive.file("bin/busybox", 0o755, fs::read(BUSYBOX)?);
    for applet in ["sh", "mount", "umount", "insmod", "findfs", "switch_root", "sleep", "sed", "echo"] {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    archive.file("init", 0o755, fs::read(super::recipe_file("tiny", "init"))?);
    let mut order = String::new();
    for module in selection.load_order() {
        let file = module.rsplit('/').next().unwrap_or(module);
        archive.file(&format!("modules/{file}"), 0o644, fs::read(kernel.modules_dir().join(module))?);
        order.push_str(file);
        order.push('\n');
    }
    archive.file("modules/order", 0o644, order.into());
    Ok(archive)
}
