//! `clouds.yaml` as users of `OpenStack` tools have it: one entry in, a checked [`Entry`] out.
//!
//! Unknown keys are ignored, as are other entries. No message repeats a value: any of them may be
//! a secret in the wrong place, so the YAML library's own error texts are not used either.

use super::{SecretName, endpoint::Endpoint, text::Redactor};
use crate::observation::{Refusal, RefusalReason};
use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use std::fmt;

/// Longer tokens fit into no gateway's header limit.
const MAX_TOKEN_BYTES: usize = 32 * 1024;
/// Longest name of a cloud in a message.
const MAX_NAME_CHARS: usize = 64;
/// How many of the clouds that are there a message names.
const MAX_NAMED_CLOUDS: usize = 5;

/// A checked cloud entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) login: Login,
    /// The project that the entry signs in to; `None`: the one that is asked for.
    pub(super) project: Option<ProjectRef>,
    pub(super) region: Option<String>,
    /// Catalog interface: `public`, `internal` or `admin`.
    pub(super) interface: String,
    /// `image_endpoint_override`.
    pub(super) image_endpoint: Option<Endpoint>,
}

/// The ways to sign in; others of `auth_type` become variants here.
#[derive(Clone, Debug)]
pub(super) enum Login {
    Password {
        auth_url: Endpoint,
        user: UserRef,
        password: SecretString,
    },
    /// A token that somebody else got. Without `auth_url` it is used as it is, which needs an
    /// `image_endpoint_override`.
    Token {
        auth_url: Option<Endpoint>,
        token: SecretString,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UserRef {
    Id(String),
    Name { name: String, domain: DomainRef },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProjectRef {
    Id(String),
    Name { name: String, domain: DomainRef },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DomainRef {
    Id(String),
    Name(String),
}

/// Parses entry `cloud` of `yaml`, the value of key `clouds.yaml` of `secret`.
pub(super) fn parse(
    yaml: &[u8],
    cloud: &str,
    secret: &SecretName,
    allow_http: bool,
) -> Result<Entry, Refusal> {
    let invalid = |message: String| refusal(RefusalReason::CredentialsInvalid, message);
    let text = std::str::from_utf8(yaml)
        .map_err(|_| invalid(format!("key clouds.yaml of {secret} is not UTF-8 text")))?;
    if text.trim().is_empty() {
        return Err(invalid(format!("key clouds.yaml of {secret} is empty")));
    }
    let options = serde_saphyr::options! { with_snippet: false };
    let found = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        Root { cloud }.deserialize(yaml)
    })
    .map_err(|error| invalid(unreadable(secret, &error)))?;

    let Found {
        entry,
        others,
        has_clouds,
    } = found;
    if !has_clouds {
        return Err(invalid(format!(
            "key clouds.yaml of {secret} has no map \"clouds\""
        )));
    }
    let raw = entry.ok_or_else(|| {
        refusal(
            RefusalReason::CredentialsNotFound,
            no_such_cloud(secret, &shown(cloud), &others),
        )
    })?;
    Checker {
        cloud: &shown(cloud),
        secret,
        allow_http,
    }
    .check(raw)
}

/// A cloud's name as messages show it.
pub(super) fn shown(cloud: &str) -> String {
    Redactor::default()
        .clean_chars(cloud, MAX_NAME_CHARS)
        .unwrap_or_default()
}

fn refusal(reason: RefusalReason, message: String) -> Refusal {
    Refusal {
        reason,
        message: message.into(),
    }
}

fn unreadable(secret: &SecretName, error: &serde_saphyr::Error) -> String {
    let place = error
        .location()
        .filter(|place| place.line() > 0)
        .map_or_else(String::new, |place| {
            format!(" at line {}, column {}", place.line(), place.column())
        });
    format!(
        "key clouds.yaml of {secret} is not valid YAML, or has a list or map where text belongs{place}"
    )
}

fn no_such_cloud(secret: &SecretName, cloud: &str, others: &[String]) -> String {
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
    format!("clouds.yaml of {secret} has no cloud \"{cloud}\"; it has {there}")
}

/// The values of one entry as they stand there.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCloud {
    auth_type: Option<String>,
    auth: Option<RawAuth>,
    region_name: Option<String>,
    interface: Option<String>,
    image_endpoint_override: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawAuth {
    auth_url: Option<String>,
    username: Option<String>,
    user_id: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
    user_domain_name: Option<String>,
    user_domain_id: Option<String>,
    domain_name: Option<String>,
    domain_id: Option<String>,
    project_name: Option<String>,
    project_id: Option<String>,
    project_domain_name: Option<String>,
    project_domain_id: Option<String>,
}

/// A string that never shows.
struct Secret(SecretString);

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

/// Turns raw values into an [`Entry`]; knows how to name a field in a message.
struct Checker<'a> {
    cloud: &'a str,
    secret: &'a SecretName,
    allow_http: bool,
}

impl Checker<'_> {
    fn check(&self, raw: RawCloud) -> Result<Entry, Refusal> {
        let auth = raw.auth.unwrap_or_default();
        let region = text(raw.region_name);
        let auth_url = text(auth.auth_url)
            .map(|url| self.auth_url(&url, region.as_deref()))
            .transpose()?;
        let image_endpoint = text(raw.image_endpoint_override)
            .map(|url| {
                Endpoint::image(&url, None, self.allow_http)
                    .map_err(|bad| bad.refusal(&self.field("image_endpoint_override"), self.secret))
            })
            .transpose()?;

        let domain = domain(auth.domain_id, auth.domain_name);
        let user_domain = self::domain(auth.user_domain_id, auth.user_domain_name).or(domain);
        let project_domain = self::domain(auth.project_domain_id, auth.project_domain_name)
            .or_else(|| user_domain.clone());
        let project = match (text(auth.project_id), text(auth.project_name)) {
            (Some(id), _) => Some(ProjectRef::Id(id)),
            (None, Some(name)) => {
                let domain =
                    project_domain.ok_or_else(|| self.missing("auth.project_domain_name"))?;
                Some(ProjectRef::Name { name, domain })
            }
            (None, None) => None,
        };

        let auth_type = text(raw.auth_type).unwrap_or_else(|| "password".to_owned());
        let login = match auth_type.as_str() {
            "password" | "v3password" => Login::Password {
                auth_url: auth_url.ok_or_else(|| self.missing("auth.auth_url"))?,
                user: match (text(auth.user_id), text(auth.username)) {
                    (Some(id), _) => UserRef::Id(id),
                    (None, Some(name)) => UserRef::Name {
                        name,
                        domain: user_domain.ok_or_else(|| self.missing("auth.user_domain_name"))?,
                    },
                    (None, None) => return Err(self.missing("auth.username")),
                },
                password: present(auth.password).ok_or_else(|| self.missing("auth.password"))?,
            },
            "token" | "v3token" => {
                let token = present(auth.token).ok_or_else(|| self.missing("auth.token"))?;
                if auth_url.is_none() && image_endpoint.is_none() {
                    return Err(self.missing("auth.auth_url"));
                }
                Login::Token {
                    auth_url,
                    token: self.header_safe(&token)?,
                }
            }
            _ => {
                return Err(self.invalid(&format!(
                    "{} is not supported; write password or token",
                    self.field("auth_type")
                )));
            }
        };
        Ok(Entry {
            login,
            project,
            region,
            interface: interface(raw.interface),
            image_endpoint,
        })
    }

