//! Debian 12 as a server image, from Debian's packages by mmdebstrap.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cache::{self, Key};
use crate::deb::{Apt, Archive};
use crate::disk::{self, Layout};
use crate::{paths, tool};

/// Name of the image.
const NAME: &str = "debian-12";
/// Modules that a disk controller needs before the root is mounted are those of the ramdisk: what it can write to,
/// the image can start from.
const INITRD_GROUPS: &[&str] = &["bus", "storage"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    suite: String,
    components: Vec<String>,
    default_user: String,
    packages: Vec<String>,
    path_exclude: Vec<String>,
    path_include: Vec<String>,
    disable: Vec<String>,
    disk: Disk,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disk {
    esp: u64,
    root: u64,
}

/// The part of the ramdisk's recipe that is of use here.
#[derive(Debug, Deserialize)]
struct Modules {
    modules: std::collections::BTreeMap<String, Vec<String>>,
}

/// Builds `debian-12.raw` and `debian-12.raw.zst` and returns the path of the first.
pub fn build() -> Result<PathBuf> {
    let recipe: Recipe = super::recipe(NAME)?;
    // A new kernel in the archive makes a new image; so does a change of the recipe or of what belongs to it.
    let (kernel, _) = Apt::Host.find("linux-image-amd64", None)?;
    let mut key = Key::new("debian", 2)
        .with_file(&paths::recipe(NAME))?
        .with_file(&paths::recipe("ramdisk"))?
        .with("kernel", &kernel.version);
    let mut files: Vec<_> = fs::read_dir(super::recipe_file(NAME, ""))?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        key = key.with_file(&file.path())?;
    }
    let raw = format!("{NAME}.raw");
    let made = [raw.as_str(), "debian-12.raw.zst", "debian-12.json"];
    cache::build(super::DIR, &made, &key, |work| {
        let root = work.join("root");
        bootstrap(&recipe, &root, &super::uuid_of(&key))?;
        let layout = Layout {
            name: "debian",
            root_uuid: &super::uuid_of(&key),
            esp: recipe.disk.esp,
            root: recipe.disk.root,
            kernel: "/vmlinuz",
            initrd: "/initrd.img",
            append: "net.ifnames=0 quiet",
        };
        let out = work.join(&raw);
        disk::make(&layout, &root, work, &out)?;
        eprintln!("compressing {raw}");
        tool::quiet(tool::command("zstd", &["-q", "-T0", "-9", "-k"]).arg(&out))?;
        let version = tool::output(&mut tool::command("date", &["-u", "+%Y%m%d"]))?.trim().to_owned();
        super::write_facts(work, &raw, NAME, version, Some(&recipe.default_user), kernel.version.clone())
    })?;
    Ok(cache::at(super::DIR, &raw))
}

fn bootstrap(recipe: &Recipe, root: &Path, root_uuid: &str) -> Result<()> {
    let archive = Archive::of_host()?;
    eprintln!("building a {} tree from {} packages", recipe.suite, recipe.packages.len());
    let mut command = tool::command("mmdebstrap", &["--variant=minbase", "--skip=check/empty"]);
    command.arg(format!("--components={}", recipe.components.join(",")));
    command.arg(format!("--include={}", recipe.packages.join(",")));
    for path in &recipe.path_exclude {
        command.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    for path in &recipe.path_include {
        command.arg(format!("--dpkgopt=path-include={path}"));
    }
    // initramfs-tools reads these when the kernel is installed, so they must be there before.
    let seed = root.with_extension("seed");
    seed_files(recipe, root_uuid, &seed)?;
    let seed = tool::text(&seed)?;
    command.arg(format!("--essential-hook=cp -a {seed}/. \"$1\"/"));
    command.arg("--customize-hook=chroot \"$1\" systemctl enable systemd-networkd systemd-resolved ssh");
    for unit in &recipe.disable {
        command.arg(format!("--customize-hook=chroot \"$1\" systemctl mask {unit}"));
    }
    command
        .arg("--customize-hook=rm -f \"$1\"/etc/ssh/ssh_host_* \"$1\"/etc/hostname \"$1\"/etc/resolv.conf");
    command.arg("--customize-hook=: > \"$1\"/etc/machine-id");
    command.arg(
        "--customize-hook=rm -rf \"$1\"/var/cache/apt/*.bin \"$1\"/var/lib/apt/lists/* \"$1\"/var/log/*",
    );
    command.args([&recipe.suite, tool::text(root)?]);
    command.arg(format!("deb {} {} {}", archive.uri, recipe.suite, recipe.components.join(" ")));
    command.arg(format!("deb {} {}-updates {}", archive.uri, recipe.suite, recipe.components.join(" ")));
    if let Some(security) = Archive::security_of_host()? {
        command.arg(format!(
            "deb {} {}-security {}",
            security.uri,
            recipe.suite,
            recipe.components.join(" ")
        ));
    }
    tool::quiet(&mut command)?;
    // It is made by systemd-resolved on a running system; here it must exist for the first boot.
    let _ = fs::remove_file(root.join("etc/resolv.conf"));
    symlink("/run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf"))?;
    Ok(())
}

fn seed_files(recipe: &Recipe, root_uuid: &str, seed: &Path) -> Result<()> {
    let ramdisk: Modules = super::recipe("ramdisk")?;
    let mut modules = vec!["ext4".to_owned()];
    for group in INITRD_GROUPS {
        let group =
            ramdisk.modules.get(*group).with_context(|| format!("ramdisk recipe has no modules.{group}"))?;
        modules.extend(group.iter().cloned());
    }
    // A hook only packs them; the file `modules` would also load every one of them at each boot.
    let hook = format!(
        "#!/bin/sh\n# The disk controllers that this image can be deployed to.\n[ \"$1\" = prereqs ] && exit 0\n\
         . /usr/share/initramfs-tools/hook-functions\nmanual_add_modules {}\n",
        modules.join(" ")
    );
    let cloud = fs::read_to_string(super::recipe_file(NAME, "cloud.cfg"))?;
    for (file, text) in [
        ("etc/initramfs-tools/conf.d/billet", "MODULES=list\nCOMPRESS=zstd\n"),
        ("etc/initramfs-tools/hooks/billet", hook.as_str()),
        // Links in / to the newest kernel, which the boot loader follows.
        ("etc/kernel-img.conf", "do_symlinks = yes\n"),
        ("etc/cloud/cloud.cfg.d/90-billet.cfg", cloud.replace("@USER@", &recipe.default_user).as_str()),
        ("etc/fstab", format!("UUID={root_uuid} / ext4 defaults,errors=remount-ro 0 1\n").as_str()),
        ("etc/systemd/system.conf.d/billet.conf", "[Manager]\nDefaultTimeoutStartSec=300s\n"),
    ] {
        let path = seed.join(file);
        fs::create_dir_all(path.parent().unwrap_or(seed))?;
        fs::write(path, text)?;
    }
    fs::set_permissions(seed.join("etc/initramfs-tools/hooks/billet"), fs::Permissions::from_mode(0o755))?;
    Ok(())
}
