//! Who is asked about, and when: from the schedule through the quota to the answer.

use super::{
    Effect, Now, PollRequest, PollTicket, Timer, Tracker, cadence,
    history::{Contradiction, Next},
    quota::{Turn, Waiting},
    record::{Poll, Record},
    verdict::Row,
};
use image_export_model::{ConfigurationReason, JobState, Observation, Outcome, Stage};
use std::time::Duration;

impl Tracker {
    /// Plans the first poll of an object that has just become known.
    pub(super) fn schedule_first(&mut self, now: Now, index: u32) {
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        if !record.is_active() {
            return;
        }
        // Configuration may have been mended while the operator was away; anything else that was
        // written before keeps its phase, so a restart is no burst.
        let settled = record
            .row()
            .is_some_and(|row| !matches!(row, Row::Refused(_)));
        record.newcomer = !settled;
        let wait = if settled {
            let record = self.records.get(index).expect("it was there a moment ago");
            let pace = self.pace(now, record, Duration::ZERO);
            let soon = cadence::draw(record.seed, 0, self.config.slow_period);
            match record.row() {
                // Trouble before the start does not have to outlast a long period of its own.
                Some(Row::Pending | Row::PollFailed) => pace.min(soon),
                // Nor does a deadline that passed meanwhile: it is shown with the first outcome.
                Some(row) if row != Row::ImageIdPending && record.is_late(self.clock(now)) => {
                    // In time for patience with it.
                    pace.min(soon / 2)
                }
                _ => pace,
            }
        } else {
            let seed = record.seed;
            let lane = record.lane;
            let rate = self.config.quota_rate;
            let spread = self.config.first_poll_spread;
            let newcomers = self.polls.lane_mut(lane).map_or(1, |lane| {
                lane.newcomers += 1;
                lane.newcomers
            });
            cadence::draw(
                seed,
                0,
                spread.min(Duration::from_secs_f64(f64::from(newcomers) / rate)),
            )
        };
        self.schedule(index, now.mono + wait);
    }

    /// Plans the next poll at the row's own pace.
    pub(super) fn schedule_pace(&mut self, now: Now, index: u32) {
        let Some(record) = self.records.get(index) else {
            return;
        };
        // A first poll comes quickly, whatever the period.
        if matches!(record.poll, Poll::Scheduled(_)) && !record.newcomer {
            let wait = self.pace(now, record, self.config.min_poll_gap);
            self.schedule(index, now.mono + wait);
        }
    }

    pub(super) fn schedule(&mut self, index: u32, at: Duration) {
        if let Some(record) = self.records.get_mut(index) {
            record.poll = Poll::Scheduled(at);
            let serial = record.serial;
            self.set_timer(at, Timer::Poll { index, serial });
        }
    }

    pub(super) fn stop_polling(&mut self, index: u32) {
        if let Some(record) = self.records.get_mut(index)
            && !matches!(record.poll, Poll::InFlight { .. })
        {
            record.poll = Poll::Off;
        }
    }

    /// Time to the next poll of a job that is well, by row.
    fn pace(&self, now: Now, record: &Record, gap: Duration) -> Duration {
        let config = &self.config;
        let own = record
            .period_seconds
            .map_or(config.poll_period, |seconds| config.spec_second * seconds);
        let period = match record.row() {
            Some(Row::ImageIdPending) => return config.image_id_period,
            Some(Row::NotFoundYet) => config.not_found_period,
            Some(Row::Refused(_) | Row::NotFound | Row::Unrecognized | Row::DeadlineExceeded) => {
                own.max(config.slow_period)
            }
            _ => own,
        };
        cadence::until_phase(record.seed, period, self.clock(now), gap)
    }

    pub(super) fn poll_timer(&mut self, now: Now, index: u32, serial: u32, at: Duration) {
        let due = self
            .records
            .current(index, serial)
            .is_some_and(|r| r.poll == Poll::Scheduled(at));
        if due {
            self.poll_now(now, index, at);
        }
    }

    /// Makes a poll due, or marks it as wanted again where one is in flight.
    pub(super) fn poll_now(&mut self, now: Now, index: u32, due: Duration) {
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        if let Poll::InFlight { again, .. } = &mut record.poll {
            *again = true;
            return;
        }
        if self.needs_credential(now, index) {
            self.enqueue(index, due);
        }
    }

