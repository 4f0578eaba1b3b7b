//! Images that come by DPUs. Instant volumes are images under layers on DPUs: nothing of them is on the server but the row and, until the DPU has it, the config.
//!
//! ```text
//!  granted: the config is sealed with the row, the DPU is told ─▶ adapted: the config is forgotten ─▶ hydrated: the image is not needed
//!  deleted: nobody has it ─▶ the DPU is told to remove the layer ─▶ it says that it did ─▶ the row goes
//! ```

use std::path::Path;

use boot_server_core::dpu::{self, Reach};
use boot_server_core::node::Severity;
use boot_server_core::server::Server;
use boot_server_core::volume::{Layer, Phase, Source, Volume};
use protocol::dpu::{Exporter, InstantSeen, Observed, STATE_MAX, Serves};
use protocol::job::CloudConfig;
use protocol::{DpuId, ImageId, VolumeId};
use volume::{BackendError, InstantSettings};

use super::drive::target_spec;
use super::{VolumeError, bad, line, wrong};
use crate::engine::dpus::Known;
use crate::engine::{Actor, Engine, EngineError};
use crate::store::queries::NewEvent;
use crate::store::volumes as rows;

/// Octets of a config as JSON: with everything else that a DPU is told it fits into its state.
const CONFIG_MAX: usize = STATE_MAX / 2;
/// Characters of what a DPU says that stand in an event.
const SAID_MAX: usize = 300;

/// How much of its image an instant volume has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hydration {
    /// Percent of the image's chunks.
    pub percent: u8,
    /// Bytes of the image's data; none where its DPU does not serve it now.
    pub bytes: Option<u64>,
    /// The image store is needed no more.
    pub hydrated: bool,
    /// Why the image store cannot be reached, as its DPU says.
    pub store_away: Option<String>,
    /// Chunks that came with wrong bytes.
    pub wrong_chunks: usize,
}

/// What a DPU is told with its state.
///
/// # Errors
/// Where it does not fit.
pub(super) fn check_config(config: Option<&CloudConfig>) -> Result<(), EngineError> {
    let octets = config.map_or(0, |config| serde_json::json!(config).to_string().len());
    if octets <= CONFIG_MAX {
        return Ok(());
    }
    let what = format!(
        "what the OS is told has {octets} octets, at most {CONFIG_MAX} fit into what its DPU is told: shorten the user data"
    );
    Err(VolumeError::Backend(BackendError::Refused(what)).into())
}

impl Engine {
    /// How much of its image a volume has; `None` of one that is no instant volume, and that no DPU writes the image of now.
    pub fn hydration(&self, volume: &Volume) -> Option<Hydration> {
        let is_instant = self.backend(&volume.kind).is_ok_and(|backend| backend.instant().is_some());
        let known = imager(volume).and_then(|dpu| self.known_dpu(dpu));
        let seen = known.as_ref().and_then(|known| seen_of(known.observed.as_ref()?, volume.id));
        if !is_instant && seen.is_none_or(|seen| seen.adapted) {
            return None;
        }
        let hydrated = volume.layer.as_ref().is_some_and(|layer| layer.hydrated);
        Some(Hydration {
            percent: if hydrated { 100 } else { seen.map_or(0, |seen| seen.percent) },
            bytes: seen.map(|seen| seen.bytes),
            hydrated,
            store_away: seen.and_then(|seen| seen.away.clone()),
            wrong_chunks: seen.map_or(0, |seen| seen.wrong.len()),
        })
    }

    /// The volume that still needs this image, where there is one.
    pub(in crate::engine) async fn hydrates_from(
        &self,
        image: ImageId,
    ) -> Result<Option<Volume>, EngineError> {
        let is_instant =
            |volume: &Volume| self.backend(&volume.kind).is_ok_and(|backend| backend.instant().is_some());
        let needs = |volume: &Volume| {
            let its = matches!(volume.source, Source::Os { image: own, .. } | Source::Image { image: own, .. } if own == image);
            let is_whole = volume.layer.as_ref().is_some_and(|layer| layer.hydrated);
            its && !is_whole && volume.phase != Phase::Deleting && is_instant(volume)
        };
        Ok(self.store().read(rows::living).await?.into_iter().find(needs))
    }

    /// Refuses more room for what has a size for ever.
    pub(super) fn check_larger(&self, volume: &Volume) -> Result<(), EngineError> {
        if self.backend(&volume.kind)?.instant().is_none() {
            return Ok(());
        }
        Err(wrong(
            "resize",
            volume,
            "an instant volume keeps its size: reinstall the server with a larger one",
        ))
    }

