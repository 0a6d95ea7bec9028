//! Inputs from the API server's watches: lists, versions of objects, deletions.

use crate::{
    cadence,
    compact::Compact,
    deadline::Limits,
    effects::{CredentialRef, ObjectEvent, ObjectKey, Source},
    evidence::Evidence,
    job::{Job, Plan, PollStage, Polling},
    keys::JobKey,
    phase::Detail,
    schedule,
    state::{State, acknowledged_phase},
    status::Snapshot,
    sync::{StatusChange, Sync},
    time::{Due, Moment},
    version,
};
use image_export_api::{
    ImageExportJob, ImageExportJobStatus, POLL_REQUEST_ANNOTATION, POLL_REQUEST_MAX_BYTES,
};
use std::cmp::Ordering;

/// Event reason: an object that the operator cannot read. Published once an object.
pub const INVALID_OBJECT: &str = "InvalidObject";
/// Event reason: an unusable value of the poll-request annotation.
const POLL_REQUEST_IGNORED: &str = "PollRequestIgnored";

/// Applies a version of an object that was listed, added or changed.
pub fn apply_object(state: &mut State, now: Moment, source: Source, object: Box<ImageExportJob>) {
    let meta = &object.metadata;
    let (Some(namespace), Some(name), Some(uid), Some(version)) = (
        &meta.namespace,
        &meta.name,
        &meta.uid,
        &meta.resource_version,
    ) else {
        return;
    };
    let name = ObjectKey {
        namespace: namespace.as_str().into(),
        name: name.as_str().into(),
    };
    state.jobs.forget_undecodable(&name, None);
    if let Some(key) = state.jobs.key_of(&name)
        && let Some(job) = state.jobs.get_mut(key)
    {
        if job.uid == **uid {
            state.jobs.mark(key, source);
            apply_newer(state, now, key, object);
            return;
        }
        if job
            .sync
            .version
            .look(|known| version::compare(version, known))
            == Some(Ordering::Less)
        {
            // An earlier incarnation, shown late: what is deleted does not come back.
            return;
        }
        // Same name, another object: the old one is gone, whether or not that was shown.
        state.forget(now, key);
    }
    add(state, now, source, name, &object);
}

fn add(state: &mut State, now: Moment, source: Source, name: ObjectKey, object: &ImageExportJob) {
    let (meta, spec) = (&object.metadata, &object.spec);
    let text = |field: &Option<String>| Compact::from(field.as_deref().unwrap_or_default());
    let uid = meta.uid.as_deref().unwrap_or_default();
    let reference = CredentialRef {
        namespace: name.namespace.clone(),
        cloud: spec.cloud_credentials_ref.clone(),
    };
    let secret = state.secrets.key_of(reference);
    let owner = (secret, &**state.secrets.reference(secret));
    let group = state
        .quotas
        .join(&state.config, now.at, owner, &spec.project_id);
    let created = meta
        .creation_timestamp
        .as_ref()
        .map(|time| time.0.as_second());
    let config = &state.config;
    let key = state.jobs.insert(source, {
        let mut job = Job {
            key: name,
            seed: cadence::seed(uid),
            uid: uid.into(),
            generation: meta.generation.unwrap_or_default(),
            id: spec.job_id.clone(),
            period_seconds: None,
            suspended: spec.suspend,
            is_being_deleted: meta.deletion_timestamp.is_some(),
            limits: Limits::new(now, created),
            secret,
            group,
            evidence: Evidence::default(),
            answered_at: now.at,
            pending_at: None,
            polling: Polling {
                stage: PollStage::Off,
                waits_since: None,
                wanted: None,
                earliest: now.at,
                plan: Plan::Paced(now.at),
                interval: None,
                counted: 0,
                followed: 0.0,
                failed_at: None,
                counts_as_new: false,
                image_id_at: now.at,
            },
            sync: Sync::new(text(&meta.resource_version)),
            handled_request: None,
            reported_request: false,
            timer: None,
            tally: None,
        };
        job.apply_limits(config, object);
        job.adopt(config, now, object.status.as_ref());
        job.limits.was_late = job.is_late(now.at);
        let shown = job.sync.acknowledged().map(|shown| shown.generation);
        // The spec may have been changed while no operator ran.
        if shown != Some(job.generation) {
            job.evidence.deadline_exceeded &= job.limits.was_late;
        }
        job.pending_at = job
            .phase()
            .is_none()
            .then_some(now.at + config.pending_grace);
        job
    });
    state.secrets.join(secret);
    if let Some(job) = state.jobs.get(key) {
        state.secrets.apply_prior(secret, job.prior_acceptance());
    }
    state.learn(key, None);
    state.set_interval(now, key, false);
    plan_first_poll(state, now, key);
    apply_poll_request(state, key, object);
    state.dirty.push(key);
}

