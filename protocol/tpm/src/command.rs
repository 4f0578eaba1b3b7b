//! Commands to a TPM (part 3), each one request and one answer. What carries them (a device, a socket) is the caller's.

use std::io;

use crate::public::{ALG_ECDSA, ALG_NULL, ALG_SHA256, Template};
use crate::wire::{Reader, WireError, Writer};
use crate::{CERTIFICATE_MAX, PCRS, SHA256};

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
const RH_NULL: u32 = 0x4000_0007;
const RS_PASSWORD: u32 = 0x4000_0009;
const RH_ENDORSEMENT: u32 = 0x4000_000b;
const CC_CREATE_PRIMARY: u32 = 0x131;
const CC_ACTIVATE_CREDENTIAL: u32 = 0x147;
const CC_NV_READ: u32 = 0x14e;
const CC_POLICY_SECRET: u32 = 0x151;
const CC_QUOTE: u32 = 0x158;
const CC_FLUSH_CONTEXT: u32 = 0x165;
const CC_NV_READ_PUBLIC: u32 = 0x169;
const CC_START_AUTH_SESSION: u32 = 0x176;
const CC_PCR_READ: u32 = 0x17e;
const CC_PCR_EXTEND: u32 = 0x182;
/// Where certificates of endorsement keys lie (EK Credential Profile 2.5, 2.2.1.4).
const NV_EK_RSA: u32 = 0x01c0_0002;
const NV_EK_ECC: u32 = 0x01c0_000a;
/// Octets that are read from non-volatile memory at once; every TPM gives so many.
const NV_AT_ONCE: u16 = 512;
/// Longest answer of a TPM.
pub const ANSWER_MAX: usize = 4096;
/// Times that a command is sent again which the TPM wants so, as while it tests itself.
const RETRIES: usize = 50;
/// `TPM_RC_YIELDED`, `TPM_RC_TESTING` and `TPM_RC_RETRY`: nothing was done, and the same command may be sent again.
const RC_AGAIN: [u32; 3] = [0x908, 0x90a, 0x922];

/// Carries a command to a TPM and its answer back.
pub trait Transport {
    /// # Errors
    /// Where the TPM cannot be reached.
    fn transact(&mut self, command: &[u8]) -> io::Result<Vec<u8>>;
}

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// It could not be sent, or nothing came back.
    #[error("the TPM cannot be reached")]
    Io(#[from] io::Error),
    /// The answer is none.
    #[error("the TPM's answer cannot be read: {0}")]
    Answer(#[from] WireError),
    /// The TPM refuses.
    #[error("the TPM refuses command {command:#x} with code {code:#x}")]
    Refused {
        /// Command code.
        command: u32,
        /// Response code (part 2, 6.6).
        code: u32,
    },
}

/// A key that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    handle: u32,
    /// Its public area.
    pub public: Vec<u8>,
}

/// What a quote says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// `r` and `s` of ECDSA, one after the other, 32 octets each.
    pub signature: Vec<u8>,
}

/// The endorsement key of a TPM and its certificate, where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endorsement {
    /// The key.
    pub key: Loaded,
    /// DER.
    pub certificate: Option<Vec<u8>>,
}

/// A TPM.
#[derive(Debug)]
pub struct Tpm<T>(pub T);

