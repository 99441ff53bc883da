//! Session: one caller's use of the authority. Every check, read and change goes through it.
//!
//! Not here: how a transport finds the caller; see [`super::admission`].

use super::Authority;
use crate::policy::caller::Caller;

/// One caller's use of the authority.
#[derive(Clone)]
pub struct Session<'a> {
    pub(super) authority: &'a Authority,
    pub(super) caller: Caller,
}

impl Authority {
    /// A session of this caller.
    #[must_use]
    pub fn session(&self, caller: Caller) -> Session<'_> {
        Session { authority: self, caller }
    }
}

impl Session<'_> {
    /// The caller.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The caller, without the session.
    #[must_use]
    pub fn into_caller(self) -> Caller {
        self.caller
    }

    /// Whether the caller is still authenticated as it was when its call began.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.authority.is_current(&self.caller)
    }
}
