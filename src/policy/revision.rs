//! Revision: the number of a committed change.
//!
//! Not here: the assignment. The engine's writer assigns revisions, inside the commit.

use std::fmt;

/// The number of a committed change. Each commit adds one; only a restored store jumps further
/// ahead. Zero is the empty store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision before the first change.
    pub const ZERO: Self = Self(0);
    /// A placeholder for the revision of the next commit. It is greater than any other, so that a
    /// planned fact already behaves as it will after the commit, which replaces it.
    pub const NEXT: Self = Self(u64::MAX);

    /// The revision after this one.
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
