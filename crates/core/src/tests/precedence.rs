//! Where several rows hold: 4/5/4b > 4a > 8 > 7 > 1/1b/1c > 3e > 6 > 7a > 2/3 > 0b.
use crate::{
    evidence::Evidence,
    facts::{Cause, Facts},
    phase::Phase,
};
use image_export_model::{ConfigurationReason, JobState};
use std::sync::Arc;

/// Evidence that puts a history (and `suspend`) into a row, whatever else it holds.
type Shows = fn(&mut Evidence, &mut bool);

fn facts(evidence: &mut Evidence, change: impl FnOnce(&mut Facts)) {
    change(Arc::make_mut(&mut evidence.facts));
}

/// All rows, the strongest first. Rows of one line depend on the same field and cannot meet.
fn ranks() -> Vec<Vec<(Phase, Shows)>> {
    vec![
        vec![
            (Phase::JobSucceeded, |h, _| {
                facts(h, |f| {
                    f.job_status = Some(JobState::Success);
                    f.image_id = Some("image".into());
                });
            }),
            (Phase::JobFailed, |h, _| {
                facts(h, |f| f.job_status = Some(JobState::Fail));
            }),
            (Phase::ImageIdMissing, |h, _| {
                facts(h, |f| f.job_status = Some(JobState::Success));
                h.image_id_given_up = true;
            }),
        ],
        vec![(Phase::ImageIdPending, |h, _| {
            facts(h, |f| f.job_status = Some(JobState::Success));
        })],
        vec![(Phase::Suspended, |_, suspended| *suspended = true)],
        vec![(Phase::JobNotFound, |h, _| h.not_found = true)],
        vec![(Phase::AccessDenied, |h, _| {
            let cause = Cause::Observed("no".into());
            h.configuration_error = Some((ConfigurationReason::AccessDenied, cause));
        })],
        vec![(Phase::PollFailed, |h, _| {
            h.poll_failed = Some(Cause::Observed("503".into()));
        })],
        vec![(Phase::JobStatusUnrecognized, |h, _| {
            facts(h, |f| {
                f.job_status = Some(JobState::Unrecognized("ODD".into()))
            });
        })],
        vec![(Phase::JobNotFoundYet, |h, _| h.not_found_yet = true)],
        vec![
            (Phase::JobInitializing, |h, _| {
                facts(h, |f| f.job_status = Some(JobState::Init));
            }),
            (Phase::JobRunning, |h, _| {
                facts(h, |f| f.job_status = Some(JobState::Running));
            }),
        ],
        vec![(Phase::Pending, |h, _| h.pending = true)],
    ]
}

#[test]
fn the_stronger_of_each_two_rows_is_shown() {
    let ranks = ranks();
    let mut pairs = 0;
    for (rank, strong) in ranks.iter().enumerate() {
        for (row, evidence) in strong {
            for (weaker, weak) in ranks[rank..].iter().flatten() {
                // The weaker one first: both write the job's word where they depend on it.
                let (mut history, mut suspended) = (Evidence::default(), false);
                if ranks[rank].iter().all(|(other, _)| other != weaker) || weaker == row {
                    weak(&mut history, &mut suspended);
                    evidence(&mut history, &mut suspended);
                    let shown = history.phase(suspended);
                    assert_eq!(shown, Some(*row), "{row:?} beside {weaker:?}");
                    pairs += 1;
                }
            }
        }
    }
    assert!(pairs > 60, "{pairs}");
}

#[test]
fn all_rows_together_fall_away_one_by_one() {
    // From the strongest to the weakest, each evidence added to all weaker ones.
    let ranks = ranks();
    for rank in 0..ranks.len() {
        let (mut history, mut suspended) = (Evidence::default(), false);
        for (_, evidence) in ranks[rank..].iter().rev().map(|rows| &rows[0]) {
            evidence(&mut history, &mut suspended);
        }
        assert_eq!(history.phase(suspended), Some(ranks[rank][0].0));
    }
}
