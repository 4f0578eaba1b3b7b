//! Why networks are not as somebody wants them.

use boot_server_core::network::Fault;
use boot_server_core::network::ipam::IpamError;

use crate::store::overlay::Thing;
use crate::view::Problem;

/// Of many faults, so many are said.
const FAULTS_SAID: usize = 5;

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// The site did not say where OVN is.
    #[error("this site has no overlay: set [overlay], or [[switches]], in the server's configuration")]
    Off,
    /// The site has no OVN.
    #[error(
        "this site has no OVN, which carries networks of DPUs and their routers: set [overlay] northbound in the server's configuration"
    )]
    NoOvn,
    /// No fabric of this name, or it cannot be told which.
    #[error("{0}")]
    NoFabric(String),
    /// All VLANs of a fabric have networks.
    #[error("all {count} VLANs of fabric {fabric} have networks")]
    NoVlan {
        /// Its name.
        fabric: String,
        /// How many it has.
        count: usize,
    },
    /// The project has none of this name.
    #[error("no {word} `{name}`")]
    NoSuch {
        /// Such as `network`.
        word: &'static str,
        /// What was asked for.
        name: String,
    },
    /// It cannot be.
    #[error("{}", said(.0))]
    Cannot(Vec<Fault>),
    /// No address.
    #[error(transparent)]
    Address(#[from] IpamError),
    /// It is used.
    #[error("{what} is used: {by}")]
    Used {
        /// What.
        what: String,
        /// By what.
        by: String,
    },
    /// The project has as many as a project may have.
    #[error("the project has {limit} {what}, which is as many as there may be")]
    Full {
        /// Such as `ports`.
        what: &'static str,
        /// At most so many.
        limit: usize,
    },
    /// A name that is none.
    #[error("`{0}` is no name here: 1 to 63 letters, digits, `.`, `_` and `-`, and not an id")]
    BadName(String),
    /// A request that makes no sense.
    #[error("{what}")]
    Bad {
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// The group that every project has.
    #[error("the security group `default` stays: it is what ports get that name none")]
    Default,
}

fn said(faults: &[Fault]) -> String {
    let mut words: Vec<String> = faults.iter().take(FAULTS_SAID).map(ToString::to_string).collect();
    if faults.len() > FAULTS_SAID {
        words.push(format!("and {} more", faults.len() - FAULTS_SAID));
    }
    words.join("; ")
}

impl OverlayError {
    /// None of this kind has the name.
    pub fn no_such<T: Thing>(reference: &str) -> Self {
        Self::NoSuch { word: T::WORD, name: reference.chars().take(80).collect() }
    }

    /// No fabric of this name.
    pub fn no_fabric(named: Option<&str>, has_switches: bool) -> Self {
        let what = match named {
            _ if !has_switches => "this site has no [[switches]] in the server's configuration".to_owned(),
            Some(name) => format!("no switch is of fabric `{}`", name.chars().take(80).collect::<String>()),
            None => "the site has several fabrics: say on which the network is to be".to_owned(),
        };
        Self::NoFabric(what)
    }

    /// A request that makes no sense.
    pub fn bad(what: impl Into<String>, hint: &'static str) -> Self {
        Self::Bad { what: what.into(), hint }
    }

    /// Status, code and hint.
    pub fn problem(&self) -> Problem {
        let (status, code, hint) = match self {
            Self::Off => (409, "no-overlay", "see the guide on networks; then start the server again"),
            Self::NoOvn => (409, "no-ovn", "make a network of driver switch, or see the guide on networks"),
            Self::NoFabric(_) => (409, "no-fabric", "see the switches of the site (`billet switch list`)"),
            Self::NoVlan { .. } => {
                (409, "no-vlan", "remove a network that nobody needs, or widen `vlans` of [[switches]]")
            }
            Self::NoSuch { word, .. } => (404, not_found(word), "list what there is"),
            Self::Cannot(_) => (422, "bad-overlay", "see the guide on networks"),
            Self::Address(IpamError::Exhausted { .. } | IpamError::Taken(_) | IpamError::Macs) => {
                (409, "no-address", "ask for another one, or for none: then the next free one is given")
            }
            Self::Address(_) => (422, "bad-address", "ask for an address of the subnet that is nobody's"),
            Self::Used { .. } => (409, "in-use", "take away what uses it first"),
            Self::Full { .. } => (409, "project-full", "delete those that are not needed"),
            Self::BadName(_) => (422, "bad-name", "choose another name"),
            Self::Bad { hint, .. } => (422, "bad-overlay", *hint),
            Self::Default => (409, "default-group", "change its rules instead"),
        };
        Problem { status, code: code.to_owned(), message: self.to_string(), hint: hint.to_owned() }
    }
}

fn not_found(word: &str) -> &'static str {
    match word {
        "network" => "network-not-found",
        "subnet" => "subnet-not-found",
        "port" => "port-not-found",
        "security group" => "security-group-not-found",
        "router" => "router-not-found",
        "floating address" => "floating-address-not-found",
        "mirror" => "mirror-not-found",
        _ => "not-found",
    }
}
