//! The compact form of a status: what a record keeps of what was written, from which the whole
//! status is regenerated to the letter.

use super::{
    history::History,
    verdict::{Activity, Row, detail_of},
};
use image_export_api::{
    ImageExportJobStatus,
    conditions::{Condition, types},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use std::sync::Arc;

/// Job types that carry no image id.
const TYPES_WITHOUT_IMAGE: [&str; 3] = [
    "imsAddImageMembersJob",
    "imsDelImageMembersJob",
    "imsUpdateImageMembersJob",
];

/// `status.status`: the job's state as last shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Word {
    /// Nothing was answered yet.
    #[default]
    None,
    /// `INIT`
    Init,
    /// `RUNNING`
    Running,
    /// `SUCCESS`
    Success,
    /// `FAIL`
    Fail,
    /// Any other word, as the cloud spelled it.
    Other(Arc<str>),
}

impl Word {
    /// As written into the status.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Init => Some("INIT"),
            Self::Running => Some("RUNNING"),
            Self::Success => Some("SUCCESS"),
            Self::Fail => Some("FAIL"),
            Self::Other(word) => Some(word),
        }
    }

    fn parse(word: Option<&str>) -> Self {
        match word {
            None => Self::None,
            Some("INIT") => Self::Init,
            Some("RUNNING") => Self::Running,
            Some("SUCCESS") => Self::Success,
            Some("FAIL") => Self::Fail,
            Some(other) => Self::Other(other.into()),
        }
    }
}

/// What is known about the job itself. Shared between history and standing while they agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `status.status`
    pub word: Word,
    /// `status.jobType`
    pub job_type: Option<Arc<str>>,
    /// `status.imageID`
    pub image_id: Option<Arc<str>>,
    /// `status.failReason`
    pub fail_reason: Option<Arc<str>>,
    /// `status.errorCode`
    pub error_code: Option<Arc<str>>,
    /// `status.progressPercent`: a step of 10.
    pub progress: Option<u8>,
    /// `status.startTime`, seconds since the epoch.
    pub start: Option<i64>,
    /// `status.completionTime`, seconds since the epoch.
    pub completion: Option<i64>,
}

impl Facts {
    /// Whether a success has its image id, or is of a type that has none.
    #[must_use]
    pub fn has_all_it_can(&self) -> bool {
        self.image_id.is_some()
            || self
                .job_type
                .as_deref()
                .is_some_and(|job_type| TYPES_WITHOUT_IMAGE.contains(&job_type))
    }
}

/// Since when each condition has had its present `status`, in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// `Ready`
    pub ready: i64,
    /// `Succeeded`
    pub succeeded: i64,
    /// `Reconciling` or `Stalled`, whichever the row shows.
    pub activity: i64,
}

/// A status in compact form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Row of the conditions table.
    pub row: Row,
    /// The part of the row's message that the row does not give (see [`detail_of`]).
    pub detail: Option<Arc<str>>,
    /// The fields about the job.
    pub facts: Arc<Facts>,
    /// `observedGeneration`, of the status and of each condition.
    pub generation: i64,
    /// `lastHandledPollRequest`
    pub poll_request: Option<Arc<str>>,
    /// Transition times.
    pub since: Since,
    /// Conditions of others, to the letter.
    pub foreign: Option<Arc<[Condition]>>,
}

/// How well a status was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Never written: nothing but the CRD's defaults (and conditions of others).
    Fresh,
    /// Ours: it regenerates to itself, but for the wording of messages, which may be that of
    /// another version of the operator.
    Ours(Standing),
    /// Not ours, or edited.
    Strange,
}

impl Standing {
    /// The status that this is the compact form of.
    #[must_use]
    pub fn render(&self, job: &str) -> ImageExportJobStatus {
        let facts = &self.facts;
        let text = |field: &Option<Arc<str>>| field.as_deref().map(str::to_owned);
        ImageExportJobStatus {
            observed_generation: Some(self.generation),
            status: facts.word.as_str().map(str::to_owned),
            job_type: text(&facts.job_type),
            image_id: text(&facts.image_id),
            fail_reason: text(&facts.fail_reason),
            error_code: text(&facts.error_code),
            progress_percent: facts.progress.map(i32::from),
            start_time: facts.start.and_then(time),
            completion_time: facts.completion.and_then(time),
            last_handled_poll_request: text(&self.poll_request),
            conditions: self.conditions(job),
        }
    }

