//! Why a login gives no token, and the messages about it.

use super::Keystone;
use crate::{
    auth::breaker::Open,
    config::{Agency, Identity},
    outcome::{failed, misconfigured},
};
use image_export_model::{
    ConfigurationReason::{AccessDenied, CredentialsInvalid, EndpointInvalid},
    FailureKind, Outcome, Stage,
};
use std::time::Duration;

/// A login that gave no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoginError {
    pub(crate) outcome: Outcome,
    /// `Retry-After` of the identity service.
    pub(crate) retry_after: Option<Duration>,
    /// Set where the login was not tried: the circuit of the identity is open for this long.
    pub(crate) circuit_open: Option<Duration>,
}

impl LoginError {
    /// Whether the identity service rejected the credentials themselves.
    pub(crate) fn is_rejection(&self) -> bool {
        self.circuit_open.is_none()
            && matches!(&self.outcome, Outcome::Misconfigured(error)
                if error.reason == CredentialsInvalid)
    }

    /// Whether no login was made yet, because others of the identity end first.
    pub(crate) fn is_deferred(&self) -> bool {
        matches!(self.outcome, Outcome::Deferred(_))
    }
}

impl From<Outcome> for LoginError {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            retry_after: None,
            circuit_open: None,
        }
    }
}

impl Keystone<'_> {
    /// What a status other than 200 and 201 means.
    pub(super) fn problem(self, status: u16) -> Outcome {
        let (host, credential) = (self.host(), self.entry.described());
        let (reason, message) = match status {
            401 => return self.login_rejected(),
            403 => (
                AccessDenied,
                format!(
                    "identity service {host} denies the login of {credential} (403); grant the user access to the project"
                ),
            ),
            300..=399 => (
                EndpointInvalid,
                format!(
                    "auth_url of {credential} leads to {host}, which redirects to another address ({status}); name the final one"
                ),
            ),
            // Keystone answers an unknown id of an application credential so (seen with 30.0).
            404 if matches!(self.login.identity, Identity::ApplicationCredential { .. }) => (
                CredentialsInvalid,
                format!(
                    "identity service {host} does not know the application credential of {credential} (404); check auth_url, and {}",
                    self.what_to_check()
                ),
            ),
            400 | 404 => (
                EndpointInvalid,
                format!(
                    "auth_url of {credential} leads to {host}, which does not offer Keystone v3 there ({status}); check auth_url"
                ),
            ),
            _ => {
                let message = format!("identity service {host} answered {status}");
                return failed(Stage::Login, FailureKind::Http, message);
            }
        };
        misconfigured(reason, message)
    }

    /// The same where the caller is already authenticated, so that the status is about the agency.
    pub(super) fn agency_problem(self, agency: &Agency, status: u16) -> Outcome {
        let (host, credential) = (self.host(), self.entry.described());
        let redactor = &self.entry.redactor;
        let name = redactor.clean_chars(&agency.name, 64).unwrap_or_default();
        let (reason, message) = match status {
            401 | 403 => (
                AccessDenied,
                format!(
                    "identity service {host} does not let {credential} assume agency {name} ({status}); check the agency's delegated party and the role Agent Operator of the caller"
                ),
            ),
            400 | 404 => (
                CredentialsInvalid,
                format!(
                    "identity service {host} knows no agency {name} of {credential} ({status}); check agency_name, agency_domain_name and the project"
                ),
            ),
            _ => return self.problem(status),
        };
        misconfigured(reason, message)
    }

    pub(super) fn circuit_open(self, open: &Open) -> Outcome {
        if open.rejections == 0 {
            return self.login_rejected();
        }
        let (host, credential) = (self.host(), self.entry.described());
        let answer = &open.answer;
        let times = match open.rejections {
            1 => "once".to_owned(),
            rejections => format!("{rejections} times in a row"),
        };
        let minutes = self.breakers.pacing.breaker_minutes();
        let check = self.what_to_check();
        misconfigured(
            CredentialsInvalid,
            format!(
                "identity service {host} rejected this user's logins {times} ({answer}), with {credential} or other credentials; to keep the account from being locked, one is tried every {minutes} min; check {check}"
            ),
        )
    }

    fn login_rejected(self) -> Outcome {
        let (host, credential) = (self.host(), self.entry.described());
        let check = self.what_to_check();
        misconfigured(
            CredentialsInvalid,
            format!(
                "identity service {host} rejects the login of {credential} (401); check {check}"
            ),
        )
    }

    fn what_to_check(self) -> &'static str {
        match self.login.identity {
            Identity::Password { .. } => "user, password, domain and project",
            Identity::Token(_) => "the token, its age and the project",
            Identity::ApplicationCredential { .. } => {
                "id, secret and age of the application credential"
            }
        }
    }
}
