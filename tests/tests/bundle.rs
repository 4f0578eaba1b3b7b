//! A bundle is made at one site and taken in at another that has no network but its own: also when the server that takes it in is
//! killed at any moment, and before any server ran there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tests::exporter::noise;
use tests::rack::{Api, Disk, Firmware, MachineSpec, Rack, artifact, binary};
use tests::scenario::{DEPLOY, DISCOVERY, add_image, deploy, wait_discovered, wait_state};
use tests::site::{Site, disk_with_gpt};

/// Kills of a server that takes a bundle in.
const KILLS: u64 = 50;
/// Of an image that does not compress, in MiB.
const IMAGE_MIB: usize = 96;
/// From power-on of a deployed machine to its OS.
const LOCAL_BOOT: Duration = Duration::from_secs(180);

/// Where bundles are made.
struct Maker {
    site: Site,
    key: PathBuf,
    line: String,
}

impl Maker {
    fn new(name: &str) -> Result<Self> {
        let site = Site::new(name)?;
        let public = said(site.server.command_line()?.args(["usage", "key"]))?;
        let key = site.dir.join("maker.pub");
        fs::write(&key, &public)?;
        let line = public.lines().nth(1).context("a key")?.to_owned();
        Ok(Self { site, key, line })
    }

    /// An image of noise, so that it takes its time.
    fn add_noise(&self, name: &str, seed: u64) -> Result<()> {
        let mut raw = disk_with_gpt();
        raw.extend(noise(IMAGE_MIB << 20, seed));
        let file = self.site.dir.join(format!("{name}.raw"));
        fs::write(&file, raw)?;
        add_image(&self.site.api, &file, name, "1").map(drop)
    }

