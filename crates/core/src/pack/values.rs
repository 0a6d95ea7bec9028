//! How single values are packed.

use super::{Pack, Reader, Writer};
use crate::{
    compact::Compact,
    facts::Facts,
    keys::{GroupKey, HostKey, SecretKey},
    phase::Phase,
};
use slotmap::{Key, KeyData};
use std::{num::NonZeroU32, sync::Arc, time::Duration};

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
        to.put_bytes(&self.to_le_bytes());
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        Self::from_le_bytes(from.next_array())
    }
}

/// Seconds since the epoch as those since the ones before, other numbers as they are: whichever is less. The first has
/// none before.
impl Pack for i64 {
    fn empty() -> Self {
        0
    }

    fn is_empty(&self) -> bool {
        *self == 0
    }

    fn pack(&self, to: &mut Writer<'_>) {
        let since = self.wrapping_sub(to.second);
        let is_second = since.unsigned_abs() <= self.unsigned_abs();
        to.put_flagged(if is_second { since } else { *self }, is_second);
        if is_second {
            to.second = *self;
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let (number, is_second) = from.next_flagged();
        if !is_second {
            return number;
        }
        from.second = from.second.wrapping_add(number);
        from.second
    }
}

/// The seconds since the one before, and the nanoseconds where they differ from its: the times of an object are mostly
/// whole seconds apart.
impl Pack for Duration {
    fn empty() -> Self {
        Self::ZERO
    }

    fn is_empty(&self) -> bool {
        self.is_zero()
    }

    fn pack(&self, to: &mut Writer<'_>) {
        let before = std::mem::replace(&mut to.time, *self);
        let seconds = self.as_secs().wrapping_sub(before.as_secs());
        let differs = self.subsec_nanos() != before.subsec_nanos();
        to.put_flagged(seconds.cast_signed(), differs);
        if differs {
            to.put_bytes(&self.subsec_nanos().to_le_bytes());
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let (seconds, differs) = from.next_flagged();
        let seconds = seconds.cast_unsigned();
        let nanos = if differs {
            u32::from_le_bytes(from.next_array())
        } else {
            from.time.subsec_nanos()
        };
        from.time = Self::new(from.time.as_secs().wrapping_add(seconds), nanos);
        from.time
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
        from.next_text().into()
    }
}

impl Pack for Compact {
    fn empty() -> Self {
        Self::Number(0)
    }

    fn is_empty(&self) -> bool {
        *self == Self::empty()
    }

    fn pack(&self, to: &mut Writer<'_>) {
        match self {
            Self::Number(number) => {
                to.put(0);
                number.pack(to);
            }
            Self::Uuid(id) => {
                to.put(1);
                to.put_bytes(id);
            }
            Self::Hex(id) => {
                to.put(2);
                to.put_bytes(id);
            }
            Self::Text(text) => {
                to.put(3);
                to.put_text(text);
            }
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        match from.next() {
            0 => Self::Number(u64::unpack(from)),
            1 => Self::Uuid(from.next_array()),
            2 => Self::Hex(from.next_array()),
            _ => Self::Text(from.next_text().into()),
        }
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
            to.put_text(text);
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let count = u64::unpack(from);
        (0..count).map(|_| from.next_text().into()).collect()
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
        let is_same = from.next() == 0;
        if let Some(facts) = from.facts.clone().filter(|_| is_same) {
            return facts;
        }
        let facts = Self::new(Facts::unpack(from));
        from.facts = Some(facts.clone());
        facts
    }
}
