//! Objects packed into bytes: all that a [`Job`] holds while nothing is under way for it.
//!
//! A struct is a set of bits, one a field, followed by those fields that are not empty: `None`, `false`, zero and the
//! like take no bytes. Numbers are as long as they need to be. Ids of 16 bytes and resource versions, which the API
//! shows as text, are packed as numbers where that text is their usual form.
//!
//! Each `pack` names all fields of its type, so that none is forgotten, and its `unpack` reads them in the same order.
//! Those of types with private fields are beside them.

use crate::{
    cadence,
    effects::ObjectKey,
    facts::{Cause, Facts},
    job::{Job, Plan, PollStage, Polling},
    keys::{GroupKey, HostKey, SecretKey},
    phase::{Detail, Phase},
    time::{Due, nanos},
    totals::Tally,
};
use image_export_model::{ConfigurationReason, JobId, JobState};
use slotmap::{Key, KeyData};
use std::{num::NonZeroU32, sync::Arc, time::Duration};

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

/// Where values are packed.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    /// The facts that were packed last: those of the evidence and the snapshot are mostly the same.
    facts: Option<Arc<Facts>>,
}

/// Where values are unpacked from.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    facts: Option<Arc<Facts>>,
}

/// Packs several values as the fields of a struct.
macro_rules! pack_fields {
    ($to:ident, $($field:expr),* $(,)?) => {{
        let mut set = $crate::packed::FieldSet::default();
        $(set.note($crate::packed::Pack::is_empty($field));)*
        set.pack($to);
        $(if !$crate::packed::Pack::is_empty($field) {
            $crate::packed::Pack::pack($field, $to);
        })*
    }};
}
pub(crate) use pack_fields;

/// The inverse of [`pack_fields`]: binds the fields to these names.
macro_rules! unpack_fields {
    ($from:ident, $($field:ident),* $(,)?) => {
        let mut set = $crate::packed::FieldSet::unpack($from);
        $(let $field = set.next($from);)*
    };
}
pub(crate) use unpack_fields;

