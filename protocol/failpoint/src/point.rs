//! The catalogue of points.

/// Declares the points once: variant, name, what has happened there and what has not.
macro_rules! points {
    ($($variant:ident $name:literal $what:literal;)*) => {
        /// A place where a program can be made to die, fail or wait.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point {
            $(#[doc = $what] $variant,)*
        }

        impl Point {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What has happened there and what has not.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$variant => $what),* }
            }
        }
    };
}

points! {
    StoreBegin "store.begin" "A job of the database has come; nothing of it is done.";
    StoreCommitBefore "store.commit.before" "All is written within the transaction; it is not committed.";
    StoreCommitAfter "store.commit.after" "It is committed; nobody was told.";
    StepStored "engine.step.stored" "A step of a node is stored; the server's memory does not have it.";
    EffectBefore "effect.before" "An effect is open and was not begun.";
    EffectAfter "effect.after" "An effect was carried out and is still open.";
    PowerBefore "power.before" "A controller is about to be asked for a change.";
    PowerAfter "power.after" "A controller did a change; nobody was told.";
    OnceTaken "once.taken" "An idempotency key is taken; its request was not begun.";
    OnceDone "once.done" "A request with a key is done; its answer is not kept.";
    AnswerBefore "answer.before" "A request is done; its answer is not sent.";
    ReportStored "agent.report.stored" "Reports of an agent are taken in; the agent was not told.";
    JournalAppend "journal.append" "Leases are about to be written to the journal.";
    JournalWritten "journal.written" "Leases are written and not flushed.";
    JournalDurable "journal.durable" "Leases are durable; the ACK is not sent.";
    JournalFold "journal.fold" "A segment of the journal is full and not yet in the database.";
    JournalFolded "journal.folded" "It is in the database and not yet cleared.";
    ImageChunk "image.chunk" "A chunk is about to be written to the image store.";
    ImageChunkWritten "image.chunk.written" "A chunk is durable under a name of its own, without its place.";
    ImageManifest "image.manifest" "All chunks are durable; the manifest is not written.";
    ImageManifestPlaced "image.manifest.placed" "The manifest has its place; the directory is not flushed.";
    ImageListed "image.listed" "The image is in the store and not in the list.";
    AgentOpened "agent.opened" "The disk is open; nothing is written.";
    AgentFirstWiped "agent.first.wiped" "The first sector is zero, the rest of the ends is not.";
    AgentWiped "agent.wiped" "Both ends are zero; no chunk is written.";
    AgentChunkWrite "agent.chunk.write" "A chunk is verified and about to be written.";
    AgentChunkWritten "agent.chunk.written" "A chunk is written and not flushed.";
    AgentHole "agent.hole" "A hole is about to be zeroed.";
    AgentFlush "agent.flush" "A flush is about to be asked for.";
    AgentReadBack "agent.readback" "All between the ends is written; the last of it is not read back.";
    AgentConfig "agent.config" "All was read back; the config partition is not written.";
    AgentTail "agent.tail" "The last MiB is about to be written.";
    AgentHead "agent.head" "The last MiB is written; the first is not.";
    AgentFirst "agent.first" "All but the first sector is written and read back.";
    AgentDone "agent.done" "The disk is complete; nobody was told.";
    AgentReport "agent.report" "Reports are about to be sent to the server.";
    ImagingWiped "imaging.wiped" "A volume's ends are zero; no chunk is written.";
    ImagingChunk "imaging.chunk" "A chunk is about to be written to a volume.";
    ImagingTail "imaging.tail" "A volume was read back; its last MiB is not written.";
    ImagingFirst "imaging.first" "All of a volume but its first sector is written.";
}

impl Point {
    /// The point of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|point| point.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_said_in_order() {
        let names: BTreeSet<_> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
        for (number, point) in Point::ALL.iter().enumerate() {
            assert_eq!(*point as usize, number);
            assert_eq!(Point::named(point.name()), Some(*point));
            assert!(point.what().ends_with('.') && point.name().contains('.'));
        }
    }
}
