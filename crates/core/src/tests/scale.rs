//! The whole lifecycles of many jobs, with the exact number of polls and writes.

use super::{
    samples::{fail, init, millis, object, running, secs, success, unavailable, unlimited},
    world::World,
};
use crate::{Config, cadence};
use image_export_model::{JobState, Observation, Outcome};
use jiff::Timestamp;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The lifecycle of the n-th job.
struct Plan {
    created: Duration,
    /// Ages at which the job starts and ends.
    starts: Duration,
    ends: Duration,
    fails: bool,
    /// The cloud answers 503 between these ages.
    outage: (Duration, Duration),
}

impl Plan {
    /// Of 100 jobs, 60 take 2 minutes, 39 take 5 minutes and 1 takes an hour. Every tenth job fails, every
    /// third waits before it starts, every twentieth has an outage of up to 6 minutes.
    fn of(n: u64) -> Self {
        let class = match n % 100 {
            0..60 => 120,
            60..99 => 300,
            _ => 3600,
        };
        let outage = if n % 20 == 7 { 60 * (n / 20 % 7) } else { 0 };
        Self {
            created: secs(1) + millis(6 * n),
            starts: secs(if n.is_multiple_of(3) { 20 } else { 0 }),
            ends: secs(class) + millis(7 * (n % 4001)),
            fails: n.is_multiple_of(10),
            outage: (secs(50), secs(50 + outage)),
        }
    }

    fn cloud_reports(&self, now: Duration) -> Observation {
        let age = now.saturating_sub(self.created);
        if age >= self.outage.0 && age < self.outage.1 {
            unavailable()
        } else if age < self.starts {
            init()
        } else if age < self.ends {
            running()
        } else if self.fails {
            fail()
        } else {
            success()
        }
    }

    /// The number of polls and of visible transitions of the lifecycle, given when the first poll is sent
    /// and how long an answer takes.
    fn expected(&self, uid: &str, first: Duration, poll_time: Duration) -> (u32, u32) {
        let config = Config::default();
        let seed = cadence::seed(uid);
        let epoch = super::samples::beginning().duration_since(Timestamp::UNIX_EPOCH);
        let period = config.poll_period.as_nanos();
        let offset = u128::from(seed % config.poll_period.as_secs()) * secs(1).as_nanos();
        // The first time at this object's offset in the period that is at least a second from now.
        let next_instant = |now: Duration| {
            let earliest = (epoch.unsigned_abs() + now + secs(1)).as_nanos();
            let wait = (offset + period - earliest % period) % period;
            now + secs(1) + Duration::from_nanos(u64::try_from(wait).expect("below a period"))
        };
        let (mut polls, mut writes) = (0, 0);
        let (mut failures, mut failing_since) = (0u32, Duration::ZERO);
        let mut shown = String::new();
        let mut at = first;
        loop {
            polls += 1;
            let answered = at + poll_time;
            let (visible, next) =
                if let Outcome::Answered(answer) = self.cloud_reports(answered).outcome {
                    failures = 0;
                    (format!("{:?}", answer.state), next_instant(answered))
                } else {
                    failures += 1;
                    if failures == 1 {
                        failing_since = answered;
                    }
                    let long = failures >= 3 && answered - failing_since >= secs(120);
                    let visible = if long { "PollFailed" } else { &shown };
                    let next = answered + cadence::backoff(&config, seed, failures);
                    (visible.to_owned(), next)
                };
            if visible != shown {
                writes += 1;
                shown = visible;
            }
            let ends = [JobState::Success, JobState::Fail].map(|end| format!("{end:?}"));
            if ends.contains(&shown) {
                return (polls, writes);
            }
            at = next;
        }
    }
}

fn number(name: &str) -> u64 {
    name.rsplit('x')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("names are x and a number")
}

