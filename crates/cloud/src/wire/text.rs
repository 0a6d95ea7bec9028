//! Texts of others, cleaned for a status or a log: no control characters, no secrets, bounded.

use secrecy::{ExposeSecret, SecretString};
use std::ops::Range;

/// Replaces a secret that an answer repeats.
const REDACTED: &str = "[redacted]";

/// From this number of characters on, a secret is searched for everywhere.
const LONG_SECRET: usize = 8;
/// Secrets with fewer characters are not searched for.
const SHORTEST_SECRET: usize = 4;

/// Removes known secrets from texts, without regard to the case of ASCII letters, as host names lose theirs.
///
/// - No text that it returns holds a secret of 8 characters or more.
/// - Shorter secrets occur inside ordinary words, and the gaps would reveal them. Those of 4 to 7
///   characters are replaced where they are words of their own, between anything but letters, digits,
///   `-` and `_`; in names ([`Self::clean_name`]) and ids they stay. Those of 1 to 3 stay everywhere.
///
/// Job statuses, ids, error codes and job types with a meaning are recognised in the text as it came, so
/// no secret changes what an answer means; only what is shown passes through here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redactor {
    /// In lower case, as are the short ones.
    long: Vec<SecretString>,
    short: Vec<SecretString>,
}

impl Redactor {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut redactor = Self::default();
        secrets.into_iter().for_each(|secret| redactor.push(secret));
        redactor
    }

    /// Adds a secret, in the form that a cleaned text would show.
    pub(crate) fn push(&mut self, secret: &SecretString) {
        let visible = visible(secret.expose_secret());
        let shown = visible.trim();
        let secrets = match shown.chars().count() {
            LONG_SECRET.. => &mut self.long,
            SHORTEST_SECRET.. => &mut self.short,
            _ => return,
        };
        secrets.push(shown.to_ascii_lowercase().into());
    }

    /// `raw` without control characters and secrets, trimmed; `None` if nothing is left.
    pub(crate) fn clean(&self, raw: &str) -> Option<String> {
        // Control characters go first: removing a NUL can join the halves of a secret.
        let text = self.redact(&visible(raw), &self.short);
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// [`Self::clean`], cut to `max_bytes` with an ellipsis in place of what is missing.
    pub(crate) fn clean_bytes(&self, raw: &str, max_bytes: usize) -> Option<String> {
        let mut text = self.clean(raw)?;
        if text.len() > max_bytes {
            let end = max_bytes.saturating_sub('…'.len_utf8());
            text.truncate(text.floor_char_boundary(end));
            text.push('…');
        }
        Some(text)
    }

    /// [`Self::clean`], cut to `max_chars` characters, without space at the cut.
    pub(crate) fn clean_chars(&self, raw: &str, max_chars: usize) -> Option<String> {
        self.clean(raw).map(|text| cut(text, max_chars))
    }

    /// The name of a host or a cloud, which is known anyway: only long secrets are removed. At most
    /// `max_chars` characters.
    pub(crate) fn clean_name(&self, raw: &str, max_chars: usize) -> String {
        let name = self.redact(&visible(raw), &[]);
        cut(name.trim().to_owned(), max_chars)
    }

    /// Whether a word, such as an id, holds a long secret and so must not be shown.
    pub(crate) fn is_in(&self, word: &str) -> bool {
        let word = word.to_ascii_lowercase();
        let mut secrets = self.long.iter();
        secrets.any(|secret| word.contains(secret.expose_secret()))
    }

    /// Replaces the long secrets, and those of `short` that are words of their own.
    fn redact(&self, text: &str, short: &[SecretString]) -> String {
        // As long as the text, byte for byte.
        let lower = text.to_ascii_lowercase();
        let occurrences = |secret: &SecretString| -> Vec<Range<usize>> {
            let found = lower.match_indices(secret.expose_secret());
            found.map(|(at, found)| at..at + found.len()).collect()
        };
        let short = short.iter().flat_map(occurrences);
        let mut hidden: Vec<_> = short.filter(|range| is_word(text, range)).collect();
        hidden.extend(self.long.iter().flat_map(occurrences));
        hidden.sort_unstable_by_key(|range| range.start);

        let (mut redacted, mut end) = (String::with_capacity(text.len()), 0);
        for range in hidden {
            // Secrets may overlap: then one replacement stands for both.
            if range.start >= end {
                redacted.push_str(&text[end..range.start]);
                redacted.push_str(REDACTED);
            }
            end = end.max(range.end);
        }
        redacted.push_str(&text[end..]);
        redacted
    }
}

fn is_word(text: &str, range: &Range<usize>) -> bool {
    let continues = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    !text[..range.start].ends_with(continues) && !text[range.end..].starts_with(continues)
}

fn cut(mut text: String, max_chars: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(max_chars) {
        text.truncate(text[..end].trim_end().len());
    }
    text
}

