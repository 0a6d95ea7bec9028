//! Texts that are mostly numbers or ids, in the bytes of those.

use std::{fmt, sync::Arc};

/// A text: as a number or an id where it has the usual form of one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compact {
    /// A decimal number without leading zeros, as resource versions are.
    Number(u64),
    /// A UUID, in small letters.
    Uuid([u8; 16]),
    /// 32 hexadecimal digits, in small letters.
    Hex([u8; 16]),
    /// Anything else.
    Text(Arc<str>),
}

/// Where a UUID has its dashes.
const DASHES: [usize; 4] = [8, 13, 18, 23];
const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl Compact {
    /// Calls `look` with the text.
    pub fn look<T>(&self, look: impl FnOnce(&str) -> T) -> T {
        let mut buffer = [b'-'; 36];
        let (id, dashes): (&[u8; 16], &[usize]) = match self {
            Self::Number(number) => return look(&number.to_string()),
            Self::Text(text) => return look(text),
            Self::Uuid(id) => (id, &DASHES),
            Self::Hex(id) => (id, &[]),
        };
        let mut at = 0;
        for byte in id {
            at += usize::from(dashes.contains(&at));
            buffer[at] = DIGITS[usize::from(byte >> 4)];
            buffer[at + 1] = DIGITS[usize::from(byte & 15)];
            at += 2;
        }
        look(str::from_utf8(&buffer[..at]).unwrap_or_default())
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        match self {
            Self::Text(text) => text.clone(),
            _ => self.look(|text| text.into()),
        }
    }
}

impl From<&str> for Compact {
    fn from(text: &str) -> Self {
        number(text)
            .or_else(|| id(text))
            .unwrap_or_else(|| Self::Text(text.into()))
    }
}

impl PartialEq<str> for Compact {
    fn eq(&self, other: &str) -> bool {
        self.look(|text| text == other)
    }
}

impl fmt::Display for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.look(|text| f.write_str(text))
    }
}

impl fmt::Debug for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.look(|text| fmt::Debug::fmt(text, f))
    }
}

fn number(text: &str) -> Option<Compact> {
    let starts_well = matches!(text.as_bytes(), [b'1'..=b'9', ..] | [b'0']);
    let number = text.parse().ok().filter(|_| starts_well)?;
    Some(Compact::Number(number))
}

fn id(text: &str) -> Option<Compact> {
    let (digits, mut id) = (text.as_bytes(), [0; 16]);
    let dashes: &[usize] = match digits.len() {
        32 => &[],
        36 if DASHES.iter().all(|at| digits[*at] == b'-') => &DASHES,
        _ => return None,
    };
    let mut at = 0;
    for byte in &mut id {
        at += usize::from(dashes.contains(&at));
        *byte = digit(digits[at])? << 4 | digit(digits[at + 1])?;
        at += 2;
    }
    Some(match dashes {
        [] => Compact::Hex(id),
        _ => Compact::Uuid(id),
    })
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn usual_forms_are_compact() {
        let is_text = |text: &str| matches!(Compact::from(text), Compact::Text(_));
        for compact in [
            "0",
            "7",
            "18446744073709551615",
            "7c9e6679-7425-40de-944b-e07fc1f90ae7",
            "ff8080814dbd65d7014dbe0d84db0013",
        ] {
            assert!(!is_text(compact), "{compact}");
        }
        for other in [
            "",
            "00",
            "+7",
            "-7",
            "18446744073709551616",
            "7C9E6679-7425-40DE-944B-E07FC1F90AE7",
            "7c9e6679-7425-40de-944b-e07fc1f90ag7",
            "7c9e6679-7425-40de-944be-07fc1f90ae7",
            "ff8080814dbd65d7014dbe0d84db001",
            "äf8080814dbd65d7014dbe0d84db001",
        ] {
            assert!(is_text(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn each_text_is_kept_to_the_letter(
            text in "[0-9]{0,21}|[0-9a-fA-F]{31,33}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-fG]{4}-[0-9a-f]{11,13}|.{0,40}"
        ) {
            let compact = Compact::from(text.as_str());
            prop_assert_eq!(&*compact.text(), text.as_str());
            prop_assert!(compact == *text);
            prop_assert_eq!(compact.to_string(), text.clone());
            prop_assert_eq!(format!("{compact:?}"), format!("{text:?}"));
        }
    }
}
