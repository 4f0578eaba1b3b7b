//! Where a PostgreSQL server is, and what is asked of it before anything is trusted to it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bmc::Secret;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Config, NoTls};

use super::client::{Client, NotConnected};
use super::session::{self, Session};

/// To connect, per address.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long what was sent may stay unanswered by the other host before the connection counts as broken.
const DEAD_AFTER: Duration = Duration::from_secs(15);
/// The oldest release that is asked for; suites run against 15.
const VERSION_MIN: i64 = 130_000;
/// Certificates that the system trusts.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why PostgreSQL is not used.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address makes no sense.
    #[error("store.url: {0}")]
    Url(String),
    /// Certificates that are trusted.
    #[error("store.ca: {0}")]
    Trust(String),
    /// It does not answer, or does not let us in.
    #[error("cannot connect to {to}: {why}")]
    Connect {
        /// Where.
        to: String,
        /// Why not, and what to do.
        why: String,
    },
    /// It is not set up as it must be.
    #[error("{to} cannot be used: {why}")]
    Unfit {
        /// Where.
        to: String,
        /// Why not, and what to do.
        why: String,
    },
    /// Another server has it.
    #[error(
        "another billet serves from {to} ({by}): stop it first, or give this one a database of its own (store.url)"
    )]
    Held {
        /// Where.
        to: String,
        /// Who.
        by: String,
    },
    /// A statement failed.
    #[error("cannot {action}: {cause}")]
    Statement {
        /// What was being done.
        action: &'static str,
        /// Why not.
        cause: super::Error,
    },
}

/// Whether a connection may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// A database of a PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    url: String,
    password: Option<Secret>,
    ca: Option<PathBuf>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No password is in it: see `new`.
        f.write_str(&self.url)
    }
}

impl Server {
    /// The database of an address such as `postgresql://billet@db.example/billet`; nobody is asked yet. Certificates of
    /// the server are checked against `ca`, or what the system trusts.
    ///
    /// # Errors
    /// [`ServerError::Url`].
    pub fn new(url: &str, password: Option<Secret>, ca: Option<PathBuf>) -> Result<Self, ServerError> {
        // As libpq writes it; here every certificate is checked.
        let url = url.replace("sslmode=verify-full", "sslmode=require");
        let url = url.replace("sslmode=verify-ca", "sslmode=require");
        let server = Self { url, password, ca };
        let known = ["postgresql://", "postgres://"].iter().any(|scheme| server.url.starts_with(scheme));
        if !known {
            return Err(ServerError::Url("use postgresql://user@host/database".to_owned()));
        }
        let config = server.config()?;
        if server.password.is_none() && config.get_password().is_some() {
            let how = "put the password into a file and name it by store.password_file";
            return Err(ServerError::Url(how.to_owned()));
        }
        if config.get_dbname().is_none_or(str::is_empty) || config.get_user().is_none() {
            let how = "it must name user and database, as in postgresql://user@host/database";
            return Err(ServerError::Url(how.to_owned()));
        }
        Ok(server)
    }

    fn config(&self) -> Result<Config, ServerError> {
        // The driver's error can quote the text; ours quotes nothing.
        let fault = |_| ServerError::Url("this is no address of PostgreSQL".to_owned());
        let mut config: Config = self.url.parse().map_err(fault)?;
        if let Some(password) = &self.password {
            if config.get_password().is_some() {
                return Err(ServerError::Url("it holds a password beside store.password_file".to_owned()));
            }
            config.password(&password.0);
        }
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy().into_owned();
        config.application_name(format!("billet on {host}, process {}", std::process::id()));
        config.connect_timeout(CONNECT_MAX).tcp_user_timeout(DEAD_AFTER);
        config.keepalives_idle(DEAD_AFTER).keepalives_interval(DEAD_AFTER / 3).keepalives_retries(3);
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(config)
    }

