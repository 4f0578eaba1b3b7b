//! Image files of this machine: only regular files, only below the directories that the site named.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc::O_NONBLOCK;

use crate::view::Problem;

/// Opens `path` (taken below the first directory where it is relative). What was opened is checked, not its name, so
/// nobody can put a link in between.
pub(crate) fn resolve(path: &Path, directories: &[PathBuf]) -> Result<File, Problem> {
    let refuse = |message: String| {
        let list = directories.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(", ");
        Problem {
            status: 422,
            code: "image-path".to_owned(),
            message,
            hint: format!("put the file below {list} (images.import_dirs), or upload it"),
        }
    };
    let shown = path.display();
    let full = match directories.first() {
        Some(first) => first.join(path),
        None => path.to_owned(),
    };
    // Whether a file outside exists is nobody's business, so all of these read alike.
    let outside = || refuse(format!("{shown} is not a file below an import directory"));
    // Without O_NONBLOCK, a FIFO would hold us until somebody writes.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&full).map_err(|_| outside())?;
    let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(|_| outside())?;
    let below = |dir: &PathBuf| fs::canonicalize(dir).is_ok_and(|dir| real.starts_with(dir));
    let regular = file.metadata().is_ok_and(|m| m.is_file());
    if regular && directories.iter().any(below) { Ok(file) } else { Err(outside()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_opened() {
        let root = std::env::temp_dir().join(format!("billet-import-{}", uuid::Uuid::new_v4()));
        let import = root.join("import");
        fs::create_dir_all(import.join("sub")).unwrap();
        fs::write(import.join("sub/a.raw"), b"x").unwrap();
        fs::write(root.join("secret"), b"x").unwrap();
        std::os::unix::fs::symlink(root.join("secret"), import.join("link")).unwrap();
        nix::unistd::mkfifo(&import.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let dirs = [import.clone()];
        assert!(resolve(Path::new("sub/a.raw"), &dirs).is_ok());
        assert!(resolve(&import.join("sub/a.raw"), &dirs).is_ok());
        let secret = root.join("secret");
        for bad in [
            Path::new("../secret"),
            &secret,
            Path::new("link"),
            Path::new("fifo"),
            Path::new("sub"),
            Path::new("none"),
            Path::new("/etc/passwd"),
        ] {
            let problem = resolve(bad, &dirs).unwrap_err();
            assert_eq!((problem.status, problem.code.as_str()), (422, "image-path"), "{bad:?}");
        }
        assert!(resolve(&secret, &[]).is_err(), "no directory, no file");
        fs::remove_dir_all(root).unwrap();
    }
}
