//! `clouds.yaml` as users of `OpenStack` tools have it: from YAML to the raw values of one entry.
//! [`super::fields`] has their names, [`super::entry`] gives them their meaning.
//!
//! Other entries are skipped, whatever mistakes they hold, as long as the document is YAML at all. No message
//! repeats a value: any of them may be a secret in the wrong place, so the YAML library's own error texts are not
//! used either.

use super::{
    MAX_CLOUDS_YAML_BYTES, MAX_ENTRY_BYTES, Place,
    fields::{self, Field, SPELLINGS},
};
use crate::{outcome::configuration_error, secret::Secret, wire::text::Redactor};
use image_export_model::{ConfigurationError, ConfigurationReason};
use secrecy::ExposeSecret;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{DuplicateKeyPolicy, Spanned, Tagged, budget::BudgetBreach};
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
    if yaml.len() > MAX_CLOUDS_YAML_BYTES {
        return Err(invalid(&format!(
            "has {} bytes, and at most {MAX_CLOUDS_YAML_BYTES} are read; keep only the entries that are used",
            yaml.len()
        )));
    }
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

/// Permits thousands of clouds. Aliases stand for copies, which the parser keeps and replays: they may not
/// make more than a few times the longest file of it, however deep they are nested. Repeated keys are judged
/// here, as those of other entries do not matter.
fn options() -> serde_saphyr::Options {
    const MAX_EVENTS: usize = 200_000;
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_nodes: MAX_EVENTS / 2,
            max_events: MAX_EVENTS,
            max_recorded_anchor_events: 20_000,
            max_recorded_anchor_bytes: 4 * MAX_CLOUDS_YAML_BYTES,
            max_total_scalar_bytes: 8 * MAX_CLOUDS_YAML_BYTES,
            // Defaults for hundreds of clouds are one anchor with as many aliases.
            enforce_alias_anchor_ratio: false,
        },
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
    if unfolds_too_far(error) {
        return format!("repeats too much by aliases{position}; write out what the entry needs");
    }
    format!(
        "is not valid YAML, or has a repeated key, or a text, list or map where another of these belongs{position}"
    )
}

/// Whether the budget of [`options`] is exceeded, which a file of permitted length can do by its aliases alone.
fn unfolds_too_far(error: &serde_saphyr::Error) -> bool {
    use serde_saphyr::Error;
    match error {
        Error::AliasError { error, .. } => unfolds_too_far(error),
        Error::Budget { breach, .. } => !matches!(breach, BudgetBreach::Depth { .. }),
        Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => {
            true
        }
        _ => false,
    }
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
    values: BTreeMap<Field, (Precedence, Secret)>,
    /// All secrets of the entry, whichever of them it uses.
    secrets: Vec<Secret>,
    /// The length of all its texts but certificates, used or not.
    bytes: usize,
    /// The first text that is longer than its field permits, with its length. Such texts are not kept.
    too_long: Option<(Field, usize)>,
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
        let text = self.exact(field)?;
        let text = text.expose_secret().trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Takes out a secret exactly as written; blank counts as absent.
    pub(crate) fn secret(&mut self, field: Field) -> Option<Secret> {
        self.exact(field).filter(|secret| !is_blank(secret))
    }

    fn exact(&mut self, field: Field) -> Option<Secret> {
        self.values.remove(&field).map(|(_, value)| value)
    }

    /// Whether there is a value that is not blank.
    pub(crate) fn has(&self, field: Field) -> bool {
        let value = self.values.get(&field);
        value.is_some_and(|(_, value)| !is_blank(value))
    }

    /// A secret's field with such a value.
    pub(crate) fn find_secret(&self, is: impl Fn(&str) -> bool) -> Option<Field> {
        let is_secret = |field: &Field| SPELLINGS[*field as usize].is_secret;
        let mut secrets = self.values.iter().filter(|(field, _)| is_secret(field));
        let found = secrets.find(|(_, (_, value))| is(value.expose_secret().trim_start()));
        found.map(|(field, _)| *field)
    }

    /// The text before the first `_` of the project's name, which is its region; that of a delegated project
    /// goes first.
    pub(crate) fn region_of_project(&self) -> Option<String> {
        let named = |field| {
            self.values
                .get(&field)
                .map(|(_, name)| name.expose_secret().trim())
        };
        let project = named(Field::DelegatedProject).or_else(|| named(Field::ProjectName))?;
        let region = project.split('_').next()?;
        (!region.is_empty()).then(|| region.to_owned())
    }

    pub(crate) fn redactor(&self) -> Redactor {
        let mut redactor = Redactor::default();
        self.secrets
            .iter()
            .for_each(|secret| redactor.share(secret));
        redactor
    }

    /// A text that is longer than its field permits, with its length.
    pub(crate) fn too_long(&self) -> Option<(Field, usize)> {
        self.too_long
    }

    /// The length of all texts, if there are more than an entry may hold.
    pub(crate) fn too_many_bytes(&self) -> Option<usize> {
        (self.bytes > MAX_ENTRY_BYTES).then_some(self.bytes)
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
        if value.len() > row.field.max_bytes() {
            self.too_long.get_or_insert((row.field, value.len()));
            return Ok(());
        }
        if row.field != Field::CaCert {
            self.bytes += value.len();
        }
        let value = Secret::from(value);
        if row.is_secret && self.too_many_bytes().is_none() {
            self.secrets.push(value.clone());
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
        let counts = |(at, value): &(Precedence, Secret)| (!is_blank(value), *at);
        let read = (precedence, value);
        if present.is_none_or(|present| counts(present) < counts(&read)) {
            self.values.insert(row.field, read);
        }
        Ok(())
    }
}

fn is_blank(text: &Secret) -> bool {
    text.expose_secret().trim().is_empty()
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
