//! Texts of others, cleaned for a status or a log: no control characters, no secrets, bounded.

use secrecy::{ExposeSecret, SecretString};

/// Replaces a secret that an answer repeats.
const REDACTED: &str = "[redacted]";

/// Shorter secrets (in bytes) are not searched for: they occur inside ordinary words, and the gaps
/// would reveal them.
const SHORTEST_SECRET: usize = 4;

/// Removes known secrets from texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redactor(Vec<SecretString>);

impl Redactor {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut redactor = Self::default();
        secrets.into_iter().for_each(|secret| redactor.push(secret));
        redactor
    }

    /// Adds a secret, without its control characters, as only texts without them are searched.
    pub(crate) fn push(&mut self, secret: &SecretString) {
        let visible = visible(secret.expose_secret());
        if visible.len() >= SHORTEST_SECRET {
            self.0.push(visible.into());
        }
    }

    /// `raw` without control characters and secrets, trimmed; `None` if nothing is left.
    pub(crate) fn clean(&self, raw: &str) -> Option<String> {
        // Control characters go first: removing a NUL can join the halves of a secret.
        let mut text = visible(raw);
        for secret in &self.0 {
            text = text.replace(secret.expose_secret(), REDACTED);
        }
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
        let mut text = self.clean(raw)?;
        if let Some((end, _)) = text.char_indices().nth(max_chars) {
            text.truncate(text[..end].trim_end().len());
        }
        Some(text)
    }
}

/// Drops what cannot be seen and could deceive a terminal; line breaks and tabs become spaces.
fn visible(raw: &str) -> String {
    raw.chars()
        .filter_map(|c| match c {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => Some(' '),
            // Bidirectional controls, zero-width characters and the byte order mark.
            '\u{061C}'
            | '\u{200B}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{FEFF}' => None,
            c => (!c.is_control()).then_some(c),
        })
        .collect()
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
    fn a_secret_of_a_letter_or_two_does_not_turn_every_text_into_gaps() {
        assert_eq!(
            redactor("a").clean("a bad day").as_deref(),
            Some("a bad day")
        );
    }
}