    fn conditions(&self, job: &str) -> Vec<Condition> {
        let row = self.row;
        let table = row.conditions();
        let message = row.message(job, self.detail.as_deref(), &self.facts);
        let condition =
            |type_: &str, status: &str, reason: &str, message: &str, since: i64| Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                observed_generation: Some(self.generation),
                last_transition_time: Timestamp::from_second(since)
                    .unwrap_or_default()
                    .to_string(),
                reason: reason.to_owned(),
                message: message.to_owned(),
            };
        let succeeded_message = match row {
            Row::ImageIdMissing => format!("Job {job} has succeeded."),
            _ => message.clone(),
        };
        let mut conditions = vec![
            condition(
                types::READY,
                table.ready.as_str(),
                row.reason(),
                &message,
                self.since.ready,
            ),
            condition(
                types::SUCCEEDED,
                table.succeeded.as_str(),
                row.succeeded_reason(),
                &succeeded_message,
                self.since.succeeded,
            ),
        ];
        if let Some(activity) = table.activity {
            let type_ = match activity {
                Activity::Reconciling => types::RECONCILING,
                Activity::Stalled => types::STALLED,
            };
            conditions.push(condition(
                type_,
                "True",
                row.reason(),
                &message,
                self.since.activity,
            ));
        }
        conditions.extend(
            self.foreign
                .iter()
                .flat_map(|foreign| foreign.iter().cloned()),
        );
        conditions
    }

    /// Reads a status back.
    #[must_use]
    pub fn parse(status: Option<&ImageExportJobStatus>, job: &str) -> Parsed {
        let Some(status) = status else {
            return Parsed::Fresh;
        };
        if is_fresh(status) {
            return Parsed::Fresh;
        }
        let Some(standing) = Self::read(status, job).filter(Self::adds_up) else {
            return Parsed::Strange;
        };
        let mut regenerated = standing.render(job);
        for (ours, theirs) in regenerated.conditions.iter_mut().zip(&status.conditions) {
            ours.message.clone_from(&theirs.message);
        }
        if &regenerated == status {
            Parsed::Ours(standing)
        } else {
            Parsed::Strange
        }
    }

    fn read(status: &ImageExportJobStatus, job: &str) -> Option<Self> {
        let find = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_);
        let ready = find(types::READY)?;
        let stalled = find(types::STALLED);
        let activity = stalled.or_else(|| find(types::RECONCILING));
        let row = Row::from_reason(&ready.reason, stalled.is_some())?;
        let since = |condition: &Condition| {
            condition
                .last_transition_time
                .parse::<Timestamp>()
                .ok()
                .map(Timestamp::as_second)
        };
        let ready_since = since(ready)?;
        let text = |field: &Option<String>| field.as_deref().map(Arc::from);
        Some(Self {
            row,
            detail: detail_of(row, job, &ready.message).map(Arc::from),
            facts: Arc::new(Facts {
                word: Word::parse(status.status.as_deref()),
                job_type: text(&status.job_type),
                image_id: text(&status.image_id),
                fail_reason: text(&status.fail_reason),
                error_code: text(&status.error_code),
                progress: status.progress_percent.and_then(|p| p.try_into().ok()),
                start: status.start_time.as_ref().map(|time| time.0.as_second()),
                completion: status
                    .completion_time
                    .as_ref()
                    .map(|time| time.0.as_second()),
            }),
            generation: status.observed_generation?,
            poll_request: text(&status.last_handled_poll_request),
            since: Since {
                ready: ready_since,
                succeeded: since(find(types::SUCCEEDED)?)?,
                activity: activity.map_or(Some(ready_since), since)?,
            },
            foreign: foreign(status),
        })
    }

    /// Whether the conditions follow from the fields: both were written together. An end that only
    /// one of them claims is nobody's.
    fn adds_up(&self) -> bool {
        let facts = &self.facts;
        let follows = Row::of(&History::of(self), self.row == Row::Suspended);
        follows.unwrap_or(Row::Pending) == self.row
            && self.row.is_finished() == facts.completion.is_some()
            && (facts.word == Word::Success || facts.image_id.is_none())
            && (facts.word == Word::Fail
                || (facts.fail_reason.is_none() && facts.error_code.is_none()))
    }

    /// Whether two standings say the same, transition times and generation aside.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.row == other.row
            && self.detail == other.detail
            && self.facts == other.facts
            && self.poll_request == other.poll_request
    }

    /// Carries the transition times over from what was last acknowledged: each moves only where
    /// that condition's `status` flips.
    #[must_use]
    pub fn since(row: Row, now: i64, acknowledged: Option<&Self>) -> Since {
        let Some(before) = acknowledged else {
            return Since {
                ready: now,
                succeeded: now,
                activity: now,
            };
        };
        let (old, new) = (before.row.conditions(), row.conditions());
        let keep = |same: bool, since: i64| if same { since } else { now };
        let ready = keep(old.ready == new.ready, before.since.ready);
        Since {
            ready,
            succeeded: keep(old.succeeded == new.succeeded, before.since.succeeded),
            // A row without activity holds Ready's time in its place, as reading it back does.
            activity: match new.activity {
                None => ready,
                Some(_) => keep(old.activity == new.activity, before.since.activity),
            },
        }
    }
}

/// Conditions of others in a status.
#[must_use]
pub fn foreign(status: &ImageExportJobStatus) -> Option<Arc<[Condition]>> {
    let foreign: Arc<[Condition]> = status
        .conditions
        .iter()
        .filter(|condition| !types::ALL.contains(&condition.type_.as_str()))
        .cloned()
        .collect();
    (!foreign.is_empty()).then_some(foreign)
}

fn is_fresh(status: &ImageExportJobStatus) -> bool {
    let ours = status
        .conditions
        .iter()
        .any(|c| types::ALL.contains(&c.type_.as_str()));
    !ours
        && *status
            == ImageExportJobStatus {
                observed_generation: status
                    .observed_generation
                    .filter(|&generation| generation < 0),
                conditions: status.conditions.clone(),
                ..ImageExportJobStatus::default()
            }
}

/// Whether a status claims an end, however inconsistently.
#[must_use]
pub fn looks_finished(status: &ImageExportJobStatus) -> bool {
    let end = matches!(status.status.as_deref(), Some("SUCCESS" | "FAIL"));
    end && status.completion_time.is_some()
        && status
            .conditions
            .iter()
            .any(|c| c.type_ == types::SUCCEEDED && c.status != "Unknown")
}

fn time(second: i64) -> Option<Time> {
    Timestamp::from_second(second).ok().map(Time)
}
