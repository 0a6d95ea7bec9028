//! What this module promises, by topic; `cloud.rs` is the small cloud that the async ones talk to.

mod answers;
mod cloud;
mod corpus;
mod errors;
mod forms;
mod login;
mod secrets;
mod tls;
mod transport;

use super::{
    CloudOptions, Credential, EndpointPolicy, Origin, endpoint::Endpoint, keystone::Grant,
    text::Redactor, tokens::Session,
};
use image_export_model::ConfigurationError;
use k8s_openapi::ByteString;
use secrecy::SecretString;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Stands wherever a secret stands; it must come out nowhere.
pub(super) const CANARY: &str = "canary-7f3a";

fn secret() -> Origin {
    Origin::Secret {
        namespace: "team-a".into(),
        name: "otc".into(),
    }
}

fn data(yaml: impl Into<Vec<u8>>) -> BTreeMap<String, ByteString> {
    BTreeMap::from([("clouds.yaml".to_owned(), ByteString(yaml.into()))])
}

/// Options of a lab: plain http and any host.
fn lab() -> CloudOptions {
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
    policy.allowed_hosts.push("example.com".to_owned());
    CloudOptions {
        policy: Arc::new(policy),
        ..CloudOptions::default()
    }
}

/// Parses entry `otc` of a `clouds.yaml`, in a lab.
fn credential(yaml: &str) -> Result<Credential, ConfigurationError> {
    Credential::parse(&secret(), Some(&data(yaml)), "otc", &lab())
}

/// A session as a login gives it, with the canary as its token.
fn session() -> Session {
    let endpoint = Endpoint::parse("https://ims.example.com", &lab().policy).unwrap();
    let token = SecretString::from(CANARY);
    let grant = Grant::new(&token, None, endpoint, Duration::MAX, Redactor::default()).unwrap();
    Session::given(grant)
}
