//! The last part of `cargo xtask bench dpu`: from the request for a server to its phone-home, on a boot volume behind a DPU, on an
//! instant one there, and on the disk of a machine without a DPU. In turns; the same images, the same kind of machine, and each is
//! switched off when its server is asked for, as one is that nobody has.
//!
//! ```text
//!   local     on ─▶ firmware ─▶ netboot of the ramdisk ─▶ agent writes ─▶ restart ─▶ firmware ─▶ OS phones home
//!   volume    server writes the image ─▶ DPU presents it ─▶ on ─▶ firmware ─▶ OS phones home
//!   instant                              DPU presents it ─▶ on ─▶ firmware ─▶ OS phones home
//! ```
//!
//! Moments are the API's own: the marks of the waterfall, and the event of a controller that says that its machine is on.

use ::tests::dpu::{DpuSite, INSTANT, VOLUMES};
use ::tests::rack::{Firmware, Rack, artifact};
use ::tests::scenario::{DEPLOY, add_image_with, text, wait_state};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::median;

/// Bytes of any disk.
const SIZE: u64 = 4 << 30;
/// Type of instant volumes that come as fast as one does unless it is told otherwise. The rig's own is slow for the sake of tests.
const PROMPT: &str = "prompt";
/// A large OS is up within this on an emulated machine that has little of a processor.
const UP: std::time::Duration = std::time::Duration::from_secs(1800);
/// Marks of the waterfall that are shown, and what they are called here.
const MARKS: [(&str, &str); 6] = [
    ("agent", "ramdisk up"),
    ("write", "writing"),
    ("written", "written"),
    ("restart", "restarted"),
    ("local_boot", "ready to boot"),
    ("done", "OS up"),
];

/// How servers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Local,
    Volume,
    Instant,
}

/// The rig.
struct Bench {
    site: DpuSite,
    of: String,
    /// The machine with a disk, and the one behind a DPU.
    nodes: [String; 2],
}

/// What was seen of one server: moments in the order in which they came, in seconds after the request.
type Seen = Vec<(&'static str, f64)>;

/// Measures `rounds` servers of each kind of a small image, and `large` of Debian.
pub fn run(rounds: u32, large: u32) -> Result<()> {
    let images = [("tiny-a", "root", rounds), ("debian-12", "debian", large)];
    let mut bench = Bench::begin()?;
    for (image, user, rounds) in images.into_iter().filter(|(_, _, rounds)| *rounds > 0) {
        let file = artifact(&format!("images/{image}.raw"))?;
        add_image_with(&bench.site.api, &file, image, "1", &format!("default_user={user}"))?;
        bench.compare(image, rounds)?;
    }
    bench.site.passed();
    Ok(())
}

impl Way {
    const ALL: [Self; 3] = [Self::Volume, Self::Instant, Self::Local];

    fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Volume => "volume",
            Self::Instant => "instant",
        }
    }

    /// The type of its boot volume.
    fn kind(self) -> Option<&'static str> {
        match self {
            Self::Local => None,
            Self::Volume => Some(VOLUMES),
            Self::Instant => Some(PROMPT),
        }
    }
}

impl Bench {
    fn begin() -> Result<Self> {
        let prompt = format!(
            "\n[[volumes]]\nname = \"{PROMPT}\"\nkind = \"{INSTANT}\"\ndirectory = \"/run/billet-dpu/{PROMPT}\"\n"
        );
        let name = "bench-create";
        let mut site = DpuSite::on(Rack::new(name)?, name, 1, Firmware::Uefi, &prompt)?;
        let behind = site.discover()?.pop().context("a host")?;
        let local = site.discover_local(Firmware::Uefi, SIZE)?;
        let of = site.project("bench")?;
        Ok(Self { site, of, nodes: [local, behind] })
    }

    /// Servers of each kind in turns, and how long they took beside each other.
    fn compare(&self, image: &str, rounds: u32) -> Result<()> {
        let mut seen = Way::ALL.map(|way| (way, Vec::new()));
        for round in 1..=rounds {
            for (way, all) in &mut seen {
                let one = self.up(*way, image)?;
                println!("{image}, round {round}, {:8}{}", way.name(), shown(&one));
                all.push(one);
            }
        }
        let mut took = [0.0; 3];
        for ((way, all), took) in seen.iter().zip(&mut took) {
            let middle = middle(all);
            println!("{image}, median of {rounds}, {:8}{}", way.name(), shown(&middle));
            *took = middle.last().map_or(f64::NAN, |(_, at)| *at);
        }
        let [volume, instant, local] = took;
        println!("create_to_up_ratio {:.2} with {image}", volume / local);
        println!("instant_to_up_ratio {:.2} with {image}", instant / local);
        Ok(())
    }

