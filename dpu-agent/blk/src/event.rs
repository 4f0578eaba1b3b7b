//! What somebody should know of: one JSON object per line on standard output, `event` names the kind, `at` is
//! milliseconds since 1970.

use std::io::Write;
use std::ops::Range;
use std::time::SystemTime;

use serde::Serialize;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The socket can be connected to.
    Serving {
        /// The socket.
        socket: String,
        /// Bytes of the volume.
        size: u64,
    },
    /// The image became what it is to be on this volume. Said once in a volume's life.
    Adapted {
        /// The config partition that was added, in bytes of the volume.
        #[serde(skip_serializing_if = "Option::is_none")]
        config: Option<Range<u64>>,
        /// Number and bytes of the partition that was grown.
        #[serde(skip_serializing_if = "Option::is_none")]
        grown: Option<(u32, u64)>,
    },
    /// All of the image was written into the volume and read back, before anybody could have it. Said once in a volume's life.
    ImageWritten {
        /// Bytes of the image's data.
        bytes: u64,
        /// What was done.
        #[serde(flatten)]
        written: imaging::Written,
    },
    /// A frontend (QEMU) connected.
    Connected,
    /// A frontend went away. Its guest waits, if it lives, until it connects again.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// The last owner of the queues died with requests under way: they are carried out now.
    Replayed {
        /// Queue.
        queue: u16,
        /// Requests.
        requests: usize,
    },
    /// From now on these limits hold; without any, the disk is as fast as it can be.
    Limited {
        /// Requests per second.
        #[serde(skip_serializing_if = "Option::is_none")]
        iops: Option<u64>,
        /// Bytes per second.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes_per_second: Option<u64>,
    },
    /// The volume itself failed; the guest got an I/O error.
    Failed {
        /// What was done.
        action: &'static str,
        /// Why not.
        reason: String,
    },
    /// The backend, or the program that reaches it, is gone. What the guest asks for waits.
    BackendAway {
        /// Why.
        reason: String,
    },
    /// The backend can be reached again.
    BackendBack,
    /// Requests that the backend did not answer were sent again, in their order.
    Resent {
        /// Requests.
        requests: usize,
    },
    /// Requests waited for the backend until the deadline. The guest got I/O errors.
    BackendLate {
        /// Requests.
        requests: usize,
    },
    /// The image store does not answer. What the guest waits for waits, and is asked for again and again.
    StoreAway {
        /// Why.
        reason: String,
    },
    /// The image store answers again.
    StoreBack,
    /// The bytes of a chunk are not those that the image names. The guest got an I/O error, never those bytes.
    ChunkWrong {
        /// Chunk.
        chunk: u32,
        /// Name of the chunk.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// A chunk did not come within the deadline. The guest got an I/O error.
    ChunkLate {
        /// Chunk.
        chunk: u32,
    },
    /// Another percent of the image's chunks is here; of an image that is written into a volume, of writing and reading back.
    Progress {
        /// Percent of the chunks that hold data.
        percent: usize,
        /// Bytes of the image's data that are here.
        bytes: u64,
        /// Bytes transferred since the start of this process.
        transferred: u64,
    },
    /// All of the image is here: the image store is needed no more.
    Hydrated {
        /// Bytes of the image's data.
        bytes: u64,
        /// Bytes transferred since the start of this process.
        transferred: u64,
    },
    /// A queue is not what it should be: the guest's driver or the frontend is broken. Nothing more is taken from it.
    QueueBroken {
        /// Queue.
        queue: u16,
        /// Why.
        reason: String,
    },
}

/// Prints `event`. A reader that went away does not stop a disk.
pub fn say(event: &Event) {
    #[derive(Serialize)]
    struct Line<'a> {
        at: u128,
        #[serde(flatten)]
        event: &'a Event,
    }
    let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis());
    if let Ok(mut line) = serde_json::to_vec(&Line { at, event }) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}
