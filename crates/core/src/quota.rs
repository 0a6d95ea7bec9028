//! Who may ask now: token buckets with a queue, a cap on what is in flight, and a pause.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

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

    /// Takes one token, or says how long until there is one.
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

    /// Takes or gives back tokens after the fact; the balance may become negative.
    pub fn adjust(&mut self, tokens: f64) {
        self.tokens = (self.tokens + tokens).min(self.burst);
    }

    /// Forgets what was saved up, and earns nothing before `until`.
    fn pause(&mut self, now: Duration, until: Duration) {
        self.refill(now);
        self.tokens = self.tokens.min(0.0);
        self.updated = self.updated.max(until);
    }
}

/// An object waiting for its turn: earliest due time first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// When it became due; zero for a poll that somebody asked for.
    pub due: Duration,
    /// Which object.
    pub index: u32,
    /// Which incarnation of it.
    pub serial: u32,
}

/// The polls of one quota: one (credential, project) until the cloud has accepted the credential,
/// one (endpoint host, project) from then on.
#[derive(Debug)]
pub struct PollBucket {
    tokens: TokenBucket,
    max_in_flight: usize,
    /// Polls sent and not yet answered.
    pub in_flight: usize,
    /// No poll before this time.
    pub paused_until: Duration,
    /// Lanes (see [`super::lanes`]) that use this bucket.
    pub lanes: u32,
    queue: BinaryHeap<Reverse<Waiting>>,
    /// The wake-up that is already in the timer heap.
    pub wake_at: Option<Duration>,
    /// It is in the round of buckets that may have a poll to send.
    pub ready: bool,
}

/// What a bucket says when asked for its next poll.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// This object may ask now; its token is taken.
    Go(Waiting),
    /// Nobody may before this time.
    NotBefore(Duration),
    /// Nobody is waiting, or an answer has to come in first.
    Idle,
}

impl PollBucket {
    /// An empty bucket as of `now`.
    #[must_use]
    pub fn new(rate: f64, burst: f64, max_in_flight: usize, now: Duration) -> Self {
        Self {
            tokens: TokenBucket::new(rate, burst, now),
            max_in_flight,
            in_flight: 0,
            paused_until: Duration::ZERO,
            lanes: 0,
            queue: BinaryHeap::new(),
            wake_at: None,
            ready: false,
        }
    }

    /// Queues an object.
    pub fn push(&mut self, waiting: Waiting) {
        self.queue.push(Reverse(waiting));
    }

    /// Moves all that waits here to another bucket.
    pub fn pour_into(&mut self, other: &mut Self) {
        other.queue.append(&mut self.queue);
    }

    /// Nobody asks before `until`, and nothing is saved up meanwhile: what follows a pause is
    /// spread by the rate, not sent as a burst.
    pub fn pause(&mut self, now: Duration, until: Duration) {
        self.paused_until = self.paused_until.max(until);
        self.tokens.pause(now, self.paused_until);
    }

