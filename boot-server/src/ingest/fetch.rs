//! Image files at URLs. The server stands in networks that a caller may not reach, so it connects only to addresses
//! that were vetted: a name is resolved once, by us, and the connection goes to what was found then. Redirects go
//! through the same door.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use images::{IngestOptions, Source};
use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::view::Problem;

/// Redirects that are followed; mirrors use one or two.
const REDIRECTS_MAX: u32 = 5;
/// Time to resolve a name, and to connect.
const CONNECT: Duration = Duration::from_secs(20);
/// Time to wait for the headers, and for each further piece of the body.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest URL.
const URL_MAX: usize = 2048;

/// Which addresses may be connected to.
#[derive(Debug, Clone, Default)]
pub struct Vetting {
    /// Host names and addresses that are trusted whatever they lead to.
    pub trusted_hosts: Vec<String>,
    /// Our own addresses in the provisioning network.
    pub own: Vec<IpAddr>,
}

/// Why an address is not connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{address}, which is {what}, and no image is fetched from there", lead(host, *address))]
pub struct Refusal {
    /// Host of the URL.
    pub host: String,
    /// Where it leads.
    pub address: IpAddr,
    /// What that is.
    pub what: &'static str,
}

/// The host, where the address does not say it already.
fn lead(host: &str, address: IpAddr) -> String {
    if host == address.to_string() { String::new() } else { format!("{host} leads to ") }
}

impl Vetting {
    /// Says whether `host`, which resolved to `address`, may be connected to.
    ///
    /// # Errors
    /// Where it may not.
    pub fn check(&self, host: &str, address: IpAddr) -> Result<(), Refusal> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if self.trusted_hosts.iter().any(|trusted| trusted.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        let what = if self.own.contains(&embedded(address)) {
            Some("this server itself")
        } else {
            match embedded(address) {
                IpAddr::V4(v4) => special_v4(v4),
                IpAddr::V6(v6) => special_v6(v6),
            }
        };
        what.map_or(Ok(()), |what| Err(Refusal { host: host.to_owned(), address, what }))
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped (RFC 4291 section 2.5.5), NAT64 (RFC 6052), 6to4 (RFC 3056).
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let octets = v6.octets();
    let v4 = |at: usize| {
        let o = |i| octets.get(at + i).copied().unwrap_or(0);
        IpAddr::V4(Ipv4Addr::new(o(0), o(1), o(2), o(3)))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => v4(12),
        [0x2002, ..] => v4(2),
        // IPv4-compatible, long deprecated; ::1 and :: are themselves.
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => v4(12),
        _ => address,
    }
}

/// What a special IPv4 address is (RFC 6890 and the metadata services of clouds).
fn special_v4(v4: Ipv4Addr) -> Option<&'static str> {
    match v4.octets() {
        [127, ..] => Some("a loopback address"),
        [169, 254, ..] => Some("a link-local address, where metadata services live"),
        [100, 100, 100, 200] => Some("a metadata service"),
        [0, ..] => Some("no address of a host"),
        [255, 255, 255, 255] => Some("the broadcast address"),
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("a reserved address"),
        _ => None,
    }
}

fn special_v6(v6: Ipv6Addr) -> Option<&'static str> {
    if v6.is_loopback() {
        Some("a loopback address")
    } else if v6.is_unspecified() {
        Some("no address of a host")
    } else if v6.is_multicast() {
        Some("a multicast address")
    } else if v6.segments()[0] & 0xffc0 == 0xfe80 {
        Some("a link-local address")
    } else if v6 == Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254) {
        Some("a metadata service")
    } else {
        None
    }
}

/// Resolves names and keeps the vetted addresses only.
#[derive(Debug)]
struct VettedResolver {
    inner: DefaultResolver,
    vetting: Vetting,
}

impl Resolver for VettedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let host = uri.host().unwrap_or_default();
        // One bad address among good ones is an attempt; none of them is used.
        for address in found.iter().map(SocketAddr::ip) {
            self.vetting.check(host, address).map_err(|refusal| ureq::Error::Other(Box::new(refusal)))?;
        }
        Ok(found)
    }
}

