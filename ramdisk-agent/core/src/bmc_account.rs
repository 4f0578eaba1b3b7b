//! An account for Billet on the machine's own management controller, made through its in-band interface (IPMI 2.0,
//! sections 22.22 to 22.30 and 24.6). Whoever is root on the machine may do this; no password of the controller is needed.
//!
//! ```text
//! LAN channel ─▶ may it be reached? ─▶ a slot with our name, else a free one ─▶ name ─▶ password ─▶ rights ─▶ enable ─▶ read back
//! ```
//!
//! A slot that has another name is never touched, nor is one that is fixed. The channel is opened only where that is allowed.

use std::net::Ipv4Addr;

use crate::ipmi::{self, LAN, LAN_ADDRESS};

/// Longest user name (22.28).
pub const USER_MAX: usize = 16;
/// Longest password (22.30).
pub const PASSWORD_MAX: usize = 20;
/// Octets of a password that every controller has.
const PASSWORD_SHORT: usize = 16;

/// Network function of all commands of users and channels: application.
const APP: u8 = 0x06;
const SET_CHANNEL_ACCESS: u8 = 0x40;
const GET_CHANNEL_ACCESS: u8 = 0x41;
const GET_CHANNEL_INFO: u8 = 0x42;
const SET_USER_ACCESS: u8 = 0x43;
const GET_USER_ACCESS: u8 = 0x44;
const SET_USER_NAME: u8 = 0x45;
const GET_USER_NAME: u8 = 0x46;
const SET_USER_PASSWORD: u8 = 0x47;
const SET_PAYLOAD_ACCESS: u8 = 0x4c;

/// Channels that may be a LAN (section 6.3): 0 is IPMB, 0x0c to 0x0f are reserved, "this one" and the system interface.
const CHANNELS: std::ops::RangeInclusive<u8> = 1..=0x0b;
/// Channel medium "802.3 LAN" (section 6.5).
const MEDIUM_LAN: u8 = 4;
/// Access mode "always available" (section 6.6); below it, the channel is closed, or open until the OS starts.
const ALWAYS: u8 = 2;
/// Privilege level "administrator" (section 6.8).
const ADMINISTRATOR: u8 = 4;
/// User 1 is the one without a name (6.9).
const FIRST_SLOT: u8 = 2;
/// Completion code "invalid data field": some controllers say so of a slot that has no name.
const INVALID_FIELD: u8 = 0xcc;
/// Completion code "not present".
const NOT_PRESENT: u8 = 0xcb;

/// Sends network function, command and data, and gives the answer, which begins with the completion code.
pub type Ask<'a, E> = dyn FnMut(u8, u8, &[u8]) -> Result<Vec<u8>, E> + 'a;

/// What is wanted.
#[derive(Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Name, 1 to [`USER_MAX`] octets.
    pub user: String,
    /// Password, 1 to [`PASSWORD_MAX`] octets.
    pub password: String,
    /// The channel may be opened where it is closed.
    pub open_channel: bool,
}

/// An account that was made and read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// User id.
    pub slot: u8,
    /// LAN channel that it is for.
    pub channel: u8,
    /// The controller's address there.
    pub address: Option<Ipv4Addr>,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError<E> {
    /// The command did not come through.
    #[error("the controller does not answer in-band: {0}")]
    Link(E),
    /// The command was refused.
    #[error("the controller refuses to {what} (completion code {code:#04x})")]
    Refused {
        /// Such as `set the password`.
        what: &'static str,
        /// IPMI 2.0, table 5-2.
        code: u8,
    },
    /// Too short for what it should be.
    #[error("the controller's answer makes no sense when asked to {0}")]
    Malformed(&'static str),
    /// Name or password that no controller takes.
    #[error(
        "the user name must have 1 to {USER_MAX} octets, the password 1 to {PASSWORD_MAX}, neither with a zero in it"
    )]
    Unfit,
    /// No LAN interface.
    #[error("the controller has no LAN channel")]
    NoLan,
    /// It is closed, and nobody said that it may be opened.
    #[error(
        "access by LAN is off on channel {channel}: switch it on at the controller, or allow it (`bmc.account_opens_lan`)"
    )]
    Closed {
        /// The channel.
        channel: u8,
    },
    /// All slots have names.
    #[error("all {0} user slots of the controller are taken")]
    Full(u8),
    /// What was set does not show.
    #[error("the controller took the account and does not show it")]
    NotTaken,
}

