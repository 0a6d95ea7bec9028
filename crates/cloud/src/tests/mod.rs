//! What this crate promises, by topic. `error_table` is the one home of what each error of the cloud
//! means; `fake_cloud` is a server of two endpoints that shows requests as they arrive.

mod auth;
mod bounds;
mod clouds_yaml;
mod clouds_yaml_readings;
mod corpus;
mod error_table;
mod fake_cloud;
mod job;
mod job_parts;
mod login;
mod login_pacing;
mod login_secrets;
mod proxies;
mod tls;
mod transport;

use crate::{
    CloudOptions, CloudsFile, Credential, EndpointPolicy, Place,
    auth::keystone::Grant,
    config::{CloudEntry, Endpoint},
    wire::text::Redactor,
};
use image_export_model::{ConfigurationError, Observation, Outcome};
use secrecy::SecretString;
use std::{sync::Arc, time::Duration};

/// Stands wherever a secret stands; it must come out nowhere.
pub(super) const CANARY: &str = "canary-7f3a";

/// The error of a poll that was not possible. It names no secret.
fn error_of(observation: &Observation) -> &ConfigurationError {
    let Outcome::Misconfigured(error) = &observation.outcome else {
        panic!("{observation:?}")
    };
    assert!(
        !error.message.contains(CANARY) && !error.message.contains("token-"),
        "{error:?}"
    );
    error
}

fn place() -> Place {
    Place::KeyOf("Secret team-a/otc".to_owned())
}

/// Options of a lab: plain http and any host.
pub(crate) fn lab() -> CloudOptions {
    CloudOptions {
        policy: Arc::new(EndpointPolicy {
            allow_http: true,
            ..EndpointPolicy::default()
        }),
        ..CloudOptions::default()
    }
}

/// Options of a production where the hosts of `example.com` are allowed too.
fn strict() -> CloudOptions {
    let mut policy = EndpointPolicy::default();
    for host in ["example.com", "example.com:8443"] {
        policy.allowed_hosts.push(host.parse().unwrap());
    }
    CloudOptions {
        policy: Arc::new(policy),
        ..CloudOptions::default()
    }
}

/// Entry `otc` of a `clouds.yaml`, with certificates.
fn parse(
    yaml: &[u8],
    cacert: Option<&str>,
    options: &CloudOptions,
) -> Result<Credential, ConfigurationError> {
    let file = CloudsFile {
        place: &place(),
        clouds_yaml: Some(yaml),
        cacert: cacert.map(str::as_bytes),
    };
    Credential::parse(&file, "otc", options)
}

/// The same in a lab.
fn credential(yaml: &str) -> Result<Credential, ConfigurationError> {
    parse(yaml.as_bytes(), None, &lab())
}

/// Entry `otc` of a `clouds.yaml` in production.
fn entry(yaml: &[u8]) -> Result<CloudEntry, ConfigurationError> {
    parse(yaml, None, &strict()).map(|credential| credential.entry)
}

/// What a login grants, with the canary as its token.
fn grant() -> Grant {
    let endpoint = Endpoint::parse("https://ims.example.com", &lab().policy).unwrap();
    let token = SecretString::from(CANARY);
    let redactor = Redactor::new([&token]);
    Grant::new(&token, None, endpoint, Duration::MAX, redactor).unwrap()
}
