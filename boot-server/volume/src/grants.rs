//! Who was let in, in a directory: one file per volume, read by root alone. A driver that has to build its target anew, and a
//! server that was killed, read it from here. Blocks.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::VolumeId;
use protocol::agent::Password;
use protocol::dpu::Chap;
use serde::{Deserialize, Serialize};

use crate::files::{ids, remove, sync_dir};
use crate::{BackendError, Grantee};

/// Largest file of a grant, in octets.
const GRANT_MAX: u64 = 64 << 10;
/// Clients of a grant that are kept, the last of them: each start of an exporter is one.
const CLIENTS_MAX: usize = 64;

/// That somebody was let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grant {
    /// Who.
    pub to: Grantee,
    /// What they prove it with.
    pub chap: Chap,
}

impl Grant {
    /// With an account of its own, which nobody had before.
    pub(crate) fn new(to: &Grantee) -> Result<Self, BackendError> {
        Ok(Self {
            to: to.clone(),
            chap: Chap { user: format!("billet-{}", random(8)?), password: Password(random(16)?) },
        })
    }
}

/// Random hexadecimal digits; 16 of them hold 64 bits, and CHAP takes no more than 16 octets everywhere.
fn random(digits: usize) -> Result<String, BackendError> {
    let mut bytes = vec![0; digits.div_ceil(2)];
    getrandom::fill(&mut bytes)
        .map_err(|e| BackendError::Refused(format!("no random numbers for a password: {e}")))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// The grants of one backend.
#[derive(Debug, Clone)]
pub(crate) struct Grants {
    dir: PathBuf,
}

impl Grants {
    /// In this directory, which is there.
    pub(crate) fn in_dir(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn path(&self, volume: VolumeId) -> PathBuf {
        self.dir.join(format!("{volume}.json"))
    }

    pub(crate) fn all(&self) -> Result<Vec<VolumeId>, BackendError> {
        ids(&self.dir, ".json")
    }

    pub(crate) fn of(&self, volume: VolumeId) -> Result<Option<Grant>, BackendError> {
        let path = self.path(volume);
        let bytes = match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(found) if found.len() > GRANT_MAX => Err(io::ErrorKind::FileTooLarge.into()),
            Ok(_) => fs::read(&path),
            Err(e) => Err(e),
        };
        let bytes = bytes.map_err(BackendError::io("read", &path))?;
        let grant = serde_json::from_slice(&bytes)
            .map_err(|e| BackendError::io("read", &path)(io::Error::new(io::ErrorKind::InvalidData, e)))?;
        Ok(Some(grant))
    }

    /// The grant to `to`: the one that there is, or else a new one.
    pub(crate) fn give(&self, volume: VolumeId, to: &Grantee) -> Result<Grant, BackendError> {
        match self.of(volume)? {
            Some(grant) if grant.to == *to => Ok(grant),
            Some(grant) => Err(BackendError::Granted { volume, dpu: grant.to.dpu }),
            None => {
                let grant = Grant::new(to)?;
                self.keep(volume, &grant)?;
                Ok(grant)
            }
        }
    }

    /// Forgets a grant, with who used it.
    pub(crate) fn take(&self, volume: VolumeId) -> Result<(), BackendError> {
        remove(&self.clients_path(volume))?;
        remove(&self.path(volume))
    }

    fn clients_path(&self, volume: VolumeId) -> PathBuf {
        self.dir.join(format!("{volume}.clients"))
    }

    /// Addresses of clients that used a grant, the last ones last.
    pub(crate) fn clients(&self, volume: VolumeId) -> Result<Vec<String>, BackendError> {
        let path = self.clients_path(volume);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(BackendError::io("read", &path)(e)),
        }
    }

    /// Notes clients that use a grant.
    pub(crate) fn note_clients(&self, volume: VolumeId, seen: &[String]) -> Result<(), BackendError> {
        let before = self.clients(volume)?;
        let mut all: Vec<&String> =
            before.iter().filter(|client| !seen.contains(client)).chain(seen).collect();
        all.drain(..all.len().saturating_sub(CLIENTS_MAX));
        if all.iter().all(|client| before.contains(client)) {
            return Ok(());
        }
        let text: String = all.iter().map(|client| format!("{client}\n")).collect();
        durable(&self.clients_path(volume), text.as_bytes())
    }

    /// Says no where somebody was let in.
    pub(crate) fn none(&self, volume: VolumeId) -> Result<(), BackendError> {
        match self.of(volume)? {
            Some(grant) => Err(BackendError::Granted { volume, dpu: grant.to.dpu }),
            None => Ok(()),
        }
    }

    fn keep(&self, volume: VolumeId, grant: &Grant) -> Result<(), BackendError> {
        let text = serde_json::to_vec(grant)
            .map_err(|e| BackendError::Refused(format!("cannot write a grant as JSON: {e}")))?;
        durable(&self.path(volume), &text)
    }
}

/// Writes a file that root alone reads; it has its name when its bytes are durable.
pub(crate) fn durable(path: &Path, bytes: &[u8]) -> Result<(), BackendError> {
    let tmp = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&tmp)
        .map_err(BackendError::io("make", &tmp))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(BackendError::io("write", &tmp))?;
    fs::rename(&tmp, path).map_err(BackendError::io("name", path))?;
    sync_dir(path.parent().unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use protocol::DpuId;

    use super::*;

    #[test]
    fn a_grant_is_kept_until_it_is_taken_and_read_by_root_alone() {
        let dir = std::env::temp_dir().join(format!("billet-grants-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&dir).unwrap();
        let grants = Grants::in_dir(dir.clone());
        let volume = VolumeId(uuid::Uuid::new_v4());
        let to = |name: &str| Grantee { dpu: DpuId(uuid::Uuid::new_v4()), initiator: name.into() };
        let one = to("iqn.one");
        let given = grants.give(volume, &one).unwrap();
        assert_eq!(grants.give(volume, &one).unwrap(), given);
        assert!(matches!(grants.give(volume, &to("iqn.two")), Err(BackendError::Granted { .. })));
        // RFC 7143 section 12.1.3: 12 octets at least; tgt and others take 16 at most.
        assert_eq!(given.chap.password.0.len(), 16);
        let mode = fs::metadata(grants.path(volume)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let client = |n: usize| format!("10.0.0.1:0/{n}");
        for n in 0..2 * CLIENTS_MAX {
            grants.note_clients(volume, &[client(0), client(n)]).unwrap();
        }
        let clients = grants.clients(volume).unwrap();
        assert_eq!(clients.len(), CLIENTS_MAX);
        assert!(
            clients.contains(&client(0)) && clients.contains(&client(2 * CLIENTS_MAX - 1)),
            "{clients:?}"
        );
        assert_eq!(grants.all().unwrap(), [volume]);
        grants.take(volume).unwrap();
        assert!(grants.clients(volume).unwrap().is_empty());
        grants.take(volume).unwrap();
        assert_ne!(grants.give(volume, &one).unwrap().chap, given.chap);
        fs::remove_dir_all(dir).unwrap();
    }
}
