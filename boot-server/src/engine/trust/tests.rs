//! Whose images are written, over the life of keys and images.

use ::images::minisign::SecretKey;
use ::images::trust::{Anchor, TrustError, sign, succession};
use ::images::{Manifest, StoreError as ImageStoreError};
use protocol::ImageId;

use super::keys::Successor;
use super::*;
use crate::engine::tests::{engine, image, settings, tiny};
use crate::store::queries::EventFilter;
use crate::store::tests::Scratch;

fn key(seed: u8) -> SecretKey {
    SecretKey::of_seed(&[seed; 32])
}

/// Another image of the name `tiny`.
fn version(version: &str) -> Manifest {
    Manifest { version: version.to_owned(), ..tiny() }
}

/// Puts it into the store as an ingest does.
async fn add(engine: &Engine, manifest: &Manifest) -> ImageId {
    let signature = engine.sign_manifest(manifest);
    let id = engine.images().writer().put_signed(manifest, signature.as_deref()).unwrap();
    engine.add_image_row(id, now(), "test").await.unwrap();
    id
}

async fn kinds(engine: &Engine) -> Vec<String> {
    let events = engine.events(EventFilter { limit: 100, ..EventFilter::default() }).await.unwrap();
    events.into_iter().map(|event| event.kind).collect()
}

fn is_signed(engine: &Engine, id: ImageId) -> bool {
    matches!(engine.standing_of(id), Standing::Signed { .. })
}

#[tokio::test]
async fn an_image_that_nobody_vouches_for_is_listed_and_not_written() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    let id = image(&engine).await;
    assert!(engine.resolve_image("tiny").await.is_ok());

    // What somebody puts into the directory is listed at the next start, and waits.
    let planted = engine.images().writer().put_manifest(&version("2")).unwrap();
    engine.store().close();
    drop(engine);
    let engine = crate::engine::tests::engine(&scratch).await;
    assert!(is_signed(&engine, id) && !is_signed(&engine, planted));
    assert_eq!(engine.resolve_image("tiny").await.unwrap().0, id, "the one before is not hidden");
    let refused = engine.resolve_image("tiny:2").await.unwrap_err().problem();
    assert_eq!((refused.status, refused.code.as_str()), (409, "image-unsigned"));

    // A signature by somebody else, of something else, or of another image is not taken.
    let manifest = version("2");
    let secret = engine.0.trust.read().secret.clone().unwrap();
    for wrong in [
        sign(&key(9), &manifest, 1),
        secret.sign(&manifest.canonical(), "usage.csv"),
        sign(&secret, &version("3"), 1),
        String::new(),
    ] {
        let problem = engine.give_signature(Actor::Server, "tiny:2", wrong).await.unwrap_err().problem();
        assert_eq!((problem.status, problem.code.as_str()), (422, "bad-signature"));
        assert_eq!(engine.images().signature(planted).unwrap(), None);
    }
    engine.give_signature(Actor::Server, "tiny:2", sign(&secret, &manifest, 77)).await.unwrap();
    assert!(engine.resolve_image("tiny:2").await.is_ok());
    engine.store().close();
}

#[tokio::test]
async fn what_was_there_before_is_signed_once() {
    let scratch = Scratch::new();
    let first = engine(&scratch).await;
    let id = image(&first).await;
    // A site of before: no keys, no signatures.
    first.images().remove(id).unwrap();
    first.images().writer().put_manifest(&tiny()).unwrap();
    let forget = |db: &crate::store::db::Connection| {
        db.execute_batch("DELETE FROM trusted_keys; DELETE FROM settings WHERE name = 'trust.adopted'")
            .map_err(crate::store::StoreError::sql("forget"))
    };
    first.store().write(forget).await.unwrap();
    first.store().close();
    std::fs::remove_dir_all(settings(&scratch).trust_dir()).unwrap();
    drop(first);

    let second = engine(&scratch).await;
    assert!(is_signed(&second, id));
    assert!(kinds(&second).await.contains(&"image.signed".to_owned()));
    second.store().close();
}

#[tokio::test]
async fn what_was_removed_stays_away() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    let one = image(&engine).await;
    let bytes = engine.images().manifest_bytes(one).unwrap();
    let signature = engine.images().signature(one).unwrap();
    let two = add(&engine, &version("2")).await;
    let judge =
        |anchor: &Anchor| anchor.judge(one, &bytes, signature.as_deref()).map(|it| it.statement.number);
    assert!(judge(&engine.anchor()).is_ok(), "an old one that the site keeps");
    engine.remove_image("tiny:1").await.unwrap();
    assert!(matches!(judge(&engine.anchor()), Err(TrustError::Older { .. })));
    let published = std::fs::read(engine.settings().anchor()).unwrap();
    assert!(matches!(judge(&Anchor::parse(&published).unwrap()), Err(TrustError::Older { .. })));
    assert!(is_signed(&engine, two));
    engine.remove_image("tiny").await.unwrap();
    assert!(judge(&engine.anchor()).is_err(), "the last of its name");
    engine.store().close();
    drop(engine);
    let engine = crate::engine::tests::engine(&scratch).await;
    assert!(judge(&engine.anchor()).is_err(), "after a restart");
    engine.store().close();
}

