//! Objects packed into bytes (`pack.rs`): all that a [`Job`] holds while nothing is under way for it.

use crate::{
    cadence,
    compact::Compact,
    effects::ObjectKey,
    facts::{Cause, Facts},
    job::{Job, Plan, PollStage, Polling},
    pack::{Pack, Reader, Words, Writer, pack_enum, pack_fields, pack_struct, unpack_fields},
    phase::{Detail, Phase},
    time::Due,
    totals::Tally,
};
use image_export_model::{ConfigurationReason, JobId, JobState};
use std::{sync::Arc, time::Duration};

/// A text that is likely to be a word.
struct Word(Arc<str>);

impl Pack for Word {
    fn empty() -> Self {
        Self(Arc::default())
    }

    fn is_empty(&self) -> bool {
        false
    }

    fn pack(&self, to: &mut Writer<'_>) {
        let number = to.words().number_of(&self.0);
        (number as u64).pack(to);
        if number == 0 {
            self.0.pack(to);
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let number = usize::try_from(u64::unpack(from)).unwrap_or_default();
        Self(match from.words().get(number) {
            Some(word) => word.clone(),
            None => Arc::unpack(from),
        })
    }
}

/// A packed object, but for its namespace.
#[derive(Debug)]
pub struct Packed(Box<[u8]>);

impl Packed {
    /// Packs an object, unless something is under way for it. `buffer`: where, its content is overwritten. The name
    /// comes first: it is read without the rest.
    #[must_use]
    pub fn pack(job: &Job, words: &mut Words, buffer: &mut Vec<u8>) -> Option<Self> {
        if matches!(job.polling.stage, PollStage::InFlight(_)) || !job.sync.is_at_rest() {
            return None;
        }
        buffer.clear();
        let to = &mut Writer::new(buffer, words);
        let Job {
            key: ObjectKey { namespace: _, name },
            uid,
            seed: _,
            generation,
            id,
            period_seconds,
            suspended,
            is_being_deleted,
            limits,
            secret,
            group,
            evidence,
            answered_at,
            pending_at,
            polling,
            sync,
            handled_request,
            reported_request,
            timer,
            tally,
        } = job;
        to.put(u8::try_from(name.len()).ok()?);
        to.put_bytes(name.as_bytes());
        uid.pack(to);
        Compact::from(id.as_str()).pack(to);
        pack_fields!(
            to,
            generation,
            period_seconds,
            suspended,
            is_being_deleted,
            limits,
            secret,
            group,
            evidence,
            answered_at,
            pending_at,
            polling,
            sync,
            handled_request,
            reported_request,
            timer,
            tally,
        );
        Some(Self(buffer.as_slice().into()))
    }

    /// The object that was packed.
    #[must_use]
    pub fn unpack(&self, words: &Words, namespace: &Arc<str>) -> Job {
        let name = self.name();
        let from = &mut Reader::new(&self.0[1 + name.len()..], words);
        let uid = Compact::unpack(from);
        let id = Compact::unpack(from).look(str::parse::<JobId>);
        unpack_fields!(
            from,
            generation,
            period_seconds,
            suspended,
            is_being_deleted,
            limits,
            secret,
            group,
            evidence,
            answered_at,
            pending_at,
            polling,
            sync,
            handled_request,
            reported_request,
            timer,
            tally,
        );
        Job {
            key: ObjectKey {
                namespace: namespace.clone(),
                name: name.into(),
            },
            seed: uid.look(cadence::seed),
            uid,
            generation,
            id: id.expect("the id was valid"),
            period_seconds,
            suspended,
            is_being_deleted,
            limits,
            secret,
            group,
            evidence,
            answered_at,
            pending_at,
            polling,
            sync,
            handled_request,
            reported_request,
            timer,
            tally,
        }
    }

    /// How many bytes it takes.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The name of the object.
    #[must_use]
    pub fn name(&self) -> &str {
        let length = usize::from(self.0[0]);
        str::from_utf8(&self.0[1..=length]).unwrap_or_default()
    }
}

pack_struct!(Polling {
    stage,
    waits_since,
    wanted,
    earliest,
    plan,
    interval,
    counted,
    followed,
    failed_at,
    counts_as_new,
    image_id_at,
});

impl Pack for Facts {
    fn empty() -> Self {
        Self::default()
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn pack(&self, to: &mut Writer<'_>) {
        let Self {
            job_status,
            job_type,
            image_id,
            fail_reason,
            error_code,
            progress,
            start,
            completion,
        } = self;
        let job_type = job_type.clone().map(Word);
        let image_id = image_id.as_deref().map(Compact::from);
        pack_fields!(
            to,
            job_status,
            &job_type,
            &image_id,
            fail_reason,
            error_code,
            progress,
            start,
            completion,
        );
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        unpack_fields!(
            from,
            job_status,
            job_type,
            image_id,
            fail_reason,
            error_code,
            progress,
            start,
            completion,
        );
        let (job_type, image_id): (Option<Word>, Option<Compact>) = (job_type, image_id);
        Self {
            job_status,
            job_type: job_type.map(|Word(word)| word),
            image_id: image_id.map(|id| id.text()),
            fail_reason,
            error_code,
            progress,
            start,
            completion,
        }
    }
}

pack_struct!(Tally {
    shown,
    answered,
    is_waiting,
    is_overdue,
    is_unwritten,
    secret,
    is_unfinished,
    is_polled,
    awaits_secret,
});

pack_enum!(PollStage { Off, 1: Scheduled(at), 2: AwaitingSecret, 3: Queued(due) } never: Self::InFlight(_));
pack_enum!(Due {
    Requested,
    1: Since(at)
});
pack_enum!(JobState {
    Init,
    1: Running,
    2: Success,
    3: Fail,
    4: Unrecognized(status)
});
pack_enum!(Cause {
    Stored,
    1: Observed(text)
});

impl Pack for Plan {
    fn empty() -> Self {
        Self::Paced(Duration::ZERO)
    }

    fn is_empty(&self) -> bool {
        *self == Self::empty()
    }

    fn pack(&self, to: &mut Writer<'_>) {
        let (number, at) = match self {
            Self::At(at) => (0, at),
            Self::Paced(at) => (1, at),
            Self::Retry { at, .. } => (2, at),
        };
        to.put(number);
        at.pack(to);
        if let Self::Retry { earliest, .. } = self {
            earliest.pack(to);
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let (number, at) = (from.next(), Duration::unpack(from));
        match number {
            0 => Self::At(at),
            1 => Self::Paced(at),
            _ => Self::Retry {
                at,
                earliest: Duration::unpack(from),
            },
        }
    }
}

/// A configuration error, as its phase and its cause.
impl Pack for (ConfigurationReason, Cause) {
    fn empty() -> Self {
        (ConfigurationReason::CredentialsNotFound, Cause::Stored)
    }

    fn is_empty(&self) -> bool {
        false
    }

    fn pack(&self, to: &mut Writer<'_>) {
        Phase::from(self.0).pack(to);
        self.1.pack(to);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let (phase, cause) = (Phase::unpack(from), Cause::unpack(from));
        match phase.row().detail {
            Detail::Configuration(reason) => (reason, cause),
            _ => Self::empty(),
        }
    }
}
