//! The bodies of `POST /auth/tokens`. They hold secrets.

use crate::config::{Agency, DomainRef, Identity};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

pub(super) fn request(identity: &Value, scope: Option<Value>) -> Vec<u8> {
    let mut auth = json!({ "identity": identity });
    if let Some(scope) = scope {
        auth["scope"] = scope;
    }
    json!({ "auth": auth }).to_string().into_bytes()
}

pub(super) fn identity(identity: &Identity) -> Value {
    let secret = identity.secret().expose_secret();
    match identity {
        Identity::Password { user, .. } => {
            let mut user = json!(user);
            user["password"] = secret.into();
            json!({ "methods": ["password"], "password": { "user": user } })
        }
        Identity::Token(_) => json!({ "methods": ["token"], "token": { "id": secret } }),
        Identity::ApplicationCredential { credential, .. } => {
            let mut credential = json!(credential);
            credential["secret"] = secret.into();
            json!({ "methods": ["application_credential"], "application_credential": credential })
        }
    }
}

pub(super) fn assume_role(agency: &Agency) -> Value {
    let (key, domain) = match &agency.domain {
        DomainRef::Id(id) => ("domain_id", id),
        DomainRef::Name(name) => ("domain_name", name),
    };
    json!({
        "methods": ["assume_role"],
        "assume_role": { "agency_name": agency.name, key: domain },
    })
}