/// Makes the account, or sets the password of the one that has the name already. `ask` carries the commands.
///
/// # Errors
/// [`AccountError`]; whatever was not touched then is as it was.
pub fn make<E>(wanted: &Wanted, ask: &mut Ask<'_, E>) -> Result<Made, AccountError<E>> {
    let fits = |text: &str, max| (1..=max).contains(&text.len()) && !text.contains('\0');
    if !fits(&wanted.user, USER_MAX) || !fits(&wanted.password, PASSWORD_MAX) {
        return Err(AccountError::Unfit);
    }
    let mut link = Link(ask);
    let channel = link.lan_channel()?;
    link.open(channel, wanted.open_channel)?;
    let slot = link.slot(channel, &wanted.user)?;
    let Slot { number, named } = slot;
    if !named {
        let mut data = vec![number];
        data.extend(padded::<USER_MAX>(&wanted.user));
        link.app(SET_USER_NAME, &data, "set a user name")?;
    }
    link.set_password(number, &wanted.password)?;
    // Change the bits below: messaging by IPMI, on this channel; the limit is the highest level.
    link.app(SET_USER_ACCESS, &[0x90 | channel, number, ADMINISTRATOR], "set the user's rights")?;
    link.app(SET_USER_PASSWORD, &enable(number), "enable the user")?;
    // Serial over LAN (payload type 1) for consoles. Controllers that do not know this command allow it anyway.
    drop(link.answer(APP, SET_PAYLOAD_ACCESS, &[channel, number, 0x02, 0, 0, 0])?);
    link.check(channel, number, &wanted.user)?;
    let address = ipmi::lan_address(&link.answer(LAN.0, LAN.1, &[channel, LAN_ADDRESS, 0, 0])?);
    Ok(Made { slot: number, channel, address })
}

struct Slot {
    number: u8,
    /// It has our name already.
    named: bool,
}

/// Answer to Get User Access.
struct Access {
    slots: u8,
    fixed: u8,
    may_message: bool,
    level: u8,
}

struct Link<'a, E>(&'a mut Ask<'a, E>);

