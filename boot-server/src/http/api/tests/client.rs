//! The command line's client against the real API.

use std::io::Read;

use super::lab::{Lab, TOKEN, raw_disk};
use crate::cli::{Client, Failure};
use crate::view::{ImageView, NodeView, Page};

async fn with<T: Send + 'static>(lab: &Lab, work: impl FnOnce(Client) -> T + Send + 'static) -> T {
    let client = Client::new(format!("http://{}", lab.address), TOKEN.to_owned());
    tokio::task::spawn_blocking(move || work(client)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_read_to_their_end() {
    let lab = Lab::new().await;
    let page: Page<NodeView> = with(&lab, |c| c.all("nodes?limit=1")).await.unwrap();
    let names: Vec<&str> = page.items.iter().map(|n| n.name.as_str()).collect();
    assert_eq!((names.as_slice(), page.next), (["alpha", "beta", "gamma"].as_slice(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_the_servers_own_words() {
    let lab = Lab::new().await;
    let failure = with(&lab, |c| c.post::<_, NodeView>("nodes/beta/manage", &serde_json::json!({}))).await;
    let failure = failure.unwrap_err();
    assert_eq!((failure.code(), failure.to_string().as_str()), (1, "cannot manage a node that is active"));
    assert!(failure.hint().is_some());
    let stranger = Client::new(format!("http://{}", lab.address), "not-the-token".to_owned());
    let failure = tokio::task::spawn_blocking(move || stranger.get::<Page<NodeView>>("nodes")).await.unwrap();
    assert!(matches!(failure, Err(Failure::Problem(p)) if p.code == "wrong-token"));
    let nobody = Client::new("http://127.0.0.1:9".to_owned(), TOKEN.to_owned());
    let failure = tokio::task::spawn_blocking(move || nobody.get::<Page<NodeView>>("nodes")).await.unwrap();
    assert!(matches!(failure, Err(Failure::Unreachable { .. })));
}

/// A source that counts what was taken of it.
struct Counted<'a>(&'a [u8], &'a mut usize);

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(buf)?;
        *self.1 += n;
        Ok(n)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_sent_only_once_it_is_wanted() {
    let lab = Lab::new().await;
    let (sent, failure) = with(&lab, |c| {
        let (body, mut sent) = (vec![0; 64 << 20], 0);
        let result = c.upload::<ImageView>(
            "images/upload?name=NO&version=1",
            64 << 20,
            "k",
            &mut Counted(&body, &mut sent),
        );
        (sent, result.unwrap_err())
    })
    .await;
    assert!(matches!(failure, Failure::Problem(ref p) if p.code == "image-options"), "{failure:?}");
    assert_eq!(sent, 0, "the name was refused before a byte was sent");
    let added = with(&lab, |c| {
        let (body, mut sent) = (raw_disk(4), 0);
        let reader = &mut Counted(&body, &mut sent);
        c.upload::<ImageView>("images/upload?name=yes&version=1", body.len() as u64, "k2", reader)
    })
    .await;
    assert_eq!(added.unwrap().name, "yes");
}
