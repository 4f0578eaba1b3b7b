//! What a request for a file asks for, given what the file is: all of it, a part, or nothing new. Ranges and
//! conditions of RFC 9110, sections 13 and 14; no I/O.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName, Method, header};

/// A modification date is a strong validator only where no second change fits into the same second (RFC 9110 section
/// 8.8.2.2).
const DATE_STEP: Duration = Duration::from_secs(1);

/// By which a client tells one version of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validators {
    /// A strong entity tag, in quotes.
    pub etag: String,
    /// When the file was changed last.
    pub modified: Option<SystemTime>,
}

/// What the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// 200, all of it.
    Whole,
    /// 206, these octets, both ends included.
    Part { first: u64, last: u64 },
    /// 416: there are no such octets.
    Outside,
    /// 304: the client has this version.
    NotModified,
    /// 412: the client wants another version.
    Failed,
}

/// The precedence of RFC 9110 section 13.2.2.
pub(super) fn verdict(
    method: &Method,
    headers: &HeaderMap,
    validators: &Validators,
    size: u64,
    now: SystemTime,
) -> Verdict {
    let text = |name: HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or_default());
    let modified = validators.modified.map(whole_seconds);
    if let Some(tags) = text(header::IF_MATCH) {
        if !lists(tags, &validators.etag, Compare::Strong) {
            return Verdict::Failed;
        }
    } else if let Some(date) = text(header::IF_UNMODIFIED_SINCE).and_then(date)
        && modified.is_some_and(|m| m > date)
    {
        return Verdict::Failed;
    }
    if let Some(tags) = text(header::IF_NONE_MATCH) {
        if lists(tags, &validators.etag, Compare::Weak) {
            return Verdict::NotModified;
        }
    } else if let Some(date) = text(header::IF_MODIFIED_SINCE).and_then(date)
        && modified.is_some_and(|m| m <= date)
    {
        return Verdict::NotModified;
    }
    let same = match text(header::IF_RANGE) {
        None => true,
        Some(tag) if tag.starts_with('"') => tag == validators.etag,
        Some(when) => date(when).is_some_and(|when| {
            modified == Some(when) && now.duration_since(when).is_ok_and(|age| age > DATE_STEP)
        }),
    };
    // Only GET has ranges (section 14.2).
    match text(header::RANGE).filter(|_| same && *method == Method::GET).and_then(|r| range(r, size)) {
        None => Verdict::Whole,
        Some(Some((first, last))) => Verdict::Part { first, last },
        Some(None) => Verdict::Outside,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Strong,
    Weak,
}

/// True where a list of entity tags, or `*`, has this one. Our tags hold no comma.
fn lists(tags: &str, etag: &str, compare: Compare) -> bool {
    tags.split(',').map(str::trim).any(|tag| {
        let weak = tag.strip_prefix("W/").filter(|_| compare == Compare::Weak);
        tag == "*" || tag == etag || weak == Some(etag)
    })
}

fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

