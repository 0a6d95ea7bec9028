//! Which phase is shown where the evidence supports several. The strongest first:
//!
//! 1. `JobSucceeded`, `JobFailed`, `ImageIDMissing`
//! 2. `ImageIDPending`
//! 3. `Suspended`
//! 4. `JobNotFound` for good
//! 5. the configuration errors
//! 6. `PollFailed`
//! 7. `PollOverdue`
//! 8. `JobStatusUnrecognized`
//! 9. `JobNotFound` within the grace period
//! 10. `JobInitializing`, `JobRunning`
//! 11. `Pending`
use crate::{
    evidence::Evidence,
    facts::{Cause, Facts, Wait},
    phase::Phase,
};
use image_export_model::{ConfigurationReason, JobState};
use std::sync::Arc;

/// Adds the evidence for a phase (or sets `suspend`), whatever other evidence there is.
type Adds = fn(&mut Evidence, &mut bool);

fn facts(evidence: &mut Evidence, change: impl FnOnce(&mut Facts)) {
    change(Arc::make_mut(&mut evidence.facts));
}

/// The phases, the strongest first. Phases of the same rank exclude one another: they depend on the same
/// field.
fn ranks() -> Vec<Vec<(Phase, Adds)>> {
    vec![
        vec![
            (Phase::JobSucceeded, |e, _| {
                facts(e, |f| {
                    f.job_status = Some(JobState::Success);
                    f.image_id = Some("image".into());
                });
            }),
            (Phase::JobFailed, |e, _| {
                facts(e, |f| f.job_status = Some(JobState::Fail));
            }),
            (Phase::ImageIdMissing, |e, _| {
                facts(e, |f| f.job_status = Some(JobState::Success));
                e.image_id_given_up = true;
            }),
        ],
        vec![(Phase::ImageIdPending, |e, _| {
            facts(e, |f| f.job_status = Some(JobState::Success));
        })],
        vec![(Phase::Suspended, |_, suspended| *suspended = true)],
        vec![(Phase::JobNotFound, |e, _| e.not_found = true)],
        vec![(Phase::AccessDenied, |e, _| {
            let cause = Cause::Observed("no".into());
            e.configuration_error = Some((ConfigurationReason::AccessDenied, cause));
        })],
        vec![(Phase::PollFailed, |e, _| {
            e.poll_failed = Some(Cause::Observed("503".into()));
        })],
        vec![(Phase::PollOverdue, |e, _| e.apply_overdue(Wait::Quota))],
        vec![(Phase::JobStatusUnrecognized, |e, _| {
            facts(e, |f| {
                f.job_status = Some(JobState::Unrecognized("ODD".into()));
            });
        })],
        vec![(Phase::JobNotFoundYet, |e, _| e.not_found_yet = true)],
        vec![
            (Phase::JobInitializing, |e, _| {
                facts(e, |f| f.job_status = Some(JobState::Init));
            }),
            (Phase::JobRunning, |e, _| {
                facts(e, |f| f.job_status = Some(JobState::Running));
            }),
        ],
        vec![(Phase::Pending, |e, _| e.pending = true)],
    ]
}

#[test]
fn the_stronger_of_any_two_phases_is_shown() {
    let ranks = ranks();
    let mut pairs = 0;
    for (rank, strong) in ranks.iter().enumerate() {
        for (phase, add) in strong {
            for (weaker, add_weaker) in ranks[rank..].iter().flatten() {
                // Adds the weaker one first: where both set the job status, the stronger one must win.
                let (mut evidence, mut suspended) = (Evidence::default(), false);
                if ranks[rank].iter().all(|(other, _)| other != weaker) || weaker == phase {
                    add_weaker(&mut evidence, &mut suspended);
                    add(&mut evidence, &mut suspended);
                    let shown = evidence.phase(suspended);
                    assert_eq!(shown, Some(*phase), "{phase:?} beside {weaker:?}");
                    pairs += 1;
                }
            }
        }
    }
    assert!(pairs > 60, "{pairs}");
}

#[test]
fn removing_the_strongest_evidence_shows_the_next_phase() {
    // For each rank: the evidence of this rank and of all weaker ones.
    let ranks = ranks();
    for rank in 0..ranks.len() {
        let (mut evidence, mut suspended) = (Evidence::default(), false);
        for (_, add) in ranks[rank..].iter().rev().map(|phases| &phases[0]) {
            add(&mut evidence, &mut suspended);
        }
        assert_eq!(evidence.phase(suspended), Some(ranks[rank][0].0));
    }
}

#[test]
fn the_evidence_of_a_stored_phase_leads_to_that_phase_again() {
    for &phase in Phase::ALL {
        let job_status = match phase {
            Phase::JobInitializing => Some(JobState::Init),
            Phase::JobRunning => Some(JobState::Running),
            Phase::JobSucceeded | Phase::ImageIdPending | Phase::ImageIdMissing => {
                Some(JobState::Success)
            }
            Phase::JobFailed => Some(JobState::Fail),
            Phase::JobStatusUnrecognized => Some(JobState::Unrecognized("ODD".into())),
            _ => None,
        };
        let facts = Facts {
            job_status,
            image_id: (phase == Phase::JobSucceeded).then(|| "image".into()),
            ..Facts::default()
        };
        let evidence = Evidence::of(phase, &Arc::new(facts));
        let again = evidence.phase(phase == Phase::Suspended);
        assert_eq!(again, Some(phase));
    }
}
