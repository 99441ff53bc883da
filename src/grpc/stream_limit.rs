//! Stream places: how many long streams may be open, in all and of one key.
//!
//! A place is counted for as long as its stream lives, also while the client reads nothing of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::policy::caller::Caller;
use crate::policy::revision::Revision;

/// The places of one kind of stream.
#[derive(Debug)]
pub struct StreamLimit {
    limit: usize,
    limit_of_key: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// By the creation revision of the key: another key may have its name.
    keys: HashMap<Revision, usize>,
}

/// Which limit leaves no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// That of all callers.
    All(usize),
    /// That of one key.
    Key(usize),
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(super) struct StreamPlace {
    places: Arc<StreamLimit>,
    key: Option<Revision>,
}

impl StreamLimit {
    /// So many places in all, and so many for one key.
    #[must_use]
    pub fn new(limit: usize, limit_of_key: usize) -> Arc<Self> {
        Arc::new(Self { limit, limit_of_key, open: Mutex::default() })
    }

    /// How many are taken.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).all as u64
    }

    /// A place for a stream of this caller. Callers without a key share the places of all.
    pub(super) fn take(self: &Arc<Self>, caller: &Caller) -> Result<StreamPlace, NoPlace> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = match caller {
            Caller::Key(key) => Some(key.created_at),
            Caller::Internal | Caller::Anonymous => None,
        };
        if let Some(key) = key
            && open.keys.get(&key).is_some_and(|taken| *taken >= self.limit_of_key)
        {
            return Err(NoPlace::Key(self.limit_of_key));
        }
        if open.all >= self.limit {
            return Err(NoPlace::All(self.limit));
        }
        open.all += 1;
        if let Some(key) = key {
            *open.keys.entry(key).or_default() += 1;
        }
        Ok(StreamPlace { places: Arc::clone(self), key })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut open = self.places.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(key) = self.key
            && let Some(taken) = open.keys.get_mut(&key)
        {
            *taken -= 1;
            if *taken == 0 {
                open.keys.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_open_than_there_are_places_and_what_ends_is_free_again() {
        let places = StreamLimit::new(2, 1);
        let one = places.take(&Caller::Anonymous).expect("a place");
        let two = places.take(&Caller::Anonymous).expect("a place");
        assert_eq!(places.take(&Caller::Anonymous).map(drop), Err(NoPlace::All(2)));
        drop(one);
        let again = places.take(&Caller::Anonymous).expect("a place");
        assert_eq!(places.read(), 2);
        drop((two, again));
        assert_eq!(places.read(), 0);
    }
}
