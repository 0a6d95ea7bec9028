//! One poll: authorise, query, interpret, and once more with a fresh token if the first is rejected.

use super::{
    answer::{self, ParsedAnswer},
    error::Rejection,
};
use crate::{
    Credential,
    auth::{
        breaker::{Breakers, LoginIdentity, Open, Stopped},
        keystone::{Grant, Keystone},
        signature,
        token_memory::TokenMemory,
        tokens::{NoToken, Session, Slot},
    },
    config::{Auth, CloudEntry, Endpoint, Identity, JobPath, Keys, KeystoneLogin},
    http::{Attempts, Http, NoAnswer, Operation, Request, Route, TOKEN_HEADER, get},
    outcome::{failed, misconfigured},
    wire::text::Redactor,
};
use http::Method;
use image_export_model::{
    Caller, ConfigurationReason::CredentialsInvalid, FailureKind, JobId, Observation, Outcome,
    ProjectId, Stage,
};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};

/// What all polls of a client share.
pub(super) struct Shared {
    pub(super) http: Http,
    pub(super) breakers: Breakers,
    pub(super) tokens: TokenMemory,
}

/// A poll in flight, with what its observation reports beside the outcome.
struct Poll<'a> {
    shared: &'a Shared,
    credential: &'a Credential,
    project_id: &'a ProjectId,
    job_id: &'a JobId,
    caller: &'a Caller,
    attempts: Attempts,
    endpoint: Option<Arc<str>>,
    queried: Option<Arc<str>>,
    identity: Option<Arc<str>>,
    retry_after: Option<Duration>,
    request_id: Option<Arc<str>>,
    logged_in: bool,
    proves_project: bool,
}

/// [`crate::CloudClient::query`].
pub(super) async fn run(
    shared: &Shared,
    credential: &Credential,
    project_id: &ProjectId,
    job_id: &JobId,
    caller: &Caller,
) -> Observation {
    let mut poll = Poll {
        shared,
        credential,
        project_id,
        job_id,
        caller,
        attempts: Attempts::default(),
        endpoint: None,
        queried: None,
        identity: None,
        retry_after: None,
        request_id: None,
        logged_in: false,
        proves_project: false,
    };
    Observation {
        outcome: poll.outcome().await,
        retry_after: poll.retry_after,
        endpoint: poll.endpoint,
        queried: poll.queried,
        identity: poll.identity,
        requests: poll.attempts.sent,
        signed_in: poll.logged_in,
        proves_project: poll.proves_project,
        request_id: poll.request_id,
    }
}

impl<'a> Poll<'a> {
    async fn outcome(&mut self) -> Outcome {
        let entry = self.entry();
        // A project that the entry names by id needs no login to be compared.
        if let Some(error) = self.other_project(None, &entry.redactor) {
            return error;
        }
        // An error is the outcome of a poll that ends early.
        let outcome = match &entry.auth {
            Auth::Keys { keys, endpoint } => self.with_signature(keys, endpoint).await,
            Auth::Token { .. } => self.with_given_token().await,
            Auth::Keystone(login) => self.with_login(login).await,
        };
        outcome.unwrap_or_else(|outcome| outcome)
    }

