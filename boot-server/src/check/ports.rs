//! Who has the ports that we need: `/proc/net/{udp,udp6,tcp,tcp6}` for the sockets, `/proc/PID/fd` for their owners.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use boot_server_core::check::{Port, Taken};

/// State of a listening TCP socket (include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// The ports that others have, on our address or on all.
pub fn taken(ports: &[Port], address: Option<Ipv4Addr>) -> Vec<Taken> {
    let mut found = Vec::new();
    for port in ports {
        for table in [port.protocol.to_owned(), format!("{}6", port.protocol)] {
            let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
            found.extend(
                sockets(&text, port.protocol, port.number, address).into_iter().map(|inode| (*port, inode)),
            );
        }
    }
    if found.is_empty() {
        return Vec::new();
    }
    let owners = owners();
    let mut taken: Vec<Taken> = Vec::new();
    for (port, inode) in found {
        let by = owners
            .get(&inode)
            .cloned()
            .unwrap_or_else(|| "another program (in another container?)".to_owned());
        let one = Taken { port, by };
        if !taken.contains(&one) {
            taken.push(one);
        }
    }
    taken
}

/// Inodes of the sockets in a table that hold `port` of `address`, or of every address.
fn sockets(table: &str, protocol: &str, port: u16, address: Option<Ipv4Addr>) -> Vec<u64> {
    table.lines().skip(1).filter_map(|line| socket(line, protocol, port, address)).collect()
}

fn socket(line: &str, protocol: &str, port: u16, address: Option<Ipv4Addr>) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, number) = fields.get(1)?.split_once(':')?;
    if u16::from_str_radix(number, 16).ok()? != port || (protocol == "tcp" && fields.get(3) != Some(&LISTEN))
    {
        return None;
    }
    let local = parse_address(local)?;
    let ours = local.is_unspecified() || address.is_some_and(|address| local == IpAddr::V4(address));
    ours.then(|| fields.get(9)?.parse().ok())?
}

/// Addresses stand as words of 32 bits in the order of the host's octets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |n: usize| u32::from_str_radix(text.get(8 * n..8 * n + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(IpAddr::V4(word(0)?.into())),
        32 => {
            let words: Vec<u8> = (0..4).filter_map(word).flatten().collect();
            Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?)))
        }
        _ => None,
    }
}

/// `name (pid n)` for each socket's inode.
fn owners() -> BTreeMap<u64, String> {
    let mut owners = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        for fd in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(fd.path()) else { continue };
            let inode =
                target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                owners.entry(inode).or_insert_with(|| format!("{} (pid {pid})", name.trim()));
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_on_our_address_or_on_all() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            1: 00000000:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 101 2 0 0\n\
            2: 0100007F:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 102 2 0 0\n\
            3: 01004D0A:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 103 2 0 0\n\
            4: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 104 2 0 0\n";
        assert_eq!(sockets(table, "udp", 69, Some(Ipv4Addr::new(10, 77, 0, 1))), [101, 103]);
        let tcp = "head\n\
            0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 105 1\n\
            1: 01004D0A:1F90 02004D0A:ABCD 01 0:0 00:0 0 0 0 106 1\n";
        assert_eq!(
            sockets(tcp, "tcp", 8080, Some(Ipv4Addr::new(10, 77, 0, 1))),
            [105],
            "a connection holds no port"
        );
    }
}
