//! Who may do what where, over a database.

use super::*;
use crate::tokens::{TokenError, Tokens};

async fn tokens() -> (Tokens, crate::store::tests::Scratch) {
    let scratch = crate::store::tests::Scratch::new();
    let store = Store::open(&scratch.0.join("billet.db")).unwrap();
    (Tokens::open(store).await.unwrap(), scratch)
}

#[tokio::test]
async fn what_somebody_is_survives_and_is_felt_at_once() {
    let (tokens, _scratch) = tokens().await;
    let tenancy = tokens.tenancy();
    let (red, blue) = (
        tenancy.create_project("red", " the reds ").await.unwrap(),
        tenancy.create_project("blue", "").await.unwrap(),
    );
    assert_eq!(red.body.description, "the reds");
    let alice = tenancy.create_user("alice", "Alice", None).await.unwrap();
    let who = tenancy.principal(alice.id).unwrap();
    assert_eq!((who.site, who.role_in(red.id)), (None, None));
    tenancy.set_member(red.id, alice.id, Role::Member).await.unwrap();
    let who = tenancy.principal(alice.id).unwrap();
    assert_eq!((who.role_in(red.id), who.role_in(blue.id)), (Some(Role::Member), None));
    let waiting = tokio::spawn(async move { who.ended().await });
    tenancy.set_member(red.id, alice.id, Role::Reader).await.unwrap();
    waiting.await.unwrap();
    let again = Tenancy::open(tenancy.0.store.clone()).await.unwrap();
    assert_eq!(again.role_of(alice.id, Scope::Project(red.id)), Some(Role::Reader));
    assert_eq!(again.members(red.id).len(), 1);
    tenancy.change_user(alice.id, "Alice", Some(Role::Operator)).await.unwrap();
    let who = tenancy.principal(alice.id).unwrap();
    assert_eq!(who.role_in(red.id), Some(Role::Operator), "the site's operators enter every project");
    tenancy.set_disabled(alice.id, true).await.unwrap();
    assert!(tenancy.principal(alice.id).is_none());
    assert_eq!(tenancy.role_of(alice.id, Scope::Site), None);
    tenancy.set_disabled(alice.id, false).await.unwrap();
    tenancy.close_project(red.id).await.unwrap();
    assert_eq!(tenancy.role_of(alice.id, Scope::Project(red.id)), None);
    assert!(tenancy.project("red").is_none() && tenancy.project(&red.id.to_string()).is_none());
    tenancy.create_project("red", "").await.unwrap();
}

#[tokio::test]
async fn a_token_is_good_for_no_more_than_its_maker() {
    let (tokens, _scratch) = tokens().await;
    let tenancy = tokens.tenancy();
    let (red, blue) =
        (tenancy.create_project("red", "").await.unwrap(), tenancy.create_project("blue", "").await.unwrap());
    let alice = tenancy.create_user("alice", "", None).await.unwrap();
    tenancy.set_member(red.id, alice.id, Role::Member).await.unwrap();
    let who = tenancy.principal(alice.id).unwrap();
    for (scope, role) in [
        (Scope::Project(red.id), Role::Admin),
        (Scope::Project(red.id), Role::Auditor),
        (Scope::Project(blue.id), Role::Reader),
        (Scope::Site, Role::Reader),
    ] {
        assert!(matches!(tokens.create_by(&who, scope, "ci", role, None).await, Err(TokenError::More)));
    }
    let scope = Scope::Project(red.id);
    let (view, text) = tokens.create_by(&who, scope, "ci", Role::Member, None).await.unwrap();
    let hash = crate::secret::hash(&text);
    let ci = tokens.with_hash(&hash, view.created).unwrap();
    assert_eq!(ci.name(), "red/ci");
    assert_eq!((ci.site, ci.role_in(red.id), ci.role_in(blue.id)), (None, Some(Role::Member), None));
    assert!(tokens.with_name("ci", view.created).is_none(), "not one of the site's");
    tenancy.set_member(red.id, alice.id, Role::Reader).await.unwrap();
    assert_eq!(ci.ended().await, "the token was revoked");
    assert!(tokens.with_hash(&hash, view.created).is_none(), "more than its maker may");
    tenancy.set_member(red.id, alice.id, Role::Admin).await.unwrap();
    assert!(tokens.with_hash(&hash, view.created).is_some());
    tenancy.close_project(red.id).await.unwrap();
    assert!(tokens.with_hash(&hash, view.created).is_none(), "its project is closed");
}

#[tokio::test]
async fn names_are_for_one() {
    let (tokens, _scratch) = tokens().await;
    let tenancy = tokens.tenancy();
    let code = |error: TenancyError| error.problem().code;
    tenancy.create_project("red", "").await.unwrap();
    tenancy.create_user("alice", "", None).await.unwrap();
    assert_eq!(code(tenancy.create_project("red", "").await.unwrap_err()), "name-taken");
    assert_eq!(code(tenancy.create_project("Red", "").await.unwrap_err()), "project-name");
    assert_eq!(code(tenancy.create_project("x", &"y".repeat(501)).await.unwrap_err()), "text");
    assert_eq!(code(tenancy.create_user("alice", "", None).await.unwrap_err()), "name-taken");
    assert_eq!(code(tenancy.create_user("server", "", None).await.unwrap_err()), "user-name");
    assert_eq!(code(tenancy.create_user("bob", "", Some(Role::Member)).await.unwrap_err()), "site-role");
    let taken = tokens.create("alice", Role::Reader, None).await.unwrap_err();
    assert_eq!(taken.problem().code, "name-taken");
}
