//! One poll: get a token, ask about the job, say what came of it.

use super::{
    CloudOptions, Operation, Origin,
    breaker::{Breakers, Open},
    credential::Credential,
    endpoint::Endpoint,
    error::{self, ErrorBody, Rejection, Verdict},
    http::{Answer, Attempts, Http, NoAnswer},
    job,
    keystone::LoginProblem,
    signature::Keys,
    text::Redactor,
    tokens::{NoToken, Session},
};
use http::Method;
use image_export_model::{
    ConfigurationError, ConfigurationReason, Failure, FailureKind, JobAnswer, Observation, Outcome,
    Stage,
};
use k8s_openapi::{ByteString, jiff::Timestamp};
use reqwest::{RequestBuilder, header::ACCEPT};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use url::Url;

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TLS or the system's root certificates.
    #[error("cannot set up the HTTP client for the cloud; check the system's CA certificates")]
    Http(#[from] reqwest::Error),
}

/// Asks clouds about jobs. Cheap to clone; clones share their connections and their breakers.
#[derive(Clone)]
pub struct CloudClient {
    http: Arc<Http>,
    breakers: Arc<Breakers>,
}

impl CloudClient {
    /// A client without connections yet. The process must have installed its rustls provider.
    pub fn new(options: CloudOptions) -> Result<Self, ClientError> {
        Ok(Self {
            breakers: Arc::new(Breakers::new(options.pacing.clone())),
            http: Arc::new(Http::new(options)?),
        })
    }

    /// [`Credential::parse`] under this client's options.
    pub fn credential(
        &self,
        origin: &Origin,
        data: Option<&BTreeMap<String, ByteString>>,
        cloud: &str,
    ) -> Result<Credential, ConfigurationError> {
        Credential::parse(origin, data, cloud, self.http.options())
    }

    /// Login identities that are kept from trying, as they were rejected too often.
    #[must_use]
    pub fn open_breakers(&self) -> usize {
        self.breakers.open()
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
            breakers: &self.breakers,
            credential,
            project_id,
            job_id,
            attempts: Attempts::new(),
            endpoint: None,
            retry_after: None,
            request_id: None,
            signed_in: AtomicBool::new(false),
        };
        let outcome = poll.run().await;
        Observation {
            outcome,
            retry_after: poll.retry_after,
            endpoint: poll.endpoint,
            requests: poll.attempts.sent,
            signed_in: poll.signed_in.into_inner(),
            request_id: poll.request_id,
        }
    }
}

struct Poll<'a> {
    http: &'a Http,
    breakers: &'a Breakers,
    credential: &'a Credential,
    project_id: &'a str,
    job_id: &'a str,
    attempts: Attempts,
    endpoint: Option<Arc<str>>,
    retry_after: Option<Duration>,
    request_id: Option<Arc<str>>,
    signed_in: AtomicBool,
}

