//! The adaptive mode: how long a job waits for its next poll, by how likely it is to end meanwhile.
//!
//! Of all ways to spend polls, the one with the least delay until ends are known polls a job of age t at intervals in
//! proportion to 1/√h(t), where h is the hazard: the share of the jobs which have come to that age that end in the
//! next second (Keller, Management Science 21(3), 1974). Here h is learned, for each job type of a namespace, from
//! the jobs that were followed there; finished objects show theirs again after a restart. The factor is such that as
//! many polls are spent on the namespace's jobs as in the fixed mode, and it grows where a quota bucket has too many.
//! Ages and intervals are in seconds of the operator's time.

use crate::config::Config;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Ages are told apart in steps by this factor …
const STEP: f64 = 1.25;
/// … in this number …
const BINS: usize = 25;
/// … from here: the first ends at 75 s, the last begins at 3.5 h.
const FIRST: f64 = 60.0;
/// A job that is found at a greater age was not followed from its beginning.
pub const EARLY: f64 = FIRST * STEP;
/// Without any knowledge, a job of age t ends within the next t with odds that suggest this hazard times t.
const PRIOR: f64 = 0.7;
/// The prior counts as much as so many ends.
const PRIOR_ENDS: f64 = 2.0;
/// Job types of one namespace that are told apart.
const TYPES: usize = 16;
/// The factor is computed anew at most so often, and so is scarcity.
const RENEWAL: Duration = Duration::from_secs(5);
/// The shortest interval, unless the period is shorter.
const SHORTEST: f64 = 5.0;
/// The longest, in periods; or in what each object would get if all of its namespace got the same.
const LONGEST: f64 = 1.25;
/// The share of its rate that a quota bucket is to use.
pub const UTILISATION: f64 = 0.7;

/// The age at which a bin begins; the last one has no end.
fn beginning(bin: usize) -> f64 {
    match bin {
        0 => 0.0,
        BINS.. => f64::INFINITY,
        bin => FIRST * STEP.powi(i32::try_from(bin).unwrap_or(i32::MAX)),
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to the last bin"
)]
fn bin(age: f64) -> usize {
    let steps = (age.max(FIRST) / FIRST).log(STEP);
    (steps as usize).min(BINS - 1)
}

/// How long jobs of one type last: by bin, how many ended there, and for how many seconds jobs were followed there.
#[derive(Clone, Debug, Default)]
struct Lifetimes {
    ended: [f64; BINS],
    followed: [f64; BINS],
    /// How many were followed.
    jobs: f64,
}

impl Lifetimes {
    fn learn(&mut self, (from, to): (f64, f64), is_first: bool, ended: bool) {
        for bin in bin(from)..=bin(to) {
            let time = to.min(beginning(bin + 1)) - from.max(beginning(bin));
            self.followed[bin] += time.max(0.0);
        }
        self.jobs += f64::from(is_first);
        self.ended[bin(to)] += f64::from(ended);
    }

    fn hazard(&self, bin: usize) -> f64 {
        let middle = if bin == 0 {
            beginning(1) / 2.0
        } else {
            beginning(bin) * STEP.sqrt()
        };
        (self.ended[bin] + PRIOR_ENDS) / (self.followed[bin] + PRIOR_ENDS * middle / PRIOR)
    }

    /// For each bin: the hazard, and the time that a job spends there on average.
    fn spent(&self) -> [(f64, f64); BINS] {
        let mut surviving = 1.0;
        std::array::from_fn(|bin| {
            let hazard = self.hazard(bin);
            let width = beginning(bin + 1) - beginning(bin);
            let ends = 1.0 - (-hazard * width).exp();
            let spent = surviving * ends / hazard;
            surviving *= 1.0 - ends;
            (hazard, spent)
        })
    }
}

/// The bounds of intervals.
#[derive(Clone, Copy)]
struct Bounds {
    period: f64,
    longest: f64,
}

impl Bounds {
    fn of(config: &Config, equal: f64) -> Self {
        let period = config.poll_period.div_duration_f64(config.second);
        Self {
            period,
            // Intervals are whole seconds: what is polled no longer than this apart must be counted so.
            longest: (LONGEST * period.max(equal)).floor(),
        }
    }

    fn interval(&self, factor: f64, hazard: f64) -> f64 {
        let shortest = SHORTEST.min(self.period);
        (factor / hazard.sqrt()).clamp(shortest, self.longest)
    }
}

/// What was learned of the jobs of one namespace.
#[derive(Debug, Default)]
struct Namespace {
    types: HashMap<Arc<str>, Lifetimes>,
    /// Of jobs whose type is not known, or one too many.
    others: Lifetimes,
    /// Intervals are this divided by √h.
    factor: f64,
    /// Something was learned that the factor does not know.
    changed: bool,
    /// When the factor was computed.
    renewed: Duration,
}

impl Namespace {
    fn lifetimes(&self, job_type: Option<&str>) -> &Lifetimes {
        let known = job_type.and_then(|name| self.types.get(name));
        known.unwrap_or(&self.others)
    }

