//! Random operations from a fixed seed: answers about jobs, and changes of objects.

use super::{assert_valid, is_acknowledged, record::Record};
use crate::harness::{Launch, PROJECT, Team, key};
use serde_json::json;
use std::time::Duration;
use testbed::ims::{Answer, Job};

const SEED: u64 = 20_241_106;
const OBJECTS: u64 = 10;
const ANSWERS_PER_JOB: u64 = 12;
const CHANGES: u64 = 40;

/// The answers that may come before a job's end.
const ANSWERS_BEFORE_THE_END: [&str; 12] = [
    "init",
    "running",
    "running",
    "unavailable",
    "bad-gateway",
    "empty",
    "other-job",
    "job-not-found",
    "unknown-status",
    "forbidden",
    "status-405",
    "api-not-published",
];

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % bound).expect("a small bound")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_operations_break_no_invariant_and_no_tool_verdict() {
    let mut random = Random(SEED);
    let mut team = Team::without_operator("random").await;
    let record = Record::of(&team);
    let launch = Launch {
        scale: 0.002,
        ..Launch::default()
    };
    team.start_operator_as(launch, &[]);
    let names: Vec<String> = (0..OBJECTS).map(|number| format!("job-{number}")).collect();
    for name in &names {
        let job = Job::new(PROJECT, name.as_str());
        team.sim.put_job(match random.below(4) {
            0 => job.fails("IMG.0148", "No bucket."),
            1 => job.without_image_id(),
            _ => job,
        });
        let choices = ANSWERS_BEFORE_THE_END.len() as u64;
        let answers = (0..ANSWERS_PER_JOB)
            .map(|_| Answer::preset(ANSWERS_BEFORE_THE_END[random.below(choices)]));
        team.sim.script(key(name), answers.collect::<Vec<_>>());
        team.create(name).await;
    }
    for number in 0..CHANGES {
        let name = &names[random.below(OBJECTS)];
        let change = match random.below(5) {
            0 => json!({ "spec": { "suspend": true } }),
            1 => json!({ "spec": { "suspend": false } }),
            2 => json!({ "spec": { "pollPeriodSeconds": 5 + random.below(60) } }),
            3 => json!({ "spec": { "deadlineSeconds": 500 + random.below(2000) } }),
            _ => json!({ "metadata": { "annotations": {
                "imageexport.dev/poll-requested-at": number.to_string(),
            } } }),
        };
        team.patch(name, change).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for name in &names {
        let spec = json!({ "suspend": false });
        let annotations = json!({ "imageexport.dev/poll-requested-at": "the end" });
        team.patch(
            name,
            json!({ "spec": spec, "metadata": { "annotations": annotations } }),
        )
        .await;
    }
    for name in &names {
        record
            .until(name, "end", |object| {
                let status = &object["status"];
                is_acknowledged(object)
                    && !status["completionTime"].is_null()
                    && status["lastHandledPollRequest"] == "the end"
            })
            .await;
    }
    for versions in record.all() {
        assert_valid(&versions);
    }
}
