//! Text: characters that can deceive a reader of a name, a reason or a log line, and their escaped
//! form.
//!
//! Deceptive are control characters and line breaks, bidirectional controls (the text is shown in
//! another order than it is stored), and characters that are not shown at all (Unicode's
//! `Default_Ignorable_Code_Point`, and the format characters without a shape). New text with one of
//! them is rejected. Text that is stored, or comes from elsewhere, is shown with them escaped.
//!
//! Joiners (U+200C, U+200D) and variation selectors (U+FE00 to U+FE0F) are needed by Persian, by
//! the scripts of India and by emoji. They are deceptive except directly after a visible character
//! that is not ASCII, where these scripts use them.
//!
//! Not here: letters that look like other letters (`а` of Cyrillic and `a`). Names of people and
//! companies need all letters.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether the character is invisible, or changes how the text around it is shown. Joiners and
/// variation selectors are not included: see [`Deceptive`].
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // Bidirectional controls (Unicode's `Bidi_Control`).
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            // Breaks of lines and paragraphs.
            | '\u{2028}' | '\u{2029}'
            // Not shown (`Default_Ignorable_Code_Point`, with what is reserved for it).
            | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{2060}'..='\u{2065}'
            | '\u{206a}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
            // Format characters without a shape of their own.
            | '\u{fff9}'..='\u{fffb}' | '\u{13430}'..='\u{1343f}'
            // A letter without a stroke: a blank that is no space.
            | '\u{2800}'
        )
}

fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

fn is_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}')
}

/// The deceptive characters of a text, each with its offset in bytes.
#[derive(Clone)]
struct Deceptive<'a> {
    characters: std::iter::Peekable<std::str::CharIndices<'a>>,
    before: Option<char>,
}

impl<'a> Deceptive<'a> {
    fn of(text: &'a str) -> Self {
        Self { characters: text.char_indices().peekable(), before: None }
    }
}

impl Iterator for Deceptive<'_> {
    type Item = (usize, char);

    fn next(&mut self) -> Option<(usize, char)> {
        loop {
            let (at, c) = self.characters.next()?;
            let before = self.before.replace(c);
            let next = self.characters.peek().map(|(_, next)| *next);
            if is_deceptive(c)
                || (is_joiner(c) && !before.is_some_and(|b| joins(b) || is_selector(b)))
                || (is_selector(c) && !before.is_some_and(joins) && !is_keycap(before, next))
            {
                return Some((at, c));
            }
        }
    }
}

/// Whether a character may be followed by a joiner or a variation selector.
fn joins(c: char) -> bool {
    let hidden = is_deceptive(c) || is_joiner(c) || is_selector(c);
    !c.is_ascii() && !c.is_whitespace() && !hidden
}

/// `1`, a selector and U+20E3: a key of a telephone.
fn is_keycap(before: Option<char>, next: Option<char>) -> bool {
    before.is_some_and(|b| b.is_ascii_digit() || matches!(b, '#' | '*')) && next == Some('\u{20e3}')
}

/// The first deceptive character of a text, with its offset in bytes.
#[must_use]
pub fn first_deceptive(text: &str) -> Option<(usize, char)> {
    if is_plain(text) { None } else { Deceptive::of(text).next() }
}

/// Printable ASCII alone, as nearly every text is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// Why a text for people is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A control character or a line break.
    #[error(
        "has the control character U+{:04X} at byte {offset}: remove it, and write the \
         text on one line", u32::from(*.character)
    )]
    Control {
        /// The character.
        character: char,
        /// Its offset in bytes.
        offset: usize,
    },
    /// A character that is not shown, or changes the order in which the text is shown.
    #[error(
        "has the character U+{:04X} at byte {offset}, which is invisible or changes how the \
         text is shown: remove it", u32::from(*.character)
    )]
    Hidden {
        /// The character.
        character: char,
        /// Its offset in bytes.
        offset: usize,
    },
}

/// Checks a text of one line for people.
///
/// # Errors
/// Its first deceptive character.
pub fn check_line(text: &str) -> Result<(), TextError> {
    match first_deceptive(text) {
        None => Ok(()),
        Some((offset, character)) if character.is_control() => {
            Err(TextError::Control { character, offset })
        }
        Some((offset, character)) => Err(TextError::Hidden { character, offset }),
    }
}

/// The text with each deceptive character written as Rust does: `\n`, `\u{202e}`.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, |_| false, |c, out| out.extend(c.escape_default()))
}

/// As [`escaped`], for text of several lines: tabs and line feeds stay.
#[must_use]
pub fn escaped_lines(text: &str) -> Cow<'_, str> {
    replaced(text, is_layout, |c, out| out.extend(c.escape_default()))
}

/// As [`escaped`], for text whose control characters are already escaped, except those that color
/// it.
#[must_use]
pub fn escaped_colours(text: &str) -> Cow<'_, str> {
    replaced(text, |c| c.is_ascii(), |c, out| out.extend(c.escape_default()))
}

/// JSON with each deceptive character of its strings written as `\u202e`: the same JSON.
///
/// Between strings JSON has none but line breaks and tabs, which stay.
#[must_use]
pub fn escaped_json(json: &str) -> Cow<'_, str> {
    replaced(json, is_layout, |c, out| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(out, "\\u{unit:04x}").ok();
        }
    })
}