/// Packs a struct field by field.
macro_rules! pack_struct {
    ($type:ident { $($field:ident),* $(,)? }) => {
        impl $crate::packed::Pack for $type {
            fn empty() -> Self {
                Self { $($field: $crate::packed::Pack::empty()),* }
            }

            fn is_empty(&self) -> bool {
                let Self { $($field),* } = self;
                $($crate::packed::Pack::is_empty($field))&&*
            }

            fn pack(&self, to: &mut $crate::packed::Writer<'_>) {
                let Self { $($field),* } = self;
                $crate::packed::pack_fields!(to, $($field),*);
            }

            fn unpack(from: &mut $crate::packed::Reader<'_>) -> Self {
                $crate::packed::unpack_fields!(from, $($field),*);
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

/// A packed object, but for its namespace.
#[derive(Debug)]
pub struct Packed(Box<[u8]>);

impl Packed {
    /// Packs an object, unless something is under way for it. `buffer`: where, its content is overwritten.
    #[must_use]
    pub fn pack(job: &Job, buffer: &mut Vec<u8>) -> Option<Self> {
        if matches!(job.polling.stage, PollStage::InFlight(_)) || !job.sync.is_at_rest() {
            return None;
        }
        buffer.clear();
        let to = &mut Writer {
            bytes: buffer,
            facts: None,
        };
        let Job {
            key: ObjectKey { namespace: _, name },
            uid,
            seed: _,
            generation,
            id,
            period_seconds,
            suspended,
            is_being_deleted,
            limits,
            secret,
            group,
            evidence,
            answered_at,
            pending_at,
            polling,
            sync,
            handled_request,
            reported_request,
            timer,
            tally,
        } = job;
        to.put_raw(name);
        uid.pack(to);
        to.put_text(id.as_str());
        pack_fields!(
            to,
            generation,
            period_seconds,
            suspended,
            is_being_deleted,
            limits,
            secret,
            group,
            evidence,
            answered_at,
            pending_at,
            polling,
            sync,
            handled_request,
            reported_request,
            timer,
            tally,
        );
        Some(Self(buffer.as_slice().into()))
    }

    /// The object that was packed.
    #[must_use]
    pub fn unpack(&self, namespace: &Arc<str>) -> Box<Job> {
        let from = &mut Reader {
            bytes: &self.0,
            facts: None,
        };
        let name = from.take_raw().into();
        let uid: Arc<str> = Arc::unpack(from);
        let id = from.take_text(str::parse::<JobId>);
        unpack_fields!(
            from,
            generation,
            period_seconds,
            suspended,
            is_being_deleted,
            limits,
            secret,
            group,
            evidence,
            answered_at,
            pending_at,
            polling,
            sync,
            handled_request,
            reported_request,
            timer,
            tally,
        );
        Box::new(Job {
            key: ObjectKey {
                namespace: namespace.clone(),
                name,
            },
            seed: cadence::seed(&uid),
            uid,
            generation,
            id: id.expect("the id was valid"),
            period_seconds,
            suspended,
            is_being_deleted,
            limits,
            secret,
            group,
            evidence,
            answered_at,
            pending_at,
            polling,
            sync,
            handled_request,
            reported_request,
            timer,
            tally,
        })
    }

    /// The name of the object.
    #[must_use]
    pub fn name(&self) -> &str {
        let from = &mut Reader {
            bytes: &self.0,
            facts: None,
        };
        from.take_raw()
    }
}

pack_struct!(Polling {
    stage,
    waits_since,
    wanted,
    earliest,
    plan,
    interval,
    counted,
    followed,
    failed_at,
    counts_as_new,
    image_id_at,
});

pack_struct!(Facts {
    job_status,
    job_type,
    image_id,
    fail_reason,
    error_code,
    progress,
    start,
    completion,
});

pack_struct!(Tally {
    shown,
    answered,
    is_waiting,
    is_overdue,
    is_unwritten,
    secret,
    is_unfinished,
    is_polled,
    awaits_secret,
});

/// The first byte of a text: its length, or one of these.
const LONG: u8 = 252;
/// A number without leading zeros.
const NUMBER: u8 = 253;
/// 32 hexadecimal digits.
const HEX: u8 = 254;
/// The same as a UUID.
const UUID: u8 = 255;
/// Where a UUID has its dashes.
const DASHES: [usize; 4] = [8, 13, 18, 23];
const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl Writer<'_> {
    fn put(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn put_raw(&mut self, text: &str) {
        match u8::try_from(text.len()) {
            Ok(length) if length < LONG => self.put(length),
            _ => {
                self.put(LONG);
                (text.len() as u64).pack(self);
            }
        }
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn put_text(&mut self, text: &str) {
        match *text.as_bytes() {
            [b'1'..=b'9', ..] if text.len() < 20 && text.bytes().all(|b| b.is_ascii_digit()) => {
                self.put(NUMBER);
                text.parse::<u64>().unwrap_or_default().pack(self);
            }
            _ => match id_of(text) {
                Some((form, id)) => {
                    self.put(form);
                    self.bytes.extend_from_slice(&id);
                }
                None => self.put_raw(text),
            },
        }
    }
}

/// The 16 bytes that a text shows, and in which form.
fn id_of(text: &str) -> Option<(u8, [u8; 16])> {
    let (text, mut id) = (text.as_bytes(), [0; 16]);
    let form = match text.len() {
        32 => HEX,
        36 if DASHES.iter().all(|at| text[*at] == b'-') => UUID,
        _ => return None,
    };
    let mut at = 0;
    for byte in &mut id {
        at += usize::from(form == UUID && DASHES.contains(&at));
        *byte = digit(text[at])? << 4 | digit(text[at + 1])?;
        at += 2;
    }
    Some((form, id))
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> u8 {
        let byte = self.bytes[0];
        self.bytes = &self.bytes[1..];
        byte
    }

    fn next_bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        bytes
    }

    fn take_raw(&mut self) -> &'a str {
        let form = self.next();
        self.take_raw_of(form)
    }

    fn take_raw_of(&mut self, form: u8) -> &'a str {
        let length = match form {
            LONG => usize::try_from(u64::unpack(self)).unwrap_or(usize::MAX),
            length => length.into(),
        };
        str::from_utf8(self.next_bytes(length)).expect("it was a text")
    }

    fn take_text<T>(&mut self, make: impl FnOnce(&str) -> T) -> T {
        let form = self.next();
        match form {
            NUMBER => make(&u64::unpack(self).to_string()),
            HEX | UUID => {
                let (mut text, mut at) = ([b'-'; 36], 0);
                for byte in self.next_bytes(16) {
                    at += usize::from(form == UUID && DASHES.contains(&at));
                    text[at] = DIGITS[usize::from(byte >> 4)];
                    text[at + 1] = DIGITS[usize::from(byte & 15)];
                    at += 2;
                }
                make(str::from_utf8(&text[..at]).expect("digits are ASCII"))
            }
            form => make(self.take_raw_of(form)),
        }
    }
}

impl Pack for u64 {
    fn empty() -> Self {
        0
    }

    fn is_empty(&self) -> bool {
        *self == 0
    }

    /// Seven bits a byte, the lowest first; the eighth is set in all but the last.
    fn pack(&self, to: &mut Writer<'_>) {
        let mut rest = *self;
        while rest > 0x7f {
            to.put(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        to.put(rest.to_le_bytes()[0]);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = from.next();
            number |= Self::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return number;
            }
            shift += 7;
        }
    }
}

/// Types that pack as another one.
macro_rules! pack_as {
    ($($type:ty, as $other:ty, empty: $empty:expr, |$value:ident| $to:expr, |$packed:ident| $from:expr;)*) => {$(
        impl Pack for $type {
            fn empty() -> Self {
                $empty
            }

            fn is_empty(&self) -> bool {
                *self == $empty
            }

            fn pack(&self, to: &mut Writer<'_>) {
                let $value = self;
                let other: $other = $to;
                other.pack(to);
            }

            fn unpack(from: &mut Reader<'_>) -> Self {
                let $packed = <$other>::unpack(from);
                $from
            }
        }
    )*};
}

pack_as! {
    u8, as u64, empty: 0, |n| (*n).into(), |n| n.to_le_bytes()[0];
    u32, as u64, empty: 0, |n| (*n).into(), |n| u32::try_from(n).unwrap_or(u32::MAX);
    // Of small numbers below zero the first bits are set.
    i64, as u64, empty: 0, |n| (n << 1 ^ n >> 63).cast_unsigned(),
        |n| (n >> 1).cast_signed() ^ -(n & 1).cast_signed();
    NonZeroU32, as u32, empty: Self::MIN, |n| n.get(), |n| Self::new(n).unwrap_or(Self::MIN);
    SecretKey, as KeyData, empty: Self::null(), |key| key.data(), |key| key.into();
    GroupKey, as KeyData, empty: Self::null(), |key| key.data(), |key| key.into();
    HostKey, as KeyData, empty: Self::null(), |key| key.data(), |key| key.into();
    Phase, as u8, empty: Self::ALL[0], |phase| *phase as u8, |n| Self::ALL[usize::from(n)];
}

impl Pack for KeyData {
    fn empty() -> Self {
        Self::default()
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The generation is in the upper half.
    fn pack(&self, to: &mut Writer<'_>) {
        let key = self.as_ffi();
        (key & u64::from(u32::MAX)).pack(to);
        (key >> 32).pack(to);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let index = u64::unpack(from);
        Self::from_ffi(index | u64::unpack(from) << 32)
    }
}

/// A field is set or empty, and so has no bytes of its own.
impl Pack for bool {
    fn empty() -> Self {
        false
    }

    fn is_empty(&self) -> bool {
        !self
    }

    fn pack(&self, _: &mut Writer<'_>) {}

    fn unpack(_: &mut Reader<'_>) -> Self {
        true
    }
}

impl<T: Pack> Pack for Option<T> {
    fn empty() -> Self {
        None
    }

    fn is_empty(&self) -> bool {
        self.is_none()
    }

    /// Only what is not empty is packed.
    fn pack(&self, to: &mut Writer<'_>) {
        if let Some(value) = self {
            value.pack(to);
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        Some(T::unpack(from))
    }
}

impl Pack for f32 {
    fn empty() -> Self {
        0.0
    }

    fn is_empty(&self) -> bool {
        self.to_bits() == 0
    }

    fn pack(&self, to: &mut Writer<'_>) {
        to.bytes.extend_from_slice(&self.to_le_bytes());
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let bytes = from.next_bytes(4);
        Self::from_le_bytes(bytes.try_into().unwrap_or_default())
    }
}

/// In nanoseconds.
impl Pack for Duration {
    fn empty() -> Self {
        Self::ZERO
    }

    fn is_empty(&self) -> bool {
        self.is_zero()
    }

    fn pack(&self, to: &mut Writer<'_>) {
        to.bytes.extend_from_slice(&nanos(*self).to_le_bytes());
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let bytes = from.next_bytes(8);
        Self::from_nanos(u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }
}

impl Pack for Arc<str> {
    fn empty() -> Self {
        Self::default()
    }

    fn is_empty(&self) -> bool {
        str::is_empty(self)
    }

    fn pack(&self, to: &mut Writer<'_>) {
        to.put_text(self);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        from.take_text(|text| text.into())
    }
}

impl Pack for Arc<[Box<str>]> {
    fn empty() -> Self {
        Self::default()
    }

    fn is_empty(&self) -> bool {
        <[_]>::is_empty(self)
    }

    fn pack(&self, to: &mut Writer<'_>) {
        (self.len() as u64).pack(to);
        for text in &**self {
            to.put_raw(text);
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let count = u64::unpack(from);
        (0..count).map(|_| from.take_raw().into()).collect()
    }
}

/// Facts that are shared stay shared.
impl Pack for Arc<Facts> {
    fn empty() -> Self {
        Self::default()
    }

    fn is_empty(&self) -> bool {
        false
    }

    fn pack(&self, to: &mut Writer<'_>) {
        match &to.facts {
            Some(facts) if facts == self => to.put(0),
            _ => {
                to.put(1);
                Facts::pack(self, to);
                to.facts = Some(self.clone());
            }
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        match (from.next(), &from.facts) {
            (0, Some(facts)) => facts.clone(),
            _ => {
                let facts = Self::new(Facts::unpack(from));
                from.facts = Some(facts.clone());
                facts
            }
        }
    }
}

/// Enums: the number of the variant, and what it holds. The empty one is the first.
macro_rules! pack_enum {
    ($type:ident { $empty:ident, $($number:literal: $variant:ident $(($inner:ident))?),* $(,)? }
     $(never: $never:pat)?) => {
        impl Pack for $type {
            fn empty() -> Self {
                Self::$empty
            }

            fn is_empty(&self) -> bool {
                matches!(self, Self::$empty)
            }

            fn pack(&self, to: &mut Writer<'_>) {
                match self {
                    Self::$empty => to.put(0),
                    $(Self::$variant $(($inner))? => {
                        to.put($number);
                        $($inner.pack(to);)?
                    })*
                    $($never => to.put(0),)?
                }
            }

            fn unpack(from: &mut Reader<'_>) -> Self {
                match from.next() {
                    $($number => {
                        $(let $inner = Pack::unpack(from);)?
                        Self::$variant $(($inner))?
                    })*
                    _ => Self::$empty,
                }
            }
        }
    };
}

pack_enum!(PollStage { Off, 1: Scheduled(at), 2: AwaitingSecret, 3: Queued(due) } never: Self::InFlight(_));
pack_enum!(Due { Requested, 1: Since(at) });
pack_enum!(JobState { Init, 1: Running, 2: Success, 3: Fail, 4: Unrecognized(status) });
pack_enum!(Cause { Stored, 1: Observed(text) });

impl Pack for Plan {
    fn empty() -> Self {
        Self::Paced(Duration::ZERO)
    }

    fn is_empty(&self) -> bool {
        *self == Self::empty()
    }

    fn pack(&self, to: &mut Writer<'_>) {
        let (number, at) = match self {
            Self::At(at) => (0, at),
            Self::Paced(at) => (1, at),
            Self::Retry { at, .. } => (2, at),
        };
        to.put(number);
        at.pack(to);
        if let Self::Retry { earliest, .. } = self {
            earliest.pack(to);
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let (number, at) = (from.next(), Duration::unpack(from));
        match number {
            0 => Self::At(at),
            1 => Self::Paced(at),
            _ => Self::Retry {
                at,
                earliest: Duration::unpack(from),
            },
        }
    }
}

/// A configuration error, as its phase and its cause.
impl Pack for (ConfigurationReason, Cause) {
    fn empty() -> Self {
        (ConfigurationReason::CredentialsNotFound, Cause::Stored)
    }

    fn is_empty(&self) -> bool {
        false
    }

    fn pack(&self, to: &mut Writer<'_>) {
        Phase::from(self.0).pack(to);
        self.1.pack(to);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let (phase, cause) = (Phase::unpack(from), Cause::unpack(from));
        match phase.row().detail {
            Detail::Configuration(reason) => (reason, cause),
            _ => Self::empty(),
        }
    }
}
