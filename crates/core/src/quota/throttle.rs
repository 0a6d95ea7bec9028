//! How a bucket answers throttling: with fewer polls a second, and after a pause with one poll first.

use crate::config::Config;
use std::time::Duration;

/// The part of its quota that a bucket uses: lowered by throttling, raised while there is none. So polls approach
/// what the cloud permits, where that is less than the quota.
#[derive(Debug)]
pub(super) struct Throttle {
    /// At most 1.
    share: f64,
    /// When it was as much. In the future during a pause.
    since: Duration,
    trial: Trial,
}

/// The first poll after a pause: whoever obeys a `Retry-After` with all that has waited is throttled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    Over,
    Due,
    InFlight,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            share: 1.0,
            since: Duration::ZERO,
            trial: Trial::Over,
        }
    }
}

impl Throttle {
    /// The share at this time.
    pub(super) fn share(&self, config: &Config, at: Duration) -> f64 {
        let clean = at.saturating_sub(self.since).as_secs_f64() / config.share_window.as_secs_f64();
        (self.share + config.share_rise * clean.floor()).min(1.0)
    }

    /// A pause begins.
    pub(super) fn pause(&mut self) {
        self.trial = Trial::Due;
    }

    /// Lowers the share: the cloud throttles, and is asked no more before `until`.
    pub(super) fn lower(&mut self, config: &Config, at: Duration, until: Duration) {
        // What was sent before a pause shows nothing new.
        if at >= self.since {
            self.share = (self.share(config, at) * config.share_fall).max(config.share_min);
        }
        self.since = self.since.max(until);
    }

    /// Whether the first poll after a pause has to be answered before the next one.
    pub(super) fn is_tried(&self) -> bool {
        self.trial == Trial::InFlight
    }

    /// A poll is sent. Returns whether it is the first one after a pause.
    pub(super) fn begin_poll(&mut self) -> bool {
        let is_trial = self.trial == Trial::Due;
        if is_trial {
            self.trial = Trial::InFlight;
        }
        is_trial
    }

    /// The first poll after a pause has ended, or `was_sent` is not true of it. What it was answered with has been
    /// applied before: a pause has another trial.
    pub(super) fn end_trial(&mut self, was_sent: bool) {
        if self.trial == Trial::InFlight {
            self.trial = if was_sent { Trial::Over } else { Trial::Due };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    #[test]
    fn throttling_lowers_the_share_by_30_percent_and_10_s_without_it_raise_it_by_2() {
        let (config, mut throttle) = (Config::default(), Throttle::default());
        let share =
            |throttle: &Throttle, at: u32| format!("{:.3}", throttle.share(&config, SEC * at));
        assert_eq!(share(&throttle, 0), "1.000");
        throttle.lower(&config, SEC * 100, SEC * 105);
        // Polls that were in flight with it are throttled too.
        throttle.lower(&config, SEC * 101, SEC * 106);
        let shares = [101, 106, 115, 116, 126, 1000].map(|at| share(&throttle, at));
        assert_eq!(
            shares,
            ["0.700", "0.700", "0.700", "0.720", "0.740", "1.000"]
        );
        throttle.lower(&config, SEC * 126, SEC * 127);
        assert_eq!(share(&throttle, 127), "0.518");
        for at in 0..100 {
            throttle.lower(&config, SEC * (200 + at), SEC * (201 + at));
        }
        assert_eq!(share(&throttle, 300), "0.010");
    }

    #[test]
    fn after_a_pause_one_poll_is_answered_before_the_next() {
        let mut throttle = Throttle::default();
        assert!(!throttle.begin_poll());
        throttle.pause();
        assert!(!throttle.is_tried() && throttle.begin_poll() && throttle.is_tried());
        // It was not sent after all.
        throttle.end_trial(false);
        assert!(throttle.begin_poll() && throttle.is_tried());
        // Its answer begins another pause.
        throttle.pause();
        throttle.end_trial(true);
        assert!(!throttle.is_tried() && throttle.begin_poll());
        throttle.end_trial(true);
        assert!(!throttle.is_tried() && !throttle.begin_poll());
    }
}
