//! What a node's TPM and firmware say: keys, quotes, event logs, and answers to commands.

use std::io;

use boot_server_core::agent_body;
use protocol::limits::TPM_STRUCTURE_MAX;
use protocol_tpm::command::{Tpm, Transport};
use protocol_tpm::public::{Key, Public, Template};
use protocol_tpm::{LOG_MAX, PCRS, log, quote};

const TEMPLATES: [Template; 3] = [Template::EkEcc, Template::EkRsa, Template::Ak];

/// The first octet says of what the rest is.
pub fn run(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 6 {
        0 => event_log(data),
        1 => {
            if let Ok(public) = Public::read(data, &TEMPLATES) {
                // Nothing of it but the key itself is free.
                assert!(data.starts_with(&public.template.area()[..20]));
                assert!(!matches!((public.template, &public.key), (Template::Ak, Key::Rsa(_))));
            }
        }
        2 => {
            let area = [
                &Template::Ak.area()[..Template::Ak.area().len() - 4],
                &[0, 32],
                &[7; 32],
                &[0, 32],
                &[8; 32],
            ];
            if let Ok(ak) = Public::read(&area.concat(), &[Template::Ak]) {
                let (quote, signature) = data.split_at(data.len().saturating_sub(64));
                assert!(
                    quote::check(&ak, b"n", quote, signature, &[[0; 32]; 16]).is_err(),
                    "nobody signed this"
                );
            }
        }
        3 => {
            if let Ok(keys) = agent_body::tpm_keys(data) {
                assert!(keys.ek.0.len() <= TPM_STRUCTURE_MAX && keys.ak.0.len() <= TPM_STRUCTURE_MAX);
            }
        }
        4 => {
            if let Ok(proof) = agent_body::tpm_proof(data) {
                assert!(proof.pcrs.len() <= usize::from(PCRS) && proof.quote.0.len() <= TPM_STRUCTURE_MAX);
                assert!(proof.log.is_none_or(|log| log.0.len() <= LOG_MAX));
            }
        }
        _ => {
            let mut tpm = Tpm(Said(data));
            let _ = tpm.pcrs().map(|pcrs| assert_eq!(pcrs.len(), usize::from(PCRS)));
            let _ = tpm.endorsement();
            let _ =
                tpm.create_primary(Template::Ak).map(|ak| tpm.quote(&ak, b"n").map(|q| q.signature.len()));
        }
    }
}

fn event_log(data: &[u8]) {
    let Ok(replayed) = log::replay(data) else { return };
    assert!(data.len() <= LOG_MAX && replayed.pcrs.keys().all(|pcr| *pcr < 24));
    assert!(replayed.events as usize <= data.len());
    let mut pcrs = [[0; 32]; 16];
    for (pcr, value) in replayed.pcrs.iter().filter(|(pcr, _)| **pcr < PCRS) {
        pcrs[usize::from(*pcr)] = *value;
    }
    assert!(log::differences(&replayed, &pcrs).is_empty());
    if let Some(pcr) = replayed.pcrs.keys().find(|pcr| **pcr < PCRS) {
        pcrs[usize::from(*pcr)][0] ^= 1;
        assert_eq!(log::differences(&replayed, &pcrs), [*pcr]);
    }
}

/// Gives what it has in pieces, each behind an octet with its length.
struct Said<'a>(&'a [u8]);

impl Transport for Said<'_> {
    fn transact(&mut self, _: &[u8]) -> io::Result<Vec<u8>> {
        let (n, rest) = self.0.split_first().ok_or(io::ErrorKind::UnexpectedEof)?;
        let (piece, rest) = rest.split_at(usize::from(*n).min(rest.len()));
        self.0 = rest;
        Ok(piece.to_vec())
    }
}
