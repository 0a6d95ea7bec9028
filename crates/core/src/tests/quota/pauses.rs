//! Pauses that the cloud asks for, and what follows them.

use super::{all_report, buckets, check_rate};
use crate::{
    Config, CredentialRef,
    tests::{
        samples::{
            cloud, deferred, millis, misconfigured, object_of, running, secret_missing, secs,
            throttled, time_out, unavailable_for,
        },
        world::World,
    },
    token_bucket::TokenBucket,
};
use image_export_model::{ConfigurationReason, Observation};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// What a host asks for holds for its own quota, whoever names it; and where another host comes to answer, its quota is
/// another one.
#[test]
fn a_host_of_ones_own_pauses_nobody_else() {
    let own = |observation| Observation {
        queried: Some("ims.evil.example.com".into()),
        endpoint: Some("ims.evil.example.com".into()),
        ..observation
    };
    let mut world = World::new();
    for name in ["team-b/known", "evil/member", "evil/stranger"] {
        let secret = name.rsplit('/').next().expect("a name");
        world.create(object_of(name, secret, "project"));
    }
    world.reports("evil/stranger", own(running()));
    world.run(60);
    assert_eq!(buckets(&world, &["team-b/known", "evil/member"]).len(), 1);
    // The catalog of a member comes to name another host, and so does a stranger's.
    for name in ["evil/member", "evil/stranger"] {
        world.reports(name, own(throttled(Some(secs(900)))));
    }
    world.run(60);
    let from = world.now;
    world.create(object_of("team-b/new", "new", "project"));
    world.run(300);
    for (name, least) in [("team-b/known", 9), ("team-b/new", 9), ("evil/member", 0)] {
        let polls = world.polls_of(name).into_iter().filter(|at| *at > from);
        let polls = polls.count();
        assert!(
            polls >= least && (least > 0 || polls == 0),
            "{name}: {polls}"
        );
    }
}

/// An answer that comes after the content of a Secret was changed pauses nothing that the new content has earned.
#[test]
fn a_late_answer_to_former_content_pauses_no_shared_quota() {
    let mut world = World::with(Config {
        credential_refresh: secs(7),
        ..Config::default()
    });
    world.create(object_of("team-b/known", "known", "project"));
    world.create(object_of("evil/hold", "evil", "project"));
    world.held.polls = true;
    world.run(3);
    let held = world.open_polls.iter();
    let at = held.clone().position(|poll| &*poll.key.namespace == "evil");
    let late = world.open_polls.remove(at.expect("it is polled"));
    world.held.polls = false;
    for poll in std::mem::take(&mut world.open_polls) {
        world.answer(&poll, running());
    }
    world.secrets.insert("evil".into(), Ok(2));
    world.create(object_of("evil/mine", "evil", "project"));
    world.run(60);
    assert_eq!(buckets(&world, &["team-b/known", "evil/mine"]).len(), 1);
    let evil = Observation {
        queried: Some("ims.evil.example.com".into()),
        ..throttled(Some(secs(900)))
    };
    world.answer(&late, evil);
    let polls = world.polls_of("team-b/known").len();
    world.run(300);
    assert!(world.polls_of("team-b/known").len() >= polls + 9);
}

#[test]
fn a_pause_of_a_private_bucket_delays_no_other_credential() {
    let mut world = World::new();
    world.create(object_of("a", "one", "project"));
    world.run(5);
    // An object of another credential names the same project, and its poll is throttled.
    world.reports("b", throttled(Some(secs(900))));
    world.create(object_of("b", "unrelated", "project"));
    world.run(300);
    assert!(world.polls_of("a").len() >= 10);
    assert_eq!(world.polls_of("b").len(), 1);
}

#[test]
fn a_pause_delays_all_polls_and_no_burst_follows() {
    for pause in [throttled(Some(secs(60))), unavailable_for(secs(60))] {
        let mut world = World::new();
        world.check_decisions = false;
        let names: Vec<String> = (0..250).map(|n| format!("x{n}")).collect();
        for name in &names {
            world.create(object_of(name, "one", "project"));
        }
        world.run(100);
        all_report(&mut world, &names, &pause);
        let polls = world.polls.len();
        while world.polls.len() == polls {
            world.run_until(world.now + millis(1));
        }
        world.run_until(world.now + millis(50));
        let paused = world.now;
        all_report(&mut world, &names, &running());
        world.run(90);
        let after: Vec<Duration> = world
            .polls
            .iter()
            .map(|poll| poll.at)
            .filter(|at| *at > paused)
            .collect();
        let first = *after.first().expect("polls continue");
        assert!(
            first >= paused + secs(60) - millis(1) && first <= paused + secs(67),
            "{first:?}"
        );
        check_rate(&after, 10.0, 0.0);
    }
}

