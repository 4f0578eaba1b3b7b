//! How the server is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use axum::Json;
use axum::extract::State;

use super::super::files::{Part, Processor};
use super::{Answer, Api};
use crate::engine::EngineError;
use crate::view::{DhcpView, RamdiskView, StatusView};

/// Version, network, nodes by state, and whether machines can boot the agent.
#[utoipa::path(get, path = "/status", tag = "server", operation_id = "status",
    responses((status = 200, body = StatusView)))]
pub(super) async fn status(State(api): State<Api>) -> Answer<Json<StatusView>> {
    let settings = api.engine.settings();
    let mut nodes = BTreeMap::new();
    for node in api.engine.nodes().await? {
        *nodes.entry(node.state.name().to_string()).or_insert(0) += 1;
    }
    let files = api.files.clone();
    let ramdisk = tokio::task::spawn_blocking(move || {
        let bytes = files.bytes();
        let kernel = files.path(Part::Kernel.name(Processor::X64)).and_then(|path| kernel_version(&path));
        RamdiskView { present: bytes.is_some(), kernel, bytes: bytes.unwrap_or(0) }
    });
    Ok(Json(StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: api.started,
        interface: Some(settings.interface.clone()),
        address: settings.ipv4.map(|n| n.address),
        address6: settings.ipv6.as_ref().map(|n| n.network.address),
        dhcp: DhcpView { enabled: settings.dhcp.is_some(), leases: api.engine.lease_count().await? },
        nodes,
        ramdisk: ramdisk.await.map_err(EngineError::from)?,
        dhcp_servers: api.engine.dhcp_servers(),
    }))
}

/// The version that an x86 kernel states about itself (Linux `Documentation/arch/x86/boot.rst`: magic `HdrS` at
/// 0x202, at 0x20e the place of the string less 0x200), up to its first space.
fn kernel_version(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let mut head = [0; 0x210];
    file.read_exact(&mut head).ok()?;
    if head.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = u64::from(u16::from_le_bytes([head[0x20e], head[0x20f]])) + 0x200;
    file.seek(SeekFrom::Start(at)).ok()?;
    let mut text = Vec::new();
    file.take(128).read_to_end(&mut text).ok()?;
    let text = text.split(|b| *b == 0 || *b == b' ').next()?;
    let text = std::str::from_utf8(text).ok().filter(|t| t.bytes().all(|b| b.is_ascii_graphic()))?;
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_names_itself() {
        let path = std::env::temp_dir().join(format!("billet-kernel-{}", uuid::Uuid::new_v4()));
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x300 + 14].copy_from_slice(b"6.1.0-56 (x@y)");
        std::fs::write(&path, &image).unwrap();
        assert_eq!(kernel_version(&path).as_deref(), Some("6.1.0-56"));
        image[0x20e..0x210].copy_from_slice(&0xffff_u16.to_le_bytes());
        std::fs::write(&path, &image).unwrap();
        assert_eq!(kernel_version(&path), None, "past the end");
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(kernel_version(&path), None);
        std::fs::remove_file(path).unwrap();
    }
}
