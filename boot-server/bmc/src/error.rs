//! Why a controller did not do what it was asked: few kinds, because they decide what the worker does next.

use std::time::Duration;

use crate::types::DriverKind;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum BmcError {
    /// No answer, or no connection: the network, or a controller that hangs.
    #[error("the BMC does not answer: {what}")]
    Unreachable {
        /// What was tried.
        what: String,
    },
    /// No answer within the time of a call.
    #[error("the BMC did not answer {what} within {} s", after.as_secs())]
    TimedOut {
        /// What was asked.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// User name or password are wrong. Each of these counts for the lock-out of the controller.
    #[error("the BMC refuses the user name or password")]
    Login,
    /// The account lacks the right.
    #[error("the BMC account may not do this: {what}")]
    Forbidden {
        /// What was asked.
        what: String,
    },
    /// The TLS certificate is not the one that was pinned. Nothing was sent.
    #[error("the BMC shows another certificate: SHA-256 {found}, pinned is {pinned}")]
    Certificate {
        /// SHA-256 of what it shows, in hexadecimal.
        found: String,
        /// SHA-256 of what was pinned.
        pinned: String,
    },
    /// The SSH key is not the one that was pinned. No password was sent.
    #[error("the BMC shows another SSH key: {found}, pinned is {pinned}")]
    HostKey {
        /// Fingerprint of what it shows, as `ssh` writes it.
        found: String,
        /// Fingerprint of what was pinned.
        pinned: String,
    },
    /// TLS failed otherwise.
    #[error("TLS with the BMC failed: {what}")]
    Tls {
        /// Why.
        what: String,
    },
    /// It points to another origin; nothing was sent there.
    #[error("the BMC points elsewhere, to {to}: refused")]
    OtherOrigin {
        /// Where, cut to 200 characters.
        to: String,
    },
    /// It said more than is taken.
    #[error("the answer of the BMC to {what} is longer than {limit} octets")]
    TooLarge {
        /// What was asked.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// It answered what the protocol does not have.
    #[error("the BMC answers {what} with something that cannot be understood: {why}")]
    Malformed {
        /// What was asked.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// It refused, in its own words.
    #[error("the BMC refuses {what}: {why}")]
    Refused {
        /// What was asked.
        what: String,
        /// Its words, or its code.
        why: String,
    },
    /// It does not know any more what was asked for.
    #[error("the BMC does not know {what} any more")]
    Gone {
        /// What.
        what: String,
    },
    /// It is busy with something else: another session, a task.
    #[error("the BMC is busy: {what}")]
    Busy {
        /// With what.
        what: String,
    },
    /// The protocol or this controller cannot do it.
    #[error("{what} cannot be had by {driver}")]
    Unsupported {
        /// The driver.
        driver: DriverKind,
        /// What was asked.
        what: &'static str,
    },
}

/// The kinds, for counters and the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants of `BmcError`, documented there")]
pub enum ErrorKind {
    Unreachable,
    TimedOut,
    Login,
    Forbidden,
    Certificate,
    Tls,
    OtherOrigin,
    TooLarge,
    Malformed,
    Refused,
    Gone,
    Busy,
    Unsupported,
}

impl BmcError {
    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } => ErrorKind::Unreachable,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::Login => ErrorKind::Login,
            Self::Forbidden { .. } => ErrorKind::Forbidden,
            Self::Certificate { .. } | Self::HostKey { .. } => ErrorKind::Certificate,
            Self::Tls { .. } => ErrorKind::Tls,
            Self::OtherOrigin { .. } => ErrorKind::OtherOrigin,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Malformed { .. } => ErrorKind::Malformed,
            Self::Refused { .. } => ErrorKind::Refused,
            Self::Gone { .. } => ErrorKind::Gone,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
        }
    }

    /// True where trying again may help: nothing about the request itself is wrong.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::Busy)
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self.kind() {
            ErrorKind::Unreachable | ErrorKind::TimedOut => {
                "check the BMC's address, cable and power; a hung BMC needs its own reset or a power cord pulled"
            }
            ErrorKind::Login => {
                "give the right user name and password (`billet bmc set`); Billet stops before the account is locked"
            }
            ErrorKind::Forbidden => "give the account the role Administrator, or name another account",
            ErrorKind::Certificate => {
                "if the BMC was replaced or got a new certificate or SSH key, accept it (`billet bmc trust`); else somebody is in between"
            }
            ErrorKind::Tls => "the BMC needs TLS 1.2 or newer with a certificate; update its firmware",
            ErrorKind::OtherOrigin => "a BMC has no reason for this: look at what answers at its address",
            ErrorKind::TooLarge | ErrorKind::Malformed => {
                "update the BMC's firmware, or use the driver `ipmi`"
            }
            ErrorKind::Gone => "it was restarted, or forgets what is done; look at its own log",
            ErrorKind::Refused => "see the BMC's own words",
            ErrorKind::Busy => "wait, or end the other session in the BMC's own pages",
            ErrorKind::Unsupported => "use another driver for this machine",
        }
    }
}
