//! `billet bmc …`: management controllers.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bmc::{Component, DriverKind, Identity, LogEntry, Reading, Secret};
use boot_server_core::node::Netboot;
use clap::{Subcommand, ValueEnum};
use protocol::limits::JSON_BODY_MAX;

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::node::path;
use super::output::{Format, Show, facts, print, table};
use super::power::word;
use super::text::moment;
use crate::http::api::bmc_requests::{BmcRequest, ImportRequest, ScanRequest};
use crate::power::Options;
use crate::view::{BmcView, FaultReport, ImportView, Page, ScanFound, SensorHistory, SensorSeries};

/// What can be done with management controllers.
#[derive(Debug, Subcommand)]
pub enum BmcCommand {
    /// All controllers
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// The controller of a node
    Show {
        /// Name or id of the node
        node: String,
    },
    /// Give a node a controller, or change what is known of it
    Set(SetArgs),
    /// Forget the controller of a node
    Remove {
        /// Name or id of the node
        node: String,
    },
    /// Take in a list: CSV with the headings node, mac, uuid, serial, driver, address, port, user, password, rack, unit; or JSON
    Import {
        /// The list; `-` for standard input
        file: PathBuf,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Look for controllers in a network, without any account
    Scan {
        /// IPv4 network of at most 1,024 addresses, such as 10.0.0.0/24
        network: String,
    },
    /// Accept the certificate that a controller shows now
    Trust {
        /// Name or id of the node
        node: String,
    },
    /// Restart a controller itself, at most once an hour; the machine runs on
    Reset {
        /// Name or id of the node
        node: String,
    },
    /// Give the account of a controller a random password, which only Billet knows
    Rotate {
        /// Name or id of the node
        node: String,
    },
    /// What a controller says of itself and its machine: makers, models, serial numbers, addresses
    Identity {
        /// Name or id of the node
        node: String,
    },
    /// The event log of a controller
    Log {
        /// Name or id of the node
        node: String,
        /// Empty it
        #[arg(long)]
        clear: bool,
    },
    /// Temperatures, fans, voltages, power: now, or as they were
    Sensors {
        /// Name or id of the node
        node: String,
        /// What was measured in this time until now, such as 1h, 24h, 7d or 30d
        #[arg(long, value_name = "TIME", value_parser = parse_span)]
        history: Option<Duration>,
        /// Of the history only this sensor, by name, with all its points
        #[arg(long, requires = "history")]
        sensor: Option<String>,
    },
    /// Parts and how they are
    Components {
        /// Name or id of the node
        node: String,
    },
}

/// Drivers that can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// Redfish over HTTPS
    Redfish,
    /// IPMI 2.0
    Ipmi,
    /// Wake-on-LAN: can only switch on
    Wol,
    /// A person at the machine
    Manual,
}

/// What firmware boots the agent from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// PXE
    Pxe,
    /// UEFI HTTP boot
    Http,
    /// Not from the network: from an image in its virtual drive
    Media,
}

/// `billet bmc set`.
#[derive(Debug, clap::Args)]
pub struct SetArgs {
    /// Name or id of the node
    node: String,
    /// How it is spoken to
    #[arg(long, value_enum)]
    driver: Option<Driver>,
    /// Name or address (an address for IPMI)
    #[arg(long)]
    address: Option<String>,
    /// Port, where it is not the protocol's own
    #[arg(long)]
    port: Option<u16>,
    /// User name
    #[arg(long)]
    user: Option<String>,
    /// File with the password; `-` for standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// IPMI: file with the BMC key K_g (text, or 0x and hexadecimal digits); an empty file takes it away
    #[arg(long, value_name = "FILE")]
    kg_file: Option<PathBuf>,
    /// How the machine's firmware is told to boot from the network; as it did last if not given
    #[arg(long, value_enum)]
    netboot: Option<By>,
    /// Redfish: id of the system, where a controller has several
    #[arg(long)]
    system: Option<String>,
    /// Redfish: allow http:// addresses; the password is then sent in the clear (for emulators)
    #[arg(long)]
    plain_http: bool,
}