    pub(super) fn enqueue(&mut self, index: u32, due: Duration) {
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        record.poll = Poll::Queued(due);
        let (serial, lane) = (record.serial, record.lane);
        let Some(id) = self.polls.lane(lane).map(|lane| lane.bucket) else {
            return;
        };
        if let Some(bucket) = self.polls.buckets.get_mut(&id) {
            bucket.push(Waiting { due, index, serial });
            self.polls.mark_ready(id);
        }
    }

    pub(super) fn send_polls(&mut self, now: Now) {
        while self.polls.in_flight < self.config.polls_in_flight {
            let Some(id) = self.polls.ready.pop_front() else {
                return;
            };
            let (records, lanes) = (&self.records, &self.polls.lanes);
            let Some(bucket) = self.polls.buckets.get_mut(&id) else {
                continue;
            };
            bucket.ready = false;
            let turn = bucket.turn(now.mono, |waiting| {
                records
                    .current(waiting.index, waiting.serial)
                    .is_some_and(|record| {
                        record.poll == Poll::Queued(waiting.due)
                            && lanes[record.lane as usize]
                                .as_ref()
                                .is_some_and(|lane| lane.bucket == id)
                    })
            });
            match turn {
                Turn::Go(waiting) => {
                    self.polls.mark_ready(id);
                    self.send_poll(now, waiting.index, id);
                }
                Turn::NotBefore(at) => {
                    if bucket.wake_at.is_none_or(|wake_at| wake_at > at) {
                        bucket.wake_at = Some(at);
                        self.set_timer(at, Timer::Bucket(id));
                    }
                }
                Turn::Idle => {}
            }
        }
    }

    fn send_poll(&mut self, now: Now, index: u32, bucket: u64) {
        self.polls.in_flight += 1;
        let sequence = self.next_sequence();
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        let usable = self.credentials.usable(record.credential);
        let reference = self.credentials.reference(record.credential);
        let (Some(credential_version), Some(reference)) = (usable, reference) else {
            // It broke while the object was queued.
            self.poll_ended(bucket, 0);
            self.needs_credential(now, index);
            return;
        };
        record.poll = Poll::InFlight {
            sequence,
            again: false,
        };
        let request = PollRequest {
            ticket: PollTicket {
                index,
                serial: record.serial,
                sequence,
                epoch: self.epoch,
                bucket,
                credential: record.credential,
                credential_version,
            },
            key: record.key.clone(),
            credential: reference,
            project: record.project.clone(),
            job: record.job.clone(),
        };
        self.out.effects.push(Effect::Poll(Box::new(request)));
    }

    fn poll_ended(&mut self, bucket: u64, requests: u32) {
        self.polls.in_flight -= 1;
        if let Some(bucket) = self.polls.buckets.get_mut(&bucket) {
            bucket.settle(requests);
        }
        self.polls.mark_ready(bucket);
    }

    pub(super) fn answered(&mut self, now: Now, ticket: &PollTicket, seen: &Observation) {
        self.poll_ended(ticket.bucket, seen.requests);
        self.pause_bucket(now, ticket, seen);
        if ticket.epoch != self.epoch {
            self.counters.dropped_answers += 1;
            self.ask_again(now, ticket);
            return;
        }
        let Some(record) = self.records.current_mut(ticket.index, ticket.serial) else {
            self.counters.dropped_answers += 1;
            return;
        };
        let Poll::InFlight { sequence, again } = record.poll else {
            return;
        };
        if sequence != ticket.sequence {
            return;
        }
        let lane = record.lane;
        let (answer, end) = match &seen.outcome {
            Outcome::Answered(answer) => (
                true,
                matches!(answer.state, JobState::Success | JobState::Fail),
            ),
            _ => (false, false),
        };
        let same_credential = record.credential == ticket.credential;
        let current = same_credential
            && self.credentials.version(ticket.credential) == Some(ticket.credential_version);
        if !current && !answer {
            // The old credentials' trouble says nothing about the new ones.
            self.counters.dropped_answers += 1;
            self.ask_again(now, ticket);
            return;
        }
        if record.suspended && !end && !record.history.has_ended() {
            self.counters.dropped_answers += 1;
            record.poll = Poll::Off;
            return;
        }
        let newcomer = std::mem::take(&mut record.newcomer);
        let (next, contradiction) = record.history.apply(&self.config, now, seen);
        self.count(contradiction, seen);
        if newcomer {
            self.polls.newcomer_left(lane);
        }
        self.heard(now, ticket.index, &seen.outcome, again);
        self.judge_credential(now, ticket, seen, lane, current);
        self.schedule_next(now, ticket.index, next, again, seen.retry_after);
        self.refresh_write(now, ticket.index);
    }