/// A hundred objects after a pause that all of them were asked for; polls are held from its end on.
fn after_a_pause() -> World {
    let mut world = World::new();
    world.check_decisions = false;
    let names: Vec<String> = (0..100).map(|n| format!("x{n}")).collect();
    for name in &names {
        world.create(object_of(name, "one", "project"));
    }
    world.run(60);
    all_report(&mut world, &names, &throttled(Some(secs(60))));
    world.run(20);
    all_report(&mut world, &names, &running());
    world.held.polls = true;
    world.run(60);
    assert_eq!(world.open_polls.len(), 1);
    world
}

#[test]
fn after_a_pause_one_poll_is_answered_before_the_others_follow() {
    let mut world = after_a_pause();
    world.held.polls = false;
    let (first, sent) = (world.open_polls.remove(0), world.polls.len());
    // This one is throttled as well: the next pause ends with one poll too.
    world.answer(&first, throttled(Some(secs(60))));
    world.held.polls = true;
    world.run(70);
    assert_eq!(world.polls.len(), sent + 1);
    world.held.polls = false;
    let second = world.open_polls.remove(0);
    world.answer(&second, running());
    world.run(10);
    let after: Vec<Duration> = world.polls[sent + 1..].iter().map(|poll| poll.at).collect();
    assert!(after.len() > 40, "{}", after.len());
    check_rate(&after, 10.0, 20.0);
}

#[test]
fn a_first_poll_after_a_pause_that_asks_the_cloud_for_nothing_is_followed_by_another_first_one() {
    let without_a_login = Observation {
        requests: 0,
        endpoint: None,
        queried: None,
        ..misconfigured(ConfigurationReason::CredentialsInvalid)
    };
    for unasked in [deferred(secs(1)), without_a_login] {
        let mut world = after_a_pause();
        for _ in 0..3 {
            assert_eq!(world.open_polls.len(), 1, "{unasked:?}");
            let poll = world.open_polls.remove(0);
            world.answer(&poll, unasked.clone());
            world.run(10);
        }
        let poll = world.open_polls.remove(0);
        world.answer(&poll, running());
        world.run(1);
        assert!(world.open_polls.len() > 1);
    }
}

/// Throttled once in a while, and otherwise as many polls as there may be.
#[test]
fn polls_approach_what_the_cloud_permits_where_that_is_less_than_their_quota() {
    let mut world = World::new();
    world.check_decisions = false;
    let permitted = RefCell::new(TokenBucket::new(5.0, 5.0, Duration::ZERO));
    let counts = Rc::new(Cell::new((0, 0)));
    let count = counts.clone();
    world.cloud_by_default = Box::new(move |_, at| {
        let (answered, refused) = count.get();
        if permitted.borrow_mut().take(at).is_ok() {
            count.set((answered + 1, refused));
            running()
        } else {
            count.set((answered, refused + 1));
            throttled(Some(secs(5)))
        }
    });
    for n in 0..300 {
        world.create(object_of(&format!("x{n}"), "one", "project"));
    }
    world.run(600);
    let before = counts.take();
    assert!(before.1 > 0);
    world.run(1200);
    let (answered, refused) = counts.get();
    assert!(answered > 1200 * 4, "{answered} of 6000 that are permitted");
    assert!(
        refused * 100 < answered,
        "{refused} refused, {answered} answered"
    );
}

#[test]
fn a_rotated_secret_keeps_its_pause_and_moves_to_the_shared_bucket_after_a_200() {
    let mut world = World::new();
    world.create(object_of("a", "one", "project"));
    world.create(object_of("b", "two", "project"));
    world.run(100);
    world.reports("a", throttled(Some(secs(600))));
    world.run(35);
    let paused = world.polls_of("a").len();
    world.secrets.insert("one".into(), Ok(2));
    world.run(400);
    assert_eq!(
        world.polls_of("a").len(),
        paused,
        "a new secret does not end the pause"
    );
    world.reports("a", running());
    world.run(400);
    assert_eq!(buckets(&world, &["a", "b"]).len(), 1);
}

