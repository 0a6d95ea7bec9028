//! The one decision about an object: what its status shows, when its job is polled next, what is changed
//! on the API server, and when to look again.

use crate::{
    config::Config,
    job::{Job, PollStage},
    phase::{Phase, Priority},
    schedule,
    sync::ChangeStage,
    time::{Due, Moment},
};
use std::time::Duration;

/// What should hold of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What its status shows; `None`: nothing yet.
    pub phase: Option<Phase>,
    /// When its job is polled next; `None`: not at all.
    pub poll: Option<Due>,
    /// What is sent to the API server next: [`Priority::Confirm`] a read, [`Priority::Expiry`] the
    /// deletion, any other a status; `None`: nothing now.
    pub change: Option<Priority>,
    /// When the decision may be another without an input.
    pub wake: Option<Duration>,
}

/// Decides about an object. A pure function of what is held of it.
#[must_use]
pub fn decide(config: &Config, job: &Job, now: Moment) -> Decision {
    let phase = job.phase();
    let poll = schedule::next_poll(config, job, phase, now.at);
    let change = next_change(job, phase, now);
    // One that is in flight is followed by another decision.
    let is_in_flight = matches!(job.polling.stage, PollStage::InFlight(_));
    let poll_at = match poll {
        Some(Due::Since(at)) if !is_in_flight => Some(at),
        _ => None,
    };
    let change_at = match job.sync.stage {
        ChangeStage::Unconfirmed { until, .. } | ChangeStage::Rejected { until } => Some(until),
        _ => None,
    };
    let start = job.evidence.facts.start;
    let is_open = !job.evidence.has_ended();
    let wake = [
        poll_at,
        change_at,
        job.sync.repair_at(),
        job.pending_at.filter(|_| phase.is_none()),
        job.overdue_at(config).filter(|_| !is_in_flight),
        job.limits.deadline(start).filter(|_| is_open),
        job.limits
            .shown_late_at(start, config.slow_period)
            .filter(|_| is_open),
        job.expires_at(),
    ];
    Decision {
        phase,
        poll,
        change,
        wake: wake.into_iter().flatten().filter(|at| *at > now.at).min(),
    }
}

fn next_change(job: &Job, phase: Option<Phase>, now: Moment) -> Option<Priority> {
    match job.sync.stage {
        ChangeStage::Writing { .. }
        | ChangeStage::Rereading { .. }
        | ChangeStage::Deleting { .. }
        | ChangeStage::Fetching { .. } => return None,
        ChangeStage::Unconfirmed { until, .. } => {
            return (until <= now.at).then_some(Priority::Confirm);
        }
        ChangeStage::Rejected { until } if now.at < until => return None,
        ChangeStage::Rejected { .. } | ChangeStage::Idle | ChangeStage::Queued(_) => {}
    }
    if let Some(phase) = phase
        && job.sync.needs(now.at, &job.snapshot(phase, now.wall))
    {
        let shown = job.sync.acknowledged();
        let names_cause = phase == Phase::Pending
            && shown.is_some_and(|shown| {
                shown.phase == phase
                    && shown.generation == job.generation
                    && shown.poll_request == job.handled_request
            });
        return Some(if names_cause {
            Priority::Outage
        } else {
            phase.row().priority
        });
    }
    let has_expired = job.expires_at().is_some_and(|at| at <= now.at);
    has_expired.then_some(Priority::Expiry)
}