    fn ask_again(&mut self, now: Now, ticket: &PollTicket) {
        let Some(record) = self.records.current_mut(ticket.index, ticket.serial) else {
            return;
        };
        if !matches!(record.poll, Poll::InFlight { sequence, .. } if sequence == ticket.sequence) {
            return;
        }
        record.poll = Poll::Off;
        if record.may_be_asked() {
            self.poll_now(now, ticket.index, now.mono);
        }
    }

    fn count(&mut self, contradiction: Option<Contradiction>, seen: &Observation) {
        if contradiction.is_some() {
            self.counters.contradictions += 1;
        }
        if let Outcome::Answered(answer) = &seen.outcome
            && matches!(answer.state, JobState::Unrecognized(_))
        {
            self.counters.unrecognized += 1;
        }
    }

    /// A 429, or any failure with a `Retry-After` from the endpoint, pauses the whole bucket.
    fn pause_bucket(&mut self, now: Now, ticket: &PollTicket, seen: &Observation) {
        let pauses = match &seen.outcome {
            Outcome::Throttled => true,
            // The identity service's pause is kept by the credential, not by the bucket.
            Outcome::Failed(failure) if failure.stage == Stage::Login => false,
            Outcome::Answered(_) => false,
            _ => seen.retry_after.is_some() && seen.endpoint.is_some(),
        };
        if !pauses {
            return;
        }
        let pause = cadence::pause(&self.config, ticket.bucket, seen.retry_after);
        // The lane may have moved to another bucket since the poll was sent. Not so an object that has
        // other credentials now: what the old ones met is not theirs.
        let lane = self
            .records
            .current(ticket.index, ticket.serial)
            .filter(|record| record.credential == ticket.credential)
            .and_then(|record| self.polls.lane(record.lane));
        let present = lane.map_or(ticket.bucket, |lane| lane.bucket);
        for id in [ticket.bucket, present] {
            if let Some(bucket) = self.polls.buckets.get_mut(&id) {
                bucket.pause(now.mono, now.mono + pause);
            }
        }
    }

    fn judge_credential(
        &mut self,
        now: Now,
        ticket: &PollTicket,
        seen: &Observation,
        lane: u32,
        current: bool,
    ) {
        if !current {
            return;
        }
        if seen.signed_in {
            self.credential_signed_in(now, ticket.credential);
        }
        match &seen.outcome {
            Outcome::Answered(_) => {
                self.credential_judged(now, ticket.credential, false);
                if let Some(host) = &seen.endpoint {
                    self.polls.join_shared(lane, host, now.mono);
                }
            }
            // What the Secret says may be at fault, and is mended there: credentials, or a URL.
            Outcome::Misconfigured(refusal)
                if matches!(
                    refusal.reason,
                    ConfigurationReason::CredentialsInvalid | ConfigurationReason::EndpointInvalid
                ) =>
            {
                self.credential_judged(now, ticket.credential, true);
            }
            Outcome::Failed(failure) if failure.stage == Stage::Login => {
                self.credential_judged(now, ticket.credential, true);
            }
            // Whoever is told that there is no such job was let in.
            Outcome::JobNotFound => self.credential_judged(now, ticket.credential, false),
            _ => {}
        }
    }

    fn schedule_next(
        &mut self,
        now: Now,
        index: u32,
        next: Next,
        again: bool,
        retry_after: Option<Duration>,
    ) {
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        record.poll = Poll::Off;
        if record.doubtful {
            match next {
                // The cloud has forgotten the job: the status stays as it is.
                Next::Pace if record.history.not_found_yet => return,
                Next::Pace if record.history.refusal.is_none() => record.doubtful = false,
                Next::Pace | Next::Backoff(_) | Next::AfterPause => {}
            }
        }
        let row = record.row();
        if !record.is_active() {
            return;
        }
        if again {
            self.poll_now(now, index, Duration::ZERO);
            return;
        }
        let wait = match next {
            // Its attempts keep their distance, whatever they return.
            _ if row == Some(Row::ImageIdPending) => self.config.image_id_period,
            Next::AfterPause => {
                // The bucket's pause holds it; afterwards it is among the first.
                self.poll_now(now, index, now.mono);
                return;
            }
            Next::Backoff(failures) => {
                let asked = retry_after.unwrap_or_default().min(self.config.pause_max);
                cadence::backoff(&self.config, record.seed, failures).max(asked)
            }
            Next::Pace => {
                let record = self.records.get(index).expect("it was there a moment ago");
                self.pace(now, record, self.config.min_poll_gap)
            }
        };
        self.schedule(index, now.mono + wait);
    }
}