#[test]
fn one_hundred_thousand_jobs_cost_exactly_the_polls_and_writes_of_their_lifecycles() {
    const JOBS: u64 = 100_000;
    let began = Instant::now();
    let mut world = World::with(Config {
        poll_failed_writes: 1e6,
        ..unlimited()
    });
    world.check_decisions = false;
    world.keep_log = false;
    world.cloud_by_default = Box::new(|job, now| Plan::of(number(job)).cloud_reports(now));
    for n in 0..JOBS {
        world.run_until(Plan::of(n).created);
        world.create(object(&format!("x{n}")));
        if n % 5000 == 0 {
            delete_finished(&mut world);
        }
    }
    for _ in 0..150 {
        world.run(100);
        delete_finished(&mut world);
    }
    assert!(world.objects.is_empty(), "all jobs have ended");
    assert_eq!(world.tracker.state.jobs.iter().count(), 0);

    let mut polled: HashMap<u64, (Duration, u32)> = HashMap::new();
    for poll in &world.polls {
        polled.entry(number(&poll.name)).or_insert((poll.at, 0)).1 += 1;
    }
    let mut writes = 0;
    for n in 0..JOBS {
        let (first, polls) = polled[&n];
        // The API server numbers the objects in the order of their creation.
        let expected = Plan::of(n).expected(&format!("uid-{}", n + 1), first, world.poll_time);
        assert_eq!(polls, expected.0, "polls of job {n}");
        writes += expected.1 as usize;
    }
    assert_eq!(
        world.landed, writes,
        "one write for each visible transition"
    );
    assert_eq!(world.fetches.len(), 0);
    println!(
        "{JOBS} jobs, {} polls, {} writes, {:.1} h of virtual time in {:.1} s",
        world.polls.len(),
        world.landed,
        world.now.as_secs_f64() / 3600.0,
        began.elapsed().as_secs_f64()
    );
}

fn delete_finished(world: &mut World) {
    let ended = world.objects.values().filter(|object| {
        object
            .status
            .as_ref()
            .is_some_and(|status| status.completion_time.is_some())
    });
    let ended: Vec<String> = ended
        .filter_map(|object| object.metadata.name.clone())
        .collect();
    for name in ended {
        let plan = Plan::of(number(&name));
        assert!(world.now >= plan.created + plan.ends);
        let end = if plan.fails { "FAIL" } else { "SUCCESS" };
        assert_eq!(world.status(&name).status.as_deref(), Some(end), "{name}");
        world.delete(&name);
    }
}

#[test]
fn three_thousand_jobs_share_a_scarce_quota_evenly() {
    let mut world = World::new();
    world.check_decisions = false;
    for n in 0..3000 {
        world.create(object(&format!("x{n}")));
    }
    // The objects need 100 polls a second; the quota allows 10.
    world.run(3000);
    let mut a_second = vec![0u32; 3001];
    for poll in &world.polls {
        a_second[usize::try_from(poll.at.as_secs()).expect("few")] += 1;
    }
    assert!(
        a_second.iter().all(|&polls| polls <= 11),
        "{:?}",
        a_second.iter().max()
    );
    assert!(
        (29_900..=30_000).contains(&world.polls.len()),
        "{}",
        world.polls.len()
    );
    let mut polled: HashMap<&str, u32> = HashMap::new();
    for poll in &world.polls {
        *polled.entry(&poll.name).or_default() += 1;
    }
    let (least, most) = (polled.values().min(), polled.values().max());
    assert_eq!(polled.len(), 3000);
    assert!(
        most.expect("some") - least.expect("some") <= 2,
        "{least:?} to {most:?}"
    );
    // Each object shows its answer, and `Pending` before it if the answer took longer than 10 s.
    assert!((3000..=6000).contains(&world.writes.len()));
}

#[test]
#[cfg(target_pointer_width = "64")]
fn an_object_is_held_in_the_bytes_that_the_documentation_names() {
    assert_eq!(std::mem::size_of::<crate::job::Job>(), 808);
}
