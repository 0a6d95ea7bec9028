//! `kubectl wait` on live objects that stall, are suspended, or end after all.

use super::record::Record;
use crate::harness::{PROJECT, Team, assert_met, key, running};
use serde_json::json;
use testbed::ims::{Answer, Job};

const READY: &str = "--for=condition=Ready";
const FAILED: &str = "--for=condition=Succeeded=False";
const STALLED: &str = "--for=condition=Stalled";
const ENDED: &str = "--for=jsonpath={.status.completionTime}";

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_stalled_returns_for_a_stalled_object_and_not_for_a_suspended_or_running_one() {
    let mut team = Team::without_operator("stalled-waits").await;
    let record = Record::of(&team);
    for name in ["late", "suspended", "running"] {
        team.sim.put_job(running(name));
    }
    team.sim
        .put_job(Job::new(PROJECT, "imageless").without_image_id());
    for (name, spec) in [
        ("late", json!({ "deadlineSeconds": 100 })),
        ("suspended", json!({ "suspend": true })),
        ("running", json!({})),
        ("imageless", json!({})),
    ] {
        team.create_with(name, spec).await;
    }
    let early: Vec<_> = [
        ("late", STALLED),
        ("imageless", STALLED),
        ("imageless", ENDED),
        ("late", READY),
        ("suspended", ENDED),
    ]
    .map(|(name, what)| {
        (
            name,
            what,
            team.kubectl_wait(name, &[what, "--timeout=10m"]),
        )
    })
    .into();

    team.start_operator();
    for (name, reason) in [
        ("late", "DeadlineExceeded"),
        ("suspended", "Suspended"),
        ("running", "JobRunning"),
        ("imageless", "ImageIDMissing"),
    ] {
        record.until_reason(name, reason).await;
    }
    let mut early = early.into_iter();
    for (name, what, wait) in early.by_ref().take(3) {
        assert_met(wait, &format!("{name} {what}")).await;
    }

    let timed_out: Vec<_> = [
        ("late", READY),
        ("late", FAILED),
        ("late", ENDED),
        ("imageless", READY),
        ("imageless", FAILED),
        ("suspended", READY),
        ("suspended", FAILED),
        ("suspended", STALLED),
        ("running", STALLED),
    ]
    .map(|(name, what)| (name, what, team.kubectl_wait(name, &[what, "--timeout=1s"])))
    .into();
    for (name, what, wait) in timed_out {
        let output = wait.await.expect("no panic");
        assert!(!output.status.success(), "{name} {what}: {}", output.stdout);
        assert!(
            output.stderr.contains("timed out"),
            "{name} {what}: {}",
            output.stderr
        );
    }

    // The remaining waits return once their condition holds.
    let rest: Vec<_> = early.collect();
    assert!(rest.iter().all(|(_, _, wait)| !wait.is_finished()));
    team.sim
        .script_forever(key("late"), Answer::preset("success"));
    team.request_poll("late", "now").await;
    team.sim.put_job(Job::new(PROJECT, "suspended"));
    team.patch("suspended", json!({ "spec": { "suspend": false } }))
        .await;
    for (name, what, wait) in rest {
        assert_met(wait, &format!("{name} {what}")).await;
    }
}
