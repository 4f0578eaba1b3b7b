//! Options as they lie in a packet (RFC 8415 section 21.1): code, length, data. Read one by one, for the owned decoder of
//! `dhcproto` gives up at the first option it dislikes; in the tests it is the other opinion on what is written here.

/// Codes of options (IANA "DHCPv6 Option Codes").
pub(crate) mod code {
    pub const CLIENT_ID: u16 = 1;
    pub const SERVER_ID: u16 = 2;
    pub const IA_NA: u16 = 3;
    pub const IA_TA: u16 = 4;
    pub const IA_ADDRESS: u16 = 5;
    pub const REQUESTED: u16 = 6;
    pub const PREFERENCE: u16 = 7;
    pub const RELAY_MESSAGE: u16 = 9;
    pub const STATUS: u16 = 13;
    pub const RAPID_COMMIT: u16 = 14;
    pub const USER_CLASS: u16 = 15;
    pub const VENDOR_CLASS: u16 = 16;
    pub const INTERFACE_ID: u16 = 18;
    pub const DNS: u16 = 23;
    pub const IA_PD: u16 = 25;
    pub const BOOT_FILE_URL: u16 = 59;
    pub const ARCHITECTURE: u16 = 61;
    pub const CLIENT_LINK_LAYER: u16 = 79;
}

/// The options in `rest`, up to the first that is longer than what is left.
pub(crate) struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.rest.split_first_chunk::<4>()?;
        let [a, b, c, d] = *head;
        let (data, rest) = rest.split_at_checked(u16::from_be_bytes([c, d]).into())?;
        self.rest = rest;
        Some((u16::from_be_bytes([a, b]), data))
    }
}

/// The items of a user or vendor class, each after its length; up to the first that is cut off.
pub(crate) fn class_items(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let (item, after) = after.split_at_checked(u16::from_be_bytes(*len).into())?;
        rest = after;
        Some(item)
    })
}

/// Appends an option. Data that no option can hold is left out with it; nothing that we write is so long.
pub(crate) fn put(out: &mut Vec<u8>, code: u16, data: &[u8]) {
    if let Ok(len) = u16::try_from(data.len()) {
        out.extend(code.to_be_bytes());
        out.extend(len.to_be_bytes());
        out.extend(data);
    }
}
