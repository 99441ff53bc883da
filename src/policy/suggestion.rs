//! Suggestion: the name that a user probably meant by an unknown one.
//!
//! The work is bounded: long names are not compared, and the number of compared names is limited.

/// The limit of differences (insertions, deletions, exchanges of neighbours) between two names.
const MAX_DISTANCE: usize = 2;
/// The longest name that is compared, in bytes.
const MAX_LEN: usize = 64;
/// The limit of names of about the same length that are compared.
const MAX_COMPARED: usize = 20_000;

/// The most similar of these names; of several, the first in byte order. Case counts only between
/// names that are otherwise equally similar.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if wanted.len() > MAX_LEN {
        return None;
    }
    // Any other short name differs in few places.
    let limit = MAX_DISTANCE.min(wanted.len() / 3);
    let lower = wanted.to_ascii_lowercase();
    let letters = letters(&lower);
    let about_as_long = |name: &&str| name.len().abs_diff(wanted.len()) <= limit;
    names
        .into_iter()
        .filter(about_as_long)
        .take(MAX_COMPARED)
        .filter(|name| may_be_within(&letters, name, limit))
        .map(|name| (strsim::osa_distance(&lower, &name.to_ascii_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, name)| (*distance, strsim::osa_distance(wanted, name), *name))
        .map(|(_, name)| name)
}

/// How often a name has each byte, by its lower bits.
fn letters(name: &str) -> [i16; 64] {
    let mut counts = [0; 64];
    for byte in name.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte & 63)) {
            *count += 1;
        }
    }
    counts
}

/// Whether the letters of two names differ by few enough: a difference changes at most two letters.
/// This is far cheaper than the distance.
fn may_be_within(letters: &[i16; 64], name: &str, limit: usize) -> bool {
    let mut counts = *letters;
    for byte in name.bytes().map(|byte| byte.to_ascii_lowercase()) {
        if let Some(count) = counts.get_mut(usize::from(byte & 63)) {
            *count -= 1;
        }
    }
    counts.iter().map(|count| usize::from(count.unsigned_abs())).sum::<usize>() <= 2 * limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_finds_the_one_that_was_meant() {
        let names = ["users:read", "users:write", "courses:read", "api/all", "a", "b"];
        for (wanted, meant) in [
            ("user:read", Some("users:read")),
            ("users:raed", Some("users:read")),
            ("users.read", Some("users:read")),
            ("Users:Read", Some("users:read")),
            ("USERS:READ", Some("users:read")),
            ("USERS:RAED", Some("users:read")),
            ("A", Some("a")),
            ("users:writes", Some("users:write")),
            ("api/al", Some("api/all")),
            ("api/xyz", None),
            ("c", None),
            ("", None),
            ("sure:radios", None),
        ] {
            assert_eq!(nearest(wanted, names), meant, "{wanted}");
        }
        assert_eq!(nearest("users:red", ["users:rex", "users:read"]), Some("users:read"));
    }

    #[test]
    fn long_names_are_not_compared() {
        let long = "a".repeat(MAX_LEN + 1);
        assert_eq!(nearest(&long, [long.as_str()]), None);
    }
}
