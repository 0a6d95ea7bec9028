//! The compact form of a written status, from which the whole status is rendered to the letter.

use crate::{
    evidence::Evidence,
    facts::{Cause, Facts},
    message::{message, succeeded_message},
    pack::{Pack, Reader, Writer, pack_fields, pack_struct, unpack_fields},
    phase::{Activity, Phase},
};
use image_export_api::{
    ImageExportJobStatus,
    conditions::{CONDITIONS_MAX, Condition, types},
};
use image_export_model::JobState;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;

/// Since when each condition has had its present `status`, in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// `Ready`
    pub ready: i64,
    /// `Succeeded`
    pub succeeded: i64,
    /// `Reconciling` or `Stalled`, whichever the phase shows; `Ready`'s where it shows neither.
    pub activity: i64,
}

/// The wording of the conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// This version's sentence, with this detail.
    Rendered(Option<Arc<str>>),
    /// As found in the status: the sentence has a detail, or another version of the operator wrote it.
    /// Kept to the letter for as long as it says what would be said anew, so that neither a restart nor
    /// a reworded message causes a write.
    Stored {
        /// Messages of the conditions owned by the operator, in the order of [`types::ALL`].
        messages: Arc<[Box<str>]>,
        /// Whether the sentence of a phase where that is optional has a detail.
        has_detail: bool,
    },
}

/// A status in compact form, without the conditions owned by others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What the conditions show.
    pub phase: Phase,
    /// Their messages.
    pub text: Text,
    /// The fields about the job.
    pub facts: Arc<Facts>,
    /// `observedGeneration`, of the status and of each condition.
    pub generation: i64,
    /// `lastHandledPollRequest`
    pub poll_request: Option<Arc<str>>,
    /// Transition times.
    pub since: Since,
}

pack_struct!(Snapshot {
    phase,
    text,
    facts,
    generation,
    poll_request,
    since,
});

/// Mostly all three are the same.
impl Pack for Since {
    fn empty() -> Self {
        Self {
            ready: 0,
            succeeded: 0,
            activity: 0,
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::empty()
    }

    fn pack(&self, to: &mut Writer<'_>) {
        let after = |since: i64| since.wrapping_sub(self.ready);
        let (succeeded, activity) = (after(self.succeeded), after(self.activity));
        pack_fields!(to, &self.ready, &succeeded, &activity);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        unpack_fields!(from, ready, succeeded, activity);
        let after = |since: i64| since.wrapping_add(ready);
        Self {
            ready,
            succeeded: after(succeeded),
            activity: after(activity),
        }
    }
}

impl Pack for Text {
    fn empty() -> Self {
        Self::Rendered(None)
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Rendered(None))
    }

    fn pack(&self, to: &mut Writer<'_>) {
        let (detail, stored) = match self {
            Self::Rendered(detail) => (detail.clone(), None),
            Self::Stored {
                messages,
                has_detail,
            } => (None, Some((messages, has_detail))),
        };
        let has_detail = stored.is_some_and(|(_, has_detail)| *has_detail);
        let messages = stored.map(|(messages, _)| messages.clone());
        pack_fields!(to, &detail, &messages, &has_detail);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        unpack_fields!(from, detail, messages, has_detail);
        match messages {
            Some(messages) => Self::Stored {
                messages,
                has_detail,
            },
            None => Self::Rendered(detail),
        }
    }
}

impl Snapshot {
    /// The status, followed by the conditions owned by others.
    #[must_use]
    pub fn render(&self, job: &str, unowned: &[Condition]) -> ImageExportJobStatus {
        let facts = &self.facts;
        let text = |field: &Option<Arc<str>>| field.as_deref().map(str::to_owned);
        let mut conditions = self.conditions(job);
        conditions.extend_from_slice(unowned);
        ImageExportJobStatus {
            observed_generation: Some(self.generation),
            status: facts
                .job_status
                .as_ref()
                .map(|status| status.as_str().to_owned()),
            job_type: text(&facts.job_type),
            image_id: text(&facts.image_id),
            fail_reason: text(&facts.fail_reason),
            error_code: text(&facts.error_code),
            progress_percent: facts.progress.map(i32::from),
            start_time: facts.start.and_then(time),
            completion_time: facts.completion.and_then(time),
            last_handled_poll_request: text(&self.poll_request),
            conditions,
        }
    }

