//! Proof by a TPM: a challenge that only the TPM with these keys can open, and a quote over a nonce of this session.
//!
//! ```text
//! keys ─▶ templates compared ─▶ challenge (secret, nonce; one at a time, two minutes) ─▶ proof ─▶ all of it checked ─▶ Event::Quoted
//! ```
//!
//! What is proven is stored with the session; what it is worth (`node::trust`) the core says.

use std::time::Duration;

use boot_server_core::node::{Event, EventLog, Quoted};
use protocol::tpm::{Octets, TpmChallenge, TpmKeys, TpmProof};
use protocol::{NodeId, Sha256, Timestamp};
use protocol_tpm::credential::{self, Chance};
use protocol_tpm::public::{Key, Public, Template};
use protocol_tpm::{log, quote};
use subtle::ConstantTimeEq as _;

use super::alarms::Alarm;
use super::{Actor, Engine, EngineError, lock, now};
use crate::secret;

/// How long a challenge is good. A TPM of the slow kind takes some seconds for a key.
const PATIENCE: Duration = Duration::from_mins(2);

/// A challenge that waits for its proof.
#[derive(Debug, Clone)]
pub(super) struct Challenge {
    session: Sha256,
    made: Timestamp,
    secret: [u8; 32],
    nonce: [u8; 32],
    keys: TpmKeys,
    ak: Public,
}

/// Why a proof is none.
#[derive(Debug, thiserror::Error)]
enum NoProof {
    #[error("its keys are none that prove anything")]
    Keys,
    #[error("no challenge waits for it: it comes late, or twice")]
    Late,
    #[error("it could not open what was made for its endorsement key")]
    Opened,
    #[error(transparent)]
    Quote(#[from] quote::QuoteError),
}

impl Engine {
    /// Makes a challenge for the TPM of the agent with this session. An older one is void.
    ///
    /// # Errors
    /// [`EngineError::NoSession`], [`EngineError::NoProof`] where its keys prove nothing.
    pub async fn challenge(&self, token: &str, keys: TpmKeys) -> Result<TpmChallenge, EngineError> {
        let node = self.session(token)?.id;
        let (secret, nonce) = (secret::random()?, secret::random()?);
        let ek = Public::read(&keys.ek.0, &[Template::EkEcc, Template::EkRsa]);
        let ak = Public::read(&keys.ak.0, &[Template::Ak]);
        let made = match (&ek, &ak) {
            (Ok(ek), Ok(_)) => {
                let chance = Chance { seed: secret::random()?, pad: secret::random()? };
                credential::make(ek, &credential::name(&keys.ak.0), &secret, &chance).ok()
            }
            _ => None,
        };
        let (Some(made), Ok(ak)) = (made, ak) else { return Err(self.no_proof(node, NoProof::Keys).await) };
        let session = secret::hash(token);
        let challenge = Challenge { session, made: now(), secret, nonce, keys, ak };
        let mut challenges = lock(&self.0.challenges);
        challenges.retain(|_, other| challenge.made.since(other.made) <= PATIENCE);
        challenges.insert(node, challenge);
        drop(challenges);
        Ok(TpmChallenge {
            credential: Octets(made.blob),
            secret: Octets(made.secret),
            nonce: Octets(nonce.to_vec()),
        })
    }

    /// Takes a proof in. It is good once, for the challenge that was given last in this session.
    ///
    /// # Errors
    /// [`EngineError::NoSession`], [`EngineError::NoProof`], or what the store says.
    pub async fn prove(&self, token: &str, proof: TpmProof) -> Result<(), EngineError> {
        let node = self.session(token)?.id;
        let challenge = lock(&self.0.challenges).remove(&node);
        let quoted = match challenge {
            Some(challenge) if challenge.session == secret::hash(token) => check(&challenge, &proof, now()),
            _ => Err(NoProof::Late),
        };
        match quoted {
            Ok(quoted) => {
                // Another boot may have begun meanwhile, whose session this is not.
                let hash = secret::hash(token);
                if !self.session(token)?.has_session(hash) {
                    return Err(EngineError::NoSession);
                }
                self.apply(node, Actor::Agent, Event::Quoted(Box::new(quoted))).await.map(drop)
            }
            Err(why) => Err(self.no_proof(node, why).await),
        }
    }

    async fn no_proof(&self, node: NodeId, why: NoProof) -> EngineError {
        let what = why.to_string();
        self.alarm(Alarm::Quote, Some(node), &format!("its TPM's proof is none: {what}")).await;
        EngineError::NoProof { what }
    }
}

fn check(challenge: &Challenge, proof: &TpmProof, at: Timestamp) -> Result<Quoted, NoProof> {
    if at.since(challenge.made) > PATIENCE {
        return Err(NoProof::Late);
    }
    if !bool::from(proof.opened.0.as_slice().ct_eq(&challenge.secret)) {
        return Err(NoProof::Opened);
    }
    let values: Vec<[u8; 32]> = proof.pcrs.iter().map(|pcr| pcr.0).collect();
    quote::check(&challenge.ak, &challenge.nonce, &proof.quote.0, &proof.signature.0, &values)?;
    let log = match &proof.log {
        None => EventLog::None,
        Some(octets) => match log::replay(&octets.0) {
            Err(_) => EventLog::Broken,
            Ok(replayed) => match log::differences(&replayed, &values) {
                pcrs if pcrs.is_empty() => EventLog::Matches { events: replayed.events },
                pcrs => EventLog::Differs { pcrs },
            },
        },
    };
    let keys = &challenge.keys;
    let certificate = keys.certificate.as_ref().filter(|der| names(&der.0, &keys.ek.0));
    Ok(Quoted {
        ek: Sha256(secret::digest(&keys.ek.0)),
        certificate: certificate.map(|der| Sha256(secret::digest(&der.0))),
        ek_public: keys.ek.clone(),
        ak: keys.ak.clone(),
        at,
        pcrs: (0..).zip(proof.pcrs.iter().copied()).collect(),
        log,
    })
}

/// True where a certificate holds this endorsement key. Whether its maker signed it is for people to look at: it is shown, and
/// what counts is the pin.
fn names(certificate: &[u8], ek: &[u8]) -> bool {
    let Ok(public) = Public::read(ek, &[Template::EkEcc, Template::EkRsa]) else { return false };
    let key = match public.key {
        Key::Rsa(modulus) => modulus,
        Key::Ecc { x, y } => [&[4][..], &x, &y].concat(),
    };
    certificate.windows(key.len()).any(|part| part == key)
}
