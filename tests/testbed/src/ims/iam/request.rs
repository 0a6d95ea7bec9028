//! The body of `POST /v3/auth/tokens`, and the identity that it names.

use super::{Agency, ApplicationCredential, Project, User};
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct LoginRequest {
    pub(super) auth: Auth,
}

#[derive(Deserialize)]
pub(super) struct Auth {
    pub(super) identity: Identity,
    pub(super) scope: Option<Scope>,
}

#[derive(Deserialize)]
pub(super) struct Identity {
    pub(super) methods: Vec<String>,
    pub(super) password: Option<Password>,
    pub(super) application_credential: Option<NamedCredential>,
    pub(super) token: Option<NamedToken>,
    pub(super) assume_role: Option<NamedAgency>,
}

#[derive(Deserialize)]
pub(super) struct Password {
    pub(super) user: PasswordUser,
}

#[derive(Deserialize)]
pub(super) struct PasswordUser {
    #[serde(flatten)]
    pub(super) named: NamedUser,
    pub(super) password: String,
}

#[derive(Deserialize)]
pub(super) struct NamedUser {
    id: Option<String>,
    name: Option<String>,
    domain: Option<NamedDomain>,
}

impl NamedUser {
    pub(super) fn is(&self, user: &User) -> bool {
        match (&self.id, &self.name, &self.domain) {
            (Some(id), _, _) => *id == user.id,
            (None, Some(name), Some(domain)) => {
                same_name(name, &user.name) && domain.is(&user.domain_id, &user.domain)
            }
            _ => false,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct NamedCredential {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) user: Option<NamedUser>,
    pub(super) secret: String,
}

impl NamedCredential {
    pub(super) fn is(&self, credential: &ApplicationCredential, owner: &User) -> bool {
        match (&self.id, &self.name, &self.user) {
            (Some(id), _, _) => *id == credential.id,
            (None, Some(name), Some(user)) => *name == credential.name && user.is(owner),
            _ => false,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct NamedToken {
    pub(super) id: String,
}

#[derive(Deserialize)]
pub(super) struct NamedAgency {
    pub(super) agency_name: String,
    domain_id: Option<String>,
    domain_name: Option<String>,
}

impl NamedAgency {
    pub(super) fn is(&self, agency: &Agency) -> bool {
        let domain = NamedDomain {
            id: self.domain_id.clone(),
            name: self.domain_name.clone(),
        };
        self.agency_name == agency.name && domain.is(&agency.domain_id, &agency.domain)
    }
}

#[derive(Deserialize)]
struct NamedDomain {
    id: Option<String>,
    name: Option<String>,
}

impl NamedDomain {
    fn is(&self, id: &str, name: &str) -> bool {
        match (&self.id, &self.name) {
            (Some(wanted), _) => wanted == id,
            (None, Some(wanted)) => same_name(wanted, name),
            (None, None) => false,
        }
    }
}

/// Keystone compares names as its database does: many of them without case.
fn same_name(wanted: &str, name: &str) -> bool {
    wanted.eq_ignore_ascii_case(name)
}

#[derive(Deserialize)]
pub(super) struct Scope {
    pub(super) project: Option<NamedProject>,
}

#[derive(Deserialize)]
pub(super) struct NamedProject {
    id: Option<String>,
    name: Option<String>,
    domain: Option<NamedDomain>,
}

impl NamedProject {
    pub(super) fn is(&self, project: &Project, domain_id: &str, domain: &str) -> bool {
        match (&self.id, &self.name) {
            (Some(id), _) => *id == project.id,
            // OTC takes a project name without a domain: the user's own.
            (None, Some(name)) => {
                let same_domain = |named: &NamedDomain| named.is(domain_id, domain);
                *name == project.name && self.domain.as_ref().is_none_or(same_domain)
            }
            (None, None) => false,
        }
    }
}
