//! The admin API under `/admin`: what [`super::Simulator`] offers, for people and other processes.
//!
//! `ims-simulator --help` is its reference.

use super::{
    Answer, Counters, End, Job, JobKey, Layout, OutageStart, PRESETS, RequestRecord, Start, Target,
    server::Shared,
};
use anyhow::{Context, bail};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/jobs", post(put_job))
        .route("/jobs/{project}/{job}", delete(remove_job))
        .route("/answers", post(script).delete(clear))
        .route("/outage", post(outage))
        .route("/tokens", delete(revoke_tokens))
        .route("/counters", get(counters))
        .route("/requests", get(requests))
        .route("/presets", get(presets))
}

/// A request that makes no sense: 400 with the reason as text.
struct Refusal(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, format!("{:#}\n", self.0)).into_response()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobSpec {
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

async fn put_job(
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

async fn remove_job(
    State(shared): State<Arc<Shared>>,
    Path((project, job)): Path<(String, String)>,
) -> StatusCode {
    if shared.remove_job(&JobKey::new(project, job)) {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum On {
    Job { project_id: String, job_id: String },
    Jobs,
    Login,
}

impl From<On> for Target {
    fn from(on: On) -> Self {
        match on {
            On::Job { project_id, job_id } => Self::Job(JobKey::new(project_id, job_id)),
            On::Jobs => Self::Jobs,
            On::Login => Self::Login,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerSpec {
    preset: Option<String>,
    status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    #[serde(default)]
    delay_seconds: f64,
    cut_after: Option<usize>,
}

impl AnswerSpec {
    fn build(self) -> anyhow::Result<Answer> {
        let mut answer = match (self.preset, self.status) {
            (Some(_), Some(_)) => bail!("give preset or status, not both"),
            (Some(name), None) => Answer::find_preset(&name)
                .with_context(|| format!("no preset is named {name:?}: GET /admin/presets"))?,
            (None, Some(status)) => Answer::try_status(status)?,
            (None, None) => Answer::pass(),
        };
        for (name, value) in &self.headers {
            answer = answer.try_header(name, value)?;
        }
        if let Some(body) = self.body {
            answer = answer.body(body);
        }
        if let Some(bytes) = self.cut_after {
            answer = answer.cut_after(bytes);
        }
        Ok(answer.after(seconds(self.delay_seconds)?))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptSpec {
    on: On,
    answer: AnswerSpec,
    /// Absent: once.
    times: Option<usize>,
    #[serde(default)]
    forever: bool,
}

/// A queue longer than this is a slip of the hand; `forever` serves better.
const MOST_TIMES: usize = 100_000;

async fn script(
    State(shared): State<Arc<Shared>>,
    Json(spec): Json<ScriptSpec>,
) -> Result<StatusCode, Refusal> {
    let answer = spec.answer.build()?;
    match (spec.forever, spec.times) {
        (true, Some(_)) => Err(anyhow::anyhow!("give times or forever, not both"))?,
        (true, None) => shared.scripts().forever(spec.on.into(), answer),
        (false, Some(times)) if times > MOST_TIMES => {
            Err(anyhow::anyhow!("times may be {MOST_TIMES} at most"))?;
        }
        (false, times) => shared.scripts().enqueue(
            spec.on.into(),
            std::iter::repeat_n(answer, times.unwrap_or(1)),
        ),
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn clear(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.scripts().clear_all();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutageSpec {
    on: On,
    answer: Option<AnswerSpec>,
    seconds: f64,
    #[serde(default)]
    start: OutageStart,
}

async fn outage(
    State(shared): State<Arc<Shared>>,
    Json(spec): Json<OutageSpec>,
) -> Result<StatusCode, Refusal> {
    let answer = match spec.answer {
        Some(answer) => answer.build()?,
        None => Answer::preset("unavailable"),
    };
    let lasts = seconds(spec.seconds)?;
    shared
        .scripts()
        .outage(spec.on.into(), answer, lasts, spec.start);
    Ok(StatusCode::NO_CONTENT)
}

async fn revoke_tokens(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.iam().revoke_issued();
    StatusCode::NO_CONTENT
}

#[derive(Serialize)]
struct AllCounters {
    #[serde(flatten)]
    sums: Counters,
    polls_by_job: BTreeMap<String, u64>,
}

async fn counters(State(shared): State<Arc<Shared>>) -> Json<AllCounters> {
    let log = shared.log();
    Json(AllCounters {
        sums: log.counters.clone(),
        polls_by_job: log.polls_by_job(),
    })
}

async fn requests(State(shared): State<Arc<Shared>>) -> Json<Vec<RequestRecord>> {
    Json(shared.log().requests())
}

async fn presets() -> Json<BTreeMap<&'static str, &'static str>> {
    Json(
        PRESETS
            .iter()
            .map(|preset| (preset.name, preset.about))
            .collect(),
    )
}

fn seconds(value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("{value} is no number of seconds"))
}
