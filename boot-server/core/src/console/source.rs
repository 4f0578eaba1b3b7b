//! Where a node's console is: the BMC, or a stream socket (a terminal server, the serial port of a virtual machine).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::words::{Host, WordError, text_serde};

/// Longest path of a socket: what fits `sun_path` (unix(7)) with its end.
const PATH_MAX: usize = 107;

/// A console as it was configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConsoleSource {
    /// `bmc`, `tcp:HOST:PORT` or `unix:/PATH`.
    pub source: Source,
    /// Read also while nobody looks, so that nothing is missed. A socket always is; of a BMC's few sessions this takes
    /// one for ever.
    #[serde(default)]
    pub follow: bool,
}

impl ConsoleSource {
    /// What a node has where nothing was said: its BMC, while somebody looks.
    pub const DEFAULT: Self = Self { source: Source::Bmc, follow: false };

    /// True where it is read also while nobody looks.
    pub fn follows(&self) -> bool {
        self.follow || !matches!(self.source, Source::Bmc)
    }
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Serial over LAN of the node's BMC.
    Bmc,
    /// A TCP port that speaks nothing but the console's octets.
    Tcp {
        /// Host.
        host: Host,
        /// Port.
        port: u16,
    },
    /// A socket of this machine.
    Unix(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bmc => f.write_str("bmc"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl FromStr for Source {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || WordError {
            text: text.chars().take(80).collect(),
            expected: "a console: bmc, tcp:HOST:PORT or unix:/PATH",
        };
        if text == "bmc" {
            return Ok(Self::Bmc);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let plain =
                path.starts_with('/') && path.len() <= PATH_MAX && !path.chars().any(char::is_control);
            return if plain { Ok(Self::Unix(path.to_owned())) } else { Err(wrong()) };
        }
        let (host, port) = text.strip_prefix("tcp:").and_then(|t| t.rsplit_once(':')).ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(wrong)?;
        let bracketed = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        if !bracketed {
            return Err(wrong()); // an IPv6 address whose last group would be taken for the port
        }
        Ok(Self::Tcp { host: host.parse().map_err(|_| wrong())?, port })
    }
}

text_serde!(Source, ToString::to_string);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_consoles_are() {
        for good in
            ["bmc", "tcp:ts-1.example:7001", "tcp:10.0.0.9:23", "tcp:[fd77::9]:7001", "unix:/run/node 1.sock"]
        {
            assert_eq!(good.parse::<Source>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "BMC",
            "tcp:",
            "tcp:host",
            "tcp:host:0",
            "tcp:host:70000",
            "tcp:a b:1",
            "tcp:fd77::9:7001",
            "tcp:user@host:1",
            "unix:",
            "unix:relative",
            "unix:/a\nb",
            "http://host/",
            &format!("unix:/{}", "x".repeat(107)),
        ] {
            assert!(bad.parse::<Source>().is_err(), "{bad:?}");
        }
        assert!(!ConsoleSource::DEFAULT.follows());
        assert!(ConsoleSource { source: "unix:/x".parse().unwrap(), follow: false }.follows());
        let text = r#"{"source":"tcp:10.0.0.9:23"}"#;
        assert!(serde_json::from_str::<ConsoleSource>(text).is_ok());
        assert!(serde_json::from_str::<ConsoleSource>(r#"{"source":"ftp:x"}"#).is_err());
    }
}