/// As it stands in a header.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// The one range that is asked for. Outer `None`: not a single byte range, so it is ignored and the whole is sent.
/// Inner `None`: it lies outside.
fn range(text: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u64>().ok()).flatten();
    match (first.trim(), last.trim()) {
        ("", suffix) => {
            let n = number(suffix)?;
            Some((n > 0 && size > 0).then(|| (size.saturating_sub(n), size - 1)))
        }
        (first, "") => {
            let first = number(first)?;
            Some((first < size).then(|| (first, size - 1)))
        }
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            Some((first < size).then(|| (first, last.min(size - 1))))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const SIZE: u64 = 100;

    fn ask(method: Method, lines: &[(&'static str, &str)]) -> Verdict {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        // 1994-11-06 08:49:37 and a half.
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_500);
        let validators = Validators { etag: "\"abc\"".into(), modified: Some(modified) };
        verdict(&method, &headers, &validators, SIZE, modified + Duration::from_secs(60))
    }

    fn get(lines: &[(&'static str, &str)]) -> Verdict {
        ask(Method::GET, lines)
    }

    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const PART: Verdict = Verdict::Part { first: 10, last: 19 };

    #[test]
    fn ranges() {
        assert_eq!(range("bytes=0-9", 100), Some(Some((0, 9))));
        assert_eq!(range("bytes=90-", 100), Some(Some((90, 99))));
        assert_eq!(range("bytes=-10", 100), Some(Some((90, 99))));
        assert_eq!(range("bytes=-1000", 100), Some(Some((0, 99))));
        assert_eq!(range("bytes=50-1000", 100), Some(Some((50, 99))));
        assert_eq!(range("bytes=100-", 100), Some(None));
        assert_eq!(range("bytes=-0", 100), Some(None));
        assert_eq!(range("bytes=-5", 0), Some(None));
        for ignored in
            ["", "bytes", "bytes=", "bytes=-", "bytes=5-3", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b"]
        {
            assert_eq!(range(ignored, 100), None, "{ignored}");
        }
    }

    #[test]
    fn what_is_known_is_not_sent() {
        for known in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            assert_eq!(get(&[("if-none-match", known)]), Verdict::NotModified, "{known}");
        }
        for other in ["\"x\"", "abc", "", "\"ABC\""] {
            assert_eq!(get(&[("if-none-match", other)]), Verdict::Whole, "{other}");
        }
        assert_eq!(get(&[("if-modified-since", THEN)]), Verdict::NotModified);
        assert_eq!(get(&[("if-modified-since", BEFORE)]), Verdict::Whole);
        assert_eq!(get(&[("if-modified-since", "yesterday")]), Verdict::Whole);
        // The tag counts where both are there.
        assert_eq!(get(&[("if-none-match", "\"x\""), ("if-modified-since", THEN)]), Verdict::Whole);
        assert_eq!(ask(Method::HEAD, &[("if-none-match", "\"abc\"")]), Verdict::NotModified);
    }

    #[test]
    fn another_version_is_refused() {
        assert_eq!(get(&[("if-match", "\"abc\"")]), Verdict::Whole);
        assert_eq!(get(&[("if-match", "*")]), Verdict::Whole);
        assert_eq!(get(&[("if-match", "\"x\"")]), Verdict::Failed);
        assert_eq!(get(&[("if-match", "W/\"abc\"")]), Verdict::Failed);
        assert_eq!(get(&[("if-unmodified-since", THEN)]), Verdict::Whole);
        assert_eq!(get(&[("if-unmodified-since", BEFORE)]), Verdict::Failed);
    }

    #[test]
    fn a_range_of_another_version_is_the_whole() {
        let range = ("range", "bytes=10-19");
        assert_eq!(get(&[range]), PART);
        assert_eq!(get(&[range, ("if-range", "\"abc\"")]), PART);
        assert_eq!(get(&[range, ("if-range", THEN)]), PART);
        for other in ["\"x\"", "W/\"abc\"", BEFORE, "abc", ""] {
            assert_eq!(get(&[range, ("if-range", other)]), Verdict::Whole, "{other}");
        }
        assert_eq!(get(&[("range", "bytes=100-")]), Verdict::Outside);
        assert_eq!(get(&[range, ("if-none-match", "\"abc\"")]), Verdict::NotModified);
        assert_eq!(ask(Method::HEAD, &[range]), Verdict::Whole);
    }

    #[test]
    fn a_date_of_this_second_is_no_strong_validator() {
        let mut headers = HeaderMap::new();
        headers.insert("range", HeaderValue::from_static("bytes=10-19"));
        headers.insert("if-range", HeaderValue::from_static(THEN));
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let validators = Validators { etag: "\"abc\"".into(), modified: Some(modified) };
        let at =
            |ms| verdict(&Method::GET, &headers, &validators, SIZE, modified + Duration::from_millis(ms));
        assert_eq!(at(900), Verdict::Whole);
        assert_eq!(at(1900), PART);
    }
}
