//! The admin API under `/admin`: what [`super::Simulator`] offers, for people and other processes.
//!
//! `docs/simulator.md` and `ims-simulator --help` are its reference.

mod answers;
mod identity;
mod jobs;

use super::{Counters, PRESETS, Quota, RequestRecord, quota::Throttle, server::Shared};
use anyhow::Context;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, patch, post},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

type Routes = Vec<(&'static str, &'static str, MethodRouter<Arc<Shared>>)>;

fn routes() -> Routes {
    vec![
        ("POST", "/jobs", post(jobs::put)),
        ("DELETE", "/jobs/{project}/{job}", delete(jobs::remove)),
        ("POST", "/answers", post(answers::script)),
        ("DELETE", "/answers", delete(answers::clear)),
        ("POST", "/outage", post(answers::outage)),
        ("GET", "/gates", get(answers::gates)),
        ("POST", "/gates/{name}", post(answers::open_gate)),
        ("POST", "/users", post(identity::put_user)),
        (
            "POST",
            "/application-credentials",
            post(identity::add_credential),
        ),
        (
            "DELETE",
            "/application-credentials/{id}",
            delete(identity::remove_credential),
        ),
        ("POST", "/agencies", post(identity::add_agency)),
        ("POST", "/keys", post(identity::add_key)),
        ("PATCH", "/keys/{access_key}", patch(identity::enable_key)),
        ("DELETE", "/keys/{access_key}", delete(identity::remove_key)),
        ("DELETE", "/locks", delete(identity::unlock)),
        ("POST", "/tokens", post(identity::add_token)),
        ("PATCH", "/tokens", patch(identity::shape_tokens)),
        ("DELETE", "/tokens", delete(identity::revoke_tokens)),
        ("POST", "/clock", post(identity::set_clock)),
        ("POST", "/quota", post(set_quota)),
        ("DELETE", "/quota", delete(clear_quota)),
        ("GET", "/counters", get(counters)),
        ("GET", "/requests", get(requests)),
        ("GET", "/presets", get(presets)),
    ]
}

pub(super) fn router() -> Router<Arc<Shared>> {
    routes()
        .into_iter()
        .fold(Router::new(), |router, (_, path, handler)| {
            router.route(path, handler)
        })
}

/// All of the admin API: method and path, as in `POST /admin/jobs`.
#[must_use]
pub fn admin_routes() -> Vec<String> {
    routes()
        .into_iter()
        .map(|(method, path, _)| format!("{method} /admin{path}"))
        .collect()
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

/// 204 for what was there, 404 for what was not.
fn found(found: bool) -> StatusCode {
    if found {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotaSpec {
    requests: u64,
    seconds: f64,
}

async fn set_quota(
    State(shared): State<Arc<Shared>>,
    Json(spec): Json<QuotaSpec>,
) -> Result<StatusCode, Refusal> {
    let quota = Quota {
        requests: spec.requests,
        per: seconds(spec.seconds)?,
    };
    *shared.throttle() = Throttle::new(Some(quota));
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_quota(State(shared): State<Arc<Shared>>) -> StatusCode {
    *shared.throttle() = Throttle::new(None);
    StatusCode::NO_CONTENT
}

#[derive(Serialize)]
struct AllCounters {
    #[serde(flatten)]
    sums: Counters,
    polls_by_job: BTreeMap<String, u64>,
}

async fn counters(State(shared): State<Arc<Shared>>) -> Json<AllCounters> {
    Json(AllCounters {
        sums: shared.counters(),
        polls_by_job: shared.log().polls_by_job(),
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