#[tokio::test]
async fn a_new_key_signs_what_the_old_one_did() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    let id = image(&engine).await;
    let gone = add(&engine, &version("0")).await;
    engine.remove_image(&gone.to_string()).await.unwrap();
    let old = engine.anchor();
    let Standing::Signed { number, .. } = engine.standing_of(id) else { unreachable!("not signed") };
    let row = engine.rotate_key(Actor::Server).await.unwrap();
    let Standing::Signed { key, number: after, .. } = engine.standing_of(id) else {
        unreachable!("not signed")
    };
    assert_eq!((key, after), (row.key, number), "with the number that it had");
    let mut followed = Anchor::clone(&old);
    assert!(followed.follow(&engine.succession()));
    assert_eq!(followed.keys[0].key, row.key);
    assert_eq!(followed.keys[0].floors, engine.anchor().keys[0].floors, "floors go with it");
    assert!(engine.images().vouched(id, &engine.anchor()).is_ok());
    let by_old = engine.images().vouched(id, &old);
    assert!(matches!(by_old, Err(ImageStoreError::Untrusted { cause: TrustError::Foreign(_), .. })));
    engine.store().close();
    drop(engine);
    let again = crate::engine::tests::engine(&scratch).await;
    assert!(again.has_image_key() && is_signed(&again, id), "after a restart");
    assert!(kinds(&again).await.contains(&"key.rotated".to_owned()));
    again.store().close();
}

/// A rotation that was cut off before images were signed anew goes on at the next start; what was planted meanwhile is left out.
#[tokio::test]
async fn a_rotation_that_was_cut_off_goes_on() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    let id = image(&engine).await;
    let signature = engine.images().signature(id).unwrap().unwrap();
    let secret = engine.0.trust.read().secret.clone().unwrap();
    engine.rotate_key(Actor::Server).await.unwrap();
    engine.images().put_signature(id, &signature).unwrap();
    let planted = version("2");
    let by_old = sign(&secret, &planted, 99);
    let planted = engine.images().writer().put_signed(&planted, Some(&by_old)).unwrap();
    engine.store().close();
    drop(engine);
    let engine = crate::engine::tests::engine(&scratch).await;
    assert!(is_signed(&engine, id));
    assert!(!is_signed(&engine, planted), "who has the old key has not the site");
    engine.store().close();
}

#[tokio::test]
async fn the_private_part_may_stay_elsewhere() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    let id = image(&engine).await;
    let old = engine.0.trust.read().secret.clone().unwrap();
    let import = |key: &SecretKey, statement: Option<String>, forget| {
        let next = Successor { key: key.public(), secret: None, statement };
        engine.import_key(Actor::Server, next, forget)
    };
    // A statement that is none is refused, and nothing changes.
    for wrong in [succession(&key(8), &key(3).public()), succession(&old, &key(4).public()), String::new()] {
        assert!(import(&key(3), Some(wrong), false).await.is_err());
    }
    assert!(engine.has_image_key() && engine.settings().image_key().exists());
    import(&key(3), None, false).await.unwrap();
    assert!(!engine.has_image_key() && !engine.settings().image_key().exists(), "the old one is gone");
    assert_eq!(engine.succession(), [succession(&old, &key(3).public())]);
    assert!(!is_signed(&engine, id));
    let sent = sign(&key(3), &engine.images().manifest(id).unwrap(), 5);
    engine.give_signature(Actor::Server, "tiny", sent).await.unwrap();
    let waits = add(&engine, &version("2")).await;
    assert!(!is_signed(&engine, waits) && engine.sign_image(Actor::Server, "tiny:2").await.is_err());

    // Without the old key's word nothing follows, unless it is forgotten.
    assert!(import(&key(4), None, false).await.is_err());
    import(&key(4), None, true).await.unwrap();
    assert!(!is_signed(&engine, id) && kinds(&engine).await.contains(&"key.forgotten".to_owned()));
    assert!(import(&key(3), None, true).await.is_err(), "a key that was forgotten does not come back");
    engine.store().close();
    drop(engine);
    let engine = crate::engine::tests::engine(&scratch).await;
    assert!(!engine.has_image_key() && !engine.settings().image_key().exists(), "none is made by itself");
    engine.store().close();
}

#[tokio::test]
async fn images_of_others_are_taken_as_long_as_they_are_trusted() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    image(&engine).await;
    let manifest = version("2");
    let id = engine.images().writer().put_signed(&manifest, Some(&sign(&key(5), &manifest, 1))).unwrap();
    engine.add_image_row(id, now(), "test").await.unwrap();
    assert!(!is_signed(&engine, id));
    assert!(engine.trust_key(Actor::Server, key(5).public(), " \n").await.is_err());
    engine.trust_key(Actor::Server, key(5).public(), "Example Ltd").await.unwrap();
    assert!(engine.trust_key(Actor::Server, key(5).public(), "again").await.is_err());
    assert!(matches!(engine.standing_of(id), Standing::Signed { title, .. } if title == "Example Ltd"));
    assert_eq!(engine.anchor().keys.len(), 2);
    let number = key(5).public().id().to_string();
    engine.distrust_key(Actor::Server, &number).await.unwrap();
    assert!(!is_signed(&engine, id) && engine.distrust_key(Actor::Server, &number).await.is_err());
    let site = engine.anchor().keys[0].key.id().to_string();
    assert!(
        engine.distrust_key(Actor::Server, &site).await.is_err(),
        "the site's own is not somebody else's"
    );
    engine.store().close();
}
