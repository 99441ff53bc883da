//! Stream limit: how many streams of one kind may be open, of all callers and of one key.
//!
//! A stream counts until it is dropped, also while its client reads nothing.
//!
//! Not here: the limits on unary calls; see `authority::caller_limits`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::authority::problem::Problem;
use crate::policy::caller::Caller;
use crate::policy::revision::Revision;

/// The limit on one kind of stream, and the open streams.
#[derive(Debug)]
pub struct StreamLimit {
    limit: usize,
    limit_of_key: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// By the creation revision of the key: a later key may have the same name.
    keys: HashMap<Revision, usize>,
}

/// The limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamLimitReached {
    /// The limit of all callers.
    All(usize),
    /// The limit of one key.
    Key(usize),
}

impl From<StreamLimitReached> for Problem {
    fn from(reached: StreamLimitReached) -> Self {
        let message = match reached {
            StreamLimitReached::All(limit) => {
                format!("too many open change streams on this server (limit {limit})")
            }
            StreamLimitReached::Key(limit) => format!(
                "too many open change streams of this API key (limit {limit}): end one of them first"
            ),
        };
        Self::limit("streams", message).retry()
    }
}

/// The count of one open stream, until it is dropped.
#[derive(Debug)]
pub(super) struct StreamGuard {
    limit: Arc<StreamLimit>,
    key: Option<Revision>,
}

impl StreamLimit {
    /// A limit for all callers and a limit for one key.
    #[must_use]
    pub fn new(limit: usize, limit_of_key: usize) -> Arc<Self> {
        Arc::new(Self { limit, limit_of_key, open: Mutex::default() })
    }

    /// The number of open streams.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).all as u64
    }

    /// Counts a stream of this caller. For callers without a key, only the limit of all callers holds.
    pub(super) fn take(
        self: &Arc<Self>,
        caller: &Caller,
    ) -> Result<StreamGuard, StreamLimitReached> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = match caller {
            Caller::Key(key) => Some(key.created_at),
            Caller::Internal | Caller::Anonymous => None,
        };
        if let Some(key) = key
            && open.keys.get(&key).is_some_and(|open| *open >= self.limit_of_key)
        {
            return Err(StreamLimitReached::Key(self.limit_of_key));
        }
        if open.all >= self.limit {
            return Err(StreamLimitReached::All(self.limit));
        }
        open.all += 1;
        if let Some(key) = key {
            *open.keys.entry(key).or_default() += 1;
        }
        Ok(StreamGuard { limit: Arc::clone(self), key })
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let mut open = self.limit.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(key) = self.key
            && let Some(count) = open.keys.get_mut(&key)
        {
            *count -= 1;
            if *count == 0 {
                open.keys.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_above_the_limit_are_rejected_until_one_is_dropped() {
        let streams = StreamLimit::new(2, 1);
        let one = streams.take(&Caller::Anonymous).expect("below the limit");
        let two = streams.take(&Caller::Anonymous).expect("below the limit");
        assert_eq!(streams.take(&Caller::Anonymous).map(drop), Err(StreamLimitReached::All(2)));
        drop(one);
        let again = streams.take(&Caller::Anonymous).expect("below the limit");
        assert_eq!(streams.read(), 2);
        drop((two, again));
        assert_eq!(streams.read(), 0);
    }
}
