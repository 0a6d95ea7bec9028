//! The bodies of `POST /auth/tokens`. They hold secrets.

use crate::config::{Agency, ApplicationCredentialRef, DomainRef, Identity, ProjectRef, UserRef};
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
    match identity {
        Identity::Password { user, password } => {
            let mut user = user_ref(user);
            user["password"] = password.expose_secret().into();
            json!({ "methods": ["password"], "password": { "user": user } })
        }
        Identity::Token(token) => {
            json!({ "methods": ["token"], "token": { "id": token.expose_secret() } })
        }
        Identity::ApplicationCredential { credential, secret } => {
            let mut credential = match credential {
                ApplicationCredentialRef::Id(id) => json!({ "id": id }),
                ApplicationCredentialRef::Name { name, user } => {
                    json!({ "name": name, "user": user_ref(user) })
                }
            };
            credential["secret"] = secret.expose_secret().into();
            json!({ "methods": ["application_credential"], "application_credential": credential })
        }
    }
}

pub(super) fn assume_role(agency: &Agency) -> Value {
    let domain = match &agency.domain {
        DomainRef::Id(id) => ("domain_id", id),
        DomainRef::Name(name) => ("domain_name", name),
    };
    json!({
        "methods": ["assume_role"],
        "assume_role": { "agency_name": agency.name, domain.0: domain.1 },
    })
}

fn user_ref(user: &UserRef) -> Value {
    match user {
        UserRef::Id(id) => json!({ "id": id }),
        UserRef::Name { name, domain } => json!({ "name": name, "domain": domain_ref(domain) }),
    }
}

pub(super) fn project_scope(project: &ProjectRef) -> Value {
    match project {
        ProjectRef::Id(id) => json!({ "project": { "id": id } }),
        ProjectRef::Name { name, domain } => {
            json!({ "project": { "name": name, "domain": domain_ref(domain) } })
        }
    }
}

pub(super) fn domain_scope(domain: &DomainRef) -> Value {
    json!({ "domain": domain_ref(domain) })
}

fn domain_ref(domain: &DomainRef) -> Value {
    match domain {
        DomainRef::Id(id) => json!({ "id": id }),
        DomainRef::Name(name) => json!({ "name": name }),
    }
}