fn plan_first_poll(state: &mut State, now: Moment, key: JobKey) {
    let Some(job) = state.jobs.get_mut(key).filter(|job| job.is_active()) else {
        return;
    };
    // An object that shows what an earlier process observed is polled at its usual instant, so that a restart
    // is no burst. Its Secret may have been fixed meanwhile: one read shows it for all objects that use it.
    let phase = job.phase();
    if phase.is_some_and(|phase| matches!(phase.row().detail, Detail::Configuration(_))) {
        state.secrets.need(job.secret);
    }
    let is_new = phase.is_none();
    job.polling.counts_as_new = is_new;
    let pending = is_new.then(|| state.quotas.begin_first_poll(job.group));
    if let Some(at) = schedule::first_poll(&state.config, now, job, pending) {
        job.polling.plan = Plan::At(at);
    }
}

/// Applies a version of a known object, unless it is older than what is known.
pub fn apply_newer(state: &mut State, now: Moment, key: JobKey, object: Box<ImageExportJob>) {
    let Some(job) = state.jobs.get_mut(key) else {
        return;
    };
    if let Some(object) = job.sync.apply_version(object) {
        apply_content(state, now, key, &object);
    }
}

/// Applies status, spec and annotations of an object.
pub fn apply_content(state: &mut State, now: Moment, key: JobKey, object: &ImageExportJob) {
    let Some(job) = state.jobs.get_mut(key) else {
        return;
    };
    job.is_being_deleted = object.metadata.deletion_timestamp.is_some();
    let status = object.status.as_ref();
    if !state.leading && !job.sync.holds(status, job.id.as_str()) {
        // The status is the leader's to write, and to be believed.
        job.adopt(&state.config, now, status);
    } else {
        let before = acknowledged_phase(job);
        let grace_end = state.leading_since + state.config.takeover_grace;
        let is_late_write = now.at < grace_end && is_news(job, status);
        match job.apply_status(&state.config, now.at, status) {
            StatusChange::None => {}
            StatusChange::Edited if is_late_write => job.adopt(&state.config, now, status),
            StatusChange::Edited => state.counters.repairs += 1,
            StatusChange::Confirmed => state.publish_phase(key, before),
        }
    }
    state.learn(key, None);
    apply_spec(state, now, key, object);
    apply_poll_request(state, key, object);
    state.dirty.push(key);
}

/// Whether a status that the former leader may have written shows more than this process has observed.
fn is_news(job: &Job, status: Option<&ImageExportJobStatus>) -> bool {
    let snapshot = status.and_then(|status| Snapshot::parse(status, job.id.as_str()));
    let has_observed = job.limits.unobserved_since.is_none();
    snapshot.is_some_and(|shown| !has_observed || shown.phase.is_finished())
}

