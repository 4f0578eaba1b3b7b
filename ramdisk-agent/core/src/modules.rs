//! Which kernel modules a device needs: `modules.alias` and `modules.dep` as text (kmod's formats), and the order to
//! load them in. A small modprobe without configuration, blacklists or options.

use std::collections::{BTreeMap, BTreeSet};

/// The two index files, parsed.
#[derive(Debug, Default)]
pub struct Modules {
    aliases: Vec<(String, String)>,
    files: BTreeMap<String, (String, Vec<String>)>,
}

impl Modules {
    /// Parses the texts of `modules.dep` and `modules.alias`; lines of another shape are skipped.
    pub fn parse(dep: &str, alias: &str) -> Self {
        let aliases = alias
            .lines()
            .filter_map(|l| {
                let mut words = l.strip_prefix("alias ")?.split_ascii_whitespace();
                Some((words.next()?.to_owned(), canonical(words.next()?)))
            })
            .collect();
        let files = dep
            .lines()
            .filter_map(|l| {
                let (file, needs) = l.split_once(':')?;
                let needs = needs.split_ascii_whitespace().map(name_of).collect();
                Some((name_of(file), (file.trim().to_owned(), needs)))
            })
            .collect();
        Self { aliases, files }
    }

    /// Modules whose alias matches `modalias`.
    pub fn matching(&self, modalias: &str) -> BTreeSet<&str> {
        self.aliases
            .iter()
            .filter(|(p, _)| glob(p.as_bytes(), modalias.as_bytes()))
            .map(|(_, m)| m.as_str())
            .collect()
    }

    /// Files to load for `module`, what it needs first; empty where it is not there (built in, or not packed).
    /// `modules.dep` lists all dependencies of a module, nearest first.
    pub fn load_order(&self, module: &str) -> Vec<&str> {
        let Some((file, needs)) = self.files.get(&canonical(module)) else { return Vec::new() };
        let needed = needs.iter().rev().filter_map(|n| self.files.get(n)).map(|(f, _)| f.as_str());
        needed.chain([file.as_str()]).collect()
    }
}

/// `kernel/net/foo-bar.ko.xz` is `foo_bar`.
fn name_of(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or_default();
    canonical(file.split('.').next().unwrap_or_default())
}

/// The kernel treats `-` and `_` in module names as one.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// fnmatch(3) without flags, as far as aliases use it: `*`, `?`, `[a-z]`. Linear in memory, at most quadratic in time.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match one(&pattern[p..], text[t]) {
            Some(width) => (p, t) = (p + width, t + 1),
            None if pattern.get(p) == Some(&b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            None => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Length of the pattern element that matches `byte`; `None` for a star or a mismatch.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'*' => None,
        b'?' => Some(1),
        b'[' => {
            let end = pattern.iter().position(|b| *b == b']')?;
            let set = &pattern[1..end];
            let ranges = set.windows(3).any(|w| w[1] == b'-' && (w[0]..=w[2]).contains(&byte));
            (ranges || (byte != b'-' && set.contains(&byte))).then_some(end + 1)
        }
        b => (b == byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_and_orders() {
        let m = Modules::parse(
            "kernel/drivers/net/virtio_net.ko: kernel/net/core/failover.ko kernel/drivers/virtio/virtio-ring.ko\n\
             kernel/net/core/failover.ko:\nkernel/drivers/virtio/virtio-ring.ko:\nbroken line\n",
            "# Aliases\nalias virtio:d00000001v* virtio_net\nalias pci:v00008086d*sv*sd*bc*sc*i[0-3]* e1000e\n",
        );
        assert_eq!(m.matching("virtio:d00000001v00001AF4"), BTreeSet::from(["virtio_net"]));
        assert!(m.matching("virtio:d00000002v00001AF4").is_empty());
        assert_eq!(m.matching("pci:v00008086d1sv2sd3bc4sc5i2x"), BTreeSet::from(["e1000e"]));
        assert!(m.matching("pci:v00008086d1sv2sd3bc4sc5i7x").is_empty());
        assert_eq!(
            m.load_order("virtio-net"),
            [
                "kernel/drivers/virtio/virtio-ring.ko",
                "kernel/net/core/failover.ko",
                "kernel/drivers/net/virtio_net.ko"
            ]
        );
        assert!(m.load_order("ext4").is_empty());
    }

    proptest! {
        #[test]
        fn glob_agrees_with_a_plain_one(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            fn plain(p: &[u8], t: &[u8]) -> bool {
                match (p.first(), t.first()) {
                    (None, None) => true,
                    (Some(b'*'), _) => plain(&p[1..], t) || (!t.is_empty() && plain(p, &t[1..])),
                    (Some(b'?'), Some(_)) => plain(&p[1..], &t[1..]),
                    (Some(a), Some(b)) if a == b => plain(&p[1..], &t[1..]),
                    _ => false,
                }
            }
            prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), plain(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_text_panics(dep in ".{0,60}", alias in "alias .{0,40}", what in ".{0,20}") {
            let m = Modules::parse(&dep, &alias);
            let _ = (m.matching(&what), m.load_order(&what));
        }
    }
}
