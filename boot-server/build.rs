//! Checks that the third-party scripts of the web UI are there to be embedded. It fetches nothing.

use std::path::Path;

const VENDOR: [&str; 3] = ["htmx.min.js", "sse.min.js", "idiomorph-ext.min.js"];

fn main() {
    println!("cargo::rerun-if-changed=ui");
    println!("cargo::rerun-if-changed=askama.toml");
    for name in VENDOR {
        let path = format!("ui/vendor/{name}");
        println!("cargo::rerun-if-changed={path}");
        if !Path::new(&path).is_file() {
            println!("cargo::error=boot-server/{path} is missing: run `cargo xtask ui` first");
        }
    }
}
