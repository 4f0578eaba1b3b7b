//! Proof by the machine's TPM, where it has one: keys, challenge, quote. Nothing here is needed for work that any agent may
//! have, so what fails is said on the console, and the server decides by what it was given.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::Sha256;
use protocol::tpm::{Octets, TpmKeys, TpmProof};
use protocol_http::Backoff;
use protocol_tpm::LOG_MAX;
use protocol_tpm::command::{ANSWER_MAX, Endorsement, Tpm, TpmError, Transport};
use protocol_tpm::public::Template;

use crate::client::Client;
use crate::fetch::random;

/// The TPM behind the kernel's resource manager: it swaps what does not fit, and flushes what is left.
const DEVICE: &str = "dev/tpmrm0";
/// Shown as soon as the kernel knows of a TPM, which may be before its driver has made the device.
const CLASS: &str = "sys/class/tpm/tpm0";
/// Where the kernel keeps the firmware's log.
const LOG: &str = "sys/kernel/security/tpm0/binary_bios_measurements";
/// How long a device is waited for that the kernel knows of.
const DEVICE_WAIT: Duration = Duration::from_secs(5);
/// Times that the server is asked before this boot goes on without.
const TRIES: u32 = 5;

struct Device(File);

impl Transport for Device {
    fn transact(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(command)?;
        let mut answer = vec![0; ANSWER_MAX];
        // The device gives an answer in one piece.
        let n = self.0.read(&mut answer)?;
        answer.truncate(n);
        Ok(answer)
    }
}

/// Proves what can be proven, once for this session. `root` is `/`.
pub fn prove(client: &Client, session: &str, root: &Path) {
    let Some(device) = open(root) else { return };
    let mut backoff = Backoff::default();
    let mut tpm = Tpm(Device(device));
    for _ in 0..TRIES {
        match once(client, session, &mut tpm, root) {
            Ok(true) => return eprintln!("billet: the TPM has signed what was booted"),
            Ok(false) => return eprintln!("billet: the server asks for no proof by TPM"),
            Err(Trouble::Http(e)) if e.is_unknown_session() => return,
            // A server that cannot be reached may be soon; what a TPM refuses, or the server a proof, stays refused.
            Err(Trouble::Http(e)) if e.status().is_none_or(|status| status >= 500) => {
                eprintln!("billet: proof by TPM: {e}");
            }
            Err(trouble) => return eprintln!("billet: no proof by TPM; going on without: {trouble}"),
        }
        std::thread::sleep(backoff.wait(random()));
    }
    eprintln!("billet: no proof by TPM; going on without");
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Tpm(#[from] TpmError),
    #[error(transparent)]
    Http(#[from] protocol_http::HttpError),
}

/// True where the server has the proof.
fn once(client: &Client, session: &str, tpm: &mut Tpm<Device>, root: &Path) -> Result<bool, Trouble> {
    let Endorsement { key: ek, certificate } = tpm.endorsement()?;
    let ak = tpm.create_primary(Template::Ak)?;
    let keys = TpmKeys {
        ek: Octets(ek.public.clone()),
        ak: Octets(ak.public.clone()),
        certificate: certificate.map(Octets),
    };
    let Some(challenge) = client.tpm_challenge(session, &keys)? else { return Ok(false) };
    let (credential, secret) = (&challenge.credential.0, &challenge.secret.0);
    let opened = tpm.activate(&ek, &ak, credential, secret)?;
    let quote = tpm.quote(&ak, &challenge.nonce.0)?;
    let pcrs = tpm.pcrs()?.into_iter().map(Sha256).collect();
    let proof = TpmProof {
        opened: Octets(opened),
        quote: Octets(quote.attest),
        signature: Octets(quote.signature),
        pcrs,
        log: event_log(root),
    };
    client.tpm_proof(session, &proof)?;
    // What is not unloaded the kernel flushes when the device is closed.
    for key in [ak, ek] {
        tpm.unload(key)?;
    }
    Ok(true)
}

fn open(root: &Path) -> Option<File> {
    let started = Instant::now();
    loop {
        match OpenOptions::new().read(true).write(true).open(root.join(DEVICE)) {
            Ok(device) => return Some(device),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if !root.join(CLASS).exists() || started.elapsed() > DEVICE_WAIT {
                    return None;
                }
            }
            Err(e) => {
                eprintln!("billet: /{DEVICE}: {e}");
                return None;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn event_log(root: &Path) -> Option<Octets> {
    let mut octets = Vec::new();
    let most = u64::try_from(LOG_MAX).unwrap_or(u64::MAX);
    let file = File::open(root.join(LOG)).ok()?;
    if let Err(e) = file.take(most.saturating_add(1)).read_to_end(&mut octets) {
        eprintln!("billet: the firmware's event log: {e}");
        return None;
    }
    if octets.len() > LOG_MAX {
        eprintln!("billet: the firmware's event log has more than {LOG_MAX} octets and is left out");
        return None;
    }
    Some(Octets(octets)).filter(|octets| !octets.0.is_empty())
}
