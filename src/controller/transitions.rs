//! Ends, and troubles entered and left: counted, and logged at a bounded rate. Events of them expire; this log is
//! what is left of last night.

use crate::telemetry::{ENDS, Metrics, SharedLogQuota};
use image_export_core::{INVALID_OBJECT, ObjectEvent, Transition};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// What was not logged is summed up so often.
const SUMMARY: Duration = Duration::from_secs(60);

pub(super) struct Transitions {
    metrics: Arc<Metrics>,
    /// Of a namespace as many as one project's polls can bring: its quota is 10 polls a second.
    ends: SharedLogQuota,
    /// An outage brings them for all objects at once.
    troubles: SharedLogQuota,
    /// What was not logged, by reason.
    skipped: BTreeMap<&'static str, u64>,
    summed_up: Instant,
}

impl Transitions {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            ends: SharedLogQuota::new(1000.0, 10.0),
            troubles: SharedLogQuota::new(100.0, 1.0),
            skipped: BTreeMap::new(),
            summed_up: Instant::now(),
        }
    }

    /// Counts and logs one.
    pub(super) fn apply(&mut self, transition: &Transition) {
        let Transition {
            key,
            before,
            after,
            message,
            took,
        } = transition;
        self.metrics.shown(*after, *took);
        let reason = after.row().reason;
        let quota = if ENDS.contains(after) {
            &mut self.ends
        } else {
            &mut self.troubles
        };
        if quota.takes(&key.namespace) {
            let before = before.map(|phase| phase.row().reason);
            tracing::info!(object = %key, reason, before, "{message}");
        } else {
            *self.skipped.entry(reason).or_default() += 1;
        }
    }

    /// Logs an Event that no status and no metric shows: that an object cannot be read.
    pub(super) fn apply_event(&mut self, event: &ObjectEvent) {
        if event.reason != INVALID_OBJECT {
            return;
        }
        if self.troubles.takes(&event.key.namespace) {
            tracing::warn!(object = %event.key, "{}", event.note);
        } else {
            *self.skipped.entry(event.reason).or_default() += 1;
        }
    }

    /// Sums up what was not logged, once a minute.
    pub(super) fn sum_up(&mut self) {
        if self.summed_up.elapsed() >= SUMMARY {
            self.sum_up_now();
        }
    }

    /// The same at once.
    pub(super) fn sum_up_now(&mut self) {
        self.summed_up = Instant::now();
        let skipped = std::mem::take(&mut self.skipped);
        let reasons = skipped
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"));
        let reasons = reasons.collect::<Vec<_>>().join(", ");
        let count: u64 = skipped.values().sum();
        if count > 0 {
            tracing::info!(
                count,
                "too many lines at once, these are not logged: {reasons}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Captured;
    use image_export_core::{ObjectKey, phase::Phase};
    use tokio::time::advance;

    fn transition(name: &str, before: Option<Phase>, after: Phase) -> Transition {
        Transition {
            key: key(name),
            before,
            after,
            message: format!("Sentence about {name}."),
            took: Some(Duration::from_secs(600)),
        }
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            namespace: "ns".into(),
            name: name.into(),
        }
    }

    fn messages(log: &Captured) -> Vec<String> {
        let lines = log.of("::transitions");
        let messages = lines
            .iter()
            .map(|line| line["message"].as_str().unwrap().to_owned());
        messages.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_counted_and_logged_with_its_object_reason_and_message() {
        let (log, _guard) = Captured::start();
        let metrics = Arc::<Metrics>::default();
        let mut transitions = Transitions::new(metrics.clone());
        for (before, after) in [
            (None, Phase::CredentialsNotFound),
            (Some(Phase::CredentialsNotFound), Phase::JobRunning),
            (Some(Phase::JobRunning), Phase::JobFailed),
        ] {
            transitions.apply(&transition("x", before, after));
        }
        let lines = log.of("::transitions");
        let shown: Vec<_> = lines
            .iter()
            .map(|line| {
                assert_eq!(
                    (&line["level"], &line["object"]),
                    (&"INFO".into(), &"ns/x".into())
                );
                assert_eq!(line["message"], "Sentence about x.");
                (line["before"].as_str(), line["reason"].as_str().unwrap())
            })
            .collect();
        assert_eq!(
            shown,
            [
                (None, "CredentialsNotFound"),
                (Some("CredentialsNotFound"), "JobRunning"),
                (Some("JobRunning"), "JobFailed"),
            ]
        );
        let text = metrics.encode();
        for line in [
            "imageexport_jobs_ended_total{reason=\"JobFailed\"} 1\n",
            "imageexport_job_duration_seconds_sum{reason=\"JobFailed\"} 600.0\n",
            "imageexport_jobs_ended_total{reason=\"JobSucceeded\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_is_summed_up_and_leaves_room_for_ends() {
        let (log, _guard) = Captured::start();
        let metrics = Arc::<Metrics>::default();
        let mut transitions = Transitions::new(metrics.clone());
        for number in 0..10_000 {
            transitions.apply(&transition(&format!("x{number}"), None, Phase::PollFailed));
        }
        let invalid = ObjectEvent {
            key: key("y"),
            uid: "u".into(),
            reason: INVALID_OBJECT,
            warning: true,
            note: "Cannot be read.".to_owned(),
        };
        transitions.apply_event(&invalid);
        transitions.apply(&transition("end", None, Phase::JobSucceeded));
        let logged = messages(&log);
        assert_eq!(logged.len(), 101);
        assert_eq!(logged[100], "Sentence about end.");
        transitions.sum_up();
        assert_eq!(messages(&log).len(), 101, "once a minute");
        advance(SUMMARY).await;
        for _ in 0..2 {
            transitions.sum_up();
        }
        let lines = messages(&log).split_off(101);
        let summary =
            "too many lines at once, these are not logged: InvalidObject 1, PollFailed 9900";
        assert_eq!(lines, [summary]);
        transitions.apply_event(&invalid);
        let last = log.of("::transitions").pop().unwrap();
        assert_eq!(
            (&last["level"], &last["object"]),
            (&"WARN".into(), &"ns/y".into())
        );

        // All ends of one project are logged: its quota is 10 polls a second.
        for number in 0..5_000 {
            transitions.apply(&transition(
                &format!("x{number}"),
                None,
                Phase::JobSucceeded,
            ));
            advance(Duration::from_millis(100)).await;
        }
        assert_eq!(messages(&log).len(), 101 + 1 + 1 + 5_000);
        transitions.sum_up_now();
        assert_eq!(messages(&log).len(), 101 + 1 + 1 + 5_000);
    }

    #[tokio::test(start_paused = true)]
    async fn other_events_are_not_logged() {
        let (log, _guard) = Captured::start();
        let mut transitions = Transitions::new(Arc::default());
        transitions.apply_event(&ObjectEvent {
            key: key("x"),
            uid: "u".into(),
            reason: Phase::JobFailed.row().reason,
            warning: true,
            note: "The same as a transition.".to_owned(),
        });
        assert!(messages(&log).is_empty());
    }
}
