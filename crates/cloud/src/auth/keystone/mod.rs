//! Keystone v3, the identity service: a login is one `POST /auth/tokens`, for an agency two.

mod body;
mod catalog;
mod error;
mod grant;
mod token;
mod user;

pub(crate) use error::LoginError;
pub(crate) use grant::Grant;

use super::{
    breaker::{Attempt, Breakers, LoginIdentity, Stopped},
    tokens::LoginDelay,
};
use crate::{
    config::{CloudEntry, EntityRef, Identity, KeystoneLogin},
    http::{self, Answer, Attempts, Clients, Http, Operation, Route, TOKEN_HEADER},
    outcome,
    wire::{error_body::ErrorBody, text::Redactor},
};
use image_export_model::{Caller, FailureKind, Outcome, ProjectId, Stage};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::{sync::Arc, time::SystemTime};

/// Longest body of a login's answer that is read, in bytes. Catalogs of all services and regions have 20 to 60
/// KiB.
const CATALOG_LIMIT: usize = 256 * 1024;

/// An identity service, as one cloud entry uses it.
#[derive(Clone, Copy)]
pub(crate) struct Keystone<'a> {
    pub(crate) http: &'a Http,
    pub(crate) clients: Option<&'a Clients>,
    pub(crate) breakers: &'a Breakers,
    pub(crate) entry: &'a CloudEntry,
    pub(crate) login: &'a KeystoneLogin,
    /// That of the credential, whatever is logged in to.
    pub(crate) delay: &'a LoginDelay,
    pub(crate) caller: &'a Caller,
}

