//! What this module promises, by topic; `cloud.rs` is the small cloud that the async ones talk to.

mod answers;
mod cloud;
mod errors;
mod login;
mod secrets;
mod transport;

use super::{
    Credential, SecretName, endpoint::Endpoint, keystone::Grant, text::Redactor, tokens::Session,
};
use crate::observation::Refusal;
use k8s_openapi::ByteString;
use secrecy::SecretString;
use std::{collections::BTreeMap, time::Duration};

/// Stands wherever a secret stands; it must come out nowhere.
pub(super) const CANARY: &str = "canary-7f3a";

fn secret() -> SecretName {
    SecretName {
        namespace: "team-a".into(),
        name: "otc".into(),
    }
}

fn data(yaml: impl Into<Vec<u8>>) -> BTreeMap<String, ByteString> {
    BTreeMap::from([("clouds.yaml".to_owned(), ByteString(yaml.into()))])
}

/// Parses entry `otc` of a `clouds.yaml`, with plain http allowed.
fn credential(yaml: &str) -> Result<Credential, Refusal> {
    Credential::parse(&secret(), Some(&data(yaml)), "otc", true)
}

/// A session as a login gives it, with the canary as its token.
fn session() -> Session {
    let endpoint = Endpoint::parse("https://ims.example.com", false).unwrap();
    let token = SecretString::from(CANARY);
    let grant = Grant::new(&token, None, endpoint, Duration::MAX, Redactor::default()).unwrap();
    Session::given(grant)
}
