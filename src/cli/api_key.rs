//! API key: turns the text of a key file or of SCOPEGATE_KEY into the header of a call.
//!
//! Not here: whether the server accepts the key.

use tonic::metadata::{Ascii, MetadataValue};

/// The `authorization` header of a key (RFC 6750, section 2.1).
///
/// # Errors
/// The text is not a key. The error does not repeat the text, which may be a secret.
pub(super) fn header(text: &str) -> Result<MetadataValue<Ascii>, &'static str> {
    // Some editors write a byte order mark before the text.
    let key = text.trim_start_matches('\u{feff}').trim();
    if key.is_empty() {
        return Err("is empty: put the key there that `scopegate keys create` has printed");
    }
    if key.lines().count() > 1 {
        return Err("has more than one line: a key is one line");
    }
    if key.starts_with("sgs_") {
        return Err(
            "has the secret of a credential (`sgs_…`), but commands need an API key (`sgk_…`): \
             create one with `scopegate keys create`",
        );
    }
    if key.get(..7).is_some_and(|first| first.eq_ignore_ascii_case("bearer ")) {
        return Err("begins with `Bearer`: put only the key there");
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has a character that no key has: put only the key there, as it was printed");
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
    fn key_is_one_line_and_white_space_around_it_is_ignored() {
        for text in ["sgk_a_b", "sgk_a_b\n", " sgk_a_b\r\n\r\n", "\u{feff}sgk_a_b\n"] {
            assert_eq!(header(text).expect(text), "Bearer sgk_a_b");
        }
        for (text, says) in [
            ("", "is empty"),
            (" \r\n\n", "is empty"),
            ("\u{feff}", "is empty"),
            ("sgk_a\nsgk_b\n", "more than one line"),
            ("sgs_a_b\n", "`sgs_…`"),
            ("Bearer sgk_a_b", "only the key"),
            ("sgk_a b", "character"),
            ("sgk_ä", "character"),
        ] {
            assert!(header(text).expect_err(text).contains(says), "{text}");
        }
    }
}
