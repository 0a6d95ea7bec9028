//! Inputs that answer what was sent: polls, reads of Secrets, status writes, deletions, reads of objects.

use crate::{
    cadence,
    config::Config,
    effects::{
        CredentialError, CredentialRef, FetchResult, FetchTicket, PollTicket, WriteResult,
        WriteTicket,
    },
    intake,
    job::{Job, PollStage},
    keys::{GroupKey, JobKey},
    phase::Phase,
    secrets::{Acceptance, ReadChange},
    state::{State, acknowledged_phase},
    sync::Reply,
    time::{Due, Moment},
};
use image_export_model::{ConfigurationReason, JobState, Observation, Outcome, Stage};
use std::sync::Arc;

/// Applies the outcome of a poll, or drops it where it says nothing about the object as it is now.
pub fn apply_poll(state: &mut State, now: Moment, ticket: &PollTicket, seen: &Observation) {
    leave_other_host(state, now, ticket, seen);
    pause_quota(state, now, ticket, seen);
    // A poll that was deferred has had its turn, so that repetitions keep the rate too; so has one that ended at a
    // login, which is a request as well.
    let is_deferred = matches!(seen.outcome, Outcome::Deferred(_));
    let requests = seen.requests.max(u32::from(is_deferred || seen.signed_in));
    let was_sent = seen.requests > 0 || seen.signed_in;
    state
        .quotas
        .apply_end(now.at, &ticket.charge, requests, was_sent);
    let alike = state.alike.remove(&ticket.sequence);
    for key in std::iter::once(ticket.job).chain(alike.into_iter().flatten()) {
        apply_poll_to(state, now, key, ticket, seen);
    }
    end_outages(state, now, seen);
}

/// Applies the outcome of a poll to one of the objects that it serves.
fn apply_poll_to(
    state: &mut State,
    now: Moment,
    key: JobKey,
    ticket: &PollTicket,
    seen: &Observation,
) {
    let Some(job) = state.jobs.get_mut(key) else {
        state.counters.dropped_answers += 1;
        return;
    };
    if job.polling.stage != PollStage::InFlight(ticket.sequence) {
        return;
    }
    job.polling.stage = PollStage::Off;
    state.dirty.push(key);
    let credential_is_current = job.secret == ticket.secret
        && state
            .secrets
            .is_current(ticket.secret, ticket.credential_version);
    let answer = match &seen.outcome {
        Outcome::Answered(answer) => Some(answer),
        _ => None,
    };
    let shows_end = answer.is_some_and(|a| matches!(a.state, JobState::Success | JobState::Fail));
    if ticket.epoch != state.epoch || !credential_is_current && answer.is_none() {
        // Sent under another leadership, or about credentials that are no longer used: polled anew.
        state.counters.dropped_answers += 1;
        if job.is_active() || job.accepts_request() {
            job.want_poll(job.due_again(now.at));
        }
        return;
    }
    if let Outcome::Deferred(after) = seen.outcome {
        if job.is_active() || job.accepts_request() {
            job.defer_poll(&state.config, now.at, after);
        }
        return;
    }
    if job.suspended && !shows_end && !job.evidence.has_ended() {
        state.counters.dropped_answers += 1;
        return;
    }
    let contradicts = job.apply_outcome(&state.config, now, &seen.outcome, seen.retry_after);
    state.counters.contradictions += u64::from(contradicts);
    if answer.is_some() {
        state.learn(key, Some(now.wall));
        state.set_interval(now, key, true);
    }
    let Some(job) = state.jobs.get_mut(key) else {
        return;
    };
    let before = job.polling.failed_at.take();
    let failed = failed_at(seen);
    let failed = failed.map(|(stage, host)| state.hosts.apply_failure(now.at, stage, host, key));
    job.polling.failed_at = failed;
    if let Some(before) = before.filter(|before| failed != Some(*before)) {
        state.hosts.leave(before, key);
    }
    let is_unrecognized = answer.is_some_and(|a| matches!(a.state, JobState::Unrecognized(_)));
    state.counters.unrecognized += u64::from(is_unrecognized);
    if std::mem::take(&mut job.polling.counts_as_new) {
        state.quotas.end_first_poll(job.group);
    }
    if credential_is_current {
        let group = job.group;
        if seen.signed_in {
            state
                .secrets
                .apply_login(&state.config, now.at, ticket.secret);
        }
        if let Some(acceptance) = acceptance(&seen.outcome) {
            state
                .secrets
                .apply_acceptance(&state.config, now.at, ticket.secret, acceptance);
        }
        if let (true, Some(_), Some(host)) = (seen.proves_project, answer, &seen.queried) {
            state.quotas.share(&state.config, now.at, group, host);
        }
    }
}