impl<T: Transport> Tpm<T> {
    /// Makes the endorsement key, the same each time: that which the TPM has a certificate for, ECC before RSA; ECC where
    /// there is none for either.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn endorsement(&mut self) -> Result<Endorsement, TpmError> {
        let mut template = Template::EkEcc;
        let mut certificate = self.certificate(NV_EK_ECC)?;
        if certificate.is_none() {
            certificate = self.certificate(NV_EK_RSA)?;
            template = if certificate.is_some() { Template::EkRsa } else { Template::EkEcc };
        }
        Ok(Endorsement { key: self.create_primary(template)?, certificate })
    }

    /// Makes a key of the endorsement hierarchy: of one template the same each time.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn create_primary(&mut self, template: Template) -> Result<Loaded, TpmError> {
        // No authorization value, no data, no outside information, no PCRs.
        let sensitive = Writer::default().sized(&[]).sized(&[]).done();
        let parameters = Writer::default().sized(&sensitive).sized(&template.area()).sized(&[]).u32(0).done();
        let answer = self.call(CC_CREATE_PRIMARY, &[RH_ENDORSEMENT], &[RS_PASSWORD], &parameters)?;
        let mut r = Reader::new(&answer);
        let handle = r.u32()?;
        let _size = r.u32()?;
        Ok(Loaded { handle, public: r.sized()?.to_vec() })
    }

    /// Opens what was made for this endorsement key and this attestation key.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn activate(
        &mut self,
        ek: &Loaded,
        ak: &Loaded,
        credential: &[u8],
        secret: &[u8],
    ) -> Result<Vec<u8>, TpmError> {
        let session = self.endorsement_session()?;
        let parameters = Writer::default().sized(credential).sized(secret).done();
        let handles = [ak.handle, ek.handle];
        let answer = self.call(CC_ACTIVATE_CREDENTIAL, &handles, &[RS_PASSWORD, session], &parameters);
        // A session ends with a command that it authorized; with one that failed it does not.
        let answer = answer.inspect_err(|_| drop(self.flush(session)))?;
        let mut r = Reader::new(&answer);
        let _size = r.u32()?;
        Ok(r.sized()?.to_vec())
    }

    /// A policy session in which `PolicySecret` of the endorsement hierarchy holds, as its keys want.
    fn endorsement_session(&mut self) -> Result<u32, TpmError> {
        // Nothing is encrypted in it and nothing signed by it, so its nonce need not be random.
        let parameters =
            Writer::default().sized(&[0; 16]).sized(&[]).u8(1).u16(ALG_NULL).u16(ALG_SHA256).done();
        let answer = self.call(CC_START_AUTH_SESSION, &[RH_NULL, RH_NULL], &[], &parameters)?;
        let session = Reader::new(&answer).u32()?;
        let parameters = Writer::default().sized(&[]).sized(&[]).sized(&[]).u32(0).done();
        let done = self.call(CC_POLICY_SECRET, &[RH_ENDORSEMENT, session], &[RS_PASSWORD], &parameters);
        done.inspect_err(|_| drop(self.flush(session)))?;
        Ok(session)
    }

    /// Signs all of the first [`PCRS`] registers (SHA-256 bank) together with `nonce`.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn quote(&mut self, ak: &Loaded, nonce: &[u8]) -> Result<Quote, TpmError> {
        let selection = select(|_| true);
        let parameters = Writer::default().sized(nonce).u16(ALG_NULL).octets(&selection).done();
        let answer = self.call(CC_QUOTE, &[ak.handle], &[RS_PASSWORD], &parameters)?;
        let mut r = Reader::new(&answer);
        let _size = r.u32()?;
        let attest = r.sized()?.to_vec();
        if r.u16()? != ALG_ECDSA || r.u16()? != ALG_SHA256 {
            return Err(WireError::Value("the kind of the signature").into());
        }
        let mut signature = Vec::with_capacity(2 * SHA256);
        for _ in 0..2 {
            signature.extend(crate::public::coordinate(r.sized()?)?);
        }
        Ok(Quote { attest, signature })
    }

    /// The first [`PCRS`] registers of the SHA-256 bank, in order.
    ///
    /// # Errors
    /// [`TpmError`], also where the TPM has no such bank.
    pub fn pcrs(&mut self) -> Result<Vec<[u8; SHA256]>, TpmError> {
        let mut all = Vec::new();
        // A TPM answers with as many as it likes, at most eight; one at a time leaves nothing to be sorted out.
        for pcr in 0..PCRS {
            let answer = self.call(CC_PCR_READ, &[], &[], &select(|n| n == pcr))?;
            let mut r = Reader::new(&answer);
            let _counter = r.u32()?;
            if r.u32()? != 1 || r.u16()? != ALG_SHA256 {
                return Err(WireError::Value("the selection of registers").into());
            }
            let bits = usize::from(r.u8()?);
            let _bits = r.take(bits)?;
            if r.u32()? != 1 {
                return Err(WireError::Value("the number of registers").into());
            }
            all.push(r.sized()?.try_into().map_err(|_| WireError::Value("the size of a register"))?);
        }
        Ok(all)
    }

    /// Extends a register of the SHA-256 bank.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn extend(&mut self, pcr: u8, digest: &[u8; SHA256]) -> Result<(), TpmError> {
        let parameters = Writer::default().u32(1).u16(ALG_SHA256).octets(digest).done();
        self.call(CC_PCR_EXTEND, &[pcr.into()], &[RS_PASSWORD], &parameters).map(drop)
    }

    /// Unloads a key.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn unload(&mut self, key: Loaded) -> Result<(), TpmError> {
        self.flush(key.handle)
    }

    fn flush(&mut self, handle: u32) -> Result<(), TpmError> {
        self.call(CC_FLUSH_CONTEXT, &[handle], &[], &[]).map(drop)
    }

    /// What lies at this index of non-volatile memory; `None` where there is nothing, or it may not be read.
    fn certificate(&mut self, index: u32) -> Result<Option<Vec<u8>>, TpmError> {
        let public = match self.call(CC_NV_READ_PUBLIC, &[index], &[], &[]) {
            Ok(public) => public,
            Err(TpmError::Refused { .. }) => return Ok(None),
            Err(other) => return Err(other),
        };
        let mut r = Reader::new(&public);
        let mut area = Reader::new(r.sized()?);
        // Index, hash, attributes, policy.
        let _ = (area.u32()?, area.u16()?, area.u32()?, area.sized()?);
        let size = area.u16()?;
        if size == 0 || usize::from(size) > CERTIFICATE_MAX {
            return Ok(None);
        }
        let mut octets = Vec::with_capacity(size.into());
        for at in (0..size).step_by(NV_AT_ONCE.into()) {
            let n = NV_AT_ONCE.min(size - at);
            let parameters = Writer::default().u16(n).u16(at).done();
            let answer = match self.call(CC_NV_READ, &[index, index], &[RS_PASSWORD], &parameters) {
                Ok(answer) => answer,
                Err(TpmError::Refused { .. }) => return Ok(None),
                Err(other) => return Err(other),
            };
            let mut r = Reader::new(&answer);
            let _size = r.u32()?;
            octets.extend(r.sized()?);
        }
        Ok(Some(octets))
    }

    /// Sends a command and returns what comes after the header of its answer. Each session of `sessions` stands for one
    /// authorization with an empty value.
    fn call(
        &mut self,
        command: u32,
        handles: &[u32],
        sessions: &[u32],
        parameters: &[u8],
    ) -> Result<Vec<u8>, TpmError> {
        let octets = request(command, handles, sessions, parameters);
        let mut code = 0;
        for _ in 0..RETRIES {
            let answer = self.0.transact(&octets)?;
            let mut r = Reader::new(&answer);
            let (_tag, size) = (r.u16()?, r.u32()?);
            code = r.u32()?;
            if usize::try_from(size).ok() != Some(answer.len()) {
                return Err(WireError::Value("the size of the answer").into());
            }
            if code == 0 {
                return Ok(r.rest().to_vec());
            }
            if !RC_AGAIN.contains(&code) {
                break;
            }
        }
        Err(TpmError::Refused { command, code })
    }
}

