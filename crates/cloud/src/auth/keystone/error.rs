//! Why a login gives no token, and the messages about it.

use super::Keystone;
use crate::{
    auth::breaker::Open,
    config::{Agency, Identity},
    outcome::{self, misconfigured},
    wire::text::Redactor,
};
use image_export_model::{ConfigurationReason, FailureKind, Outcome, Stage};
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
                if error.reason == ConfigurationReason::CredentialsInvalid)
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

/// A transient failure of a login.
pub(super) fn failed(kind: FailureKind, message: String) -> Outcome {
    outcome::failed(Stage::Login, kind, message)
}

impl Keystone<'_> {
    /// What a status other than 200 and 201 means.
    pub(super) fn problem(self, status: u16) -> Outcome {
        let (host, credential) = (self.host(), self.entry.described());
        match status {
            401 => self.login_rejected(),
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
            _ => failed(
                FailureKind::Http,
                format!("identity service {host} answered {status}"),
            ),
        }
    }

    /// The same where the caller is already authenticated, so that the status is about the agency.
    pub(super) fn agency_problem(self, agency: &Agency, status: u16) -> Outcome {
        let (host, credential) = (self.host(), self.entry.described());
        let name = Redactor::default()
            .clean_chars(&agency.name, 64)
            .unwrap_or_default();
        match status {
            401 | 403 => misconfigured(
                ConfigurationReason::AccessDenied,
                format!(
                    "identity service {host} does not let {credential} assume agency {name} ({status}); check the agency's delegated party and the role Agent Operator of the caller"
                ),
            ),
            400 | 404 => misconfigured(
                ConfigurationReason::CredentialsInvalid,
                format!(
                    "identity service {host} knows no agency {name} of {credential} ({status}); check agency_name, agency_domain_name and the project"
                ),
            ),
            _ => self.problem(status),
        }
    }

    pub(super) fn circuit_open(self, open: &Open) -> Outcome {
        if open.rejections == 0 {
            return self.login_rejected();
        }
        let pacing = self.breakers.pacing();
        misconfigured(
            ConfigurationReason::CredentialsInvalid,
            format!(
                "identity service {} rejected this user's logins {} times in a row ({}), with {} or other credentials; to keep the account from being locked, one is tried every {} min; check {}",
                self.host(),
                open.rejections.min(pacing.breaker_rejections),
                open.answer,
                self.entry.described(),
                pacing.breaker_minutes(),
                self.what_to_check(),
            ),
        )
    }

    fn login_rejected(self) -> Outcome {
        misconfigured(
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
