//! Text file: what editors and exports of other programs put around a text.
//!
//! A byte order mark is left out, `\r\n` ends a line as `\n` does, and the last line needs no end.
//! Another encoding than UTF-8 is refused with a sentence, and never guessed.

use std::io::{self, BufRead};

use anyhow::{anyhow, bail};

/// What some programs begin a UTF-8 text with.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The bytes of a text that begin here, without a byte order mark.
///
/// # Errors
/// They are UTF-16 or UTF-32.
pub(super) fn begin(bytes: &[u8]) -> anyhow::Result<&[u8]> {
    // A text that this program reads begins with ASCII, of which UTF-16 and UTF-32 make a zero.
    let wide = matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..]);
    if wide {
        bail!("is UTF-16 or UTF-32 and not UTF-8: save it as UTF-8");
    }
    Ok(bytes.strip_prefix(MARK).unwrap_or(bytes))
}

/// Leaves out a byte order mark at the beginning of an input that is read by lines.
///
/// # Errors
/// It is UTF-16 or UTF-32, or cannot be read.
pub(super) fn skip_mark(input: &mut dyn BufRead) -> anyhow::Result<()> {
    // A pipe may hand over less than a mark at first; no mark is then found, and its line is
    // refused, which is what a file without text deserves.
    let bytes = loop {
        match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read.map_err(|error| anyhow!("cannot be read: {}", error.kind()))?,
        }
    };
    let skipped = bytes.len() - begin(bytes)?.len();
    input.consume(skipped);
    Ok(())
}

/// A whole text.
///
/// # Errors
/// It is not UTF-8.
pub(super) fn text(bytes: &[u8]) -> anyhow::Result<String> {
    let text = std::str::from_utf8(begin(bytes)?);
    Ok(text.map_err(|_| anyhow!("is not UTF-8: save it as UTF-8"))?.to_owned())
}

/// A whole text that has something in it.
///
/// # Errors
/// It is not UTF-8, or only blank.
pub(super) fn filled(bytes: &[u8]) -> anyhow::Result<String> {
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
    fn a_mark_is_left_out_and_wide_encodings_are_refused() {
        assert_eq!(text(b"\xef\xbb\xbfa\r\n").expect("text"), "a\r\n");
        assert_eq!(text(b"a").expect("text"), "a");
        assert_eq!(text(b"").expect("text"), "");
        for wide in [&b"\xff\xfea\0"[..], b"\xfe\xff\0a", b"a\0b\0", b"\0a\0b", b"\xff\xfe\0\0"] {
            assert!(text(wide).expect_err("wide").to_string().contains("UTF-16"), "{wide:?}");
        }
        assert!(text(b"\xe4").expect_err("latin 1").to_string().contains("UTF-8"));
        assert!(filled(b"\xef\xbb\xbf \r\n\n").is_err());
    }
}