/// Runs a command.
pub(super) fn run(client: &Client, format: Format, command: BmcCommand) -> Result<(), Failure> {
    let empty = serde_json::json!({});
    let post = |node: &str, verb: &str| client.post::<_, BmcView>(&path(node, verb), &empty);
    match command {
        BmcCommand::List(again) => again.list(client, SITE, format, || client.all::<BmcView>("bmcs")),
        BmcCommand::Show { node } => format.print(&client.get::<BmcView>(&path(&node, "/bmc"))?),
        BmcCommand::Set(args) => {
            let request = request(&args)?;
            format.print(&client.put::<_, BmcView>(&path(&args.node, "/bmc"), &request)?)
        }
        BmcCommand::Remove { node } => client.delete(&path(&node, "/bmc")),
        BmcCommand::Import { file, dry_run } => import(client, format, &file, dry_run),
        BmcCommand::Scan { network } => {
            format.print(&client.post::<_, Page<ScanFound>>("bmcs/scan", &ScanRequest { network })?)
        }
        BmcCommand::Trust { node } => format.print(&post(&node, "/bmc/trust")?),
        BmcCommand::Rotate { node } => format.print(&post(&node, "/bmc/rotate")?),
        BmcCommand::Reset { node } => {
            client.post::<_, ()>(&path(&node, "/bmc/reset"), &empty)?;
            print("The controller restarts; it is away for some minutes.\n")
        }
        BmcCommand::Identity { node } => {
            format.print(&client.get::<Identity>(&path(&node, "/bmc/identity"))?)
        }
        BmcCommand::Log { node, clear: true } => client.delete(&path(&node, "/bmc/log")),
        BmcCommand::Log { node, .. } => format.print(&client.all::<LogEntry>(&path(&node, "/bmc/log"))?),
        BmcCommand::Sensors { node, history: Some(time), sensor } => {
            let from =
                crate::engine::now().0.saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            let mut query = format!("/sensors/history?from={from}");
            if let Some(sensor) = &sensor {
                query.push_str(&format!("&sensor={}", encode(sensor)));
            }
            format.print(&client.get::<SensorHistory>(&path(&node, &query))?)
        }
        BmcCommand::Sensors { node, .. } => {
            format.print(&client.all::<Reading>(&path(&node, "/bmc/sensors"))?)
        }
        BmcCommand::Components { node } => {
            format.print(&client.all::<Component>(&path(&node, "/bmc/components"))?)
        }
    }
}

fn request(args: &SetArgs) -> Result<BmcRequest, Failure> {
    // A file ends with a line end, a secret does not.
    let told = args.netboot.is_some() || args.system.is_some() || args.plain_http;
    let options = told.then(|| Options {
        netboot: args.netboot.map(|by| match by {
            By::Pxe => Netboot::Pxe,
            By::Http => Netboot::Http,
            By::Media => Netboot::Media,
        }),
        plain_http: args.plain_http,
        system: args.system.clone(),
    });
    Ok(BmcRequest {
        driver: args.driver.map(|driver| match driver {
            Driver::Redfish => DriverKind::Redfish,
            Driver::Ipmi => DriverKind::Ipmi,
            Driver::Wol => DriverKind::Wol,
            Driver::Manual => DriverKind::Manual,
        }),
        address: args.address.clone(),
        port: args.port,
        user: args.user.clone(),
        password: secret(args.password_file.as_deref())?,
        kg: secret(args.kg_file.as_deref())?,
        options,
    })
}

/// The first line of a file, which nobody shall see.
pub(super) fn secret(file: Option<&Path>) -> Result<Option<Secret>, Failure> {
    let text = file.map(read).transpose()?;
    Ok(text.map(|text| Secret(text.trim_end_matches(['\r', '\n']).to_owned())))
}

fn import(client: &Client, format: Format, file: &Path, dry_run: bool) -> Result<(), Failure> {
    let text = read(file)?;
    let is_json = text.trim_start().starts_with('[');
    let request = if is_json {
        let bmcs = serde_json::from_str(&text)
            .map_err(|e| Failure::Usage(format!("{} is no list of objects: {e}", file.display())))?;
        ImportRequest { bmcs: Some(bmcs), dry_run, ..ImportRequest::default() }
    } else {
        ImportRequest { csv: Some(text), dry_run, ..ImportRequest::default() }
    };
    let done: ImportView = client.post_with("bmcs/import", &request, None, None)?;
    format.print(&done)?;
    let refused = done.lines.iter().filter(|line| line.refused.is_some()).count();
    if refused > 0 {
        return Err(Failure::Hinted {
            message: format!("{refused} of {} lines were refused", done.lines.len()),
            hint: "correct them and import the list again: lines that are done already do no harm".to_owned(),
        });
    }
    Ok(())
}

