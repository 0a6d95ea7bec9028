//! Order of resource versions.

use std::cmp::Ordering;

/// Compares two resource versions of one resource as numbers of any length (allowed since
/// Kubernetes 1.35). `None`: at least one is not a number, so all that is known is that they
/// differ.
#[must_use]
pub fn compare(a: &str, b: &str) -> Option<Ordering> {
    if a == b {
        return Some(Ordering::Equal);
    }
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !number(a) || !number(b) {
        return None;
    }
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    Some(a.len().cmp(&b.len()).then_with(|| a.cmp(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers_of_any_length() {
        assert_eq!(compare("9", "10"), Some(Ordering::Less));
        assert_eq!(compare("10", "9"), Some(Ordering::Greater));
        assert_eq!(compare("7", "7"), Some(Ordering::Equal));
        let long = "340282366920938463463374607431768211456";
        assert_eq!(
            compare(long, "340282366920938463463374607431768211457"),
            Some(Ordering::Less)
        );
        assert_eq!(compare("abc", "abd"), None);
        assert_eq!(compare("", "1"), None);
    }
}
