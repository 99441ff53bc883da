//! Time: parses and formats the times of flags and tables.

use std::time::Duration;

use jiff::civil::{Date, Time};
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use prost_types::Timestamp as Wire;

use crate::policy::catalog::file::duration;

/// Parses an RFC 3339 time, or a date as its start in UTC.
///
/// # Errors
/// The text is neither.
pub fn read(text: &str) -> Result<Timestamp, String> {
    let invalid = || {
        format!(
            "`{text}` is not a time such as `2030-01-31T12:00:00Z`, or a date such as `2030-01-31` \
             (its start in UTC)"
        )
    };
    match date(text) {
        Some(date) => Offset::UTC.to_timestamp(date.to_datetime(Time::midnight())),
        None => text.parse(),
    }
    .map_err(|_| invalid())
}

/// Parses a date in RFC 3339 format without a time.
fn date(text: &str) -> Option<Date> {
    let is_date = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    text.parse().ok().filter(|_| is_date)
}

/// Parses a time in the past: a time, a date, or a duration before now.
///
/// # Errors
/// The text is none of them.
pub fn ago(text: &str) -> Result<Wire, String> {
    if let Ok(time) = read(text) {
        return Ok(wire(time));
    }
    let invalid = || {
        format!(
            "`{text}` is neither a date such as `2030-01-31` (its start in UTC), nor a time such \
             as `2030-01-31T12:00:00Z`, nor a duration before now such as `7d` (s, m, h or d)"
        )
    };
    let seconds = duration(text).map_err(|_| invalid())?;
    let start = Timestamp::now().checked_sub(SignedDuration::from_secs(seconds.into()));
    start.map(wire).map_err(|_| invalid())
}

/// A range of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// The start.
    pub from: Timestamp,
    /// The end, exclusive. Equal to the start for a single moment.
    pub until: Timestamp,
}

impl TimeRange {
    /// Whether a time is in the range.
    #[must_use]
    pub fn has(self, time: Timestamp) -> bool {
        time == self.from || (self.from <= time && time < self.until)
    }
}

/// Parses a time in the past: a time, a date, or a time of day in UTC, of which the last occurrence
/// is meant. A time without seconds is a range of one minute, and one without fractions a range of
/// one second.
///
/// # Errors
/// The text is none of them, or the time is in the future.
pub fn past(text: &str) -> Result<TimeRange, String> {
    let invalid = || {
        format!(
            "`{text}` is neither a time such as `2030-01-31T14:03:20Z`, nor a date such as \
             `2030-01-31` (its start in UTC), nor a time of day in UTC such as `14:03` or \
             `14:03:20`"
        )
    };
    let now = Timestamp::now();
    if date(text).is_some() {
        let from = read(text)?;
        return match from > now {
            true => Err(format!("`{text}` is in the future")),
            false => Ok(TimeRange { from, until: from }),
        };
    }
    // A text without a colon is ambiguous.
    if !text.contains(':') {
        return Err(invalid());
    }
    let (clock, from) = match text.split_once(['T', 't', ' ']) {
        Some((_, clock)) => (clock, text.parse::<Timestamp>().map_err(|_| invalid())?),
        None => {
            let day = Offset::UTC.to_datetime(now).date();
            let at = |day: Date| {
                let time: Time = text.parse().map_err(|_| invalid())?;
                Offset::UTC.to_timestamp(day.to_datetime(time)).map_err(|_| invalid())
            };
            let today = at(day)?;
            // A time of day in the future means the one of yesterday.
            let yesterday = day.yesterday().map_err(|_| invalid())?;
            (text, if today > now { at(yesterday)? } else { today })
        }
    };
    if from > now {
        return Err(format!("`{text}` is in the future"));
    }
    let clock = clock.split(['Z', 'z', '+', '-']).next().unwrap_or(clock);
    let length = match (clock.matches(':').count(), clock.contains(['.', ','])) {
        (_, true) => 0,
        (1, _) => 60,
        _ => 1,
    };
    let until = from.checked_add(SignedDuration::from_secs(length)).map_err(|_| invalid())?;
    Ok(TimeRange { from, until })
}

