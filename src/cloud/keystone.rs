//! Signing in to Keystone v3: what is asked, and what the answer means.

use super::{
    clouds_yaml::{DomainRef, Login, ProjectRef, UserRef},
    credential::Credential,
    endpoint::Endpoint,
    error::ErrorBody,
    http::{Attempts, Http},
    job,
    text::Redactor,
};
use crate::observation::{Failure, FailureKind, Outcome, Refusal, RefusalReason, Stage};
use k8s_openapi::jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

/// A catalog of all services and regions is larger than any other answer.
const CATALOG_LIMIT: usize = 1024 * 1024;
/// Where an answer does not say how long its token lives.
const ASSUMED_LIFETIME: Duration = Duration::from_secs(3600);
/// Bounds of what an answer may say about it. The lower one keeps a cloud whose clock is off from
/// causing a login for each poll.
const LIFETIME_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(24 * 3600));
/// How many regions a message names.
const MAX_NAMED_REGIONS: usize = 5;

/// A token and where it may be used.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// For `X-Auth-Token`; marked sensitive.
    pub(super) token: HeaderValue,
    /// The project the token is for; `None` for a token that was used as it is.
    pub(super) project_id: Option<String>,
    /// The image service.
    pub(super) endpoint: Endpoint,
    /// From the login on.
    pub(super) lifetime: Duration,
    /// Knows the token and what it was got with.
    pub(super) redactor: Redactor,
}

impl Grant {
    /// `None` if `token` cannot stand in a header.
    pub(super) fn new(
        token: &SecretString,
        project_id: Option<String>,
        endpoint: Endpoint,
        lifetime: Duration,
        mut redactor: Redactor,
    ) -> Option<Self> {
        let mut header = HeaderValue::from_str(token.expose_secret()).ok()?;
        header.set_sensitive(true);
        redactor.push(token);
        Some(Self {
            token: header,
            project_id,
            endpoint,
            lifetime,
            redactor,
        })
    }
}

/// A login that gave no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoginTrouble {
    pub(super) problem: LoginProblem,
    /// What the identity service asked for.
    pub(super) retry_after: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LoginProblem {
    Refused(Refusal),
    Failed(Failure),
}

impl LoginProblem {
    pub(super) fn refused(reason: RefusalReason, message: String) -> Self {
        Self::Refused(Refusal {
            reason,
            message: message.into(),
        })
    }

    fn failed(kind: FailureKind, message: String) -> Self {
        Self::Failed(Failure {
            kind,
            stage: Stage::Login,
            message: message.into(),
        })
    }

    /// Whether the credentials themselves were not accepted.
    pub(super) fn is_rejection(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.reason == RefusalReason::CredentialsInvalid)
    }
}

impl From<LoginProblem> for Outcome {
    fn from(problem: LoginProblem) -> Self {
        match problem {
            LoginProblem::Refused(refusal) => Self::Refused(refusal),
            LoginProblem::Failed(failure) => Self::Failed(failure),
        }
    }
}

/// Signs in at `auth_url` with the scope that the entry names, else with `project_id`.
pub(super) async fn sign_in(
    http: &Http,
    auth_url: &Endpoint,
    credential: &Credential,
    project_id: &str,
) -> Result<Grant, LoginTrouble> {
    let entry = credential.entry();
    let own_scope = ProjectRef::Id(project_id.to_owned());
    let body = request_body(&entry.login, entry.project.as_ref().unwrap_or(&own_scope));
    let url = auth_url.tokens_url(entry.image_endpoint.is_none());
    let without_wait = |problem| LoginTrouble {
        problem,
        retry_after: None,
    };

    let answer = http
        .send(auth_url, &mut Attempts::new(), CATALOG_LIMIT, |client| {
            client
                .post(url.clone())
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone())
        })
        .await
        .map_err(|error| {
            let message = format!("identity service {} {error}", auth_url.host());
            without_wait(LoginProblem::failed(error.kind, message))
        })?;

    let now = Timestamp::now();
    if matches!(answer.status, 200 | 201) {
        let body = answer.body.map_err(|error| {
            let message = format!("the answer of identity service {} {error}", auth_url.host());
            without_wait(LoginProblem::failed(error.kind(), message))
        })?;
        return granted(
            auth_url,
            credential,
            &answer.headers,
            &body,
            now,
            http.options().allow_http,
        )
        .map_err(without_wait);
    }
    let body = answer.body.as_deref().unwrap_or_default();
    let error = ErrorBody::parse(answer.status, body, &credential.redactor());
    Err(LoginTrouble {
        problem: problem(
            auth_url.host(),
            &credential.described(),
            answer.status,
            &error,
        ),
        retry_after: super::error::stay_away(&answer.headers, answer.status, &error, now),
    })
}

/// What a status other than 200 and 201 means. Of the codes only throttling tells more than the
/// status: gateways send it with any of them.
fn problem(host: &str, credential: &str, status: u16, error: &ErrorBody) -> LoginProblem {
    let refused = LoginProblem::refused;
    match status {
        _ if error.is_throttling(status) => LoginProblem::failed(
            FailureKind::Http,
            format!("identity service {host} asks for fewer logins ({status})"),
        ),
        401 => refused(
            RefusalReason::CredentialsInvalid,
            format!(
                "identity service {host} rejects the login of {credential} (401); check user, password or token, domain and project"
            ),
        ),
        403 => refused(
            RefusalReason::AccessDenied,
            format!(
                "identity service {host} denies the login of {credential} (403); grant the user access to the project"
            ),
        ),
        300..=399 => refused(
            RefusalReason::EndpointInvalid,
            format!(
                "auth_url of {credential} leads to {host}, which redirects to another address ({status}); name the final one"
            ),
        ),
        400 | 404 => refused(
            RefusalReason::EndpointInvalid,
            format!(
                "auth_url of {credential} leads to {host}, which does not offer Keystone v3 there ({status}); check auth_url"
            ),
        ),
        _ => LoginProblem::failed(
            FailureKind::Http,
            format!("identity service {host} answered {status}"),
        ),
    }
}

