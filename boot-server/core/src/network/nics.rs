//! Which of its machine's NICs each port of a server is.

use protocol::MacAddr;

/// A port of a server, as it was plugged in last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// On Ethernet.
    pub mac: MacAddr,
    /// It is plugged in on this machine.
    pub here: bool,
    /// Number of the NIC that it was, here or on the machine before.
    pub nic: Option<u16>,
}

/// The NIC that a port is best.
type Wish<'a> = &'a dyn Fn(&Seat) -> Option<usize>;

/// The NIC of each port, by its number in `macs`; none where no NIC is left. A port that is plugged in here stays where it is, whatever
/// comes or goes beside it; one that comes from another machine is the NIC of the same number, where that is free.
pub fn seats(ports: &[Seat], macs: &[MacAddr]) -> Vec<Option<usize>> {
    let mut seats = vec![None; ports.len()];
    let mut free: Vec<bool> = vec![true; macs.len()];
    let stays = |port: &Seat| macs.iter().position(|mac| port.here && *mac == port.mac);
    let had = |port: &Seat| port.nic.map(usize::from);
    let wishes: [Wish<'_>; 2] = [&stays, &had];
    for wish in wishes {
        for (seat, port) in seats.iter_mut().zip(ports) {
            let found = wish(port).filter(|n| seat.is_none() && free.get(*n) == Some(&true));
            if let Some(n) = found {
                (*seat, free[n]) = (Some(n), false);
            }
        }
    }
    let mut left = (0..macs.len()).filter(|n| free[*n]);
    for seat in seats.iter_mut().filter(|seat| seat.is_none()) {
        *seat = left.next();
    }
    seats
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, n])
    }

    fn new() -> Seat {
        Seat { mac: mac(99), here: false, nic: None }
    }

    fn here(n: u8) -> Seat {
        Seat { mac: mac(n), here: true, nic: None }
    }

    #[test]
    fn ports_stay_where_they_are() {
        let macs = [mac(0), mac(1), mac(2)];
        assert_eq!(seats(&[new(), new()], &macs), [Some(0), Some(1)]);
        assert_eq!(seats(&[here(1)], &macs), [Some(1)], "the one before it was detached");
        assert_eq!(seats(&[new(), here(0), here(2)], &macs), [Some(1), Some(0), Some(2)]);
        let turned = [mac(2), mac(1), mac(0)];
        assert_eq!(seats(&[here(0), here(2)], &turned), [Some(2), Some(0)], "told in another order");
    }

    #[test]
    fn on_another_machine_each_is_the_nic_of_the_same_number() {
        let moved = |nic| Seat { mac: mac(nic as u8), here: false, nic: Some(nic) };
        let macs = [mac(7), mac(8)];
        assert_eq!(seats(&[moved(1), moved(0)], &macs), [Some(1), Some(0)]);
        assert_eq!(seats(&[moved(5), moved(0)], &macs), [Some(1), Some(0)], "it has fewer");
        assert_eq!(seats(&[moved(1), moved(1)], &macs), [Some(1), Some(0)]);
    }

    #[test]
    fn more_ports_than_nics() {
        assert_eq!(seats(&[new(), here(0), new()], &[mac(0), mac(1)]), [Some(1), Some(0), None]);
        assert_eq!(seats(&[new()], &[]), [None]);
    }
}
