//! EngineError: why sled or the stored data prevents opening or reading a store.

use std::io;

use crate::store::StoreError;
use crate::store::error::Corrupt;

/// Why a store cannot be opened.
pub(super) enum EngineError {
    Sled(sled::Error),
    Newer(u64),
    Damage,
    Store(StoreError),
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged => Self::Damage,
            other => Self::Store(other),
        }
    }
}

impl From<sled::Error> for EngineError {
    fn from(error: sled::Error) -> Self {
        Self::Sled(error)
    }
}

impl From<io::Error> for EngineError {
    fn from(error: io::Error) -> Self {
        Self::Sled(sled::Error::Io(error))
    }
}

impl From<Corrupt> for EngineError {
    fn from(_: Corrupt) -> Self {
        Self::Damage
    }
}

/// Logs sled's error and returns one without its text, so that no driver message reaches a client.
pub(super) fn unavailable(error: &sled::Error) -> StoreError {
    tracing::error!(%error, "reading the store failed");
    match error {
        sled::Error::Corruption { .. } => StoreError::Damaged,
        _ => StoreError::Unavailable,
    }
}
