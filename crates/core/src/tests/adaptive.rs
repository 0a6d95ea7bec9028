//! The adaptive mode, measured: how soon ends are known for how many polls, in the production code.

use super::{
    samples::{answer_with, beginning, job_of, millis, object_of, running, secs},
    world::World,
};
use crate::{Config, PollMode, cadence};
use image_export_model::JobState;
use jiff::SignedDuration;
use std::{collections::HashMap, f64::consts::TAU, time::Duration};

/// A job from its begin to its end.
#[derive(Clone, Debug)]
pub struct Life {
    job_type: &'static str,
    begin: Duration,
    lasts: Duration,
}

/// The `n`-th of many numbers that are evenly distributed between 0 and 1.
fn uniform(n: u64) -> f64 {
    cadence::draw(0x5eed, n, secs(1)).as_secs_f64().max(1e-9)
}

/// The same with a normal distribution.
fn normal(n: u64) -> f64 {
    (-2.0 * uniform(2 * n).ln()).sqrt() * (TAU * uniform(2 * n + 1)).cos()
}

/// Jobs of three types in turn that last 2 min, 15 min and 4 h, more or less.
pub fn mixture(jobs: u64) -> Vec<Life> {
    let life = |n: u64| {
        let (job_type, median) = [("short", 120.0), ("middle", 900.0), ("long", 14_400.0)]
            [usize::try_from(n % 3).expect("below 3")];
        Life {
            job_type,
            begin: secs(60 * n),
            lasts: Duration::from_secs_f64(median * (0.3 * normal(n)).exp()),
        }
    };
    (0..jobs).map(life).collect()
}

/// Jobs of one type with a constant hazard, at which nothing is better than a fixed interval.
fn exponential(jobs: u64) -> Vec<Life> {
    let life = |n: u64| Life {
        job_type: "any",
        begin: secs(20 * n),
        lasts: Duration::from_secs_f64(-3600.0 * uniform(n).ln()),
    };
    (0..jobs).map(life).collect()
}

#[derive(Debug)]
pub struct Measured {
    /// Polls of one job, on average.
    pub polls: f64,
    /// Seconds from the end of a job until it is known, on average …
    pub lag: f64,
    /// … and for 99 of 100.
    p99: f64,
    /// Seconds that a job lasts, on average.
    lasts: f64,
}

impl Measured {
    /// Polls and lag in relation to those of a fixed interval; less than 1 is better.
    fn ratio(&self) -> f64 {
        self.polls * self.lag / (self.lasts / 2.0)
    }
}

/// A world whose cloud reports these jobs, of which the object `x0` names the first.
fn world_of(mode: PollMode, period: u64, lives: &[Life]) -> World {
    let mut world = World::adaptive(Config {
        poll_mode: mode,
        poll_period: secs(period),
        ..Config::default()
    });
    world.check_decisions = false;
    world.keep_log = false;
    let of_job: HashMap<String, Life> = lives
        .iter()
        .enumerate()
        .map(|(n, life)| (job_of(&format!("x{n}")), life.clone()))
        .collect();
    let wall = |at: Duration| beginning() + SignedDuration::try_from(at).expect("short");
    world.cloud_by_default = Box::new(move |job, at| {
        let life = &of_job[job];
        let end = life.begin + life.lasts;
        let state = if at < end {
            JobState::Running
        } else {
            JobState::Success
        };
        answer_with(state, |answer| {
            answer.job_type = Some(life.job_type.into());
            answer.begin_time = Some(wall(life.begin));
            answer.image_id = (at >= end).then(|| "image".into());
            answer.end_time = (at >= end).then(|| wall(end));
        })
    });
    world
}

/// Follows jobs to their ends. The last quarter is measured, the others are what is learned from.
pub fn measure(mode: PollMode, period: u64, lives: &[Life]) -> Measured {
    let mut world = world_of(mode, period, lives);
    let name = |n: usize| format!("x{n}");
    for (n, life) in lives.iter().enumerate() {
        world.run_until(life.begin);
        world.create(object_of(&name(n), "otc", "project"));
    }
    world.run(100_000);

    let mut polls: HashMap<&str, Vec<Duration>> = HashMap::new();
    for poll in &world.polls {
        polls.entry(&*poll.name).or_default().push(poll.at);
    }
    let measured = lives.len() * 3 / 4..lives.len();
    let mut lags = Vec::new();
    let (mut sent, mut lasts) = (0.0, 0.0);
    for n in measured {
        let (life, polls) = (&lives[n], &polls[&*name(n)]);
        assert_eq!(world.reason(&name(n)), "JobSucceeded");
        let known = *polls.last().expect("it is polled") + world.poll_time;
        lags.push((known - life.begin - life.lasts).as_secs_f64());
        sent += f64::from(u32::try_from(polls.len()).expect("few"));
        lasts += life.lasts.as_secs_f64();
    }
    lags.sort_by(f64::total_cmp);
    let count = f64::from(u32::try_from(lags.len()).expect("few"));
    let measured = Measured {
        polls: sent / count,
        lag: lags.iter().sum::<f64>() / count,
        p99: lags[lags.len() * 99 / 100],
        lasts: lasts / count,
    };
    println!(
        "{mode:?}, {period} s: {measured:.1?}, ratio {:.2}",
        measured.ratio()
    );
    measured
}

