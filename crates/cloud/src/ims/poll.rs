//! One poll: authorise, query, interpret, and once more with a fresh token if the first is rejected.

use super::{answer, client::Shared, error::Rejection};
use crate::{
    Credential,
    auth::{
        self,
        breaker::Open,
        keystone::{Grant, Keystone},
        signature,
        tokens::{NoToken, Session},
    },
    config::{Auth, CloudEntry, Endpoint, Keys, KeystoneLogin},
    http::{Attempts, NoAnswer, Operation, Route},
    outcome::{self, misconfigured},
    wire::text::Redactor,
};
use http::Method;
use image_export_model::{
    ConfigurationReason, FailureKind, JobId, Observation, Outcome, ProjectId, Stage,
};
use jiff::Timestamp;
use reqwest::{RequestBuilder, header::ACCEPT};
use secrecy::SecretString;
use std::{sync::Arc, time::Duration};
use url::Url;

/// A poll in flight, with what its observation reports beside the outcome.
pub(super) struct Poll<'a> {
    shared: &'a Shared,
    credential: &'a Credential,
    project_id: &'a ProjectId,
    job_id: &'a JobId,
    attempts: Attempts,
    endpoint: Option<Arc<str>>,
    retry_after: Option<Duration>,
    request_id: Option<Arc<str>>,
    logged_in: bool,
}

/// The outcome of one query; an `Err` is a token or signature that was not accepted.
type QueryResult = Result<(Outcome, Accepted), Rejection>;

/// Whether the token or signature of a query was accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepted {
    Unknown,
    /// By whatever server answers.
    Yes,
    /// By the image service for certain.
    ByIms,
}

