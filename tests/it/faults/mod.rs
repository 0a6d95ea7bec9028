//! The catalogue of faults of the cloud side, each under its id: `e…` what HTTP may do, `f…` what
//! answers may say, `g…` what credentials may do, `h4` ids that are none. Where time tells, the
//! operator is watched; everything else is asked of the cloud client alone.

mod credentials;
mod http;
mod ids;
mod meaning;
mod wire;

use crate::harness::{self, PROJECT, TOKEN, cluster, key};
use image_export_cloud::{CloudClient, CloudOptions, Credential, EndpointPolicy, Origin};
use image_export_model::{
    ConfigurationError, ConfigurationReason, Failure, FailureKind, JobAnswer, Observation, Outcome,
    Stage,
};
use k8s_openapi::ByteString;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use testbed::ims::{self, Answer, Simulator, User};

const DOMAIN: &str = "OTC00000000001000000101";
const PASSWORD: &str = "canary-password-77ab";

/// A simulated cloud, and a client for it without a cluster.
struct Lab {
    sim: Simulator,
    client: CloudClient,
}

/// One poll, and how often the cloud was asked for it.
struct Asked {
    seen: Observation,
    times: u64,
}

impl Lab {
    async fn new() -> Self {
        Self::with(options()).await
    }

    /// Where a second is the longest that an answer may take.
    async fn impatient() -> Self {
        let request_timeout = Duration::from_secs(1);
        Self::with(CloudOptions {
            request_timeout,
            ..options()
        })
        .await
    }

    async fn with(options: CloudOptions) -> Self {
        let sim = Simulator::start(ims::Config::default()).expect("a simulator");
        sim.add_token(TOKEN, Some(PROJECT));
        sim.put_user(User::new("ieo", DOMAIN, PASSWORD).project(PROJECT, "eu-de_images"));
        Self {
            sim,
            client: client(options).await,
        }
    }

    /// `127.0.0.1:PORT`.
    fn host(&self) -> String {
        self.sim.url().replace("http://", "")
    }

    /// A token that no login can replace.
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

    /// Polls about a job of this id.
    async fn ask(&self, credential: &Credential, job: &str) -> Asked {
        let before = self.sim.polls(&key(job));
        let seen = self.client.query(credential, PROJECT, job).await;
        let times = self.sim.polls(&key(job)) - before;
        assert_eq!(u64::from(seen.requests), times, "{job}: {seen:?}");
        Asked { seen, times }
    }

    /// Polls once, with the token, about a job that is always answered like this.
    async fn answered(&self, job: &str, answer: Answer) -> Asked {
        self.sim.script_forever(key(job), answer);
        self.ask(&self.given_token(), job).await
    }

    async fn preset(&self, name: &str) -> Asked {
        self.answered(name, Answer::preset(name)).await
    }

    /// The answer is none, and these words say why.
    async fn assert_malformed(&self, job: &str, answer: Answer, words: &str) {
        let (asked, host) = (self.answered(job, answer).await, self.host());
        asked.assert_once(job, &host);
        let message = format!("the answer of {host} {words}");
        assert_eq!(
            asked.seen.outcome,
            failed(FailureKind::Malformed, message),
            "{job}"
        );
    }

    /// The same of a preset.
    async fn assert_malformed_preset(&self, preset: &str, words: &str) {
        self.assert_malformed(preset, Answer::preset(preset), words)
            .await;
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

async fn client(options: CloudOptions) -> CloudClient {
    // A process has one TLS provider, and the harness installs it with its first client.
    harness::client(cluster()).await;
    CloudClient::new(options).expect("a client")
}

fn origin() -> Origin {
    Origin::Secret {
        namespace: "team-a".to_owned(),
        name: "otc".to_owned(),
    }
}

/// Entry `otc` of a clouds.yaml, its fields given as flow-style YAML.
fn credential(client: &CloudClient, fields: &str) -> Result<Credential, ConfigurationError> {
    let yaml = format!("clouds: {{otc: {{{fields}}}}}");
    secret(client, yaml)
}

/// Entry `otc` of a Secret with this clouds.yaml.
fn secret(
    client: &CloudClient,
    yaml: impl Into<Vec<u8>>,
) -> Result<Credential, ConfigurationError> {
    let data = BTreeMap::from([("clouds.yaml".to_owned(), ByteString(yaml.into()))]);
    client.credential(&origin(), Some(&data), "otc")
}

fn given_token(client: &CloudClient, url: &str, token: &str) -> Credential {
    let entry =
        format!("auth_type: token, auth: {{token: {token}}}, image_endpoint_override: '{url}'");
    credential(client, &entry).expect("a usable entry")
}

impl Asked {
    fn answer(&self) -> &JobAnswer {
        match &self.seen.outcome {
            Outcome::Answered(answer) => answer,
            other => panic!("no answer: {other:?}"),
        }
    }

    /// One request, answered, and this came of it.
    fn assert_once(&self, case: &str, host: &str) {
        assert_eq!(self.times, 1, "{case}");
        assert_eq!(self.seen.endpoint.as_deref(), Some(host), "{case}");
        assert!(!self.seen.signed_in, "{case}");
    }
}

fn refused(reason: ConfigurationReason, message: impl Into<Arc<str>>) -> Outcome {
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

fn passing(host: &str, answer: &str) -> Outcome {
    failed(FailureKind::Http, format!("{host} answered {answer}"))
}
