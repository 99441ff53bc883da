//! Revision: the number of a committed change.
//!
//! Not here: who assigns it. The engine's writer does, inside the commit.

use std::fmt;

/// The number of a committed change; each commit is one step up, and only a restored store begins
/// further ahead. Zero is the empty store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first change.
    pub const ZERO: Self = Self(0);
    /// The one that the commit in the making will get. It is later than any other, so that a
    /// planned fact already behaves as it will; the engine's commit replaces it.
    pub const NEXT: Self = Self(u64::MAX);

    /// The step after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// This revision, or `assigned` if this is [`Revision::NEXT`].
    #[must_use]
    pub fn or_assigned(self, assigned: Self) -> Self {
        if self == Self::NEXT { assigned } else { self }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