    /// OTC's own examples write `https://iam.{region_name}.otc.t-systems.com/v3`.
    fn auth_url(&self, url: &str, region: Option<&str>) -> Result<Endpoint, Refusal> {
        const PLACEHOLDER: &str = "{region_name}";
        let url = match region {
            Some(region) => url.replace(PLACEHOLDER, region),
            None if url.contains(PLACEHOLDER) => return Err(self.missing("region_name")),
            None => url.to_owned(),
        };
        Endpoint::keystone(&url, self.allow_http)
            .map_err(|bad| bad.refusal(&self.field("auth.auth_url"), self.secret))
    }

    /// A token goes into a header, where line breaks and the like cannot go.
    fn header_safe(&self, token: &SecretString) -> Result<SecretString, Refusal> {
        let token = token.expose_secret().trim();
        if token.len() > MAX_TOKEN_BYTES || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(self.invalid(&format!(
                "{} is not a token: it is longer than 32 KiB or holds spaces or other characters that no token has",
                self.field("auth.token")
            )));
        }
        Ok(token.into())
    }

    fn field(&self, name: &str) -> String {
        format!("clouds.{}.{name}", self.cloud)
    }

    fn missing(&self, name: &str) -> Refusal {
        self.invalid(&format!("{} is missing or empty", self.field(name)))
    }

    fn invalid(&self, problem: &str) -> Refusal {
        refusal(
            RefusalReason::CredentialsInvalid,
            format!("in clouds.yaml of {}, {problem}", self.secret),
        )
    }
}

/// A value without surrounding space; empty counts as absent.
fn text(value: Option<String>) -> Option<String> {
    value
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}

/// A secret exactly as written; blank counts as absent.
fn present(value: Option<Secret>) -> Option<SecretString> {
    value
        .map(|secret| secret.0)
        .filter(|secret| !secret.expose_secret().trim().is_empty())
}

fn domain(id: Option<String>, name: Option<String>) -> Option<DomainRef> {
    text(id)
        .map(DomainRef::Id)
        .or_else(|| text(name).map(DomainRef::Name))
}

/// `public`, also for the older spelling `publicURL`.
fn interface(raw: Option<String>) -> String {
    let interface = text(raw).map_or_else(|| "public".to_owned(), |text| text.to_ascii_lowercase());
    interface
        .strip_suffix("url")
        .map(str::to_owned)
        .unwrap_or(interface)
}
