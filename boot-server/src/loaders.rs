//! Where the boot loaders of the [catalogue](boot_server_core::boot_files) lie on this machine. The names are fixed: no
//! part of a request becomes part of a path.

use std::path::PathBuf;

use boot_server_core::boot_files::{self, Architecture, BootFile, BootFiles, CATALOGUE, SecureBoot};

use crate::config::Settings;

/// The directories that are searched, in order.
#[derive(Debug, Clone)]
pub struct Loaders {
    directories: Vec<PathBuf>,
}

impl Loaders {
    /// The directories of this configuration.
    pub fn new(settings: &Settings) -> Self {
        Self::in_directories(settings.loaders.clone())
    }

    /// Those of these directories, which are searched in order.
    pub fn in_directories(directories: Vec<PathBuf>) -> Self {
        Self { directories }
    }

    /// Every file of the catalogue that is there, by the name that it has in those directories.
    pub fn sources(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        CATALOGUE.iter().filter_map(|file| Some((file.source, self.find(file)?)))
    }

    /// Where the file that is served by this name lies, if it is there.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.find(boot_files::file(name)?)
    }

    /// Every file of the catalogue that is there.
    pub fn present(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        CATALOGUE.iter().filter_map(|file| Some((file.name, self.find(file)?)))
    }

    /// What machines can be told.
    pub fn boot_files(&self, secure_boot: SecureBoot) -> BootFiles {
        BootFiles::new(secure_boot, self.present().map(|(name, _)| name))
    }

    /// Says at start which machines will get no loader. arm64 is not missed where nobody put its files here.
    pub fn warn_of_missing(&self, secure_boot: SecureBoot) {
        let files = self.boot_files(secure_boot);
        for architecture in [Architecture::BIOS, Architecture::EFI_X64] {
            if let Err(missing) = files.loader(architecture) {
                tracing::warn!(
                    looked_in = ?self.directories,
                    "{missing}: such machines will not boot; install it and start billet again"
                );
            }
        }
        if let Err(missing) = files.loader(Architecture::EFI_ARM64) {
            tracing::info!("{missing}: such machines will not boot");
        }
    }

    fn find(&self, file: &BootFile) -> Option<PathBuf> {
        self.directories.iter().map(|dir| dir.join(file.source)).find(|path| path.is_file())
    }
}
