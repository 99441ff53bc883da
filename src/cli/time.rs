//! Moment: times as people write and read them.

use std::time::Duration;

use jiff::civil::{Date, Time};
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use prost_types::Timestamp as Wire;

use crate::policy::catalog::file::duration;

/// Reads a time, or a date: its first moment in UTC.
///
/// # Errors
/// It is neither an RFC 3339 time nor such a date.
pub fn read(text: &str) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "`{text}` is not a time such as `2030-01-31T12:00:00Z`, or a date such as \
             `2030-01-31` (its start in UTC)"
        )
    };
    match date(text) {
        Some(date) => Offset::UTC.to_timestamp(date.to_datetime(Time::midnight())),
        None => text.parse(),
    }
    .map_err(|_| wrong())
}

/// A date, written as RFC 3339 writes it and with nothing behind it.
fn date(text: &str) -> Option<Date> {
    let is_date = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    text.parse().ok().filter(|_| is_date)
}

/// Reads when something that is over began or ended: a time, a date, or how long ago.
///
/// # Errors
/// It is none of them.
pub fn ago(text: &str) -> Result<Wire, String> {
    if let Ok(time) = read(text) {
        return Ok(wire(time));
    }
    let none = || {
        format!(
            "`{text}` is neither a date such as `2030-01-31` (its start in UTC), nor a time such \
             as `2030-01-31T12:00:00Z`, nor how long ago, such as `7d` (s, m, h or d)"
        )
    };
    let seconds = duration(text).map_err(|_| none())?;
    let start = Timestamp::now().checked_sub(SignedDuration::from_secs(seconds.into()));
    start.map(wire).map_err(|_| none())
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// Where it begins.
    pub from: Timestamp,
    /// Where it is over; for a single moment, where it begins.
    pub until: Timestamp,
}

impl TimeRange {
    /// Whether this moment is in it.
    #[must_use]
    pub fn has(self, time: Timestamp) -> bool {
        time == self.from || (self.from <= time && time < self.until)
    }
}

/// Reads a moment of the past: a time, or a time of day in UTC, the last that there was. What is
/// said to the minute or the second is all of it.
///
/// # Errors
/// It is neither, or has not come yet.
pub fn past(text: &str) -> Result<TimeRange, String> {
    let neither = || {
        format!(
            "`{text}` is neither a time such as `2030-01-31T14:03:20Z`, nor a date such as \
             `2030-01-31` (its start in UTC), nor a time of day in UTC such as `14:03` or `14:03:20`"
        )
    };
    let now = Timestamp::now();
    if date(text).is_some() {
        let from = read(text)?;
        return match from > now {
            true => Err(format!("`{text}` has not come yet")),
            false => Ok(TimeRange { from, until: from }),
        };
    }
    // Without colons it is read as something, and may be meant as something else.
    if !text.contains(':') {
        return Err(neither());
    }
    let (clock, from) = match text.split_once(['T', 't', ' ']) {
        Some((_, clock)) => (clock, text.parse::<Timestamp>().map_err(|_| neither())?),
        None => {
            let day = Offset::UTC.to_datetime(now).date();
            let at = |day: Date| {
                let time: Time = text.parse().map_err(|_| neither())?;
                Offset::UTC.to_timestamp(day.to_datetime(time)).map_err(|_| neither())
            };
            let today = at(day)?;
            // Of a time of day that has not come, yesterday's is meant.
            let yesterday = day.yesterday().map_err(|_| neither())?;
            (text, if today > now { at(yesterday)? } else { today })
        }
    };
    if from > now {
        return Err(format!("`{text}` has not come yet"));
    }
    let clock = clock.split(['Z', 'z', '+', '-']).next().unwrap_or(clock);
    let length = match (clock.matches(':').count(), clock.contains(['.', ','])) {
        (_, true) => 0,
        (1, _) => 60,
        _ => 1,
    };
    let until = from.checked_add(SignedDuration::from_secs(length)).map_err(|_| neither())?;
    Ok(TimeRange { from, until })
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
            "`{text}` is neither a time such as `2030-01-31T12:00:00Z`, nor a date such as \
             `2030-01-31` (its start in UTC), nor a duration such as `90d` (s, m, h or d)"
        )
    };
    let seconds = duration(text).map_err(|_| neither())?;
    let end = Timestamp::now().checked_add(SignedDuration::from_secs(seconds.into()));
    end.map(wire).map_err(|_| neither())
}

/// Reads how long something is tried, such as `30s`; `0s` for not at all.
///
/// # Errors
/// It is no duration.
pub fn window(text: &str) -> Result<Duration, String> {
    if text == "0s" {
        return Ok(Duration::ZERO);
    }
    let seconds = duration(text).map_err(|error| format!("{error}; or `0s`"))?;
    Ok(Duration::from_secs(seconds.into()))
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

/// Whether a time is now or before.
#[must_use]
pub fn is_past(time: &Wire) -> bool {
    Timestamp::new(time.seconds, time.nanos).is_ok_and(|time| time <= Timestamp::now())
}

/// A time with all of its digits, as a flag takes it back.
#[must_use]
pub fn to_the_nanosecond(time: &Wire) -> Option<String> {
    Timestamp::new(time.seconds, time.nanos).ok().map(|time| time.to_string())
}

/// How long ago a time was by this machine's clock, in words that fit into a table: `3 days ago`.
/// Nothing where this clock says that it has not come: it may be the one that is wrong.
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

/// A time as people read it, to the second; nothing if there is none.
#[must_use]
pub fn text(time: Option<&Wire>) -> String {
    let time = time.and_then(|time| Timestamp::new(time.seconds, 0).ok());
    time.map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_of_the_past_is_as_long_as_it_is_said() {
        let length = |text: &str| {
            let span = past(text).expect(text);
            span.until.duration_since(span.from).as_millis()
        };
        assert_eq!(length("2026-01-31T14:03Z"), 60_000);
        assert_eq!(length("2026-01-31T14:03:20Z"), 1_000);
        assert_eq!(length("2026-01-31T14:03:20+01:00"), 1_000);
        assert_eq!(length("2026-01-31T14:03:20.5Z"), 0);
        assert_eq!(length("00:00"), 60_000);
        assert_eq!(length("2026-01-31"), 0);
        assert_eq!(past("2026-01-31"), past("2026-01-31T00:00:00.0Z"));
        let of_day = past("23:59:59").expect("yesterday's, or this second");
        assert!(of_day.from <= Timestamp::now());
        for wrong in
            ["", "noon", "25:00", "14", "1403", "2026-02-30", "2999-01-31", "2999-01-31T14:03:20Z"]
        {
            assert!(past(wrong).is_err(), "{wrong}");
        }
    }
}
