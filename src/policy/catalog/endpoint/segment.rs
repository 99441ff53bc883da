//! Segment: the ways in which servers can read a segment of a path.
//!
//! Servers differ: some decode percent-encoding once, some twice, some drop what follows a `;`,
//! some ignore case. The readings here are the most lenient ones. They only ever refuse: nothing is
//! normalised into a match.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Whether some servers end the path in this segment, and run the handler of what is before it: at
/// a `;`, encoded or not. The last segment of a path can have one.
pub(super) fn ends_path(segment: &str) -> bool {
    segment.contains(';') || (segment.contains('%') && fold(segment).contains(&b';'))
}

/// The segment decoded until decoding changes nothing, and in one case.
///
/// Borrowed if the segment is so already, as nearly all are.
pub(super) fn fold(segment: &str) -> Cow<'_, [u8]> {
    let is_plain = |b: u8| b.is_ascii() && !b.is_ascii_uppercase() && b != b'%';
    if segment.bytes().all(is_plain) {
        return Cow::Borrowed(segment.as_bytes());
    }
    let decoded = decode_fully(segment);
    let mut folded = Vec::with_capacity(decoded.len());
    for chunk in decoded.utf8_chunks() {
        for c in chunk.valid().chars() {
            fold_case(c, &mut folded);
        }
        folded.extend_from_slice(chunk.invalid());
    }
    Cow::Owned(folded)
}

/// The segment as read by a server that drops the text after a `;`.
pub(super) fn without_parameters(folded: &[u8]) -> &[u8] {
    folded.split(|b| *b == b';').next().unwrap_or_default()
}

/// The segment decoded until decoding changes nothing.
///
/// One pass: a `%HH` is replaced as soon as the output ends in it. Two of them never overlap, so
/// the order of replacement does not matter. Each replacement removes two bytes, so the time is
/// linear in the length of the segment.
pub(super) fn decode_fully(segment: &str) -> Vec<u8> {
    let mut decoded: Vec<u8> = Vec::with_capacity(segment.len());
    for byte in segment.bytes() {
        decoded.push(byte);
        while let [.., b'%', high, low] = decoded.as_slice()
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            decoded.truncate(decoded.len() - 3);
            decoded.push(high * 16 + low);
        }
    }
    decoded
}

/// The segment decoded once, without the text after a `;`. Older versions checked catalogs by it.
pub(super) fn decode_once(segment: &str) -> Vec<u8> {
    percent_decode_str(segment).take_while(|byte| *byte != b';').collect()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Characters that any comparison without case holds equal become one: `k` and the sign of Kelvin,
/// `ss` and `ß`, and the `i` with and without a dot.
fn fold_case(c: char, folded: &mut Vec<u8>) {
    if c.is_ascii() {
        folded.extend(u8::try_from(c).map(|b| b.to_ascii_lowercase()));
        return;
    }
    let c = if c == '\u{130}' { 'i' } else { c };
    let lower = c.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    let mut buffer = [0; 4];
    for c in lower {
        folded.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &str, other: &str) -> bool {
        fold(one) == fold(other)
    }

    #[test]
    fn segments_that_some_server_reads_alike_are_equal() {
        for (one, other) in [
            ("export", "EXPORT"),
            ("export", "%65xport"),
            ("export", "%2565xport"),
            ("export", "%252565Xport"),
            ("a:b", "a%3Ab"),
            ("a:b", "A%253aB"),
            ("%C3%A9", "%c3%89"),
            ("stra%C3%9Fe", "STRASSE"),
            ("%E2%84%AA", "k"),
            ("%C4%B1", "I"),
            ("%C4%B0", "i"),
            ("%C5%BF", "S"),
            // What is decoded joins what stands behind it.
            ("%25%34%31", "A"),
            ("%2%41", "*"),
        ] {
            assert!(same(one, other), "{one} {other}");
        }
        for (one, other) in [("export", "exports"), ("a", "%FF"), ("%FE", "%FF"), ("a", "a;b")] {
            assert!(!same(one, other), "{one} {other}");
        }
        assert_eq!(without_parameters(&fold("Export%253Bx;y")), b"export");
    }

    #[test]
    fn a_plain_segment_is_borrowed() {
        assert!(matches!(fold("export-2.v_1~;:@"), Cow::Borrowed(_)));
    }

    #[test]
    fn decoding_takes_one_pass_however_often_a_segment_is_encoded() {
        let deep = format!("%{}41", "25".repeat(1_000_000));
        assert_eq!(decode_fully(&deep), b"A");
        assert_eq!(decode_fully("%"), b"%");
        assert_eq!(decode_fully("%4"), b"%4");
        assert_eq!(decode_fully("%zz%"), b"%zz%");
    }
}
