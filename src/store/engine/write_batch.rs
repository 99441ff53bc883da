//! WriteBatch: keys with their new values, which an engine applies atomically.

use std::collections::HashMap;

/// A batch of writes. A later write of a key replaces an earlier one.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch(HashMap<Vec<u8>, Option<Vec<u8>>>);

impl WriteBatch {
    /// Sets the value of a key.
    pub fn insert(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.insert(key.into(), Some(value.into()));
    }

    /// Removes a key.
    pub fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.0.insert(key.into(), None);
    }

    /// What the batch does to a key: its new value, or `None` inside if it is removed; `None` if the
    /// batch does nothing to it.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.0.get(key).map(Option::as_deref)
    }

    /// The keys, each with its new value or `None`, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }
}
