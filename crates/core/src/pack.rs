//! A compact form of values in bytes.
//!
//! A struct is a set of bits, one a field, followed by those fields that are not empty: `None`, `false`, zero and the
//! like take no bytes. Numbers are as long as they need to be.
//!
//! Each `pack` names all fields of its type, so that none is forgotten, and its `unpack` reads them in the same order.
//! Those of types with private fields are beside these types.

mod values;

use crate::facts::Facts;
use std::{sync::Arc, time::Duration};

/// What packs into bytes, and unpacks from them to what it was.
pub trait Pack: Sized {
    /// The value that a struct leaves out.
    fn empty() -> Self;
    /// Whether this is that value.
    fn is_empty(&self) -> bool;
    /// Appends the value.
    fn pack(&self, to: &mut Writer<'_>);
    /// Takes out the value.
    fn unpack(from: &mut Reader<'_>) -> Self;
}

/// Texts of which there are few in all objects: the types of jobs. Each is held once.
#[derive(Debug, Default)]
pub struct Words(Vec<Arc<str>>);

/// So many words are held, of this many bytes at most. Others are packed as they are.
const WORDS: usize = 100;
const WORD_MAX_BYTES: usize = 64;

impl Words {
    /// The number of a word, from 1; 0: it is not held.
    pub fn number_of(&mut self, word: &Arc<str>) -> usize {
        let is_same = |held: &Arc<str>| Arc::ptr_eq(held, word) || held == word;
        if let Some(at) = self.0.iter().position(is_same) {
            return at + 1;
        }
        if self.0.len() == WORDS || word.len() > WORD_MAX_BYTES {
            return 0;
        }
        self.0.push(word.clone());
        self.0.len()
    }

    /// The word of this number.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<&Arc<str>> {
        self.0.get(number.checked_sub(1)?)
    }

    /// How many are held.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Where values are packed.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    words: &'a mut Words,
    /// The facts that were packed last: those of the evidence and the snapshot are mostly the same.
    facts: Option<Arc<Facts>>,
    /// The last time that was packed, from which the next one is told.
    time: Duration,
    /// The last second since the epoch, likewise.
    second: i64,
}

/// Where values are unpacked from.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    words: &'a Words,
    facts: Option<Arc<Facts>>,
    time: Duration,
    second: i64,
}

/// Packs several values as the fields of a struct.
macro_rules! pack_fields {
    ($to:ident, $($field:expr),* $(,)?) => {{
        let mut set = $crate::pack::FieldSet::default();
        $(set.note($crate::pack::Pack::is_empty($field));)*
        set.pack($to);
        $(if !$crate::pack::Pack::is_empty($field) {
            $crate::pack::Pack::pack($field, $to);
        })*
    }};
}
pub(crate) use pack_fields;

/// The inverse of [`pack_fields`]: binds the fields to these names.
macro_rules! unpack_fields {
    ($from:ident, $($field:ident),* $(,)?) => {
        let mut set = $crate::pack::FieldSet::unpack($from);
        $(let $field = set.next($from);)*
    };
}
pub(crate) use unpack_fields;

/// Packs a struct field by field.
macro_rules! pack_struct {
    ($type:ident { $($field:ident),* $(,)? }) => {
        impl $crate::pack::Pack for $type {
            fn empty() -> Self {
                Self { $($field: $crate::pack::Pack::empty()),* }
            }

            fn is_empty(&self) -> bool {
                let Self { $($field),* } = self;
                $($crate::pack::Pack::is_empty($field))&&*
            }

            fn pack(&self, to: &mut $crate::pack::Writer<'_>) {
                let Self { $($field),* } = self;
                $crate::pack::pack_fields!(to, $($field),*);
            }

            fn unpack(from: &mut $crate::pack::Reader<'_>) -> Self {
                $crate::pack::unpack_fields!(from, $($field),*);
                Self { $($field),* }
            }
        }
    };
}
pub(crate) use pack_struct;

/// Which fields of a struct, at most 32, are not empty.
#[derive(Debug, Default)]
pub struct FieldSet {
    bits: u32,
    fields: u32,
}

impl FieldSet {
    /// Adds the next field.
    pub fn note(&mut self, is_empty: bool) {
        self.bits |= u32::from(!is_empty) << self.fields;
        self.fields += 1;
    }

