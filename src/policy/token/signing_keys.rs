//! Signing keys: the public halves of the keys that sign own tokens, and their states (T28).
//!
//! Not here: the private halves, which are files; see `authority::signing_key_files`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;

use super::key::{Key, Thumbprint};
use super::key_set::KeySet;
use crate::policy::catalog::issuer::Algorithm;
use crate::policy::edit::Stamped;
use crate::policy::revision::Revision;

/// The most keys at a time.
pub const MAX_KEYS: usize = 16;
/// The bytes of an uncompressed point of P-256.
pub const POINT_LEN: usize = 65;

/// The state of a signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It is published, and will sign.
    Next,
    /// It signs.
    Current,
    /// It has signed. It verifies until all that it signed has expired.
    Previous,
}

impl KeyState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Next, Self::Current, Self::Previous];

    /// Its name on the wire, on disk and in the audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "NEXT",
            Self::Current => "CURRENT",
            Self::Previous => "PREVIOUS",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// The public half of a key that signs own tokens, by ES256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// Its thumbprint, which is its `kid`.
    pub id: Thumbprint,
    /// The uncompressed point of P-256.
    pub point: [u8; POINT_LEN],
    /// Its state.
    pub state: KeyState,
    /// The revision that made it.
    pub created_at: Revision,
    /// When it was made.
    pub create_time: Timestamp,
    /// When it got its state.
    pub state_time: Timestamp,
}

impl SigningKey {
    /// A new key with this public half.
    #[must_use]
    pub fn new(point: [u8; POINT_LEN], state: KeyState, now: Timestamp) -> Self {
        Self {
            id: Key::p256(&point).thumbprint,
            point,
            state,
            created_at: Revision::NEXT,
            create_time: now,
            state_time: now,
        }
    }

    /// The key as a member of a JSON Web Key Set (RFC 7517).
    #[must_use]
    pub fn jwk(&self) -> String {
        let coordinates = self.point.get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at_checked(32).unwrap_or_default();
        let (x, y, id) = (BASE64.encode(x), BASE64.encode(y), self.id);
        format!(
            r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","kid":"{id}","use":"sig","alg":"ES256"}}"#
        )
    }
}

/// All signing keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigningKeys {
    keys: Vec<SigningKey>,
    /// The keys that verify: all of them.
    set: KeySet,
    /// The revision that last changed them.
    pub revision: Revision,
}

impl SigningKeys {
    /// These keys, at the revision of their last change.
    #[must_use]
    pub fn new(keys: Vec<SigningKey>, revision: Revision) -> Self {
        let set = keys.iter().map(|key| Key::p256(&key.point)).collect();
        Self { keys, set, revision }
    }

    /// The keys, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &SigningKey> {
        self.keys.iter()
    }

    /// The keys that verify own tokens.
    #[must_use]
    pub fn verifying(&self) -> &KeySet {
        &self.set
    }

    /// The key with this id.
    #[must_use]
    pub fn get(&self, id: &Thumbprint) -> Option<&SigningKey> {
        self.keys.iter().find(|key| key.id == *id)
    }

    /// The newest key in this state.
    #[must_use]
    pub fn in_state(&self, state: KeyState) -> Option<&SigningKey> {
        self.keys.iter().rfind(|key| key.state == state)
    }

    /// Whether there are as many keys as there may be.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.keys.len() >= MAX_KEYS
    }

    /// These keys and a new one.
    #[must_use]
    pub fn with(&self, key: SigningKey) -> Self {
        Self::new(self.keys.iter().cloned().chain([key]).collect(), self.revision)
    }

    /// These keys without one of them.
    #[must_use]
    pub fn without(&self, id: &Thumbprint) -> Self {
        let kept = self.keys.iter().filter(|key| key.id != *id);
        Self::new(kept.cloned().collect(), self.revision)
    }

    /// These keys, of which this one signs from now on.
    #[must_use]
    pub fn signing_with(&self, id: &Thumbprint, now: Timestamp) -> Self {
        let mut keys = self.keys.clone();
        for key in &mut keys {
            let state = match key.state {
                _ if key.id == *id => KeyState::Current,
                KeyState::Current => KeyState::Previous,
                state => state,
            };
            if state != key.state {
                (key.state, key.state_time) = (state, now);
            }
        }
        Self::new(keys, self.revision)
    }

    /// Brings back the times of keys from before an operator set the time back to this time. By a later time
    /// a key would be replaced, or deleted, only when the time has come.
    pub fn accept_clock(&mut self, time: Timestamp) {
        for key in &mut self.keys {
            key.create_time = key.create_time.min(time);
            key.state_time = key.state_time.min(time);
        }
    }

    /// Whether these are `before` without some of its keys. Another key may sign.
    #[must_use]
    pub fn narrows(&self, before: &Self) -> bool {
        self.keys.iter().all(|key| before.get(&key.id).is_some())
    }
}

impl Stamped for SigningKeys {
    fn stamp(&mut self, revision: Revision, time: Timestamp) {
        self.revision = revision;
        for key in self.keys.iter_mut().filter(|key| key.created_at == Revision::NEXT) {
            (key.created_at, key.create_time, key.state_time) = (revision, time, time);
        }
    }
}

/// The algorithm of own tokens.
pub const ALGORITHM: Algorithm = Algorithm::Es256;
