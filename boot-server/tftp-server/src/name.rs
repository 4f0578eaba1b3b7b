//! File names as clients write them, brought to one form.

use crate::limits::NAME_MAX;

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing is left of it.
    #[error("empty file name")]
    Empty,
    /// It has a `..` component.
    #[error("file name leaves what is served")]
    Climbs,
    /// It has control characters.
    #[error("file name with control characters")]
    Control,
    /// It is longer than [`NAME_MAX`].
    #[error("file name too long")]
    Long,
}

/// Brings a name to the form `a/b/c`: backslashes (Windows and WDS loaders) count as slashes; leading and doubled
/// slashes (shim asks for `/sb//grubx64.efi`) and `.` components vanish; `..` is refused.
///
/// # Errors
/// [`BadName`] where the name cannot name a file that is served.
pub fn normalise(name: &str) -> Result<String, BadName> {
    if name.len() > NAME_MAX {
        return Err(BadName::Long);
    }
    if name.chars().any(char::is_control) {
        return Err(BadName::Control);
    }
    let mut out = String::with_capacity(name.len());
    for part in name.split(['/', '\\']).filter(|p| !p.is_empty() && *p != ".") {
        if part == ".." {
            return Err(BadName::Climbs);
        }
        if !out.is_empty() {
            out.push('/');
        }
        out.push_str(part);
    }
    if out.is_empty() { Err(BadName::Empty) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        for (name, expected) in [
            ("snponly.efi", Ok("snponly.efi")),
            ("/snponly.efi", Ok("snponly.efi")),
            ("//sb//./grubx64.efi", Ok("sb/grubx64.efi")),
            ("\\boot\\x64\\wdsnbp.com", Ok("boot/x64/wdsnbp.com")),
            ("..hidden", Ok("..hidden")),
            ("../etc/passwd", Err(BadName::Climbs)),
            ("a/..\\../etc/passwd", Err(BadName::Climbs)),
            ("", Err(BadName::Empty)),
            ("/./", Err(BadName::Empty)),
            ("a\nb", Err(BadName::Control)),
        ] {
            assert_eq!(normalise(name).as_deref(), expected.as_ref().map(|s| *s), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn never_climbs(name in r"[./\\a]{0,40}") {
            if let Ok(out) = normalise(&name) {
                prop_assert!(!out.starts_with('/') && !out.contains("//") && !out.contains('\\'));
                prop_assert!(out.split('/').all(|p| p != ".." && p != "."));
                let again = normalise(&out);
                prop_assert_eq!(again, Ok(out));
            }
        }
    }
}
