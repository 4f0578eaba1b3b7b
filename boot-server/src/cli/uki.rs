//! What machines boot: making and signing the site's own unified kernel image. Works on files of this machine; asks no
//! server.

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use boot_server_core::ipxe::{KernelArg, Url};
use boot_server_core::uki;
use clap::{Args, Subcommand};
use protocol::agent::ARG_SERVER;

use super::{Failure, output};
use crate::config::Config;
use crate::scripts::check_kernel_arguments;

/// About what machines boot.
#[derive(Debug, Subcommand)]
pub enum BootCommand {
    /// Make a unified kernel image and sign it with the site's key
    ///
    /// Kernel, ramdisk and kernel arguments become one UEFI program, signed by `sbsign` (package sbsigntool).
    /// Machines boot it where `boot.secure_boot = "uki"`. See docs/guide/secure-boot.md.
    Uki(UkiArgs),
}

/// Arguments of `billet boot uki`.
#[derive(Debug, Args)]
pub struct UkiArgs {
    /// Provisioning address of the server, built into the image
    #[arg(long, value_name = "URL")]
    server_url: String,
    /// Key that signs, PEM
    #[arg(long, value_name = "FILE", requires = "cert", required_unless_present = "unsigned")]
    key: Option<PathBuf>,
    /// Its certificate, PEM, which the machines' firmware knows
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Leave it unsigned, to sign it elsewhere
    #[arg(long, conflicts_with_all = ["key", "cert"])]
    unsigned: bool,
    /// Directory with vmlinuz and initramfs
    #[arg(long, value_name = "DIRECTORY", default_value = "/usr/share/billet/boot")]
    boot_dir: PathBuf,
    /// Keys whose images the machines write; from the server's state directory. The image must be made again when they change, but for a key
    /// that follows another
    #[arg(long, value_name = "FILE", default_value = "/var/lib/billet/trust/trust.json")]
    trust: PathBuf,
    /// Make it without such keys: its agent inspects machines, and writes no image
    #[arg(long, conflicts_with = "trust")]
    no_trust: bool,
    /// Kernel arguments [default: those of a new configuration]
    #[arg(long, value_name = "WORDS")]
    arguments: Option<String>,
    /// The UEFI program that starts the kernel (package systemd-boot-efi)
    #[arg(long, value_name = "FILE", default_value = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub")]
    stub: PathBuf,
    /// Where the image goes; the server looks for `loaders/uki-x64.efi` in its state directory
    #[arg(long, value_name = "FILE", default_value = "/var/lib/billet/loaders/uki-x64.efi")]
    to: PathBuf,
}

pub(super) fn run(command: BootCommand) -> Result<(), Failure> {
    match command {
        BootCommand::Uki(args) => make(&args),
    }
}

fn make(args: &UkiArgs) -> Result<(), Failure> {
    let words = args.arguments.clone().unwrap_or_else(|| Config::default().boot.arguments);
    let cmdline = command_line(&words, &args.server_url)?;
    let stub = read(&args.stub, "install package systemd-boot-efi, or give --stub")?;
    let kernel = read(&args.boot_dir.join("vmlinuz"), "give --boot-dir")?;
    let mut initrd = ramdisks(&args.boot_dir)?;
    if !args.no_trust {
        initrd.extend(trusted(&args.trust)?);
    }
    let image = uki::build(
        &stub,
        &[
            (".osrel", b"ID=billet\nNAME=Billet\nPRETTY_NAME=\"Billet agent\"\n"),
            (".cmdline", cmdline.as_bytes()),
            (".linux", &kernel),
            (".initrd", &initrd),
        ],
    )
    .map_err(|error| {
        Failure::Other(format!("cannot make the image from {}: {error}", args.stub.display()))
    })?;
    if let Some(dir) = args.to.parent() {
        std::fs::create_dir_all(dir).map_err(|error| cannot("make", dir, &error))?;
    }
    // Beside its place first: a machine that boots meanwhile gets the old one or the new one.
    let fresh = args.to.with_extension("efi.new");
    std::fs::write(&fresh, &image).map_err(|error| cannot("write", &fresh, &error))?;
    if let (Some(key), Some(cert)) = (&args.key, &args.cert) {
        sign(&fresh, key, cert)?;
    }
    std::fs::rename(&fresh, &args.to).map_err(|error| cannot("write", &args.to, &error))?;
    let signed = if args.unsigned { "unsigned" } else { "signed" };
    let mib = image.len() as f64 / f64::from(1 << 20);
    output::print(&format!("{} ({mib:.1} MiB, {signed})\n", args.to.display()))
}

fn command_line(words: &str, server: &str) -> Result<String, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
    check_kernel_arguments(words).map_err(|e| usage(&e))?;
    Url::new(server).map_err(|e| usage(&e))?;
    let server = KernelArg::new(ARG_SERVER, server.trim_end_matches('/')).map_err(|e| usage(&e))?;
    Ok([words.trim(), &server.to_string()].join(" ").trim().to_owned())
}

/// The ramdisk and, where it is there, the one with firmware: one after the other, each on 4 octets, as the kernel wants
/// them (Documentation/driver-api/early-userspace/buffer-format.rst).
fn ramdisks(dir: &Path) -> Result<Vec<u8>, Failure> {
    let found = |name: &str| {
        [name.to_owned(), format!("{name}.zst")].into_iter().map(|n| dir.join(n)).find(|p| p.is_file())
    };
    let initramfs = found("initramfs").ok_or_else(|| Failure::Hinted {
        message: format!("no initramfs or initramfs.zst in {}", dir.display()),
        hint: "give --boot-dir".into(),
    })?;
    let mut all = Vec::new();
    for path in [Some(initramfs), found("firmware")].into_iter().flatten() {
        all.extend(read(&path, "is it readable?")?);
        all.resize(all.len().next_multiple_of(4), 0);
    }
    Ok(all)
}

/// The archive with the keys that the agent trusts.
fn trusted(path: &Path) -> Result<Vec<u8>, Failure> {
    let hint = "start the server once, and give its state directory's `trust/trust.json` by --trust; or give --no-trust";
    let keys = read(path, hint)?;
    crate::ramdisks::archive(&keys, path)
        .map_err(|error| Failure::Hinted { message: crate::ingest::sentence(&error), hint: hint.into() })
}

fn sign(image: &Path, key: &Path, cert: &Path) -> Result<(), Failure> {
    let mut command = Process::new("sbsign");
    command.arg("--key").arg(key).arg("--cert").arg(cert).arg("--output").arg(image).arg(image);
    let output = command.output().map_err(|error| Failure::Hinted {
        message: format!("cannot run sbsign: {error}"),
        hint: "install package sbsigntool".into(),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Hinted {
        message: format!("sbsign failed: {}", said.trim()),
        hint: "key and certificate must be PEM and belong together".into(),
    })
}

fn read(path: &Path, hint: &str) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::Hinted {
        message: format!("cannot read {}: {error}", path.display()),
        hint: hint.into(),
    })
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::Other(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_the_server() {
        let line = command_line(" console=ttyS0  quiet ", "http://10.77.0.1:8080/").unwrap();
        assert_eq!(line, "console=ttyS0  quiet billet.server=http://10.77.0.1:8080");
        assert!(command_line("", "10.77.0.1").is_err());
        assert!(command_line("a=\"b", "http://10.77.0.1").is_err());
    }
}
