//! Who this DPU is to the server: a secret that it made itself, once. Whoever has the file is this DPU; who loses it is a
//! stranger until somebody accepts it anew.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use protocol::agent::Password;
use protocol::dial::SECRET_OCTETS;

use crate::files::{self, FileError, failed};

/// Where chance comes from: waits until the kernel has enough of it (random(4), Linux 5.6 and later), which early in the
/// boot of a DPU `/dev/urandom` does not.
const RANDOM: &str = "/dev/random";
/// Only its owner reads it.
const MODE: u32 = 0o600;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not what was written.
    #[error(
        "{0} does not hold {digits} hexadecimal digits: remove it, and the DPU has to be accepted anew",
        digits = 2 * SECRET_OCTETS
    )]
    Damaged(String),
}

/// The secret in `<dir>/identity`, which is made where it is missing.
///
/// # Errors
/// [`IdentityError`].
pub fn load(dir: &Path) -> Result<Password, IdentityError> {
    let path = dir.join("identity");
    if !path.exists() {
        let mut octets = [0; SECRET_OCTETS];
        let random = Path::new(RANDOM);
        File::open(random)
            .and_then(|mut file| file.read_exact(&mut octets))
            .map_err(failed("read", random))?;
        let text: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        files::replace_private(&path, format!("{text}\n").as_bytes())?;
        tracing::info!(file = %path.display(), "this DPU has an identity from now on");
    }
    let mode = fs::metadata(&path).map_err(failed("read", &path))?.permissions().mode() & 0o777;
    if mode != MODE {
        tracing::warn!(file = %path.display(), mode = format!("{mode:o}"), "others could read the identity");
        fs::set_permissions(&path, fs::Permissions::from_mode(MODE)).map_err(failed("change", &path))?;
    }
    let text = files::read(&path, 2 * SECRET_OCTETS + 1)?;
    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
    if text.len() == 2 * SECRET_OCTETS && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Password(text));
    }
    Err(IdentityError::Damaged(path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_for_nobody_else_to_read() {
        let dir = std::env::temp_dir().join(format!("billet-dpu-identity-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let first = load(&dir).unwrap();
        assert_eq!(first.0.len(), 64);
        let file = dir.join("identity");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load(&dir).unwrap(), first);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        for bad in ["", "abc\n", &"x".repeat(64), &"0".repeat(65)] {
            fs::write(&file, bad).unwrap();
            assert!(matches!(load(&dir), Err(IdentityError::Damaged(_))), "{bad}");
        }
        fs::remove_file(&file).unwrap();
        assert_ne!(load(&dir).unwrap(), first);
        fs::remove_dir_all(&dir).unwrap();
    }
}
