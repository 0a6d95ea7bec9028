//! Where several rows hold: 4/5/4b > 4a > 8 > 7 > 1/1b/1c > 3e > 6 > 7a > 2/3 > 0b.
use crate::{
    history::History,
    standing::{Facts, Word},
    verdict::Row,
};
use image_export_model::{ConfigurationError, ConfigurationReason};
use std::sync::Arc;

/// Evidence that puts a history (and `suspend`) into a row, whatever else it holds.
type Evidence = fn(&mut History, &mut bool);

fn facts(history: &mut History, change: impl FnOnce(&mut Facts)) {
    change(Arc::make_mut(&mut history.facts));
}

/// All rows, the strongest first. Rows of one line depend on the same field and cannot meet.
fn ranks() -> Vec<Vec<(Row, Evidence)>> {
    let refused = Row::Refused(ConfigurationReason::AccessDenied);
    vec![
        vec![
            (Row::Succeeded, |h, _| {
                facts(h, |f| {
                    f.word = Word::Success;
                    f.image_id = Some("image".into());
                });
            }),
            (Row::Failed, |h, _| facts(h, |f| f.word = Word::Fail)),
            (Row::ImageIdMissing, |h, _| {
                facts(h, |f| f.word = Word::Success);
                h.image_id_given_up = true;
            }),
        ],
        vec![(Row::ImageIdPending, |h, _| {
            facts(h, |f| f.word = Word::Success);
        })],
        vec![(Row::Suspended, |_, suspended| *suspended = true)],
        vec![(Row::NotFound, |h, _| h.not_found = true)],
        vec![(refused, |h, _| {
            h.refusal = Some(ConfigurationError {
                reason: ConfigurationReason::AccessDenied,
                message: "no".into(),
            });
        })],
        vec![(Row::PollFailed, |h, _| h.poll_failed = Some("503".into()))],
        vec![(Row::Unrecognized, |h, _| {
            facts(h, |f| f.word = Word::Other("ODD".into()));
        })],
        vec![(Row::NotFoundYet, |h, _| h.not_found_yet = true)],
        vec![
            (Row::Initializing, |h, _| facts(h, |f| f.word = Word::Init)),
            (Row::Running, |h, _| facts(h, |f| f.word = Word::Running)),
        ],
        vec![(Row::Pending, |h, _| h.pending = true)],
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
                let (mut history, mut suspended) = (History::default(), false);
                if ranks[rank].iter().all(|(other, _)| other != weaker) || weaker == row {
                    weak(&mut history, &mut suspended);
                    evidence(&mut history, &mut suspended);
                    let shown = Row::of(&history, suspended);
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
        let (mut history, mut suspended) = (History::default(), false);
        for (_, evidence) in ranks[rank..].iter().rev().map(|rows| &rows[0]) {
            evidence(&mut history, &mut suspended);
        }
        assert_eq!(Row::of(&history, suspended), Some(ranks[rank][0].0));
    }
}
