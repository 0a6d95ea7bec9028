//! One poll: get a token, ask about the job, say what came of it.

use super::{
    CloudOptions,
    credential::Credential,
    error::{self, ErrorBody, Rejection, Verdict},
    http::{Answer, Attempts, Http},
    job,
    keystone::LoginProblem,
    tokens::{NoToken, Session},
};
use crate::observation::{
    Failure, FailureKind, JobAnswer, Observation, Outcome, Refusal, RefusalReason, Stage,
};
use k8s_openapi::jiff::Timestamp;
use reqwest::header::ACCEPT;
use std::{sync::Arc, time::Duration};

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TLS or the system's root certificates.
    #[error("cannot set up the HTTP client for the cloud; check the system's CA certificates")]
    Http(#[from] reqwest::Error),
}

/// Asks clouds about jobs. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct CloudClient {
    http: Arc<Http>,
}

impl CloudClient {
    /// A client without connections yet. The process must have installed its rustls provider.
    pub fn new(options: CloudOptions) -> Result<Self, ClientError> {
        Ok(Self {
            http: Arc::new(Http::new(options)?),
        })
    }

    /// One poll in, one observation out: signs in if need be, then asks about the job. It takes
    /// at most one re-authentication and one fresh connection on the way, and never fails other
    /// than by the observation. Only the query endpoint counts as `endpoint`: a login that fails
    /// leaves it `None`.
    pub async fn query(
        &self,
        credential: &Credential,
        project_id: &str,
        job_id: &str,
    ) -> Observation {
        let mut poll = Poll {
            http: &self.http,
            credential,
            project_id,
            job_id,
            attempts: Attempts::new(),
            endpoint: None,
            retry_after: None,
        };
        let outcome = poll.run().await;
        Observation {
            outcome,
            retry_after: poll.retry_after,
            endpoint: poll.endpoint,
            requests: poll.attempts.sent,
        }
    }
}

struct Poll<'a> {
    http: &'a Http,
    credential: &'a Credential,
    project_id: &'a str,
    job_id: &'a str,
    attempts: Attempts,
    endpoint: Option<Arc<str>>,
    retry_after: Option<Duration>,
}

impl Poll<'_> {
    async fn run(&mut self) -> Outcome {
        // The CRD's schema refuses such ids; one from an older schema must not shape a URL either.
        if let Some((field, _)) = [
            ("spec.projectID", self.project_id),
            ("spec.jobID", self.job_id),
        ]
        .into_iter()
        .find(|(_, id)| !job::is_id(id))
        {
            return refused(
                RefusalReason::RequestRejected,
                format!("{field} is not an id of this cloud"),
            );
        }
        // What the entry names itself needs no login to be compared.
        if let Err(problem) = self.credential.check_project(None, self.project_id) {
            return problem.into();
        }
        let session = match self.session(None).await {
            Ok(session) => session,
            Err(no_token) => return self.without_token(no_token, None),
        };
        let rejection = match self.ask(&session).await {
            Ok(outcome) => return outcome,
            Err(rejection) => rejection,
        };
        let fresh = match self.session(Some(&session)).await {
            Ok(fresh) => fresh,
            Err(no_token) => return self.without_token(no_token, Some(&rejection)),
        };
        match self.ask(&fresh).await {
            Ok(outcome) => outcome,
            Err(rejection) => self.rejected(&rejection),
        }
    }

    async fn session(&mut self, rejected: Option<&Session>) -> Result<Arc<Session>, NoToken> {
        let session = self
            .credential
            .session(self.http, self.project_id, rejected)
            .await?;
        self.credential
            .check_project(session.grant.project_id.as_deref(), self.project_id)
            .map_err(|problem| {
                NoToken::Trouble(super::keystone::LoginTrouble {
                    problem,
                    retry_after: None,
                })
            })?;
        Ok(session)
    }

    fn without_token(&mut self, no_token: NoToken, rejection: Option<&Rejection>) -> Outcome {
        match (no_token, rejection) {
            (NoToken::Trouble(trouble), _) => {
                self.retry_after = trouble.retry_after;
                trouble.problem.into()
            }
            (NoToken::NoFreshOne, Some(rejection)) => self.rejected(rejection),
            (NoToken::NoFreshOne, None) => LoginProblem::refused(
                RefusalReason::CredentialsInvalid,
                format!("{} gives no token", self.credential.described()),
            )
            .into(),
        }
    }

    /// Asks once; an `Err` is a token that was not accepted.
    async fn ask(&mut self, session: &Session) -> Result<Outcome, Rejection> {
        let grant = &session.grant;
        let host = grant.endpoint.host();
        let url = grant.endpoint.job_url(self.project_id, self.job_id);
        let limit = self.http.options().body_limit;
        let answer = self
            .http
            .send(&grant.endpoint, &mut self.attempts, limit, |client| {
                client
                    .get(url.clone())
                    .header("x-auth-token", grant.token.clone())
                    .header(ACCEPT, "application/json")
            })
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Ok(failed(error.kind, format!("{host} {error}"))),
        };
        self.endpoint = Some(Arc::clone(host));

        let read = read(host, &answer, self.job_id, session);
        self.retry_after = read.retry_after;
        tracing::debug!(
            host = &**host,
            status = answer.status,
            code = read.code,
            request_id = read.request_id,
            "job query answered"
        );
        match read.result {
            Ok(job) => {
                session.accept();
                Ok(Outcome::Answered(Box::new(job)))
            }
            Err(Verdict::JobNotFound) => {
                session.accept();
                Ok(Outcome::JobNotFound)
            }
            Err(Verdict::Throttled) => Ok(Outcome::Throttled),
            Err(Verdict::TokenRejected(rejection)) => Err(rejection),
            Err(Verdict::Refused(reason, message)) => Ok(refused(reason, message)),
            Err(Verdict::Failed(kind, message)) => Ok(failed(kind, message)),
        }
    }

    /// The same words whether a fresh token was just rejected too or none was to be had again so
    /// soon: the situation is the same.
    fn rejected(&self, rejection: &Rejection) -> Outcome {
        let host = self.endpoint.as_deref().unwrap_or_default();
        let cause = rejection
            .cause
            .map_or_else(String::new, |cause| format!(": {cause}"));
        let answer = &rejection.answer;
        let described = self.credential.described();
        let mend = if self.credential.is_renewable() {
            "and a fresh one as well; check its region, project and user"
        } else {
            "which was given and cannot be renewed; write a new token"
        };
        refused(
            RefusalReason::CredentialsInvalid,
            format!("{host} rejects the token of {described} ({answer}{cause}), {mend}"),
        )
    }
}