impl Keystone<'_> {
    /// The identity service, as messages name it.
    pub(crate) fn host(self) -> Arc<str> {
        self.login.auth_url.shown_host(&self.entry.redactor)
    }

    /// Logs in to the project that the entry names, else to `project_id`.
    pub(crate) async fn log_in(self, project_id: &ProjectId) -> Result<Grant, LoginError> {
        let job_project = EntityRef::Id(project_id.to_string());
        let project = self.entry.project.as_ref().unwrap_or(&job_project);
        let with_catalog = self.entry.image_endpoint.is_none();
        let Some(agency) = &self.login.agency else {
            let answer = self
                .authenticate(project_id.as_str(), self.scope(project), with_catalog)
                .await?;
            return Ok(self.grant(&answer, self.entry.redactor.clone())?);
        };

        // The caller's own token assumes the agency.
        let own_scope = match &agency.caller_project {
            Some(project) => self.scope(project),
            None => self.domain_scope(),
        };
        let answer = self.authenticate("", own_scope, false).await?;
        let caller = self.token(&answer)?;
        let mut redactor = self.entry.redactor.clone();
        redactor.push(&caller);
        let scope = Some(json!({ "project": project }));
        let request = body::request(&body::assume_role(agency), scope);
        let attempts = Attempts::default();
        let answer = self
            .post(with_catalog, Some(&caller), request, attempts)
            .await?;
        let answer = self.accepted(answer, &redactor, |status| {
            self.agency_problem(agency, status)
        })?;
        Ok(self.grant(&answer, redactor)?)
    }

    /// Presents the identity's own secret, if its circuit breaker permits, and records the outcome
    /// there. `purpose` is the scope as the breaker knows it. Returns an accepted answer.
    async fn authenticate(
        self,
        purpose: &str,
        scope: Option<Value>,
        with_catalog: bool,
    ) -> Result<Answer, LoginError> {
        // What is not sent is no attempt.
        self.check_delay()?;
        let request = body::request(&body::identity(&self.login.identity), scope);
        let attempt = self.attempt(purpose);
        let permit = attempt.map(|attempt| self.breakers.enter(attempt));
        let permit = permit.transpose().map_err(|stopped| match stopped {
            Stopped::Deferred(after) => Outcome::Deferred(after).into(),
            Stopped::Open(open) => LoginError {
                circuit_open: Some(open.wait),
                ..self.circuit_open(&open).into()
            },
        })?;
        let attempts = Attempts {
            sent: 0,
            no_repetition: permit.as_ref().is_some_and(|permit| !permit.may_repeat),
        };
        let answer = self.post(with_catalog, None, request, attempts).await?;
        let open = match permit {
            Some(permit) if is_accepted(answer.status) => {
                permit.accepted();
                if let Some(attempt) = attempt {
                    self.breakers.merge(attempt, &self.spellings(&answer));
                }
                None
            }
            Some(permit) if answer.status == 401 => permit.rejected("401"),
            _ => None,
        };
        self.accepted(answer, &self.entry.redactor, |status| match &open {
            Some(open) => self.circuit_open(open),
            None => self.problem(status),
        })
    }

    /// An application credential brings its own scope and may not name one.
    fn scope(self, project: &EntityRef) -> Option<Value> {
        let names_scope = !matches!(self.login.identity, Identity::ApplicationCredential { .. });
        names_scope.then(|| json!({ "project": project }))
    }

    /// The domain of the user, where the entry names it.
    fn domain_scope(self) -> Option<Value> {
        match &self.login.identity {
            Identity::Password {
                user: EntityRef::Name { domain, .. },
                ..
            } => Some(json!({ "domain": domain })),
            _ => None,
        }
    }

    /// The attempt as the breaker counts it, if it does.
    fn attempt(self, scope: &str) -> Option<Attempt> {
        let Self { entry, login, .. } = self;
        let identity = LoginIdentity::of_login(&login.identity, login.auth_url.host())?;
        let (secrets, place) = ([login.identity.secret()], entry.described());
        let breakers = self.breakers;
        Some(breakers.attempt(&identity, secrets, scope, self.caller, place, false))
    }

    /// Whether the identity service permits a login now.
    fn check_delay(&self) -> Result<(), LoginError> {
        self.delay.left().map_or(Ok(()), |left| {
            let text = format!("identity service {} permits no login for now", self.host());
            Err(LoginError {
                retry_after: Some(left),
                ..outcome::failed(Stage::Login, FailureKind::Http, text).into()
            })
        })
    }

    async fn post(
        self,
        with_catalog: bool,
        caller: Option<&SecretString>,
        body: Vec<u8>,
        mut attempts: Attempts,
    ) -> Result<Answer, LoginError> {
        let uri = self.login.auth_url.tokens_uri(with_catalog);
        let caller = caller.and_then(|token| http::sensitive(token.expose_secret()));
        let host = self.host();
        self.check_delay()?;
        let route = Route {
            uri: &uri,
            host: &host,
            operation: Operation::Login,
            clients: self.clients,
            body_limit: CATALOG_LIMIT,
            namespace: &self.caller.namespace,
        };
        let answer = self.http.send(route, &mut attempts, || {
            let mut request = http::post(&uri, body.clone());
            let caller = caller.clone().map(|token| (TOKEN_HEADER, token));
            request.headers_mut().extend(caller);
            request
        });
        let who = format!("identity service {host}");
        answer
            .await
            .map_err(|error| error.outcome(Stage::Login, &who).into())
    }

    /// The answer if it grants a token, else its error. Only a throttling code outweighs the status,
    /// which `problem` interprets: gateways send it with any status.
    fn accepted(
        self,
        answer: Answer,
        redactor: &Redactor,
        problem: impl FnOnce(u16) -> Outcome,
    ) -> Result<Answer, LoginError> {
        if is_accepted(answer.status) {
            return Ok(answer);
        }
        let (host, status) = (self.host(), answer.status);
        let body = ErrorBody::parse(status, answer.body.as_deref().unwrap_or_default(), redactor);
        tracing::debug!(
            host = &*host,
            status,
            code = body.code,
            request_id = body.request_id(&answer.headers, redactor),
            "login failed"
        );
        let retry_after = body.retry_after(&answer.headers, status, SystemTime::now());
        let pacing = &self.breakers.pacing;
        if let Some(wanted) = retry_after {
            self.delay.extend(wanted.min(pacing.retry_after_max));
        }
        let outcome = if body.is_throttling(status) {
            self.delay.extend(pacing.login_retry_min);
            let text = format!("identity service {host} limits the rate of logins ({status})");
            outcome::failed(Stage::Login, FailureKind::Http, text)
        } else {
            problem(status)
        };
        Err(LoginError {
            retry_after,
            ..outcome.into()
        })
    }
}

/// Keystone documents 201; some gateways answer 200.
fn is_accepted(status: u16) -> bool {
    matches!(status, 200 | 201)
}