#[test]
fn ends_of_short_and_long_jobs_are_known_in_half_the_time_for_no_more_polls() {
    let lives = mixture(1200);
    let fixed = measure(PollMode::Fixed, 60, &lives);
    let adaptive = measure(PollMode::Adaptive, 60, &lives);
    assert!((0.95..1.1).contains(&fixed.ratio()), "{fixed:?}");
    assert!(adaptive.ratio() <= 0.6, "{adaptive:?}");
    assert!(
        adaptive.polls <= 1.02 * fixed.polls,
        "{adaptive:?} {fixed:?}"
    );
    // No end is known much later than with the fixed interval.
    assert!(adaptive.p99 <= 1.25 * 60.0 + 1.0, "{adaptive:?}");
}

/// Of the jobs that are found to run at a start, most are long ones: as many end of each type.
#[test]
fn a_start_among_jobs_that_run_costs_no_more_polls_than_in_the_fixed_mode() {
    let lives: Vec<Life> = mixture(3100)
        .into_iter()
        .map(|life| Life {
            begin: life.begin / 3,
            ..life
        })
        .collect();
    let polls = [PollMode::Fixed, PollMode::Adaptive].map(|mode| {
        let start = secs(60_000);
        let mut world = world_of(mode, 60, &lives);
        world.now = start;
        let end = |life: &Life| life.begin + life.lasts;
        let begun = lives.iter().filter(|life| life.begin <= start).count();
        let (running, mut ended): (Vec<_>, Vec<_>) =
            (0..begun).partition(|n| end(&lives[*n]) > start);
        ended.sort_by_key(|n| end(&lives[*n]));
        for n in running.iter().chain(&ended[ended.len() - 180..]) {
            world.create(object_of(&format!("x{n}"), "otc", "project"));
        }
        for (n, life) in lives.iter().enumerate().skip(begun) {
            if life.begin > start + secs(1500) {
                break;
            }
            world.run_until(life.begin);
            world.create(object_of(&format!("x{n}"), "otc", "project"));
        }
        let later = world
            .polls
            .iter()
            .filter(|poll| poll.at > start + secs(300));
        later.count()
    });
    let [fixed, adaptive] = polls;
    println!("{fixed} polls, {adaptive} adaptive");
    assert!(adaptive * 100 <= fixed * 102, "{fixed} {adaptive}");
}

/// Where intervals are so short that their whole seconds matter.
#[test]
fn a_short_period_costs_no_more_polls_than_in_the_fixed_mode() {
    let lives = mixture(600);
    let [fixed, adaptive] =
        [PollMode::Fixed, PollMode::Adaptive].map(|mode| measure(mode, 15, &lives));
    assert!(adaptive.polls <= fixed.polls, "{adaptive:?} {fixed:?}");
    assert!(adaptive.ratio() <= 0.6, "{adaptive:?}");
}

#[test]
fn at_a_constant_hazard_the_adaptive_mode_costs_next_to_nothing() {
    let lives = exponential(2000);
    let fixed = measure(PollMode::Fixed, 30, &lives);
    let adaptive = measure(PollMode::Adaptive, 30, &lives);
    assert!(adaptive.ratio() <= 1.05 * fixed.ratio(), "{adaptive:?}");
    assert!(
        adaptive.polls <= 1.02 * fixed.polls,
        "{adaptive:?} {fixed:?}"
    );
}