    fn create(&self, number: u64, more: &[&str]) -> Result<PathBuf> {
        let file = self.site.dir.join(format!("{number}.bundle"));
        let mut command = Command::new(binary()?);
        command.args(["bundle", "create"]).arg(&file).arg("--config").arg(self.site.dir.join("billet.toml"));
        // The program itself is large in a debug build, and the same in each bundle.
        let program = format!("{}=/bin/true", std::env::consts::ARCH);
        said(command.args(["--number", &number.to_string(), "--program", &program]).args(more))?;
        Ok(file)
    }
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// What a command that must fail says.
fn refused(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(!output.status.success(), "{command:?} was done");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What a site offers: its images, all of them read back, and the kernel that machines get.
fn catalogue(site: &Site) -> Result<(Vec<String>, String)> {
    let page = site.api.get("/api/v1/images")?;
    let mut images = Vec::new();
    for image in page["items"].as_array().context("images")? {
        let id = image["id"].as_str().context("an id")?;
        let verdict = site.api.post(&format!("/api/v1/images/{id}/verify"), &json!({}))?;
        ensure!(verdict["good"] == true, "{verdict:#}");
        images.push(format!("{}:{}", image["name"], image["version"]));
    }
    images.sort();
    let url = format!("{}/boot/vmlinuz", site.provisioning.url());
    let octets = ureq::get(&url).call().with_context(|| url.clone())?.body_mut().read_to_vec()?;
    Ok((images, format!("{:x?}", &Sha256::digest(octets)[..8])))
}

/// Kills the server at fifty points of an import. After each start the site has the old catalogue, whole, or the new one, whole;
/// and then the import ends well.
#[test]
fn killed_at_any_moment() -> Result<()> {
    let maker = Maker::new("bundle/maker")?;
    maker.add_noise("old", 1)?;
    fs::write(maker.site.dir.join("boot/vmlinuz"), b"the old kernel")?;
    let old = maker.create(1, &[])?;
    maker.add_noise("new", 2)?;
    fs::write(maker.site.dir.join("boot/vmlinuz"), b"the new kernel")?;
    let new = maker.create(2, &[])?;
    let size = fs::metadata(&new)?.len();

    let mut site = Site::with_config("bundle/taker", &format!("\n[bundles]\nkeys = [{:?}]\n", maker.line))?;
    let import = |site: &Site, file: &Path| -> Result<Command> {
        let mut command = site.server.command_line()?;
        command.args(["bundle", "import"]).arg(file);
        Ok(command)
    };
    said(&mut import(&site, &old)?)?;
    let before = catalogue(&site)?;
    ensure!(before.0.len() == 1, "{before:?}");
    let saved = site.dir.join("saved");
    let save = |from: &Path, to: &Path| -> Result<()> {
        let _ = fs::remove_dir_all(to);
        said(Command::new("cp").arg("-a").arg(from).arg(to)).map(drop)
    };
    site.server.stop()?;
    save(&site.server.state_dir(), &saved)?;
    site.server.start_again()?;
    let began = Instant::now();
    said(&mut import(&site, &new)?)?;
    let whole = began.elapsed();
    println!(
        "bundle_mib {:.1} import_s {:.2} import_mib_per_s {:.1}",
        size as f64 / f64::from(1 << 20),
        whole.as_secs_f64(),
        size as f64 / f64::from(1 << 20) / whole.as_secs_f64()
    );
    let after = catalogue(&site)?;
    ensure!(after.0.len() == 2 && after.1 != before.1, "{after:?}");

    let (mut cut, mut done) = (0, 0);
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..KILLS {
        if number == 0 || done > 0 && catalogue(&site)? == after {
            site.server.stop()?;
            save(&saved, &site.server.state_dir())?;
            site.server.start_again()?;
        }
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        // Every other time near the end, where it is switched.
        let part = (chance % 1000) as f64 / 1000.0;
        let part = if number % 2 == 0 { part } else { 0.8 + part * 0.3 };
        let mut running = import(&site, &new)?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(whole.mul_f64(part));
        site.server.kill()?;
        running.wait()?;
        site.server.start_again()?;
        let found = catalogue(&site)?;
        if found == after {
            done += 1;
        } else {
            ensure!(found == before, "kill {number} at {part:.3}: {found:?}");
            cut += 1;
        }
    }
    said(&mut import(&site, &new)?)?;
    ensure!(catalogue(&site)? == after, "the import did not end well");
    println!("bundle_kills {KILLS} old_whole {cut} new_whole {done} torn 0");
    ensure!(cut >= KILLS / 4, "most kills came too late: {cut} of {KILLS} hit an import");
    refusals(&maker, &site, &old)
}

/// What the server says to bundles that it does not take.
fn refusals(maker: &Maker, site: &Site, old: &Path) -> Result<()> {
    let command = |args: &[&str], file: &Path| -> Result<Command> {
        let mut command = site.server.command_line()?;
        command.args(["bundle"]).args(args).arg(file);
        Ok(command)
    };
    let older = refused(&mut command(&["import"], old)?)?;
    ensure!(older.contains("bundle 2 was taken in before") && older.contains("--allow-older"), "{older}");
    let mut octets = fs::read(old)?;
    let last = octets.len() - 1;
    octets[last] ^= 1;
    let altered = site.dir.join("altered.bundle");
    fs::write(&altered, &octets)?;
    let said_of = refused(&mut command(&["import", "--allow-older"], &altered)?)?;
    ensure!(said_of.contains("was changed"), "{said_of}");
    let before = catalogue(site)?;
    said(&mut command(&["import", "--allow-older"], old)?)?;
    let events = site.api.get("/api/v1/events?limit=50")?.to_string();
    ensure!(events.contains("older than bundle 2, and was allowed nevertheless"), "{events}");
    ensure!(catalogue(site)?.1 != before.1, "the older kernel is served");
    said(site.server.command_line()?.args(["bundle", "switch", "2"]))?;
    ensure!(catalogue(site)? == before, "and the newer one again");
    let stranger = refused(
        Command::new(binary()?)
            .args(["bundle", "verify"])
            .arg(old)
            .arg("--state-dir")
            .arg(site.dir.join("none")),
    )?;
    ensure!(stranger.contains("no key is trusted"), "{stranger}");
    let known = said(
        Command::new(binary()?)
            .args(["bundle", "verify", "-o", "json"])
            .arg(old)
            .arg("--state-dir")
            .arg(site.dir.join("none"))
            .arg("--key")
            .arg(&maker.key),
    )?;
    let known: Value = serde_json::from_str(&known)?;
    ensure!(known["number"] == 1 && known["key"] == maker.line, "{known}");
    Ok(())
}

/// The first machine of a site that had nothing but its bundle: loaders, kernel, ramdisk and image come from there.
#[test]
fn a_site_from_nothing_but_a_bundle() -> Result<()> {
    let maker = Maker::new("bundle/far")?;
    for name in ["vmlinuz", "initramfs.zst"] {
        fs::copy(artifact(&format!("ramdisk/{name}"))?, maker.site.dir.join("boot").join(name))?;
    }
    let _ = fs::remove_file(maker.site.dir.join("boot/initramfs"));
    add_image(&maker.site.api, &artifact("images/tiny-a.raw")?, "tiny-a", "1")?;
    let file = maker.create(1, &[])?;
    let Maker { site, key, .. } = maker;

    let mut rack = Rack::new("bundle")?;
    let (state, empty) = (rack.dir().join("state"), rack.dir().join("empty"));
    fs::create_dir_all(&empty)?;
    let began = Instant::now();
    said(
        Command::new(binary()?)
            .args(["bundle", "import", "--offline"])
            .arg(&file)
            .arg("--state-dir")
            .arg(&state)
            .arg("--key")
            .arg(&key),
    )?;
    println!(
        "bundle_mib {} offline_import_s {:.2}",
        fs::metadata(&file)?.len() >> 20,
        began.elapsed().as_secs_f64()
    );
    // The site that made it is gone.
    drop(site);
    rack.start_server_with(|config| {
        let boot =
            config.lines().find(|line| line.starts_with("directory = ")).unwrap_or_default().to_owned();
        config.replace(&boot, &format!("directory = {empty:?}\nloaders = [{empty:?}]"))
    })?;
    let api: Api = rack.api()?;
    let images = api.get("/api/v1/images")?;
    ensure!(images["items"][0]["origin"] == "bundle 1", "{images:#}");
    let mut machine =
        rack.machine(MachineSpec::new("m1", Firmware::Bios).disk(Disk::virtio("OS1", 1 << 30)))?;
    machine.power_on()?;
    let node = wait_discovered(&api, &machine, "available", DISCOVERY)?;
    deploy(&api, &node, "tiny-a", "OS1")?;
    wait_state(&api, &node, "active", DEPLOY)?;
    machine.serial().wait_for("TINY-OS READY", LOCAL_BOOT)?;
    rack.passed();
    Ok(())
}
