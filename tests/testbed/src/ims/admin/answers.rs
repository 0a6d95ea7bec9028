//! Scripted answers over the admin API, and the gates that hold them.

use super::{Refusal, found, seconds};
use crate::ims::{Answer, JobKey, OutageStart, Target, server::Shared};
use anyhow::{Context, bail};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

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
    drip_seconds: Option<f64>,
    repeated: Option<u64>,
    #[serde(default)]
    endless: bool,
    /// Bytes in place of an HTTP answer.
    raw: Option<String>,
    /// Name of the gate that holds the answer.
    gate: Option<String>,
}

impl AnswerSpec {
    fn build(self, shared: &Shared) -> anyhow::Result<Answer> {
        let mut answer = match (self.preset, self.status, self.raw) {
            (Some(name), None, None) => Answer::find_preset(&name)
                .with_context(|| format!("no preset is named {name:?}: GET /admin/presets"))?,
            (None, Some(status), None) => Answer::try_status(status)?,
            (None, None, Some(bytes)) => Answer::raw(bytes),
            (None, None, None) => Answer::pass(),
            _ => bail!("give preset, status or raw, not two of them"),
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
        if let Some(times) = self.repeated {
            answer = answer.repeated(times);
        }
        if self.endless {
            answer = answer.endless();
        }
        if let Some(every) = self.drip_seconds {
            answer = answer.drip(seconds(every)?);
        }
        if let Some(name) = self.gate {
            answer = answer.held_by(shared.gates().entry(name).or_default());
        }
        Ok(answer.after(seconds(self.delay_seconds)?))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScriptSpec {
    on: On,
    answer: AnswerSpec,
    /// Absent: once.
    times: Option<usize>,
    #[serde(default)]
    forever: bool,
}

/// A queue longer than this is a slip of the hand; `forever` serves better.
const MOST_TIMES: usize = 100_000;

pub(super) async fn script(
    State(shared): State<Arc<Shared>>,
    Json(spec): Json<ScriptSpec>,
) -> Result<StatusCode, Refusal> {
    let answer = spec.answer.build(&shared)?;
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

pub(super) async fn clear(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.scripts().clear_all();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutageSpec {
    on: On,
    answer: Option<AnswerSpec>,
    seconds: f64,
    #[serde(default)]
    start: OutageStart,
}

pub(super) async fn outage(
    State(shared): State<Arc<Shared>>,
    Json(spec): Json<OutageSpec>,
) -> Result<StatusCode, Refusal> {
    let answer = match spec.answer {
        Some(answer) => answer.build(&shared)?,
        None => Answer::preset("unavailable"),
    };
    let lasts = seconds(spec.seconds)?;
    shared
        .scripts()
        .outage(spec.on.into(), answer, lasts, spec.start);
    Ok(StatusCode::NO_CONTENT)
}

/// How many requests each closed gate holds.
pub(super) async fn gates(State(shared): State<Arc<Shared>>) -> Json<BTreeMap<String, usize>> {
    let gates = shared.gates();
    Json(
        gates
            .iter()
            .map(|(name, gate)| (name.clone(), gate.waiting()))
            .collect(),
    )
}

/// Opens a gate for ever; an answer that names it later is held by a new one.
pub(super) async fn open_gate(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> StatusCode {
    let gate = shared.gates().remove(&name);
    found(gate.inspect(crate::ims::Gate::open).is_some())
}