/// Drops what cannot be seen and could deceive a terminal or a reader; line breaks and tabs become spaces.
fn visible(raw: &str) -> String {
    raw.chars()
        .filter_map(|c| match c {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => Some(' '),
            c => (!c.is_control() && !is_invisible(c)).then_some(c),
        })
        .collect()
}

/// Unicode's characters without a glyph of their own (`Default_Ignorable_Code_Point`): bidirectional
/// controls, zero-width characters, variation selectors, the byte order mark and the like.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}'
        | '\u{FFF0}'..='\u{FFF8}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secret: &str) -> Redactor {
        Redactor::new([&SecretString::from(secret)])
    }

    #[test]
    fn control_and_bidi_characters_are_dropped_and_lines_joined() {
        let clean = Redactor::default().clean(" a\u{0}b\u{1b}[31m\r\nc\u{202e}d\u{feff} ");
        assert_eq!(clean.as_deref(), Some("ab[31m  cd"));
        assert_eq!(Redactor::default().clean("\u{0}\u{7}\u{200b}  "), None);
    }

    #[test]
    fn a_long_text_is_cut_on_a_character_boundary_with_an_ellipsis() {
        let text = Redactor::default()
            .clean_bytes(&"ä".repeat(1000), 64)
            .unwrap();
        assert!(text.len() <= 64 && text.ends_with('…'), "{text}");
        let exact = "x".repeat(64);
        assert_eq!(Redactor::default().clean_bytes(&exact, 64), Some(exact));
    }

    #[test]
    fn secrets_are_redacted_also_when_split_by_control_characters_or_at_the_cut() {
        let redactor = redactor("canary-token");
        assert_eq!(
            redactor.clean("x canary-token y").as_deref(),
            Some("x [redacted] y")
        );
        assert_eq!(
            redactor.clean("x canary\u{0}-token").as_deref(),
            Some("x [redacted]")
        );
        let cut = redactor
            .clean_bytes(&format!("{}canary-token", "x".repeat(20)), 28)
            .unwrap();
        assert!(!cut.contains("canary"), "{cut}");
    }

    #[test]
    fn a_long_secret_is_found_everywhere_in_any_case() {
        for text in [
            "Canary-7F3A",
            "xcanary-7f3ax",
            "ims.CANARY-7f3a.example.com",
            "canary\u{ad}-7f3a",
        ] {
            for secret in ["canary-7f3a", "CANARY-7F3A", " canary-7f3a\n"] {
                let redactor = redactor(secret);
                let clean = redactor.clean(text).unwrap().to_lowercase();
                let name = redactor.clean_name(text, 64).to_lowercase();
                for shown in [clean, name] {
                    assert!(
                        !shown.contains("canary") && shown.contains("[redacted]"),
                        "{shown}"
                    );
                }
            }
            assert_eq!(
                redactor("canary-7f3a").is_in(text),
                !text.contains('\u{ad}')
            );
        }
    }

    #[test]
    fn a_short_secret_is_replaced_as_a_word_of_prose_only() {
        for (secret, text, expected) in [
            ("a", "a bad day", "a bad day"),
            ("bad", "a bad day", "a bad day"),
            ("hunter2", "it was hunter2.", "it was [redacted]."),
            ("hunter2", "(HUNTER2) hunter2", "([redacted]) [redacted]"),
            (
                "hunter2",
                "hunter2x xhunter2 é hunter2é",
                "hunter2x xhunter2 é hunter2é",
            ),
            (
                "1ab4",
                "image 1ab4-df10 and df10_1ab4",
                "image 1ab4-df10 and df10_1ab4",
            ),
        ] {
            let redactor = redactor(secret);
            assert_eq!(redactor.clean(text).as_deref(), Some(expected), "{secret}");
            assert_eq!(redactor.clean_name(text, 64), text, "{secret}");
            assert!(!redactor.is_in(text), "{secret}");
        }
    }

    #[test]
    fn secrets_that_overlap_or_hold_each_other_leave_nothing() {
        let secrets =
            ["canary-7f3a", "canary-7f3a-long", "7f3a-longer", "redacted"].map(SecretString::from);
        let redactor = Redactor::new(&secrets);
        for (text, expected) in [
            ("<canary-7f3a-long>", "<[redacted]>"),
            ("<canary-7f3a-longer>", "<[redacted]>"),
            ("canary-7f3acanary-7f3a", "[redacted][redacted]"),
            ("canary-7f3a and redacted", "[redacted] and [redacted]"),
        ] {
            assert_eq!(redactor.clean(text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_text_is_cut_at_a_number_of_characters_without_space_at_the_cut() {
        let redactor = Redactor::default();
        assert_eq!(redactor.clean_chars("äöü", 3).as_deref(), Some("äöü"));
        assert_eq!(redactor.clean_chars("äö  ü", 4).as_deref(), Some("äö"));
        assert_eq!(redactor.clean_name(" äöü ", 2), "äö");
    }
}
