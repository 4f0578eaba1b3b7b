//! Who is at a socket of the file system (`/proc/net/unix`, proc(5)).

use std::collections::BTreeMap;

/// The table. Of our own network namespace, which is the one of all that we start.
pub const TABLE: &str = "/proc/net/unix";
/// Flag of a socket that listens (`__SO_ACCEPTCON`).
const LISTENS: u32 = 1 << 16;
/// States of a socket with a peer: taken by the listener already, or not yet (`SS_CONNECTED`, `SS_CONNECTING`).
const WITH_PEER: [&str; 2] = ["03", "02"];

/// What a socket is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uses {
    /// Somebody listens.
    pub listens: bool,
    /// Somebody is connected.
    pub connected: bool,
}

/// What `table`, the text of `/proc/net/unix`, says of each socket that has a path.
pub fn sockets(table: &str) -> BTreeMap<&str, Uses> {
    let mut sockets: BTreeMap<&str, Uses> = BTreeMap::new();
    for (path, flags, state) in table.lines().skip(1).filter_map(socket) {
        let uses = sockets.entry(path).or_default();
        let listens = flags & LISTENS != 0;
        uses.listens |= listens;
        uses.connected |= !listens && WITH_PEER.contains(&state);
    }
    sockets
}

/// Path, flags and state of a line: `Num: RefCount Protocol Flags Type St Inode Path`. The path may have spaces.
fn socket(line: &str) -> Option<(&str, u32, &str)> {
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest.trim_start().split_once(' ')?;
        rest = after;
        Some(field)
    };
    let [_, _, _, flags, _, state, _] =
        [field()?, field()?, field()?, field()?, field()?, field()?, field()?];
    Some((rest, u32::from_str_radix(flags, 16).ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_the_kernel() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 14713 /run/a.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 14714 /run/a.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 14715 /run/b.sock\n\
            0000000000000000: 00000002 00000000 00000000 0001 02 14716 /run/c d.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 14717\n";
        let sockets = sockets(table);
        let of = |path| {
            let Uses { listens, connected } = sockets.get(path).copied().unwrap_or_default();
            (listens, connected)
        };
        assert_eq!(of("/run/a.sock"), (true, true));
        assert_eq!(of("/run/b.sock"), (true, false));
        assert_eq!(of("/run/c d.sock"), (false, true));
        assert_eq!(of("d.sock"), (false, false));
        assert_eq!(of("/run/d.sock"), (false, false));
    }
}
