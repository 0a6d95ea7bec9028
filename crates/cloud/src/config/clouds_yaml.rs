//! `clouds.yaml` as users of `OpenStack` tools have it: from YAML to the raw values of one entry.
//! [`super::fields`] has their names, [`super::entry`] gives them their meaning.
//!
//! Other entries are skipped, whatever mistakes they hold, as long as the document is YAML at all. No message
//! repeats a value: any of them may be a secret in the wrong place, so the YAML library's own error texts are not
//! used either.

use super::{
    Place,
    fields::{self, Field, SPELLINGS},
};
use crate::{outcome::configuration_error, wire::text::Redactor};
use image_export_model::{ConfigurationError, ConfigurationReason};
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{DuplicateKeyPolicy, Spanned, Tagged};
use std::{collections::BTreeMap, fmt, marker::PhantomData};

/// Longest name of a cloud, key or tag in a message.
const MAX_NAME_CHARS: usize = 64;
/// How many of the clouds that are there a message names.
const MAX_NAMED_CLOUDS: usize = 5;
/// How many ignored keys are remembered.
const MAX_IGNORED: usize = 32;

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
/// `clouds`.
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
/// millions. Repeated keys are judged here, as those of other entries do not matter.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_nodes: 100_000, max_events: 200_000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
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
    format!(
        "is not valid YAML, or has a repeated key, or a text, list or map where another of these belongs{position}"
    )
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
#[derive(Default)]
pub(crate) struct RawCloud {
    values: BTreeMap<Field, (Precedence, String)>,
    /// All secrets of the entry, whichever of them it uses.
    secrets: Vec<SecretString>,
    /// Keys without a meaning here.
    ignored: Vec<String>,
    /// The first value with a tag that only another tool understands.
    tagged: Option<TaggedValue>,
}

type Precedence = (usize, usize);

/// A value such as `!vault …`, which stands for another one.
pub(crate) struct TaggedValue {
    pub(crate) field: Field,
    pub(crate) tag: String,
    pub(crate) line: u64,
}

impl RawCloud {
    /// Takes out a value, without surrounding space; empty counts as absent.
    pub(crate) fn text(&mut self, field: Field) -> Option<String> {
        let text = self.exact(field)?.trim().to_owned();
        Some(text).filter(|text| !text.is_empty())
    }

    /// Takes out a secret exactly as written; blank counts as absent.
    pub(crate) fn secret(&mut self, field: Field) -> Option<SecretString> {
        let secret = self.exact(field)?;
        (!secret.trim().is_empty()).then(|| secret.into())
    }

    fn exact(&mut self, field: Field) -> Option<String> {
        self.values.remove(&field).map(|(_, value)| value)
    }

    /// Whether there is a value that is not blank.
    pub(crate) fn has(&self, field: Field) -> bool {
        let value = self.values.get(&field);
        value.is_some_and(|(_, value)| !value.trim().is_empty())
    }

    /// A secret's field with such a value.
    pub(crate) fn find_secret(&self, is: impl Fn(&str) -> bool) -> Option<Field> {
        let is_secret = |field: &Field| SPELLINGS[*field as usize].is_secret;
        let mut secrets = self.values.iter().filter(|(field, _)| is_secret(field));
        let found = secrets.find(|(_, (_, value))| is(value.trim_start()));
        found.map(|(field, _)| *field)
    }

    /// The text before the first `_` of the project's name, which is its region; that of a delegated project
    /// goes first.
    pub(crate) fn region_of_project(&self) -> Option<String> {
        let named = |field| self.values.get(&field).map(|(_, name)| name.trim());
        let project = named(Field::DelegatedProject).or_else(|| named(Field::ProjectName))?;
        let region = project.split('_').next()?;
        (!region.is_empty()).then(|| region.to_owned())
    }

    pub(crate) fn redactor(&self) -> Redactor {
        Redactor::new(&self.secrets)
    }

    pub(crate) fn tagged(&self) -> Option<&TaggedValue> {
        self.tagged.as_ref()
    }

    /// The keys without a meaning here, as messages show them.
    pub(crate) fn ignored(&self, redactor: &Redactor) -> Vec<String> {
        let shown = |key: &String| redactor.clean_name(key, MAX_NAME_CHARS);
        self.ignored.iter().map(shown).collect()
    }

