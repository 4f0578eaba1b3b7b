//! Keys of encrypted volumes. A volume has a key of its own, or that of the snapshot that it was made of; with the last volume that
//! has a key goes the key, and nobody reads any more what is left of its bytes anywhere.

use bmc::Secret;
use boot_server_core::node::Severity;
use boot_server_core::volume::{Encrypted, Key, Phase, Volume};
use protocol::agent::Password;
use protocol::dpu::Encryption;
use uuid::Uuid;

use super::{VolumeError, bad, line};
use crate::engine::{Actor, Engine, EngineError};
use crate::secret;
use crate::store::StoreError;
use crate::store::volumes as rows;
use crate::vault::Place;

fn place(id: Uuid) -> Place {
    Place { row: id, column: "volumes.key" }
}

impl Engine {
    /// Whether volumes of this type are encrypted.
    pub fn encrypts(&self, kind: &str) -> Encrypted {
        let always = self.0.settings.volumes.iter().any(|this| this.name == kind && this.encrypted);
        match self.0.backends.get(kind).map(|backend| backend.kind()) {
            // What encrypts on a DPU does not reach these.
            None | Some(::volume::Kind::NvmeTcp | ::volume::Kind::Instant) => Encrypted::Never,
            Some(_) if always => Encrypted::Always,
            Some(_) => Encrypted::OnRequest,
        }
    }

    /// A key for a new volume of this type, where it is to have one: `of` that of the snapshot that it is made of, if any.
    pub(super) fn key_for(
        &self,
        kind: &str,
        wanted: bool,
        of: Option<Option<Key>>,
    ) -> Result<Option<Key>, EngineError> {
        let encrypts = self.encrypts(kind);
        let is_to_be = wanted || encrypts == Encrypted::Always;
        match of {
            Some(Some(key)) => return Ok(Some(key)),
            Some(None) if is_to_be => {
                let what = "the snapshot is not encrypted, so what is made of it cannot be";
                return Err(bad(what, "make an empty volume, and copy to it on a server").into());
            }
            _ if !is_to_be => return Ok(None),
            _ => {}
        }
        if encrypts == Encrypted::Never {
            let what =
                format!("volumes of type {kind} cannot be encrypted: the exporter of its volumes does not");
            return Err(bad(what, "take another type (`billet volume types`)").into());
        }
        let id = Uuid::now_v7();
        let sealed = self.0.vault.seal(place(id), &Secret(secret::token()?))?;
        Ok(Some(Key { id, sealed: Some(sealed) }))
    }

    /// The key itself; `None` of a volume that is not encrypted.
    pub(in crate::engine) fn open_key(&self, volume: &Volume) -> Result<Option<Password>, EngineError> {
        let Some(key) = &volume.key else { return Ok(None) };
        // Only of what is being removed there is none any more, and nobody connects to that.
        let sealed = key.sealed.as_deref().ok_or(StoreError::Conflict)?;
        Ok(Some(Password(self.0.vault.unseal(place(key.id), sealed)?.0)))
    }

    /// How a DPU is to encrypt a volume.
    pub(in crate::engine) fn encryption(&self, volume: &Volume) -> Result<Option<Encryption>, EngineError> {
        Ok(self.open_key(volume)?.map(|key| Encryption::Luks { key }))
    }

    /// Destroys the key of a volume that is being removed, before its bytes are: from then on they are worth nothing, whatever becomes of
    /// them.
    pub(super) async fn destroy_key(&self, volume: Volume) -> Result<Volume, EngineError> {
        let Some(Key { id, sealed: Some(_) }) = volume.key else { return Ok(volume) };
        let own = volume.id;
        let has_it = move |other: &Volume| {
            other.id != own
                && other.phase != Phase::Deleted
                && other.key.as_ref().is_some_and(|key| key.id == id && key.sealed.is_some())
        };
        let others = self.store().read(rows::living).await?.into_iter().filter(has_it).count();
        let what = match others {
            0 => {
                "its key is destroyed: what is left of its bytes anywhere cannot be read any more".to_owned()
            }
            1 => "its key stays with 1 other volume of the same snapshots".to_owned(),
            _ => format!("its key stays with {others} other volumes of the same snapshots"),
        };
        let kind = if others == 0 { "volume.key_destroyed" } else { "volume.key_kept" };
        let event = line(&volume, &Actor::Server, kind, Severity::Info, &what);
        let next = Volume { key: Some(Key { id, sealed: None }), version: volume.version + 1, ..volume };
        self.put_volume(next, Some(event)).await
    }

    /// Makes what was just created an encrypted volume, where it is to be one.
    pub(super) async fn encrypt_volume(
        &self,
        volume: &Volume,
        backend: &dyn ::volume::Backend,
    ) -> Result<Option<Password>, EngineError> {
        let key = self.open_key(volume)?;
        if let Some(key) = &key {
            backend.encrypt(volume.id, key).await.map_err(VolumeError::from)?;
        }
        Ok(key)
    }
}
