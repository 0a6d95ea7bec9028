//! The two time formats of the job query; Keystone uses the newer one.

use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time},
    tz::TimeZone,
};

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

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

/// `04-Jun-2015 18:11:06:586`: the last colon stands before milliseconds.
fn parse_day_month_year(text: &str) -> Option<DateTime> {
    let (date, time) = text.split_once(' ')?;

    let mut date = date.splitn(3, '-');
    let day = number(date.next()?)?;
    let month = date.next()?.to_ascii_lowercase();
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let year = number(date.next()?)?;
    let date = Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;

    let mut time = time.trim().splitn(4, [':', '.']);
    let mut unit = || {
        time.next()
            .and_then(number)
            .and_then(|n| i8::try_from(n).ok())
    };
    let (hour, minute, second) = (unit()?, unit()?, unit()?);
    let millis = match time.next() {
        Some(millis) => i32::from(number(millis).filter(|millis| *millis < 1000)?),
        None => 0,
    };
    let time = Time::new(hour, minute, second, millis * 1_000_000).ok()?;
    Some(DateTime::from_parts(date, time))
}

/// Up to four digits and nothing else (`str::parse` would take a sign).
fn number(digits: &str) -> Option<i16> {
    let plain = (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
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
