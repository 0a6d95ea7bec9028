//! Users, credentials, keys and tokens over the admin API.

use super::{Refusal, found, seconds};
use crate::ims::{AccessKey, Agency, ApplicationCredential, Project, User, server::Shared};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use k8s_openapi::jiff::SignedDuration;
use secrecy::SecretString;
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectSpec {
    id: String,
    name: String,
}

impl From<ProjectSpec> for Project {
    fn from(spec: ProjectSpec) -> Self {
        Self {
            id: spec.id,
            name: spec.name,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserSpec {
    id: Option<String>,
    name: String,
    domain: String,
    domain_id: Option<String>,
    password: String,
    #[serde(default)]
    projects: Vec<ProjectSpec>,
    default_project: Option<String>,
}

pub(super) async fn put_user(
    State(shared): State<Arc<Shared>>,
    Json(spec): Json<UserSpec>,
) -> StatusCode {
    let mut user = User::new(&spec.name, &spec.domain, spec.password);
    user.id = spec.id.unwrap_or(user.id);
    user.domain_id = spec.domain_id.unwrap_or(user.domain_id);
    user.projects = spec.projects.into_iter().map(Project::from).collect();
    user.default_project = spec.default_project;
    shared.iam().add_user(user);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CredentialSpec {
    id: String,
    name: String,
    secret: String,
    user_id: String,
    project_id: String,
}

pub(super) async fn add_credential(
    State(shared): State<Arc<Shared>>,
    Json(spec): Json<CredentialSpec>,
) -> StatusCode {
    shared.iam().add_credential(ApplicationCredential {
        id: spec.id,
        name: spec.name,
        secret: spec.secret.into(),
        user_id: spec.user_id,
        project_id: spec.project_id,
    });
    StatusCode::NO_CONTENT
}

pub(super) async fn remove_credential(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> StatusCode {
    found(shared.iam().remove_credential(&id))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgencySpec {
    name: String,
    domain: String,
    domain_id: Option<String>,
    #[serde(default)]
    projects: Vec<ProjectSpec>,
    #[serde(default)]
    trusted_domains: Vec<String>,
    #[serde(default)]
    trusted_users: Vec<String>,
}

pub(super) async fn add_agency(
    State(shared): State<Arc<Shared>>,
    Json(spec): Json<AgencySpec>,
) -> StatusCode {
    let mut agency = Agency::new(&spec.name, &spec.domain);
    agency.domain_id = spec.domain_id.unwrap_or(agency.domain_id);
    agency.projects = spec.projects.into_iter().map(Project::from).collect();
    agency.trusted_domains = spec.trusted_domains;
    agency.trusted_users = spec.trusted_users;
    shared.iam().add_agency(agency);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeySpec {
    access_key: String,
    secret_key: String,
    /// Absent: all projects.
    projects: Option<Vec<String>>,
    security_token: Option<String>,
}

pub(super) async fn add_key(
    State(shared): State<Arc<Shared>>,
    Json(spec): Json<KeySpec>,
) -> StatusCode {
    shared.iam().add_key(AccessKey {
        access_key: spec.access_key,
        secret_key: spec.secret_key.into(),
        projects: spec.projects,
        security_token: spec.security_token.map(SecretString::from),
    });
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyChange {
    enabled: bool,
}

pub(super) async fn enable_key(
    State(shared): State<Arc<Shared>>,
    Path(access_key): Path<String>,
    Json(change): Json<KeyChange>,
) -> StatusCode {
    found(shared.iam().enable_key(&access_key, change.enabled))
}

pub(super) async fn remove_key(
    State(shared): State<Arc<Shared>>,
    Path(access_key): Path<String>,
) -> StatusCode {
    found(shared.iam().remove_key(&access_key))
}

pub(super) async fn unlock(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.iam().unlock();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenSpec {
    token: String,
    /// Absent: all projects.
    project_id: Option<String>,
}

pub(super) async fn add_token(
    State(shared): State<Arc<Shared>>,
    Json(spec): Json<TokenSpec>,
) -> StatusCode {
    let project = spec.project_id.as_deref();
    shared.iam().add_fixed_token(&spec.token.into(), project);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenShape {
    lifetime_seconds: Option<f64>,
    length: Option<usize>,
}

/// Longer tokens do not fit into what the server takes as a head.
const LONGEST_TOKEN: usize = 256 * 1024;

pub(super) async fn shape_tokens(
    State(shared): State<Arc<Shared>>,
    Json(shape): Json<TokenShape>,
) -> Result<StatusCode, Refusal> {
    let lifetime = shape.lifetime_seconds.map(seconds).transpose()?;
    if shape.length.is_some_and(|length| length > LONGEST_TOKEN) {
        Err(anyhow::anyhow!("length may be {LONGEST_TOKEN} at most"))?;
    }
    let mut iam = shared.iam();
    if let Some(lifetime) = lifetime {
        iam.rules.token_lifetime = lifetime;
    }
    if let Some(length) = shape.length {
        iam.rules.token_length = length;
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn revoke_tokens(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.iam().revoke_issued();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Clock {
    ahead_seconds: i64,
}

pub(super) async fn set_clock(
    State(shared): State<Arc<Shared>>,
    Json(clock): Json<Clock>,
) -> StatusCode {
    shared.iam().rules.clock_offset = SignedDuration::from_secs(clock.ahead_seconds);
    StatusCode::NO_CONTENT
}