impl<'a> Poll<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        credential: &'a Credential,
        project_id: &'a ProjectId,
        job_id: &'a JobId,
    ) -> Self {
        Self {
            shared,
            credential,
            project_id,
            job_id,
            attempts: Attempts::new(),
            endpoint: None,
            retry_after: None,
            request_id: None,
            logged_in: false,
        }
    }

    pub(super) async fn run(mut self) -> Observation {
        Observation {
            outcome: self.poll().await,
            retry_after: self.retry_after,
            endpoint: self.endpoint,
            requests: self.attempts.sent,
            signed_in: self.logged_in,
            request_id: self.request_id,
        }
    }

    async fn poll(&mut self) -> Outcome {
        let entry = self.entry();
        // A project that the entry names by id needs no login to be compared.
        if let Err(error) = auth::check_project(entry, None, self.project_id) {
            return Outcome::Misconfigured(error);
        }
        match &entry.auth {
            Auth::Keys { keys, endpoint } => self.with_signature(keys, endpoint).await,
            Auth::Token { token, endpoint } => self.with_given_token(token, endpoint).await,
            Auth::Keystone(login) => self.with_login(login).await,
        }
    }

    fn entry(&self) -> &'a CloudEntry {
        &self.credential.entry
    }

    /// A rejected signature is not repeated: another one would be rejected too, and bring the key nearer
    /// to its lock.
    async fn with_signature(&mut self, keys: &Keys, endpoint: &Endpoint) -> Outcome {
        let (host, breakers) = (endpoint.host(), &self.shared.breakers);
        let attempt = breakers.attempt(&keys.access, keys.secrets(), host, "", true);
        let permit = match breakers.enter(attempt).await {
            Ok(permit) => permit,
            Err(open) => return self.circuit_open(host, &open),
        };
        let project_id = self.project_id;
        let sign = |request: RequestBuilder, url: &Url| {
            match signature::sign(keys, &Method::GET, url, project_id, Timestamp::now()) {
                Some(headers) => request.headers(headers),
                // Unreachable, as keys and ids are checked; the cloud would report the missing signature.
                None => request,
            }
        };
        match self.query(endpoint, &self.entry().redactor, sign).await {
            Ok((outcome, accepted)) => {
                if accepted == Accepted::ByIms {
                    permit.accepted();
                }
                outcome
            }
            Err(rejection) => match permit.rejected(rejection.to_string()) {
                Some(open) => self.circuit_open(host, &open),
                None => misconfigured(
                    ConfigurationReason::CredentialsInvalid,
                    format!(
                        "{host} rejects the signature of {} ({rejection}); check ak, sk and security_token",
                        self.entry().described()
                    ),
                ),
            },
        }
    }

    fn circuit_open(&self, host: &str, open: &Open) -> Outcome {
        let pacing = self.shared.breakers.pacing();
        misconfigured(
            ConfigurationReason::CredentialsInvalid,
            format!(
                "{host} rejected signatures with this access key {} times in a row ({}), with {} or other credentials; to keep the key from being locked, one is tried every {} min; check ak, sk and security_token",
                open.rejections.min(pacing.breaker_rejections),
                open.answer,
                self.entry().described(),
                pacing.breaker_minutes(),
            ),
        )
    }

    async fn with_given_token(&mut self, token: &SecretString, endpoint: &Endpoint) -> Outcome {
        let redactor = self.entry().redactor.clone();
        let grant = Grant::new(token, None, endpoint.clone(), Duration::MAX, redactor);
        let Some(grant) = grant else {
            // Unreachable, as tokens are checked when they are parsed.
            return failed(
                FailureKind::Internal,
                "its token fits into no header".into(),
            );
        };
        match self.query_with(&grant).await {
            Ok((outcome, _)) => outcome,
            Err(rejection) => self.token_rejected(&rejection, false),
        }
    }

    /// A rejected token is replaced once.
    async fn with_login(&mut self, login: &KeystoneLogin) -> Outcome {
        let session = match self.session(login, None).await {
            Ok(session) => session,
            Err(no_token) => return self.without_token(no_token, login, None),
        };
        let rejection = match self.query_in(&session).await {
            Ok(outcome) => return outcome,
            Err(rejection) => rejection,
        };
        let fresh = match self.session(login, Some(&session)).await {
            Ok(fresh) => fresh,
            Err(no_token) => return self.without_token(no_token, login, Some(&rejection)),
        };
        match self.query_in(&fresh).await {
            Ok(outcome) => outcome,
            Err(rejection) => self.token_rejected(&rejection, login.is_renewable()),
        }
    }

    async fn session(
        &mut self,
        login: &KeystoneLogin,
        rejected: Option<&Session>,
    ) -> Result<Arc<Session>, NoToken> {
        let keystone = Keystone {
            http: &self.shared.http,
            clients: self.credential.clients.as_ref(),
            breakers: &self.shared.breakers,
            policy: &self.shared.options.policy,
            entry: self.entry(),
            login,
        };
        auth::session(
            keystone,
            &self.credential.tokens,
            self.project_id,
            rejected,
            &mut self.logged_in,
        )
        .await
    }

    fn without_token(
        &mut self,
        no_token: NoToken,
        login: &KeystoneLogin,
        rejection: Option<&Rejection>,
    ) -> Outcome {
        match (no_token, rejection) {
            (NoToken::Login(error), _) => {
                self.retry_after = error.retry_after;
                error.outcome
            }
            (NoToken::NotReplaced, Some(rejection)) => {
                self.token_rejected(rejection, login.is_renewable())
            }
            (NoToken::NotReplaced, None) => misconfigured(
                ConfigurationReason::CredentialsInvalid,
                format!("{} gives no token", self.entry().described()),
            ),
        }
    }

    /// Queries with the token of a session, and records there that it was accepted.
    async fn query_in(&mut self, session: &Session) -> Result<Outcome, Rejection> {
        let (outcome, accepted) = self.query_with(&session.grant).await?;
        if accepted != Accepted::Unknown {
            session.accept();
        }
        Ok(outcome)
    }

    async fn query_with(&mut self, grant: &Grant) -> QueryResult {
        let authorise =
            |request: RequestBuilder, _: &Url| request.header("x-auth-token", grant.token.clone());
        self.query(&grant.endpoint, &grant.redactor, authorise)
            .await
    }

    /// Sends one query; `authorise` completes each attempt.
    async fn query(
        &mut self,
        endpoint: &Endpoint,
        redactor: &Redactor,
        authorise: impl Fn(RequestBuilder, &Url) -> RequestBuilder,
    ) -> QueryResult {
        let (host, options) = (endpoint.host(), &self.shared.options);
        let path = self.entry().job_path.unwrap_or(options.job_path);
        let url = endpoint.job_url(path, self.project_id, self.job_id);
        let route = Route {
            url: &url,
            operation: Operation::JobQuery,
            clients: self.credential.clients.as_ref(),
            body_limit: options.body_limit,
        };
        let answer = self.shared.http.send(route, &mut self.attempts, |client| {
            let request = client.get(url.clone()).header(ACCEPT, "application/json");
            authorise(request, &url)
        });
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => {
                let text = format!("{host} {error}");
                let outcome = match error {
                    NoAnswer::Failed(kind, _) => failed(kind, text),
                    NoAnswer::NotAllowed(_) => {
                        misconfigured(ConfigurationReason::EndpointNotAllowed, text)
                    }
                };
                return Ok((outcome, Accepted::Unknown));
            }
        };
        self.endpoint = Some(Arc::clone(host));

        let parsed = answer::parse(host, &answer, self.job_id, redactor);
        self.retry_after = parsed.retry_after;
        tracing::debug!(
            host = &**host,
            status = answer.status,
            code = parsed.code,
            request_id = parsed.request_id,
            "job query answered"
        );
        let accepted = match (parsed.is_accepted(), parsed.is_by_ims()) {
            (false, _) => Accepted::Unknown,
            (true, false) => Accepted::Yes,
            (true, true) => Accepted::ByIms,
        };
        self.request_id = parsed.request_id.map(Arc::from);
        Ok((parsed.result?, accepted))
    }

    /// One message whether a fresh token was just rejected too or none was to be had so soon: the
    /// situation is the same.
    fn token_rejected(&self, rejection: &Rejection, renewable: bool) -> Outcome {
        let host = self.endpoint.as_deref().unwrap_or_default();
        let described = self.entry().described();
        let remedy = if renewable {
            "and a fresh one as well; check its region, project and user"
        } else {
            "which was given and cannot be renewed; write a new token"
        };
        misconfigured(
            ConfigurationReason::CredentialsInvalid,
            format!("{host} rejects the token of {described} ({rejection}), {remedy}"),
        )
    }
}

fn failed(kind: FailureKind, message: String) -> Outcome {
    outcome::failed(Stage::Query, kind, message)
}
