//! Files of the web UI, embedded in the binary and served under a path that holds their common hash, so that
//! browsers may keep them for ever and never mix two versions.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "ui/static"]
struct Own;

#[derive(RustEmbed)]
#[folder = "ui/vendor"]
struct Vendor;

/// Digits of the hash in the path; 64 bits tell any two builds apart.
const TAG_DIGITS: usize = 16;

static TAG: LazyLock<String> = LazyLock::new(|| {
    use sha2::{Digest, Sha256};
    let mut names: Vec<_> = Own::iter().chain(Vendor::iter()).collect();
    names.sort();
    let mut hash = Sha256::new();
    for name in &names {
        if let Some(file) = file(name) {
            hash.update(name.as_bytes());
            hash.update(file.metadata.sha256_hash());
        }
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect::<String>()[..TAG_DIGITS].to_owned()
});

fn file(name: &str) -> Option<rust_embed::EmbeddedFile> {
    Own::get(name).or_else(|| Vendor::get(name))
}

/// Where a file is found.
pub fn url(name: &str) -> String {
    format!("/static/{}/{name}", *TAG)
}

/// `GET /static/{tag}/{name}`.
pub async fn serve(Path((tag, name)): Path<(String, String)>) -> Response {
    let Some(file) = file(&name) else {
        return (StatusCode::NOT_FOUND, "no such file").into_response();
    };
    let kind = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    // A page of an older build may still ask by its own tag: it gets what there is now, but must not keep it.
    let keep = if tag == *TAG { "public, max-age=31536000, immutable" } else { "no-store" };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, keep)], file.data).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_file_that_a_page_names_is_embedded() {
        let base = include_str!("../../../ui/templates/base.html");
        let mut seen = 0;
        for rest in base.split("assets::url(\"").skip(1) {
            let name = rest.split('"').next().unwrap();
            assert!(file(name).is_some(), "{name}");
            let answer = serve(Path((TAG.clone(), name.to_owned()))).await;
            assert_eq!(answer.status(), StatusCode::OK);
            seen += 1;
        }
        assert!(seen >= 5);
        assert_eq!(
            serve(Path((TAG.clone(), "../Cargo.toml".to_owned()))).await.status(),
            StatusCode::NOT_FOUND
        );
    }

    fn templates(dir: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                templates(&path, found);
            } else {
                found.push(path);
            }
        }
    }

    #[test]
    fn no_page_holds_inline_script_or_style() {
        let mut all = Vec::new();
        templates(concat!(env!("CARGO_MANIFEST_DIR"), "/ui/templates").as_ref(), &mut all);
        assert!(all.iter().any(|path| path.ends_with("my/servers.html")), "those of members too");
        for path in all {
            let text = std::fs::read_to_string(&path).unwrap();
            for bad in [
                " style=",
                "<style",
                "<script>",
                " onclick=",
                " onload=",
                "hx-on",
                "|safe",
                "http://",
                "//cdn",
            ] {
                assert!(!text.contains(bad), "{bad} in {}", path.display());
            }
        }
    }
}
