//! Texts of others, cleaned for a status or a log: no control characters, no secrets, bounded.

use crate::secret::Secret;
use secrecy::{ExposeSecret, SecretString};
use std::ops::Range;

/// Replaces a secret that an answer repeats.
const REDACTED: &str = "[redacted]";

/// From this number of characters on, a secret is searched for everywhere.
const LONG_SECRET: usize = 8;
/// Secrets with fewer characters are not searched for.
const SHORTEST_SECRET: usize = 4;
/// No more of a text is cleaned, in bytes without what cannot be seen: no more is ever shown.
const LONGEST_CLEANED: usize = 8 * 1024;

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
    long: Vec<Secret>,
    short: Vec<Secret>,
}

impl Redactor {
    #[cfg(any(test, fuzzing))]
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut redactor = Self::default();
        secrets.into_iter().for_each(|secret| redactor.push(secret));
        redactor
    }

    /// Adds a secret.
    pub(crate) fn push(&mut self, secret: &SecretString) {
        self.share(&secret.clone().into());
    }

    /// Adds a secret in the form that a cleaned text would show. It is copied only where that is another
    /// form than its own.
    pub(crate) fn share(&mut self, secret: &Secret) {
        let written = secret.expose_secret();
        let visible = SecretString::from(visible(written, usize::MAX));
        let shown = visible.expose_secret().trim();
        let secrets = match shown.chars().count() {
            LONG_SECRET.. => &mut self.long,
            SHORTEST_SECRET.. => &mut self.short,
            _ => return,
        };
        if secrets.iter().all(|known| known.expose_secret() != shown) {
            let is_own = shown == written;
            secrets.push(if is_own { secret.clone() } else { shown.into() });
        }
    }

    /// The secrets that it holds.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.long.iter().chain(&self.short)
    }

    /// The start of `raw` without control characters and secrets, trimmed; `None` if nothing is left.
    pub(crate) fn clean(&self, raw: &str) -> Option<String> {
        let text = self.redacted(raw, &self.short);
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
        let name = self.redacted(raw, &[]);
        cut(name.trim().to_owned(), max_chars)
    }

    /// Whether a word, such as an id, holds a long secret and so must not be shown.
    pub(crate) fn is_in(&self, word: &str) -> bool {
        let word = word.to_ascii_lowercase();
        let mut secrets = self.long.iter();
        secrets.any(|secret| !occurrences(&word, secret).is_empty())
    }

    /// Replaces the long secrets, and those of `short` that are words of their own.
    fn redacted(&self, raw: &str, short: &[Secret]) -> String {
        let secrets = self.long.iter().chain(short);
        let longest = secrets.map(|secret| secret.expose_secret().len()).max();
        // Control characters go first: removing a NUL can join the halves of a secret. A secret that
        // begins in what is shown is there to its end.
        let mut text = visible(raw, LONGEST_CLEANED + longest.unwrap_or_default());
        let shown = text.floor_char_boundary(LONGEST_CLEANED);
        let lower = text.to_ascii_lowercase();
        let found = |secret| occurrences(&lower, secret);
        let mut hidden: Vec<_> = short.iter().flat_map(found).collect();
        hidden.retain(|range| is_word(&text, range));
        hidden.extend(self.long.iter().flat_map(found));
        hidden.retain(|range| range.start < shown);
        if hidden.is_empty() {
            text.truncate(shown);
            return text;
        }
        hidden.sort_unstable_by_key(|range| range.start);

        let (mut redacted, mut end) = (String::with_capacity(shown), 0);
        for range in hidden {
            // Secrets may overlap: then one replacement stands for both.
            if range.start >= end {
                redacted.push_str(&text[end..range.start]);
                redacted.push_str(REDACTED);
            }
            end = end.max(range.end);
        }
        redacted.push_str(text.get(end..shown).unwrap_or_default());
        redacted
    }
}

/// Where a secret occurs in a text in lower case, which is as long as the text, byte for byte.
fn occurrences(lower: &str, secret: &Secret) -> Vec<Range<usize>> {
    let secret = secret.expose_secret();
    if secret.len() > lower.len() {
        return Vec::new();
    }
    let secret = SecretString::from(secret.to_ascii_lowercase());
    let found = lower.match_indices(secret.expose_secret());
    found.map(|(at, found)| at..at + found.len()).collect()
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

/// The first `max_bytes` without what cannot be seen and could deceive a terminal or a reader; line breaks
/// and tabs become spaces, and those before all else are dropped.
fn visible(raw: &str, max_bytes: usize) -> String {
    let raw = raw.trim_start();
    if raw.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return raw[..raw.len().min(max_bytes)].to_owned();
    }
    let mut text = String::new();
    for c in raw.chars() {
        let c = match c {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
            c if c.is_control() || is_invisible(c) => continue,
            c => c,
        };
        if text.len() + c.len_utf8() > max_bytes {
            break;
        }
        text.push(c);
    }
    text
}

