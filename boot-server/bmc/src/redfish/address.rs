//! Where a controller is, and which of its links may be followed: those to itself.
//!
//! A controller that was taken over can put any address into `@odata.id`, `Location` or `nextLink`. The only way from
//! such a text to a request is [`Origin::link`], so no credential can leave for another host (DSP0266 has no use for
//! links to other services).

use hyper::Uri;

use super::json::cut;
use super::limits;
use crate::BmcError;

/// Whether plain HTTP may be spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTPS only.
    Tls,
    /// `http://` addresses too: emulators on loopback, tests. Credentials are then sent in the clear.
    PlainAllowed,
}

/// Scheme, host and port of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) tls: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// A path, with its query, at the controller itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Link(String);

impl Origin {
    /// Reads `192.0.2.7`, `bmc.example:8443`, `[2001:db8::7]`, `2001:db8::7` or `https://…` without a path.
    pub(super) fn parse(address: &str, transport: Transport) -> Result<Self, BmcError> {
        let address = address.trim();
        let wrong = |why: &str| BmcError::Unreachable {
            what: format!("`{}` is no address of a BMC: {why}", cut(address)),
        };
        let text = match address.parse::<std::net::Ipv6Addr>() {
            Ok(v6) => format!("https://[{v6}]"),
            Err(_) if address.contains("://") => address.to_owned(),
            Err(_) => format!("https://{address}"),
        };
        let uri: Uri = text.parse().map_err(|_| wrong("give a host name or an IP address"))?;
        let authority = uri.authority().ok_or_else(|| wrong("give a host name or an IP address"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("user name and password are given apart"));
        }
        if !matches!(uri.path(), "" | "/" | "/redfish/v1" | "/redfish/v1/") || uri.query().is_some() {
            return Err(wrong("give it without a path"));
        }
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if transport == Transport::PlainAllowed => false,
            Some("http") => return Err(wrong("plain HTTP would send the password in the clear; use https")),
            _ => return Err(wrong("use https")),
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(wrong("give a host name or an IP address"));
        }
        Ok(Self { tls, host, port: uri.port_u16().unwrap_or(default_port(tls)) })
    }

    /// The `Host` header (RFC 9110, section 7.2).
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.tls) { host } else { format!("{host}:{}", self.port) }
    }

    /// Takes a link that the controller gave, where it leads to the controller itself. The fragment is cut off.
    ///
    /// # Errors
    /// [`BmcError::OtherOrigin`]; [`BmcError::Malformed`] for what is no link. `at` says where it stood.
    pub(super) fn link(&self, at: &str, text: &str) -> Result<Link, BmcError> {
        let malformed = |why: &str| BmcError::Malformed { what: at.to_owned(), why: why.to_owned() };
        let elsewhere = || BmcError::OtherOrigin { to: text.chars().take(200).collect() };
        if text.len() > limits::LINK {
            return Err(malformed("a link is too long"));
        }
        let text_only = text.split('#').next().unwrap_or_default();
        if text_only.starts_with('/') && !text_only.starts_with("//") && !text_only.starts_with("/\\") {
            let uri: Uri = text_only.parse().map_err(|_| malformed("a link is no path"))?;
            return match uri.authority() {
                None => Ok(Link(uri.to_string())),
                Some(_) => Err(elsewhere()),
            };
        }
        if text_only.starts_with('/') || has_scheme(text_only) {
            let uri: Uri = text_only.parse().map_err(|_| elsewhere())?;
            if !self.is_mine(&uri) {
                return Err(elsewhere());
            }
            return Ok(Link(uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)));
        }
        Err(malformed("a link does not begin with `/`"))
    }

    fn is_mine(&self, uri: &Uri) -> bool {
        let Some(tls) = uri.scheme_str().and_then(|s| match s {
            "https" => Some(true),
            "http" => Some(false),
            _ => None,
        }) else {
            return false;
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        tls == self.tls
            && host.eq_ignore_ascii_case(&self.host)
            && uri.port_u16().unwrap_or(default_port(tls)) == self.port
            && !uri.authority().is_some_and(|a| a.as_str().contains('@'))
    }
}

