//! What is run for a volume: with which arguments, what behind it, and which files that reads.
//!
//! The host always talks to `billet-blk`. `qemu-storage-daemon` has an export for vhost-user of its own, but forgets what was
//! under way when it dies, lets requests to a dead iSCSI target wait for ever, and shows a serial number that is not the
//! volume's (decision 37).

use protocol::dpu::{Exporter, Serves, Volume};

use super::qsd;

/// What is appended to a volume's socket for the socket behind it.
pub const LINK: &str = ".qsd";

/// What is appended to a volume's socket for the file with its counters.
const COUNTERS: &str = ".counters";
/// Of the file with its limits.
pub const LIMITS: &str = ".limits";
/// Of the file with the image that is to be written, and what its OS is told: a config holds a token.
const FILL: &str = ".fill";
/// Of the file that is there once that was done.
pub const FILLED: &str = ".filled";
/// Of the file with what an instant volume tells its OS: a config holds a token.
const CONFIG: &str = ".config";

/// What is run. No secret is in the arguments, which everybody on the machine can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The arguments of `billet-blk`.
    pub arguments: Vec<String>,
    /// The arguments of `qemu-storage-daemon`, where that is to run behind it.
    pub daemon: Option<Vec<String>>,
    /// Files that must be there before it starts, for its eyes alone.
    pub files: Vec<Private>,
}

/// A file for the eyes of one exporter.
#[derive(Clone, PartialEq, Eq)]
pub struct Private {
    /// What is appended to the volume's files, such as `.secret`.
    pub extension: &'static str,
    /// Its contents.
    pub text: String,
}

impl std::fmt::Debug for Private {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Private").field(&self.extension).finish()
    }
}

/// What is run for a volume. `files` is the path of the volume's own files without their extensions.
pub fn launch(volume: &Volume, files: &str) -> Launch {
    let mut launch = match &volume.exporter {
        Exporter::Blk { serves } => blk(volume, serves, files),
        Exporter::Qsd { backend } => qsd::launch(volume, backend, files),
        // Nothing is run for these; they are asked.
        Exporter::Spdk { .. } | Exporter::Snap { .. } => {
            return Launch { arguments: Vec::new(), daemon: None, files: Vec::new() };
        }
    };
    if let Some(fill) = &volume.fill {
        let words = ["--fill", &format!("{files}{FILL}"), "--filled", &format!("{files}{FILLED}")];
        launch.arguments.extend(words.map(str::to_owned));
        if volume.encryption.is_some() {
            launch.arguments.push("--encrypted".to_owned());
        }
        launch.files.push(Private { extension: FILL, text: serde_json::json!(fill).to_string() });
    }
    launch
}

/// Where the daemon behind a volume meets `billet-blk`.
pub fn link(volume: &Volume) -> String {
    format!("{}{LINK}", volume.socket)
}

/// Where `billet-blk` writes the counters of a volume.
pub fn counters(volume: &Volume) -> String {
    format!("{}{COUNTERS}", volume.socket)
}

/// What every disk has.
pub(super) fn disk(volume: &Volume, files: &str) -> Vec<String> {
    let mut words = vec!["--socket".to_owned(), volume.socket.clone()];
    words.extend([
        "--counters".to_owned(),
        counters(volume),
        "--limits".to_owned(),
        format!("{files}{LIMITS}"),
    ]);
    if !volume.serial.is_empty() {
        words.extend(["--serial".to_owned(), volume.serial.clone()]);
    }
    words
}

