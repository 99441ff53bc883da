//! Text file: decodes text files that editors and other programs write.
//!
//! A byte order mark is skipped, `\r\n` ends a line like `\n`, and the last line needs no line
//! break. Other encodings than UTF-8 are errors, and are never guessed.

use std::io::{self, BufRead};

use anyhow::{anyhow, bail};

/// The byte order mark, which some programs write at the start of UTF-8 files.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Strips the byte order mark from the start of a text.
///
/// # Errors
/// The bytes are UTF-16 or UTF-32.
pub(super) fn strip_mark(bytes: &[u8]) -> anyhow::Result<&[u8]> {
    // The texts that scopegate reads start with ASCII. In UTF-16 and UTF-32 an ASCII character has
    // a zero byte.
    let wide = matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..]);
    if wide {
        bail!("is UTF-16 or UTF-32 and not UTF-8: save it as UTF-8");
    }
    Ok(bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes))
}

/// Skips the byte order mark of an input that is read by lines.
///
/// # Errors
/// The input is UTF-16 or UTF-32, or cannot be read.
pub(super) fn skip_mark(input: &mut dyn BufRead) -> anyhow::Result<()> {
    // A pipe can return less than a whole mark at first. Then no mark is found, and the first line
    // is an error.
    let bytes = loop {
        match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read.map_err(|error| anyhow!("cannot be read: {}", error.kind()))?,
        }
    };
    let skipped = bytes.len() - strip_mark(bytes)?.len();
    input.consume(skipped);
    Ok(())
}

/// Decodes a whole text.
///
/// # Errors
/// The bytes are not UTF-8.
pub(super) fn text(bytes: &[u8]) -> anyhow::Result<String> {
    let text = std::str::from_utf8(strip_mark(bytes)?);
    Ok(text.map_err(|_| anyhow!("is not UTF-8: save it as UTF-8"))?.to_owned())
}

/// Decodes a whole text that is not blank.
///
/// # Errors
/// The bytes are not UTF-8, or the text is blank.
pub(super) fn decode_non_blank(bytes: &[u8]) -> anyhow::Result<String> {
    let text = text(bytes)?;
    if text.trim().is_empty() {
        bail!("is empty");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_mark_is_skipped_and_wide_encodings_are_rejected() {
        assert_eq!(text(b"\xef\xbb\xbfa\r\n").expect("text"), "a\r\n");
        assert_eq!(text(b"a").expect("text"), "a");
        assert_eq!(text(b"").expect("text"), "");
        for wide in [&b"\xff\xfea\0"[..], b"\xfe\xff\0a", b"a\0b\0", b"\0a\0b", b"\xff\xfe\0\0"] {
            assert!(text(wide).expect_err("wide").to_string().contains("UTF-16"), "{wide:?}");
        }
        assert!(text(b"\xe4").expect_err("latin 1").to_string().contains("UTF-8"));
        assert!(decode_non_blank(b"\xef\xbb\xbf \r\n\n").is_err());
    }
}
