//! One call of the trait: its deadline, and reading and changing resources within it.

use std::sync::Arc;

use futures_util::future::join_all;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::Redfish;
use super::address::{Link, Origin};
use super::client::{Door, json_type, resource, text};
use super::json::{Resource, View};
use super::limits;
use super::quirks::{Etag, Profile};
use super::refusal;
use super::tree::{Root, Tree};
use super::wire::{Answer, Ask, Deadline};
use crate::{BmcError, DriverKind};

/// The service root, and the quirks.
struct Ground {
    root: Arc<Root>,
    profile: &'static Profile,
}

impl Ground {
    fn door(&self) -> Door<'_> {
        Door { sessions: self.root.sessions.as_ref(), profile: self.profile }
    }
}

/// A call under way.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) redfish: &'a Redfish,
    pub(super) deadline: Deadline,
}

impl<'a> Call<'a> {
    pub(super) fn new(redfish: &'a Redfish) -> Self {
        Self::with(redfish, Deadline::after(limits::CALL))
    }

    pub(super) fn with(redfish: &'a Redfish, deadline: Deadline) -> Self {
        Self { redfish, deadline }
    }

    pub(super) fn origin(&self) -> &'a Origin {
        &self.redfish.client.wire.origin
    }

    pub(super) fn unsupported(&self, what: &'static str) -> BmcError {
        BmcError::Unsupported { driver: DriverKind::Redfish, what }
    }

    /// The service root, read at the first call.
    pub(super) async fn root(&self) -> Result<Arc<Root>, BmcError> {
        if let Some(root) = self.redfish.root() {
            return Ok(root);
        }
        let root = Arc::new(Root::read(&self.redfish.client, self.deadline).await?);
        self.redfish.set_root(root.clone());
        Ok(root)
    }

    /// What every request needs to know: how to log in, and the quirks as far as they are known by now.
    async fn ground(&self) -> Result<Ground, BmcError> {
        let root = self.root().await?;
        let profile = self.redfish.tree().map_or(root.profile, |tree| tree.profile);
        Ok(Ground { root, profile })
    }

    /// Where things are; found at the first call.
    pub(super) async fn tree(&self) -> Result<Arc<Tree>, BmcError> {
        if let Some(tree) = self.redfish.tree() {
            return Ok(tree);
        }
        let tree = Arc::new(Tree::read(*self).await?);
        self.redfish.set_tree(Some(tree.clone()));
        Ok(tree)
    }

    /// The system, read now. Where it is gone (a controller with new firmware numbers anew), it is looked for once more.
    pub(super) async fn system(&self) -> Result<(Arc<Tree>, Resource), BmcError> {
        let tree = self.tree().await?;
        if let Some(system) = self.get_optional(&tree.system).await? {
            return Ok((tree, system));
        }
        self.redfish.set_tree(None);
        let tree = self.tree().await?;
        let system = self.get(&tree.system).await?;
        Ok((tree, system))
    }

    pub(super) async fn manager(&self) -> Result<(Arc<Tree>, Resource), BmcError> {
        let tree = self.tree().await?;
        let link = tree.manager.as_ref().ok_or_else(|| self.unsupported("the controller's own resource"))?;
        let manager = self.get(link).await?;
        Ok((tree, manager))
    }

    pub(super) async fn get(&self, link: &Link) -> Result<Resource, BmcError> {
        let missing = || BmcError::Refused {
            what: format!("GET {link}"),
            why: "404 there is no such thing".to_owned(),
        };
        self.get_optional(link).await?.ok_or_else(missing)
    }

    /// Reads what may be missing: `None` for 404, which services give for parts that the host has not reported yet.
    pub(super) async fn get_optional(&self, link: &Link) -> Result<Option<Resource>, BmcError> {
        let ground = self.ground().await?;
        self.find(&ground, link).await
    }

    /// The resource of an optional reference.
    pub(super) async fn get_linked(&self, view: &View<'_>, name: &str) -> Result<Option<Resource>, BmcError> {
        match view.link(name)? {
            Some(link) => self.get_optional(&link).await,
            None => Ok(None),
        }
    }

    async fn find(&self, ground: &Ground, link: &Link) -> Result<Option<Resource>, BmcError> {
        let ask = Ask { method: Method::GET, link, headers: Vec::new(), body: Bytes::new() };
        let what = ask.what();
        let answer = self.redfish.client.ask(self.deadline, ground.door(), ask).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => resource(&what, link, &answer).map(Some),
            _ => Err(refusal::of(&what, &answer, ground.profile)),
        }
    }

    /// The links of a collection's members.
    pub(super) async fn member_links(&self, collection: &Link) -> Result<Vec<Link>, BmcError> {
        let mut links = Vec::new();
        let mut next = Some(collection.clone());
        for _ in 0..limits::PAGES {
            let Some(link) = next else { break };
            let page = self.get(&link).await?;
            let view = page.view(self.origin());
            links.extend(view.links("Members")?);
            next = view.link_text("Members@odata.nextLink")?;
            if links.len() >= limits::MEMBERS {
                links.truncate(limits::MEMBERS);
                break;
            }
        }
        Ok(links)
    }

    /// The members of a collection, whole. A collection that is not there has none.
    pub(super) async fn members(&self, collection: &Link) -> Result<Vec<Resource>, BmcError> {
        let (whole, links) = self.pages(collection, limits::MEMBERS).await?;
        let mut members = whole;
        members.extend(self.get_all(&links).await?);
        Ok(members)
    }

    /// Members of an optional reference to a collection.
    pub(super) async fn members_of(&self, view: &View<'_>, name: &str) -> Result<Vec<Resource>, BmcError> {
        match view.link(name)? {
            Some(link) => self.members(&link).await,
            None => Ok(Vec::new()),
        }
    }

    /// All pages of a collection: members that came whole, and links to those that did not; at most `limit` of both.
    pub(super) async fn pages(
        &self,
        collection: &Link,
        limit: usize,
    ) -> Result<(Vec<Resource>, Vec<Link>), BmcError> {
        let ground = self.ground().await?;
        let (mut whole, mut links) = (Vec::new(), Vec::new());
        let mut next = self.first_page(&ground, collection).await?;
        for _ in 0..limits::PAGES {
            let Some(page) = next else { break };
            let view = page.view(self.origin());
            for member in view.list("Members")? {
                let Some(link) = member.id()? else { continue };
                let is_link = member.value().as_object().is_none_or(|o| o.len() == 1);
                match is_link {
                    true => links.push(link),
                    false => {
                        let etag = member.text("@odata.etag")?.map(str::to_owned);
                        whole.push(Resource { link, etag, body: member.value().clone() });
                    }
                }
                if whole.len() + links.len() >= limit {
                    return Ok((whole, links));
                }
            }
            next = match view.link_text("Members@odata.nextLink")? {
                Some(link) => self.get_optional(&link).await?,
                None => None,
            };
        }
        Ok((whole, links))
    }

    /// Asks for the members whole, where the service can do it, and plainly where it then refuses.
    async fn first_page(&self, ground: &Ground, collection: &Link) -> Result<Option<Resource>, BmcError> {
        if ground.root.expand {
            match self.get_optional(&collection.with_query("$expand=.($levels=1)")).await {
                Err(BmcError::Refused { .. } | BmcError::Unsupported { .. }) => {}
                other => return other,
            }
        }
        self.get_optional(collection).await
    }

    /// Reads many resources, a few at a time; those that are gone meanwhile are left out.
    pub(super) async fn get_all(&self, links: &[Link]) -> Result<Vec<Resource>, BmcError> {
        let ground = self.ground().await?;
        let mut out = Vec::with_capacity(links.len());
        for some in links.chunks(ground.profile.http.parallel.max(1)) {
            for result in join_all(some.iter().map(|link| self.find(&ground, link))).await {
                out.extend(result?);
            }
        }
        Ok(out)
    }

    /// Changes a resource. It is read before, for its ETag; where it changed in between, that is done once more.
    pub(super) async fn patch(&self, resource: &Resource, body: &Value) -> Result<Answer, BmcError> {
        let ground = self.ground().await?;
        let answer = self.patch_once(&ground, resource, body).await?;
        let again =
            matches!(answer.status, StatusCode::PRECONDITION_FAILED | StatusCode::PRECONDITION_REQUIRED);
        let answer = match again {
            true => self.patch_once(&ground, &self.get(&resource.link).await?, body).await?,
            false => answer,
        };
        let what = format!("PATCH {}", resource.link);
        succeeded(&what, answer, &ground)
    }

    async fn patch_once(
        &self,
        ground: &Ground,
        resource: &Resource,
        body: &Value,
    ) -> Result<Answer, BmcError> {
        let mut headers = vec![json_type()];
        headers.extend(if_match(resource, &ground.profile.etag));
        let ask = Ask { method: Method::PATCH, link: &resource.link, headers, body: text(body) };
        self.redfish.client.ask(self.deadline, ground.door(), ask).await
    }

    pub(super) async fn post(&self, link: &Link, body: &Value) -> Result<Answer, BmcError> {
        let ground = self.ground().await?;
        let ask = Ask { method: Method::POST, link, headers: vec![json_type()], body: text(body) };
        let what = ask.what();
        let answer = self.redfish.client.ask(self.deadline, ground.door(), ask).await?;
        succeeded(&what, answer, &ground)
    }

    /// A request of another kind than the above, with the account's login.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, BmcError> {
        let ground = self.ground().await?;
        self.redfish.client.ask(self.deadline, ground.door(), ask).await
    }

    /// The headers of the account's present login.
    pub(super) async fn login_headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, BmcError> {
        let ground = self.ground().await?;
        self.redfish.client.login_headers(self.deadline, ground.door()).await
    }

    /// The account whose password must be changed before anything else, where the login said so.
    pub(super) async fn account_to_change(&self) -> Result<Option<Link>, BmcError> {
        self.login_headers().await?;
        Ok(self.redfish.client.account_to_change().await)
    }

    /// True where there was something to delete.
    pub(super) async fn delete(&self, link: &Link) -> Result<bool, BmcError> {
        let ground = self.ground().await?;
        let ask = Ask { method: Method::DELETE, link, headers: Vec::new(), body: Bytes::new() };
        let what = ask.what();
        let answer = self.redfish.client.ask(self.deadline, ground.door(), ask).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(false),
            _ => succeeded(&what, answer, &ground).map(|_| true),
        }
    }

    /// An action of a resource (DSP0266, section 7.10): where it is, and which values its parameters take.
    pub(super) async fn action(
        &self,
        view: &View<'_>,
        name: &str,
        parameter: &str,
    ) -> Result<Option<Action>, BmcError> {
        let action = view.object("Actions")?.object(name)?;
        let Some(target) = action.link_text("target")? else { return Ok(None) };
        let mut allowed = owned(action.texts(&format!("{parameter}@Redfish.AllowableValues"))?);
        // Newer services tell it in a resource of its own.
        if let (None, Some(link)) = (&allowed, action.link_text("@Redfish.ActionInfo")?)
            && let Some(info) = self.get_optional(&link).await?
        {
            for described in info.view(self.origin()).list("Parameters")? {
                if described.text("Name")? == Some(parameter) {
                    allowed = owned(described.texts("AllowableValues")?);
                }
            }
        }
        Ok(Some(Action { target, allowed }))
    }

    /// Carries out an action with one parameter, with the first of `wanted` that is allowable.
    pub(super) async fn act(
        &self,
        action: &Action,
        parameter: &str,
        wanted: &[&str],
        what: &'static str,
    ) -> Result<Answer, BmcError> {
        let value = action.first_of(wanted).ok_or_else(|| self.unsupported(what))?;
        self.post(&action.target, &json!({ parameter: value })).await
    }
}