    /// Whether a new boot volume fits beside the layers that its DPU has.
    pub(super) async fn check_room(&self, server: &Server, wanted: &Volume) -> Result<(), EngineError> {
        let backend = self.backend(&wanted.kind)?;
        let Some(capacity) = backend.instant().and_then(|settings| settings.capacity) else { return Ok(()) };
        let Some(known) = self.dpu_of(server.node) else { return Ok(()) };
        let id = known.dpu.id;
        let layers = self.store().read(move |db| rows::on_dpu(db, id)).await?;
        let taken: u64 =
            layers.iter().filter(|volume| volume.kind == wanted.kind).map(|volume| volume.size).sum();
        if taken.saturating_add(wanted.size) <= capacity {
            return Ok(());
        }
        let why = format!(
            "{taken} of the {capacity} bytes that instant volumes may have on the DPU of its machine are taken"
        );
        Err(VolumeError::Backend(BackendError::NoRoom { wanted: wanted.size, why }).into())
    }

    /// What a DPU is to serve, and where its layer is.
    pub(super) fn instant_reach(
        &self,
        volume: &Volume,
        settings: &InstantSettings,
        known: &Known,
    ) -> Result<(Reach, Option<Layer>), EngineError> {
        let (Source::Os { image, .. } | Source::Image { image, .. }) = &volume.source else {
            return Err(bad("an instant volume is made of an image", "use a volume of another type").into());
        };
        let dpu = known.dpu.id;
        let layer = volume.layer.clone().unwrap_or_else(|| {
            let path = Path::new(&settings.directory).join(volume.id.to_string()).display().to_string();
            Layer { dpu, path, hydrated: false }
        });
        let node = known.dpu.node.and_then(|node| self.0.nodes.get(node));
        let spec = node.as_ref().and_then(|node| target_spec(node, volume.id));
        let (config, grow_root) = spec.unwrap_or_default();
        let serves = Serves::Image {
            image: *image,
            store: settings.store.clone().unwrap_or_else(|| self.store_url(known)),
            layer: layer.path.clone(),
            size: Some(volume.size),
            rate: settings.rate,
            config,
            grow_root,
        };
        Ok((Reach::Exporter(Exporter::Blk { serves }), Some(layer)))
    }

    /// The provisioning listener, by an address of the DPU's own family.
    pub(super) fn store_url(&self, known: &Known) -> String {
        let is_v6 = known.dpu.address.is_some_and(|address| address.is_ipv6());
        let urls = || self.settings().provisioning_urls();
        let alike = urls().find(|url| url.contains('[') == is_v6);
        alike.unwrap_or_else(|| self.settings().provisioning_url())
    }

    /// What a DPU says of its instant volumes, where that is news.
    pub(in crate::engine) async fn hear_of_volumes(
        &self,
        dpu: DpuId,
        before: Option<&Observed>,
        now: &Observed,
    ) -> Result<(), EngineError> {
        for one in &now.volumes {
            let (Some(seen), Ok(id)) = (&one.instant, one.name.as_str().parse::<VolumeId>()) else {
                continue;
            };
            let was = before.and_then(|before| seen_of(before, id)).cloned().unwrap_or_default();
            if was != **seen {
                self.hear_of_volume(dpu, id, &was, seen).await?;
            }
        }
        Ok(())
    }

    async fn hear_of_volume(
        &self,
        dpu: DpuId,
        id: VolumeId,
        was: &InstantSeen,
        seen: &InstantSeen,
    ) -> Result<(), EngineError> {
        let found = self.store().read(move |db| rows::get(db, id)).await?;
        let has_it = |volume: &Volume| imager(volume) == Some(dpu);
        let Some(volume) = found.filter(has_it).filter(|volume| volume.phase != Phase::Deleted) else {
            return Ok(());
        };
        let news = |(kind, severity, what): (&str, Severity, String)| {
            line(&volume, &Actor::Server, kind, severity, &what)
        };
        for event in said(was, seen).into_iter().map(news) {
            self.write_down(event).await?;
        }
        if seen.adapted && !was.adapted && volume.layer.is_some() {
            self.forget_config(id).await?;
        }
        if seen.hydrated && !volume.layer.as_ref().is_some_and(|layer| layer.hydrated) {
            self.note_hydrated(id).await?;
        }
        self.announce_volume(&volume);
        Ok(())
    }

