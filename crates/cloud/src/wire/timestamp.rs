//! The two time formats of the job query; Keystone uses the newer one.

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

/// Reads `2024-11-06T06:46:51.929Z` (with any offset) and `04-Jun-2015 18:11:06:586`; a time
/// without a zone is UTC. `None` for everything else: an unreadable time does not invalidate an answer.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    // No known form is longer; the bound keeps the parsers away from megabytes.
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    text.parse::<Timestamp>()
        .ok()
        .or_else(|| text.parse::<DateTime>().ok().and_then(in_utc))
        .or_else(|| parse_day_month_year(text).and_then(in_utc))
}

fn in_utc(time: DateTime) -> Option<Timestamp> {
    TimeZone::UTC.to_timestamp(time).ok()
}

/// `04-Jun-2015 18:11:06:586`: the third colon precedes milliseconds, which may be missing.
fn parse_day_month_year(text: &str) -> Option<DateTime> {
    let separator = text.match_indices([':', '.']).nth(2);
    let (seconds, millis) = match separator {
        Some((at, _)) => (&text[..at], &text[at + 1..]),
        None => (text, "0"),
    };
    // `str::parse` would take a sign.
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !text.starts_with(|c: char| c.is_ascii_digit()) || millis.len() > 3 || !digits(millis) {
        return None;
    }
    let time = DateTime::strptime("%d-%b-%Y %H:%M:%S", seconds).ok()?;
    time.checked_add(SignedDuration::from_millis(millis.parse().ok()?))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_formats_and_their_offsets() {
        for (text, expected) in [
            ("2024-11-06T06:46:51.929Z", "2024-11-06T06:46:51.929Z"),
            ("2024-11-06T06:46:51.929000Z", "2024-11-06T06:46:51.929Z"),
            ("2024-11-06T08:46:51+02:00", "2024-11-06T06:46:51Z"),
            ("2024-11-06T08:46:51+0200", "2024-11-06T06:46:51Z"),
            ("2024-11-06T06:46:51", "2024-11-06T06:46:51Z"),
            ("2024-11-06 06:46:51", "2024-11-06T06:46:51Z"),
            ("2024-11-06T06:46:51Z[u-ca=iso8601]", "2024-11-06T06:46:51Z"),
            ("04-Jun-2015 18:11:06:586", "2015-06-04T18:11:06.586Z"),
            ("04-JUN-2015 18:11:06.586", "2015-06-04T18:11:06.586Z"),
            ("4-Jun-2015 18:11:06", "2015-06-04T18:11:06Z"),
        ] {
            assert_eq!(parse(text), Some(expected.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn everything_else_is_no_time() {
        for text in [
            "",
            " ",
            "null",
            "0",
            "1733000000",
            "31-Feb-2015 00:00:00:000",
            "04-Xyz-2015 18:11:06:586",
            "04-Jun-2015",
            "04-Jun-2015 25:11:06:586",
            "+4-Jun-2015 18:11:06:586",
            "04-Jun-2015 18:11:06:5860",
            "2024-13-06T06:46:51Z",
            "99999-01-01T00:00:00Z",
            "2024-11-06T06:46:51.929000000Z[America/Argentina/ComodRivadavia][u-ca=iso8601]",
            "🦀-Jun-2015 18:11:06:586",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn no_text_of_nearly_the_right_form_makes_it_panic(text in "[0-9+-]{0,6}-(Jun|ä)-[0-9]{0,6} [0-9:.+-]{0,16}") {
            let _ = parse(&text);
        }
    }
}
