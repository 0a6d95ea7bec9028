//! Signing in to Keystone v3: what is asked, and what the answer means.

mod body;
mod catalog;

use super::{
    Operation,
    breaker::{Attempt, Breakers, Open, Permit},
    credential::Credential,
    endpoint::Endpoint,
    entry::{Agency, ApplicationCredentialRef, Identity, MAX_TOKEN_BYTES, ProjectRef, UserRef},
    error::{self, ErrorBody},
    http::{Answer, Attempts, Http, NoAnswer},
    job,
    text::Redactor,
    timestamp,
};
use image_export_model::{
    ConfigurationError, ConfigurationReason, Failure, FailureKind, Outcome, Stage,
};
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::time::Duration;

/// A catalog of all services and regions is larger than any other answer.
const CATALOG_LIMIT: usize = 1024 * 1024;
/// Where an answer does not say how long its token lives.
const ASSUMED_LIFETIME: Duration = Duration::from_secs(3600);
/// Bounds of what an answer may say about it. The lower one keeps a cloud whose clock is off from
/// causing a login for each poll.
const LIFETIME_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(24 * 3600));
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
    Refused(ConfigurationError),
    Failed(Failure),
    /// Not tried: the breaker of the identity is open for so long.
    Barred(ConfigurationError, Duration),
}