/// What came of asking once.
enum Heard {
    /// The endpoint did not accept the token or signature.
    Rejected(Rejection),
    /// It did, whatever it said about the job. `proven`: in the words of the image service, not of
    /// anything that answers 403 or 404.
    Accepted { outcome: Outcome, proven: bool },
    /// Neither is known.
    Other(Outcome),
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
                ConfigurationReason::RequestRejected,
                format!("{field} is not an id of this cloud"),
            );
        }
        // What the entry names itself needs no login to be compared.
        if let Err(problem) = self.credential.check_project(None, self.project_id) {
            return problem.into();
        }
        match self.credential.keys() {
            Some((keys, endpoint)) => self.by_signature(keys, endpoint).await,
            None => self.by_token().await,
        }
    }

    /// A signature that was not accepted is not repeated: another one would be as wrong, and bring
    /// the key nearer to its lock.
    async fn by_signature(&mut self, keys: &Keys, endpoint: &Endpoint) -> Outcome {
        let breakers = self.breakers;
        let attempt = breakers.attempt(&keys.access, keys.secrets(), endpoint.host(), "", true);
        let permit = match breakers.enter(attempt).await {
            Ok(permit) => permit,
            Err(open) => return self.barred(endpoint, &open),
        };
        let credential = self.credential;
        let redactor = credential.redactor();
        let project_id = self.project_id;
        let sign = |request: RequestBuilder, url: &Url| {
            match keys.sign(&Method::GET, url, project_id, Timestamp::now()) {
                Some(headers) => request.headers(headers),
                // Cannot be: keys and ids were checked. The cloud would say that it is not signed.
                None => request,
            }
        };
        match self.ask(endpoint, redactor, sign).await {
            Heard::Accepted {
                outcome,
                proven: true,
            } => {
                permit.accepted();
                outcome
            }
            Heard::Accepted { outcome, .. } | Heard::Other(outcome) => outcome,
            Heard::Rejected(rejection) => {
                let answer = rejection.to_string();
                match permit.rejected(answer.as_str()) {
                    Some(open) => self.barred(endpoint, &open),
                    None => refused(
                        ConfigurationReason::CredentialsInvalid,
                        format!(
                            "{} rejects the signature of {} ({answer}); check ak, sk and security_token",
                            endpoint.host(),
                            self.credential.described()
                        ),
                    ),
                }
            }
        }
    }

    fn barred(&self, endpoint: &Endpoint, open: &Open) -> Outcome {
        let pacing = &self.http.options().pacing;
        refused(
            ConfigurationReason::CredentialsInvalid,
            format!(
                "{} rejected signatures with this access key {} times in a row ({}), with {} or another Secret; to keep the key from being locked, one is tried every {} min; check ak, sk and security_token",
                endpoint.host(),
                open.rejections.min(pacing.breaker_rejections),
                open.answer,
                self.credential.described(),
                pacing.breaker_minutes(),
            ),
        )
    }

    async fn by_token(&mut self) -> Outcome {
        let session = match self.session(None).await {
            Ok(session) => session,
            Err(no_token) => return self.without_token(no_token, None),
        };
        let rejection = match self.ask_with(&session).await {
            Ok(outcome) => return outcome,
            Err(rejection) => rejection,
        };
        let fresh = match self.session(Some(&session)).await {
            Ok(fresh) => fresh,
            Err(no_token) => return self.without_token(no_token, Some(&rejection)),
        };
        match self.ask_with(&fresh).await {
            Ok(outcome) => outcome,
            Err(rejection) => self.rejected(&rejection),
        }
    }

    async fn session(&mut self, rejected: Option<&Session>) -> Result<Arc<Session>, NoToken> {
        let session = self
            .credential
            .session(
                self.http,
                self.breakers,
                self.project_id,
                rejected,
                &self.signed_in,
            )
            .await?;
        self.credential
            .check_project(session.grant.project_id.as_deref(), self.project_id)
            .map_err(|problem| NoToken::Trouble(problem.into()))?;
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
                ConfigurationReason::CredentialsInvalid,
                format!("{} gives no token", self.credential.described()),
            )
            .into(),
        }
    }

    /// Asks once with a token; an `Err` is one that was not accepted.
    async fn ask_with(&mut self, session: &Session) -> Result<Outcome, Rejection> {
        let grant = &session.grant;
        let heard = self
            .ask(&grant.endpoint, &grant.redactor, |request, _| {
                request.header("x-auth-token", grant.token.clone())
            })
            .await;
        match heard {
            Heard::Rejected(rejection) => Err(rejection),
            Heard::Accepted { outcome, .. } => {
                session.accept();
                Ok(outcome)
            }
            Heard::Other(outcome) => Ok(outcome),
        }
    }

    /// Asks once; `authorise` is called for each attempt.
    async fn ask(
        &mut self,
        endpoint: &Endpoint,
        redactor: &Redactor,
        authorise: impl Fn(RequestBuilder, &Url) -> RequestBuilder,
    ) -> Heard {
        let host = endpoint.host();
        let options = self.http.options();
        let path = self.credential.job_path(options.job_path);
        let url = endpoint.job_url(path, self.project_id, self.job_id);
        let answer = self
            .http
            .send(
                self.credential.clients(),
                endpoint,
                Operation::JobQuery,
                &mut self.attempts,
                options.body_limit,
                |client| {
                    let request = client.get(url.clone()).header(ACCEPT, "application/json");
                    authorise(request, &url)
                },
            )
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let text = format!("{host} {error}");
                return Heard::Other(match error {
                    NoAnswer::Failed(kind, _) => failed(kind, text),
                    NoAnswer::NotAllowed(_) => {
                        refused(ConfigurationReason::EndpointNotAllowed, text)
                    }
                });
            }
        };
        self.endpoint = Some(Arc::clone(host));

        let read = read(host, &answer, self.job_id, redactor);
        self.retry_after = read.retry_after;
        tracing::debug!(
            host = &**host,
            status = answer.status,
            code = read.code,
            request_id = read.request_id,
            "job query answered"
        );
        self.request_id = read.request_id.map(Arc::from);
        let proven = read
            .code
            .as_ref()
            .is_some_and(|code| code.starts_with("IMG."));
        match read.result {
            Ok(job) => Heard::Accepted {
                outcome: Outcome::Answered(Box::new(job)),
                proven: true,
            },
            Err(Verdict::JobNotFound) => Heard::Accepted {
                outcome: Outcome::JobNotFound,
                proven,
            },
            Err(Verdict::Throttled) => Heard::Other(Outcome::Throttled),
            Err(Verdict::Rejected(rejection)) => Heard::Rejected(rejection),
            Err(Verdict::Refused(reason @ ConfigurationReason::AccessDenied, message)) => {
                Heard::Accepted {
                    outcome: refused(reason, message),
                    proven,
                }
            }
            Err(Verdict::Refused(reason, message)) => Heard::Other(refused(reason, message)),
            Err(Verdict::Failed(kind, message)) => Heard::Other(failed(kind, message)),
        }
    }

    /// The same words whether a fresh token was just rejected too or none was to be had again so
    /// soon: the situation is the same.
    fn rejected(&self, rejection: &Rejection) -> Outcome {
        let host = self.endpoint.as_deref().unwrap_or_default();
        let described = self.credential.described();
        let mend = if self.credential.is_renewable() {
            "and a fresh one as well; check its region, project and user"
        } else {
            "which was given and cannot be renewed; write a new token"
        };
        refused(
            ConfigurationReason::CredentialsInvalid,
            format!("{host} rejects the token of {described} ({rejection}), {mend}"),
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
pub(super) fn read(host: &str, answer: &Answer, job_id: &str, redactor: &Redactor) -> Read {
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
    // A signature or password that was not accepted has been counted, whatever became of the body.
    matches!(status, 401 | 429)
        || status >= 500
        || (300..400).contains(&status)
        || broken == FailureKind::Malformed
}

fn refused(reason: ConfigurationReason, message: String) -> Outcome {
    Outcome::Misconfigured(ConfigurationError {
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
