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
        }
    }
}