    /// Connects and makes the session fit.
    pub(super) fn connect(&self, access: Access) -> Result<Session, ServerError> {
        let mut config = self.config()?;
        let by_network = config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(_)));
        let client = if by_network && config.get_ssl_mode() != SslMode::Disable {
            config.ssl_mode(SslMode::Require);
            Client::connect(&config, tokio_postgres_rustls::MakeRustlsConnect::new(self.tls()?))
        } else {
            Client::connect(&config, NoTls)
        };
        let client = client.map_err(|cause| match cause {
            NotConnected::Postgres(cause) => self.refused(&cause),
            NotConnected::System(cause) => {
                ServerError::Connect { to: self.to_string(), why: cause.to_string() }
            }
        })?;
        self.made_fit(client, access)
    }

    fn refused(&self, cause: &tokio_postgres::Error) -> ServerError {
        let words = session::words(cause);
        let hint = if words.contains("ertificate") {
            "; name the certificate of its authority by store.ca"
        } else if words.contains("does not support TLS") {
            "; set it up there (ssl = on), or say sslmode=disable in store.url where the wire is your own"
        } else {
            ""
        };
        ServerError::Connect { to: self.to_string(), why: format!("{words}{hint}") }
    }

    fn tls(&self) -> Result<rustls::ClientConfig, ServerError> {
        let path = self.ca.as_deref().unwrap_or(Path::new(SYSTEM_CA));
        let fault = |why: String| ServerError::Trust(format!("{}: {why}", path.display()));
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| fault(e.to_string()))? {
            let certificate = certificate.map_err(|e| fault(e.to_string()))?;
            let added = roots.add(certificate);
            // The system's list may hold what this library does not read; the site's own file may not.
            if let (Err(cause), Some(_)) = (added, &self.ca) {
                return Err(fault(cause.to_string()));
            }
        }
        if roots.is_empty() {
            return Err(fault("it holds no certificate".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| fault(e.to_string()))?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }

    /// Durable commits are asserted here: `synchronous_commit` is switched on for the session where it is off, and a
    /// server that does not write its log through to the disk is refused.
    fn made_fit(&self, mut client: Client, access: Access) -> Result<Session, ServerError> {
        let failed = |cause: tokio_postgres::Error| self.refused(&cause);
        client.ask(async |driver| driver.batch_execute(SETTINGS).await).map_err(failed)?;
        if access == Access::Read {
            let sql = "SET default_transaction_read_only = on";
            client.ask(async |driver| driver.batch_execute(sql).await).map_err(failed)?;
        }
        let row = client.ask(async |driver| driver.query_one(FACTS, &[]).await).map_err(failed)?;
        let fact = |n: usize| row.try_get::<_, String>(n).map_err(failed);
        let (version, encoding, fsync, commit) = (fact(0)?, fact(1)?, fact(2)?, fact(3)?);
        let unfit = |why: String| Err(ServerError::Unfit { to: self.to_string(), why });
        if version.parse::<i64>().unwrap_or(0) < VERSION_MIN {
            return unfit(format!("its version is {version}, 130000 (PostgreSQL 13) is needed"));
        }
        if encoding != "UTF8" {
            return unfit(format!("its encoding is {encoding}: make the database with ENCODING 'UTF8'"));
        }
        if fsync != "on" {
            return unfit("fsync is off, so a power cut loses what was promised: set fsync = on".to_owned());
        }
        if !matches!(commit.as_str(), "on" | "remote_apply") {
            return unfit(format!("synchronous_commit stays {commit}: set it to on"));
        }
        Ok(Session::new(client))
    }
}

/// What each session sets. What a server that died held is let go within a minute: `tcp_*` are PostgreSQL's own ends of
/// the connection. `idle_session_timeout` is not known to every release.
const SETTINGS: &str = "\
    SELECT set_config('synchronous_commit', 'on', false) \
        WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply'); \
    SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'; \
    SET lock_timeout = '10s'; \
    SET client_encoding = 'UTF8'; \
    SET jit = off; \
    SET tcp_keepalives_idle = 20; \
    SET tcp_keepalives_interval = 10; \
    SET tcp_keepalives_count = 3; \
    SET tcp_user_timeout = 50000";

/// What is looked at in each session.
const FACTS: &str = "SELECT current_setting('server_version_num'), \
    pg_encoding_to_char(encoding)::text, current_setting('fsync'), current_setting('synchronous_commit') \
    FROM pg_database WHERE datname = current_database()";
