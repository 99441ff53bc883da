//! Durations of a catalog file and of flags: an integer and one unit.

/// The longest `clock_skew`, in seconds.
pub const MAX_CLOCK_SKEW: u32 = 300;

/// The seconds of a `clock_skew`: a duration, which may be zero.
pub(super) fn clock_skew(text: &str) -> Result<u32, &'static str> {
    seconds(text)?.filter(|skew| *skew <= MAX_CLOCK_SKEW).ok_or("is not between `0s` and `5m`")
}

/// The seconds of a duration of at least a second and at most `max` seconds, which is `said`.
pub(super) fn up_to(max: u32, said: &str) -> impl Fn(&str) -> Result<u32, String> {
    move |text| match seconds(text)?.filter(|seconds| (1..=max).contains(seconds)) {
        Some(seconds) => Ok(seconds),
        None => Err(format!("is not between `1s` and `{said}`")),
    }
}

/// The seconds of a duration: an integer with `s`, `m`, `h` or `d`.
///
/// # Errors
/// The text is not a duration, is zero, or has more seconds than 32 bits hold.
pub fn duration(text: &str) -> Result<u32, &'static str> {
    seconds(text)?.filter(|age| *age > 0).ok_or(NO_DURATION)
}

/// The seconds of a duration that may be zero.
///
/// # Errors
/// The text is not a duration, or has more seconds than 32 bits hold.
pub fn duration_or_zero(text: &str) -> Result<u32, &'static str> {
    seconds(text)?.ok_or(NO_DURATION)
}

const NO_DURATION: &str = "is not a duration: an integer with `s`, `m`, `h` or `d`";

/// The seconds of an integer with `s`, `m`, `h` or `d`; none if they are too many.
fn seconds(text: &str) -> Result<Option<u32>, &'static str> {
    const WRONG: &str = NO_DURATION;
    let unit: u32 = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => return Err(WRONG),
    };
    let digits = text.get(..text.len() - 1).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
    let count: u32 = digits.and_then(|d| d.parse().ok()).ok_or(WRONG)?;
    Ok(count.checked_mul(unit))
}