    /// The message of `Ready`.
    #[must_use]
    pub fn message(&self, job: &str) -> String {
        match &self.text {
            Text::Rendered(detail) => message(self.phase, job, detail.as_deref(), &self.facts),
            Text::Stored { messages, .. } => messages[0].clone().into(),
        }
    }

    fn conditions(&self, job: &str) -> Vec<Condition> {
        let row = self.phase.row();
        let mut conditions = vec![
            self.condition(
                types::READY,
                row.ready.as_str(),
                row.reason,
                self.since.ready,
            ),
            self.condition(
                types::SUCCEEDED,
                row.succeeded.as_str(),
                row.succeeded_reason,
                self.since.succeeded,
            ),
        ];
        let third = match row.activity {
            Activity::Reconciling => Some(types::RECONCILING),
            Activity::Stalled => Some(types::STALLED),
            Activity::Rest => None,
        };
        conditions.extend(
            third.map(|type_| self.condition(type_, "True", row.reason, self.since.activity)),
        );
        match &self.text {
            Text::Rendered(detail) => {
                let text = message(self.phase, job, detail.as_deref(), &self.facts);
                let succeeded = succeeded_message(self.phase, job, detail.is_some(), &self.facts);
                for condition in &mut conditions {
                    condition.message.clone_from(&text);
                }
                if let Some(succeeded) = succeeded {
                    conditions[1].message = succeeded;
                }
            }
            Text::Stored { messages, .. } => {
                for (condition, message) in conditions.iter_mut().zip(&**messages) {
                    condition.message = message.to_string();
                }
            }
        }
        conditions
    }

