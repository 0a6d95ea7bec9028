//! `kubectl wait` on live objects that stall, are suspended, or end after all.

use super::{record::Record, running};
use crate::harness::{PROJECT, Team, key};
use serde_json::json;
use testbed::{
    ims::{Answer, Job},
    kubernetes::Output,
};
use tokio::task::JoinHandle;

const READY: &str = "--for=condition=Ready";
const FAILED: &str = "--for=condition=Succeeded=False";
const STALLED: &str = "--for=condition=Stalled";
const ENDED: &str = "--for=jsonpath={.status.completionTime}";

fn wait(team: &Team, name: &str, what: &str, timeout: &str) -> JoinHandle<Output> {
    let kubectl = team.kubectl(&["wait", &format!("iej/{name}"), what, timeout]);
    tokio::task::spawn_blocking(move || kubectl.run().expect("kubectl runs"))
}

async fn assert_met(wait: JoinHandle<Output>, what: &str) {
    let output = wait.await.expect("no panic");
    assert!(output.status.success(), "{what}: {}", output.stderr);
    assert!(
        output.stdout.contains("condition met"),
        "{what}: {}",
        output.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_tells_a_stalled_object_from_one_that_is_suspended_or_still_at_work() {
    let mut team = Team::without_operator("stalled-waits").await;
    let record = Record::of(&team);
    for name in ["overdue", "suspended", "at-work"] {
        team.sim.put_job(running(name));
    }
    team.sim
        .put_job(Job::new(PROJECT, "imageless").without_image_id());
    for (name, spec) in [
        ("overdue", json!({ "deadlineSeconds": 100 })),
        ("suspended", json!({ "suspend": true })),
        ("at-work", json!({})),
        ("imageless", json!({})),
    ] {
        team.create_with(name, spec).await;
    }
    let early: Vec<_> = [
        ("overdue", STALLED),
        ("imageless", STALLED),
        ("imageless", ENDED),
        ("overdue", READY),
        ("suspended", ENDED),
    ]
    .map(|(name, what)| (name, what, wait(&team, name, what, "--timeout=60s")))
    .into();

    team.start_operator();
    for (name, reason) in [
        ("overdue", "DeadlineExceeded"),
        ("suspended", "Suspended"),
        ("at-work", "JobRunning"),
        ("imageless", "ImageIDMissing"),
    ] {
        record.until_reason(name, reason).await;
    }
    let mut early = early.into_iter();
    for (name, what, wait) in early.by_ref().take(3) {
        assert_met(wait, &format!("{name} {what}")).await;
    }

    let in_vain: Vec<_> = [
        ("overdue", READY),
        ("overdue", FAILED),
        ("overdue", ENDED),
        ("imageless", READY),
        ("imageless", FAILED),
        ("suspended", READY),
        ("suspended", FAILED),
        ("suspended", STALLED),
        ("at-work", STALLED),
    ]
    .map(|(name, what)| (name, what, wait(&team, name, what, "--timeout=1s")))
    .into();
    for (name, what, wait) in in_vain {
        let output = wait.await.expect("no panic");
        assert!(!output.status.success(), "{name} {what}: {}", output.stdout);
        assert!(
            output.stderr.contains("timed out"),
            "{name} {what}: {}",
            output.stderr
        );
    }

    // What has been waited for in vain so far comes after all.
    let rest: Vec<_> = early.collect();
    assert!(rest.iter().all(|(_, _, wait)| !wait.is_finished()));
    team.sim
        .script_forever(key("overdue"), Answer::preset("success"));
    team.request_poll("overdue", "now").await;
    team.sim.put_job(Job::new(PROJECT, "suspended"));
    team.patch("suspended", json!({ "spec": { "suspend": false } }))
        .await;
    for (name, what, wait) in rest {
        assert_met(wait, &format!("{name} {what}")).await;
    }
}
