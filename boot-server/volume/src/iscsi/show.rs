//! What `tgtadm --op show` prints (tgt 1.0.85, `usr/target.c` and `usr/iscsi/`). It is text for people; what is not understood is left out.

/// A target as tgtd has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Target {
    /// Number.
    pub tid: u32,
    /// Name.
    pub name: String,
    /// Initiators that are connected.
    pub connected: Vec<String>,
    /// Files of logical units; the controller has none.
    pub paths: Vec<String>,
    /// Accounts that are bound.
    pub users: Vec<String>,
    /// Initiators that are let in.
    pub initiators: Vec<String>,
}

/// Part of what is shown of a target.
#[derive(Clone, Copy)]
enum Part {
    Other,
    Nexus,
    Units,
    Accounts,
    Acl,
}

/// From `--mode target`.
pub(crate) fn targets(text: &str) -> Vec<Target> {
    let mut all: Vec<Target> = Vec::new();
    let mut part = Part::Other;
    for line in text.lines() {
        if let Some((tid, name)) = line.strip_prefix("Target ").and_then(|rest| rest.split_once(": ")) {
            if let Ok(tid) = tid.parse() {
                all.push(Target { tid, name: name.trim().to_owned(), ..Target::default() });
                part = Part::Other;
            }
            continue;
        }
        let (Some(target), line) = (all.last_mut(), line.trim()) else { continue };
        match line {
            "I_T nexus information:" => part = Part::Nexus,
            "LUN information:" => part = Part::Units,
            "Account information:" => part = Part::Accounts,
            "ACL information:" => part = Part::Acl,
            _ => part.take(line, target),
        }
    }
    all
}

impl Part {
    fn take(self, line: &str, target: &mut Target) {
        match self {
            Self::Other => {}
            Self::Nexus => {
                // `Initiator: iqn.… alias: none`
                let name = line.strip_prefix("Initiator: ").and_then(|rest| rest.split(' ').next());
                target.connected.extend(name.map(str::to_owned));
            }
            Self::Units => {
                let path = line.strip_prefix("Backing store path: ").filter(|path| *path != "None");
                target.paths.extend(path.map(str::to_owned));
            }
            Self::Accounts => target.users.extend(line.split(' ').next().map(str::to_owned)),
            Self::Acl => target.initiators.push(line.to_owned()),
        }
    }
}

/// Smallest number that no target has; they begin at 1.
pub(crate) fn free_tid(targets: &[Target]) -> u32 {
    (1..).find(|tid| targets.iter().all(|t| t.tid != *tid)).unwrap_or(1)
}

/// From `--mode conn`: sessions and connections.
pub(crate) fn connections(text: &str) -> Vec<(u64, u64)> {
    let mut session = None;
    let mut all = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(number) = line.strip_prefix("Session: ") {
            session = number.parse().ok();
        } else if let (Some(number), Some(session)) = (line.strip_prefix("Connection: "), session) {
            all.extend(number.parse().ok().map(|connection| (session, connection)));
        }
    }
    all
}

/// From `--mode portal`, without the group.
pub(crate) fn portals(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim().strip_prefix("Portal: ")?.rsplit_once(',').map(|(p, _)| p))
}

/// From `--mode account`: names.
pub(crate) fn accounts(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with(' ')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "\
Target 1: iqn.2026-11.org.billet:a
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
        I_T nexus: 1
            Initiator: iqn.x:dpu1 alias: none
            Connection: 0
                IP Address: 10.77.0.1
    LUN information:
        LUN: 0
            Type: controller
            Backing store path: None
        LUN: 1
            Type: disk
            Backing store type: rdwr
            Backing store path: /tmp/vt/a b.raw
            Backing store flags: 
    Account information:
        u1
    ACL information:
        iqn.x:dpu1
Target 3: other
    System information:
        Driver: iscsi
";

    #[test]
    fn targets_as_tgtadm_shows_them() {
        let found = targets(SHOWN);
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0],
            Target {
                tid: 1,
                name: "iqn.2026-11.org.billet:a".into(),
                connected: vec!["iqn.x:dpu1".into()],
                paths: vec!["/tmp/vt/a b.raw".into()],
                users: vec!["u1".into()],
                initiators: vec!["iqn.x:dpu1".into()],
            }
        );
        assert_eq!((found[1].tid, found[1].name.as_str()), (3, "other"));
        assert_eq!(free_tid(&found), 2);
        assert_eq!(free_tid(&[]), 1);
        assert_eq!(targets("nothing\n  known"), []);
    }

    #[test]
    fn connections_portals_and_accounts() {
        let text = "Session: 7\n    Connection: 0\n        Initiator: iqn.x\n    Connection: 1\nSession: x\n Connection: 2\n";
        assert_eq!(connections(text), [(7, 0), (7, 1)]);
        let text = "Portal: 10.77.0.1:3260,1\nPortal: [::1]:3260,1\n";
        assert_eq!(portals(text).collect::<Vec<_>>(), ["10.77.0.1:3260", "[::1]:3260"]);
        assert_eq!(accounts("Account list:\n    u1\n    u2\n").collect::<Vec<_>>(), ["u1", "u2"]);
    }
}
