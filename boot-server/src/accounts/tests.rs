//! Signing in, over a database.

use boot_server_core::access::Role;

use super::*;
use crate::store::tests::Scratch;

struct Lab {
    accounts: Accounts,
    tenancy: Tenancy,
    vault: Vault,
    _scratch: Scratch,
}

const WORDS: &str = "correct horse battery";

fn at(last: u8) -> At {
    At { source: IpAddr::from([10, 0, 0, last]), agent: "tests".to_owned() }
}

fn typed<'a>(name: &'a str, password: &'a str, code: &'a str) -> Typed<'a> {
    Typed { name, password, code }
}

impl Lab {
    async fn new() -> Self {
        let scratch = Scratch::new();
        let store = Store::open(&scratch.0.join("billet.db")).unwrap();
        let tenancy = Tenancy::open(store.clone()).await.unwrap();
        let accounts = Accounts::open(store, tenancy.clone()).await.unwrap();
        let vault = Vault::open(&scratch.0.join("secrets.key")).unwrap();
        let alice = tenancy.create_user("alice", "Alice", Some(Role::Reader)).await.unwrap();
        accounts.set_password(alice.id, WORDS, None).await.unwrap();
        Self { accounts, tenancy, vault, _scratch: scratch }
    }

    async fn sign_in(
        &self,
        name: &str,
        password: &str,
        code: &str,
    ) -> Result<(Principal, String), AccountError> {
        self.accounts.sign_in(&self.vault, typed(name, password, code), at(1)).await
    }
}

#[tokio::test]
async fn a_session_begins_with_the_password_and_ends_with_it() {
    let lab = Lab::new().await;
    let (who, text) = lab.sign_in("alice", WORDS, "").await.unwrap();
    assert_eq!((who.name().as_str(), who.site), ("alice", Some(Role::Reader)));
    let hash = crate::secret::hash(&text);
    assert!(lab.accounts.with_hash(&hash, now()).is_some());
    assert!(lab.accounts.with_hash(&hash, now().after(sessions::SESSION)).is_none());
    for (name, password) in [("alice", "wrong"), ("alice", ""), ("nobody", WORDS), ("Alice", WORDS)] {
        assert!(matches!(lab.sign_in(name, password, "").await, Err(AccountError::Wrong)), "{name}");
    }
    let id = who.user.unwrap();
    assert!(
        matches!(lab.sign_in(&id.to_string(), WORDS, "").await, Err(AccountError::Wrong)),
        "an id is no name"
    );
    let (second, _) = lab.sign_in("alice", WORDS, "").await.unwrap();
    let again = Accounts::open(lab.accounts.0.store.clone(), lab.tenancy.clone()).await.unwrap();
    assert!(again.with_hash(&hash, now()).is_some(), "it outlives a restart");
    let waiting = tokio::spawn(async move { who.ended().await });
    let change = |current: &'static str| {
        lab.accounts.change_password(&second, current, "another set of words", at(1).source)
    };
    assert!(matches!(change("wrong").await, Err(AccountError::Wrong)));
    change(WORDS).await.unwrap();
    assert!(waiting.await.unwrap().contains("sign in again"));
    assert!(lab.accounts.with_hash(&hash, now()).is_none());
    let left = lab.accounts.sessions_of(id);
    assert_eq!((left.len(), Some(left[0].id)), (1, second.session), "the one that changed it stays");
    assert!(lab.sign_in("alice", WORDS, "").await.is_err());
    let (_, text) = lab.sign_in("alice", "another set of words", "").await.unwrap();
    lab.tenancy.set_disabled(id, true).await.unwrap();
    assert!(lab.accounts.with_hash(&crate::secret::hash(&text), now()).is_none());
    assert!(matches!(lab.sign_in("alice", "another set of words", "").await, Err(AccountError::Wrong)));
}

#[tokio::test]
async fn guesses_are_slowed_down_even_in_a_crowd() {
    let lab = Lab::new().await;
    let guesses = (0..40).map(|n| {
        let (accounts, vault) = (lab.accounts.clone(), lab.vault.clone());
        tokio::spawn(async move {
            let guess = format!("guess number {n}");
            accounts.sign_in(&vault, typed("alice", &guess, ""), at(1)).await
        })
    });
    let (mut wrong, mut waits) = (0, 0);
    for guess in guesses.collect::<Vec<_>>() {
        match guess.await.unwrap() {
            Err(AccountError::Wrong) => wrong += 1,
            Err(AccountError::Wait(_)) => waits += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((5..=5 + HASHES).contains(&wrong) && waits >= 30, "{wrong} {waits}");
    assert!(matches!(lab.sign_in("alice", WORDS, "").await, Err(AccountError::Wait(_))));
    lab.accounts.sign_in(&lab.vault, typed("alice", WORDS, ""), at(2)).await.unwrap();
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_each_code_is_good_once() {
    let lab = Lab::new().await;
    let (who, _) = lab.sign_in("alice", WORDS, "").await.unwrap();
    let begun = lab.accounts.begin_enrolment(&who, WORDS, at(1).source).await.unwrap();
    assert!(begun.uri.starts_with("otpauth://totp/Billet:alice?secret="), "{}", begun.uri);
    lab.sign_in("alice", WORDS, "").await.unwrap();
    let finish = |code: String| {
        let (lab, who) = (&lab, &who);
        async move { lab.accounts.finish_enrolment(&lab.vault, who, &code).await }
    };
    assert!(matches!(finish("000000x".to_owned()).await, Err(AccountError::Code)));
    let code = totp::code(&begun.key, now());
    let recovery = finish(code.clone()).await.unwrap();
    assert_eq!((recovery.len(), recovery[0].len()), (10, 23));
    let kept = lab.accounts.credentials(who.user.unwrap());
    assert!(!kept.totp.unwrap().contains(&begun.secret));
    assert!(matches!(lab.sign_in("alice", WORDS, "").await, Err(AccountError::CodeMissing)));
    assert!(matches!(lab.sign_in("alice", "wrong", "").await, Err(AccountError::Wrong)));
    assert!(
        matches!(lab.sign_in("alice", WORDS, &code).await, Err(AccountError::Wrong)),
        "it was used to set it up"
    );
    let next = totp::code(&begun.key, now().after(Duration::from_secs(30)));
    lab.sign_in("alice", WORDS, &next).await.unwrap();
    assert!(matches!(lab.sign_in("alice", WORDS, &next).await, Err(AccountError::Wrong)), "used");
    lab.sign_in("alice", WORDS, &recovery[3].to_lowercase().replace('-', " ")).await.unwrap();
    assert!(matches!(lab.sign_in("alice", WORDS, &recovery[3]).await, Err(AccountError::Wrong)), "used");
    lab.accounts.remove_second(who.user.unwrap()).await.unwrap();
    lab.sign_in("alice", WORDS, "").await.unwrap();
}