    fn entry(&self) -> &'a CloudEntry {
        &self.credential.entry
    }

    /// The error of a token for another project, as it shows the jobs of that project. The project is
    /// the one that the entry names by id, else the one that the login `granted`.
    fn other_project(&self, granted: Option<&str>, redactor: &Redactor) -> Option<Outcome> {
        let (entry, project_id) = (self.entry(), self.project_id);
        let other = entry.project_id().or(granted)?;
        if other == project_id.as_str() {
            return None;
        }
        let other = redactor.clean_chars(other, 64).unwrap_or_default();
        Some(misconfigured(
            CredentialsInvalid,
            format!(
                "{} signs in to project {other}, but spec.projectID is {project_id}",
                entry.described()
            ),
        ))
    }

    /// A rejected signature is not repeated: another one would be rejected too, and bring the key nearer
    /// to its lock.
    async fn with_signature(
        &mut self,
        keys: &Keys,
        endpoint: &Endpoint,
    ) -> Result<Outcome, Outcome> {
        let (entry, breakers) = (self.entry(), &self.shared.breakers);
        let host = self.credential.signed_host.clone();
        let host = host.unwrap_or_else(|| endpoint.shown_host(&entry.redactor));
        let described = entry.described();
        let rejected = |answer: &str| {
            misconfigured(
                CredentialsInvalid,
                format!(
                    "{host} rejects the signature of {described} ({answer}); check ak, sk and security_token"
                ),
            )
        };
        let circuit_open = |open: &Open| {
            // The answer may be one to another credential.
            let answer = entry.redactor.clean(&open.answer).unwrap_or_default();
            let rejections = open.rejections;
            if rejections == 0 {
                return rejected(&answer);
            }
            let minutes = breakers.pacing.breaker_minutes();
            misconfigured(
                CredentialsInvalid,
                format!(
                    "{host} rejected signatures with this access key {rejections} times in a row ({answer}), with {described} or other credentials; to keep the key from being locked, one is tried every {minutes} min; check ak, sk and security_token"
                ),
            )
        };
        let identity = LoginIdentity::of_keys(keys, endpoint.host());
        let secrets = keys.secrets();
        let scope = self.project_id.as_str();
        let attempt = breakers.attempt(&identity, secrets, scope, self.caller, &described, true);
        let permit = breakers.enter(attempt).map_err(|stopped| match stopped {
            Stopped::Deferred(after) => Outcome::Deferred(after),
            Stopped::Open(open) => circuit_open(&open),
        })?;
        self.attempts.no_repetition = !permit.may_repeat;
        let project_id = self.project_id;
        let sign = |request: &mut Request| {
            let (uri, now) = (request.uri(), Timestamp::now());
            let signed = signature::sign(keys, &Method::GET, uri, project_id, now);
            // Always there, as keys and ids are checked; the cloud would report a missing signature.
            request.headers_mut().extend(signed.unwrap_or_default());
        };
        let answer = self.query(endpoint, &host, &entry.redactor, sign).await?;
        let is_by_ims = answer.is_by_ims();
        let accepted = answer.is_accepted() && is_by_ims;
        match answer.result {
            Ok(outcome) => {
                if accepted {
                    permit.accepted();
                }
                Ok(outcome)
            }
            // The gateway, which checks signatures, has let it through: what does not fit is the project.
            Err(rejection) if is_by_ims => Err(misconfigured(
                CredentialsInvalid,
                format!(
                    "{host} rejects {described} for this project ({rejection}); check projectID"
                ),
            )),
            Err(rejection) => Err(match permit.rejected(rejection.to_string()) {
                Some(open) => circuit_open(&open),
                None => rejected(&rejection.to_string()),
            }),
        }
    }

    async fn with_given_token(&mut self) -> Result<Outcome, Outcome> {
        let grant = self.credential.given.as_ref().ok_or_else(|| {
            // Unreachable, as tokens are checked when they are parsed.
            let message = "its token fits into no header".to_owned();
            failed(Stage::Query, FailureKind::Internal, message)
        })?;
        let answer = self.query_with(grant).await?;
        answer
            .result
            .map_err(|rejection| self.token_rejected(&rejection, false))
    }

    /// A rejected token is replaced once.
    async fn with_login(&mut self, login: &KeystoneLogin) -> Result<Outcome, Outcome> {
        let slot = self.slot(login);
        let session = self.session(login, &slot, None).await?;
        let rejection = match self.query_in(login, &slot, &session).await? {
            Ok(outcome) => return Ok(outcome),
            Err(rejection) => rejection,
        };
        let rejected = Some((&session, &rejection));
        let fresh = self.session(login, &slot, rejected).await?;
        let result = self.query_in(login, &slot, &fresh).await?;
        result.map_err(|rejection| {
            slot.reject_fresh(&self.shared.breakers.pacing, &fresh, self.job_id);
            self.token_rejected(&rejection, login.is_renewable())
        })
    }

    /// Where the tokens for this job are kept.
    fn slot(&self, login: &KeystoneLogin) -> Arc<Slot> {
        let names_own_scope = self.entry().project.is_some()
            || login.agency.is_none()
                && matches!(login.identity, Identity::ApplicationCredential { .. });
        let scope = (!names_own_scope).then_some(self.project_id);
        self.credential.tokens.slot(scope)
    }

    /// A token other than the rejected one, from the credential's or by a login.
    async fn session(
        &mut self,
        login: &KeystoneLogin,
        slot: &Slot,
        rejected: Option<(&Arc<Session>, &Rejection)>,
    ) -> Result<Arc<Session>, Outcome> {
        let (entry, shared, project_id) = (self.entry(), self.shared, self.project_id);
        let keystone = Keystone {
            http: &shared.http,
            clients: self.credential.clients.as_ref(),
            breakers: &shared.breakers,
            entry,
            login,
            delay: &self.credential.tokens.delay,
            caller: self.caller,
        };
        let mut has_token = false;
        let (logged_in, answered) = (&mut self.logged_in, &mut has_token);
        let (tokens, namespace) = (&self.credential.tokens, &self.caller.namespace);
        let log_in = || async move {
            // Polls are moved about, and few log in.
            let result = Box::pin(keystone.log_in(project_id)).await;
            *logged_in = !matches!(&result, Err(error) if error.is_deferred());
            *answered = result.is_ok();
            let count = |grant| tokens.count(&shared.tokens, namespace, grant);
            result.map(count)
        };
        let (pacing, renewable) = (&shared.breakers.pacing, login.is_renewable());
        let old = rejected.map(|(session, _)| (session, self.job_id));
        let session = slot.session(pacing, old, renewable, log_in).await;
        let is_deferred = match &session {
            Err(NoToken::Login(error)) => error.is_deferred(),
            Err(NoToken::LoginUnderWay) => true,
            Err(NoToken::NotReplaced) | Ok(_) => false,
        };
        // Where a login failed and the old token goes on, this poll shows nothing of the identity service.
        if has_token || session.is_err() && !is_deferred {
            self.identity = Some(login.auth_url.key().clone());
        }
        match session {
            Ok(session) => {
                let grant = &session.grant;
                match self.other_project(grant.project_id.as_deref(), &grant.redactor) {
                    None => Ok(session),
                    Some(error) => Err(self.ended_at_login(error, None)),
                }
            }
            Err(NoToken::Login(error)) => {
                Err(self.ended_at_login(error.outcome, error.retry_after))
            }
            Err(NoToken::LoginUnderWay) => {
                Err(self.ended_at_login(Outcome::Deferred(pacing.login_deferral), None))
            }
            Err(NoToken::NotReplaced) => Err(match rejected {
                Some((_, rejection)) => self.token_rejected(rejection, renewable),
                None => misconfigured(
                    CredentialsInvalid,
                    format!("{} gives no token", entry.described()),
                ),
            }),
        }
    }

    /// The outcome of a poll that ends at the identity service, whose `Retry-After` is not one of the image
    /// service, even if that rejected a token before.
    fn ended_at_login(&mut self, outcome: Outcome, retry_after: Option<Duration>) -> Outcome {
        self.endpoint = None;
        self.retry_after = retry_after;
        outcome
    }

    /// Queries with the token of a session, and records that it was accepted.
    async fn query_in(
        &mut self,
        login: &KeystoneLogin,
        slot: &Slot,
        session: &Session,
    ) -> Result<Result<Outcome, Rejection>, Outcome> {
        let answer = self.query_with(&session.grant).await?;
        if answer.is_accepted() {
            slot.accept(session, self.job_id);
        }
        let grant = &session.grant;
        let names_project = grant.project_id.as_deref() == Some(self.project_id.as_str())
            && grant.endpoint.is_of_cloud(&login.auth_url);
        let is_proof = matches!(
            answer.result,
            Ok(Outcome::Answered(_) | Outcome::JobNotFound)
        );
        self.proves_project |= names_project && is_proof;
        Ok(answer.result)
    }

    async fn query_with(&mut self, grant: &Grant) -> Result<ParsedAnswer, Outcome> {
        let authorise = |request: &mut Request| {
            let token = grant.token.clone();
            request.headers_mut().insert(TOKEN_HEADER, token);
        };
        let Grant { endpoint, host, .. } = grant;
        self.query(endpoint, host, &grant.redactor, authorise).await
    }

    /// Sends one query; `authorise` completes each attempt. An error where there is no answer. `host` names the
    /// endpoint in messages.
    async fn query(
        &mut self,
        endpoint: &Endpoint,
        host: &Arc<str>,
        redactor: &Redactor,
        authorise: impl Fn(&mut Request),
    ) -> Result<ParsedAnswer, Outcome> {
        let http = &self.shared.http;
        let path = self.entry().job_path.unwrap_or(http.options.job_path);
        let uri = endpoint.job_uri(path, self.project_id, self.job_id);
        self.queried = Some(endpoint.key().clone());
        let route = Route {
            uri: &uri,
            host,
            operation: Operation::JobQuery,
            clients: self.credential.clients.as_ref(),
            body_limit: http.options.body_limit,
            namespace: &self.caller.namespace,
        };
        let answer = http.send(route, &mut self.attempts, || {
            let mut request = get(&uri);
            authorise(&mut request);
            request
        });
        let answer = answer.await.map_err(|error| match error {
            NoAnswer::Unresolved if endpoint.is_derived() => failed(
                Stage::Query,
                FailureKind::Network,
                format!(
                    "{host} {error}; it follows from the region: correct that, or set image_endpoint_override"
                ),
            ),
            error => error.outcome(Stage::Query, host),
        })?;
        self.endpoint = Some(host.clone());

        let parsed = answer::parse(host, &answer, self.job_id, redactor);
        self.proves_project |=
            path == JobPath::V1Jobs && matches!(parsed.result, Ok(Outcome::Answered(_)));
        self.retry_after = parsed.retry_after;
        self.request_id = parsed.request_id.as_deref().map(Arc::from);
        tracing::debug!(
            host = &**host,
            status = answer.status,
            code = parsed.code,
            request_id = parsed.request_id,
            "job query answered"
        );
        Ok(parsed)
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
            CredentialsInvalid,
            format!("{host} rejects the token of {described} ({rejection}), {remedy}"),
        )
    }
}
