//! When an object is polled next. Nothing else decides that.

use crate::{
    cadence,
    config::Config,
    job::{Job, Plan},
    phase::{Detail, Pace, Phase},
    time::{Due, Moment},
};
use std::time::Duration;

/// When the next poll is due; `None`: not at all.
#[must_use]
pub fn next_poll(config: &Config, job: &Job, phase: Option<Phase>, at: Duration) -> Option<Due> {
    let polling = &job.polling;
    if job.is_being_deleted {
        return None;
    }
    // Whoever wants polls as fast as possible gets them at a bounded pace.
    let wanted = polling.wanted.map(|wanted| match polling.earliest {
        earliest if earliest > at => Due::Since(earliest),
        _ => wanted,
    });
    match phase.map_or(Pace::Own, |phase| phase.row().pace) {
        Pace::Never => {
            // A finished job is polled by hand alone, and only where its image id may still come.
            let is_requested = polling.wanted == Some(Due::Requested);
            wanted.filter(|_| is_requested && phase == Some(Phase::ImageIdMissing))
        }
        // Its attempts keep their distance, whatever happens meanwhile.
        Pace::ImageId => Some(Due::Since(polling.image_id_at)),
        Pace::Own | Pace::Slow | Pace::NotFound => {
            Some(wanted.unwrap_or_else(|| Due::Since(planned(config, job, phase))))
        }
    }
}

/// When the next poll is due, unless something wants one before.
fn planned(config: &Config, job: &Job, phase: Option<Phase>) -> Duration {
    let own = job.interval(config);
    let period = match phase.map_or(Pace::Own, |phase| phase.row().pace) {
        Pace::Own | Pace::ImageId | Pace::Never => own,
        Pace::Slow => own.max(config.slow_period),
        Pace::NotFound => config.not_found_period,
    };
    match job.polling.plan {
        Plan::At(at) | Plan::Retry { at, .. } => at,
        Plan::Paced(earliest) => cadence::next_instant(job.seed, period, config.second, earliest),
    }
}

/// How long a poll that waits is due. One requested by hand counts from its planned time, where that has
/// passed, and nothing counts from before this process led.
#[must_use]
pub fn lateness(
    config: &Config,
    job: &Job,
    due: Due,
    leading_since: Duration,
    at: Duration,
) -> Duration {
    let due = match due {
        Due::Since(due) => due,
        Due::Requested => planned(config, job, job.phase()),
    };
    at.saturating_sub(due.max(leading_since))
}

/// When an object is polled first. `pending_in_group`: its first poll is the latest of so many pending in
/// its quota group; `None` where its status already shows what an earlier process observed.
#[must_use]
pub fn first_poll(
    config: &Config,
    now: Moment,
    job: &Job,
    pending_in_group: Option<u32>,
) -> Option<Duration> {
    if let Some(pending) = pending_in_group {
        let spread = Duration::from_secs_f64(f64::from(pending) / config.quota_rate);
        let spread = spread.min(config.first_poll_spread);
        return Some(now.at + cadence::draw(job.seed, 0, spread));
    }
    let phase = job.phase();
    let phase = phase?;
    let soon = cadence::draw(job.seed, 0, config.slow_period);
    let is_misconfigured = matches!(phase.row().detail, Detail::Configuration(_));
    let latest = match phase {
        Phase::ImageIdPending => return None,
        // A deadline that passed meanwhile is shown with the first outcome: in time for patience with it.
        _ if job.is_late(now.at) => soon / 2,
        // Trouble before the start does not outlast a long period of its own.
        _ if is_misconfigured && job.own_period(config) > config.slow_period => soon,
        Phase::Pending | Phase::PollFailed | Phase::PollOverdue => soon,
        _ => return None,
    };
    let paced = next_poll(config, job, Some(phase), now.at);
    Some(match paced {
        Some(Due::Since(at)) => at.min(now.at + latest),
        Some(Due::Requested) | None => now.at + latest,
    })
}
