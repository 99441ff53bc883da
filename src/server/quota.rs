//! Quota: how many calls a second one key may make, but for checks and the like. One caller that
//! runs wild does not take the writer, or the disk, from the others.
//!
//! Not here: how many calls may be under way at all; see [`super::core`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::policy::keyring::ApiKey;
use crate::policy::revision::Revision;

/// The quota, and what is left of it to whom.
pub(super) struct Quota {
    a_second: u32,
    /// By a key's birth, which no two share.
    left: Mutex<HashMap<Revision, Left>>,
}

/// What is left to one key.
struct Left {
    calls: f64,
    at: Instant,
}

impl Quota {
    /// So many calls a second, and as many at once.
    pub(super) fn new(a_second: u32) -> Self {
        Self { a_second, left: Mutex::default() }
    }

    /// Counts a call.
    ///
    /// # Errors
    /// It is one too many; so many are allowed.
    pub(super) fn count(&self, key: &ApiKey, now: Instant) -> Result<(), u32> {
        let most = f64::from(self.a_second);
        let mut all = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of keys that are gone are full again, and say nothing.
        if all.len() >= crate::policy::keyring::MAX_KEYS * 2 {
            all.retain(|_, left| left.since(now, most) < most);
        }
        let left = all.entry(key.created_at).or_insert(Left { calls: most, at: now });
        let calls = left.since(now, most);
        *left = Left { calls, at: now };
        if calls < 1.0 {
            return Err(self.a_second);
        }
        left.calls = calls - 1.0;
        Ok(())
    }
}

impl Left {
    /// What is left now.
    fn since(&self, now: Instant, most: f64) -> f64 {
        let passed = now.saturating_duration_since(self.at);
        (self.calls + passed.as_secs_f64() * most).min(most)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::policy::caller::Roles;
    use crate::policy::id::Name;

    fn key(birth: u64) -> ApiKey {
        ApiKey {
            id: Name::parse(birth.to_string()).expect("an id"),
            name: Name::parse("someone").expect("a name"),
            roles: Roles::NONE,
            companies: vec![],
            certificate: None,
            hash: None,
            expires_at: None,
            created_at: Revision(birth),
            create_time: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn one_key_has_its_calls_a_second_and_takes_none_of_anothers() {
        let (quota, start) = (Quota::new(2), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        let count = |birth, at| quota.count(&key(birth), at).is_ok();
        assert!(count(1, start) && count(1, start) && !count(1, start));
        assert!(count(2, start), "another's");
        assert!(!count(1, after(400)), "not yet");
        assert!(count(1, after(500)) && !count(1, after(500)), "one half of a second gives one");
        let late = after(60_000);
        assert!(count(1, late) && count(1, late) && !count(1, late), "no more are saved up");
        assert!(!count(1, start), "a clock that steps back gives none");
    }
}