/// What is learned is learned again from the objects that have ended.
#[test]
fn a_restart_learns_the_same_from_finished_objects_and_finds_the_instants_again() {
    let mut world = World::adaptive(Config::default());
    world.check_decisions = false;
    let begin = |n: usize| secs(n as u64 * 10);
    world.cloud_by_default = Box::new(move |job, at| {
        let n: usize = job.trim_start_matches("job-x").parse().expect("a number");
        let wall = |at: Duration| beginning() + SignedDuration::try_from(at).expect("short");
        let is_long = n >= 200;
        let has_ended = !is_long && at >= begin(n) + secs(600);
        let state = if has_ended {
            JobState::Success
        } else {
            JobState::Running
        };
        answer_with(state, |answer| {
            answer.job_type = Some(if is_long { "long" } else { "short" }.into());
            answer.begin_time = Some(wall(begin(n)));
            answer.image_id = has_ended.then(|| "image".into());
            answer.end_time = has_ended.then(|| wall(begin(n) + secs(600)));
        })
    });
    for n in 0..210 {
        world.run_until(begin(n));
        world.create(object_of(&format!("x{n}"), "otc", "project"));
    }
    world.run(7200);
    let instants = |world: &World, from: Duration| -> Vec<(Duration, String)> {
        let later = world.polls.iter().filter(|poll| poll.at >= from);
        later
            .map(|poll| {
                (
                    Duration::from_secs(poll.at.as_secs()),
                    poll.name.to_string(),
                )
            })
            .collect()
    };
    // What would be polled without a restart …
    let from = world.now;
    world.run(600);
    let gaps = |polls: &[(Duration, String)]| -> HashMap<String, Vec<Duration>> {
        let mut of: HashMap<String, Vec<Duration>> = HashMap::new();
        for (at, name) in polls {
            of.entry(name.clone()).or_default().push(*at);
        }
        of
    };
    let before = gaps(&instants(&world, from));
    assert_eq!(before.len(), 10, "finished objects are not polled");
    // … goes on as if there had been none.
    world.run_until(world.now + millis(500));
    world.restart();
    let from = world.now;
    world.run(600);
    let after = gaps(&instants(&world, from));
    assert_eq!(after.len(), 10, "finished objects are not polled");
    for (name, polls) in &before {
        let (last, first) = (polls[polls.len() - 1], after[name][0]);
        let interval = polls[polls.len() - 1] - polls[polls.len() - 2];
        assert_eq!(
            first - last,
            interval,
            "{name}: {polls:?} {:?}",
            after[name]
        );
    }
}

/// More objects than their quota can serve at the period: intervals grow until it can, and no poll waits long.
#[test]
fn where_polls_are_scarce_all_intervals_grow_and_none_is_overdue() {
    let mut world = World::adaptive(Config::default());
    world.check_decisions = false;
    for n in 0..1500 {
        world.create(object_of(&format!("x{n}"), "otc", "project"));
    }
    world.cloud_by_default = Box::new(|_, _| running());
    world.run(3600);
    let from = world.polls.len();
    world.run(1200);
    let polls = &world.polls[from..];
    let (least, most) = (5 * 1200, 8 * 1200);
    assert!((least..=most).contains(&polls.len()), "{}", polls.len());
    let late = polls.iter().map(|poll| poll.late).max();
    assert!(late < Some(secs(60)), "{late:?}");
    assert_eq!(world.census().polls_overdue, 0);
}

#[test]
fn a_lone_job_gets_no_more_polls_than_at_its_period() {
    let mut world = World::adaptive(Config::default());
    world.create(object_of("x0", "otc", "project"));
    world.run(4 * 3600);
    let polls = world.polls.len();
    assert!((380..=500).contains(&polls), "{polls} of 480");
}

#[test]
fn a_period_of_its_own_fixes_an_object() {
    let mut world = World::adaptive(Config::default());
    let mut object = object_of("x0", "otc", "project");
    object.spec.poll_period_seconds = Some(20);
    world.create(object);
    world.run(2000);
    let times: Vec<Duration> = world.polls.iter().skip(1).map(|poll| poll.at).collect();
    for pair in times.windows(2) {
        assert_eq!((pair[1] - pair[0]).as_secs(), 20);
    }
}

/// What one namespace wants makes polls scarce for itself alone.
#[test]
fn the_intervals_of_a_namespace_do_not_grow_with_the_objects_of_another() {
    let mut world = World::adaptive(Config::default());
    world.check_decisions = false;
    for n in 0..3000 {
        world.create(object_of(&format!("load/x{n}"), "otc", "project"));
    }
    world.run(900);
    let from = world.now;
    world.create(object_of("team-b/x", "otc", "project"));
    world.run(1800);
    let mut times: Vec<Duration> = world.polls_of("team-b/x");
    times.insert(0, from);
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] <= secs(42), "{times:?}");
    }
    let all = world
        .polls
        .iter()
        .filter(|poll| poll.at >= from + secs(900));
    assert!((4500..=7200).contains(&all.count()));
}
