//! From a [`CloudEntry`] to the right to query: tokens from logins, signatures, and the circuit
//! breakers that keep both from locking an account.

pub(crate) mod breaker;
pub(crate) mod keystone;
mod pacing;
pub(crate) mod signature;
pub(crate) mod tokens;

pub use pacing::Pacing;

use crate::{
    config::{CloudEntry, Identity},
    outcome::configuration_error,
};
use image_export_model::{ConfigurationError, ConfigurationReason, Outcome, ProjectId};
use keystone::Keystone;
use std::sync::Arc;
use tokens::{NoToken, Session, Tokens};

/// A token for `project_id` other than the `rejected` one, from `tokens` or by a login, which sets
/// `logged_in`.
pub(crate) async fn session(
    keystone: Keystone<'_>,
    tokens: &Tokens,
    project_id: &ProjectId,
    rejected: Option<&Session>,
    logged_in: &mut bool,
) -> Result<Arc<Session>, NoToken> {
    let login = keystone.login;
    let names_own_scope = keystone.entry.project.is_some()
        || login.agency.is_none()
            && matches!(login.identity, Identity::ApplicationCredential { .. });
    let scope = (!names_own_scope).then_some(project_id);
    let log_in = || {
        *logged_in = true;
        keystone.log_in(project_id)
    };
    let session = tokens
        .slot(scope)
        .session(rejected, login.is_renewable(), log_in)
        .await?;
    check_project(
        keystone.entry,
        session.grant.project_id.as_deref(),
        project_id,
    )
    .map_err(|error| NoToken::Login(Outcome::Misconfigured(error).into()))?;
    Ok(session)
}

/// Refuses a token for another project than `project_id`, as it shows the jobs of that project. The
/// project is the one that the entry names by id, else the one that the login `granted`.
pub(crate) fn check_project(
    entry: &CloudEntry,
    granted: Option<&str>,
    project_id: &ProjectId,
) -> Result<(), ConfigurationError> {
    match entry.project_id().or(granted) {
        Some(other) if other != project_id.as_str() => {
            let other = entry.redactor.clean_chars(other, 64).unwrap_or_default();
            Err(configuration_error(
                ConfigurationReason::CredentialsInvalid,
                format!(
                    "{} signs in to project {other}, but spec.projectID is {project_id}",
                    entry.described()
                ),
            ))
        }
        _ => Ok(()),
    }
}