fn granted(
    auth_url: &Endpoint,
    credential: &Credential,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
    allow_http: bool,
) -> Result<Grant, LoginProblem> {
    let malformed = |what: &str| {
        let message = format!("identity service {} answered {what}", auth_url.host());
        LoginProblem::failed(FailureKind::Malformed, message)
    };
    let token: SecretString = headers
        .get("x-subject-token")
        .and_then(|token| token.to_str().ok())
        .filter(|token| !token.is_empty())
        .ok_or_else(|| malformed("without a token"))?
        .into();
    let body = job::from_json(body).ok_or_else(|| malformed("without JSON"))?;
    let body = &body["token"];
    let project = body["project"]["id"]
        .as_str()
        .ok_or_else(|| malformed("with a token for no project"))?;

    let entry = credential.entry();
    let endpoint = match &entry.image_endpoint {
        Some(endpoint) => endpoint.clone(),
        None => image_endpoint(credential, body, project, allow_http)?,
    };
    Grant::new(
        &token,
        Some(project.to_owned()),
        endpoint,
        lifetime(body, now),
        credential.redactor(),
    )
    .ok_or_else(|| malformed("with an unusable token"))
}

/// From the two times of the answer, so that a skewed clock of ours does not count.
fn lifetime(token: &Value, now: Timestamp) -> Duration {
    let time = |name: &str| token[name].as_str().and_then(super::timestamp::parse);
    let Some(expires_at) = time("expires_at") else {
        return ASSUMED_LIFETIME;
    };
    let lifetime = expires_at.duration_since(time("issued_at").unwrap_or(now));
    Duration::try_from(lifetime)
        .unwrap_or_default()
        .clamp(LIFETIME_BOUNDS.0, LIFETIME_BOUNDS.1)
}

/// The catalog's image service of the wanted interface and region: the entry's `region_name`, else
/// the start of the project's name (`eu-de_team`), else the only one there is.
fn image_endpoint(
    credential: &Credential,
    token: &Value,
    project_id: &str,
    allow_http: bool,
) -> Result<Endpoint, LoginProblem> {
    let entry = credential.entry();
    let invalid = |message| LoginProblem::refused(RefusalReason::EndpointInvalid, message);
    let described = credential.described();

    let endpoints: Vec<(&str, &str)> = items(&token["catalog"])
        .filter(|service| service["type"] == "image")
        .flat_map(|service| items(&service["endpoints"]))
        .filter(|endpoint| endpoint["interface"].as_str() == Some(entry.interface.as_str()))
        .filter_map(|endpoint| {
            let region = endpoint["region"]
                .as_str()
                .or_else(|| endpoint["region_id"].as_str());
            Some((region.unwrap_or_default(), endpoint["url"].as_str()?))
        })
        .collect();
    if endpoints.is_empty() {
        return Err(invalid(format!(
            "the catalog of {described} has no image service with interface {}; set image_endpoint_override",
            entry.interface
        )));
    }

    let in_region = |wanted: &str| endpoints.iter().find(|(region, _)| *region == wanted);
    let from_project = || {
        let region = token["project"]["name"].as_str()?.split('_').next()?;
        in_region(region)
    };
    let only_one = || {
        let urls: BTreeSet<_> = endpoints.iter().map(|(_, url)| url).collect();
        (urls.len() == 1).then(|| &endpoints[0])
    };
    let found = match &entry.region {
        Some(region) => in_region(region),
        None => from_project().or_else(only_one),
    };
    let (_, url) = found.ok_or_else(|| {
        let regions: BTreeSet<_> = endpoints.iter().map(|(region, _)| *region).collect();
        let regions: Vec<_> = regions
            .into_iter()
            .filter_map(|region| Redactor::default().clean_chars(region, 64))
            .take(MAX_NAMED_REGIONS)
            .collect();
        invalid(format!(
            "the image service of {described} is not in the wanted region; set region_name to one of: {}",
            regions.join(", ")
        ))
    })?;
    Endpoint::image(url, Some(project_id), allow_http).map_err(|bad| {
        LoginProblem::Refused(bad.refusal("the catalog's URL of the image service", &described))
    })
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().map_or(&[][..], Vec::as_slice).iter()
}

/// The body of `POST /auth/tokens`. It holds secrets.
fn request_body(login: &Login, scope: &ProjectRef) -> Vec<u8> {
    let identity = match login {
        Login::Password { user, password, .. } => {
            let mut user = match user {
                UserRef::Id(id) => json!({ "id": id }),
                UserRef::Name { name, domain } => {
                    json!({ "name": name, "domain": domain_ref(domain) })
                }
            };
            user["password"] = password.expose_secret().into();
            json!({ "methods": ["password"], "password": { "user": user } })
        }
        Login::Token { token, .. } => {
            json!({ "methods": ["token"], "token": { "id": token.expose_secret() } })
        }
    };
    let project = match scope {
        ProjectRef::Id(id) => json!({ "id": id }),
        ProjectRef::Name { name, domain } => json!({ "name": name, "domain": domain_ref(domain) }),
    };
    let body = json!({ "auth": { "identity": identity, "scope": { "project": project } } });
    body.to_string().into_bytes()
}

fn domain_ref(domain: &DomainRef) -> Value {
    match domain {
        DomainRef::Id(id) => json!({ "id": id }),
        DomainRef::Name(name) => json!({ "name": name }),
    }
}
