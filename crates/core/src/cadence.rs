//! When to ask again, as pure arithmetic on times. Nothing here is random: what looks random comes
//! from a hash of the object's uid, so that a run can be replayed and a restart keeps the phase.

use super::config::Config;
use std::time::Duration;

/// Seed of an object's phase and jitter: 64-bit FNV-1a of its uid, finished with a mixer so that
/// uids that differ in one character get unrelated phases.
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

/// Time from `clock` to the next instant ≡ `seed` (mod `period`), at least `gap` away. `clock` is
/// the time since the Unix epoch as of a clock that no step moves, so that a restart finds the same
/// instants.
#[must_use]
pub fn until_phase(seed: u64, period: Duration, clock: Duration, gap: Duration) -> Duration {
    let period_ns = period.as_nanos().max(1);
    let phase = u128::from(seed) % period_ns;
    let position = clock.as_nanos() % period_ns;
    let wait = (phase + period_ns - position) % period_ns;
    let wait = Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
    if wait < gap { wait + period } else { wait }
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

/// How long a bucket pauses: what the other side asked for within bounds, and up to 10 % more so
/// that many operators do not come back in the same instant.
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

    const SEC: Duration = Duration::from_secs(1);

    #[test]
    fn a_restart_finds_the_same_instants() {
        let seed = seed("7c9e6679-7425-40de-944b-e07fc1f90ae7");
        let clock = Duration::from_secs(1_790_000_000);
        let first = clock + until_phase(seed, 30 * SEC, clock, SEC);
        let later = clock + 17 * SEC + Duration::from_millis(3);
        let again = later + until_phase(seed, 30 * SEC, later, SEC);
        let between = again.saturating_sub(first);
        assert_eq!(between.as_nanos() % (30 * SEC).as_nanos(), 0);
    }

    #[test]
    fn phases_are_spread_evenly() {
        let mut slots = [0u32; 30];
        for n in 0..30_000 {
            let wait = until_phase(
                seed(&format!("uid-{n}")),
                30 * SEC,
                Duration::ZERO,
                Duration::ZERO,
            );
            slots[usize::try_from(wait.as_secs()).unwrap()] += 1;
        }
        assert!(slots.iter().all(|&n| (850..1150).contains(&n)), "{slots:?}");
    }

    #[test]
    fn the_gap_keeps_two_polls_apart() {
        let seed = seed("x");
        let at_phase = until_phase(seed, 30 * SEC, Duration::ZERO, Duration::ZERO);
        let just_before = at_phase.checked_sub(SEC / 2).unwrap();
        assert_eq!(
            until_phase(seed, 30 * SEC, just_before, SEC),
            30 * SEC + SEC / 2
        );
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