impl<E> Link<'_, E> {
    fn answer(&mut self, netfn: u8, command: u8, data: &[u8]) -> Result<Vec<u8>, AccountError<E>> {
        (self.0)(netfn, command, data).map_err(AccountError::Link)
    }

    /// A command that must succeed; the answer without the completion code.
    fn app(&mut self, command: u8, data: &[u8], what: &'static str) -> Result<Vec<u8>, AccountError<E>> {
        let mut answer = self.answer(APP, command, data)?;
        match answer.first() {
            None => Err(AccountError::Malformed(what)),
            Some(0) => Ok(answer.split_off(1)),
            Some(&code) => Err(AccountError::Refused { what, code }),
        }
    }

    /// The LAN channel, the one with an address where there are several.
    fn lan_channel(&mut self) -> Result<u8, AccountError<E>> {
        let mut first = None;
        for channel in CHANNELS {
            // Channels that are not there are refused.
            let info = self.answer(APP, GET_CHANNEL_INFO, &[channel])?;
            let [0, number, medium, ..] = info[..] else { continue };
            if number & 0x0f != channel || medium & 0x7f != MEDIUM_LAN {
                continue;
            }
            if ipmi::lan_address(&self.answer(LAN.0, LAN.1, &[channel, LAN_ADDRESS, 0, 0])?).is_some() {
                return Ok(channel);
            }
            first = first.or(Some(channel));
        }
        first.ok_or(AccountError::NoLan)
    }

    /// Makes sure that sessions by LAN are possible at all.
    fn open(&mut self, channel: u8, allowed: bool) -> Result<(), AccountError<E>> {
        const WHAT: &str = "tell how the channel may be used";
        // What is in force now; bits 7 and 6 say which setting is meant.
        let access = self.app(GET_CHANNEL_ACCESS, &[channel, 0x80], WHAT)?;
        let [flags, ..] = access[..] else { return Err(AccountError::Malformed(WHAT)) };
        if flags & 0x07 >= ALWAYS {
            return Ok(());
        }
        if !allowed {
            return Err(AccountError::Closed { channel });
        }
        // The flags stay; mode and limit are set for good (01b), then for now (10b).
        for which in [0x40, 0x80] {
            let data = [channel, which | flags & 0x38 | ALWAYS, which | ADMINISTRATOR];
            self.app(SET_CHANNEL_ACCESS, &data, "open the LAN channel")?;
        }
        Ok(())
    }

    fn access(&mut self, channel: u8, slot: u8) -> Result<Access, AccountError<E>> {
        const WHAT: &str = "tell what a user may do";
        let access = self.app(GET_USER_ACCESS, &[channel, slot], WHAT)?;
        let [slots, _, fixed, rights, ..] = access[..] else { return Err(AccountError::Malformed(WHAT)) };
        Ok(Access {
            slots: slots & 0x3f,
            fixed: fixed & 0x3f,
            may_message: rights & 0x10 != 0,
            level: rights & 0x0f,
        })
    }

    /// The name of a slot; empty where it has none.
    fn name(&mut self, slot: u8) -> Result<Vec<u8>, AccountError<E>> {
        const WHAT: &str = "tell a user name";
        let answer = self.answer(APP, GET_USER_NAME, &[slot])?;
        match answer[..] {
            [0, ..] => {
                let name = &answer[1..];
                let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
                Ok(name[..end].to_vec())
            }
            [INVALID_FIELD | NOT_PRESENT, ..] => Ok(Vec::new()),
            [code, ..] => Err(AccountError::Refused { what: WHAT, code }),
            [] => Err(AccountError::Malformed(WHAT)),
        }
    }

    /// The slot that has our name, else the first that has no name, no rights, and is not fixed.
    fn slot(&mut self, channel: u8, user: &str) -> Result<Slot, AccountError<E>> {
        let Access { slots, fixed, .. } = self.access(channel, 1)?;
        let mut free = None;
        for number in FIRST_SLOT..=slots {
            let name = self.name(number)?;
            if name == user.as_bytes() {
                return Ok(Slot { number, named: true });
            }
            if name.is_empty() && free.is_none() && number > fixed {
                // A slot that has no name and yet rights is somebody's.
                free = (!self.access(channel, number)?.may_message).then_some(number);
            }
        }
        free.map(|number| Slot { number, named: false }).ok_or(AccountError::Full(slots))
    }

    fn set_password(&mut self, slot: u8, password: &str) -> Result<(), AccountError<E>> {
        // Operations: 10b sets, 11b compares. Bit 7 of the slot says that there are twenty octets.
        for (operation, what) in [(2, "set the password"), (3, "compare the password")] {
            let data = if password.len() > PASSWORD_SHORT {
                [&[0x80 | slot, operation][..], &padded::<PASSWORD_MAX>(password)].concat()
            } else {
                [&[slot, operation][..], &padded::<PASSWORD_SHORT>(password)].concat()
            };
            self.app(SET_USER_PASSWORD, &data, what)?;
        }
        Ok(())
    }

    /// What was set must show.
    fn check(&mut self, channel: u8, slot: u8, user: &str) -> Result<(), AccountError<E>> {
        let (access, name) = (self.access(channel, slot)?, self.name(slot)?);
        let taken = access.may_message && access.level == ADMINISTRATOR && name == user.as_bytes();
        if taken { Ok(()) } else { Err(AccountError::NotTaken) }
    }
}