    /// Reads the value of `key`, inside of `auth` or beside it.
    fn read_value<'de, A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        key: &Spanned<String>,
        is_inside: bool,
    ) -> Result<(), A::Error> {
        let (line, key) = (key.referenced.line(), key.value.as_str());
        let Some((row, precedence)) = fields::find(key, is_inside) else {
            map.next_value::<IgnoredAny>()?;
            if self.ignored.len() < MAX_IGNORED {
                let prefix = if is_inside { "auth." } else { "" };
                self.ignored.push(format!("{prefix}{key}"));
            }
            return Ok(());
        };
        let Tagged(value, tag) = if row.field == Field::RegionName {
            let Tagged(first, tag) = map.next_value::<Tagged<FirstRegion>>()?;
            Tagged(first.0, tag)
        } else {
            map.next_value()?
        };
        let Some(value) = value else {
            return Ok(());
        };
        if row.is_secret {
            self.secrets.push(value.as_str().into());
        }
        if let Some(tag) = tag.filter(|tag| !is_plain(tag)) {
            self.tagged.get_or_insert(TaggedValue {
                field: row.field,
                tag: tag.replace("tag:yaml.org,2002:", "!!"),
                line,
            });
        }
        let present = self.values.get(&row.field);
        if present.is_some_and(|(other, _)| *other == precedence) {
            return Err(A::Error::custom("repeated"));
        }
        // A blank value counts only where there is no other.
        let counts = |(at, value): &(Precedence, String)| (!value.trim().is_empty(), *at);
        let read = (precedence, value);
        if present.is_none_or(|present| counts(present) < counts(&read)) {
            self.values.insert(row.field, read);
        }
        Ok(())
    }
}

/// Whether a tag only says that a value is text.
fn is_plain(tag: &str) -> bool {
    ["!", "!!str", "tag:yaml.org,2002:str"].contains(&tag)
}

impl<'de> Deserialize<'de> for RawCloud {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut raw = Self::default();
        deserializer.deserialize_map(Fields {
            raw: &mut raw,
            is_inside: false,
        })?;
        Ok(raw)
    }
}

/// Reads the fields of an entry, or of its `auth`.
struct Fields<'a> {
    raw: &'a mut RawCloud,
    is_inside: bool,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    /// `auth:` with nothing behind it.
    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_auth = false;
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            if key.value == "auth" && !self.is_inside {
                if std::mem::replace(&mut has_auth, true) {
                    return Err(A::Error::custom("repeated"));
                }
                map.next_value_seed(Fields {
                    raw: self.raw,
                    is_inside: true,
                })?;
            } else {
                self.raw.read_value(&mut map, &key, self.is_inside)?;
            }
        }
        Ok(())
    }
}

/// A region: a text, the first of several with commas between them, or the first of a list, each of which may be
/// a map with a `name`.
struct FirstRegion(Option<String>);

impl<'de> Deserialize<'de> for FirstRegion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FirstRegionVisitor)
    }
}

struct FirstRegionVisitor;

impl<'de> Visitor<'de> for FirstRegionVisitor {
    type Value = FirstRegion;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a region")
    }

    fn visit_str<E>(self, text: &str) -> Result<FirstRegion, E> {
        Ok(FirstRegion(text.split(',').next().map(str::to_owned)))
    }

    fn visit_none<E>(self) -> Result<FirstRegion, E> {
        Ok(FirstRegion(None))
    }

    fn visit_unit<E>(self) -> Result<FirstRegion, E> {
        Ok(FirstRegion(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FirstRegion, A::Error> {
        let first = list.next_element::<FirstRegion>()?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first.unwrap_or(FirstRegion(None)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FirstRegion, A::Error> {
        let mut name = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "name" {
                name = map.next_value::<Option<String>>()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(FirstRegion(name))
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
        // A key may be null.
        while let Some(key) = map.next_key::<Option<String>>()? {
            if key.as_deref() != Some(self.key) {
                map.next_value::<IgnoredAny>()?;
                others.extend(key);
            } else if picked.is_some() {
                return Err(A::Error::custom("repeated"));
            } else {
                picked = Some(map.next_value_seed(self.seed)?);
            }
        }
        Ok((picked, others))
    }
}
