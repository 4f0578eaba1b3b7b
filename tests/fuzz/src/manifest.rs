//! An image's manifest, as it comes from a store, a mirror or a stick.

use images::Manifest;

/// A manifest that is taken is canonical, and its numbers fit together.
pub fn run(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else { return };
    assert_eq!(manifest.canonical(), data, "only canonical bytes are taken");
    assert!(Manifest::parse_as(data, manifest.id()).is_ok());
    assert!(manifest.minimum_disk >= manifest.raw_size && manifest.data_bytes() <= manifest.raw_size);
    let mut covered = 0;
    for index in 0..manifest.chunks.len() {
        assert_eq!(manifest.chunk_offset(index), covered, "chunk {index} follows the one before");
        covered += manifest.chunk_len(index) as u64;
    }
    assert_eq!(covered, manifest.raw_size, "the chunks are the image");
}
