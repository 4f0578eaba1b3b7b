//! Users: signing in, what they may change, and what they may not.

use serde_json::{Value, json};
use ureq::http::Method;

use super::lab::{Got, Lab};

const WORDS: &str = "correct horse battery";

impl Lab {
    /// Adds a user with a password, and a role in a project.
    pub async fn user(&self, name: &str, site: Option<&str>, project: Option<(&str, &str)>) {
        let body = json!({"name": name, "full_name": "", "site_role": site, "password": WORDS});
        let made = self.post("/api/v1/users", body).await;
        assert_eq!(made.status, 201, "{made:?}");
        if let Some((project, role)) = project {
            let path = format!("/api/v1/projects/{project}/members/{name}");
            let body = json!({"role": role}).to_string().into_bytes();
            let headers = [("content-type", "application/json")];
            assert_eq!(self.send(Method::PUT, &path, &headers, body).await.status, 200);
        }
    }

    /// Signs in, and returns what to send as a bearer token.
    pub async fn sign_in(&self, name: &str) -> String {
        let got = self.try_sign_in(json!({"user": name, "password": WORDS})).await;
        assert_eq!(got.status, 201, "{got:?}");
        got.body["secret"].as_str().unwrap().to_owned()
    }

    async fn try_sign_in(&self, body: Value) -> Got {
        let headers = [("content-type", "application/json")];
        self.send_as(Method::POST, "/api/v1/login", &headers, body.to_string().into_bytes()).await
    }