/// A file, or standard input for `-`; at most what the server takes.
pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let refuse = |why: String| Failure::Usage(format!("cannot use {}: {why}", file.display()));
    let mut text = String::new();
    let limit = JSON_BODY_MAX as u64;
    let result = if file == Path::new("-") {
        std::io::stdin().lock().take(limit + 1).read_to_string(&mut text)
    } else {
        let opened = std::fs::File::open(file).map_err(|e| refuse(e.to_string()))?;
        opened.take(limit + 1).read_to_string(&mut text)
    };
    result.map_err(|e| refuse(e.to_string()))?;
    if text.len() > JSON_BODY_MAX {
        return Err(refuse(format!("it is larger than {JSON_BODY_MAX} bytes")));
    }
    Ok(text)
}

fn standing(bmc: &BmcView) -> String {
    match &bmc.trouble {
        Some(trouble) => trouble.message.clone(),
        None if bmc.last_seen.is_some() => "answers".to_owned(),
        None => "not asked yet".to_owned(),
    }
}

impl Show for Page<BmcView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No controllers. Give one with `billet bmc set NODE`, or a list with `billet bmc import`.".to_owned();
        }
        let rows = self.items.iter().map(|b| {
            vec![
                b.node_name.clone(),
                b.driver.to_string(),
                b.address.clone(),
                b.power.map(word).unwrap_or_default().to_owned(),
                standing(b),
            ]
        });
        table(&["node", "driver", "address", "power", "state"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|b| b.node_name.clone()).collect()
    }
}

impl Show for BmcView {
    fn table(&self) -> String {
        facts(&[
            ("node", Some(self.node_name.clone())),
            ("driver", Some(self.driver.to_string())),
            ("address", Some(self.address.clone()).filter(|a| !a.is_empty())),
            ("port", self.port.map(|port| port.to_string())),
            ("user", self.user.clone()),
            ("password", Some(if self.has_password { "stored" } else { "none" }.to_owned())),
            ("K_g", self.has_kg.then(|| "stored".to_owned())),
            ("SSH key", self.host_key.clone()),
            ("certificate", self.certificate.as_ref().map(|c| format!("SHA-256 {c}"))),
            ("power", self.power.map(|power| word(power).to_owned())),
            ("state", Some(standing(self))),
            ("what to do", self.trouble.as_ref().map(|t| t.hint.clone()).filter(|h| !h.is_empty())),
            ("last seen", self.last_seen.map(moment)),
            ("asked again", self.wait_until.map(moment)),
            ("events", self.events.clone()),
            ("restarted", self.reset_at.map(moment)),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.node_name.clone()]
    }
}

impl Show for ImportView {
    fn table(&self) -> String {
        let rows = self.lines.iter().map(|line| {
            let done = match (&line.refused, line.new_node, line.replaces) {
                (Some(problem), ..) => format!("refused: {} ({})", problem.message, problem.hint),
                (None, true, _) => "new node".to_owned(),
                (None, _, true) => "replaced".to_owned(),
                (None, ..) => "added".to_owned(),
            };
            vec![line.line.to_string(), line.node.clone().unwrap_or_default(), done]
        });
        let title = if self.dry_run { "would be" } else { "is" };
        table(&["line", "node", title], rows)
    }

    fn names(&self) -> Vec<String> {
        self.lines.iter().filter(|l| l.refused.is_none()).filter_map(|l| l.node.clone()).collect()
    }
}

impl Show for Page<ScanFound> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "Nothing answers there as a management controller.".to_owned();
        }
        let rows = self.items.iter().map(|found| {
            let redfish = found.redfish.as_ref().map(|r| {
                [&r.vendor, &r.product, &r.version]
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(" ")
            });
            let ipmi = if found.ipmi { "yes" } else { "" };
            vec![
                found.address.to_string(),
                redfish.unwrap_or_default(),
                ipmi.to_owned(),
                found.node.clone().unwrap_or_default(),
            ]
        });
        table(&["address", "redfish", "ipmi", "node"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|found| found.address.to_string()).collect()
    }
}

