//! Floor 3, how it is asked: gRPC messages in, one question to the authority, a message out.
//!
//! A handler parses, asks and renders. Not here: any decision, and any rule about what a
//! request means beyond its form.

mod authorization;
mod catalog;
mod change;
mod directory;
mod page;
pub mod parse;
mod render;
pub mod status;

use std::sync::{Arc, OnceLock};

use tonic::Status;

use crate::authority::Authority;

/// What the handlers share: the authority, once the store is open.
#[derive(Clone, Default)]
pub struct Doors(Arc<OnceLock<Authority>>);

impl Doors {
    /// Opens the doors.
    pub fn open(&self, authority: Authority) -> &Authority {
        self.0.get_or_init(|| authority)
    }

    /// The authority, if the doors are open.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.0.get()
    }

    /// The authority, for a handler.
    fn ask(&self) -> Result<&Authority, Status> {
        self.authority().ok_or_else(status::not_open)
    }
}
