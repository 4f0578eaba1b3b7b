//! Both ends against a TPM that others made: `swtpm`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong here fails a test")]

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use protocol_tpm::command::{ANSWER_MAX, Endorsement, Loaded, Tpm, TpmError, Transport};
use protocol_tpm::credential::{self, Chance, Credential};
use protocol_tpm::public::{Public, Template};
use protocol_tpm::quote::{self, QuoteError};

const EKS: [Template; 2] = [Template::EkEcc, Template::EkRsa];

struct Socket(UnixStream);

impl Transport for Socket {
    fn transact(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(command)?;
        let mut answer = vec![0; ANSWER_MAX];
        let n = self.0.read(&mut answer)?;
        answer.truncate(n);
        Ok(answer)
    }
}

/// A TPM of its own, which ends with this.
struct Emulator {
    process: Child,
    dir: PathBuf,
}

impl Emulator {
    /// `None` where there is no `swtpm` here.
    fn start(name: &str, certified: bool) -> Option<(Self, Tpm<Socket>)> {
        let dir = std::env::temp_dir().join(format!("billet-swtpm-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        if certified {
            let args = ["--tpm2", "--create-ek-cert", "--overwrite", "--tpmstate"];
            let done = Command::new("swtpm_setup").args(args).arg(&dir).stdout(Stdio::null()).status();
            match done {
                Ok(done) => assert!(done.success(), "swtpm_setup"),
                Err(e) => return skip(&e),
            }
        }
        let socket = dir.join("socket");
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", dir.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .spawn();
        let process = match process {
            Ok(process) => process,
            Err(e) => return skip(&e),
        };
        let emulator = Self { process, dir };
        Some((emulator, Tpm(Socket(connect(&socket)))))
    }
}

fn skip<T>(why: &io::Error) -> Option<T> {
    eprintln!("skipped: swtpm cannot be run: {why}");
    None
}

fn connect(socket: &Path) -> UnixStream {
    for _ in 0..100 {
        if let Ok(stream) = UnixStream::connect(socket) {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            return stream;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("swtpm does not listen");
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn chance() -> Chance {
    Chance { seed: [0x5a; 32], pad: [0xa5; 32] }
}

fn challenge(ek: &Loaded, ak: &[u8], secret: &[u8]) -> Credential {
    let ek = Public::read(&ek.public, &EKS).unwrap();
    credential::make(&ek, &credential::name(ak), secret, &chance()).unwrap()
}

fn activates(tpm: &mut Tpm<Socket>, ek: &Loaded) -> Loaded {
    let ak = tpm.create_primary(Template::Ak).unwrap();
    assert_eq!(Public::read(&ak.public, &[Template::Ak]).unwrap().template, Template::Ak);
    for secret in [&[7_u8; 32][..], b"", b"short"] {
        let made = challenge(ek, &ak.public, secret);
        assert_eq!(tpm.activate(ek, &ak, &made.blob, &made.secret).unwrap(), secret);
    }
    let made = challenge(ek, &ak.public, b"it");
    let mut bent = made.clone();
    *bent.blob.last_mut().unwrap() ^= 1;
    assert!(matches!(tpm.activate(ek, &ak, &bent.blob, &bent.secret), Err(TpmError::Refused { .. })));
    let other = challenge(ek, b"another key", b"it");
    assert!(tpm.activate(ek, &ak, &other.blob, &other.secret).is_err(), "for another attestation key");
    // Sessions that failed are not left behind.
    for _ in 0..10 {
        assert!(tpm.activate(ek, &ak, &bent.blob, &bent.secret).is_err());
    }
    assert_eq!(tpm.activate(ek, &ak, &made.blob, &made.secret).unwrap(), b"it");
    ak
}

#[test]
fn a_secret_is_opened_by_the_one_tpm_and_a_quote_is_of_its_registers() {
    let Some((_emulator, mut tpm)) = Emulator::start("quote", false) else { return };
    let Endorsement { key: ek, certificate } = tpm.endorsement().unwrap();
    assert!(certificate.is_none());
    let again = tpm.create_primary(Template::EkEcc).unwrap();
    assert_eq!(again.public, ek.public, "the same each time");
    tpm.unload(again).unwrap();
    let ak = activates(&mut tpm, &ek);

    let key = Public::read(&ak.public, &[Template::Ak]).unwrap();
    let before = tpm.pcrs().unwrap();
    let quoted = tpm.quote(&ak, b"nonce").unwrap();
    let check = |nonce: &[u8], q: &protocol_tpm::command::Quote, pcrs: &[[u8; 32]]| {
        quote::check(&key, nonce, &q.attest, &q.signature, pcrs)
    };
    assert_eq!(check(b"nonce", &quoted, &before), Ok(()));
    assert_eq!(check(b"other", &quoted, &before), Err(QuoteError::Nonce));
    tpm.extend(4, &[1; 32]).unwrap();
    let after = tpm.pcrs().unwrap();
    assert!(before[4] != after[4] && before[..4] == after[..4] && before[5..] == after[5..]);
    assert_eq!(check(b"nonce", &quoted, &after), Err(QuoteError::Registers), "what was quoted before");
    let quoted = tpm.quote(&ak, b"nonce").unwrap();
    assert_eq!(check(b"nonce", &quoted, &after), Ok(()));
    assert_eq!(check(b"nonce", &quoted, &before), Err(QuoteError::Registers));

    let Some((_second, mut other)) = Emulator::start("other", false) else { return };
    let theirs = other.endorsement().unwrap().key;
    assert_ne!(theirs.public, ek.public);
    let other_ak = other.create_primary(Template::Ak).unwrap();
    let made = challenge(&ek, &ak.public, b"it");
    assert!(other.activate(&theirs, &other_ak, &made.blob, &made.secret).is_err(), "another TPM opens it");
    let forged = other.quote(&other_ak, b"nonce").unwrap();
    assert_eq!(check(b"nonce", &forged, &other.pcrs().unwrap()), Err(QuoteError::Signature));
}

#[test]
fn an_rsa_key_with_a_certificate_is_taken_before_one_without() {
    let Some((_emulator, mut tpm)) = Emulator::start("rsa", true) else { return };
    let Endorsement { key: ek, certificate } = tpm.endorsement().unwrap();
    let public = Public::read(&ek.public, &EKS).unwrap();
    assert_eq!(public.template, Template::EkRsa);
    let protocol_tpm::public::Key::Rsa(modulus) = public.key else { panic!("no RSA key") };
    let certificate = certificate.expect("a certificate");
    assert!(certificate.windows(256).any(|part| part == modulus), "the certificate is of this key");
    activates(&mut tpm, &ek);
}