    /// Settles the tokens of a poll that took `requests` requests; one was taken beforehand.
    pub fn settle(&mut self, requests: u32) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.tokens.adjust(1.0 - f64::from(requests));
    }

    /// The next poll. `wanted` tells entries that still stand from stale ones.
    pub fn turn(&mut self, now: Duration, wanted: impl Fn(&Waiting) -> bool) -> Turn {
        loop {
            let Some(Reverse(first)) = self.queue.peek().copied() else {
                return Turn::Idle;
            };
            if !wanted(&first) {
                self.queue.pop();
                continue;
            }
            if self.in_flight >= self.max_in_flight {
                return Turn::Idle;
            }
            if now < self.paused_until {
                return Turn::NotBefore(self.paused_until);
            }
            return match self.tokens.take(now) {
                Ok(()) => {
                    self.queue.pop();
                    self.in_flight += 1;
                    Turn::Go(first)
                }
                Err(wait) => Turn::NotBefore(now + wait),
            };
        }
    }

    /// Whether nothing would be lost by dropping this bucket.
    #[must_use]
    pub fn is_disposable(&self, now: Duration) -> bool {
        self.lanes == 0 && self.in_flight == 0 && now >= self.paused_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    fn bucket() -> PollBucket {
        PollBucket::new(10.0, 20.0, 64, Duration::ZERO)
    }

    /// Runs the bucket until `end` and returns the times at which polls went out.
    fn run(bucket: &mut PollBucket, mut now: Duration, end: Duration) -> Vec<Duration> {
        let mut sent = Vec::new();
        loop {
            match bucket.turn(now, |_| true) {
                Turn::Go(_) => {
                    sent.push(now);
                    bucket.in_flight -= 1;
                }
                Turn::NotBefore(at) if at <= end => now = at,
                _ => return sent,
            }
        }
    }

    fn fill(bucket: &mut PollBucket, n: u32) {
        for index in 0..n {
            bucket.push(Waiting {
                due: Duration::from_millis(index.into()),
                index,
                serial: 0,
            });
        }
    }

    #[test]
    fn starts_empty_and_keeps_the_rate() {
        let mut bucket = bucket();
        fill(&mut bucket, 1000);
        let sent = run(&mut bucket, Duration::ZERO, 10 * SEC);
        assert_eq!(sent.len(), 100);
        assert_eq!(sent[0], Duration::from_millis(100));
    }

    #[test]
    fn a_rate_far_below_one_still_polls() {
        let mut bucket = PollBucket::new(0.1, 0.2, 64, Duration::ZERO);
        fill(&mut bucket, 1000);
        assert_eq!(run(&mut bucket, Duration::ZERO, 60 * SEC).len(), 6);
    }

    #[test]
    fn saves_up_a_burst_and_no_more() {
        let mut bucket = bucket();
        fill(&mut bucket, 1000);
        let sent = run(&mut bucket, 3600 * SEC, 3600 * SEC);
        assert_eq!(sent.len(), 20);
    }

    #[test]
    fn earliest_due_goes_first() {
        let mut bucket = bucket();
        for (index, due) in [(1, 9), (2, 3), (3, 0)] {
            bucket.push(Waiting {
                due: Duration::from_secs(due),
                index,
                serial: 0,
            });
        }
        let order: Vec<_> = std::iter::from_fn(|| match bucket.turn(60 * SEC, |_| true) {
            Turn::Go(waiting) => Some(waiting.index),
            _ => None,
        })
        .collect();
        assert_eq!(order, [3, 2, 1]);
    }

    #[test]
    fn a_pause_is_kept_and_followed_by_no_burst() {
        let mut bucket = bucket();
        fill(&mut bucket, 1000);
        bucket.pause(60 * SEC, 65 * SEC);
        let sent = run(&mut bucket, 60 * SEC, 75 * SEC);
        assert!(sent[0] >= 65 * SEC, "{:?}", sent[0]);
        assert!((99..=100).contains(&sent.len()), "{}", sent.len());
    }

    #[test]
    fn what_is_in_flight_is_capped() {
        let mut bucket = PollBucket::new(1e6, 1e6, 64, Duration::ZERO);
        fill(&mut bucket, 100);
        let mut sent = 0;
        while let Turn::Go(_) = bucket.turn(SEC, |_| true) {
            sent += 1;
        }
        assert_eq!((sent, bucket.in_flight), (64, 64));
        bucket.settle(1);
        assert!(matches!(bucket.turn(SEC, |_| true), Turn::Go(_)));
    }

    #[test]
    fn a_second_request_costs_a_second_token_and_none_costs_none() {
        let mut bucket = bucket();
        fill(&mut bucket, 10);
        assert!(matches!(bucket.turn(SEC / 10, |_| true), Turn::Go(_)));
        bucket.settle(3);
        assert_eq!(
            bucket.turn(SEC / 10, |_| true),
            Turn::NotBefore(SEC * 4 / 10)
        );
        assert!(matches!(bucket.turn(SEC * 4 / 10, |_| true), Turn::Go(_)));
        bucket.settle(0);
        assert!(matches!(bucket.turn(SEC * 4 / 10, |_| true), Turn::Go(_)));
    }

    #[test]
    fn stale_entries_cost_nothing() {
        let mut bucket = bucket();
        fill(&mut bucket, 2);
        assert_eq!(
            bucket.turn(SEC / 10, |waiting| waiting.index == 1),
            Turn::Go(Waiting {
                due: Duration::from_millis(1),
                index: 1,
                serial: 0
            })
        );
    }
}