#[test]
fn a_throttled_poll_with_former_credentials_pauses_no_other_bucket() {
    let mut world = World::new();
    world.held.polls = true;
    world.create(object_of("x", "a", "project"));
    world.run(1);
    let poll = world.take_poll();
    // The third Secret is added when no object uses the first any more. If entries were reused, it would
    // get the entry of the first, and the late answer would pause its bucket.
    for secret in ["b", "c"] {
        world.change("x", |x| {
            x.spec.cloud_credentials_ref = cloud(secret);
        });
        world.run(1);
    }
    world.create(object_of("y", "c", "project"));
    world.run(1);
    world.open_polls.clear();
    world.answer(&poll, throttled(Some(secs(600))));
    world.run(3);
    assert!(!world.open_polls.is_empty(), "x is polled with c");
}

/// Checks that an object is polled next when the pause from `from` on is over, not before.
fn check_pause(world: &mut World, name: &str, from: Duration, pause: u64) {
    world.reports(name, running());
    let polls = world.polls_of(name).len();
    world.run_until(from + secs(pause) - millis(60));
    assert_eq!(world.polls_of(name).len(), polls, "polled during the pause");
    world.run_until(from + secs(pause).mul_f64(1.1) + secs(60));
    assert!(world.polls_of(name).len() > polls, "polled after the pause");
}

/// A world with the object `x` of the project `project`, which the cloud asks to wait 600 s. `accepted`:
/// its credential was accepted before. Returns when that was.
fn world_paused(accepted: bool) -> (World, Duration) {
    let mut world = World::new();
    if !accepted {
        world.reports("x", throttled(Some(secs(600))));
    }
    world.create(object_of("x", "one", "project"));
    world.run(5);
    if accepted {
        world.reports("x", throttled(Some(secs(600))));
        world.run(30);
    }
    let from = world.polls.last().expect("polled").at;
    (world, from)
}

#[test]
fn no_poll_comes_before_a_retry_after_whatever_becomes_of_the_object() {
    type Change = fn(&mut World);
    let changes: [Change; 6] = [
        |world| {
            world.delete("x");
            world.run(1);
            world.create(object_of("x", "one", "project"));
        },
        |world| {
            for secret in ["two", "one"] {
                world.change("x", |x| {
                    x.spec.cloud_credentials_ref = cloud(secret);
                });
                world.run_until(world.now + millis(1));
            }
        },
        |world| {
            for version in [2, 1] {
                world.secrets.insert("one".into(), Ok(version));
                world.run(310);
            }
        },
        |world| {
            for suspend in [true, false] {
                world.change("x", |x| x.spec.suspend = suspend);
                world.run(1);
            }
        },
        |world| world.request_poll("x", "1"),
        |world| world.lose_watch(),
    ];
    for accepted in [true, false] {
        for change in changes {
            let (mut world, from) = world_paused(accepted);
            world.reports("x", running());
            change(&mut world);
            check_pause(&mut world, "x", from, 600);
        }
    }
}

#[test]
fn a_pause_of_accepted_credentials_holds_for_new_credentials_too() {
    let (mut world, from) = world_paused(true);
    world.create(object_of("y", "two", "project"));
    check_pause(&mut world, "y", from, 600);
    // Also for those that wait already.
    let mut world = World::new();
    world.secrets.insert("two".into(), Err(secret_missing()));
    world.create(object_of("x", "one", "project"));
    world.create(object_of("y", "two", "project"));
    world.run(5);
    world.reports("x", throttled(Some(secs(600))));
    world.run(30);
    let from = world.polls.last().expect("polled").at;
    world.secrets.insert("two".into(), Ok(1));
    world.run(100);
    check_pause(&mut world, "y", from, 600);
}

#[test]
fn a_pause_goes_along_to_the_shared_bucket() {
    let mut world = World::new();
    world.held.polls = true;
    for name in ["a", "b"] {
        world.create(object_of(name, "new", "project"));
    }
    world.run(3);
    world.create(object_of("old", "accepted", "project"));
    world.run(3);
    let sent = world.polls.len();
    let mut polls = std::mem::take(&mut world.open_polls);
    let old = polls.pop().expect("three polls");
    world.answer(&old, running());
    // Of two polls with new credentials, one is throttled and one is answered.
    world.answer(&polls[0], throttled(Some(secs(600))));
    let from = world.now;
    world.answer(&polls[1], running());
    world.held.polls = false;
    world.run(5);
    assert_eq!(world.reason("old"), "JobRunning");
    assert_eq!(world.polls.len(), sent);
    check_pause(&mut world, "old", from, 600);
}

