//! HTTP/1.1 (RFC 9112) as far as firmware, iPXE and the agent need it: requests as octets, answers with a length.

use std::net::Ipv4Addr;

/// Octets of a body that are kept; of larger ones only the number is.
const BODY_KEPT_MAX: usize = 64 << 10;
/// Longest head of an answer.
const HEAD_MAX: usize = 16 << 10;

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// The server.
    pub host: (Ipv4Addr, u16),
    /// Path and query.
    pub path: String,
}

impl Url {
    /// Reads an `http` URL whose host is an IPv4 address.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://")?;
        let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (address, port) = host.split_once(':').unwrap_or((host, "80"));
        Some(Self { host: (address.parse().ok()?, port.parse().ok()?), path: path.to_owned() })
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: &'static str,
    /// Where.
    pub url: Url,
    /// Header lines without their ends.
    pub headers: Vec<String>,
    /// Body.
    pub body: Vec<u8>,
}

impl Request {
    /// `GET url`.
    pub fn get(url: Url) -> Self {
        Self { method: "GET", url, headers: Vec::new(), body: Vec::new() }
    }

    /// `HEAD url`.
    pub fn head(url: Url) -> Self {
        Self { method: "HEAD", ..Self::get(url) }
    }

    /// A JSON body.
    pub fn json(method: &'static str, url: Url, body: Vec<u8>) -> Self {
        Self { method, url, headers: vec!["Content-Type: application/json".to_owned()], body }
    }

    /// Another header line.
    pub fn with(mut self, header: String) -> Self {
        self.headers.push(header);
        self
    }

    /// Its octets.
    pub fn bytes(&self) -> Vec<u8> {
        let (address, port) = self.url.host;
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {address}:{port}\r\n", self.method, self.url.path);
        for header in &self.headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        if !self.body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        [head.into_bytes(), self.body.clone()].concat()
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// What `Content-Length` says.
    pub length: u64,
    /// The server closes the connection.
    pub closes: bool,
    /// The first octets of the body, at most 64 KiB.
    pub body: Vec<u8>,
}

impl Response {
    /// 200 or 206, or another of the kind.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Reads one answer from the octets of a connection.
#[derive(Debug, Default)]
pub struct Reader {
    head: Vec<u8>,
    response: Option<Response>,
    received: u64,
    /// The answer to HEAD has no body, whatever its length says.
    bodiless: bool,
}

impl Reader {
    /// For the answer to this request.
    pub fn new(request: &Request) -> Self {
        Self { bodiless: request.method == "HEAD", ..Self::default() }
    }

    /// True where not one octet came.
    pub fn is_fresh(&self) -> bool {
        self.head.is_empty()
    }

    /// Takes octets in; the answer when it is whole.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Option<Response>, String> {
        if self.response.is_none() {
            let before = self.head.len();
            self.head.extend(bytes);
            let Some(end) = self.head.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) else {
                if self.head.len() > HEAD_MAX {
                    return Err("the head of the answer has no end".to_owned());
                }
                return Ok(None);
            };
            bytes = &bytes[end - before..];
            let text = String::from_utf8_lossy(&self.head[..end]).into_owned();
            self.response = Some(read_head(&text)?);
        }
        let Some(response) = &mut self.response else { return Ok(None) };
        let room = BODY_KEPT_MAX.saturating_sub(response.body.len()).min(bytes.len());
        response.body.extend(&bytes[..room]);
        self.received += bytes.len() as u64;
        let whole = self.bodiless || self.received >= response.length;
        Ok(if whole { self.response.take() } else { None })
    }
}

fn read_head(text: &str) -> Result<Response, String> {
    let mut lines = text.lines();
    let status = lines.next().and_then(|l| l.strip_prefix("HTTP/1.1 ")).and_then(|l| l.get(..3));
    let status = status.and_then(|s| s.parse().ok()).ok_or("the answer is no HTTP/1.1")?;
    let mut response = Response { status, ..Response::default() };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                response.length = value.trim().parse().map_err(|_| "a length that is none")?
            }
            "connection" => response.closes = value.trim().eq_ignore_ascii_case("close"),
            "transfer-encoding" => {
                return Err("an answer without a length, which iPXE of 2019 reads badly".into());
            }
            _ => {}
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = Url::parse("http://10.77.0.1:8080/boot/x?a=b").unwrap();
        assert_eq!((url.host, url.path.as_str()), ((Ipv4Addr::new(10, 77, 0, 1), 8080), "/boot/x?a=b"));
        assert_eq!(Url::parse("http://10.77.0.1").unwrap().path, "/");
        assert_eq!(Url::parse("tftp://10.77.0.1/x"), None);
    }

    #[test]
    fn answers_come_in_any_pieces() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        for piece in 1..bytes.len() {
            let request = Request::get(Url::parse("http://10.0.0.1/").unwrap());
            let mut reader = Reader::new(&request);
            let mut got = None;
            for part in bytes.chunks(piece) {
                assert_eq!(got, None);
                got = reader.push(part).unwrap();
            }
            let got = got.unwrap();
            assert_eq!((got.status, got.closes, got.body.as_slice()), (200, true, b"hello".as_slice()));
        }
    }

    #[test]
    fn the_answer_to_head_has_no_body() {
        let mut reader = Reader::new(&Request::head(Url::parse("http://10.0.0.1/").unwrap()));
        let got = reader.push(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n").unwrap().unwrap();
        assert_eq!((got.length, got.body.len()), (99, 0));
        assert!(Reader::default().push(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
