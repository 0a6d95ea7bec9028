//! When logins and signatures are tried again.

use std::time::Duration;

/// When logins are tried again. The clouds' API gateway locks an access key for 5 minutes, for
/// all who use it, after more than 5 rejections in a row (its documentation of error `APIGW.0301`).
#[derive(Clone, Debug, PartialEq)]
pub struct Pacing {
    /// Pause after a failed login, doubling up to [`Self::login_retry_max`]. Default 5 s.
    pub login_retry_min: Duration,
    /// Longest pause after logins that failed in a row. Default 60 s.
    pub login_retry_max: Duration,
    /// Pause after a rejected login: each repetition brings the account nearer to a lock. Default
    /// 5 min.
    pub login_rejected: Duration,
    /// Upper bound of any `Retry-After` of an identity service. Default 15 min.
    pub retry_after_max: Duration,
    /// Rejections in a row that open the circuit of a login identity. Default 3.
    pub breaker_rejections: u32,
    /// How long an open circuit permits no attempt; after that it permits one. Default 5 min.
    pub breaker_pause: Duration,
    /// How long the breaker trusts a secret that was accepted. Default 24 h.
    pub breaker_trust: Duration,
    /// After this time a poll is repeated that needs a login while another poll logs in with the same
    /// credential: most logins end within it. Default 1 s.
    pub login_deferral: Duration,
    /// The same for an attempt of a login identity of which as many are in flight as may fail, or for which
    /// it is another namespace's turn. Default 1 s.
    pub breaker_deferral: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            login_retry_min: Duration::from_secs(5),
            login_retry_max: Duration::from_secs(60),
            login_rejected: Duration::from_secs(300),
            retry_after_max: Duration::from_secs(15 * 60),
            breaker_rejections: 3,
            breaker_pause: Duration::from_secs(300),
            breaker_trust: Duration::from_secs(24 * 3600),
            login_deferral: Duration::from_secs(1),
            breaker_deferral: Duration::from_secs(1),
        }
    }
}

impl Pacing {
    /// [`Self::breaker_pause`] in minutes, as messages name it.
    pub(crate) fn breaker_minutes(&self) -> u64 {
        self.breaker_pause.as_secs().div_ceil(60)
    }

    /// All durations multiplied by `factor`, for tests of the operator.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        let scale = |time: Duration| time.mul_f64(factor);
        Self {
            login_retry_min: scale(self.login_retry_min),
            login_retry_max: scale(self.login_retry_max),
            login_rejected: scale(self.login_rejected),
            retry_after_max: scale(self.retry_after_max),
            breaker_rejections: self.breaker_rejections,
            breaker_pause: scale(self.breaker_pause),
            breaker_trust: scale(self.breaker_trust),
            login_deferral: scale(self.login_deferral),
            breaker_deferral: scale(self.breaker_deferral),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_documented_ones_and_scale_together() {
        let secs = Duration::from_secs;
        let documented = |factor: u64| Pacing {
            login_retry_min: secs(5 * factor),
            login_retry_max: secs(60 * factor),
            login_rejected: secs(5 * 60 * factor),
            retry_after_max: secs(15 * 60 * factor),
            breaker_rejections: 3,
            breaker_pause: secs(5 * 60 * factor),
            breaker_trust: secs(24 * 3600 * factor),
            login_deferral: secs(factor),
            breaker_deferral: secs(factor),
        };
        assert_eq!(Pacing::default(), documented(1));
        assert_eq!(Pacing::default().scaled(2.0), documented(2));
    }
}
