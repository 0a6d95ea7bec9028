//! Elections among candidates that are frozen, restarted, cut off and slow: never two leaders, and soon one.

use crate::lease::{Elector, Lease, LeaseTimes, Reply, Request};
use std::{sync::Arc, time::Duration};

const TIMES: LeaseTimes = LeaseTimes {
    duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    renew_period: Duration::from_secs(2),
    standby_period: Duration::from_secs(1),
};
const STEP: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_secs(4);

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn the_times_are_those_of_client_go() {
    assert_eq!(LeaseTimes::default(), TIMES);
}

/// A request on its way.
struct Call {
    request: Request,
    sent_at: Duration,
    /// `None`: it has landed.
    lands_at: Option<Duration>,
    replies_at: Duration,
    reply: Reply,
}

struct Candidate {
    elector: Elector,
    name: Arc<str>,
    version: u64,
    call: Option<Call>,
    frozen_until: Duration,
}

struct World {
    at: Duration,
    /// The version and content of the Lease.
    lease: Option<(u64, Lease)>,
    version: u64,
    created_at: Duration,
    down_until: Duration,
    candidates: Vec<Candidate>,
    latency: fn(u64) -> Duration,
    random: u64,
    names: u64,
}

impl World {
    fn new(candidates: usize, seed: u64, latency: fn(u64) -> Duration) -> Self {
        let mut world = Self {
            at: Duration::ZERO,
            lease: None,
            version: 0,
            created_at: Duration::ZERO,
            down_until: Duration::ZERO,
            candidates: Vec::new(),
            latency,
            random: seed,
            names: 0,
        };
        for _ in 0..candidates {
            let candidate = world.candidate();
            world.candidates.push(candidate);
        }
        world
    }

    /// A process that has just started.
    fn candidate(&mut self) -> Candidate {
        self.names += 1;
        let name: Arc<str> = format!("process-{}", self.names).into();
        Candidate {
            elector: Elector::new(name.clone(), TIMES),
            name,
            version: 0,
            call: None,
            frozen_until: Duration::ZERO,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)) >> 8) % below
    }

    /// The one process that leads, by its own clock.
    fn leader(&self) -> Option<Arc<str>> {
        let leads = |c: &&Candidate| c.elector.term().is_some_and(|end| self.at < end);
        let leaders: Vec<_> = self.candidates.iter().filter(leads).collect();
        assert!(
            leaders.len() <= 1,
            "{} leaders at {:?}",
            leaders.len(),
            self.at
        );
        leaders.first().map(|leader| leader.name.clone())
    }

    fn run(&mut self, time: Duration) {
        let end = self.at + time;
        while self.at < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.at += STEP;
        for index in 0..self.candidates.len() {
            self.land(index);
            let at = self.at;
            let random = self.draw(1_000_000);
            let latency = (self.latency)(random);
            let candidate = &mut self.candidates[index];
            if at < candidate.frozen_until {
                continue;
            }
            candidate.elector.end_term(at);
            if let Some(call) = &candidate.call {
                if call.sent_at + TIMEOUT <= at {
                    candidate.elector.apply(call.sent_at, at, Reply::Failed);
                    candidate.call = None;
                } else if call.lands_at.is_none() && call.replies_at <= at {
                    let reply = call.reply.clone();
                    candidate.elector.apply(call.sent_at, at, reply);
                    candidate.call = None;
                }
            }
            if candidate.call.is_none()
                && let request = candidate.elector.next(at)
                && !matches!(request, Request::Wait(_))
            {
                candidate.call = Some(Call {
                    request,
                    sent_at: at,
                    lands_at: Some(at + latency),
                    replies_at: at + latency * 2,
                    reply: Reply::Failed,
                });
            }
        }
        self.leader();
    }

    /// What a candidate has sent reaches the server, also while the candidate is frozen.
    fn land(&mut self, index: usize) {
        let at = self.at;
        let candidate = &mut self.candidates[index];
        let Some(call) = &mut candidate.call else {
            return;
        };
        if call.lands_at.take_if(|lands_at| *lands_at <= at).is_none() || at < self.down_until {
            return;
        }
        let (request, version) = (call.request, candidate.version);
        let held = Lease {
            holder: Some(candidate.name.clone()),
            duration: TIMES.duration,
            renewed: Some(format!("{at:?}").into()),
        };
        let reply = match (request, &self.lease) {
            (Request::Read, Some((version, lease))) => {
                candidate.version = *version;
                Reply::Found(lease.clone())
            }
            (Request::Read | Request::Hold { .. }, None) => Reply::Missing,
            (Request::Create, None) => {
                self.version += 1;
                self.created_at = at;
                self.lease = Some((self.version, held.clone()));
                candidate.version = self.version;
                Reply::Held(held)
            }
            (Request::Hold { .. }, Some((current, _))) if *current == version => {
                self.version += 1;
                self.lease = Some((self.version, held.clone()));
                candidate.version = self.version;
                Reply::Held(held)
            }
            _ => Reply::Conflict,
        };
        call.reply = reply;
    }

    fn fault(&mut self, with_deletions: bool) {
        let index = usize::try_from(self.draw(self.candidates.len() as u64)).unwrap();
        let time = ms(self.draw(70_000));
        match self.draw(4) {
            0 => self.candidates[index].frozen_until = self.at + time,
            1 => self.down_until = self.at + time,
            // A Create that is under way would land beside a leader, were one deleted meanwhile.
            2 if with_deletions => {
                if self.created_at + 3 * TIMEOUT < self.at {
                    self.lease = None;
                }
            }
            2 => self.candidates[index] = self.candidate(),
            _ => {
                let until = self.at + time;
                for candidate in &mut self.candidates {
                    candidate.frozen_until = candidate.frozen_until.max(until);
                }
            }
        }
    }
}