fn request(command: u32, handles: &[u32], sessions: &[u32], parameters: &[u8]) -> Vec<u8> {
    let mut body = Writer::default();
    for handle in handles {
        body = body.u32(*handle);
    }
    if !sessions.is_empty() {
        let mut area = Writer::default();
        for session in sessions {
            // No nonce, the session ends with the command, no HMAC.
            area = area.u32(*session).sized(&[]).u8(0).sized(&[]);
        }
        let area = area.done();
        body = body.u32(u32::try_from(area.len()).unwrap_or(u32::MAX)).octets(&area);
    }
    let body = body.octets(parameters).done();
    let tag = if sessions.is_empty() { NO_SESSIONS } else { SESSIONS };
    let size = u32::try_from(10 + body.len()).unwrap_or(u32::MAX);
    Writer::default().u16(tag).u32(size).u32(command).octets(&body).done()
}

/// TPML_PCR_SELECTION of the SHA-256 bank, of registers below [`PCRS`].
fn select(wanted: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut bits = [0_u8; 3];
    for pcr in (0..PCRS).filter(|pcr| wanted(*pcr)) {
        bits[usize::from(pcr / 8)] |= 1 << (pcr % 8);
    }
    Writer::default().u32(1).u16(ALG_SHA256).u8(3).octets(&bits).done()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each command with the next of these.
    struct Said(Vec<Vec<u8>>, Vec<Vec<u8>>);

    impl Transport for Said {
        fn transact(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
            self.1.push(command.to_vec());
            if self.0.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(self.0.remove(0)) }
        }
    }

    fn answer(code: u32, body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(10 + body.len()).unwrap();
        Writer::default().u16(SESSIONS).u32(size).u32(code).octets(body).done()
    }

    /// Octets of a command as the library specification has them. If this fails, do not change the test.
    #[test]
    fn a_command_has_its_form() {
        let flush = request(CC_FLUSH_CONTEXT, &[0x8000_0000], &[], &[]);
        assert_eq!(flush, [0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65, 0x80, 0, 0, 0]);
        let extend = request(CC_PCR_EXTEND, &[4], &[RS_PASSWORD], &[0xff]);
        let area = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
        assert_eq!(extend[..14], [0x80, 2, 0, 0, 0, 28, 0, 0, 1, 0x82, 0, 0, 0, 4]);
        assert_eq!((&extend[14..27], extend[27]), (&area[..], 0xff));
        assert_eq!(select(|n| n == 9), [0, 0, 0, 1, 0, 0x0b, 3, 0, 2, 0]);
    }

    #[test]
    fn what_a_tpm_says_is_not_trusted() {
        let key = || Loaded { handle: 1, public: Vec::new() };
        let mut tpm = Tpm(Said(vec![answer(0x922, &[]), answer(0x101, &[])], Vec::new()));
        assert!(matches!(tpm.unload(key()), Err(TpmError::Refused { code: 0x101, .. })));
        assert_eq!(tpm.0.1.len(), 2, "asked again once");
        let mut lying = answer(0, &[]);
        lying[5] = 11;
        for said in [vec![], vec![0; 9], lying] {
            assert!(Tpm(Said(vec![said], Vec::new())).unload(key()).is_err());
        }
        let short = answer(0, &[0, 0, 0, 9, 0, 200, 1]);
        assert!(matches!(Tpm(Said(vec![short], Vec::new())).quote(&key(), &[1]), Err(TpmError::Answer(_))));
    }
}
