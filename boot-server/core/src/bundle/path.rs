//! Names of files in a bundle: few characters, few levels, known beginnings. What is not a name leads nowhere.

/// What a path begins with: what the file is for.
const KINDS: [&str; 7] = ["bin", "boot", "docs", "licences", "loaders", "quirks", "sbom"];
/// Longest path in octets.
const PATH_MAX: usize = 160;
/// Most parts.
const PARTS_MAX: usize = 5;

/// Why a path is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Too long, or too many levels.
    #[error("it has more than {PATH_MAX} characters or {PARTS_MAX} parts, or only one")]
    Long,
    /// A part that is none.
    #[error(
        "a part is empty, begins with `.` or `-`, or has other characters than A-Z, a-z, 0-9, `.`, `-`, `_`, `+`"
    )]
    Part,
    /// Not known.
    #[error("it does not begin with one of bin, boot, docs, licences, loaders, quirks, sbom")]
    Kind,
}

/// Checks a path.
///
/// # Errors
/// [`PathError`].
pub fn check(path: &str) -> Result<(), PathError> {
    let parts = path.split('/').count();
    if path.len() > PATH_MAX || !(2..=PARTS_MAX).contains(&parts) {
        return Err(PathError::Long);
    }
    let fits = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
        !part.is_empty() && !part.starts_with(['.', '-']) && part.bytes().all(allowed)
    };
    if !path.split('/').all(fits) {
        return Err(PathError::Part);
    }
    let kind = path.split('/').next().unwrap_or_default();
    if KINDS.contains(&kind) { Ok(()) } else { Err(PathError::Kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_below_known_places() {
        for good in ["boot/vmlinuz", "boot/arm64/initramfs.zst", "bin/x86_64/billet", "docs/guide/a_b+c.md"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/",
            "boot",
            "/boot/vmlinuz",
            "boot/",
            "boot//vmlinuz",
            "boot/../vmlinuz",
            "boot/./x",
            "../boot/x",
            "boot/.hidden",
            "boot/-rf",
            "boot/a b",
            "boot/a\0",
            "boot/a\\b",
            "boot/ä",
            "boot/a\n",
            "etc/passwd",
            "boot/a/b/c/d/e",
            "Boot/x",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check(&format!("boot/{}", "a".repeat(155))), Ok(()));
        assert_eq!(check(&format!("boot/{}", "a".repeat(156))), Err(PathError::Long));
    }
}
