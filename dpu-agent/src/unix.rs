//! Who is at a socket of the file system (`/proc/net/unix`, proc(5)).

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

/// What `table`, the text of `/proc/net/unix`, says of the socket at `path`.
pub fn uses(table: &str, path: &str) -> Uses {
    let mut uses = Uses::default();
    for line in table.lines().skip(1) {
        // Num: RefCount Protocol Flags Type St Inode Path; the path may have spaces.
        let Some(of) = line.strip_suffix(path).and_then(|rest| rest.strip_suffix(' ')) else { continue };
        let fields: Vec<&str> = of.split_ascii_whitespace().collect();
        let [_, _, _, flags, _, state, _] = fields[..] else { continue };
        let listens = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & LISTENS != 0);
        uses.listens |= listens;
        uses.connected |= !listens && WITH_PEER.contains(&state);
    }
    uses
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
        let of = |path| {
            let Uses { listens, connected } = uses(table, path);
            (listens, connected)
        };
        assert_eq!(of("/run/a.sock"), (true, true));
        assert_eq!(of("/run/b.sock"), (true, false));
        assert_eq!(of("/run/c d.sock"), (false, true));
        assert_eq!(of("d.sock"), (false, false));
        assert_eq!(of("/run/d.sock"), (false, false));
    }
}