/// The host at which a poll failed.
fn failed_at(seen: &Observation) -> Option<(Stage, &Arc<str>)> {
    let Outcome::Failed(failure) = &seen.outcome else {
        return None;
    };
    let host = match failure.stage {
        Stage::Login => &seen.identity,
        Stage::Query => &seen.queried,
    };
    Some((failure.stage, host.as_ref()?))
}

/// Ends the backoff of the objects that wait after an outage of a host that this poll shows to work. It shows
/// nothing about what they were rejected for.
fn end_outages(state: &mut State, now: Moment, seen: &Observation) {
    let is_answered = matches!(seen.outcome, Outcome::Answered(_) | Outcome::JobNotFound);
    let login = seen.identity.as_ref();
    let has_failed =
        |stage| matches!(&seen.outcome, Outcome::Failed(failure) if failure.stage == stage);
    let logged_in = seen.signed_in && seen.queried.is_some() && !has_failed(Stage::Login);
    let works = [
        (Stage::Query, seen.queried.as_ref().filter(|_| is_answered)),
        (Stage::Login, login.filter(|_| logged_in)),
    ];
    for (stage, host) in works {
        let Some(host) = host else {
            continue;
        };
        for key in state
            .hosts
            .apply_success(&state.config, now.at, stage, host)
        {
            if let Some(job) = state.jobs.get_mut(key) {
                job.end_backoff(&state.config, now);
                state.dirty.push(key);
            }
            state.close(now, key);
        }
    }
}

/// Whether the cloud accepted what the Secret holds; `None` where the outcome does not show it.
fn acceptance(outcome: &Outcome) -> Option<Acceptance> {
    match outcome {
        // An answer that there is no such job is given to accepted credentials alone.
        Outcome::Answered(_) | Outcome::JobNotFound => Some(Acceptance::Accepted),
        // Credentials or a URL in the Secret may be invalid, and are fixed there.
        Outcome::Misconfigured(error) => matches!(
            error.reason,
            ConfigurationReason::CredentialsInvalid | ConfigurationReason::EndpointInvalid
        )
        .then_some(Acceptance::Rejected),
        Outcome::Failed(failure) => {
            (failure.stage == Stage::Login).then_some(Acceptance::LoginFailed)
        }
        Outcome::Throttled | Outcome::Deferred(_) => None,
    }
}

/// Throttling, or any failure with a `Retry-After` of the endpoint, pauses the whole quota bucket. That of
/// the identity service is kept by the credential.
fn pause_quota(state: &mut State, now: Moment, ticket: &PollTicket, seen: &Observation) {
    let pauses = match &seen.outcome {
        Outcome::Throttled => true,
        Outcome::Failed(failure) if failure.stage == Stage::Login => false,
        Outcome::Answered(_) | Outcome::Deferred(_) => false,
        Outcome::Failed(_) | Outcome::JobNotFound | Outcome::Misconfigured(_) => {
            seen.retry_after.is_some() && seen.endpoint.is_some()
        }
    };
    if pauses {
        // The group may use another bucket since. To an object that has other credentials now this does not apply.
        let job = state.jobs.get(ticket.job);
        let seed = job.map_or(ticket.sequence, |job| job.seed);
        let group = group_of(state, ticket);
        let pause = cadence::pause(&state.config, seed, seen.retry_after);
        let is_throttled = matches!(seen.outcome, Outcome::Throttled);
        let (buckets, endpoint) = ((ticket.charge.bucket, group), seen.queried.as_ref());
        let until = now.at + pause;
        state.quotas.pause(
            &state.config,
            now.at,
            buckets,
            endpoint,
            until,
            is_throttled,
        );
    }
}

/// The quota group of the object that was polled, if it has the same credentials still.
fn group_of(state: &State, ticket: &PollTicket) -> Option<GroupKey> {
    let secrets = &state.secrets;
    let job = state.jobs.get(ticket.job)?;
    let is_same =
        job.secret == ticket.secret && secrets.is_current(ticket.secret, ticket.credential_version);
    is_same.then_some(job.group)
}

/// Where a catalog has come to name another host, its objects share the quota of the former one no longer.
fn leave_other_host(state: &mut State, now: Moment, ticket: &PollTicket, seen: &Observation) {
    if let (Some(group), Some(queried)) = (group_of(state, ticket), &seen.queried) {
        let reference = state.secrets.reference(ticket.secret);
        state
            .quotas
            .leave_other_host(&state.config, now.at, group, reference, queried);
    }
}

