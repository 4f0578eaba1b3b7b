//! A CA of the site's own, for a site that has none: made once, kept in the state directory, enrolled in firmware by the
//! operator. The server's certificate is made anew at each start, for the addresses that it has then.
//!
//! ```text
//! <state_dir>/tls/site-ca.key    the CA's private key; whoever has it can pose as this server to enrolled machines
//!                 site-ca.crt    the CA, PEM: for curl and the like
//!                 site-ca.der    the same for firmware menus ("Enroll Cert Using File")
//!                 site-ca.esl    the same as EFI signature list: for the variable TlsCaCertificate, and QEMU
//!                 server.key     the server's private key
//! ```

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::Digest as _;

use super::rsa;

/// EFI_CERT_X509_GUID (UEFI 2.10 section 32.4.1) as it lies in memory.
const CERT_X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
/// Who enrolled it: a number of our own (6e0b1f2d-5a52-4f0e-9a6b-b111e7000ca0).
const OWNER: [u8; 16] =
    [0x2d, 0x1f, 0x0b, 0x6e, 0x52, 0x5a, 0x0e, 0x4f, 0x9a, 0x6b, 0xb1, 0x11, 0xe7, 0x00, 0x0c, 0xa0];

/// Why there is no CA.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// A file of it cannot be read or written.
    #[error("the site's CA: cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// A file of it is not what it was.
    #[error(
        "the site's CA: {} is damaged; put it back from a backup, or remove the directory and enrol the new CA in every machine",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The CA is published, but its key is gone: another key makes another CA, which no machine trusts.
    #[error(
        "the site's CA: {} is there, but its key {} is not; put the key back from a backup, or remove the certificate and enrol the new CA in every machine",
        certificate.display(), key.display()
    )]
    KeyGone {
        /// The certificate.
        certificate: PathBuf,
        /// Where the key belongs.
        key: PathBuf,
    },
    /// A certificate cannot be made.
    #[error("the site's CA cannot make a certificate")]
    Make(#[source] rcgen::Error),
    /// No random octets.
    #[error("the site's CA cannot make a key: the system gives no random bytes")]
    NoRandomness,
}

/// A chain for these addresses and its key.
pub(super) fn certificate(
    directory: &Path,
    addresses: &[IpAddr],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), SiteError> {
    let fail = |cause| SiteError::File { path: directory.to_owned(), cause };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fail)?;
    let (key_path, published) = (directory.join("site-ca.key"), directory.join("site-ca.crt"));
    if published.try_exists().map_err(fail)? && !key_path.try_exists().map_err(fail)? {
        return Err(SiteError::KeyGone { certificate: published, key: key_path });
    }
    let ca_key = key(&key_path)?;
    let ca = ca_params(&ca_key);
    let ca_certificate = publish(directory, &ca, &ca_key)?;
    let server_key = key(&directory.join("server.key"))?;
    let mut params = CertificateParams::default();
    if let Some(first) = addresses.first() {
        params.distinguished_name.push(DnType::CommonName, first.to_string());
    }
    params.subject_alt_names = addresses.iter().map(|a| SanType::IpAddress(*a)).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    lasts(&mut params);
    let issuer = Issuer::from_params(&ca, &ca_key);
    let certificate = params.signed_by(&server_key, &issuer).map_err(SiteError::Make)?;
    let key = PrivateKeyDer::try_from(server_key.serialize_der())
        .map_err(|_| SiteError::Damaged { path: directory.join("server.key") })?;
    Ok((vec![certificate.der().clone(), ca_certificate], key))
}

/// The CA's own certificate says the same whenever it is made from the same key.
fn ca_params(key: &KeyPair) -> CertificateParams {
    let id = sha2::Sha256::digest(key.public_key_raw());
    let id: String = id.iter().take(4).map(|b| format!("{b:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("Billet site CA {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lasts(&mut params);
    params
}

/// From before any machine's clock to long after: a machine whose battery is empty has the date of its firmware.
fn lasts(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2056, 1, 1);
}

/// Reads the CA's certificate, or makes it, and sees to it that it lies there in every form.
fn publish(
    directory: &Path,
    ca: &CertificateParams,
    key: &KeyPair,
) -> Result<CertificateDer<'static>, SiteError> {
    let path = directory.join("site-ca.crt");
    let (pem, der) = match fs::read_to_string(&path) {
        Ok(pem) => {
            let der = CertificateDer::from_pem_slice(pem.as_bytes());
            (None, der.map_err(|_| SiteError::Damaged { path: path.clone() })?)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let made = ca.self_signed(key).map_err(SiteError::Make)?;
            (Some(made.pem()), made.der().clone())
        }
        Err(cause) => return Err(SiteError::File { path, cause }),
    };
    write(&directory.join("site-ca.der"), &der, 0o644)?;
    write(&directory.join("site-ca.esl"), &signature_list(&der), 0o644)?;
    if let Some(pem) = pem {
        write(&path, pem.as_bytes(), 0o644)?;
        tracing::info!(path = %path.display(), "a CA for this site was made: enrol it in the machines' firmware");
    }
    Ok(der)
}

/// EFI_SIGNATURE_LIST with one X.509 certificate (UEFI 2.10 section 32.4.1).
fn signature_list(der: &[u8]) -> Vec<u8> {
    const HEAD: usize = 28;
    let size = OWNER.len() + der.len();
    let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    [&CERT_X509, &word(HEAD + size)[..], &word(0), &word(size), &OWNER, der].concat()
}

/// The key in this file; a new one where it is not there.
fn key(path: &Path) -> Result<KeyPair, SiteError> {
    match fs::read_to_string(path) {
        Ok(pem) => KeyPair::from_pem_and_sign_algo(&pem, &rcgen::PKCS_RSA_SHA256)
            .map_err(|_| SiteError::Damaged { path: path.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let der = rsa::generate().ok_or(SiteError::NoRandomness)?;
            let key = KeyPair::try_from(der.as_slice()).map_err(SiteError::Make)?;
            write(path, key.serialize_pem().as_bytes(), 0o600)?;
            Ok(key)
        }
        Err(cause) => Err(SiteError::File { path: path.to_owned(), cause }),
    }
}

/// Writes a file as a whole or not at all.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), SiteError> {
    let part = path.with_extension("part");
    let write = || {
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(mode).open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|cause| SiteError::File { path: path.to_owned(), cause })
}
