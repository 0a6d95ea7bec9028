//! How long the sender of an answer wants no further requests.

use http::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use std::time::{Duration, SystemTime};

/// Upper bound of what is passed on; callers bound it further. It keeps sums with an `Instant`
/// far from overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The `Retry-After` header (RFC 9110): seconds, or a date in one of the three forms of HTTP. A date
/// counts from the answer's own `Date`, so that a skewed local clock does not matter; from `now` where
/// that is missing. `None` where the header is absent, negative, zero, in the past or unreadable.
pub(crate) fn from_headers(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = text(headers, &RETRY_AFTER)?;
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // Digits that no integer holds are a very long time, not garbage.
        return bounded(value.parse().map_or(LONGEST, Duration::from_secs));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let sent = text(headers, &DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    bounded(until.duration_since(sent.unwrap_or(now)).ok()?)
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

/// The period in a throttling text, as in
/// `policy ip over ratelimit,limit:5,time:5 second` or `…,time:1 minute`.
pub(crate) fn from_text(text: &str) -> Option<Duration> {
    let (_, period) = text.split_once("time:")?;
    let period = period.trim_start();
    let digits = period.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = period.split_at(digits);
    let unit = unit.trim_start();
    let seconds_per_unit = [("sec", 1), ("min", 60), ("hour", 3600), ("day", 86_400)]
        .into_iter()
        .find_map(|(name, seconds)| unit.starts_with(name).then_some(seconds))?;
    let seconds = count.parse::<u64>().ok()?.saturating_mul(seconds_per_unit);
    bounded(Duration::from_secs(seconds))
}

fn bounded(period: Duration) -> Option<Duration> {
    (!period.is_zero()).then(|| period.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;
    use proptest::prelude::*;

    fn now() -> SystemTime {
        httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap()
    }

    fn header(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        from_headers(&headers, now())
    }

    #[test]
    fn seconds_and_dates_count_and_everything_else_does_not() {
        assert_eq!(header("5"), Some(Duration::from_secs(5)));
        assert_eq!(header(" 120 "), Some(Duration::from_secs(120)));
        for date in [
            "Wed, 21 Oct 2015 07:29:30 GMT",
            "Wednesday, 21-Oct-15 07:29:30 GMT",
            "Wed Oct 21 07:29:30 2015",
        ] {
            assert_eq!(header(date), Some(Duration::from_secs(90)), "{date}");
        }
        assert_eq!(header("99999999999999999999999999"), Some(LONGEST));
        assert_eq!(header("Thu, 30 Dec 9999 00:00:00 GMT"), Some(LONGEST));
        for nothing in [
            "0",
            "-5",
            "",
            "soon",
            "1.5",
            "Wed, 21 Oct 2015 07:27:00 GMT",
            "Wed, 99 Oct 2015",
        ] {
            assert_eq!(header(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_date_counts_from_the_answers_own_clock() {
        let mut headers = HeaderMap::new();
        headers.insert(
            DATE,
            HeaderValue::from_static("Wed, 21 Oct 2015 09:00:00 GMT"),
        );
        headers.insert(
            RETRY_AFTER,
            HeaderValue::from_static("Wed, 21 Oct 2015 09:00:30 GMT"),
        );
        assert_eq!(from_headers(&headers, now()), Some(Duration::from_secs(30)));
        let past = headers[DATE].clone();
        headers.insert(RETRY_AFTER, past);
        assert_eq!(from_headers(&headers, now()), None);
    }

    #[test]
    fn the_period_in_a_throttling_text() {
        for (text, seconds) in [
            ("policy ip over ratelimit,limit:5,time:5 second", Some(5)),
            (
                "policy user over ratelimit,limit:60,time:1 minute",
                Some(60),
            ),
            ("limit:60,time:2 hours", Some(7200)),
            ("limit:60,time:1day", Some(86_400)),
            ("limit:60,time:0 second", None),
            ("limit:60,time: second", None),
            ("limit:60,time:5 fortnight", None),
            ("too many requests", None),
        ] {
            assert_eq!(from_text(text), seconds.map(Duration::from_secs), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_or_text_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), text in any::<String>()) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.insert(RETRY_AFTER, value.clone());
                headers.insert(DATE, value);
            }
            prop_assert!(from_headers(&headers, now()).is_none_or(|period| period <= LONGEST));
            let _ = from_text(&text);
            let _ = from_text(&format!("time:{text}"));
        }
    }
}