    async fn write_down(&self, event: NewEvent) -> Result<(), EngineError> {
        let row = event.clone();
        let number = self.store().write(move |db| crate::store::queries::insert_event(db, &row)).await?;
        self.announce_event(number, event);
        Ok(())
    }

    async fn note_hydrated(&self, id: VolumeId) -> Result<(), EngineError> {
        let whole = |volume: &Volume| {
            let layer = volume.layer.clone().filter(|layer| !layer.hydrated);
            Ok(layer.map(|layer| {
                let event = line(
                    volume,
                    &Actor::Server,
                    "volume.hydrated",
                    Severity::Info,
                    "all of its image is on the DPU; the image store is needed no more",
                );
                (Volume { layer: Some(Layer { hydrated: true, ..layer }), ..volume.clone() }, Some(event))
            }))
        };
        self.edit_volume(id, whole).await.map(drop)
    }

    /// Keeps what a DPU serves without the config, which holds tokens: it was looked at and never is again.
    async fn forget_config(&self, id: VolumeId) -> Result<(), EngineError> {
        let Some(sealed) = self.store().read(move |db| rows::access(db, id)).await? else { return Ok(()) };
        let mut reach = self.open_access(id, &sealed)?;
        let Reach::Exporter(Exporter::Blk { serves: Serves::Image { config, .. } }) = &mut reach else {
            return Ok(());
        };
        if config.take().is_none() {
            return Ok(());
        }
        let next = self.seal_access(id, &reach)?;
        Ok(self.store().write(move |db| rows::replace_access(db, id, &sealed, &next)).await?)
    }

    /// Why the DPU of a volume that waits for it cannot serve it.
    pub(super) fn cannot_serve(&self, volume: &Volume) -> Option<String> {
        let known = self.known_dpu(imager(volume)?)?;
        dpu::failure(known.observed.as_ref(), known.desired.as_ref()?, volume).map(cut)
    }
}

/// The DPU that has the image of a volume come.
fn imager(volume: &Volume) -> Option<DpuId> {
    volume.layer.as_ref().map(|layer| layer.dpu).or_else(|| volume.filler())
}

fn seen_of(observed: &Observed, id: VolumeId) -> Option<&InstantSeen> {
    let name = id.to_string();
    observed.volumes.iter().find(|one| one.name.as_str() == name)?.instant.as_deref()
}

/// Lines that a project is to read.
fn said(was: &InstantSeen, seen: &InstantSeen) -> Vec<(&'static str, Severity, String)> {
    let mut lines = Vec::new();
    for one in seen.wrong.iter().filter(|one| !was.wrong.contains(one)) {
        let (id, why) = (cut(&one.id), cut(&one.reason));
        let what = format!("chunk {} ({id}) came with wrong bytes, which no host gets: {why}", one.chunk);
        lines.push(("volume.chunk_wrong", Severity::Error, what));
    }
    match (&was.away, &seen.away) {
        (None, Some(why)) => {
            let what = format!("the image store cannot be reached, what was not fetched waits: {}", cut(why));
            lines.push(("volume.store_away", Severity::Warning, what));
        }
        (Some(_), None) => {
            lines.push((
                "volume.store_back",
                Severity::Info,
                "the image store can be reached again".to_owned(),
            ));
        }
        _ => {}
    }
    lines
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SAID_MAX).collect()
}

#[cfg(test)]
mod tests {
    use protocol::dpu::WrongChunk;

    use super::*;

    #[test]
    fn what_is_news_is_told_once() {
        let wrong = WrongChunk { chunk: 3, id: "ab".into(), reason: "hash".into() };
        let seen = InstantSeen { away: Some("refused".into()), wrong: vec![wrong], ..InstantSeen::default() };
        let kinds = |was: &InstantSeen, now: &InstantSeen| -> Vec<&str> {
            said(was, now).into_iter().map(|(kind, ..)| kind).collect()
        };
        let nothing = InstantSeen::default();
        assert_eq!(kinds(&nothing, &seen), ["volume.chunk_wrong", "volume.store_away"]);
        assert!(kinds(&seen, &seen).is_empty());
        assert_eq!(kinds(&seen, &nothing), ["volume.store_back"]);
    }

    #[test]
    fn a_config_that_does_not_fit_is_refused_in_words() {
        let config = |octets: usize| CloudConfig { user_data: "x".repeat(octets), ..CloudConfig::default() };
        assert!(check_config(None).is_ok() && check_config(Some(&config(1000))).is_ok());
        let error = check_config(Some(&config(CONFIG_MAX))).unwrap_err().to_string();
        assert!(error.contains("shorten the user data"), "{error}");
    }
}