/// Parses an expiry: a time, a date, or a duration from now.
///
/// # Errors
/// The text is none of them.
pub fn expiry(text: &str) -> Result<Wire, String> {
    if let Ok(time) = read(text) {
        return Ok(wire(time));
    }
    let invalid = || {
        format!(
            "`{text}` is neither a time such as `2030-01-31T12:00:00Z`, nor a date such as \
             `2030-01-31` (its start in UTC), nor a duration such as `90d` (s, m, h or d)"
        )
    };
    let seconds = duration(text).map_err(|_| invalid())?;
    let end = Timestamp::now().checked_add(SignedDuration::from_secs(seconds.into()));
    end.map(wire).map_err(|_| invalid())
}

/// Parses a duration such as `30s`, or `0s`.
///
/// # Errors
/// The text is not a duration.
pub fn window(text: &str) -> Result<Duration, String> {
    if text == "0s" {
        return Ok(Duration::ZERO);
    }
    let seconds = duration(text).map_err(|error| format!("{error}; or `0s`"))?;
    Ok(Duration::from_secs(seconds.into()))
}

/// Parses an RFC 3339 time, or a date, as a protobuf timestamp.
///
/// # Errors
/// The text is neither.
pub fn exact(text: &str) -> Result<Wire, String> {
    read(text).map(wire)
}

/// Converts a time to a protobuf timestamp.
#[must_use]
pub fn wire(time: Timestamp) -> Wire {
    Wire { seconds: time.as_second(), nanos: time.subsec_nanosecond() }.normalized()
}

/// Whether a time is not in the future.
#[must_use]
pub fn is_past(time: &Wire) -> bool {
    Timestamp::new(time.seconds, time.nanos).is_ok_and(|time| time <= Timestamp::now())
}

/// Formats a time with all digits, so that a flag parses the same time.
#[must_use]
pub fn to_the_nanosecond(time: &Wire) -> Option<String> {
    Timestamp::new(time.seconds, time.nanos).ok().map(|time| time.to_string())
}

/// Formats the age of a time by the local clock, short enough for a table: `3 days ago`. Empty if
/// the time is in the future by the local clock, which can be wrong.
#[must_use]
pub fn since(time: Option<&Wire>) -> String {
    let time = time.and_then(|time| Timestamp::new(time.seconds, 0).ok());
    let seconds = time.map_or(0, |time| Timestamp::now().as_second() - time.as_second());
    let (number, unit) = match seconds {
        i64::MIN..=0 => return String::new(),
        1..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural} ago")
}

/// Formats a time to the second. Empty if there is none.
#[must_use]
pub fn text(time: Option<&Wire>) -> String {
    let time = time.and_then(|time| Timestamp::new(time.seconds, 0).ok());
    time.map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_time_range_has_the_length_of_its_precision() {
        let length = |text: &str| {
            let range = past(text).expect(text);
            range.until.duration_since(range.from).as_millis()
        };
        assert_eq!(length("2026-01-31T14:03Z"), 60_000);
        assert_eq!(length("2026-01-31T14:03:20Z"), 1_000);
        assert_eq!(length("2026-01-31T14:03:20+01:00"), 1_000);
        assert_eq!(length("2026-01-31T14:03:20.5Z"), 0);
        assert_eq!(length("00:00"), 60_000);
        assert_eq!(length("2026-01-31"), 0);
        assert_eq!(past("2026-01-31"), past("2026-01-31T00:00:00.0Z"));
        let time_of_day = past("23:59:59").expect("yesterday's, or this second");
        assert!(time_of_day.from <= Timestamp::now());
        for invalid in
            ["", "noon", "25:00", "14", "1403", "2026-02-30", "2999-01-31", "2999-01-31T14:03:20Z"]
        {
            assert!(past(invalid).is_err(), "{invalid}");
        }
    }
}