    /// A server from its request on until it has phoned home. It is given back afterwards.
    fn up(&self, way: Way, image: &str) -> Result<Seen> {
        let node = &self.nodes[usize::from(way != Way::Local)];
        self.rest(node, way)?;
        let (api, name) = (&self.site.api, way.name());
        let mut body = json!({ "name": name, "node": node, "image": image });
        if let Some(kind) = way.kind() {
            body["boot_volume"] = json!({ "size": SIZE, "type": kind });
            body["networks"] = json!(["web"]);
        }
        let of = &self.of;
        api.post(&format!("{of}/servers"), &body)?;
        let path = format!("{of}/servers/{name}");
        let is_over = |server: &Value| matches!(server["phase"].as_str(), Some("active" | "error"));
        let server = api.wait(&path, UP, |server| is_over(server).then(|| server.clone()))?;
        ensure!(server["phase"] == "active", "{name} does not come up: {server:#}");
        let seen = self.seen(&server, node)?;
        api.delete(&path)?;
        wait_state(api, node, "available", DEPLOY)?;
        Ok(seen)
    }

    /// Has a machine off, and nothing of another server on its DPU.
    fn rest(&self, node: &str, way: Way) -> Result<()> {
        let off = json!({ "action": "force_off" });
        let power = self.site.api.post(&format!("/api/v1/nodes/{node}/power"), &off)?;
        ensure!(power["state"] == "off", "{node} cannot be switched off: {power:#}");
        if way != Way::Local {
            self.site.wait_bare(0)?;
        }
        Ok(())
    }

    /// What the API says of a server that is up.
    fn seen(&self, server: &Value, node: &str) -> Result<Seen> {
        let begun = server["created"].as_u64().context("when it was asked for")?;
        let mut moments: Vec<(u64, &'static str)> = Vec::new();
        let phases = server["timeline"]["phases"].as_array().context("phases")?;
        for (mark, name) in MARKS {
            let phase = phases.iter().find(|phase| phase["phase"] == mark);
            moments.extend(phase.and_then(|phase| Some((phase["at"].as_u64()?, name))));
        }
        let id = text(server, "node")?;
        let events = self.site.api.get(&format!("/api/v1/events?node={node}&limit=500"))?;
        let events = events["items"].as_array().context("events")?;
        let is_on = |event: &&Value| event["kind"] == "power.on" && event["node"] == id.as_str();
        let on = events.iter().filter(is_on).filter_map(|event| event["at"].as_u64());
        moments.extend(on.filter(|at| *at >= begun).map(|at| (at, "power on")));
        moments.sort_unstable();
        Ok(moments.into_iter().map(|(at, name)| (name, (at.saturating_sub(begun)) as f64 / 1000.0)).collect())
    }
}

/// The median of each moment, in the order of the first.
fn middle(all: &[Seen]) -> Seen {
    let Some(first) = all.first() else { return Vec::new() };
    let of = |name: &'static str| {
        let at = |seen: &Seen| seen.iter().find(|(other, _)| *other == name).map(|(_, at)| *at);
        (name, median(all.iter().filter_map(at).collect()))
    };
    first.iter().map(|(name, _)| of(name)).collect()
}

/// Moments in a line.
fn shown(seen: &Seen) -> String {
    seen.iter().map(|(name, at)| format!("  {name} {at:.1}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_moments() {
        let all = [
            vec![("power on", 1.0), ("OS up", 9.0)],
            vec![("power on", 2.0), ("OS up", 7.0)],
            vec![("OS up", 8.0), ("power on", 6.0)],
        ];
        assert_eq!(middle(&all), [("power on", 2.0), ("OS up", 8.0)]);
        assert_eq!(shown(&middle(&all)), "  power on 2.0  OS up 8.0");
        assert!(middle(&[]).is_empty());
    }
}
