//! Jobs over the admin API.

use super::{Refusal, found, seconds};
use crate::ims::{End, Job, JobKey, Layout, Start, server::Shared};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobSpec {
    project_id: String,
    job_id: String,
    job_type: Option<String>,
    #[serde(default)]
    start: Start,
    #[serde(default)]
    init_seconds: f64,
    #[serde(default)]
    run_seconds: f64,
    #[serde(default)]
    end: EndSpec,
    image_id: Option<String>,
    error_code: Option<String>,
    fail_reason: Option<String>,
    #[serde(default)]
    layout: Layout,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EndSpec {
    #[default]
    Success,
    SuccessWithoutImage,
    Fail,
    Never,
}

pub(super) async fn put(
    State(shared): State<Arc<Shared>>,
    Json(spec): Json<JobSpec>,
) -> Result<StatusCode, Refusal> {
    let mut job = Job::new(spec.project_id, spec.job_id)
        .starts(spec.start)
        .init_for(seconds(spec.init_seconds)?)
        .running_for(seconds(spec.run_seconds)?)
        .layout(spec.layout);
    if let Some(job_type) = spec.job_type {
        job = job.of_type(job_type);
    }
    if let Some(image_id) = spec.image_id {
        job = job.image_id(image_id);
    }
    job = match spec.end {
        EndSpec::Success => job,
        EndSpec::SuccessWithoutImage => job.without_image_id(),
        EndSpec::Fail => job.ends(End::Fail {
            error_code: spec.error_code,
            fail_reason: spec.fail_reason,
        }),
        EndSpec::Never => job.ends(End::Never),
    };
    shared.put_job(job);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    Path((project, job)): Path<(String, String)>,
) -> StatusCode {
    found(shared.remove_job(&JobKey::new(project, job)))
}
