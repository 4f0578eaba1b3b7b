//! Where an image is written, with a name for errors.

use std::path::Path;

use imaging::{FileMedium, Medium};

/// A medium with a name.
pub(crate) trait Named: Medium {
    /// What it is called.
    fn path(&self) -> &Path;
}

impl Named for FileMedium {
    fn path(&self) -> &Path {
        self.path()
    }
}
