//! Every grace, period and limit of the tracker, in one place.

use std::time::Duration;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the time between two polls of a healthy job depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PollMode {
    /// On its type and age, by how likely it is to end meanwhile.
    #[default]
    Adaptive,
    /// On nothing: it is the period.
    Fixed,
}

/// The tracker's numbers. Only `poll_period` and the quota are meant for operators to set; the rest
/// is fixed so that a status means the same on every cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Whether that time is the same for all.
    pub poll_mode: PollMode,
    /// Time between two polls of a healthy job; in the adaptive mode on average.
    pub poll_period: Duration,
    /// Length of a second, in which the spec's `…Seconds` fields count, and of which poll instants are multiples.
    pub second: Duration,
    /// Shortest period of slow phases: configuration errors, `JobNotFound`, `DeadlineExceeded`. Also the
    /// patience with an unobserved job whose deadline has passed, and the least with a poll that waits.
    pub slow_period: Duration,
    /// Period while a 404 is within its grace; overrides `pollPeriodSeconds`.
    pub not_found_period: Duration,
    /// Period while an image id is awaited.
    pub image_id_period: Duration,
    /// Attempts to get an image id after the first SUCCESS.
    pub image_id_attempts: u8,
    /// Shortest time between two steps of `progressPercent`.
    pub progress_gap: Duration,
    /// Spread of the first polls of new objects.
    pub first_poll_spread: Duration,
    /// Shortest time between two scheduled polls of one object.
    pub min_poll_gap: Duration,

    /// Time without any answer after which a new object shows `Pending`.
    pub pending_grace: Duration,
    /// A timer that fires later than this shows that the process has slept. That of the machine, so it is
    /// not scaled.
    pub sleep_threshold: Duration,
    /// A run of failures becomes `PollFailed` when it is this long …
    pub failure_grace: Duration,
    /// … and has this many polls. Also the failures in an outage of a host.
    pub failure_polls: u32,
    /// Consecutive failures at a host are an outage of it when they last this long: the first success there
    /// ends the backoff of all objects.
    pub outage_grace: Duration,
    /// A run of 404 answers becomes `JobNotFound` for good when it is this long …
    pub not_found_grace: Duration,
    /// … and has this many polls.
    pub not_found_polls: u32,

    /// Error backoff: floor, added to every wait.
    pub backoff_floor: Duration,
    /// Error backoff: the random part is below `backoff_base · 2^k` …
    pub backoff_base: Duration,
    /// … and below this.
    pub backoff_cap: Duration,
    /// Shortest pause after throttling.
    pub pause_min: Duration,
    /// Longest pause that a `Retry-After` can cause.
    pub pause_max: Duration,

    /// Polls a second in one quota bucket.
    pub quota_rate: f64,
    /// Polls that a quota bucket can save up.
    pub quota_burst: f64,
    /// Polls a second at one host, for all projects …
    pub host_rate: f64,
    /// … and how many can be saved up.
    pub host_burst: f64,
    /// Polls a second of one namespace with credentials that are not shown to belong to their projects …
    pub unproven_rate: f64,
    /// … and how many can be saved up.
    pub unproven_burst: f64,
    /// Throttling multiplies the share of its quota that a bucket uses by this …
    pub share_fall: f64,
    /// … but does not lower it beyond this.
    pub share_min: f64,
    /// The share rises by this …
    pub share_rise: f64,
    /// … after each such time without throttling, up to the whole quota.
    pub share_window: Duration,
    /// Polls in flight in one quota bucket.
    pub quota_in_flight: usize,
    /// Polls in flight in all.
    pub polls_in_flight: usize,

    /// For this long after this process takes over, a status that another leader wrote is believed: a write of
    /// the former leader may land late.
    pub takeover_grace: Duration,

    /// Status writes (and reads to settle them) in flight.
    pub writes_in_flight: usize,
    /// Namespaces with failed writes, and none that succeeded between, that show trouble of the API server itself.
    pub write_trouble_namespaces: usize,
    /// Writes a second of `PollFailed`, `PollOverdue` and causes that `Pending` comes to name: a cloud outage
    /// must not become a write storm.
    pub poll_failed_writes: f64,
    /// Consecutive conflicts on one object after which JSON Patch is used; conflicts of deletions after which
    /// the object is read, and deleted in whatever version.
    pub conflicts_before_json_patch: u32,
    /// How long to wait for the watch to settle a conflict or a lost reply before one read.
    pub confirm_after: Duration,
    /// How long a status that the API server rejected is left alone.
    pub rejected_write_delay: Duration,
    /// So many repairs of one status are made at once. Then somebody else insists, and each waits 1 s,
    /// doubling …
    pub repairs_at_once: u8,
    /// … to this. As long without an edit, and they are made at once again.
    pub repair_delay_max: Duration,
    /// Longest pause of all writes while the API server is in trouble; starts at 1 s and doubles.
    pub write_pause_max: Duration,

    /// A healthy credential's Secret is read again after this time.
    pub credential_refresh: Duration,
    /// A misconfigured credential's Secret is read again after this time, doubling …
    pub credential_retry_min: Duration,
    /// … to this.
    pub credential_retry_max: Duration,
    /// Secret reads a second in all …
    pub credential_reads: f64,
    /// … and how many of them in flight.
    pub credential_reads_in_flight: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            poll_mode: PollMode::Adaptive,
            poll_period: secs(30),
            second: secs(1),
            slow_period: secs(300),
            not_found_period: secs(60),
            image_id_period: secs(10),
            image_id_attempts: 5,
            progress_gap: secs(60),
            first_poll_spread: secs(2),
            min_poll_gap: secs(1),
            pending_grace: secs(10),
            sleep_threshold: secs(10),
            failure_grace: secs(120),
            failure_polls: 3,
            outage_grace: secs(10),
            not_found_grace: secs(300),
            not_found_polls: 5,
            backoff_floor: secs(1),
            backoff_base: secs(2),
            backoff_cap: secs(300),
            pause_min: secs(1),
            pause_max: secs(900),
            quota_rate: 10.0,
            quota_burst: 20.0,
            host_rate: 100.0,
            host_burst: 200.0,
            unproven_rate: 20.0,
            unproven_burst: 40.0,
            share_fall: 0.7,
            share_min: 0.01,
            share_rise: 0.02,
            share_window: secs(10),
            quota_in_flight: 64,
            polls_in_flight: 256,
            takeover_grace: Duration::ZERO,
            writes_in_flight: 32,
            write_trouble_namespaces: 3,
            poll_failed_writes: 20.0,
            conflicts_before_json_patch: 3,
            confirm_after: secs(5),
            rejected_write_delay: secs(60),
            repairs_at_once: 5,
            repair_delay_max: secs(60),
            write_pause_max: secs(30),
            credential_refresh: secs(300),
            credential_retry_min: secs(5),
            credential_retry_max: secs(60),
            credential_reads: 20.0,
            credential_reads_in_flight: 8,
        }
    }
}

