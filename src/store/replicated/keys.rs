//! Keys: the keys of a cluster in etcd, below the prefix of its URL.
//!
//! Not here: what the values are; see [`Head`](super::head::Head), [`Entry`](super::entry::Entry) and
//! [`MemberRecord`](super::member_record::MemberRecord).

use uuid::Uuid;

use super::etcd::Range;

/// The end of the log.
pub const HEAD: &str = "head";
/// The prefix of the entries.
pub const LOG: &str = "log/";
/// The prefix of the pieces of large entries.
pub const PARTS: &str = "part/";
/// The prefix of the records of the sessions.
pub const MEMBERS: &str = "members/";

/// The prefix of the times at which credentials were last seen.
pub const SEEN: &str = "seen/";
/// What was noted for the compaction of etcd's history.
pub const COMPACTED: &str = "compacted";

/// The entry of this number. The keys have the order of the numbers.
#[must_use]
pub fn entry(seq: u64) -> String {
    format!("{LOG}{seq:016x}")
}

/// The number of an entry's key.
#[must_use]
pub fn seq(key: &str) -> Option<u64> {
    u64::from_str_radix(key.strip_prefix(LOG)?, 16).ok()
}

/// The entries behind this number.
#[must_use]
pub fn entries_behind(seq: u64) -> Range {
    Range::behind(LOG, &entry(seq))
}

/// The entries up to this number.
#[must_use]
pub fn entries_up_to(seq: u64) -> Range {
    Range::up_to(LOG, &entry(seq))
}

/// The record of a session.
#[must_use]
pub fn member(session: Uuid) -> String {
    format!("{MEMBERS}{}", session.simple())
}

/// The session of a record's key.
#[must_use]
pub fn session(key: &str) -> Option<Uuid> {
    Uuid::try_parse(key.strip_prefix(MEMBERS)?).ok()
}