impl LoginProblem {
    pub(super) fn refused(reason: ConfigurationReason, message: String) -> Self {
        Self::Refused(ConfigurationError {
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
        matches!(self, Self::Refused(refusal) if refusal.reason == ConfigurationReason::CredentialsInvalid)
    }
}

impl From<LoginProblem> for Outcome {
    fn from(problem: LoginProblem) -> Self {
        match problem {
            LoginProblem::Refused(refusal) | LoginProblem::Barred(refusal, _) => {
                Self::Misconfigured(refusal)
            }
            LoginProblem::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl From<LoginProblem> for LoginTrouble {
    fn from(problem: LoginProblem) -> Self {
        Self {
            problem,
            retry_after: None,
        }
    }
}

/// Where and how to sign in.
pub(super) struct Login<'a> {
    pub(super) http: &'a Http,
    pub(super) breakers: &'a Breakers,
    pub(super) credential: &'a Credential,
    pub(super) auth_url: &'a Endpoint,
    pub(super) identity: &'a Identity,
    pub(super) agency: Option<&'a Agency>,
}

impl Login<'_> {
    /// Signs in to the project that the entry names, else to `project_id`.
    pub(super) async fn sign_in(&self, project_id: &str) -> Result<Grant, LoginTrouble> {
        let entry = self.credential.entry();
        let asked = ProjectRef::Id(project_id.to_owned());
        let project = entry.project.as_ref().unwrap_or(&asked);
        let with_catalog = entry.image_endpoint.is_none();
        let mut redactor = self.credential.redactor().clone();
        let Some(agency) = self.agency else {
            let scope = self.scope(project);
            let answer = self
                .identify(project_id, scope, with_catalog, &redactor)
                .await?;
            return self.granted(&answer, redactor).map_err(LoginTrouble::from);
        };

        let own_scope = match &agency.caller_project {
            Some(project) => self.scope(project),
            None => self.domain_scope(),
        };
        let answer = self.identify("", own_scope, false, &redactor).await?;
        let caller = self.token(&answer)?;
        redactor.push(&caller);

        let request = body::request(
            &body::assume_role(agency),
            Some(body::project_scope(project)),
        );
        let answer = self
            .post(with_catalog, Some(&caller), request, Attempts::new())
            .await?;
        if !is_granted(answer.status) {
            return Err(self.refused(&answer, &redactor, |status| {
                self.not_assumed(agency, status)
            }));
        }
        self.granted(&answer, redactor).map_err(LoginTrouble::from)
    }

    /// Presents the identity's own secret, as its breaker lets it; passes on an accepted answer.
    /// `purpose` is what the breaker knows the scope by.
    async fn identify(
        &self,
        purpose: &str,
        scope: Option<Value>,
        with_catalog: bool,
        redactor: &Redactor,
    ) -> Result<Answer, LoginTrouble> {
        let request = body::request(&body::identity(self.identity), scope);
        let permit = self.enter(purpose).await?;
        let attempts = attempts(permit.as_ref());
        let answer = self.post(with_catalog, None, request, attempts).await?;
        self.identified(answer, permit, redactor)
    }

    fn host(&self) -> &str {
        self.auth_url.host()
    }

    /// An application credential brings its own scope and may not name one.
    fn scope(&self, project: &ProjectRef) -> Option<Value> {
        match self.identity {
            Identity::ApplicationCredential { .. } => None,
            Identity::Password { .. } | Identity::Token(_) => Some(body::project_scope(project)),
        }
    }

    /// The domain of the user, where it is known.
    fn domain_scope(&self) -> Option<Value> {
        match self.identity {
            Identity::Password {
                user: UserRef::Name { domain, .. },
                ..
            } => Some(body::domain_scope(domain)),
            _ => None,
        }
    }

    /// Waits for the identity's breaker. Tokens have none: no account is locked for a wrong one.
    async fn enter(&self, scope: &str) -> Result<Option<Permit<'_>>, LoginTrouble> {
        let Some(attempt) = self.attempt(scope) else {
            return Ok(None);
        };
        self.breakers
            .enter(attempt)
            .await
            .map(Some)
            .map_err(|open| LoginProblem::Barred(self.barred(&open), open.wait).into())
    }

    fn attempt(&self, scope: &str) -> Option<Attempt> {
        let secrets = [self.identity.secret()];
        let host = self.host();
        let attempt = |identity| {
            self.breakers
                .attempt((host, identity), secrets, host, scope, false)
        };
        match self.identity {
            Identity::Password { user, .. } => Some(attempt(Known::User(user))),
            Identity::ApplicationCredential { credential, .. } => {
                Some(attempt(Known::ApplicationCredential(credential)))
            }
            Identity::Token(_) => None,
        }
    }

    fn barred(&self, open: &Open) -> ConfigurationError {
        if open.rejections == 0 {
            return self.rejects_login();
        }
        let pacing = &self.http.options().pacing;
        let minutes = pacing.breaker_minutes();
        ConfigurationError {
            reason: ConfigurationReason::CredentialsInvalid,
            message: format!(
                "identity service {} rejected this user's logins {} times in a row ({}), with {} or another Secret; to keep the account from being locked, one is tried every {minutes} min; check {}",
                self.host(),
                open.rejections.min(pacing.breaker_rejections),
                open.answer,
                self.credential.described(),
                self.what_to_check(),
            )
            .into(),
        }
    }

    fn rejects_login(&self) -> ConfigurationError {
        ConfigurationError {
            reason: ConfigurationReason::CredentialsInvalid,
            message: format!(
                "identity service {} rejects the login of {} (401); check {}",
                self.host(),
                self.credential.described(),
                self.what_to_check()
            )
            .into(),
        }
    }

    fn what_to_check(&self) -> &'static str {
        match self.identity {
            Identity::Password { .. } => "user, password, domain and project",
            Identity::Token(_) => "the token, its age and the project",
            Identity::ApplicationCredential { .. } => {
                "id, secret and age of the application credential"
            }
        }
    }

    async fn post(
        &self,
        with_catalog: bool,
        caller: Option<&SecretString>,
        body: Vec<u8>,
        mut attempts: Attempts,
    ) -> Result<Answer, LoginTrouble> {
        let url = self.auth_url.tokens_url(with_catalog);
        let caller = caller.and_then(|token| {
            let mut header = HeaderValue::from_str(token.expose_secret()).ok()?;
            header.set_sensitive(true);
            Some(header)
        });
        let answer = self
            .http
            .send(
                self.credential.clients(),
                self.auth_url,
                Operation::Login,
                &mut attempts,
                CATALOG_LIMIT,
                |client| {
                    let mut request = client
                        .post(url.clone())
                        .header(CONTENT_TYPE, "application/json")
                        .body(body.clone());
                    if let Some(caller) = &caller {
                        request = request.header("x-auth-token", caller.clone());
                    }
                    request
                },
            )
            .await;
        answer.map_err(|error| {
            let text = format!("identity service {} {error}", self.host());
            match error {
                NoAnswer::Failed(kind, _) => LoginProblem::failed(kind, text).into(),
                NoAnswer::NotAllowed(_) => {
                    LoginProblem::refused(ConfigurationReason::EndpointNotAllowed, text).into()
                }
            }
        })
    }

    /// Tells the breaker what an answer to the identity's own secret means; passes on an accepted one.
    fn identified(
        &self,
        answer: Answer,
        permit: Option<Permit<'_>>,
        redactor: &Redactor,
    ) -> Result<Answer, LoginTrouble> {
        if is_granted(answer.status) {
            if let Some(permit) = permit {
                permit.accepted();
            }
            return Ok(answer);
        }
        let open = match permit {
            Some(permit) if answer.status == 401 => permit.rejected("401"),
            _ => None,
        };
        Err(self.refused(&answer, redactor, |status| match &open {
            Some(open) => LoginProblem::Refused(self.barred(open)),
            None => self.problem(status),
        }))
    }

    /// An answer that gives no token. Of the codes only throttling tells more than the status:
    /// gateways send it with any of them.
    fn refused(
        &self,
        answer: &Answer,
        redactor: &Redactor,
        problem: impl FnOnce(u16) -> LoginProblem,
    ) -> LoginTrouble {
        let body = answer.body.as_deref().unwrap_or_default();
        let error = ErrorBody::parse(answer.status, body, redactor);
        tracing::debug!(
            host = self.host(),
            status = answer.status,
            code = error.code,
            request_id = error::request_id(&answer.headers, &error, redactor),
            "login refused"
        );
        let problem = if error.is_throttling(answer.status) {
            LoginProblem::failed(
                FailureKind::Http,
                format!(
                    "identity service {} asks for fewer logins ({})",
                    self.host(),
                    answer.status
                ),
            )
        } else {
            problem(answer.status)
        };
        LoginTrouble {
            problem,
            retry_after: error::stay_away(&answer.headers, answer.status, &error, Timestamp::now()),
        }
    }

    fn problem(&self, status: u16) -> LoginProblem {
        let (host, credential) = (self.host(), self.credential.described());
        let refused = LoginProblem::refused;
        match status {
            401 => LoginProblem::Refused(self.rejects_login()),
            403 => refused(
                ConfigurationReason::AccessDenied,
                format!(
                    "identity service {host} denies the login of {credential} (403); grant the user access to the project"
                ),
            ),
            300..=399 => refused(
                ConfigurationReason::EndpointInvalid,
                format!(
                    "auth_url of {credential} leads to {host}, which redirects to another address ({status}); name the final one"
                ),
            ),
            // Keystone's answer to an unknown id of an application credential; seen with 30.0.
            404 if matches!(self.identity, Identity::ApplicationCredential { .. }) => refused(
                ConfigurationReason::CredentialsInvalid,
                format!(
                    "identity service {host} does not know the application credential of {credential} (404); check auth_url, and {}",
                    self.what_to_check()
                ),
            ),
            400 | 404 => refused(
                ConfigurationReason::EndpointInvalid,
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

    /// The caller is known by now: what stands in the way is the agency.
    fn not_assumed(&self, agency: &Agency, status: u16) -> LoginProblem {
        let (host, credential) = (self.host(), self.credential.described());
        let name = Redactor::default()
            .clean_chars(&agency.name, 64)
            .unwrap_or_default();
        match status {
            401 | 403 => LoginProblem::refused(
                ConfigurationReason::AccessDenied,
                format!(
                    "identity service {host} does not let {credential} assume agency {name} ({status}); check the agency's delegated party and the role Agent Operator of the caller"
                ),
            ),
            400 | 404 => LoginProblem::refused(
                ConfigurationReason::CredentialsInvalid,
                format!(
                    "identity service {host} knows no agency {name} of {credential} ({status}); check agency_name, agency_domain_name and the project"
                ),
            ),
            _ => self.problem(status),
        }
    }

    fn malformed(&self, what: &str) -> LoginProblem {
        let message = format!("identity service {} answered {what}", self.host());
        LoginProblem::failed(FailureKind::Malformed, message)
    }

    fn token(&self, answer: &Answer) -> Result<SecretString, LoginProblem> {
        let token = answer
            .headers
            .get("x-subject-token")
            .and_then(|token| token.to_str().ok())
            .filter(|token| !token.is_empty())
            .ok_or_else(|| self.malformed("without a token"))?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(
                self.malformed("with a token of more than 32 KiB, which fits into no header")
            );
        }
        Ok(token.into())
    }

    fn granted(&self, answer: &Answer, redactor: Redactor) -> Result<Grant, LoginProblem> {
        let token = self.token(answer)?;
        let body = answer.body.as_ref().map_err(|error| {
            let message = format!("the answer of identity service {} {error}", self.host());
            LoginProblem::failed(error.kind(), message)
        })?;
        let body = job::from_json(body).ok_or_else(|| self.malformed("without JSON"))?;
        let body = &body["token"];
        let project = body["project"]["id"]
            .as_str()
            .ok_or_else(|| self.malformed("with a token for no project"))?;
        let endpoint = match &self.credential.entry().image_endpoint {
            Some(endpoint) => endpoint.clone(),
            None => self.image_endpoint(body, project)?,
        };
        Grant::new(
            &token,
            Some(project.to_owned()),
            endpoint,
            lifetime(body, Timestamp::now()),
            redactor,
        )
        .ok_or_else(|| self.malformed("with an unusable token"))
    }
}

/// A login whose connection breaks may have been counted: only what was accepted before is sent
/// again.
fn attempts(permit: Option<&Permit<'_>>) -> Attempts {
    match permit {
        Some(permit) if !permit.is_trusted() => Attempts::single(),
        _ => Attempts::new(),
    }
}

/// What the breaker knows an identity by.
#[derive(Hash)]
enum Known<'a> {
    User(&'a UserRef),
    ApplicationCredential(&'a ApplicationCredentialRef),
}

fn is_granted(status: u16) -> bool {
    matches!(status, 200 | 201)
}

/// From the two times of the answer, so that a skewed clock of ours does not count.
fn lifetime(token: &Value, now: Timestamp) -> Duration {
    let time = |name: &str| token[name].as_str().and_then(timestamp::parse);
    let Some(expires_at) = time("expires_at") else {
        return ASSUMED_LIFETIME;
    };
    let lifetime = expires_at.duration_since(time("issued_at").unwrap_or(now));
    Duration::try_from(lifetime)
        .unwrap_or_default()
        .clamp(LIFETIME_BOUNDS.0, LIFETIME_BOUNDS.1)
}
