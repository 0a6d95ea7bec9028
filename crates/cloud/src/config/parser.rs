//! What all fields of an entry share: how they are named in messages, and what counts as absent.

use super::{Endpoint, EndpointPolicy, MAX_TOKEN_BYTES, Place};
use crate::outcome::configuration_error;
use image_export_model::{ConfigurationError, ConfigurationReason};
use secrecy::{ExposeSecret, SecretString};

/// Parses one entry; names it and its fields in messages.
pub(super) struct Parser<'a> {
    pub(super) cloud: &'a str,
    pub(super) place: &'a Place,
    pub(super) policy: &'a EndpointPolicy,
}

/// Where the services of an entry are.
pub(super) struct Endpoints {
    pub(super) auth_url: Option<Endpoint>,
    pub(super) region: Option<String>,
    pub(super) image: Option<Endpoint>,
}

impl Parser<'_> {
    /// A token goes into a header, which cannot hold line breaks and the like.
    pub(super) fn header_safe(
        &self,
        name: &str,
        token: &SecretString,
    ) -> Result<SecretString, ConfigurationError> {
        let token = token.expose_secret().trim();
        if token.len() > MAX_TOKEN_BYTES || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(self.invalid(&format!(
                "{} is not a token: it is longer than 32 KiB or holds spaces or other characters that no token has",
                self.field(name)
            )));
        }
        Ok(token.into())
    }

    pub(super) fn field(&self, name: &str) -> String {
        format!("clouds.{}.{name}", self.cloud)
    }

    pub(super) fn missing(&self, name: &str) -> ConfigurationError {
        self.invalid(&format!("{} is missing or empty", self.field(name)))
    }

    pub(super) fn invalid(&self, problem: &str) -> ConfigurationError {
        configuration_error(
            ConfigurationReason::CredentialsInvalid,
            format!("in {}, {problem}", self.place.content()),
        )
    }
}

/// A value without surrounding space; empty counts as absent.
pub(super) fn text(value: Option<String>) -> Option<String> {
    value
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}