    /// Appends the set.
    pub fn pack(&self, to: &mut Writer<'_>) {
        self.bits.pack(to);
    }

    /// Takes out a set.
    pub fn unpack(from: &mut Reader<'_>) -> Self {
        Self {
            bits: u32::unpack(from),
            fields: 0,
        }
    }

    /// Takes out the next field.
    pub fn next<T: Pack>(&mut self, from: &mut Reader<'_>) -> T {
        let is_there = self.bits & 1 == 1;
        self.bits >>= 1;
        if is_there {
            T::unpack(from)
        } else {
            T::empty()
        }
    }
}

impl<'a> Writer<'a> {
    /// Packs to the end of `bytes`.
    pub fn new(bytes: &'a mut Vec<u8>, words: &'a mut Words) -> Self {
        Self {
            bytes,
            words,
            facts: None,
            time: Duration::ZERO,
            second: 0,
        }
    }

    /// The words that are held.
    pub fn words(&mut self) -> &mut Words {
        self.words
    }

    /// Appends a byte.
    pub fn put(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Appends bytes.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a number and a flag. Small numbers, below zero too, take one byte.
    fn put_flagged(&mut self, number: i64, flag: bool) {
        // Of small numbers below zero the first bits are set.
        let number = (number << 1 ^ number >> 63).cast_unsigned();
        let rest = number >> 6;
        let more = u8::from(rest > 0) << 7;
        self.put(more | (number.to_le_bytes()[0] & 0x3f) << 1 | u8::from(flag));
        if rest > 0 {
            rest.pack(self);
        }
    }

    /// Appends a text: its length and its bytes.
    pub fn put_text(&mut self, text: &str) {
        (text.len() as u64).pack(self);
        self.put_bytes(text.as_bytes());
    }
}

impl<'a> Reader<'a> {
    /// Unpacks from the beginning of `bytes`.
    pub fn new(bytes: &'a [u8], words: &'a Words) -> Self {
        Self {
            bytes,
            words,
            facts: None,
            time: Duration::ZERO,
            second: 0,
        }
    }

    /// The words that are held.
    #[must_use]
    pub fn words(&self) -> &'a Words {
        self.words
    }

    /// Takes out a byte.
    pub fn next(&mut self) -> u8 {
        let byte = self.bytes[0];
        self.bytes = &self.bytes[1..];
        byte
    }

    fn next_flagged(&mut self) -> (i64, bool) {
        let byte = self.next();
        let rest = if byte < 0x80 { 0 } else { u64::unpack(self) };
        let number = u64::from(byte >> 1 & 0x3f) | rest << 6;
        let number = (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
        (number, byte & 1 == 1)
    }

    fn next_bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        bytes
    }

    /// Takes out so many bytes.
    pub fn next_array<const N: usize>(&mut self) -> [u8; N] {
        self.next_bytes(N).try_into().unwrap_or([0; N])
    }

    /// Takes out a text.
    pub fn next_text(&mut self) -> &'a str {
        let length = usize::try_from(u64::unpack(self)).unwrap_or(usize::MAX);
        str::from_utf8(self.next_bytes(length)).unwrap_or_default()
    }
}

/// Enums: the number of the variant, and what it holds. The empty one is the first.
macro_rules! pack_enum {
    ($type:ident { $empty:ident, $($number:literal: $variant:ident $(($inner:ident))?),* $(,)? }
     $(never: $never:pat)?) => {
        impl $crate::pack::Pack for $type {
            fn empty() -> Self {
                Self::$empty
            }

            fn is_empty(&self) -> bool {
                matches!(self, Self::$empty)
            }

            fn pack(&self, to: &mut $crate::pack::Writer<'_>) {
                match self {
                    Self::$empty => to.put(0),
                    $(Self::$variant $(($inner))? => {
                        to.put($number);
                        $($crate::pack::Pack::pack($inner, to);)?
                    })*
                    $($never => to.put(0),)?
                }
            }

            fn unpack(from: &mut $crate::pack::Reader<'_>) -> Self {
                match from.next() {
                    $($number => {
                        $(let $inner = $crate::pack::Pack::unpack(from);)?
                        Self::$variant $(($inner))?
                    })*
                    _ => Self::$empty,
                }
            }
        }
    };
}

pub(crate) use pack_enum;