/// Set User Password with operation 01b; the password field is there and not looked at.
fn enable(slot: u8) -> Vec<u8> {
    [&[slot, 1][..], &[0; PASSWORD_SHORT]].concat()
}

fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A controller in memory.
    struct Bmc {
        names: [&'static [u8]; 5],
        rights: [u8; 5],
        fixed: u8,
        mode: u8,
        passwords: [Vec<u8>; 5],
        enabled: [bool; 5],
        named: Option<(usize, Vec<u8>)>,
        log: Vec<Vec<u8>>,
        lies: bool,
    }

    fn bmc() -> Bmc {
        Bmc {
            names: [b"", b"", b"root", b"", b""],
            rights: [0x14, 0, 0x34, 0, 0],
            fixed: 1,
            mode: 0x12,
            passwords: Default::default(),
            enabled: [false; 5],
            named: None,
            log: Vec::new(),
            lies: false,
        }
    }

    impl Bmc {
        fn name(&self, slot: usize) -> &[u8] {
            match &self.named {
                Some((at, name)) if *at == slot - 1 => name,
                _ => self.names[slot - 1],
            }
        }

        /// User ids count from 1.
        fn handle(&mut self, netfn: u8, command: u8, data: &[u8]) -> Vec<u8> {
            self.log.push([&[netfn, command], data].concat());
            match (netfn, command, data) {
                (0x0c, 2, [8, 3, ..]) => vec![0, 0x11, 10, 0, 0, 9],
                (0x06, 0x42, [8]) => vec![0, 8, 4, 1, 0x80, 0xf2, 0x1b, 0, 0, 0],
                (0x06, 0x42, [7]) => vec![0, 7, 5, 1, 0, 0xf2, 0x1b, 0, 0, 0],
                (0x06, 0x41, [8, 0x80]) => vec![0, self.mode, 4],
                (0x06, 0x40, [8, mode, _]) => {
                    self.mode = mode & 0x3f;
                    vec![0]
                }
                (0x06, 0x44, [8, slot]) => {
                    vec![0, 5, 2, 0x40 | self.fixed, self.rights[usize::from(*slot) - 1]]
                }
                (0x06, 0x46, [slot]) => match self.name(usize::from(*slot)) {
                    b"" if *slot == 5 => vec![0xcc],
                    name => [&[0], name, &vec![0; 16 - name.len()]].concat(),
                },
                (0x06, 0x45, [slot, name @ ..]) => {
                    assert_eq!(name.len(), 16);
                    let end = name.iter().position(|b| *b == 0).unwrap();
                    self.named = Some((usize::from(*slot) - 1, name[..end].to_vec()));
                    vec![0]
                }
                (0x06, 0x47, [slot, operation, password @ ..]) => {
                    let at = usize::from(slot & 0x3f) - 1;
                    assert_eq!(password.len(), if slot & 0x80 == 0 { 16 } else { 20 });
                    match operation {
                        1 => self.enabled[at] = true,
                        2 => self.passwords[at] = password.to_vec(),
                        3 if self.passwords[at] == password => {}
                        _ => return vec![0x80],
                    }
                    vec![0]
                }
                (0x06, 0x43, [channel, slot, level]) => {
                    if !self.lies {
                        self.rights[usize::from(*slot) - 1] = (channel & 0x70) | level;
                    }
                    vec![0]
                }
                _ => vec![0xc1],
            }
        }

        fn make(&mut self, wanted: &Wanted) -> Result<Made, AccountError<()>> {
            make(wanted, &mut |netfn, command, data| Ok(self.handle(netfn, command, data)))
        }
    }

    fn wanted() -> Wanted {
        Wanted { user: "billet".into(), password: "0123456789abcdef".into(), open_channel: false }
    }

    #[test]
    fn a_free_slot_gets_name_password_and_rights() {
        let mut bmc = bmc();
        let made = bmc.make(&wanted()).unwrap();
        assert_eq!(made, Made { slot: 2, channel: 8, address: Some(Ipv4Addr::new(10, 0, 0, 9)) });
        assert_eq!((bmc.rights[1], bmc.enabled[1]), (0x14, true));
        assert_eq!(bmc.rights[2], 0x34, "root is as it was");
        let changes: Vec<_> = bmc.log.iter().filter(|c| matches!(c[1], 0x43 | 0x45 | 0x47)).collect();
        // Octets as in sections 22.28, 22.30 and 22.26.
        assert_eq!(changes[0][..], [&[6, 0x45, 2][..], b"billet", &[0; 10]].concat());
        assert_eq!(changes[1][..], [&[6, 0x47, 2, 2][..], b"0123456789abcdef"].concat());
        assert_eq!(changes[2][..], [&[6, 0x47, 2, 3][..], b"0123456789abcdef"].concat());
        assert_eq!(changes[3][..], [6, 0x43, 0x98, 2, 4]);
        assert_eq!(changes[4][..], [&[6, 0x47, 2, 1][..], &[0; 16]].concat());
        // Again, as after a crash: the same slot, and the name is not set anew.
        bmc.log.clear();
        let again = bmc.make(&Wanted { password: "0123456789abcdefghij".into(), ..wanted() }).unwrap();
        assert_eq!(again.slot, 2);
        assert!(!bmc.log.iter().any(|c| c[1] == 0x45));
        assert_eq!(bmc.passwords[1], b"0123456789abcdefghij");
        assert!(bmc.log.iter().any(|c| c.starts_with(&[6, 0x47, 0x82, 2])), "twenty octets");
    }

    #[test]
    fn what_has_a_name_or_rights_or_is_fixed_is_not_touched() {
        let mut taken = bmc();
        taken.names = [b"", b"ADMIN", b"root", b"operator", b"x"];
        assert_eq!(taken.make(&wanted()), Err(AccountError::Full(5)));
        assert!(!taken.log.iter().any(|c| matches!(c[1], 0x43 | 0x45 | 0x47)));
        let mut nameless = bmc();
        nameless.rights[1] = 0x14;
        assert_eq!(nameless.make(&wanted()).unwrap().slot, 4);
        let mut fixed = bmc();
        fixed.fixed = 4;
        assert_eq!(fixed.make(&wanted()).unwrap().slot, 5, "a refused name is none");
    }

    #[test]
    fn a_closed_channel_is_opened_only_where_that_is_allowed() {
        let mut closed = bmc();
        closed.mode = 0x20;
        assert_eq!(closed.make(&wanted()), Err(AccountError::Closed { channel: 8 }));
        assert!(!closed.log.iter().any(|c| matches!(c[1], 0x40 | 0x43 | 0x45 | 0x47)));
        closed.make(&Wanted { open_channel: true, ..wanted() }).unwrap();
        let opened: Vec<_> = closed.log.iter().filter(|c| c[1] == 0x40).collect();
        assert_eq!(opened[0][2..], [8, 0x62, 0x44], "for good, and the flags stay");
        assert_eq!(opened[1][2..], [8, 0xa2, 0x84], "for now");
    }

    #[test]
    fn what_does_not_show_is_no_success() {
        let mut lies = Bmc { lies: true, ..bmc() };
        assert_eq!(lies.make(&wanted()), Err(AccountError::NotTaken));
        let none = make(&wanted(), &mut |_, _, _| Ok::<_, ()>(vec![0xc1]));
        assert_eq!(none, Err(AccountError::NoLan));
        let silent = make(&wanted(), &mut |_, _, _| Err("silence"));
        assert_eq!(silent, Err(AccountError::Link("silence")));
        for (user, password) in
            [("", "x"), ("x", ""), ("a name of seventeen", "x"), ("x", "012345678901234567890")]
        {
            let unfit = Wanted { user: user.into(), password: password.into(), open_channel: true };
            assert_eq!(bmc().make(&unfit), Err(AccountError::Unfit));
        }
    }
}