    async fn kinds(&self) -> String {
        self.get("/api/v1/events?limit=100").await.body["items"].to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_signs_in_and_is_what_they_were_made() {
    let lab = Lab::new().await;
    lab.project("red").await;
    lab.user("root", Some("admin"), None).await;
    lab.user("mia", None, Some(("red", "member"))).await;
    let (root, mia) = (lab.sign_in("root").await, lab.sign_in("mia").await);
    let me = lab.with(&mia, Method::GET, "/api/v1/me", json!(null)).await;
    assert_eq!((&me.body["name"], &me.body["projects"][0]["role"]), (&json!("mia"), &json!("member")));
    assert_eq!(lab.with(&mia, Method::GET, "/api/v1/nodes", json!(null)).await.code(), (404, "not-found"));
    assert_eq!(lab.with(&mia, Method::GET, "/api/v1/users", json!(null)).await.code(), (404, "not-found"));
    assert_eq!(lab.with(&root, Method::GET, "/api/v1/nodes", json!(null)).await.status, 200);
    let users = lab.with(&root, Method::GET, "/api/v1/users", json!(null)).await;
    let text = users.body.to_string();
    assert!(text.contains("mia") && !text.contains("argon2") && !text.contains("sha256"), "{text}");
    // A role that is changed is felt at once, in the session that is open.
    let member = "/api/v1/projects/red/members/mia";
    let tokens = "/api/v1/projects/red/tokens";
    let make = json!({"name": "ci", "role": "member"});
    assert_eq!(lab.with(&mia, Method::POST, tokens, make.clone()).await.status, 201);
    assert_eq!(lab.with(&root, Method::PUT, member, json!({"role": "reader"})).await.status, 200);
    assert_eq!(lab.with(&mia, Method::POST, tokens, make).await.code(), (403, "role"));
    let own = lab.with(&mia, Method::PUT, member, json!({"role": "admin"})).await;
    assert_eq!(own.code(), (403, "role"), "nobody gives themselves a role");
    // Disabled: out at once, and not in again.
    let disable = json!({"full_name": "", "site_role": null, "disabled": true});
    assert_eq!(lab.with(&root, Method::PUT, "/api/v1/users/mia", disable).await.status, 200);
    assert_eq!(lab.with(&mia, Method::GET, "/api/v1/me", json!(null)).await.code(), (401, "wrong-token"));
    let again = lab.try_sign_in(json!({"user": "mia", "password": WORDS})).await;
    assert_eq!(again.code(), (401, "wrong-password"));
    let kinds = lab.kinds().await;
    for kind in ["user.created", "login.ok", "member.set", "user.disabled", "login.failed", "token.created"] {
        assert!(kinds.contains(kind), "{kind}");
    }
    assert!(!kinds.contains(WORDS), "no password in the events");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_theirs_to_set_is_refused() {
    let lab = Lab::new().await;
    lab.project("red").await;
    lab.user("olga", Some("operator"), None).await;
    lab.user("mia", None, Some(("red", "admin"))).await;
    let (olga, mia) = (lab.sign_in("olga").await, lab.sign_in("mia").await);
    let user = |more: Value| {
        let mut body = json!({"name": "eve"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    // Fields that a request does not have: whoever asks.
    for more in [
        json!({"id": "00000000-0000-0000-0000-000000000001"}),
        json!({"disabled": null}),
        json!({"password_hash": "$argon2id$"}),
        json!({"totp": "x"}),
        json!({"projects": []}),
        json!({"created": 1}),
    ] {
        let got = lab.post("/api/v1/users", user(more.clone())).await;
        assert_eq!(got.code(), (400, "body"), "{more}");
    }
    for (path, body) in [
        ("/api/v1/projects/red/members/mia", json!({"role": "admin", "project": "blue"})),
        ("/api/v1/projects/red", json!({"name": "red", "closed": 1})),
        ("/api/v1/me/password", json!({"current": WORDS, "password": "another of those", "user": "olga"})),
    ] {
        assert_eq!(lab.with(&mia, Method::PUT, path, body).await.code(), (400, "body"), "{path}");
    }
    let token = json!({"name": "ci", "role": "member", "project": "blue"});
    assert_eq!(
        lab.with(&mia, Method::POST, "/api/v1/projects/red/tokens", token).await.code(),
        (400, "body")
    );
    // Requests that are not theirs.
    for (method, path, body) in [
        (Method::POST, "/api/v1/users", user(json!({"site_role": "admin"}))),
        (
            Method::PUT,
            "/api/v1/users/olga",
            json!({"full_name": "", "site_role": "admin", "disabled": false}),
        ),
        (Method::PUT, "/api/v1/users/olga/password", json!({"password": "another of those"})),
        (Method::DELETE, "/api/v1/users/olga/totp", json!(null)),
    ] {
        assert_eq!(
            lab.with(&olga, method.clone(), path, body.clone()).await.code(),
            (403, "not-admin"),
            "{path}"
        );
        assert_eq!(lab.with(&mia, method, path, body).await.code(), (404, "not-found"), "{path}");
    }
    let list = lab.get("/api/v1/users").await;
    let olga = list.body["items"].as_array().unwrap().iter().find(|u| u["name"] == "olga").unwrap();
    assert_eq!((&olga["site_role"], list.body["items"].as_array().unwrap().len()), (&json!("operator"), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_signs_in_by_name_and_out_again() {
    let lab = Lab::new().await;
    lab.project("red").await;
    lab.user("mia", None, Some(("red", "admin"))).await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let login = async |user: &str, password: &str| {
        let body = format!("user={user}&password={password}&code=&next=%2F").into_bytes();
        lab.send_as(Method::POST, "/login", &form, body).await
    };
    let to = |got: &Got| got.headers["location"].to_str().unwrap().to_owned();
    let wrong = login("mia", "wrong").await;
    assert_eq!(to(&wrong), "/login?refused=password&user=mia&next=%2F");
    let page = lab.send_as(Method::GET, &to(&wrong), &[], Vec::new()).await;
    assert!(page.body.as_str().unwrap().contains("Name, password or code is wrong."));
    let right = login("mia", "correct+horse+battery").await;
    assert_eq!((right.status, to(&right).as_str()), (303, "/"));
    let cookie = right.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let session = [("cookie", cookie.as_str())];
    let get = async |path: &str| lab.send_as(Method::GET, path, &session, Vec::new()).await;
    assert_eq!(to(&get("/").await), "/my/");
    for (path, has) in
        [("/my/", "red"), ("/me", "Where you are signed in"), ("/my/red/members", "Take somebody in")]
    {
        let page = get(path).await;
        let text = page.body.as_str().unwrap_or_default();
        assert!(page.status == 200 && text.contains(has), "{path}: {page:?}");
        assert!(!text.contains("/ui/stream") && !text.contains("href=\"/tokens\""), "{path}");
    }
    assert_eq!(get("/my/blue/members").await.status, 404);
    assert_eq!(get("/users").await.status, 404);
    let other = [("cookie", cookie.as_str()), ("content-type", form[0].1)];
    let forged = lab.send_as(Method::POST, "/me/totp", &other, b"current=x".to_vec()).await;
    assert_eq!(forged.code(), (403, "other-site"));
    let same = [session[0], ("sec-fetch-site", "same-origin")];
    assert_eq!(lab.send_as(Method::POST, "/logout", &same, Vec::new()).await.status, 303);
    assert_eq!(to(&get("/me").await), "/login?next=%2Fme", "the session is over, not just forgotten");
    for _ in 0..6 {
        login("mia", "wrong").await;
    }
    assert!(to(&login("mia", "correct+horse+battery").await).starts_with("/login?refused=locked"));
    assert!(lab.kinds().await.contains("login.locked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_steps_are_shown_to_whoever_has_the_sites_token() {
    let lab = Lab::new().await;
    let page = async || lab.get("/").await.body.as_str().unwrap().to_owned();
    let first = page().await;
    assert!(first.contains("First steps") && first.contains("href=\"/users\""), "{first}");
    lab.user("root", Some("admin"), None).await;
    let second = page().await;
    assert!(second.contains("First steps") && !second.contains(">Add a user</a>"));
    let reader = lab.token("rita", "reader").await;
    let hers = lab.with(&reader, Method::GET, "/", json!(null)).await;
    assert!(!hers.body.as_str().unwrap().contains("First steps"));
    assert_eq!(lab.send(Method::POST, "/welcome/dismiss", &[], Vec::new()).await.status, 303);
    assert!(!page().await.contains("First steps"));
}
