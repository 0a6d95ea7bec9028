//! An unchanged status is not written: not by polls that bring no change, not by a restart.

use super::{assert_valid, record::Record};
use crate::harness::{Launch, PROJECT, Team, key, running};
use serde_json::{Value, json};
use testbed::ims::{Answer, Job};

/// Objects of each answer, and polls of each object: 100 in all for each answer.
const OBJECTS: usize = 5;
const POLLS: u64 = 20;

/// The answer that is repeated, and the reason that the object shows.
const REPEATED: [(&str, &str); 4] = [
    ("running", "JobRunning"),
    ("unavailable", "PollFailed"),
    ("job-not-found", "JobNotFound"),
    ("status-405", "RequestRejected"),
];

/// Fast enough for 20 polls that are 5 minutes apart. Too fast for a grace to pass: a machine would have to
/// run the operator without a delay of 10 ms.
const FAST: Launch<'static> = Launch {
    environment: &[],
    program: None,
    allow_http: true,
    log_level: "info",
    scale: 0.001,
};

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_hundred_unchanged_polls_nor_a_restart_write_anything() {
    let mut team = Team::without_operator("idle").await;
    let record = Record::of(&team);
    team.start_operator_as(Launch::for_graces(), &[]);
    let mut polled = Vec::new();
    for (preset, reason) in REPEATED {
        for number in 0..OBJECTS {
            let name = format!("{preset}-{number}");
            team.sim.script_forever(key(&name), Answer::preset(preset));
            team.create_with(&name, json!({ "pollPeriodSeconds": 300 }))
                .await;
            polled.push((name, reason));
        }
    }
    team.follow(Job::new(PROJECT, "good")).await;
    team.follow(Job::new(PROJECT, "bad").fails("IMG.0148", "No bucket."))
        .await;
    team.follow(Job::new(PROJECT, "imageless").without_image_id())
        .await;
    team.sim.put_job(running("suspended"));
    team.create_with("suspended", json!({ "suspend": true }))
        .await;
    let idle = ["good", "bad", "imageless", "suspended"].map(str::to_owned);

    for (name, reason) in &polled {
        record.until_reason(name, reason).await;
        if *reason == "JobNotFound" {
            let stalled = |object: &Value| !super::condition(object, "Stalled").is_null();
            record.until(name, "stall", stalled).await;
        }
    }
    for (name, reason) in
        idle.iter()
            .zip(["JobSucceeded", "JobFailed", "ImageIDMissing", "Suspended"])
    {
        record.until_reason(name, reason).await;
    }

    let names: Vec<&String> = polled.iter().map(|(name, _)| name).chain(&idle).collect();
    let counts = |team: &Team| -> Vec<(usize, u64)> {
        names
            .iter()
            .map(|name| (record.versions(name).len(), team.polls(name)))
            .collect()
    };
    // Two restarts: after each, an object is polled again and again, or not at all.
    let before = counts(&team);
    for polls in [POLLS, 3] {
        team.operator().kill();
        team.start_operator_as(FAST, &[]);
        let started = counts(&team);
        for (name, (_, polled)) in names.iter().zip(started).take(polled.len()) {
            team.sim.polled(&key(name), polled + polls).await;
        }
    }
    let after = counts(&team);
    for ((name, before), after) in names.iter().zip(&before).zip(&after) {
        assert_eq!(
            after.0,
            before.0,
            "{name} was written in {} polls or after a restart",
            after.1 - before.1
        );
    }
    for (index, name) in idle.iter().enumerate() {
        let index = polled.len() + index;
        assert_eq!(after[index].1, before[index].1, "{name} is not polled");
    }
    for versions in record.all() {
        assert_valid(&versions);
    }
}
