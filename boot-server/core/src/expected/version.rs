//! Versions of firmware as makers write them: `2.19.1`, `U32 v2.68 (07/14/2022)`, `1.20.5-r3`.

use std::cmp::Ordering;

/// Compares piece by piece: numbers as numbers, letters as letters. What lies between says nothing. A version that ends
/// first is the older one.
pub(super) fn cmp(a: &str, b: &str) -> Ordering {
    let (a, b) = (pieces(a), pieces(b));
    for (a, b) in a.iter().zip(&b) {
        let order = match (a.trim_start_matches('0'), b.trim_start_matches('0')) {
            (x, y) if is_number(a) && is_number(b) => (x.len(), x).cmp(&(y.len(), y)),
            _ => a.to_lowercase().cmp(&b.to_lowercase()),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn is_number(piece: &str) -> bool {
    piece.starts_with(|c: char| c.is_ascii_digit())
}

fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let digits = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
            pieces.push(&rest[..end]);
            rest = &rest[end..];
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_as_numbers() {
        for (older, newer) in [
            ("2.9.1", "2.19.1"),
            ("2.19", "2.19.1"),
            ("U32 v2.68 (07/14/2022)", "U32 v2.70"),
            ("1.2a", "1.2b"),
            ("99999999999999999999", "100000000000000000000"),
        ] {
            assert_eq!(cmp(older, newer), Ordering::Less, "{older} {newer}");
            assert_eq!(cmp(newer, older), Ordering::Greater, "{older} {newer}");
        }
        assert_eq!(cmp("v1.02", "V1.2"), Ordering::Equal);
        assert_eq!(cmp("", ""), Ordering::Equal);
        assert_eq!(cmp("é1", "1"), Ordering::Equal, "only letters and digits of ASCII count");
    }
}