/// Characters without a glyph of their own: those that Unicode calls ignorable by default (bidirectional
/// controls, zero-width characters, fillers, variation selectors, tags and the like, assigned or not), marks
/// of annotations, glyphs that are blank, controls of a layout, and those that are no characters at all.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{2800}' | '\u{3164}' | '\u{FDD0}'..='\u{FDEF}' | '\u{FE00}'..='\u{FE0F}'
        | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{13430}'..='\u{13455}' | '\u{16FE4}'
        | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D159}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
        || u32::from(c) & 0xFFFE == 0xFFFE
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
    fn what_cannot_be_seen_is_dropped() {
        for (first, last) in [
            ('\u{0}', '\u{8}'),
            ('\u{7f}', '\u{9f}'),
            // Soft hyphen, joiners of graphemes, Arabic letter mark.
            ('\u{ad}', '\u{ad}'),
            ('\u{34f}', '\u{34f}'),
            ('\u{61c}', '\u{61c}'),
            // Hangul fillers.
            ('\u{115f}', '\u{1160}'),
            ('\u{3164}', '\u{3164}'),
            ('\u{ffa0}', '\u{ffa0}'),
            // Khmer vowels, Mongolian selectors.
            ('\u{17b4}', '\u{17b5}'),
            ('\u{180b}', '\u{180f}'),
            // Zero width, bidirectional, invisible operators.
            ('\u{200b}', '\u{200f}'),
            ('\u{202a}', '\u{202e}'),
            ('\u{2060}', '\u{206f}'),
            ('\u{feff}', '\u{feff}'),
            // Variation selectors.
            ('\u{fe00}', '\u{fe0f}'),
            ('\u{e0100}', '\u{e01ef}'),
            // Tags.
            ('\u{e0000}', '\u{e007f}'),
            // Annotations, shorthand and musical controls, a blank braille pattern.
            ('\u{fff9}', '\u{fffb}'),
            ('\u{1bca0}', '\u{1bca3}'),
            ('\u{1d173}', '\u{1d17a}'),
            ('\u{2800}', '\u{2800}'),
            // No characters.
            ('\u{fdd0}', '\u{fdef}'),
            ('\u{fffe}', '\u{ffff}'),
            ('\u{10fffe}', '\u{10ffff}'),
        ] {
            for c in first..=last {
                let clean = Redactor::default().clean(&format!("a{c}b"));
                assert_eq!(clean.as_deref(), Some("ab"), "{c:?}");
            }
        }
        for seen in ["äöü", "한국어", "नमस्ते", "עברית", "🦀", "e\u{301}"]
        {
            assert_eq!(Redactor::default().clean(seen).as_deref(), Some(seen));
        }
    }

    /// However long a text is, no more than its start is cleaned, and no secret is cut in two.
    #[test]
    fn a_secret_across_the_end_of_what_is_cleaned_leaves_nothing() {
        let redactor = redactor("canary-7f3a");
        for before in LONGEST_CLEANED - 12..LONGEST_CLEANED + 2 {
            let text = format!(" \n{}canary-7f3a{}", "x".repeat(before), "y".repeat(9_999));
            let clean = redactor.clean(&text).unwrap();
            assert!(!clean.contains("cana"), "{before}");
            assert!(clean.len() <= LONGEST_CLEANED + REDACTED.len());
        }
        let hidden = format!("{}seen", "\u{200b}".repeat(LONGEST_CLEANED));
        assert_eq!(redactor.clean(&hidden).as_deref(), Some("seen"));
    }

    #[test]
    fn a_secret_is_held_once() {
        let secret = Secret::from("canary-7f3a");
        let mut redactor = Redactor::default();
        redactor.share(&secret);
        redactor.share(&secret);
        redactor.push(&"canary-7f3a".into());
        let held: Vec<_> = redactor.secrets().collect();
        assert!(held.len() == 1 && held[0].is_same(&secret));
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
