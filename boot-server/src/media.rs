//! The media directory: kernels, initial RAM disks and ISOs that machines are ordered to boot. A request names a path in
//! it; the kernel itself sees to it that the path leads nowhere else, also not by symbolic links (openat2(2)).

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use boot_server_core::words::MediaPath;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Opens a file of the directory. Links within it are followed; what leads out of it, and what is no plain file, is not
/// opened.
///
/// # Errors
/// What the system says; `NotFound` for what is no plain file.
pub fn open(dir: &Path, path: &MediaPath) -> io::Result<File> {
    let dir = File::open(dir)?;
    // A FIFO that somebody put there must not hold us.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(dir.as_fd(), path.as_str(), how)?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::tests::Scratch;

    #[test]
    fn nothing_leads_out() {
        let scratch = Scratch::new();
        let dir = scratch.0.join("media");
        fs::create_dir_all(dir.join("debian")).unwrap();
        fs::write(dir.join("debian/linux"), "kernel").unwrap();
        fs::write(scratch.0.join("secret"), "secret").unwrap();
        symlink("linux", dir.join("debian/current")).unwrap();
        symlink("../../secret", dir.join("debian/out")).unwrap();
        symlink(scratch.0.join("secret"), dir.join("absolute")).unwrap();
        symlink("..", dir.join("up")).unwrap();
        let read = |path: &str| {
            let mut text = String::new();
            open(&dir, &path.parse().unwrap())?.read_to_string(&mut text)?;
            io::Result::Ok(text)
        };
        assert_eq!(read("debian/linux").unwrap(), "kernel");
        assert_eq!(read("debian/current").unwrap(), "kernel", "a link within");
        for out in ["debian/out", "absolute", "up/secret", "debian", "nothing"] {
            assert!(read(out).is_err(), "{out}");
        }
    }
}