/// Checks the form of a URL before anything is done with it.
pub(super) fn check_url(text: &str) -> Result<Uri, Problem> {
    let refuse = |message: &str| Problem {
        status: 422,
        code: "image-url".to_owned(),
        message: message.to_owned(),
        hint: "give a URL such as https://host/image.raw.zst".to_owned(),
    };
    if text.len() > URL_MAX {
        return Err(refuse("the URL is too long"));
    }
    let uri: Uri = text.parse().map_err(|_| refuse("this is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(refuse("only http and https URLs are fetched"));
    }
    let Some(authority) = uri.authority() else { return Err(refuse("the URL names no host")) };
    if authority.as_str().contains('@') {
        return Err(refuse("the URL must not hold a user or password"));
    }
    if authority.host().is_empty() {
        return Err(refuse("the URL names no host"));
    }
    Ok(uri)
}

/// Connects and asks. Blocks.
pub(super) fn open(url: &Uri, vetting: &Vetting, options: &mut IngestOptions) -> Result<Source, Problem> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        // A proxy would resolve the name by itself, past the vetting.
        .proxy(None)
        .max_redirects(REDIRECTS_MAX)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(SILENCE_MAX))
        .timeout_per_read(Some(SILENCE_MAX))
        .user_agent(concat!("billet/", env!("CARGO_PKG_VERSION")))
        .build();
    let resolver = VettedResolver { inner: DefaultResolver::default(), vetting: vetting.clone() };
    let agent = Agent::with_parts(config, DefaultConnector::default(), resolver);
    let response = agent.get(url.clone()).call().map_err(|error| cannot(&error))?;
    let status = response.status();
    if status.as_u16() != 200 {
        return Err(problem(502, "image-fetch", format!("{} answered {status}", host(url)), "check the URL"));
    }
    let length = response.body().content_length();
    match (options.expected_size, length) {
        (Some(expected), Some(found)) if expected != found => {
            let message = format!("image file has {found} bytes, {expected} were announced");
            return Err(problem(422, "image-refused", message, "check the file against its source"));
        }
        (None, Some(found)) => options.expected_size = Some(found),
        _ => {}
    }
    let reader = response.into_body().into_with_config().limit(u64::MAX).reader();
    Ok(Source::stream(Body(Box::new(reader))))
}

/// The body; only moved to the threads that read it.
struct Body(Box<dyn Read + Send>);

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

fn host(url: &Uri) -> &str {
    url.host().unwrap_or_default()
}

fn cannot(error: &ureq::Error) -> Problem {
    if let ureq::Error::Other(other) = error
        && let Some(refusal) = other.downcast_ref::<Refusal>()
    {
        let hint = "upload the file, or list the host in images.trusted_hosts if you trust it";
        return problem(422, "image-url-refused", refusal.to_string(), hint);
    }
    let message = format!("cannot fetch the image: {}", super::sentence(error));
    problem(502, "image-fetch", message, "check the URL, and that this server reaches it; or upload the file")
}

fn problem(status: u16, code: &str, message: String, hint: &str) -> Problem {
    Problem { status, code: code.to_owned(), message, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_refused_in_every_disguise() {
        let vetting =
            Vetting { trusted_hosts: vec!["mirror.lan".to_owned()], own: vec![[10, 77, 0, 1].into()] };
        let ok = |text: &str| vetting.check("host", text.parse().unwrap()).is_ok();
        for good in ["192.0.2.1", "10.0.0.9", "192.168.1.5", "2001:db8::1", "fd00::1", "64:ff9b::c000:201"] {
            assert!(ok(good), "{good}");
        }
        let bad = [
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "10.77.0.1",
            "100.100.100.200",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "fd00:ec2::254",
            "::ffff:10.77.0.1",
        ];
        for bad in bad {
            assert!(!ok(bad), "{bad}");
        }
        assert!(vetting.check("MIRROR.lan", "127.0.0.1".parse().unwrap()).is_ok(), "trusted by name");
    }

    #[test]
    fn urls_of_the_wrong_form_are_refused() {
        assert!(check_url("https://host/a.raw").is_ok());
        for bad in [
            "",
            "ftp://host/x",
            "file:///etc/passwd",
            "/x",
            "http://u:p@host/x",
            "http://",
            "http:///x",
            "gopher://h",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
        assert!(check_url(&format!("http://h/{}", "x".repeat(3000))).is_err());
    }
}