/// Mostly some milliseconds, sometimes seconds.
fn uneven(random: u64) -> Duration {
    match random % 10 {
        0 => ms(random % 5_000),
        1..3 => ms(random % 700),
        _ => ms(random % 40),
    }
}

fn even(_: u64) -> Duration {
    ms(10)
}

#[test]
fn there_are_never_two_leaders_and_soon_there_is_one() {
    for seed in 0..300 {
        let mut world = World::new(3, seed, uneven);
        // All have seen who leads before anybody deletes the Lease.
        world.run(Duration::from_secs(30));
        for _ in 0..12 {
            world.fault(seed % 2 == 0);
            let pause = ms(world.draw(40_000));
            world.run(pause);
        }
        world.down_until = world.at;
        world.latency = even;
        for candidate in &mut world.candidates {
            candidate.frozen_until = world.at;
        }
        world.run(Duration::from_secs(25));
        let leader = world.leader().expect("a leader");
        world.run(Duration::from_secs(120));
        assert_eq!(world.leader(), Some(leader), "seed {seed}: it stays");
    }
}

/// How long nobody leads after something happened to the leader, with two standbys.
fn gap(happens: impl Fn(&mut World, usize)) -> Duration {
    let mut longest = Duration::ZERO;
    for offset in 0..60 {
        let mut world = World::new(3, offset, even);
        world.run(Duration::from_secs(30) + STEP * u32::try_from(offset).unwrap());
        let leader = world.leader().expect("a leader");
        let index = world
            .candidates
            .iter()
            .position(|c| c.name == leader)
            .unwrap();
        let began = world.at;
        happens(&mut world, index);
        let is_other = |world: &World| world.leader().is_some_and(|new| new != leader);
        while !is_other(&world) {
            world.step();
            assert!(world.at - began < Duration::from_secs(30), "nobody leads");
        }
        longest = longest.max(world.at - began);
    }
    longest
}

#[test]
fn a_lease_that_is_given_up_is_taken_within_a_second_and_that_of_a_crash_when_it_ends() {
    let given_up = gap(|world, index| {
        let at = world.at;
        assert!(world.candidates[index].elector.release(at));
        let (version, lease) = world.lease.as_mut().expect("a Lease");
        *version += 1;
        lease.holder = None;
        world.version = *version;
        world.candidates[index].frozen_until = Duration::MAX;
    });
    assert!(given_up <= ms(1_200), "{given_up:?}");
    let crash = gap(|world, index| world.candidates[index].frozen_until = Duration::MAX);
    assert!((ms(13_000)..=ms(17_500)).contains(&crash), "{crash:?}");
}

#[test]
fn a_leader_stops_before_another_may_take_over_and_leads_again_when_nobody_did() {
    let mut world = World::new(1, 1, even);
    world.run(Duration::from_secs(30));
    assert!(world.leader().is_some());
    world.down_until = world.at + Duration::from_secs(60);
    world.run(Duration::from_secs(8));
    assert!(world.leader().is_some(), "it may still renew");
    world.run(Duration::from_secs(3));
    assert_eq!(world.leader(), None);
    world.run(Duration::from_secs(53));
    assert!(world.leader().is_some());
}

#[test]
fn a_lease_that_was_edited_moves_the_leadership() {
    let mut world = World::new(2, 1, even);
    world.run(Duration::from_secs(30));
    let edited = Lease {
        holder: Some("somebody".into()),
        // Never longer than a minute.
        duration: Duration::from_secs(1_000_000),
        renewed: None,
    };
    world.version += 1;
    world.lease = Some((world.version, edited));
    world.run(Duration::from_secs(3));
    assert_eq!(world.leader(), None);
    let rivals = world
        .candidates
        .iter()
        .map(|c| c.elector.rival().map(|name| &**name));
    assert_eq!(rivals.collect::<Vec<_>>(), [Some("somebody"); 2]);
    world.run(Duration::from_secs(56));
    assert_eq!(world.leader(), None);
    world.run(Duration::from_secs(4));
    assert!(world.leader().is_some());
}

#[test]
fn a_deleted_lease_is_created_again_by_its_leader() {
    let mut world = World::new(2, 1, even);
    world.run(Duration::from_secs(30));
    let leader = world.leader();
    world.lease = None;
    world.run(Duration::from_secs(20));
    assert!(leader.is_some());
    assert_eq!(world.leader(), leader);
    assert!(world.lease.is_some());
}