    /// A condition without its message.
    fn condition(&self, type_: &str, status: &str, reason: &str, since: i64) -> Condition {
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            observed_generation: Some(self.generation),
            last_transition_time: Timestamp::from_second(since)
                .unwrap_or_default()
                .to_string(),
            reason: reason.to_owned(),
            message: String::new(),
        }
    }

    /// Reads a status back. `None`: it was never written, or is not ours, or was edited, since it does not
    /// render to itself, whatever the wording of its messages.
    #[must_use]
    pub fn parse(status: &ImageExportJobStatus, job: &str) -> Option<Self> {
        let snapshot = Self::read(status).filter(Self::is_consistent)?;
        let mut rendered = snapshot.render(job, &[]);
        if same_owned_part(&rendered, status) {
            return Some(snapshot);
        }
        for (ours, stored) in rendered.conditions.iter_mut().zip(owned(status)) {
            ours.message.clone_from(&stored.message);
        }
        if !same_owned_part(&rendered, status) {
            return None;
        }
        let text = Text::Stored {
            messages: owned(status).map(|c| c.message.as_str().into()).collect(),
            has_detail: snapshot.has_detail(status),
        };
        Some(Self { text, ..snapshot })
    }

    fn read(status: &ImageExportJobStatus) -> Option<Self> {
        let find = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_);
        let (ready, succeeded) = (find(types::READY)?, find(types::SUCCEEDED)?);
        let stalled = find(types::STALLED);
        let third = stalled.or_else(|| find(types::RECONCILING));
        let since = |condition: &Condition| {
            let time = condition.last_transition_time.parse::<Timestamp>();
            time.ok().map(Timestamp::as_second)
        };
        Some(Self {
            phase: Phase::from_reason(&ready.reason, stalled.is_some())?,
            text: Text::Rendered(None),
            facts: Arc::new(facts(status)),
            generation: status.observed_generation?,
            poll_request: text(status.last_handled_poll_request.as_ref()),
            since: Since {
                ready: since(ready)?,
                succeeded: since(succeeded)?,
                activity: since(third.unwrap_or(ready))?,
            },
        })
    }

    fn has_detail(&self, status: &ImageExportJobStatus) -> bool {
        let message = |type_| owned(status).find(|c| c.type_ == type_).map(|c| &c.message);
        matches!(self.phase, Phase::DeadlineExceeded | Phase::Pending)
            && message(types::READY) != message(types::SUCCEEDED)
    }

    /// Whether conditions and fields were written together: an end that only one of them shows is not
    /// ours.
    fn is_consistent(&self) -> bool {
        let facts = &self.facts;
        let evidence = Evidence::of(self.phase, facts);
        let phase = evidence.phase(self.phase == Phase::Suspended);
        phase.unwrap_or(Phase::Pending) == self.phase
            && self.phase.is_finished() == facts.completion.is_some()
            && (facts.job_status == Some(JobState::Success) || facts.image_id.is_none())
            && (facts.job_status == Some(JobState::Fail)
                || (facts.fail_reason.is_none() && facts.error_code.is_none()))
    }

    /// Whether two snapshots show the same, transition times and generation aside.
    #[must_use]
    pub fn content_eq(&self, other: &Self) -> bool {
        self.phase == other.phase
            && self.text == other.text
            && self.facts == other.facts
            && self.poll_request == other.poll_request
    }

    /// The wording for this phase, cause and facts: what is stored already, where that says the same.
    #[must_use]
    pub fn next_text(
        phase: Phase,
        cause: Option<Cause>,
        facts: &Facts,
        acknowledged: Option<&Self>,
    ) -> Text {
        let before = acknowledged.filter(|before| before.phase == phase);
        match (cause, before) {
            (Some(Cause::Stored), Some(before)) => before.text.clone(),
            (Some(Cause::Observed(detail)), Some(before)) if before.mentions(&detail, facts) => {
                before.text.clone()
            }
            (None, Some(before)) if before.mentions_no_detail(facts) => before.text.clone(),
            (Some(Cause::Observed(detail)), _) => Text::Rendered(Some(detail)),
            (Some(Cause::Stored) | None, _) => Text::Rendered(None),
        }
    }

    fn mentions(&self, detail: &str, facts: &Facts) -> bool {
        let Text::Stored { messages, .. } = &self.text else {
            return false;
        };
        *self.facts == *facts && messages[0].contains(detail)
    }

    fn mentions_no_detail(&self, facts: &Facts) -> bool {
        let stored = matches!(
            self.text,
            Text::Stored {
                has_detail: false,
                ..
            }
        );
        stored && *self.facts == *facts
    }

    /// The transition times after those of the acknowledged snapshot: each moves only where the `status`
    /// of that condition changes.
    #[must_use]
    pub fn next_since(phase: Phase, now: i64, acknowledged: Option<&Self>) -> Since {
        let Some(before) = acknowledged else {
            return Since {
                ready: now,
                succeeded: now,
                activity: now,
            };
        };
        let (old, new) = (before.phase.row(), phase.row());
        let keep = |same: bool, since: i64| if same { since } else { now };
        let ready = keep(old.ready == new.ready, before.since.ready);
        Since {
            ready,
            succeeded: keep(old.succeeded == new.succeeded, before.since.succeeded),
            activity: match new.activity {
                // As reading it back does.
                Activity::Rest => ready,
                _ => keep(old.activity == new.activity, before.since.activity),
            },
        }
    }
}

fn is_owned(condition: &Condition) -> bool {
    types::ALL.contains(&condition.type_.as_str())
}

/// The conditions that this operator owns, in the order in which it writes them.
fn owned(status: &ImageExportJobStatus) -> impl Iterator<Item = &Condition> {
    types::ALL
        .iter()
        .flat_map(|type_| status.conditions.iter().filter(move |c| c.type_ == *type_))
}