impl Config {
    /// The same operator with its clock sped up (`factor` < 1) or slowed down: every time of its own
    /// is multiplied, every rate divided. Counts stay, and so does the bound on what others ask for. For tests against real parts.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        for time in [
            &mut self.poll_period,
            &mut self.second,
            &mut self.slow_period,
            &mut self.not_found_period,
            &mut self.image_id_period,
            &mut self.progress_gap,
            &mut self.first_poll_spread,
            &mut self.min_poll_gap,
            &mut self.pending_grace,
            &mut self.failure_grace,
            &mut self.outage_grace,
            &mut self.not_found_grace,
            &mut self.backoff_floor,
            &mut self.backoff_base,
            &mut self.backoff_cap,
            &mut self.pause_min,
            &mut self.share_window,
            &mut self.confirm_after,
            &mut self.rejected_write_delay,
            &mut self.repair_delay_max,
            &mut self.write_pause_max,
            &mut self.credential_refresh,
            &mut self.credential_retry_min,
            &mut self.credential_retry_max,
        ] {
            *time = time.mul_f64(factor);
        }
        for rate in [
            &mut self.quota_rate,
            &mut self.host_rate,
            &mut self.unproven_rate,
            &mut self.poll_failed_writes,
            &mut self.credential_reads,
        ] {
            *rate /= factor;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_a_promise() {
        let config = Config::default();
        assert_eq!((config.poll_period, config.second), (secs(30), secs(1)));
        assert_eq!(config.slow_period, secs(5 * 60));
        assert_eq!(config.not_found_period, secs(60));
        assert_eq!(
            (config.image_id_attempts, config.image_id_period),
            (5, secs(10))
        );
        assert_eq!(config.progress_gap, secs(60));
        assert_eq!(config.first_poll_spread, secs(2));
        assert_eq!(config.min_poll_gap, secs(1));
        assert_eq!(config.pending_grace, secs(10));
        assert_eq!(config.sleep_threshold, secs(10));
        assert_eq!(
            (config.failure_polls, config.failure_grace),
            (3, secs(2 * 60))
        );
        assert_eq!(config.outage_grace, secs(10));
        assert_eq!(
            (config.not_found_polls, config.not_found_grace),
            (5, secs(5 * 60))
        );
        assert_eq!(
            (
                config.backoff_floor,
                config.backoff_base,
                config.backoff_cap
            ),
            (secs(1), secs(2), secs(300))
        );
        assert_eq!(
            (config.pause_min, config.pause_max),
            (secs(1), secs(15 * 60))
        );
        assert_eq!((config.quota_rate, config.quota_burst), (10.0, 20.0));
        assert_eq!(
            (config.share_fall, config.share_min, config.share_rise),
            (0.7, 0.01, 0.02)
        );
        assert_eq!(config.share_window, secs(10));
        assert_eq!((config.quota_in_flight, config.polls_in_flight), (64, 256));
        assert_eq!(
            (config.writes_in_flight, config.poll_failed_writes),
            (32, 20.0)
        );
        assert_eq!(config.conflicts_before_json_patch, 3);
        assert_eq!(config.confirm_after, secs(5));
        assert_eq!(config.rejected_write_delay, secs(60));
        assert_eq!(
            (config.repairs_at_once, config.repair_delay_max),
            (5, secs(60))
        );
        assert_eq!(config.write_pause_max, secs(30));
        assert_eq!(config.credential_refresh, secs(5 * 60));
        assert_eq!(
            (config.credential_retry_min, config.credential_retry_max),
            (secs(5), secs(60))
        );
        assert_eq!(config.write_trouble_namespaces, 3);
        assert_eq!((config.host_rate, config.host_burst), (100.0, 200.0));
        assert_eq!((config.unproven_rate, config.unproven_burst), (20.0, 40.0));
        assert_eq!(config.credential_reads_in_flight, 8);
        assert!((config.credential_reads - 20.0).abs() < 1e-9);
    }

    #[test]
    fn scaling_keeps_counts() {
        let config = Config::default().scaled(0.1);
        assert_eq!(config.poll_period, secs(3));
        assert!((config.quota_rate - 100.0).abs() < 1e-9);
        assert_eq!(config.not_found_polls, 5);
        assert_eq!(config.sleep_threshold, secs(10));
    }
}