impl Link {
    /// A path that this driver itself knows.
    pub(super) fn known(path: &str) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part of the path, which is the member's id in most services.
    pub(super) fn last(&self) -> &str {
        let path = self.0.split('?').next().unwrap_or_default();
        path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
    }

    /// With a query, where it has none.
    pub(super) fn with_query(&self, query: &str) -> Self {
        if self.0.contains('?') { self.clone() } else { Self(format!("{}?{query}", self.0)) }
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// Whether a text begins as `scheme:` (RFC 3986, section 3.1).
fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn origin(address: &str) -> Origin {
        Origin::parse(address, Transport::PlainAllowed).unwrap()
    }

    #[test]
    fn addresses() {
        for (text, authority) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7:443", "192.0.2.7"),
            ("bmc.example:8443", "bmc.example:8443"),
            ("2001:db8::7", "[2001:db8::7]"),
            ("[2001:db8::7]:8443", "[2001:db8::7]:8443"),
            ("https://192.0.2.7/redfish/v1/", "192.0.2.7"),
            ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ] {
            assert_eq!(origin(text).authority(), authority, "{text}");
        }
        for text in
            ["", "https://", "user:pw@192.0.2.7", "192.0.2.7/other", "ftp://192.0.2.7", "a b", "https://h?x"]
        {
            assert!(Origin::parse(text, Transport::PlainAllowed).is_err(), "{text}");
        }
        assert!(Origin::parse("http://192.0.2.7", Transport::Tls).is_err());
    }

    #[test]
    fn links_lead_to_the_controller_or_nowhere() {
        let bmc = origin("192.0.2.7");
        for (text, path) in [
            ("/redfish/v1/Systems/1", "/redfish/v1/Systems/1"),
            ("/redfish/v1/Chassis/1#/Fans/0", "/redfish/v1/Chassis/1"),
            ("/redfish/v1/Systems?$skip=50", "/redfish/v1/Systems?$skip=50"),
            ("https://192.0.2.7/redfish/v1/TaskService/Tasks/1", "/redfish/v1/TaskService/Tasks/1"),
            ("https://192.0.2.7:443/redfish/v1", "/redfish/v1"),
            ("HTTPS://192.0.2.7/x", "/x"),
        ] {
            assert_eq!(bmc.link("test", text).unwrap().as_str(), path, "{text}");
        }
        for text in [
            "http://169.254.169.254/latest/meta-data/",
            "https://192.0.2.8/redfish/v1/Systems",
            "http://192.0.2.7/redfish/v1/Systems",
            "https://192.0.2.7:8443/",
            "https://192.0.2.7@evil.example/",
            "https://evil.example:443@192.0.2.7/",
            "https://192.0.2.7.evil.example/",
            "//evil.example/redfish/v1",
            "/\\evil.example/",
            "file:///etc/passwd",
            "javascript:1",
            "https:evil.example",
        ] {
            assert_eq!(bmc.link("test", text).unwrap_err().kind(), ErrorKind::OtherOrigin, "{text}");
        }
        for text in ["", "redfish/v1", "/a b", "/a\r\nHost: x", &"/x".repeat(3000)] {
            assert_eq!(bmc.link("test", text).unwrap_err().kind(), ErrorKind::Malformed, "{text}");
        }
    }

    proptest::proptest! {
        /// Whatever a controller sends: what becomes a request is a path at the controller itself.
        #[test]
        fn no_text_leads_elsewhere(text in "(/|https?://|//|[a-z:/@.\\\\]){0,3}[ -~]{0,40}") {
            if let Ok(link) = origin("192.0.2.7").link("test", &text) {
                let uri: Uri = link.as_str().parse().unwrap();
                assert!(uri.authority().is_none() && uri.path().starts_with('/'), "{text} became {link}");
            }
        }
    }

    #[test]
    fn the_last_part_of_a_path() {
        assert_eq!(Link::known("/redfish/v1/Systems/1/").last(), "1");
        assert_eq!(Link::known("/redfish/v1/Systems/a?$skip=1").last(), "a");
    }
}