/// At most so many bytes of a text for an error message that quotes it, escaped.
#[must_use]
pub fn quoted(text: &str, limit: usize) -> String {
    let text = escaped(text);
    if text.len() <= limit {
        return text.into_owned();
    }
    let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

fn is_layout(c: char) -> bool {
    matches!(c, '\n' | '\t')
}

fn replaced(
    text: &str,
    stays: impl Fn(char) -> bool,
    replace: impl Fn(char, &mut String),
) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let (mut shown, mut from) = (String::new(), 0);
    for (at, c) in Deceptive::of(text) {
        if stays(c) {
            continue;
        }
        shown.push_str(text.get(from..at).unwrap_or_default());
        replace(c, &mut shown);
        from = at + c.len_utf8();
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    shown.push_str(text.get(from..).unwrap_or_default());
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unicode 17, DerivedCoreProperties: `Default_Ignorable_Code_Point`.
    const IGNORABLE: &[(u32, u32)] = &[
        (0xad, 0xad),
        (0x34f, 0x34f),
        (0x61c, 0x61c),
        (0x115f, 0x1160),
        (0x17b4, 0x17b5),
        (0x180b, 0x180f),
        (0x200b, 0x200f),
        (0x202a, 0x202e),
        (0x2060, 0x206f),
        (0x3164, 0x3164),
        (0xfe00, 0xfe0f),
        (0xfeff, 0xfeff),
        (0xffa0, 0xffa0),
        (0xfff0, 0xfff8),
        (0x1bca0, 0x1bca3),
        (0x1d173, 0x1d17a),
        (0xe0000, 0xe0fff),
    ];
    /// Unicode 17: the general category `Cf`.
    const FORMAT: &[(u32, u32)] = &[
        (0xad, 0xad),
        (0x600, 0x605),
        (0x61c, 0x61c),
        (0x6dd, 0x6dd),
        (0x70f, 0x70f),
        (0x890, 0x891),
        (0x8e2, 0x8e2),
        (0x180e, 0x180e),
        (0x200b, 0x200f),
        (0x202a, 0x202e),
        (0x2060, 0x2064),
        (0x2066, 0x206f),
        (0xfeff, 0xfeff),
        (0xfff9, 0xfffb),
        (0x110bd, 0x110bd),
        (0x110cd, 0x110cd),
        (0x13430, 0x1343f),
        (0x1bca0, 0x1bca3),
        (0x1d173, 0x1d17a),
        (0xe0001, 0xe0001),
        (0xe0020, 0xe007f),
    ];
    /// Of `Cf`, but drawn: `Prepended_Concatenation_Mark`, and the Syriac abbreviation mark.
    const DRAWN: &[(u32, u32)] = &[
        (0x600, 0x605),
        (0x6dd, 0x6dd),
        (0x70f, 0x70f),
        (0x890, 0x891),
        (0x8e2, 0x8e2),
        (0x110bd, 0x110bd),
        (0x110cd, 0x110cd),
    ];

    fn has(ranges: &[(u32, u32)], c: char) -> bool {
        ranges.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(c)))
    }

    #[test]
    fn every_character_of_unicode_is_deceptive_or_is_shown() {
        let mut text = "ab".to_owned();
        for c in '\0'..=char::MAX {
            let format = has(FORMAT, c) && !has(DRAWN, c);
            let breaks = matches!(c, '\u{2028}' | '\u{2029}' | '\u{2800}');
            let expected = c.is_control() || has(IGNORABLE, c) || format || breaks;
            text.replace_range(1..text.len() - 1, c.encode_utf8(&mut [0; 4]));
            let found = first_deceptive(&text).map(|(_, found)| found);
            assert_eq!(found, expected.then_some(c), "U+{:04X}", u32::from(c));
            if expected {
                assert_eq!(first_deceptive(&escaped(&text)), None, "U+{:04X}", u32::from(c));
                assert!(check_line(&text).is_err());
            }
        }
    }

    #[test]
    fn scripts_and_emoji_that_need_joiners_have_them() {
        let good = [
            "می\u{200c}خواهم",
            "क्\u{200d}ष",
            "👩\u{200d}👧",
            "❤\u{fe0f}\u{200d}🔥",
            "1\u{fe0f}\u{20e3}",
            "naïve Größe, 中文, שלום, العربية",
        ];
        for text in good {
            assert_eq!(first_deceptive(text), None, "{text:?}");
            assert!(matches!(escaped(text), Cow::Borrowed(same) if same == text));
        }
        let bad = ["ad\u{200d}min", "ad\u{200c}min", "\u{200d}", "é\u{200d}\u{200d}", "a\u{fe0f}"];
        for text in bad {
            assert!(first_deceptive(text).is_some(), "{text:?}");
        }
    }

    #[test]
    fn escaped_json_is_the_same_json() {
        let text = "a\u{202e}b\u{e0041}\u{7f}\u{85}\n\u{2028}\"\\ü";
        let json = serde_json::to_string_pretty(&serde_json::json!({ "label": [text] }));
        let json = json.expect("JSON");
        let shown = escaped_json(&json);
        assert!(shown.contains("\\u202e") && shown.contains("\\udb40\\udc41"), "{shown}");
        assert_eq!(first_deceptive(&shown.replace('\n', "")), None);
        let back: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(back["label"][0], text);
    }

    #[test]
    fn a_quotation_is_bounded() {
        assert_eq!(quoted("short", 8), "short");
        assert_eq!(quoted("\u{202e}", 8), "\\u{202e}");
        assert_eq!(quoted("ééééé", 3), "é…");
        assert!(quoted(&"\u{202e}".repeat(1_000), 64).len() < 70);
    }

    #[test]
    fn an_error_names_the_code_point() {
        let error = check_line("ab\u{202e}").expect_err("deceptive");
        assert!(error.to_string().contains("U+202E at byte 2"), "{error}");
        let error = check_line("a\n").expect_err("deceptive");
        assert!(error.to_string().contains("control character U+000A"), "{error}");
    }
}