/// An action that a resource offers.
#[derive(Debug)]
pub(super) struct Action {
    pub(super) target: Link,
    /// Allowable values of the parameter that was asked for; `None` where the service does not say.
    pub(super) allowed: Option<Vec<String>>,
}

impl Action {
    /// The first that is allowable. Where the service does not say, the first: it is the schema's own word.
    pub(super) fn first_of<'w>(&self, wanted: &[&'w str]) -> Option<&'w str> {
        match &self.allowed {
            Some(allowed) => wanted.iter().find(|w| allowed.iter().any(|a| a == *w)).copied(),
            None => wanted.first().copied(),
        }
    }
}

fn owned(texts: Option<Vec<&str>>) -> Option<Vec<String>> {
    texts.map(|texts| texts.into_iter().map(str::to_owned).collect())
}

fn if_match(resource: &Resource, quirk: &Etag) -> Option<(HeaderName, HeaderValue)> {
    if quirk.never {
        return None;
    }
    let etag = match &resource.etag {
        Some(etag) if quirk.strong => etag.strip_prefix("W/").unwrap_or(etag),
        Some(etag) => etag,
        None => quirk.without.as_deref()?,
    };
    Some((header::IF_MATCH, HeaderValue::from_str(etag).ok()?))
}

fn succeeded(what: &str, answer: Answer, ground: &Ground) -> Result<Answer, BmcError> {
    match answer.status.is_success() {
        true => Ok(answer),
        false => Err(refusal::of(what, &answer, ground.profile)),
    }
}