/// Applies the outcome of reading a Secret to it and to the objects that use it.
pub fn apply_read(
    state: &mut State,
    now: Moment,
    reference: &Arc<CredentialRef>,
    result: Result<u64, CredentialError>,
) {
    state.secrets.release(reference);
    let Some(key) = state.secrets.find(reference) else {
        return;
    };
    let change = state.secrets.apply_read(&state.config, now.at, key, result);
    if let ReadChange::Usable {
        has_changed: true, ..
    } = change
    {
        state.quotas.unshare(&state.config, now.at, key, reference);
    }
    let apply: &dyn Fn(&Config, &mut Job) = match &change {
        ReadChange::None => return,
        ReadChange::Usable {
            was_misconfigured,
            has_changed,
        } => &|_, job| apply_usable_secret(job, now, *was_misconfigured, *has_changed),
        ReadChange::Misconfigured(error) => &|config, job| {
            let is_polled = matches!(job.polling.stage, PollStage::InFlight(_));
            // One that awaits its image id finds out with its next attempt.
            if job.is_active() && !is_polled && job.phase() != Some(Phase::ImageIdPending) {
                let outcome = Outcome::Misconfigured(error.clone());
                job.apply_unpolled(config, now, &outcome);
            }
        },
        ReadChange::Unavailable(failure) => &|config, job| {
            if job.polling.stage == PollStage::AwaitingSecret {
                let outcome = Outcome::Failed(failure.clone());
                job.apply_unpolled(config, now, &outcome);
            }
        },
    };
    for user in state.secrets.concerned(key, &change) {
        if let Some(job) = state.jobs.get_mut(user) {
            // A standby believes what the leader shows.
            if state.leading {
                apply(&state.config, job);
            }
            state.dirty.push(user);
            state.close(now, user);
        }
    }
}

fn apply_usable_secret(job: &mut Job, now: Moment, was_misconfigured: bool, has_changed: bool) {
    let reason = job
        .evidence
        .configuration_error
        .as_ref()
        .map(|(reason, _)| *reason);
    let disproved = was_misconfigured || reason == Some(ConfigurationReason::CredentialsNotFound);
    if disproved {
        job.evidence.apply_readable_secret();
    }
    let is_troubled = reason.is_some() || job.evidence.is_failing();
    if (disproved || is_troubled && has_changed) && job.is_active() {
        job.want_poll(Due::Since(now.at));
    }
}

/// Applies the reply to a status write or a deletion.
pub fn apply_write(state: &mut State, now: Moment, ticket: &WriteTicket, result: WriteResult) {
    let namespace = &ticket.namespace;
    state
        .writes
        .apply_end(&state.config, now.at, namespace, &result);
    let (key, epoch) = (ticket.job, state.epoch);
    let Some(job) = state.jobs.get_mut(key) else {
        // Without any object no namespace is left to be in trouble.
        if state.jobs.len() == 0 {
            state.writes.forget_troubles();
        }
        return;
    };
    // What was sent under another leadership may have landed, and acknowledges nothing.
    let result = if ticket.epoch == epoch {
        result
    } else {
        WriteResult::Unknown
    };
    let before = acknowledged_phase(job);
    let id = job.id.clone();
    let reply = job
        .sync
        .apply_reply(&state.config, now.at, ticket.sequence, result, id.as_str());
    state.dirty.push(key);
    match reply {
        Reply::Stale => {}
        Reply::Gone => state.forget(now, key),
        Reply::DelayDeletion(time) => job.limits.delay_deletion(now.at + time),
        Reply::Applied(held) => {
            state.publish_phase(key, before);
            if let Some(object) = held {
                intake::apply_newer(state, now, key, object);
            }
        }
    }
}

/// Applies the reply to a read that settles how a write ended.
pub fn apply_fetch(state: &mut State, now: Moment, ticket: &FetchTicket, result: FetchResult) {
    state.writes.release(&ticket.namespace);
    let key = ticket.job;
    let job = state.jobs.get_mut(key);
    let Some(job) = job.filter(|job| job.sync.is_fetching(ticket.sequence)) else {
        return;
    };
    state.dirty.push(key);
    match result {
        FetchResult::Found(object)
            if object
                .metadata
                .uid
                .as_deref()
                .is_some_and(|uid| job.uid == *uid) =>
        {
            if job.sync.apply_fetched(&object) {
                intake::apply_content(state, now, key, &object);
            }
        }
        FetchResult::Found(_) | FetchResult::Gone => state.forget(now, key),
        FetchResult::Failed => {
            if let Some(wait) = job.sync.apply_failed_fetch(&state.config, now.at) {
                job.limits.delay_deletion(now.at + wait);
            }
        }
    }
}