/// As many conditions of others are kept: a status with more than the CRD allows could never be written.
const UNOWNED_MAX: usize = CONDITIONS_MAX - types::ALL.len();

/// The conditions owned by others.
#[must_use]
pub fn unowned(status: Option<&ImageExportJobStatus>) -> Option<Arc<[Condition]>> {
    let conditions = &status?.conditions;
    if conditions.iter().all(is_owned) {
        return None;
    }
    let others = conditions.iter().filter(|condition| !is_owned(condition));
    Some(others.take(UNOWNED_MAX).cloned().collect())
}

/// Whether two statuses are the same, conditions owned by others aside.
#[must_use]
pub fn same_owned_part(a: &ImageExportJobStatus, b: &ImageExportJobStatus) -> bool {
    owned(a).eq(owned(b))
        && a.observed_generation == b.observed_generation
        && a.status == b.status
        && a.job_type == b.job_type
        && a.image_id == b.image_id
        && a.fail_reason == b.fail_reason
        && a.error_code == b.error_code
        && a.progress_percent == b.progress_percent
        && a.start_time == b.start_time
        && a.completion_time == b.completion_time
        && a.last_handled_poll_request == b.last_handled_poll_request
}

/// Whether a stored status comes from writing another one, of which the API server has left out fields that
/// an older CRD does not know: both have the same conditions `Ready` and `Succeeded`, since the same time.
#[must_use]
pub fn comes_from(stored: &ImageExportJobStatus, written: &ImageExportJobStatus) -> bool {
    let shown = |status: &ImageExportJobStatus| {
        let main = owned(status).take(2);
        let main = main.map(|c| {
            (
                c.status.clone(),
                c.reason.clone(),
                c.last_transition_time.clone(),
            )
        });
        (status.observed_generation, main.collect::<Vec<_>>())
    };
    shown(stored) == shown(written)
}

fn text(field: Option<&String>) -> Option<Arc<str>> {
    field.map(|text| text.as_str().into())
}

fn facts(status: &ImageExportJobStatus) -> Facts {
    let second = |time: &Option<Time>| time.as_ref().map(|time| time.0.as_second());
    Facts {
        job_status: status.status.as_deref().map(JobState::shown_as),
        job_type: text(status.job_type.as_ref()),
        image_id: text(status.image_id.as_ref()),
        fail_reason: text(status.fail_reason.as_ref()),
        error_code: text(status.error_code.as_ref()),
        progress: status.progress_percent.and_then(|p| p.try_into().ok()),
        start: second(&status.start_time),
        completion: second(&status.completion_time),
    }
}

/// The evidence that an inconsistent status amounts to, where its fields and its condition `Succeeded` show
/// the same end.
#[must_use]
pub fn shown_end(status: &ImageExportJobStatus) -> Option<Evidence> {
    let mut conditions = status.conditions.iter();
    let succeeded = conditions.find(|c| c.type_ == types::SUCCEEDED)?;
    let mut facts = facts(status);
    facts.completion?;
    let phase = match (&facts.job_status, succeeded.status.as_str()) {
        (Some(JobState::Success), "True") => {
            (facts.fail_reason, facts.error_code) = (None, None);
            if facts.is_complete() {
                Phase::JobSucceeded
            } else {
                Phase::ImageIdMissing
            }
        }
        (Some(JobState::Fail), "False") => {
            facts.image_id = None;
            Phase::JobFailed
        }
        _ => return None,
    };
    Some(Evidence::of(phase, &Arc::new(facts)))
}

/// Whether a status shows an end, however inconsistently.
#[must_use]
pub fn looks_finished(status: &ImageExportJobStatus) -> bool {
    let end = matches!(status.status.as_deref(), Some("SUCCESS" | "FAIL"));
    let mut conditions = status.conditions.iter();
    end && status.completion_time.is_some()
        && conditions.any(|c| c.type_ == types::SUCCEEDED && c.status != "Unknown")
}

fn time(second: i64) -> Option<Time> {
    Timestamp::from_second(second).ok().map(Time)
}
