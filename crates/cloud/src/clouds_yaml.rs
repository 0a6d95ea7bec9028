//! `clouds.yaml` as users of `OpenStack` tools have it: from YAML to the raw values of one entry.
//! What they mean is for [`super::entry`].
//!
//! Unknown keys are ignored, as are other entries. No message repeats a value: any of them may be
//! a secret in the wrong place, so the YAML library's own error texts are not used either.

use super::{Origin, text::Redactor};
use image_export_model::{ConfigurationError, ConfigurationReason};
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use std::fmt;

/// Longest name of a cloud in a message.
const MAX_NAME_CHARS: usize = 64;
/// How many of the clouds that are there a message names.
const MAX_NAMED_CLOUDS: usize = 5;

/// Reads entry `cloud` of `yaml`, the value of key `clouds.yaml` of `origin`.
pub(super) fn read(
    yaml: &[u8],
    cloud: &str,
    origin: &Origin,
) -> Result<RawCloud, ConfigurationError> {
    let invalid = |message: String| refusal(ConfigurationReason::CredentialsInvalid, message);
    let text = std::str::from_utf8(yaml)
        .map_err(|_| invalid(format!("key clouds.yaml of {origin} is not UTF-8 text")))?;
    if text.trim().is_empty() {
        return Err(invalid(format!("key clouds.yaml of {origin} is empty")));
    }
    let found = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |yaml| {
        Root { cloud }.deserialize(yaml)
    })
    .map_err(|error| invalid(unreadable(origin, &error)))?;

    let Found {
        entry,
        others,
        has_clouds,
    } = found;
    if !has_clouds {
        return Err(invalid(format!(
            "key clouds.yaml of {origin} has no map \"clouds\""
        )));
    }
    entry.ok_or_else(|| {
        refusal(
            ConfigurationReason::CredentialsNotFound,
            no_such_cloud(origin, &shown(cloud), &others),
        )
    })
}

/// Room for thousands of clouds, and no room for aliases of aliases of aliases, with which a few
/// lines unfold to millions.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_nodes: 100_000, max_events: 200_000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
    }
}

/// The names of the clouds in `yaml`, in its order; empty where it cannot be read.
#[must_use]
pub fn cloud_names(yaml: &str) -> Vec<String> {
    serde_saphyr::with_deserializer_from_str_with_options(yaml, options(), |yaml| {
        // No cloud has this name, so all are others.
        Root { cloud: "\0" }.deserialize(yaml)
    })
    .map(|found| found.others)
    .unwrap_or_default()
}

/// A cloud's name as messages show it.
pub(super) fn shown(cloud: &str) -> String {
    Redactor::default()
        .clean_chars(cloud, MAX_NAME_CHARS)
        .unwrap_or_default()
}

pub(super) fn refusal(reason: ConfigurationReason, message: String) -> ConfigurationError {
    ConfigurationError {
        reason,
        message: message.into(),
    }
}

fn unreadable(origin: &Origin, error: &serde_saphyr::Error) -> String {
    let place = error
        .location()
        .filter(|place| place.line() > 0)
        .map_or_else(String::new, |place| {
            format!(" at line {}, column {}", place.line(), place.column())
        });
    format!(
        "key clouds.yaml of {origin} is not valid YAML, or has a list or map where text belongs{place}"
    )
}

fn no_such_cloud(origin: &Origin, cloud: &str, others: &[String]) -> String {
    let names: Vec<_> = others
        .iter()
        .take(MAX_NAMED_CLOUDS)
        .map(|name| shown(name))
        .collect();
    let there = if names.is_empty() {
        "none".to_owned()
    } else {
        let more = if others.len() > names.len() {
            " and more"
        } else {
            ""
        };
        format!("{}{more}", names.join(", "))
    };
    format!("clouds.yaml of {origin} has no cloud \"{cloud}\"; it has {there}")
}

/// The values of one entry as they stand there. Keys and agencies stand beside `auth` in some files
/// and inside it in others; a struct of theirs by `serde(flatten)` would be read by way of a buffer,
/// which takes `123` for a number where it is a name.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawCloud {
    pub(super) auth_type: Option<String>,
    pub(super) auth: Option<RawAuth>,
    pub(super) region_name: Option<String>,
    pub(super) interface: Option<String>,
    pub(super) cacert: Option<String>,
    pub(super) verify: Option<String>,
    pub(super) image_endpoint_override: Option<String>,
    /// Not of `OpenStack`: which path the job query has, as `--job-path` names it.
    pub(super) image_job_path: Option<String>,
    #[serde(alias = "access_key")]
    pub(super) ak: Option<String>,
    #[serde(alias = "secret_key")]
    pub(super) sk: Option<Secret>,
    pub(super) security_token: Option<Secret>,
    pub(super) agency_name: Option<String>,
    pub(super) agency_domain_name: Option<String>,
    pub(super) agency_domain_id: Option<String>,
    pub(super) delegated_project: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawAuth {
    pub(super) auth_url: Option<String>,
    pub(super) username: Option<String>,
    pub(super) user_id: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) token: Option<Secret>,
    pub(super) application_credential_id: Option<String>,
    pub(super) application_credential_name: Option<String>,
    pub(super) application_credential_secret: Option<Secret>,
    pub(super) user_domain_name: Option<String>,
    pub(super) user_domain_id: Option<String>,
    pub(super) domain_name: Option<String>,
    pub(super) domain_id: Option<String>,
    pub(super) project_name: Option<String>,
    pub(super) project_id: Option<String>,
    pub(super) project_domain_name: Option<String>,
    pub(super) project_domain_id: Option<String>,
    #[serde(alias = "access_key")]
    pub(super) ak: Option<String>,
    #[serde(alias = "secret_key")]
    pub(super) sk: Option<Secret>,
    pub(super) security_token: Option<Secret>,
    pub(super) agency_name: Option<String>,
    pub(super) agency_domain_name: Option<String>,
    pub(super) agency_domain_id: Option<String>,
    pub(super) delegated_project: Option<String>,
}

/// A string that never shows.
pub(super) struct Secret(pub(super) SecretString);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

/// What the document holds: our entry and the names of the others.
#[derive(Default)]
struct Found {
    has_clouds: bool,
    entry: Option<RawCloud>,
    others: Vec<String>,
}

/// Reads the document's root and, of its clouds, only ours: a mistake in another entry is not
/// our concern.
#[derive(Clone, Copy)]
struct Root<'a> {
    cloud: &'a str,
}

#[derive(Clone, Copy)]
struct Clouds<'a> {
    cloud: &'a str,
}

impl<'de> DeserializeSeed<'de> for Root<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Root<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with the key clouds")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        while let Some(key) = map.next_key::<String>()? {
            if key == "clouds" {
                found = map.next_value_seed(Clouds { cloud: self.cloud })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

impl<'de> DeserializeSeed<'de> for Clouds<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Clouds<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of clouds")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found {
            has_clouds: true,
            ..Found::default()
        };
        while let Some(name) = map.next_key::<String>()? {
            if name == self.cloud {
                // `otc:` with nothing behind it is an entry without fields.
                let entry = map.next_value::<Option<RawCloud>>()?;
                found.entry = Some(entry.unwrap_or_default());
            } else {
                map.next_value::<IgnoredAny>()?;
                found.others.push(name);
            }
        }
        Ok(found)
    }
}
