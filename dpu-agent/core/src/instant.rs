//! How far an instant volume is, or one that an image is written into, from what `billet-blk` says of it line by line.

use protocol::dpu::{InstantSeen, WRONG_MAX, WrongChunk};
use serde::Deserialize;

/// Characters of a reason that are kept.
const REASON_MAX: usize = 300;
/// What `billet-blk` says where a new layer needs the store and the store is away: it is started again until it is not.
const NOT_BEGUN: &str = "cannot begin the layer";

/// What is read of a line; other events have nothing for us.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Said {
    Serving,
    Progress {
        percent: u8,
        #[serde(default)]
        bytes: u64,
    },
    /// Behind the running host, or before it has the volume.
    #[serde(alias = "image-written")]
    Hydrated {
        #[serde(default)]
        bytes: u64,
    },
    StoreAway {
        reason: String,
    },
    StoreBack,
    ChunkWrong {
        chunk: u32,
        id: String,
        reason: String,
    },
    #[serde(other)]
    Other,
}

/// Takes in one line of the exporter's output.
pub fn hear(seen: &mut InstantSeen, line: &str) {
    match serde_json::from_str(line) {
        Ok(said) => take(seen, said),
        Err(_) => take_error(seen, line),
    }
}

fn take(seen: &mut InstantSeen, said: Said) {
    match said {
        // A new process asks the store anew, and begins to count where the layer is.
        Said::Serving => (seen.failure, seen.away) = (None, None),
        // Whoever comes this far was not kept from it by what an earlier process died of.
        Said::Progress { percent, bytes } => {
            (seen.percent, seen.bytes, seen.failure) = (percent.min(100), bytes, None);
        }
        Said::Hydrated { bytes } => {
            let bytes = if bytes == 0 { seen.bytes } else { bytes };
            (seen.percent, seen.bytes, seen.hydrated) = (100, bytes, true);
            (seen.away, seen.wrong) = (None, Vec::new());
        }
        Said::StoreAway { reason } => seen.away = Some(cut(&reason)),
        Said::StoreBack => seen.away = None,
        Said::ChunkWrong { chunk, id, reason } => {
            seen.wrong.retain(|one| one.chunk != chunk);
            seen.wrong.push(WrongChunk { chunk, id: cut(&id), reason: cut(&reason) });
            let surplus = seen.wrong.len().saturating_sub(WRONG_MAX);
            seen.wrong.drain(..surplus);
        }
        Said::Other => {}
    }
}

/// Why the program ended, as it says it on several lines: `Error: …`, `Caused by:`, a line for each cause.
fn take_error(seen: &mut InstantSeen, line: &str) {
    if let Some(why) = line.strip_prefix("Error: ") {
        let is_away = why.starts_with(NOT_BEGUN);
        let told = if is_away { &mut seen.away } else { &mut seen.failure };
        *told = Some(cut(why));
        return;
    }
    let Some(cause) = line.strip_prefix("    ") else { return };
    let cause = cause.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':').trim();
    let away = seen.away.as_mut().filter(|away| away.starts_with(NOT_BEGUN));
    if let Some(told) = seen.failure.as_mut().or(away).filter(|_| !cause.is_empty()) {
        *told = cut(&format!("{told}: {cause}"));
    }
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &str) -> InstantSeen {
        let mut seen = InstantSeen::default();
        lines.lines().for_each(|line| hear(&mut seen, line));
        seen
    }

    const WRONG: &str = r#"{"at":1,"event":"chunk-wrong","chunk":7,"id":"ab","reason":"hash"}"#;

    #[test]
    fn progress_comes_and_a_new_process_does_not_forget_it() {
        let seen = heard(
            r#"{"at":1,"event":"serving","socket":"/s","size":1}
{"at":1,"event":"progress","percent":40,"bytes":4096,"transferred":9}
{"at":1,"event":"store-away","reason":"refused"}
{"at":2,"event":"serving","socket":"/s","size":1}
{"at":2,"event":"novel","x":1}"#,
        );
        assert_eq!((seen.percent, seen.bytes, seen.hydrated, seen.away), (40, 4096, false, None));
    }

    #[test]
    fn a_wrong_chunk_is_told_until_all_is_here() {
        let seen = heard(&format!("{WRONG}\n{WRONG}"));
        assert_eq!((seen.wrong.len(), seen.wrong[0].chunk), (1, 7), "once");
        let many: String = (0..20).map(|n| WRONG.replace(":7", &format!(":{n}")) + "\n").collect();
        let chunks: Vec<u32> = heard(&many).wrong.iter().map(|one| one.chunk).collect();
        assert_eq!(chunks, [12, 13, 14, 15, 16, 17, 18, 19], "the last ones");
        let seen = heard(&format!("{WRONG}\n{{\"at\":1,\"event\":\"hydrated\",\"transferred\":0}}"));
        assert!(seen.hydrated && seen.wrong.is_empty() && seen.percent == 100);
    }

    #[test]
    fn why_it_cannot_be_served_is_one_sentence_until_it_is() {
        let died = "Error: cannot open the volume\n\nCaused by:\n    0: the image cannot be made to fit\n    1: it has no GPT";
        let why = heard(died).failure.unwrap();
        assert_eq!(why, "cannot open the volume: the image cannot be made to fit: it has no GPT");
        assert_eq!(heard(&format!("{died}\n{{\"event\":\"serving\"}}")).failure, None);
        let anew = heard(&format!("{died}\n{{\"event\":\"progress\",\"percent\":3}}"));
        assert_eq!((anew.failure, anew.percent), (None, 3), "it works again");
        let away = heard(
            "Error: cannot begin the layer\n\nCaused by:\n    the image store does not give x: refused\n",
        );
        assert_eq!(away.failure, None, "it may come back");
        assert_eq!(away.away.unwrap(), "cannot begin the layer: the image store does not give x: refused");
    }
}