/// An answer, understood.
pub(super) struct Read {
    pub(super) result: Result<JobAnswer, Verdict>,
    pub(super) retry_after: Option<Duration>,
    code: Option<String>,
    request_id: Option<String>,
}

/// What `answer` to a query for `job_id` says. Pure but for the clock that a `Retry-After` date
/// without a `Date` is compared with.
pub(super) fn read(host: &str, answer: &Answer, job_id: &str, session: &Session) -> Read {
    let redactor = &session.grant.redactor;
    let body = answer.body.as_deref().unwrap_or_default();
    let job = match &answer.body {
        Ok(body) if answer.status == 200 => Some(job::parse(body, job_id, redactor)),
        _ => None,
    };
    let error = match &job {
        Some(Ok(_)) => ErrorBody::default(),
        _ => ErrorBody::parse(answer.status, body, redactor),
    };
    let result = match (job, &answer.body) {
        (Some(Ok(job)), _) => Ok(job),
        (Some(Err(_)), _) if error.is_throttling(answer.status) => Err(Verdict::Throttled),
        (Some(Err(why)), _) => Err(Verdict::Failed(
            FailureKind::Malformed,
            format!("the answer of {host} {why}"),
        )),
        // An error whose body cannot be read might be any of its status; the two that need no
        // code to be told, and a body that is merely too long to be one of ours, still count.
        (None, Err(broken))
            if answer.status == 200 || !is_told_by_status(answer.status, broken.kind()) =>
        {
            Err(Verdict::Failed(
                broken.kind(),
                format!("the answer of {host} {broken}"),
            ))
        }
        (None, _) => Err(error::classify(host, answer.status, &error)),
    };
    Read {
        result,
        retry_after: error::stay_away(&answer.headers, answer.status, &error, Timestamp::now()),
        code: error.code.clone(),
        request_id: error::request_id(&answer.headers, &error, redactor),
    }
}

/// Whether a status means the same whatever its body would have said.
fn is_told_by_status(status: u16, broken: FailureKind) -> bool {
    status == 429
        || status >= 500
        || (300..400).contains(&status)
        || broken == FailureKind::Malformed
}

fn refused(reason: RefusalReason, message: String) -> Outcome {
    Outcome::Refused(Refusal {
        reason,
        message: message.into(),
    })
}

fn failed(kind: FailureKind, message: String) -> Outcome {
    Outcome::Failed(Failure {
        kind,
        stage: Stage::Query,
        message: message.into(),
    })
}