#[test]
fn a_bucket_is_dropped_when_its_pause_is_over() {
    for accepted in [true, false] {
        let (mut world, from) = world_paused(accepted);
        world.delete("x");
        world.run(1);
        let left = world.tracker.state.leftovers();
        let allowed = [
            "buckets",
            "proven namespaces",
            "projects",
            "pools",
            "owners of pools",
            "wakes of buckets",
        ];
        assert!(
            left.iter().all(|(what, _)| allowed.contains(what)),
            "{left:?}"
        );
        world.run_until(from + secs(665));
        assert_eq!(world.tracker.state.leftovers(), []);
    }
}

#[test]
fn tokens_that_are_given_back_during_a_pause_are_no_burst_after_it() {
    let mut world = World::new();
    world.check_decisions = false;
    let names: Vec<String> = (0..60).map(|n| format!("x{n}")).collect();
    for name in &names {
        world.create(object_of(name, "one", "project"));
    }
    world.run(10);
    world.held.polls = true;
    world.run(30);
    let from = world.now;
    let polls = std::mem::take(&mut world.open_polls);
    world.answer(&polls[0], throttled(Some(secs(60))));
    let sent = world.polls.len();
    for poll in &polls[1..] {
        // They ended before a request was sent.
        let answer = Observation {
            requests: 0,
            ..time_out()
        };
        world.answer(poll, answer);
    }
    world.held.polls = false;
    world.run(90);
    let after: Vec<Duration> = world.polls[sent..].iter().map(|poll| poll.at).collect();
    check_rate(&after[..60], 10.0, 0.0);
    assert!(after[0] >= from + secs(60), "{after:?}");
}

#[test]
fn throttling_without_a_retry_after_pauses_the_bucket_for_a_second() {
    let mut world = World::new();
    world.check_decisions = false;
    for n in 0..100 {
        world.create(object_of(&format!("x{n}"), "one", "project"));
    }
    world.run(12);
    world.held.polls = true;
    world.run(29);
    let poll = world.open_polls.remove(0);
    let (sent, from) = (world.polls.len(), world.now);
    world.answer(&poll, throttled(None));
    assert_eq!(world.census().paused_buckets, 1);
    world.run(3);
    let next = world.polls[sent].at;
    assert!(
        next >= from + secs(1) && next <= from + millis(1300),
        "{next:?}"
    );
    assert_eq!(world.census().paused_buckets, 0);
}

#[test]
fn rotated_credentials_pause_no_other_before_they_are_accepted() {
    let mut world = World::with(Config {
        credential_refresh: secs(7),
        ..Config::default()
    });
    world.create(object_of("a", "one", "project"));
    world.create(object_of("b", "two", "project"));
    world.run(60);
    assert_eq!(buckets(&world, &["a", "b"]).len(), 1);
    world.secrets.insert("one".into(), Ok(2));
    let from = world.reads.len();
    let is_one =
        |(_, read): &(Duration, Arc<CredentialRef>)| read.cloud.secret_name.as_str() == "one";
    while !world.reads[from..].iter().any(is_one) {
        world.run(1);
    }
    world.reports("a", throttled(Some(secs(600))));
    world.run(35);
    let polls = world.polls_of("b").len();
    world.run(300);
    assert_eq!(world.polls_of("b").len(), polls + 10);
}

/// The first Secret of a namespace that comes to share a paused quota makes the others there obey the pause.
#[test]
fn a_namespace_obeys_the_pause_of_the_quota_that_it_comes_to_share() {
    let mut world = World::new();
    world.create(object_of("strangers/x", "otc", "project"));
    world.run(10);
    world.reports("strangers/x", throttled(Some(secs(300))));
    let polls = world.polls.len();
    while world.polls.len() == polls {
        world.run(1);
    }
    world.run(1);
    let until = world.polls[polls].at + secs(300);
    let secrets = ["one", "two", "three", "four"];
    for secret in secrets {
        world.create(object_of(&format!("team/{secret}"), secret, "project"));
    }
    world.run_until(until);
    let times = secrets.map(|secret| world.polls_of(&format!("team/{secret}")));
    let mut early: Vec<Duration> = times.into_iter().flatten().collect();
    early.sort_unstable();
    // Until the first of them is answered, nobody knows that they belong there.
    let known = *early.first().expect("one is polled") + world.poll_time;
    assert!(early.iter().all(|at| *at <= known), "{early:?}");
    assert!(early.len() < secrets.len(), "{early:?}");
}
