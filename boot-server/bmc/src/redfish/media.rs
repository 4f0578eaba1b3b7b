//! Virtual media: the CD drive of the system, in older services of the manager (DSP0268, VirtualMedia).

use serde_json::{Value, json};

use super::address::Link;
use super::call::Call;
use super::json::{Resource, View};
use super::quirks::Profile;
use super::wire::Answer;
use crate::{BmcError, Media};

impl Call<'_> {
    pub(super) async fn media(&self) -> Result<Media, BmcError> {
        let drive = self.drive().await?;
        self.image_in(&drive).map(|image| Media { image })
    }

    pub(super) async fn insert_media(&self, url: &str) -> Result<(), BmcError> {
        let drive = self.drive().await?;
        if self.image_in(&drive)?.is_some() {
            self.eject(&drive).await?;
        }
        let tree = self.tree().await?;
        let mut body = json!({ "Image": url });
        for (name, value) in &tree.profile.media.insert {
            body[name.as_str()] = value.clone();
        }
        if tree.profile.media.protocol_type {
            body["TransferProtocolType"] = protocol_type(url).into();
        }
        let view = drive.view(self.origin());
        let answer = match self.drive_action(
            &view,
            "#VirtualMedia.InsertMedia",
            tree.profile.media.insert_action.as_deref(),
        )? {
            Some(target) => self.post(&target, &body).await?,
            // Before VirtualMedia 1.2 the properties themselves were written.
            None => {
                body["Inserted"] = true.into();
                body["WriteProtected"] = true.into();
                self.patch(&self.get(&drive.link).await?, &body).await?
            }
        };
        self.finish("inserting virtual media", &answer).await
    }

    pub(super) async fn eject_media(&self) -> Result<(), BmcError> {
        let drive = self.drive().await?;
        match self.image_in(&drive)? {
            Some(_) => self.eject(&drive).await,
            None => Ok(()),
        }
    }

    async fn eject(&self, drive: &Resource) -> Result<(), BmcError> {
        let tree = self.tree().await?;
        let view = drive.view(self.origin());
        let answer = match self.drive_action(
            &view,
            "#VirtualMedia.EjectMedia",
            tree.profile.media.eject_action.as_deref(),
        )? {
            Some(target) => self.post(&target, &json!({})).await?,
            None => self.patch(drive, &json!({ "Image": null, "Inserted": false })).await?,
        };
        self.finish("ejecting virtual media", &answer).await
    }

    /// The standard action, else the maker's.
    fn drive_action(
        &self,
        drive: &View<'_>,
        name: &str,
        oem: Option<&str>,
    ) -> Result<Option<Link>, BmcError> {
        if let Some(target) = drive.object("Actions")?.object(name)?.link_text("target")? {
            return Ok(Some(target));
        }
        let Some(oem) = oem else { return Ok(None) };
        oem_action(drive, oem)
    }

    fn image_in(&self, drive: &Resource) -> Result<Option<String>, BmcError> {
        let view = drive.view(self.origin());
        let inserted = view.boolean("Inserted")?;
        let image = view.text("Image")?.filter(|_| inserted != Some(false));
        // Some services keep the name of the last image only; some none, but say that one is in.
        Ok(match (image, inserted) {
            (Some(image), _) => Some(image.to_owned()),
            (None, Some(true)) => Some(view.string("ImageName")?.unwrap_or_else(|| "unknown".to_owned())),
            (None, _) => None,
        })
    }

    /// The drive that takes CD images by URL.
    async fn drive(&self) -> Result<Resource, BmcError> {
        let (tree, system) = self.system().await?;
        let mut drives = self.members_of(&system.view(self.origin()), "VirtualMedia").await?;
        if let (true, Some(manager)) = (drives.is_empty(), &tree.manager)
            && let Some(manager) = self.get_optional(manager).await?
        {
            drives = self.members_of(&manager.view(self.origin()), "VirtualMedia").await?;
        }
        let mut best: Option<((bool, usize), Resource)> = None;
        for drive in drives {
            let rank = self.rank(&drive, tree.profile)?;
            if let Some(rank) = rank.filter(|rank| best.as_ref().is_none_or(|(least, _)| rank < least)) {
                best = Some((rank, drive));
            }
        }
        best.map(|(_, drive)| drive).ok_or_else(|| self.unsupported("virtual media"))
    }

    /// Lower is better; `None` for what takes no CD. A drive without the action may be one for the browser only
    /// (OpenBMC), or one of a service whose drives are all written to.
    fn rank(&self, drive: &Resource, profile: &Profile) -> Result<Option<(bool, usize)>, BmcError> {
        let view = drive.view(self.origin());
        let id = view.text("Id")?.unwrap_or(drive.link.last());
        let quirk = &profile.media;
        if quirk.avoid.iter().any(|part| id.contains(part.as_str())) {
            return Ok(None);
        }
        let types = view.texts("MediaTypes")?;
        let is_cd = types.as_ref().is_none_or(|t| t.iter().any(|t| matches!(*t, "CD" | "DVD")));
        let favourite = quirk.prefer.iter().position(|p| p == id).unwrap_or(quirk.prefer.len());
        let action = self.drive_action(&view, "#VirtualMedia.InsertMedia", quirk.insert_action.as_deref())?;
        Ok(is_cd.then_some((action.is_none(), favourite)))
    }

    /// Waits for the task of a change, where it became one.
    async fn finish(&self, what: &str, answer: &Answer) -> Result<(), BmcError> {
        match self.task_of(what, answer)? {
            Some(task) => self.wait_for(what, task).await,
            None => Ok(()),
        }
    }
}

/// An action of the maker: below `Actions/Oem`, or below `Oem/<maker>/Actions`, or deeper by the maker's name.
pub(super) fn oem_action(view: &View<'_>, name: &str) -> Result<Option<Link>, BmcError> {
    let below = view.object("Actions")?.object("Oem")?;
    if let Some(target) = below.object(name)?.link_text("target")? {
        return Ok(Some(target));
    }
    let oem = view.object("Oem")?;
    let Value::Object(makers) = oem.value() else { return Ok(None) };
    for maker in makers.keys() {
        let actions = oem.object(maker)?.object("Actions")?;
        if let Some(target) = actions.object(name)?.link_text("target")? {
            return Ok(Some(target));
        }
    }
    Ok(None)
}

fn protocol_type(url: &str) -> &'static str {
    match url.split(':').next() {
        Some("https") => "HTTPS",
        Some("nfs") => "NFS",
        Some("smb" | "cifs") => "CIFS",
        _ => "HTTP",
    }
}