/// What is run where `billet-blk` serves something by itself.
fn blk(volume: &Volume, serves: &Serves, files: &str) -> Launch {
    let mut words = disk(volume, files);
    let mut private = Vec::new();
    let mut put = |option: &str, value: String| words.extend([option.to_owned(), value]);
    match serves {
        Serves::File { path, read_only } => {
            put("--file", path.clone());
            if *read_only {
                words.push("--read-only".to_owned());
            }
        }
        Serves::Image { image, store, layer, size, rate, config, grow_root } => {
            put("--image", image.to_string());
            put("--store", store.clone());
            put("--layer", layer.clone());
            for (option, value) in [("--size", size), ("--rate", rate)] {
                if let Some(value) = value {
                    put(option, value.to_string());
                }
            }
            if let Some(config) = config {
                put("--config", format!("{files}{CONFIG}"));
                let text = serde_json::json!(config).to_string();
                private.push(Private { extension: CONFIG, text });
            }
            if let Some(deadline) = volume.deadline {
                put("--deadline", deadline.to_string());
            }
            if *grow_root {
                words.push("--grow-root".to_owned());
            }
        }
    }
    Launch { arguments: words, daemon: None, files: private }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(volume: &Volume) -> String {
        launch(volume, "/var/lib/billet-dpu/exporters/x").arguments.join(" ")
    }

    #[test]
    fn command_lines() {
        let state: protocol::dpu::Desired =
            serde_json::from_str(include_str!("../../../../protocol/src/dpu.v1.json")).unwrap();
        let lines: Vec<String> = state.volumes.iter().map(line).collect();
        assert_eq!(
            lines[0],
            "--socket /run/billet-dpu/boot.sock --counters /run/billet-dpu/boot.sock.counters --limits \
             /var/lib/billet-dpu/exporters/x.limits --serial BOOT --image \
             de67b0497beb204c811a6fa64a6677226f3ec27b75acad02ae5c8b6ee2f4ea65 --store http://10.77.0.1:8080 --layer \
             /var/lib/billet-dpu/layers/boot --size 10737418240 --rate 33554432"
        );
        assert_eq!(
            lines[1],
            "--socket /run/billet-dpu/data.sock --counters /run/billet-dpu/data.sock.counters --limits \
             /var/lib/billet-dpu/exporters/x.limits --serial DATA --file /dev/vg0/data"
        );
    }

    #[test]
    fn a_config_is_in_a_file_and_in_no_command_line() {
        let volumes: Vec<Volume> =
            serde_json::from_str(include_str!("../../../../protocol/src/dpu-instant.v1.json")).unwrap();
        let lines: Vec<String> = volumes.iter().map(line).collect();
        assert!(lines[0].ends_with(
            "--layer /var/lib/billet-dpu/layers/boot --size 10737418240 --config \
             /var/lib/billet-dpu/exporters/x.config --grow-root"
        ));
        assert!(lines[1].ends_with("--config /var/lib/billet-dpu/exporters/x.config"));
        for (volume, line) in volumes.iter().zip(&lines) {
            let launch = launch(volume, "/var/lib/billet-dpu/exporters/x");
            assert!(!line.contains("secretsecret") && !format!("{launch:?}").contains("secretsecret"));
            let [Private { extension: CONFIG, text }] = launch.files.as_slice() else { panic!("no file") };
            assert!(text.contains("secretsecret"));
        }
    }

    #[test]
    fn an_image_is_written_by_who_serves_the_volume() {
        let volumes: Vec<Volume> =
            serde_json::from_str(include_str!("../../../../protocol/src/dpu-fill.v1.json")).unwrap();
        let launch = launch(&volumes[0], "/var/lib/billet-dpu/exporters/x");
        let line = launch.arguments.join(" ");
        assert!(line.ends_with(
            " --fill /var/lib/billet-dpu/exporters/x.fill --filled /var/lib/billet-dpu/exporters/x.filled --encrypted"
        ));
        assert!(!line.contains("secretsecret") && !format!("{launch:?}").contains("secretsecret"));
        let order = launch.files.iter().find(|file| file.extension == FILL).unwrap();
        assert_eq!(serde_json::from_str::<protocol::dpu::Fill>(&order.text).ok(), volumes[0].fill);
    }

    #[test]
    fn a_key_is_in_a_file_and_what_is_above_it_is_plain() {
        let mut volumes: Vec<Volume> =
            serde_json::from_str(include_str!("../../../../protocol/src/dpu-encrypted.v1.json")).unwrap();
        volumes[0].limits = Some(protocol::dpu::IoLimits { iops: Some(7), bytes_per_second: None });
        let launch = launch(&volumes[0], "/var/lib/billet-dpu/exporters/x");
        let words = launch.daemon.clone().unwrap().join(" ");
        for part in [
            r#"{"file":"/var/lib/billet-dpu/exporters/x.key","format":"raw","id":"key","qom-type":"secret"}"#,
            r#"{"driver":"luks","file":"backend","key-secret":"key","node-name":"plain"}"#,
            r#""driver":"raw","file":"plain""#,
        ] {
            assert!(words.contains(part), "{part} is not in {words}");
        }
        assert!(!words.contains("passpass") && !format!("{launch:?}").contains("passpass"));
        assert!(matches!(launch.files.as_slice(), [Private { extension: ".key", .. }]));
    }

    #[test]
    fn command_lines_of_backends_have_no_secrets() {
        let volumes: Vec<Volume> =
            serde_json::from_str(include_str!("../../../../protocol/src/dpu-backends.v1.json")).unwrap();
        let mut text = String::new();
        for volume in volumes.into_iter().filter(|volume| matches!(volume.exporter, Exporter::Qsd { .. })) {
            let launch = launch(&volume, "/var/lib/billet-dpu/exporters/x");
            let daemon = launch.daemon.iter().flatten().cloned();
            let words =
                [launch.arguments.join(" ")].into_iter().chain(daemon).collect::<Vec<_>>().join("\n  ");
            assert!(!words.contains("secretsecret") && !words.contains("AQBv"), "{words}");
            assert!(!format!("{launch:?}").contains("secretsecret"));
            text += &format!("{}: {words}\n", volume.name);
            for file in launch.files {
                text += &format!("{}:\n{}\n", file.extension, file.text);
            }
        }
        insta::assert_snapshot!(text.trim_end());
    }
}
