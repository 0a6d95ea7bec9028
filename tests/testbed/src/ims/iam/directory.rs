//! Who there is: users, what they may log in to, and what else stands for a user.

use secrecy::SecretString;

/// A project: what a token is valid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// The `project_id` of the job query's path.
    pub id: String,
    /// The name, for example `eu-de_images`.
    pub name: String,
}

impl Project {
    fn new(id: &str, name: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// Somebody who may log in.
#[derive(Clone, Debug)]
pub struct User {
    /// Id, for logins that do not use the name.
    pub id: String,
    /// Name, unique within the domain.
    pub name: String,
    /// Name of the domain of the user and the projects.
    pub domain: String,
    /// Id of that domain.
    pub domain_id: String,
    /// The password.
    pub password: SecretString,
    /// The projects that a login may be scoped to.
    pub projects: Vec<Project>,
    /// Id of the project that a login without a scope gets; without one its token has no project.
    pub default_project: Option<String>,
}

impl User {
    /// A user without projects; the ids are made from the names.
    #[must_use]
    pub fn new(name: &str, domain: &str, password: impl Into<SecretString>) -> Self {
        Self {
            id: format!("{name}-id"),
            name: name.to_owned(),
            domain: domain.to_owned(),
            domain_id: format!("{domain}-id"),
            password: password.into(),
            projects: Vec::new(),
            default_project: None,
        }
    }

    /// Adds a project.
    #[must_use]
    pub fn project(mut self, id: &str, name: &str) -> Self {
        self.projects.push(Project::new(id, name));
        self
    }
}

/// A secret of its own with which a user logs in to one project.
#[derive(Clone, Debug)]
pub struct ApplicationCredential {
    /// Id, for logins that do not use the name.
    pub id: String,
    /// Name, unique among the user's.
    pub name: String,
    /// The secret.
    pub secret: SecretString,
    /// Id of the user it belongs to.
    pub user_id: String,
    /// Id of the one project it opens; has to be one of the user's.
    pub project_id: String,
}

/// An agency: what lets others act in the projects of the domain that made it.
///
/// It trusts no domain until one is added.
#[derive(Clone, Debug)]
pub struct Agency {
    /// Name, unique within the domain.
    pub name: String,
    /// Name of the domain that made it.
    pub domain: String,
    /// Id of that domain.
    pub domain_id: String,
    /// The projects that it opens.
    pub projects: Vec<Project>,
    /// Names of the domains whose users may assume it.
    pub trusted_domains: Vec<String>,
    /// Ids of further users who may assume it.
    pub trusted_users: Vec<String>,
}

impl Agency {
    /// An agency without projects and trusted domains; the domain's id is made from its name.
    #[must_use]
    pub fn new(name: &str, domain: &str) -> Self {
        Self {
            name: name.to_owned(),
            domain: domain.to_owned(),
            domain_id: format!("{domain}-id"),
            projects: Vec::new(),
            trusted_domains: Vec::new(),
            trusted_users: Vec::new(),
        }
    }

    /// Adds a project.
    #[must_use]
    pub fn project(mut self, id: &str, name: &str) -> Self {
        self.projects.push(Project::new(id, name));
        self
    }

    /// Lets all users of this domain assume it.
    #[must_use]
    pub fn trusts_domain(mut self, domain: &str) -> Self {
        self.trusted_domains.push(domain.to_owned());
        self
    }

    /// Lets this user assume it.
    #[must_use]
    pub fn trusts_user(mut self, user_id: &str) -> Self {
        self.trusted_users.push(user_id.to_owned());
        self
    }
}

/// A pair of access key and secret key, for signed requests.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// The access key: the public half.
    pub access_key: String,
    /// The secret key.
    pub secret_key: SecretString,
    /// Ids of the projects that it opens; `None`: all.
    pub projects: Option<Vec<String>>,
    /// What a temporary key needs in `X-Security-Token`.
    pub security_token: Option<SecretString>,
}

impl AccessKey {
    /// A permanent key for all projects.
    #[must_use]
    pub fn new(access_key: &str, secret_key: impl Into<SecretString>) -> Self {
        Self {
            access_key: access_key.to_owned(),
            secret_key: secret_key.into(),
            projects: None,
            security_token: None,
        }
    }

    /// Restricts it to this project, and those added likewise.
    #[must_use]
    pub fn project(mut self, id: &str) -> Self {
        self.projects.get_or_insert_default().push(id.to_owned());
        self
    }

    /// Makes it a temporary key.
    #[must_use]
    pub fn security_token(mut self, token: impl Into<SecretString>) -> Self {
        self.security_token = Some(token.into());
        self
    }
}
