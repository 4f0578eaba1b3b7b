//! The document of the API.

use std::path::Path;

/// Regenerate with `UPDATE_OPENAPI=1 cargo test -p boot-server openapi`.
#[test]
fn openapi_json_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let mut text = super::document().to_pretty_json().unwrap();
    text.push('\n');
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == checked_in, "docs/openapi.json is old: run the tests once with UPDATE_OPENAPI=1");
}
