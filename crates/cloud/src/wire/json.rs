//! Lenient reading of JSON into what is needed of it. Everything else is skipped, and nothing of it is kept.
//!
//! A [`Read`] says what becomes of a value. Of duplicate keys the last one counts.

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use std::{borrow::Cow, fmt};

/// JSON with or without a byte order mark; `None` for anything else, for nesting beyond `serde_json`'s limit
/// (128 levels) where it is read, and for texts that are no Unicode where they are read.
pub(crate) fn parse<'de, R: Read<'de>>(body: &'de [u8], read: R) -> Option<R::Value> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = As(read).deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(value)
}

/// A value as far as it is neither a list nor an object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(&'a Number),
    Text(&'a str),
    /// A list or an object.
    Other,
}

impl<'a> Scalar<'a> {
    pub(crate) fn as_str(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A trimmed, non-empty string.
    pub(crate) fn string(self) -> Option<&'a str> {
        let text = self.as_str().map(str::trim);
        text.filter(|text| !text.is_empty())
    }

    /// A string, or the spelling of a number or boolean, unless it is blank.
    fn spelling(self) -> Option<Cow<'a, str>> {
        let text: Cow<'a, str> = match self {
            Self::Text(text) => text.into(),
            Self::Number(number) => number.to_string().into(),
            Self::Bool(flag) => flag.to_string().into(),
            Self::Null | Self::Other => return None,
        };
        (!text.trim().is_empty()).then_some(text)
    }
}

/// What becomes of a value. What a reader has no method for counts as [`Scalar::Other`], and is skipped.
pub(crate) trait Read<'de>: Sized {
    type Value;

    fn scalar(self, scalar: Scalar<'_>) -> Self::Value;

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.scalar(Scalar::Other))
    }

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self.scalar(Scalar::Other))
    }
}

/// Lets serde read by a [`Read`].
pub(crate) struct As<R>(pub(crate) R);

impl<'de, R: Read<'de>> DeserializeSeed<'de> for As<R> {
    type Value = R::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<R::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: Read<'de>> Visitor<'de> for As<R> {
    type Value = R::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<R::Value, E> {
        Ok(self.0.scalar(Scalar::Null))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<R::Value, E> {
        Ok(self.0.scalar(Scalar::Bool(flag)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<R::Value, E> {
        Ok(self.0.scalar(Scalar::Number(&number.into())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<R::Value, E> {
        Ok(self.0.scalar(Scalar::Number(&number.into())))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<R::Value, E> {
        let number = Number::from_f64(number).ok_or_else(|| E::custom("not a number"))?;
        Ok(self.0.scalar(Scalar::Number(&number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<R::Value, E> {
        Ok(self.0.scalar(Scalar::Text(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<R::Value, A::Error> {
        self.0.list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<R::Value, A::Error> {
        self.0.object(object)
    }
}

/// Reads a value by a function of it.
pub(crate) struct By<F>(pub(crate) F);

impl<T, F: FnOnce(Scalar<'_>) -> T> Read<'_> for By<F> {
    type Value = T;

    fn scalar(self, scalar: Scalar<'_>) -> T {
        self.0(scalar)
    }
}

/// Reads a text by a function of it: a string, the spelling of a number or boolean, or the `message` of an
/// object. `None` where there is none, or a blank one.
pub(crate) struct Text<F>(pub(crate) F);

impl<'de, T, F: Fn(&str) -> Option<T>> Read<'de> for Text<F> {
    type Value = Option<T>;

    fn scalar(self, scalar: Scalar<'_>) -> Option<T> {
        self.0(&scalar.spelling()?)
    }

    fn object<A: MapAccess<'de>>(self, object: A) -> Result<Option<T>, A::Error> {
        let mut message = Message {
            read: self.0,
            text: None,
        };
        Object(&mut message).object(object)?;
        Ok(message.text)
    }
}

struct Message<T, F> {
    read: F,
    text: Option<T>,
}

impl<'de, T, F: Fn(&str) -> Option<T>> Members<'de> for Message<T, F> {
    const NAMES: &'static [&'static str] = &["message"];

    fn read<A: MapAccess<'de>>(&mut self, _: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        let read = &self.read;
        let of = |scalar: Scalar<'_>| read(scalar.as_str().filter(|text| !text.trim().is_empty())?);
        self.text = value.by(of)?;
        Ok(())
    }
}

/// The members of an object that are read.
pub(crate) trait Members<'de> {
    /// Their names.
    const NAMES: &'static [&'static str];

    /// Reads the member of this name. It may come again, and may be of any type.
    fn read<A: MapAccess<'de>>(&mut self, name: &str, value: Value<'_, A>) -> Result<(), A::Error>;
}

/// The value of a member, still to be read.
pub(crate) struct Value<'m, A>(&'m mut A);

impl<'de, A: MapAccess<'de>> Value<'_, A> {
    pub(crate) fn read<R: Read<'de>>(self, read: R) -> Result<R::Value, A::Error> {
        self.0.next_value_seed(As(read))
    }

    pub(crate) fn by<T>(self, read: impl FnOnce(Scalar<'_>) -> T) -> Result<T, A::Error> {
        self.read(By(read))
    }
}

/// Reads an object into its members. `false` for anything else.
pub(crate) struct Object<'m, M>(pub(crate) &'m mut M);

impl<'de, M: Members<'de>> Read<'de> for Object<'_, M> {
    type Value = bool;

    fn scalar(self, _: Scalar<'_>) -> bool {
        false
    }

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<bool, A::Error> {
        while let Some(name) = object.next_key_seed(OneOf(M::NAMES))? {
            match name {
                Some(name) => self.0.read(name, Value(&mut object))?,
                None => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(true)
    }
}

/// Reads a list: each item into new members, which go to `each`. One that is no object leaves them as they are.
pub(crate) struct Objects<N, E> {
    pub(crate) new: N,
    pub(crate) each: E,
}

impl<'de, M, N, E> Read<'de> for Objects<N, E>
where
    M: Members<'de>,
    N: Fn() -> M,
    E: FnMut(M),
{
    type Value = ();

    fn scalar(self, _: Scalar<'_>) {}

    fn list<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        loop {
            let mut item = (self.new)();
            if list.next_element_seed(As(Object(&mut item)))?.is_none() {
                return Ok(());
            }
            (self.each)(item);
        }
    }
}

/// Reads a key if it is one of these.
struct OneOf(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for OneOf {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for OneOf {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|name| **name == key).copied())
    }
}
