//! Why a login gives no token, and the messages that say so.

use super::Keystone;
use crate::{
    auth::breaker::Open,
    config::{self, Agency, Identity},
    wire::text::Redactor,
};
use image_export_model::{
    ConfigurationError, ConfigurationReason, Failure, FailureKind, Outcome, Stage,
};
use std::time::Duration;

/// A login that gave no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoginError {
    pub(crate) problem: LoginProblem,
    /// `Retry-After` of the identity service.
    pub(crate) retry_after: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LoginProblem {
    /// The user must fix something.
    Misconfigured(ConfigurationError),
    /// Transient.
    Failed(Failure),
    /// Not tried: the circuit of the identity is open for this long.
    CircuitOpen(ConfigurationError, Duration),
}

impl LoginProblem {
    pub(crate) fn misconfigured(reason: ConfigurationReason, message: String) -> Self {
        Self::Misconfigured(config::error(reason, message))
    }

    pub(super) fn failed(kind: FailureKind, message: String) -> Self {
        Self::Failed(Failure {
            kind,
            stage: Stage::Login,
            message: message.into(),
        })
    }

    /// Whether the identity service rejected the credentials themselves.
    pub(crate) fn is_rejection(&self) -> bool {
        matches!(self, Self::Misconfigured(error) if error.reason == ConfigurationReason::CredentialsInvalid)
    }
}

impl From<LoginProblem> for Outcome {
    fn from(problem: LoginProblem) -> Self {
        match problem {
            LoginProblem::Misconfigured(error) | LoginProblem::CircuitOpen(error, _) => {
                Self::Misconfigured(error)
            }
            LoginProblem::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl From<LoginProblem> for LoginError {
    fn from(problem: LoginProblem) -> Self {
        Self {
            problem,
            retry_after: None,
        }
    }
}

impl Keystone<'_> {
    /// What a status other than 200 and 201 means.
    pub(super) fn problem(self, status: u16) -> LoginProblem {
        let (host, credential) = (self.host(), self.entry.described());
        let misconfigured = LoginProblem::misconfigured;
        match status {
            401 => LoginProblem::Misconfigured(self.login_rejected()),
            403 => misconfigured(
                ConfigurationReason::AccessDenied,
                format!(
                    "identity service {host} denies the login of {credential} (403); grant the user access to the project"
                ),
            ),
            300..=399 => misconfigured(
                ConfigurationReason::EndpointInvalid,
                format!(
                    "auth_url of {credential} leads to {host}, which redirects to another address ({status}); name the final one"
                ),
            ),
            // Keystone answers an unknown id of an application credential so (seen with 30.0).
            404 if matches!(self.login.identity, Identity::ApplicationCredential { .. }) => {
                misconfigured(
                    ConfigurationReason::CredentialsInvalid,
                    format!(
                        "identity service {host} does not know the application credential of {credential} (404); check auth_url, and {}",
                        self.what_to_check()
                    ),
                )
            }
            400 | 404 => misconfigured(
                ConfigurationReason::EndpointInvalid,
                format!(
                    "auth_url of {credential} leads to {host}, which does not offer Keystone v3 there ({status}); check auth_url"
                ),
            ),
            _ => LoginProblem::failed(
                FailureKind::Http,
                format!("identity service {host} answered {status}"),
            ),
        }
    }

    /// The same where the caller is already authenticated, so that the status is about the agency.
    pub(super) fn agency_problem(self, agency: &Agency, status: u16) -> LoginProblem {
        let (host, credential) = (self.host(), self.entry.described());
        let name = Redactor::default()
            .clean_chars(&agency.name, 64)
            .unwrap_or_default();
        match status {
            401 | 403 => LoginProblem::misconfigured(
                ConfigurationReason::AccessDenied,
                format!(
                    "identity service {host} does not let {credential} assume agency {name} ({status}); check the agency's delegated party and the role Agent Operator of the caller"
                ),
            ),
            400 | 404 => LoginProblem::misconfigured(
                ConfigurationReason::CredentialsInvalid,
                format!(
                    "identity service {host} knows no agency {name} of {credential} ({status}); check agency_name, agency_domain_name and the project"
                ),
            ),
            _ => self.problem(status),
        }
    }

    pub(super) fn circuit_open(self, open: &Open) -> ConfigurationError {
        if open.rejections == 0 {
            return self.login_rejected();
        }
        let pacing = self.breakers.pacing();
        config::error(
            ConfigurationReason::CredentialsInvalid,
            format!(
                "identity service {} rejected this user's logins {} times in a row ({}), with {} or another Secret; to keep the account from being locked, one is tried every {} min; check {}",
                self.host(),
                open.rejections.min(pacing.breaker_rejections),
                open.answer,
                self.entry.described(),
                pacing.breaker_minutes(),
                self.what_to_check(),
            ),
        )
    }

    fn login_rejected(self) -> ConfigurationError {
        config::error(
            ConfigurationReason::CredentialsInvalid,
            format!(
                "identity service {} rejects the login of {} (401); check {}",
                self.host(),
                self.entry.described(),
                self.what_to_check()
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