impl Show for FaultReport {
    fn table(&self) -> String {
        let health = self.health.as_ref().map_or("not known", |health| health.level.as_str());
        let mut text = facts(&[
            ("node", Some(self.node.clone())),
            ("product", Some(self.product.clone()).filter(|p| !p.is_empty())),
            ("serial", self.serial.clone()),
            ("place", self.place.as_ref().map(ToString::to_string)),
            ("plugged in", Some(self.switch_ports.join(", ")).filter(|p| !p.is_empty())),
            ("health", Some(health.to_owned())),
        ]);
        if !self.faults.is_empty() {
            let rows = self.faults.iter().map(|f| {
                vec![
                    f.level.as_str().to_owned(),
                    f.what.clone(),
                    f.place.clone().unwrap_or_default(),
                    f.model.clone().unwrap_or_default(),
                    f.serial.clone().unwrap_or_default(),
                    f.part_number.clone().unwrap_or_default(),
                ]
            });
            text.push_str(&format!(
                "\n{}\n",
                table(&["level", "what", "place", "model", "serial", "part"], rows)
            ));
        }
        text
    }

    fn names(&self) -> Vec<String> {
        self.faults.iter().map(|f| f.what.clone()).collect()
    }
}

impl Show for Page<FaultReport> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "Nothing is wrong, say the controllers that are known.".to_owned();
        }
        let rows = self.items.iter().flat_map(|report| {
            report.faults.iter().map(|f| {
                vec![
                    report.node.clone(),
                    report.place.as_ref().map(ToString::to_string).unwrap_or_default(),
                    f.level.as_str().to_owned(),
                    f.what.clone(),
                    f.place.clone().unwrap_or_default(),
                    f.model.clone().unwrap_or_default(),
                    f.serial.clone().unwrap_or_default(),
                ]
            })
        });
        table(&["node", "place", "level", "what", "where", "model", "serial"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|report| report.node.clone()).collect()
    }
}

