//! A token bucket on the steady clock.

use std::time::Duration;

/// A token bucket: `rate` tokens a second, at most `burst` saved up. Starts empty, so that a
/// crash loop gains nothing.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    updated: Duration,
}

impl TokenBucket {
    /// An empty bucket as of `now`. It can save up one token at least, or none would ever be taken.
    #[must_use]
    pub fn new(rate: f64, burst: f64, now: Duration) -> Self {
        Self {
            rate,
            burst: burst.max(1.0),
            tokens: 0.0,
            updated: now,
        }
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.updated);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * self.rate).min(self.burst);
        self.updated = self.updated.max(now);
    }

    /// Takes one token.
    ///
    /// # Errors
    /// The time until there is one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.refill(now);
        // A token that is due within a nanosecond is there: the wait below is rounded to those.
        if self.tokens > 1.0 - 1e-6 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let wait = Duration::from_secs_f64((1.0 - self.tokens) / self.rate);
        Err(wait.max(Duration::from_nanos(1)))
    }

    /// Takes (negative) or gives back tokens after the fact; the balance may become negative. Nothing is
    /// given back during a pause.
    pub fn adjust(&mut self, now: Duration, tokens: f64) {
        let is_paused = now < self.updated;
        let most = if is_paused { 0.0 } else { self.burst };
        self.tokens = (self.tokens + tokens).min(most);
    }

    /// Forgets what was saved up, and earns nothing before `until`.
    pub fn pause(&mut self, now: Duration, until: Duration) {
        self.refill(now);
        self.tokens = self.tokens.min(0.0);
        self.updated = self.updated.max(until);
    }
}
