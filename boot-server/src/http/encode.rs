//! Texts in URLs.

/// A text as one segment of a path, or one value of a query: everything but unreserved characters is percent-encoded
/// (RFC 3986 section 2.3).
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_segment() {
        assert_eq!(encode("rack-1_a.b~"), "rack-1_a.b~");
        assert_eq!(encode("../x y?&#ü"), "..%2Fx%20y%3F%26%23%C3%BC");
    }
}
