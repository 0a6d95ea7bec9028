//! When to poll again, as pure arithmetic on times. Nothing here is random: what looks random comes
//! from a hash of the object's uid, so that a run can be replayed and a restart finds the same instants.

use crate::{config::Config, time::nanos};
use std::time::Duration;

/// Seed of an object's poll instants and jitter: 64-bit FNV-1a of its uid, finished with a mixer so that
/// uids that differ in one character get unrelated instants.
#[must_use]
pub fn seed(uid: &str) -> u64 {
    mix(uid.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}

/// `SplitMix64`'s finaliser.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The `n`-th draw of the object with this seed, evenly distributed over `0..span`.
#[must_use]
pub fn draw(seed: u64, n: u64, span: Duration) -> Duration {
    let unit = mix(seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 11;
    // 53 random bits, the precision of an f64.
    #[allow(clippy::cast_precision_loss)]
    span.mul_f64(unit as f64 / (1u64 << 53) as f64)
}

/// The first instant of an object with this seed at or after `earliest`, on the steady clock (see
/// [`Moment`](crate::time::Moment)), so that a restart finds the same instants. They are `period` apart and at a
/// multiple of `second` from its begin: what is polled in one second is polled at once, as the cost of a poll is
/// mostly that of a wake-up.
#[must_use]
pub fn next_instant(seed: u64, period: Duration, second: Duration, earliest: Duration) -> Duration {
    let (period, second) = (nanos(period).max(1), nanos(second).max(1));
    let phases = (period / second).max(1);
    let (offset, position) = (seed % phases * second, nanos(earliest) % period);
    let wait = if offset >= position {
        offset - position
    } else {
        offset + period - position
    };
    earliest + Duration::from_nanos(wait)
}

/// The instant about an `interval` from `at`: within a tenth of it the nearest to one of [`next_instant`], so that an
/// object that keeps its interval comes to its instants, and one that changes it is polled in even steps.
#[must_use]
pub fn next_after(seed: u64, interval: Duration, second: Duration, at: Duration) -> Duration {
    let (earliest, latest) = (at + interval * 9 / 10, at + interval * 11 / 10);
    let nearest = next_instant(seed, interval, second, at + interval / 2);
    let seconds = nearest
        .clamp(earliest, latest)
        .div_duration_f64(second)
        .round();
    second.mul_f64(seconds)
}

/// Wait after the `failures`-th failure in a row (from 1): `floor + U(0, min(cap, base · 2^k))`.
#[must_use]
pub fn backoff(config: &Config, seed: u64, failures: u32) -> Duration {
    let doublings = failures.min(16);
    let span = config
        .backoff_base
        .saturating_mul(1 << doublings)
        .min(config.backoff_cap);
    config.backoff_floor + draw(seed, u64::from(failures), span)
}

/// How long a quota bucket pauses: what the cloud asked for within bounds, and up to 10 % more so that
/// many operators do not come back in the same instant.
#[must_use]
pub fn pause(config: &Config, seed: u64, asked: Option<Duration>) -> Duration {
    let pause = asked
        .unwrap_or_default()
        .clamp(config.pause_min, config.pause_max);
    pause + draw(seed, pause.as_secs(), pause / 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const SEC: Duration = Duration::from_secs(1);

    #[test]
    fn a_restart_finds_the_same_instants() {
        let seed = seed("7c9e6679-7425-40de-944b-e07fc1f90ae7");
        let clock = Duration::from_secs(1_790_000_000);
        let first = next_instant(seed, 30 * SEC, SEC, clock + SEC);
        let later = clock + 17 * SEC + Duration::from_millis(3);
        let again = next_instant(seed, 30 * SEC, SEC, later + SEC);
        let between = again.saturating_sub(first);
        assert_eq!(between.as_nanos() % (30 * SEC).as_nanos(), 0);
    }

    #[test]
    fn another_version_of_the_operator_finds_the_same_instants() {
        let seed = seed("7c9e6679-7425-40de-944b-e07fc1f90ae7");
        assert_eq!(seed, 0x1f4c_72f8_750a_c22b);
        let drawn = draw(seed, 1, 300 * SEC);
        assert!(
            (drawn.as_secs_f64() - 272.426_964_955).abs() < 1e-6,
            "{drawn:?}"
        );
    }

    #[test]
    fn phases_are_spread_evenly() {
        let mut slots = [0u32; 30];
        for n in 0..30_000 {
            let wait = next_instant(seed(&format!("uid-{n}")), 30 * SEC, SEC, Duration::ZERO);
            slots[usize::try_from(wait.as_secs()).unwrap()] += 1;
        }
        assert!(slots.iter().all(|&n| (850..1150).contains(&n)), "{slots:?}");
    }

    /// Of a period that is no multiple of a second too: its instants are a period apart all the same.
    #[test]
    fn polls_share_instants_a_second_apart() {
        let offsets = |period: Duration| -> BTreeSet<Duration> {
            let first = |n| next_instant(seed(&format!("uid-{n}")), period, SEC, Duration::ZERO);
            (0..10_000).map(first).collect()
        };
        let whole = |seconds: u64| (0..seconds).map(Duration::from_secs).collect();
        assert_eq!(offsets(30 * SEC), whole(30));
        assert_eq!(offsets(SEC), whole(1));
        assert_eq!(offsets(SEC / 2), whole(1));
        assert_eq!(offsets(SEC * 5 / 2), whole(2));
        let first = next_instant(seed("x"), SEC * 5 / 2, SEC, Duration::ZERO);
        let next = next_instant(seed("x"), SEC * 5 / 2, SEC, first + SEC);
        assert_eq!(next, first + SEC * 5 / 2);
    }

    #[test]
    fn an_instant_just_missed_comes_a_period_later() {
        let seed = seed("x");
        let first = next_instant(seed, 30 * SEC, SEC, Duration::ZERO);
        assert_eq!(next_instant(seed, 30 * SEC, SEC, first), first);
        let missed = first + Duration::from_nanos(1);
        assert_eq!(next_instant(seed, 30 * SEC, SEC, missed), first + 30 * SEC);
    }

    #[test]
    fn backoff_grows_to_its_cap_and_no_further() {
        let config = Config::default();
        for failures in 1..200 {
            let wait = backoff(&config, 42, failures);
            assert!(
                wait >= config.backoff_floor && wait < config.backoff_floor + config.backoff_cap
            );
        }
        let mean = (0..1000u64)
            .map(|s| backoff(&config, s, 1).as_secs_f64())
            .sum::<f64>()
            / 1000.0;
        assert!((2.8..3.2).contains(&mean), "1 + U(0, 4): {mean}");
    }

    #[test]
    fn a_pause_obeys_retry_after_within_bounds() {
        let config = Config::default();
        for (asked, least) in [
            (None, 1),
            (Some(Duration::ZERO), 1),
            (Some(5 * SEC), 5),
            (Some(86_400 * SEC), 900),
        ] {
            let pause = pause(&config, 7, asked);
            let least = Duration::from_secs(least);
            assert!(
                pause >= least && pause <= least.mul_f64(1.1),
                "{asked:?}: {pause:?}"
            );
        }
    }
}
