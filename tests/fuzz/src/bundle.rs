//! The beginning of a bundle, as it comes on a stick: first octets and index. (Before the index is parsed its signature was checked;
//! what has the key and lies must do no harm either.)

use boot_server_core::bundle::{HEAD, Head, INDEX_MAX, Index, SIGNATURE_MAX, check_path};

/// What is taken is canonical, its names lead nowhere else, and its sizes fit together.
pub fn run(data: &[u8]) {
    if let Some(first) = data.first_chunk::<HEAD>()
        && let Ok(head) = Head::parse(first)
    {
        assert_eq!(head.octets(), *first, "nothing in the first octets is without meaning");
        assert!(head.index <= INDEX_MAX && head.signature <= SIGNATURE_MAX);
    }
    let Ok(index) = Index::parse(data) else { return };
    assert_eq!(index.canonical(), data, "only canonical octets are taken");
    for file in &index.files {
        assert!(check_path(&file.path).is_ok(), "{}", file.path);
        assert_eq!(
            file.places().map(|(_, _, size)| u64::from(size)).sum::<u64>(),
            file.size,
            "{}",
            file.path
        );
    }
    let missing = index.foreign_blocks();
    assert!(index.base.is_some() || missing.is_empty(), "without a base everything is there");
    assert!(index.stored() >= index.pieces().count() as u64, "no piece is empty");
}
