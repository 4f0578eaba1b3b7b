//! The one command that is given to a TPM when a machine goes to another tenant (TPM 2.0 Library, part 3, 24.6).

/// TPM2_Clear under the lockout hierarchy with an empty password: storage keys, NV indices of the owner and authorisations go; the
/// endorsement seed, by which the machine is known, stays.
pub const CLEAR: [u8; 27] = [
    0x80, 0x02, // TPM_ST_SESSIONS
    0, 0, 0, 27, // length
    0, 0, 0x01, 0x26, // TPM_CC_Clear
    0x40, 0, 0, 0x0a, // TPM_RH_LOCKOUT
    0, 0, 0, 9, // length of the session
    0x40, 0, 0, 0x09, // TPM_RS_PW
    0, 0, // no nonce
    0, // attributes
    0, 0, // no password
];

/// The response code of an answer; `None` where it is none.
pub fn code(answer: &[u8]) -> Option<u32> {
    let code = answer.get(6..10)?;
    Some(u32::from_be_bytes([code[0], code[1], code[2], code[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        assert_eq!(CLEAR.len(), usize::from(CLEAR[5]));
        assert_eq!(code(&[0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0xa2]), Some(0x9a2));
        assert_eq!(code(&[0x80, 2, 0, 0, 0, 10, 0, 0, 0]), None);
    }
}