fn lower(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

impl Show for Page<Reading> {
    fn table(&self) -> String {
        let rows = self.items.iter().map(|r| {
            let value = r.value.map(|value| format!("{value:.2}")).unwrap_or_default();
            vec![r.name.clone(), value, lower(r.unit), r.health.map(lower).unwrap_or_default()]
        });
        table(&["sensor", "value", "unit", "health"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|r| r.name.clone()).collect()
    }
}

/// Characters of a little picture of a series.
const SPARK: usize = 24;

impl SensorSeries {
    /// Least, mean and greatest of all points; a series has at least one.
    fn summary(&self) -> (f64, f64, f64) {
        let of = |pick: fn(f64, f64) -> f64, value: fn(&crate::view::MeasuredView) -> f64| {
            self.points.iter().map(value).reduce(pick).unwrap_or_default()
        };
        let sum: f64 = self.points.iter().map(|p| p.mean).sum();
        (of(f64::min, |p| p.min), sum / self.points.len().max(1) as f64, of(f64::max, |p| p.max))
    }

    /// The means between `from` and `to` as bars; a time without readings is blank.
    fn spark(&self, from: u64, to: u64) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let means = || self.points.iter().map(|p| p.mean);
        let (low, high) = (means().fold(f64::MAX, f64::min), means().fold(f64::MIN, f64::max));
        let width = (to.saturating_sub(from) / SPARK as u64).max(1);
        let bar = |place: usize| {
            let begin = from + width * place as u64;
            let within = |at: u64| at >= begin && at < begin + width;
            let found: Vec<f64> = self.points.iter().filter(|p| within(p.at.0)).map(|p| p.mean).collect();
            if found.is_empty() {
                return ' ';
            }
            let mean = found.iter().sum::<f64>() / found.len() as f64;
            // Between 0 and 7.
            let height = if high > low { ((mean - low) / (high - low) * 7.0).round() as usize } else { 3 };
            BARS[height.min(7)]
        };
        (0..SPARK).map(bar).collect()
    }
}

impl Show for SensorHistory {
    fn table(&self) -> String {
        match &self.sensors[..] {
            [] => "Nothing was measured in this time.".to_owned(),
            [one] => {
                let rows = one.points.iter().map(|p| {
                    vec![
                        moment(p.at),
                        format!("{:.2}", p.min),
                        format!("{:.2}", p.mean),
                        format!("{:.2}", p.max),
                    ]
                });
                let unit = format!("{} ({})", one.name, lower(one.unit));
                table(&[&unit, "least", "mean", "greatest"], rows)
            }
            many => {
                let rows = many.iter().map(|s| {
                    let (min, mean, max) = s.summary();
                    let last = s.points.last().map(|p| p.mean).unwrap_or_default();
                    let number = |value: f64| format!("{value:.2}");
                    let spark = s.spark(self.from.0, self.to.0);
                    vec![
                        s.name.clone(),
                        lower(s.unit),
                        number(last),
                        number(min),
                        number(mean),
                        number(max),
                        spark,
                    ]
                });
                table(&["sensor", "unit", "last", "least", "mean", "greatest", "course"], rows)
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.sensors.iter().map(|s| s.name.clone()).collect()
    }
}

/// A time such as `30m`, `24h` or `7d`.
fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || "give a number with m, h or d, such as 24h".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let count: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    let seconds = match unit {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    match count {
        1..=100_000 => Ok(Duration::from_secs(count * seconds)),
        _ => Err(wrong()),
    }
}

impl Show for Page<Component> {
    fn table(&self) -> String {
        let rows = self.items.iter().map(|c| {
            vec![
                lower(c.kind),
                c.name.clone(),
                lower(c.health),
                c.location.clone().unwrap_or_default(),
                c.model.clone().unwrap_or_default(),
                c.serial.clone().unwrap_or_default(),
                c.part_number.clone().unwrap_or_default(),
            ]
        });
        table(&["kind", "name", "health", "place", "model", "serial", "part"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|c| c.name.clone()).collect()
    }
}

impl Show for Identity {
    fn table(&self) -> String {
        let macs = self.macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        facts(&[
            ("maker", self.manufacturer.clone()),
            ("model", self.model.clone()),
            ("serial", self.serial.clone()),
            ("uuid", self.uuid.clone()),
            ("addresses", Some(macs).filter(|macs| !macs.is_empty())),
            ("controller", self.bmc_version.clone()),
            ("bios", self.bios_version.clone()),
            ("protocol", self.protocol_version.clone()),
            ("quirks", self.profile.clone()),
        ])
    }

    fn names(&self) -> Vec<String> {
        self.serial.iter().cloned().collect()
    }
}

impl Show for Page<LogEntry> {
    fn table(&self) -> String {
        let rows = self.items.iter().map(|l| {
            let sensor = l.sensor.clone().unwrap_or_default();
            vec![l.at.map(moment).unwrap_or_default(), lower(l.severity), sensor, l.message.clone()]
        });
        table(&["at", "severity", "sensor", "message"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|l| l.id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::MeasuredView;

    #[test]
    fn times_are_read() {
        let seconds = |text| parse_span(text).map(|time| time.as_secs()).ok();
        assert_eq!(["30m", "24h", "7d"].map(seconds), [Some(1800), Some(86_400), Some(604_800)]);
        assert_eq!(["", "h", "7", "1w", "-1h", "0h", "99999999999d", "7ä"].map(seconds), [None; 8]);
    }

    #[test]
    fn a_series_as_bars() {
        let point = |at, v| MeasuredView { at: protocol::Timestamp(at), min: v, mean: v, max: v + 1.0 };
        let series = SensorSeries {
            name: "CPU".into(),
            unit: bmc::Unit::Celsius,
            upper_warning: None,
            upper_critical: None,
            lower_critical: None,
            points: vec![point(0, 10.0), point(100, 20.0), point(2300, 30.0)],
        };
        assert_eq!(series.spark(0, 2400), format!("▁▅{}█", " ".repeat(21)));
        assert_eq!(series.summary(), (10.0, 20.0, 31.0));
    }
}
