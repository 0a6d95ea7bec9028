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
        self.tokens = self.tokens_at(now);
        self.updated = self.updated.max(now);
    }

    /// Takes one token.
    ///
    /// # Errors
    /// The time until there is one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        if let Some(wait) = self.wait(now) {
            return Err(wait);
        }
        self.refill(now);
        self.tokens -= 1.0;
        Ok(())
    }

    /// The time until there is a token; `None` where there is one.
    #[must_use]
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        let tokens = self.tokens_at(now);
        // A token that is due within a nanosecond is there: the wait below is rounded to those.
        if tokens > 1.0 - 1e-6 {
            return None;
        }
        let paused = self.updated.saturating_sub(now);
        let wait = paused + Duration::from_secs_f64((1.0 - tokens) / self.rate);
        Some(wait.max(Duration::from_nanos(1)))
    }

    fn tokens_at(&self, now: Duration) -> f64 {
        let elapsed = now.saturating_sub(self.updated);
        (self.tokens + elapsed.as_secs_f64() * self.rate).min(self.burst)
    }

    /// Earns and saves up this much from now on.
    pub fn set_rate(&mut self, now: Duration, rate: f64, burst: f64) {
        self.refill(now);
        (self.rate, self.burst) = (rate, burst.max(1.0));
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

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    /// How many tokens there are at this time.
    fn takes(bucket: &mut TokenBucket, now: Duration) -> u32 {
        let mut taken = 0;
        while bucket.take(now).is_ok() {
            taken += 1;
        }
        taken
    }

    #[test]
    fn it_starts_empty_and_saves_up_to_its_burst() {
        let mut bucket = TokenBucket::new(10.0, 20.0, SEC);
        assert_eq!(takes(&mut bucket, SEC), 0);
        assert_eq!(takes(&mut bucket, 2 * SEC), 10);
        assert_eq!(takes(&mut bucket, 100 * SEC), 20);
        // Even one that saves up less than a token has one in the end.
        let mut slow = TokenBucket::new(0.5, 0.1, SEC);
        assert_eq!(takes(&mut slow, 2 * SEC), 0);
        assert_eq!(takes(&mut slow, 3 * SEC), 1);
    }

    #[test]
    fn the_wait_is_until_the_next_token() {
        let mut bucket = TokenBucket::new(4.0, 20.0, SEC);
        let wait = bucket.take(SEC).expect_err("it is empty");
        assert_eq!(wait, SEC / 4);
        assert!(bucket.take(SEC + wait * 9 / 10).is_err());
        assert!(bucket.take(SEC + wait).is_ok());
        // A clock that stands still or goes back earns nothing.
        assert!(bucket.take(SEC + wait).is_err());
        assert!(bucket.take(SEC).is_err());
    }

    #[test]
    fn tokens_are_taken_and_given_back_after_the_fact() {
        let mut bucket = TokenBucket::new(10.0, 20.0, SEC);
        bucket.adjust(SEC, 1.0);
        assert_eq!(takes(&mut bucket, SEC), 1);
        bucket.adjust(SEC, -5.0);
        assert_eq!(takes(&mut bucket, 2 * SEC), 5);
        bucket.adjust(2 * SEC, 100.0);
        assert_eq!(takes(&mut bucket, 2 * SEC), 20);
    }

    #[test]
    fn another_rate_holds_from_now_on() {
        let mut bucket = TokenBucket::new(10.0, 20.0, SEC);
        bucket.set_rate(2 * SEC, 2.0, 4.0);
        assert_eq!(takes(&mut bucket, 2 * SEC), 4);
        assert_eq!(takes(&mut bucket, 3 * SEC), 2);
        assert_eq!(takes(&mut bucket, 100 * SEC), 4);
    }

    #[test]
    fn a_pause_forgets_what_was_saved_up_and_earns_nothing() {
        let mut bucket = TokenBucket::new(10.0, 20.0, SEC);
        bucket.pause(10 * SEC, 60 * SEC);
        bucket.adjust(30 * SEC, 7.0);
        assert_eq!(takes(&mut bucket, 60 * SEC), 0);
        assert_eq!(takes(&mut bucket, 61 * SEC), 10);
        // What is owed stays owed.
        bucket.adjust(61 * SEC, -3.0);
        bucket.pause(61 * SEC, 62 * SEC);
        bucket.adjust(61 * SEC, 1.0);
        assert_eq!(takes(&mut bucket, 63 * SEC), 8);
    }
}
