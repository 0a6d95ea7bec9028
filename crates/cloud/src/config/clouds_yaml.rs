//! `clouds.yaml` as users of `OpenStack` tools have it: from YAML to the raw values of one entry.
//! [`super::entry`] gives them their meaning.
//!
//! Unknown keys are ignored, as are other entries. No message repeats a value: any of them may be
//! a secret in the wrong place, so the YAML library's own error texts are not used either.

use super::Place;
use crate::{outcome::configuration_error, wire::text::Redactor};
use image_export_model::{ConfigurationError, ConfigurationReason};
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use std::{fmt, marker::PhantomData};

/// Longest name of a cloud in a message.
const MAX_NAME_CHARS: usize = 64;
/// How many of the clouds that are there a message names.
const MAX_NAMED_CLOUDS: usize = 5;

/// Reads entry `cloud` of `yaml`, the document at `place`.
pub(crate) fn read(
    yaml: &[u8],
    cloud: &str,
    place: &Place,
) -> Result<RawCloud, ConfigurationError> {
    let document = place.document();
    let invalid = |problem: &str| {
        let message = format!("{document} {problem}");
        configuration_error(ConfigurationReason::CredentialsInvalid, message)
    };
    let text = std::str::from_utf8(yaml).map_err(|_| invalid("is not UTF-8 text"))?;
    if text.trim().is_empty() {
        return Err(invalid("is empty"));
    }
    let clouds = clouds(text, cloud).map_err(|error| invalid(&unreadable(&error)))?;
    let (entry, others) = clouds.ok_or_else(|| invalid("has no map \"clouds\""))?;
    // `otc:` with nothing behind it is an entry without fields.
    entry.map(Option::unwrap_or_default).ok_or_else(|| {
        configuration_error(
            ConfigurationReason::CredentialsNotFound,
            no_such_cloud(place, cloud, &others),
        )
    })
}

/// Entry `cloud` of `yaml`, if it is there, and the names of the others, in their order; `None` without
/// `clouds`. An error in another entry does not matter.
type Clouds = Option<(Option<Option<RawCloud>>, Vec<String>)>;

fn clouds(yaml: &str, cloud: &str) -> Result<Clouds, serde_saphyr::Error> {
    let entry = Pick {
        key: cloud,
        seed: PhantomData::<Option<RawCloud>>,
    };
    let root = Pick {
        key: "clouds",
        seed: entry,
    };
    serde_saphyr::with_deserializer_from_str_with_options(yaml, options(), |yaml| {
        root.deserialize(yaml)
    })
    .map(|(clouds, _)| clouds)
}

/// Permits thousands of clouds, and no aliases of aliases of aliases, with which a few lines unfold to
/// millions.
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
    // No cloud has this name, so all are others.
    let clouds = clouds(yaml, "\0").ok().flatten();
    clouds.map(|(_, others)| others).unwrap_or_default()
}

/// A cloud's name as messages show it.
pub(crate) fn shown(cloud: &str, redactor: &Redactor) -> String {
    redactor.clean_name(cloud, MAX_NAME_CHARS)
}

fn unreadable(error: &serde_saphyr::Error) -> String {
    let position = error
        .location()
        .filter(|location| location.line() > 0)
        .map_or_else(String::new, |location| {
            format!(" at line {}, column {}", location.line(), location.column())
        });
    format!("is not valid YAML, or has a list or map where text belongs{position}")
}

fn no_such_cloud(place: &Place, cloud: &str, others: &[String]) -> String {
    // An entry that is not there has no secrets.
    let shown = |name| shown(name, &Redactor::default());
    let names: Vec<_> = others
        .iter()
        .take(MAX_NAMED_CLOUDS)
        .map(|name| shown(name))
        .collect();
    let names = names.join(", ");
    let there = match others.len() {
        0 => "none".to_owned(),
        1..=MAX_NAMED_CLOUDS => names,
        _ => format!("{names} and more"),
    };
    let (file, cloud) = (place.content(), shown(cloud));
    format!("{file} has no cloud \"{cloud}\"; it has {there}")
}

/// The values of one entry as they are written.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawCloud {
    pub(crate) auth_type: Option<String>,
    pub(crate) auth: Option<RawAuth>,
    pub(crate) region_name: Option<String>,
    pub(crate) interface: Option<String>,
    pub(crate) cacert: Option<String>,
    pub(crate) verify: Option<String>,
    pub(crate) image_endpoint_override: Option<String>,
    /// Not of `OpenStack`: which path the job query has, as `--job-path` names it.
    pub(crate) image_job_path: Option<String>,
    // Some files have these beside `auth`, others inside it. `serde(flatten)` does not fit: it reads
    // through a buffer, which takes `123` for a number where it is a name.
    #[serde(alias = "access_key")]
    pub(crate) ak: Option<String>,
    #[serde(alias = "secret_key")]
    pub(crate) sk: Option<Secret>,
    pub(crate) security_token: Option<Secret>,
    pub(crate) agency_name: Option<String>,
    pub(crate) agency_domain_name: Option<String>,
    pub(crate) agency_domain_id: Option<String>,
    pub(crate) delegated_project: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawAuth {
    pub(crate) auth_url: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) token: Option<Secret>,
    pub(crate) application_credential_id: Option<String>,
    pub(crate) application_credential_name: Option<String>,
    pub(crate) application_credential_secret: Option<Secret>,
    pub(crate) user_domain_name: Option<String>,
    pub(crate) user_domain_id: Option<String>,
    pub(crate) domain_name: Option<String>,
    pub(crate) domain_id: Option<String>,
    pub(crate) project_name: Option<String>,
    pub(crate) project_id: Option<String>,
    pub(crate) project_domain_name: Option<String>,
    pub(crate) project_domain_id: Option<String>,
    #[serde(alias = "access_key")]
    pub(crate) ak: Option<String>,
    #[serde(alias = "secret_key")]
    pub(crate) sk: Option<Secret>,
    pub(crate) security_token: Option<Secret>,
    pub(crate) agency_name: Option<String>,
    pub(crate) agency_domain_name: Option<String>,
    pub(crate) agency_domain_id: Option<String>,
    pub(crate) delegated_project: Option<String>,
}

impl RawCloud {
    /// All secrets of the entry, whichever of them it uses.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        let beside = [&self.sk, &self.security_token];
        let inside = self.auth.iter().flat_map(|auth| {
            [
                &auth.password,
                &auth.token,
                &auth.application_credential_secret,
                &auth.sk,
                &auth.security_token,
            ]
        });
        let secrets = beside.into_iter().chain(inside).flatten();
        secrets.map(|secret| &secret.0)
    }
}

/// A string that no debug form shows.
pub(crate) struct Secret(pub(crate) SecretString);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

/// Reads one value of a map, and the names of its other keys, whose values it skips.
#[derive(Clone, Copy)]
struct Pick<'a, S> {
    key: &'a str,
    seed: S,
}

impl<'de, S: DeserializeSeed<'de> + Copy> DeserializeSeed<'de> for Pick<'_, S> {
    type Value = (Option<S::Value>, Vec<String>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Copy> Visitor<'de> for Pick<'_, S> {
    type Value = (Option<S::Value>, Vec<String>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut picked, mut others) = (None, Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            if key == self.key {
                picked = Some(map.next_value_seed(self.seed)?);
            } else {
                map.next_value::<IgnoredAny>()?;
                others.push(key);
            }
        }
        Ok((picked, others))
    }
}
