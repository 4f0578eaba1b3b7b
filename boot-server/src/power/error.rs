//! Why a controller was not asked, or did not do what it was asked, and how the client gets to know.

use std::sync::Arc;

use bmc::{BmcError, ErrorKind};
use protocol::Timestamp;

use super::Reply;
use crate::view::Problem;

/// Why not.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PowerError {
    /// The node has no controller that Billet knows.
    #[error("this node has no BMC that Billet knows")]
    NoBmc,
    /// It was asked and said no, or nothing.
    #[error(transparent)]
    Bmc(Arc<BmcError>),
    /// It did not answer lately and is left alone for a while.
    #[error("the BMC did not answer lately: it is asked again in {} s at the latest", seconds(*.until, *.now))]
    Waits {
        /// Until then.
        until: Timestamp,
        /// The moment of this answer.
        now: Timestamp,
    },
    /// Another wrong password could lock the account.
    #[error(
        "the BMC refused the account three times: the next login is tried in {} s, or with new credentials",
        seconds(*.until, *.now)
    )]
    LockedOut {
        /// Until then.
        until: Timestamp,
        /// The moment of this answer.
        now: Timestamp,
    },
    /// It was restarted less than an hour ago.
    #[error("the BMC itself was restarted lately: again in {} min", seconds(*.until, *.now).div_ceil(60))]
    ResetTooSoon {
        /// Not before then.
        until: Timestamp,
        /// The moment of this answer.
        now: Timestamp,
    },
    /// It accepted a setting and shows another.
    #[error("the BMC accepted {wanted} and shows {found}")]
    NotTaken {
        /// What was set.
        wanted: String,
        /// What was read back.
        found: String,
    },
    /// It holds what was for one start only.
    #[error("the BMC boots {device} from now on, and not once: it took the boot device and not how often")]
    NotOnce {
        /// The boot device that it shows.
        device: String,
    },
    /// Too many requests wait for it.
    #[error("too many requests wait for this BMC")]
    Full,
    /// The answer did not come in time.
    #[error("the BMC is busy with other requests: no answer in time")]
    Late,
    /// Its worker ended meanwhile: the server stops, or the BMC was set anew.
    #[error("the BMC was set anew or removed meanwhile")]
    Gone,
}

fn seconds(until: Timestamp, now: Timestamp) -> u64 {
    until.since(now).as_secs().max(1)
}

impl From<BmcError> for PowerError {
    fn from(error: BmcError) -> Self {
        Self::Bmc(Arc::new(error))
    }
}

impl PowerError {
    /// The kind of the controller's own error, if it is one.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Bmc(error) => Some(error.kind()),
            _ => None,
        }
    }

    /// True where trying again later may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Bmc(error) => error.is_transient(),
            Self::Waits { .. } | Self::Full | Self::Late | Self::Gone => true,
            Self::NoBmc | Self::LockedOut { .. } | Self::ResetTooSoon { .. } => false,
            Self::NotTaken { .. } | Self::NotOnce { .. } => false,
        }
    }

    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoBmc => "give its address and account (`billet bmc set`)",
            Self::Bmc(error) => error.hint(),
            Self::Waits { .. } => "check the BMC's address, cable and power",
            Self::LockedOut { .. } => "give the right user name and password (`billet bmc set`)",
            Self::ResetTooSoon { .. } => "a BMC is away for minutes after a restart: wait",
            Self::NotTaken { .. } => "update the BMC's firmware, or set it in the BMC's own pages",
            Self::NotOnce { .. } => {
                "set it to `disk` or `none` once the machine has booted (`billet bmc boot`)"
            }
            Self::Full | Self::Late => "wait, then ask again",
            Self::Gone => "ask again",
        }
    }

    /// As the client gets it.
    pub fn problem(&self) -> Problem {
        let (status, code) = match self {
            Self::NoBmc => (404, "no-bmc"),
            Self::Bmc(error) => of_kind(error.kind()),
            Self::Waits { .. } => (503, "bmc-waits"),
            Self::LockedOut { .. } => (429, "bmc-login-limit"),
            Self::ResetTooSoon { .. } => (429, "bmc-reset-limit"),
            Self::NotTaken { .. } => (502, "bmc-not-taken"),
            Self::NotOnce { .. } => (502, "bmc-not-once"),
            Self::Full => (503, "bmc-full"),
            Self::Late => (504, "bmc-late"),
            Self::Gone => (409, "bmc-changed"),
        };
        let hint = self.hint().to_owned();
        Problem { status, code: code.to_owned(), message: self.to_string(), hint }
    }

    /// A worker that answers something else than was asked: a mistake in the program.
    pub(crate) fn wrong_reply(reply: &Reply) -> Self {
        BmcError::Malformed {
            what: "a request".to_owned(),
            why: format!("{reply:?}").chars().take(80).collect(),
        }
        .into()
    }
}

fn of_kind(kind: ErrorKind) -> (u16, &'static str) {
    match kind {
        ErrorKind::Unreachable => (504, "bmc-unreachable"),
        ErrorKind::TimedOut => (504, "bmc-timeout"),
        ErrorKind::Login => (502, "bmc-login"),
        ErrorKind::Forbidden => (502, "bmc-forbidden"),
        ErrorKind::Certificate => (502, "bmc-certificate"),
        ErrorKind::Tls => (502, "bmc-tls"),
        ErrorKind::OtherOrigin => (502, "bmc-other-origin"),
        ErrorKind::TooLarge => (502, "bmc-too-large"),
        ErrorKind::Malformed => (502, "bmc-malformed"),
        ErrorKind::Refused => (502, "bmc-refused"),
        ErrorKind::Gone => (502, "bmc-gone"),
        ErrorKind::Busy => (503, "bmc-busy"),
        ErrorKind::Unsupported => (422, "bmc-unsupported"),
    }
}