fn apply_spec(state: &mut State, now: Moment, key: JobKey, object: &ImageExportJob) {
    let generation = object.metadata.generation.unwrap_or_default();
    let Some(job) = state
        .jobs
        .get_mut(key)
        .filter(|job| job.generation != generation)
    else {
        return;
    };
    let before = (job.phase(), job.own_period(&state.config));
    job.generation = generation;
    let was_suspended = std::mem::replace(&mut job.suspended, object.spec.suspend);
    job.apply_limits(&state.config, object);
    if job.suspended {
        job.polling.wanted = None;
    } else if was_suspended {
        job.evidence.deadline_exceeded = false;
        job.apply_gap(now);
    }
    job.evidence.deadline_exceeded &= job.is_late(now.at);
    let reference = CredentialRef {
        namespace: job.key.namespace.clone(),
        cloud: object.spec.cloud_credentials_ref.clone(),
    };
    let other_secret = state.change_secret(now, key, reference);
    let Some(job) = state.jobs.get_mut(key) else {
        return;
    };
    if other_secret {
        job.evidence.apply_other_credentials();
    }
    if !job.is_active() {
        return;
    }
    if other_secret || was_suspended || job.polling.stage == PollStage::Off {
        job.want_poll(Due::Since(now.at));
    } else if (job.phase(), job.own_period(&state.config)) != before
        && matches!(job.polling.stage, PollStage::Scheduled(_))
        && !job.polling.counts_as_new
    {
        let gap = job.least_gap(&state.config);
        job.polling.plan = Plan::Paced(now.at + gap);
    }
}

fn apply_poll_request(state: &mut State, key: JobKey, object: &ImageExportJob) {
    let annotations = object.metadata.annotations.as_ref();
    let request = annotations.and_then(|annotations| annotations.get(POLL_REQUEST_ANNOTATION));
    let Some(job) = state.jobs.get_mut(key) else {
        return;
    };
    let Some(request) = request.filter(|request| !request.is_empty()) else {
        job.reported_request = false;
        return;
    };
    if job.handled_request.as_deref() == Some(request) {
        return;
    }
    if request.len() > POLL_REQUEST_MAX_BYTES {
        if state.leading && !std::mem::replace(&mut job.reported_request, true) {
            let note = format!(
                "The annotation {POLL_REQUEST_ANNOTATION} is ignored: its value is longer than \
                 {POLL_REQUEST_MAX_BYTES} bytes."
            );
            state.publish(key, POLL_REQUEST_IGNORED, true, note);
        }
        return;
    }
    job.reported_request = false;
    job.handled_request = Some(request.as_str().into());
    if job.accepts_request() {
        job.want_poll(Due::Requested);
    }
}

/// Notes an object that does not decode: it is present, and nothing else is known of it.
pub fn apply_undecodable(
    state: &mut State,
    now: Moment,
    source: Source,
    name: &ObjectKey,
    uid: &str,
    error: &str,
) {
    if let Some(key) = state.jobs.key_of(name)
        && let Some(job) = state.jobs.get_mut(key)
    {
        if job.uid == *uid {
            state.jobs.mark(key, source);
        } else {
            state.forget(now, key);
        }
    }
    let report = ObjectEvent {
        key: name.clone(),
        uid: uid.into(),
        reason: INVALID_OBJECT,
        warning: true,
        note: format!("This object is not followed, because it cannot be read: {error}."),
    };
    state.jobs.apply_undecodable(source, report);
    if state.leading {
        state.output.events.extend(state.jobs.take_report(name));
    }
}

/// Applies that a list is complete: what it did not bring is gone.
pub fn apply_listed(state: &mut State, now: Moment, source: Source) {
    for key in state.jobs.end_list(source) {
        state.forget(now, key);
    }
    state.set_intervals(now, source);
}

/// Applies the deletion of an object.
pub fn apply_deleted(state: &mut State, now: Moment, name: &ObjectKey, uid: Option<&str>) {
    state.jobs.forget_undecodable(name, uid);
    if let Some(key) = state.jobs.key_of(name)
        && let Some(job) = state.jobs.get_mut(key)
        && uid.is_none_or(|uid| job.uid == *uid)
    {
        state.forget(now, key);
    }
}
