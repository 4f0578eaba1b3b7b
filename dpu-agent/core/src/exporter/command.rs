//! What is run for a volume: which program, with which arguments, and which files it reads.

use protocol::dpu::{DEADLINE, Exporter, Serves, Volume};

use super::qsd;

/// A program that serves volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `billet-blk`.
    Blk,
    /// `qemu-storage-daemon`.
    Qsd,
}

/// What is run. No secret is in the arguments, which everybody on the machine can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub program: Program,
    /// Its arguments.
    pub arguments: Vec<String>,
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
    match &volume.exporter {
        Exporter::Blk { serves } => {
            Launch { program: Program::Blk, arguments: blk(volume, serves), files: Vec::new() }
        }
        Exporter::Qsd { backend } => qsd::launch(volume, backend, files),
    }
}

/// Seconds that a request of this volume waits for its backend.
pub(super) fn deadline(volume: &Volume) -> u32 {
    volume.deadline.unwrap_or(DEADLINE)
}

/// The arguments of `billet-blk`.
fn blk(volume: &Volume, serves: &Serves) -> Vec<String> {
    let mut words = vec!["--socket".to_owned(), volume.socket.clone()];
    let mut put = |option: &str, value: String| words.extend([option.to_owned(), value]);
    if !volume.serial.is_empty() {
        put("--serial", volume.serial.clone());
    }
    match serves {
        Serves::File { path, read_only } => {
            put("--file", path.clone());
            if *read_only {
                words.push("--read-only".to_owned());
            }
        }
        Serves::Image { image, store, layer, size, rate } => {
            put("--image", image.to_string());
            put("--store", store.clone());
            put("--layer", layer.clone());
            for (option, value) in [("--size", size), ("--rate", rate)] {
                if let Some(value) = value {
                    put(option, value.to_string());
                }
            }
            if let Some(deadline) = volume.deadline {
                put("--deadline", deadline.to_string());
            }
        }
    }
    words
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
            "--socket /run/billet-dpu/boot.sock --serial BOOT --image \
             de67b0497beb204c811a6fa64a6677226f3ec27b75acad02ae5c8b6ee2f4ea65 --store http://10.77.0.1:8080 --layer \
             /var/lib/billet-dpu/layers/boot --size 10737418240 --rate 33554432"
        );
        assert_eq!(lines[1], "--socket /run/billet-dpu/data.sock --serial DATA --file /dev/vg0/data");
    }

    #[test]
    fn command_lines_of_backends_have_no_secrets() {
        let volumes: Vec<Volume> =
            serde_json::from_str(include_str!("../../../../protocol/src/dpu-backends.v1.json")).unwrap();
        let mut text = String::new();
        for volume in volumes {
            let launch = launch(&volume, "/var/lib/billet-dpu/exporters/x");
            let words = launch.arguments.join("\n  ");
            assert!(!words.contains("secretsecret") && !words.contains("AQBv"), "{words}");
            assert!(!format!("{launch:?}").contains("secretsecret"));
            text += &format!("{}: {:?}\n  {words}\n", volume.name, launch.program);
            for file in launch.files {
                text += &format!("{}:\n{}\n", file.extension, file.text);
            }
        }
        insta::assert_snapshot!(text.trim_end());
    }
}
