//! Numbers of things, as people say them.

/// `1 core`, `8 cores`: for nouns whose plural is made by an s.
pub fn count(number: impl TryInto<u64>, what: &str) -> String {
    match number.try_into() {
        Ok(1) => format!("1 {what}"),
        Ok(number) => format!("{number} {what}s"),
        Err(_) => format!("many {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn one_is_not_many() {
        assert_eq!([0_usize, 1, 2].map(|n| count(n, "disk")), ["0 disks", "1 disk", "2 disks"]);
        assert_eq!(count(1_u32, "core"), "1 core");
    }
}
