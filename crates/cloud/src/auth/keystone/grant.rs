//! What an accepted login grants.

use super::{Keystone, token::Token};
use crate::{
    config::{Endpoint, MAX_TOKEN_BYTES},
    http::{self, Answer},
    memory::Share,
    outcome::failed,
    wire::text::Redactor,
};
use ::http::HeaderValue;
use image_export_model::{FailureKind, Outcome, Stage};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use std::{sync::Arc, time::Duration};

/// The lifetime of a token whose answer does not say it.
const ASSUMED_LIFETIME: Duration = Duration::from_secs(3600);
/// Bounds of the lifetime in an answer. The lower one keeps a cloud with a wrong clock from causing a
/// login for each poll.
const LIFETIME_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// A token and where it may be used.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    /// For `X-Auth-Token`; marked sensitive.
    pub(crate) token: HeaderValue,
    /// The project of the token; `None` for a token that the user gave.
    pub(crate) project_id: Option<String>,
    /// The image service.
    pub(crate) endpoint: Endpoint,
    /// Its host, as messages name it.
    pub(crate) host: Arc<str>,
    /// From the login on.
    pub(crate) lifetime: Duration,
    /// Knows the token and the secrets that it was obtained with.
    pub(crate) redactor: Redactor,
    /// It is kept for later polls …
    pub(crate) is_kept: bool,
    /// … and takes this share of the memory for tokens.
    pub(crate) share: Option<Arc<Share>>,
}

impl Grant {
    /// The memory that it holds, in bytes: the redactor has a copy of the token.
    pub(crate) fn bytes(&self) -> usize {
        /// For what keeps them together.
        const ALLOWANCE: usize = 1024;
        2 * self.token.len() + ALLOWANCE
    }

    /// `None` if `token` fits into no header. `redactor` knows it.
    pub(crate) fn new(
        token: &SecretString,
        project_id: Option<String>,
        endpoint: Endpoint,
        lifetime: Duration,
        redactor: Redactor,
    ) -> Option<Self> {
        Some(Self {
            token: http::sensitive(token.expose_secret())?,
            project_id,
            host: endpoint.shown_host(&redactor),
            endpoint,
            lifetime,
            redactor,
            is_kept: true,
            share: None,
        })
    }
}

impl Keystone<'_> {
    /// Reads an accepted answer. `redactor` knows the secrets that the login sent.
    pub(super) fn grant(self, answer: &Answer, mut redactor: Redactor) -> Result<Grant, Outcome> {
        let token = self.token(answer)?;
        redactor.push(&token);
        let body = answer.body.as_ref().map_err(|error| {
            let message = format!("the answer of identity service {} {error}", self.host());
            failed(Stage::Login, error.kind(), message)
        })?;
        let body = Token::parse(body, &self.entry.interface)
            .ok_or_else(|| self.malformed("without JSON"))?;
        let project = body.project_id.as_deref();
        let project = project.ok_or_else(|| self.malformed("with a token for no project"))?;
        let endpoint = match &self.entry.image_endpoint {
            Some(endpoint) => endpoint.clone(),
            None => self.image_endpoint(&body, project, &redactor)?,
        };
        let project = Some(project.to_owned());
        Grant::new(&token, project, endpoint, lifetime(&body), redactor)
            .ok_or_else(|| self.malformed("with an unusable token"))
    }

    pub(super) fn token(self, answer: &Answer) -> Result<SecretString, Outcome> {
        let token = answer
            .headers
            .get("x-subject-token")
            .and_then(|token| token.to_str().ok())
            .filter(|token| !token.is_empty())
            .ok_or_else(|| self.malformed("without a token"))?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(
                self.malformed("with a token of more than 32 KiB, which fits into no header")
            );
        }
        Ok(token.into())
    }

    fn malformed(self, what: &str) -> Outcome {
        let message = format!("identity service {} answered {what}", self.host());
        failed(Stage::Login, FailureKind::Malformed, message)
    }
}

/// From the two times of the answer, so that a skewed local clock does not matter.
fn lifetime(token: &Token) -> Duration {
    let Some(expires_at) = token.expires_at else {
        return ASSUMED_LIFETIME;
    };
    let lifetime = expires_at.duration_since(token.issued_at.unwrap_or_else(Timestamp::now));
    Duration::try_from(lifetime)
        .unwrap_or_default()
        .clamp(LIFETIME_BOUNDS.0, LIFETIME_BOUNDS.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_token_lives_from_its_issue_to_its_expiry_within_bounds() {
        let at = |time: &str| json!(format!("2026-01-01T{time}.000000Z"));
        for (issued, expires, seconds) in [
            (at("00:00:00"), at("01:30:00"), 5400),
            (at("00:00:00"), at("00:00:00"), 1),
            (at("02:00:00"), at("01:00:00"), 1),
            (at("00:00:00"), json!("2027-01-01T00:00:00Z"), 86_400),
            (at("00:00:00"), json!("soon"), 3600),
            (at("00:00:00"), Value::Null, 3600),
            // Without its issue, its life is counted from now.
            (Value::Null, json!("2000-01-01T00:00:00Z"), 1),
            (Value::Null, json!("2500-01-01T00:00:00Z"), 86_400),
        ] {
            let body = json!({"token": {"issued_at": issued, "expires_at": expires}}).to_string();
            let token = Token::parse(body.as_bytes(), "public").unwrap();
            assert_eq!(lifetime(&token), Duration::from_secs(seconds), "{body}");
        }
    }
}
