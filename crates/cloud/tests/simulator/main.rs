//! The client against the simulator of `testbed`, which behaves like a cloud: what happens to tokens,
//! and what may become of an answer on its way. What each error and each answer means is tested beside
//! the code (`src/tests`), as are TLS and HTTP/2: the simulator speaks plain HTTP/1.1.

mod login;
mod wire;

use image_export_cloud::{
    CloudClient, CloudOptions, CloudsFile, Credential, EndpointPolicy, Place,
};
use image_export_model::{
    Caller, ConfigurationError, ConfigurationReason, Failure, FailureKind, JobAnswer, Observation,
    Outcome, Stage,
};
use std::{sync::Arc, time::Duration};
use testbed::ims::{self, Answer, Job, JobKey, Simulator, User};

const PROJECT: &str = "ac234de25c6741d2b1273da49eea1b9e";
const TOKEN: &str = "canary-token-5d1f8c";
const DOMAIN: &str = "OTC00000000001000000101";
const PASSWORD: &str = "canary-password-77ab";
/// How messages name the credentials of these tests.
const ME: &str = "cloud \"otc\" in Secret team-a/otc";

/// A simulated cloud, and a client for it.
struct Lab {
    sim: Simulator,
    client: CloudClient,
}

/// One poll, and the number of queries that arrived for it.
struct Polled {
    observation: Observation,
    queries: u64,
}

impl Lab {
    fn new() -> Self {
        Self::with(options())
    }

    /// With a request time-out of 3 s.
    fn impatient() -> Self {
        Self::with(CloudOptions {
            request_timeout: Duration::from_secs(3),
            ..options()
        })
    }

    fn with(options: CloudOptions) -> Self {
        // The process has one provider; the first test installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sim = Simulator::start(ims::Config::default()).expect("a simulator");
        sim.add_token(TOKEN, Some(PROJECT));
        sim.put_user(User::new("ieo", DOMAIN, PASSWORD).project(PROJECT, "eu-de_images"));
        let client = CloudClient::new(options).expect("a client");
        Self { sim, client }
    }

    /// `127.0.0.1:PORT`.
    fn host(&self) -> String {
        self.sim.url().replace("http://", "")
    }

    /// A token that the user gives; no login replaces it.
    fn given_token(&self) -> Credential {
        given_token(&self.client, &self.sim.url(), TOKEN)
    }

    /// A user with a password, whose token comes from a login.
    fn password(&self) -> Credential {
        let url = self.sim.url();
        let auth = format!(
            "auth_url: {url}/v3, username: ieo, password: {PASSWORD}, user_domain_name: {DOMAIN}"
        );
        let entry = format!("auth: {{{auth}}}, image_endpoint_override: {url}");
        credential(&self.client, &entry).expect("a usable entry")
    }

    /// Polls a job of this id.
    async fn poll(&self, credential: &Credential, job: &str) -> Polled {
        let before = self.sim.polls(&key(job));
        let observation = query(&self.client, credential, PROJECT, job).await;
        let queries = self.sim.polls(&key(job)) - before;
        assert_eq!(
            u64::from(observation.requests),
            queries,
            "{job}: {observation:?}"
        );
        Polled {
            observation,
            queries,
        }
    }

    /// Polls a job that is always answered like this, once, with the given token.
    async fn poll_answered(&self, job: &str, answer: Answer) -> Polled {
        self.sim.script_forever(key(job), answer);
        self.poll(&self.given_token(), job).await
    }

    async fn poll_preset(&self, name: &str) -> Polled {
        self.poll_answered(name, Answer::preset(name)).await
    }
}

fn options() -> CloudOptions {
    let policy = EndpointPolicy {
        allow_http: true,
        ..EndpointPolicy::default()
    };
    CloudOptions {
        policy: Arc::new(policy),
        ..CloudOptions::default()
    }
}

fn key(job: &str) -> JobKey {
    JobKey::new(PROJECT, job)
}

/// A job that does not end.
fn running(job: &str) -> Job {
    Job::new(PROJECT, job).ends(ims::End::Never)
}

async fn query(
    client: &CloudClient,
    credential: &Credential,
    project: &str,
    job: &str,
) -> Observation {
    let (project, job) = (project.parse().expect("an id"), job.parse().expect("an id"));
    let caller = Caller::default();
    client.query(credential, &project, &job, &caller).await
}

/// Entry `otc` of a clouds.yaml, its fields given as flow-style YAML.
fn credential(client: &CloudClient, fields: &str) -> Result<Credential, ConfigurationError> {
    let yaml = format!("clouds: {{otc: {{{fields}}}}}");
    let file = CloudsFile {
        place: &Place::KeyOf("Secret team-a/otc".to_owned()),
        clouds_yaml: Some(yaml.as_bytes()),
        cacert: None,
    };
    client.credential(&file, "otc")
}

fn given_token(client: &CloudClient, url: &str, token: &str) -> Credential {
    let entry =
        format!("auth_type: token, auth: {{token: {token}}}, image_endpoint_override: '{url}'");
    credential(client, &entry).expect("a usable entry")
}

impl Polled {
    fn answer(&self) -> &JobAnswer {
        match &self.observation.outcome {
            Outcome::Answered(answer) => answer,
            other => panic!("no answer: {other:?}"),
        }
    }

    /// One query that was answered, and no login.
    fn assert_once(&self, case: &str, host: &str) {
        assert_eq!(self.queries, 1, "{case}");
        assert_eq!(self.observation.endpoint.as_deref(), Some(host), "{case}");
        assert!(!self.observation.signed_in, "{case}");
    }
}

fn misconfigured(reason: ConfigurationReason, message: impl Into<Arc<str>>) -> Outcome {
    Outcome::Misconfigured(ConfigurationError {
        reason,
        message: message.into(),
    })
}

fn failed(kind: FailureKind, message: impl Into<Arc<str>>) -> Outcome {
    Outcome::Failed(Failure {
        kind,
        stage: Stage::Query,
        message: message.into(),
    })
}