    /// Computes the factor with which the jobs of this namespace get as many polls on average as at the period.
    fn renew(&mut self, config: &Config, at: Duration) {
        let is_recent = at < self.renewed + RENEWAL;
        if self.factor > 0.0 && (is_recent || !self.changed) {
            return;
        }
        (self.changed, self.renewed) = (false, at);
        let bounds = Bounds::of(config, 0.0);
        let lifetimes = self.types.values().chain([&self.others]);
        let known = lifetimes.filter(|lifetimes| lifetimes.jobs > 0.0);
        let mut spent: Vec<(f64, f64)> = known
            .flat_map(|lifetimes| {
                let spent = lifetimes.spent();
                spent.map(|(hazard, time)| (hazard, lifetimes.jobs * time))
            })
            .collect();
        if spent.is_empty() {
            spent = self.others.spent().into();
        }
        let polls = |factor: f64| -> f64 {
            let of = |&(hazard, time): &(f64, f64)| time / bounds.interval(factor, hazard);
            spent.iter().map(of).sum()
        };
        let wanted = spent.iter().map(|(_, time)| time).sum::<f64>() / bounds.period;
        let (mut low, mut high) = (1e-3, 1e6);
        for _ in 0..40 {
            let middle = f64::sqrt(low * high);
            if polls(middle) > wanted {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.factor = high;
    }
}

/// The intervals of the adaptive mode.
#[derive(Debug, Default)]
pub struct Adaptive(HashMap<Arc<str>, Namespace>);

impl Adaptive {
    /// A namespace has no objects any more.
    pub fn forget(&mut self, namespace: &str) {
        self.0.remove(namespace);
    }

    /// Of how many namespaces something is known.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A job of this type was followed from one age to another, and ended there, or did not. `is_first`: it is to be
    /// counted.
    pub fn learn(
        &mut self,
        namespace: &Arc<str>,
        job_type: Option<&Arc<str>>,
        (from, to): (f64, f64),
        is_first: bool,
        ended: bool,
    ) {
        let known = self.0.entry(namespace.clone()).or_default();
        let types = known.types.len();
        let job_type = job_type.filter(|name| types < TYPES || known.types.contains_key(*name));
        let lifetimes = match job_type {
            Some(name) => known.types.entry(name.clone()).or_default(),
            None => &mut known.others,
        };
        lifetimes.learn((from.min(to), to), is_first, ended);
        known.changed = true;
    }

    /// How long a job of this type and age waits for its next poll, in seconds. `scarcity`: how much longer than
    /// with an unlimited quota; `equal`: how long if all objects of its namespace got the same.
    pub fn interval(
        &mut self,
        config: &Config,
        at: Duration,
        namespace: &Arc<str>,
        (job_type, age): (Option<&str>, f64),
        (scarcity, equal): (f64, f64),
    ) -> u32 {
        let known = self.0.entry(namespace.clone()).or_default();
        known.renew(config, at);
        let (lifetimes, factor) = (known.lifetimes(job_type), known.factor * scarcity);
        let bounds = Bounds::of(config, equal);
        // Polls are so dense at each age that this is the age at which the next one is due.
        let (mut from, mut part) = (age, 1.0);
        for bin in bin(age)..BINS {
            let interval = bounds.interval(factor, lifetimes.hazard(bin));
            let due = from + part * interval;
            if due <= beginning(bin + 1) {
                from = due;
                break;
            }
            part -= (beginning(bin + 1) - from) / interval;
            from = beginning(bin + 1);
        }
        rounded(from - age, bounds.longest)
    }
}

/// The next of 5, 6, 7, 8, 10, 11, 13, 16 … seconds, each by 2^¼ longer: so a job keeps an interval for a while, and
/// within one its instants, which a restart finds again.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 1 s to some days"
)]
fn rounded(interval: f64, longest: f64) -> u32 {
    let step = (4.0 * interval.log2()).round();
    let rounded = (step / 4.0).exp2().round();
    rounded.min(longest).max(1.0) as u32
}

/// How scarce polls are for a namespace in a quota bucket: by so much longer than wanted are the intervals of its
/// objects, so that they use their part of [`UTILISATION`] of the rate.
#[derive(Clone, Copy, Debug)]
pub struct Scarcity {
    value: f64,
    renewed: Duration,
}

impl Scarcity {
    /// There are polls for all.
    #[must_use]
    pub fn none(at: Duration) -> Self {
        Self {
            value: 1.0,
            renewed: at,
        }
    }

    /// The scarcity now, where so many times as many polls are wanted as there may be.
    pub fn renew(&mut self, at: Duration, wanted: f64) -> f64 {
        let elapsed = at.saturating_sub(self.renewed).div_duration_f64(RENEWAL);
        if elapsed >= 1.0 {
            // The square root of the price of a poll, which changes by e^0.2 where twice too many are wanted.
            let change = 0.1 * (wanted - 1.0).clamp(-1.0, 5.0);
            self.value = (self.value * (change * elapsed.min(10.0)).exp()).clamp(1.0, 1e3);
            self.renewed = at;
        }
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_counts_after_years_of_polls() {
        let mut lifetimes = Lifetimes::default();
        let (age, years) = (20_000.0, 1e12);
        lifetimes.followed[bin(age)] = years;
        lifetimes.learn((age, age + 5.0), false, false);
        assert!((lifetimes.followed[bin(age)] - years - 5.0).abs() < 0.1);
    }
}
