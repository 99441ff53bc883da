//! API key: the text that a command presents, as a file or a variable has it.
//!
//! Not here: whether the server knows the key.

use tonic::metadata::{Ascii, MetadataValue};

/// The header of a key (RFC 6750, section 2.1), or what is wrong with its text. The text itself is
/// a secret, and is not repeated.
pub(super) fn header(text: &str) -> Result<MetadataValue<Ascii>, &'static str> {
    // Editors of some systems put the mark of UTF-8 before it.
    let key = text.trim_start_matches('\u{feff}').trim();
    if key.is_empty() {
        return Err("is empty: put there the key that `scopegate keys create` has shown");
    }
    if key.lines().count() > 1 {
        return Err("has more than one line: a key is one");
    }
    if key.starts_with("sgs_") {
        return Err(
            "has the secret of a credential (`sgs_…`), and commands present an API key (`sgk_…`): \
             make one by `scopegate keys create`",
        );
    }
    if key.get(..7).is_some_and(|first| first.eq_ignore_ascii_case("bearer ")) {
        return Err("begins with `Bearer`: put the key there alone");
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has a character that no key has: put there the key as it was shown, alone");
    }
    let header = format!("Bearer {key}").parse();
    let mut header: MetadataValue<Ascii> = header.map_err(|_| "has no key")?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_line_whatever_stands_around_it() {
        for text in ["sgk_a_b", "sgk_a_b\n", " sgk_a_b\r\n\r\n", "\u{feff}sgk_a_b\n"] {
            assert_eq!(header(text).expect(text), "Bearer sgk_a_b");
        }
        for (text, says) in [
            ("", "is empty"),
            (" \r\n\n", "is empty"),
            ("\u{feff}", "is empty"),
            ("sgk_a\nsgk_b\n", "more than one line"),
            ("sgs_a_b\n", "`sgs_…`"),
            ("Bearer sgk_a_b", "alone"),
            ("sgk_a b", "character"),
            ("sgk_ä", "character"),
        ] {
            assert!(header(text).expect_err(text).contains(says), "{text}");
        }
    }
}
