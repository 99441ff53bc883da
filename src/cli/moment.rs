//! Moment: times as people write and read them.

use jiff::{SignedDuration, Timestamp};
use prost_types::Timestamp as Wire;

use crate::policy::catalog::file::duration;

/// Reads a time.
///
/// # Errors
/// It is no RFC 3339 time.
pub fn read(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| format!("`{text}` is not a time such as `2030-01-31T12:00:00Z`"))
}

/// Reads when something ends: a time, or how long from now.
///
/// # Errors
/// It is neither.
pub fn expiry(text: &str) -> Result<Wire, String> {
    if let Ok(time) = read(text) {
        return Ok(wire(time));
    }
    let neither = || {
        format!(
            "`{text}` is neither a time such as `2030-01-31T12:00:00Z` nor a duration such as \
             `90d` (s, m, h or d)"
        )
    };
    let seconds = duration(text).map_err(|_| neither())?;
    let end = Timestamp::now().checked_add(SignedDuration::from_secs(seconds.into()));
    end.map(wire).map_err(|_| neither())
}

/// Reads a time for the wire.
///
/// # Errors
/// It is no RFC 3339 time.
pub fn exact(text: &str) -> Result<Wire, String> {
    read(text).map(wire)
}

/// A time as the wire has it.
#[must_use]
pub fn wire(time: Timestamp) -> Wire {
    let whole = time.as_second();
    // Nanoseconds count forward, also before 1970.
    let (seconds, nanos) = match time.subsec_nanosecond() {
        nanos if nanos < 0 => (whole - 1, nanos + 1_000_000_000),
        nanos => (whole, nanos),
    };
    Wire { seconds, nanos }
}

/// A time as people read it, to the second; nothing if there is none.
#[must_use]
pub fn text(time: Option<&Wire>) -> String {
    let time = time.and_then(|time| Timestamp::new(time.seconds, 0).ok());
    time.map(|time| time.to_string()).unwrap_or_default()
}
